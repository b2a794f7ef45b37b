#include "export/staging.h"

#include "base/file.h"
#include "base/memory.h"
#include "base/text.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define MAX_COPY_BYTES ((size_t)256 << 20) // a tokenizer has 20 MB
#define PARTIAL ".partial-"

/* ---- paths ---- */

static char *text_of(struct text *text, struct error *err)
{
	if (text_check(text, err) == 0)
		return text_take(text);
	text_free(text);
	return NULL;
}

/* The path's parent, resolved, and its last part behind it: what a rename will make. */
static char *resolve(const char *path, struct error *err)
{
	size_t n = strlen(path);
	struct text out = {0};
	while (n > 1 && path[n - 1] == '/')
		n--;
	char *copy = mem_string(path, n, err);
	if (!copy)
		return NULL;
	char *slash = strrchr(copy, '/'), *name = slash ? slash + 1 : copy;
	if (name[0] == '\0' || strcmp(name, ".") == 0 || strcmp(name, "..") == 0) {
		fail(err, "%s: expected the name of a directory to make", path);
	} else {
		char first = name[0];
		name[0] = '\0'; // now copy is the parent
		char *parent = realpath(slash ? copy : ".", NULL);
		name[0] = first;
		if (parent)
			text_format(&out, "%s/%s", strcmp(parent, "/") == 0 ? "" : parent, name);
		else
			fail(err, "%s: its parent directory: %s", path, strerror(errno));
		free(parent);
	}
	free(copy);
	return out.length ? text_of(&out, err) : NULL;
}

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Whether `path`, or a directory above it, is the one that `of` describes. */
static bool is_or_inside(const char *path, const struct stat *of)
{
	char *up = strdup(path);
	bool found = false;
	for (struct stat st; up && !found;) {
		found = stat(up, &st) == 0 && same_file(&st, of);
		char *slash = strrchr(up, '/');
		if (!slash || slash == up)
			break;
		*slash = '\0';
	}
	free(up);
	return found;
}

static int check_source(const struct staging *staging, const char *source, struct error *err)
{
	struct stat st, own;
	char *real = realpath(source, NULL);
	int result = 0;
	if (!real || stat(real, &st) != 0)
		result = fail(err, "%s: %s", source, strerror(errno));
	else if (stat(staging->path, &own) == 0 && same_file(&own, &st))
		result = fail(err, "%s: is the source itself, expected another directory", staging->path);
	else if (is_or_inside(staging->path, &st))
		result = fail(err, "%s: is inside the source %s, expected a directory outside of it",
					  staging->path, source);
	else if (stat(staging->path, &own) == 0 && is_or_inside(real, &own))
		result =
			fail(err, "%s: holds the source %s, expected another directory", staging->path, source);
	free(real);
	return result;
}

/* ---- directories ---- */

static char *joined(const char *directory, const char *name)
{
	struct text path = {0};
	text_format(&path, "%s/%s", directory, name);
	return text_take(&path);
}

static bool is_dot(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

/* A directory without directories in it: nothing else is ever removed. */
static int remove_flat(const char *path)
{
	DIR *dir = opendir(path);
	if (!dir)
		return -1;
	for (struct dirent *e; (e = readdir(dir));)
		if (!is_dot(e->d_name))
			(void)unlinkat(dirfd(dir), e->d_name, 0);
	closedir(dir);
	return rmdir(path);
}

static bool is_empty(const char *path)
{
	DIR *dir = opendir(path);
	bool empty = dir != NULL;
	for (struct dirent *e; empty && (e = readdir(dir));)
		empty = is_dot(e->d_name);
	if (dir)
		closedir(dir);
	return empty;
}

/* --force replaces an empty directory, or one that holds a checkpoint and no directories. */
static int check_replaceable(const char *path, struct error *err)
{
	DIR *dir = opendir(path);
	struct stat st;
	bool config = false, any = false;
	int result = 0;
	if (!dir)
		return fail(err, "%s: %s", path, strerror(errno));
	for (struct dirent *e; result == 0 && (e = readdir(dir));) {
		if (is_dot(e->d_name))
			continue;
		any = true;
		config = config || strcmp(e->d_name, "config.json") == 0;
		if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 && S_ISDIR(st.st_mode))
			result = fail(err, "%s: has a directory %s in it, which --force does not remove", path,
						  e->d_name);
	}
	closedir(dir);
	if (result == 0 && any && !config)
		result =
			fail(err, "%s: is no checkpoint (no config.json), which --force does not remove", path);
	return result;
}

static int check_free(struct staging *staging, bool force, struct error *err)
{
	struct stat st;
	if (lstat(staging->path, &st) != 0)
		return errno == ENOENT ? 0 : fail(err, "%s: %s", staging->path, strerror(errno));
	if (!S_ISDIR(st.st_mode))
		return fail(err, "%s: is there already and is no directory", staging->path);
	if (is_empty(staging->path)) // rename() takes its place
		return 0;
	if (!force)
		return fail(err, "%s: is there already; --force replaces it", staging->path);
	staging->replace = true;
	return check_replaceable(staging->path, err);
}

/* Whether a temporary's process may still run. A lock that is free says it not alone: the other has
 * made its directory, and has not locked it yet. */
static bool has_owner(const char *pid)
{
	char *end;
	long owner = strtol(pid, &end, 10);
	if (end == pid || owner <= 0 || owner > INT_MAX || owner == (long)getpid())
		return false;
	return kill((pid_t)owner, 0) == 0 || errno != ESRCH;
}

/* What killed exports to the same name left: their process is gone, their lock is free. */
static void remove_abandoned(const char *path)
{
	char *folder = strdup(path), *slash = folder ? strrchr(folder, '/') : NULL;
	if (!slash) {
		free(folder);
		return;
	}
	char *prefix = joined("", slash + 1);
	*slash = '\0';
	DIR *dir = prefix ? opendir(folder[0] ? folder : "/") : NULL;
	size_t n = prefix ? strlen(prefix) - 1 : 0;
	for (struct dirent *e; dir && (e = readdir(dir));) {
		if (strncmp(e->d_name, prefix + 1, n) != 0 ||
			strncmp(e->d_name + n, PARTIAL, strlen(PARTIAL)) != 0 ||
			has_owner(e->d_name + n + strlen(PARTIAL)))
			continue;
		char *left = joined(folder, e->d_name);
		int fd = left ? open(left, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC) : -1;
		if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
			(void)remove_flat(left);
		if (fd >= 0)
			close(fd);
		free(left);
	}
	if (dir)
		closedir(dir);
	free(prefix);
	free(folder);
}

static int make_temporary(struct staging *staging, struct error *err)
{
	struct text name = {0};
	text_format(&name, "%s" PARTIAL "%ld", staging->path, (long)getpid());
	char *path = text_of(&name, err);
	if (!path)
		return -1;
	if (mkdir(path, 0777) != 0) {
		int result = fail(err, "%s: cannot be written: %s", path, strerror(errno));
		free(path);
		return result;
	}
	staging->temporary = path;
	staging->lock = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (staging->lock >= 0)
		(void)flock(staging->lock, LOCK_EX | LOCK_NB);
	return 0;
}

int staging_open(struct staging *staging, const char *path, const char *source, bool force,
				 struct error *err)
{
	*staging = (struct staging){.lock = -1};
	staging->path = resolve(path, err);
	if (staging->path && check_source(staging, source, err) == 0 &&
		check_free(staging, force, err) == 0) {
		remove_abandoned(staging->path);
		if (make_temporary(staging, err) == 0)
			return 0;
	}
	staging_discard(staging);
	return -1;
}

int staging_check_room(const struct staging *staging, unsigned long long bytes, struct error *err)
{
	struct statvfs fs;
	if (statvfs(staging->temporary, &fs) != 0)
		return 0; // writing will tell
	unsigned long long room = (unsigned long long)fs.f_bavail * fs.f_frsize;
	if (bytes <= room)
		return 0;
	return fail(err, "%s: needs %.1f MB, its disk has %.1f MB free", staging->path,
				(double)bytes / 1e6, (double)room / 1e6);
}

/* ---- files ---- */

int staging_create(const struct staging *staging, const char *name, struct error *err)
{
	char *path = joined(staging->temporary, name);
	if (!path)
		return fail(err, "no memory for the path of %s", name);
	int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		fail(err, "%s: %s", path, strerror(errno));
	free(path);
	return fd;
}

int staging_close_file(int fd, const char *name, struct error *err)
{
	int result = fsync(fd) == 0 || errno == EINVAL || errno == ENOTSUP ? 0 : -1, reason = errno;
	if (close(fd) != 0 && result == 0) {
		result = -1;
		reason = errno;
	}
	return result == 0 ? 0 : fail(err, "%s: cannot be written: %s", name, strerror(reason));
}

int staging_write(const struct staging *staging, const char *name, const char *bytes, size_t n,
				  struct error *err)
{
	int fd = staging_create(staging, name, err);
	if (fd < 0)
		return -1;
	if (file_write_all(fd, bytes, n) == 0)
		return staging_close_file(fd, name, err);
	fail(err, "%s: cannot be written: %s", name, strerror(errno));
	close(fd);
	return -1;
}

int staging_copy(const struct staging *staging, const char *directory, const char *name,
				 struct error *err)
{
	struct text bytes = {0};
	char *path = file_join(directory, name, err);
	int result = path ? file_read(path, MAX_COPY_BYTES, &bytes, err) : -1;
	if (result == 0)
		result = staging_write(staging, name, text_chars(&bytes), bytes.length, err);
	text_free(&bytes);
	free(path);
	return result;
}

/* ---- the end ---- */

/* Where a file system cannot exchange names (NFS): one after the other, and back if that fails. */
static int step_aside(const struct staging *staging)
{
	struct text new = {0};
	int result = -1;
	if (errno != EINVAL && errno != ENOSYS)
		return -1;
	text_format(&new, "%s-new", staging->temporary);
	if (!new.failed && rename(staging->temporary, new.data) == 0) {
		if (rename(staging->path, staging->temporary) == 0) {
			result = rename(new.data, staging->path);
			if (result != 0)
				(void)rename(staging->temporary, staging->path);
		}
		if (result != 0)
			(void)rename(new.data, staging->temporary);
	}
	text_free(&new);
	return result;
}

/* The old one steps aside under the temporary's name before it is removed, so that there is no
 * moment without a whole checkpoint. */
static int exchange(struct staging *staging, struct error *err)
{
	if (!staging->replace && rename(staging->temporary, staging->path) == 0)
		return 0;
	if (!staging->replace && (errno == ENOTEMPTY || errno == EEXIST))
		return fail(err, "%s: has been made meanwhile; --force replaces it", staging->path);
	if (!staging->replace)
		return fail(err, "%s: cannot be put in place: %s", staging->path, strerror(errno));
	if (renameat2(AT_FDCWD, staging->temporary, AT_FDCWD, staging->path, RENAME_EXCHANGE) != 0 &&
		step_aside(staging) != 0)
		return fail(err, "%s: cannot be replaced: %s", staging->path, strerror(errno));
	if (remove_flat(staging->temporary) != 0)
		return fail(err, "%s: the old checkpoint could not be removed: %s", staging->temporary,
					strerror(errno));
	return 0;
}

int staging_commit(struct staging *staging, struct error *err)
{
	if (staging->lock >= 0)
		(void)fsync(staging->lock);
	if (exchange(staging, err) != 0)
		return -1;
	file_sync_folder(staging->path);
	free(staging->temporary);
	staging->temporary = NULL;
	return 0;
}

void staging_discard(struct staging *staging)
{
	if (staging->temporary)
		(void)remove_flat(staging->temporary);
	if (staging->path && staging->lock >= 0)
		close(staging->lock);
	free(staging->temporary);
	free(staging->path);
	*staging = (struct staging){.lock = -1};
}
