/* Files that are there whole or not at all: written under another name, synced, renamed. */
#include "base/file.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

int file_write_all(int fd, const void *bytes, size_t n)
{
	const char *p = bytes;
	while (n) {
		ssize_t done = write(fd, p, n < ((size_t)1 << 30) ? n : (size_t)1 << 30);
		if (done < 0 && errno == EINTR)
			continue;
		if (done <= 0)
			return -1;
		p += done;
		n -= (size_t)done;
	}
	return 0;
}

/* So that the new name itself survives a crash; not every file system can, so failure is no error.
 */
void file_sync_folder(const char *path)
{
	const char *slash = strrchr(path, '/');
	char *folder = slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
	int fd = folder ? open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC) : -1;
	if (fd >= 0) {
		(void)fsync(fd);
		close(fd);
	}
	free(folder);
}

/* A new file beside path, with the permissions of an ordinary one (mkstemp's are 0600). */
static int open_temporary(const char *path, struct text *name)
{
	for (int i = 0; i < 100; i++) {
		text_clear(name);
		text_format(name, "%s.tmp-%ld-%d", path, (long)getpid(), i);
		if (text_check(name, NULL) != 0) {
			errno = ENOMEM;
			return -1;
		}
		int fd = open(name->data, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
		if (fd >= 0 || errno != EEXIST)
			return fd;
	}
	return -1;
}

int file_replace(const char *path, int (*fill)(int fd, void *user), void *user, struct error *err)
{
	struct text temporary = {0};
	struct stat st;
	// a rename would put a file in the place of /dev/null
	if (stat(path, &st) == 0 && !S_ISREG(st.st_mode))
		return fail(err, "%s: is %s, expected a file", path,
					S_ISDIR(st.st_mode) ? "a directory" : "no regular file");
	int fd = open_temporary(path, &temporary), result = 0;
	if (fd < 0) {
		result = fail(err, "%s: %s", path, strerror(errno));
		text_free(&temporary);
		return result;
	}
	if (fill(fd, user) != 0 || fsync(fd) != 0)
		result = fail(err, "%s: cannot be written: %s", path, strerror(errno));
	if (close(fd) != 0 && result == 0)
		result = fail(err, "%s: cannot be written: %s", path, strerror(errno));
	if (result == 0 && rename(temporary.data, path) != 0)
		result = fail(err, "%s: cannot be put in place: %s", path, strerror(errno));
	if (result != 0)
		unlink(temporary.data);
	else
		file_sync_folder(path);
	text_free(&temporary);
	return result;
}

static int fill_text(int fd, void *user)
{
	const struct text *text = user;
	return file_write_all(fd, text_chars(text), text->length);
}

int file_write(const char *path, struct text *text, struct error *err)
{
	return text_check(text, err) < 0 ? -1 : file_replace(path, fill_text, text, err);
}
