/* A folder under $TMPDIR (or /tmp) that a test fills and that is removed with what is in it. */
#ifndef TESTS_UNIT_FOLDER_H
#define TESTS_UNIT_FOLDER_H

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

struct folder {
	char path[256];
	char file[600]; // of the last folder_file()
};

static inline void folder_make(struct folder *folder)
{
	const char *tmp = getenv("TMPDIR");
	snprintf(folder->path, sizeof folder->path, "%.200s/elastiscope-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(folder->path))
		abort();
}

static inline const char *folder_file(struct folder *folder, const char *name)
{
	snprintf(folder->file, sizeof folder->file, "%s/%.300s", folder->path, name);
	return folder->file;
}

static inline void folder_write(struct folder *folder, const char *name, const void *bytes,
								size_t n)
{
	FILE *file = fopen(folder_file(folder, name), "wb");
	if (!file || (n && fwrite(bytes, 1, n, file) != n) || fclose(file) != 0)
		abort();
}

static inline void folder_empty(struct folder *folder)
{
	DIR *dir = opendir(folder->path);
	for (struct dirent *e; dir && (e = readdir(dir));)
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			remove(folder_file(folder, e->d_name)); // also an empty folder
	if (dir)
		closedir(dir);
}

static inline void folder_remove(struct folder *folder)
{
	folder_empty(folder);
	rmdir(folder->path);
}

#endif
