#include "base/file.h"
#include "base/memory.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int read_all(int fd, const char *path, size_t max_bytes, struct text *out, struct error *err)
{
	struct stat st;
	size_t total = 0;
	if (fstat(fd, &st) < 0)
		return fail(err, "%s: %s", path, strerror(errno));
	if (S_ISDIR(st.st_mode))
		return fail(err, "%s is a directory, expected a file", path);
	if (!S_ISREG(st.st_mode))
		return fail(err, "%s is not a regular file", path);
	if (st.st_size > 0 && (uint64_t)st.st_size > max_bytes)
		return fail(err, "%s has %lld bytes, at most %zu are read", path, (long long)st.st_size,
					max_bytes);
	text_reserve(out, (size_t)st.st_size + 1); // one more, so that the last read() meets the end
	while (text_reserve(out, 1)) {
		ssize_t n = read(fd, out->data + out->length, out->capacity - out->length - 1);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return fail(err, "%s: %s", path, strerror(errno));
		if (n == 0)
			return 0;
		total += (size_t)n;
		out->length += (size_t)n;
		out->data[out->length] = 0;
		if (total > max_bytes)
			return fail(err, "%s has more than %zu bytes", path, max_bytes);
	}
	text_check(out, err);
	return fail_in(err, "%s", path);
}

int file_read(const char *path, size_t max_bytes, struct text *out, struct error *err)
{
	// without O_NONBLOCK a FIFO would hold us until somebody writes
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return fail(err, "%s: %s", path, strerror(errno));
	int result = read_all(fd, path, max_bytes, out, err);
	close(fd);
	return result;
}

bool file_exists(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISREG(st.st_mode);
}

bool file_is_directory(const char *path)
{
	struct stat st;
	return stat(path, &st) == 0 && S_ISDIR(st.st_mode);
}

static char *take_path(struct text *path, struct error *err)
{
	if (text_check(path, err) < 0) {
		text_free(path);
		return NULL;
	}
	return text_take(path);
}

char *file_join(const char *directory, const char *name, struct error *err)
{
	struct text path = {0};
	size_t length = strlen(directory);
	if (name[0] != '/' && length) {
		text_append(&path, directory, length);
		if (name[0] && directory[length - 1] != '/')
			text_add_char(&path, '/');
	}
	text_add(&path, name);
	return take_path(&path, err);
}

int file_make_directories(const char *path, struct error *err)
{
	char *copy = mem_string(path, strlen(path), err);
	int result = 0;
	if (!copy)
		return -1;
	for (char *at = copy; *at && result == 0;) {
		at += strspn(at, "/");
		at += strcspn(at, "/");
		char slash = *at;
		*at = 0;
		// mkdir may fail with EACCES or EROFS where the folder is there already
		if (copy[0] && mkdir(copy, 0700) < 0 && !file_is_directory(copy))
			result = fail(err, "can't create the folder %s: %s", copy, strerror(errno));
		*at = slash;
	}
	free(copy);
	return result;
}

char *file_place(enum file_place place, const char *name, struct error *err)
{
	static const struct {
		const char *variable, *under_home;
	} places[] = {
		[PLACE_CONFIG] = {"XDG_CONFIG_HOME", ".config"},
		[PLACE_DATA] = {"XDG_DATA_HOME", ".local/share"},
		[PLACE_CACHE] = {"XDG_CACHE_HOME", ".cache"},
		[PLACE_STATE] = {"XDG_STATE_HOME", ".local/state"},
	};
	struct text path = {0};
	const char *base = getenv(places[place].variable);
	if (base && base[0] == '/') { // the specification: a relative path is to be ignored
		text_add(&path, base);
	} else {
		const char *home = getenv("HOME");
		if (!home || !home[0]) {
			fail(err, "neither %s nor HOME is set", places[place].variable);
			return NULL;
		}
		text_format(&path, "%s/%s", home, places[place].under_home);
	}
	text_add(&path, "/elastiscope");
	if (name && name[0])
		text_format(&path, "/%s", name);
	return take_path(&path, err);
}

/* The folder of the running executable, without a slash at its end; false if nobody knows. */
static bool executable_folder(char *out, size_t size)
{
	ssize_t n = readlink("/proc/self/exe", out, size - 1);
	if (n <= 0 || (size_t)n >= size - 1)
		return false;
	out[n] = 0;
	char *slash = strrchr(out, '/');
	if (!slash)
		return false;
	*slash = 0;
	return true;
}

/* directory/relative/name, without links and dots, if it exists. */
static char *existing(const char *directory, const char *relative, const char *name)
{
	struct text path = {0};
	text_format(&path, "%s%s/%s", directory, relative, name);
	char *found = path.failed ? NULL : realpath(path.data, NULL);
	text_free(&path);
	return found;
}

char *file_shared(const char *name, struct error *err)
{
	char folder[4096];
	const char *given = getenv("ELASTISCOPE_SHARE");
	char *found = NULL;
	if (given && given[0]) {
		found = existing(given, "", name);
		if (!found)
			fail(err, "ELASTISCOPE_SHARE is %s, but there is no %s in it", given, name);
		return found;
	}
	if (executable_folder(folder, sizeof folder)) {
		// the build folder may be anywhere, a test program lies deeper in it
		size_t build = strlen(ELASTISCOPE_BUILD);
		if (strncmp(folder, ELASTISCOPE_BUILD, build) == 0 &&
			(folder[build] == '/' || !folder[build]))
			found = existing(ELASTISCOPE_SOURCE, "", name);
		if (!found)
			found = existing(folder, "/../share/elastiscope", name);
	}
	if (!found)
		found = existing(ELASTISCOPE_DATA, "", name);
	if (!found)
		fail(err,
			 "there is no %s beside the program nor in %s; set ELASTISCOPE_SHARE to the folder "
			 "that has it",
			 name, ELASTISCOPE_DATA);
	return found;
}
