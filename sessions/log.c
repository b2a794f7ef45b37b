/*
 * Lines gather in `lines` and go out in one write. What a failed write leaves stays in `lines`, so
 * that a later one goes on exactly where the file ends, in the middle of a line too.
 */
#include "sessions/log.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "sessions/event_json.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define BATCH_BYTES (64u << 10)
#define BATCH_NS 200000000u
#define READ_BYTES (64u << 10)

struct session_log {
	char *path,
		*directory; // directory: made when the first turn or message comes; NULL = path is given
	int fd;         // -1 = not open yet
	bool begun, failed;
	uint64_t written_ns; // of the last attempt
	struct text lines;   // not written yet
	struct error error;  // why, while failed
};

static struct session_log *new_log(char *path, char *directory, struct error *err)
{
	struct session_log *log = path ? mem_new(1, sizeof *log, err) : NULL;
	if (!log) {
		free(path);
		free(directory);
		return NULL;
	}
	log->path = path;
	log->directory = directory;
	log->fd = -1;
	return log;
}

/* Named after the present second. */
static char *new_path(const char *folder, struct error *err)
{
	char now[24], name[64];
	clock_utc(now);
	for (char *c = now; *c; c++)
		if (*c == ':')
			*c = '-';
	snprintf(name, sizeof name, "%s-%ld.jsonl", now, (long)getpid());
	return file_join(folder, name, err);
}

struct session_log *session_log_open(const char *directory, struct error *err)
{
	char *folder = directory ? mem_string(directory, strlen(directory), err)
							 : file_place(PLACE_DATA, "sessions", err);
	if (!folder)
		return NULL;
	return new_log(new_path(folder, err), folder, err);
}

struct session_log *session_log_open_file(const char *path, struct error *err)
{
	struct session_log *log = new_log(mem_string(path, strlen(path), err), NULL, err);
	if (log)
		log->begun = true;
	return log;
}

int session_log_check(const struct session_log *log, struct error *err)
{
	if (!log->directory)
		return 0;
	if (file_make_directories(log->directory, err))
		return -1;
	return access(log->directory, W_OK | X_OK)
			   ? fail(err, "%s: %s", log->directory, strerror(errno))
			   : 0;
}

const char *session_log_path(const struct session_log *log)
{
	return log->path;
}

/* Makes the file; a name that is taken (two sessions in one second and process) gets a letter. */
static int create(struct session_log *log, struct error *err)
{
	if (!log->directory) {
		bool out = !strcmp(log->path, "-");
		log->fd = out ? dup(STDOUT_FILENO)
					  : open(log->path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC, 0600);
		return log->fd < 0 ? fail(err, "%s: %s", log->path, strerror(errno)) : 0;
	}
	if (file_make_directories(log->directory, err))
		return -1;
	int flags = O_WRONLY | O_CREAT | O_EXCL | O_APPEND | O_CLOEXEC;
	log->fd = open(log->path, flags, 0600);
	for (char letter = 'b'; log->fd < 0 && errno == EEXIST && letter <= 'z'; letter++) {
		size_t stem = strlen(log->path) - strlen(".jsonl") - (letter > 'b');
		struct text path = {0};
		text_append(&path, log->path, stem);
		text_format(&path, "%c.jsonl", letter);
		char *other = text_take(&path);
		if (!other)
			return fail(err, "%s: no memory", log->path);
		free(log->path);
		log->path = other;
		log->fd = open(log->path, flags, 0600);
	}
	return log->fd < 0 ? fail(err, "%s: %s", log->path, strerror(errno)) : 0;
}

static int write_lines(struct session_log *log, struct error *err)
{
	size_t done = 0;
	int failed = log->fd < 0 ? create(log, err) : 0;
	log->written_ns = clock_ns();
	while (!failed && done < log->lines.length) {
		ssize_t n = write(log->fd, log->lines.data + done, log->lines.length - done);
		if (n > 0)
			done += (size_t)n;
		else if (n < 0 && errno != EINTR)
			failed = fail(err, "%s: %zu bytes can't be written: %s", log->path,
						  log->lines.length - done, strerror(errno));
	}
	if (done > 0) {
		log->lines.length -= done;
		memmove(log->lines.data, log->lines.data + done, log->lines.length + 1);
	}
	return failed;
}

/* Pipes and terminals have nothing to sync. */
static int sync_file(struct session_log *log, struct error *err)
{
	if (log->fd < 0 || fsync(log->fd) == 0 || errno == EINVAL || errno == EROFS || errno == ENOTSUP)
		return 0;
	return fail(err, "%s: fsync: %s", log->path, strerror(errno));
}

/* Another conversation: the file ends here. One that can't be finished goes on instead, and what
 * was never written has nothing to end. */
static int begin_anew(struct session_log *log, const struct event *event, struct error *err)
{
	struct event opened = *event;
	opened.type = EV_OPENED;
	if (!log->directory || (event->type != EV_CLEARED && event->type != EV_OPENED))
		return 0;
	if (log->begun) {
		char *path = new_path(log->directory, err);
		if (!path || (log->lines.length && write_lines(log, err)) || sync_file(log, err)) {
			free(path);
			return -1;
		}
		close(log->fd);
		free(log->path);
		log->path = path;
		log->fd = -1;
		log->begun = log->failed = false;
		return event->type == EV_CLEARED ? event_json(&opened, &log->lines, err) : 0;
	}
	if (event->type == EV_OPENED)
		text_clear(&log->lines);
	return 0;
}

int session_log_record(void *user, const struct event *event, struct error *err)
{
	struct session_log *log = user;
	struct error unknown;
	err = err ? err : &unknown;
	if (begin_anew(log, event, err))
		return -1;
	size_t before = log->lines.length;
	if (event_json(event, &log->lines, err)) {
		log->lines.length = before; // no memory: only what is whole may be written later
		log->lines.failed = false;
		if (log->lines.data)
			log->lines.data[before] = 0;
		return -1;
	}
	if (event->type == EV_TURN || event->type == EV_MESSAGE)
		log->begun = true;
	bool due = event->type != EV_TOKEN || log->lines.length >= BATCH_BYTES ||
			   clock_ns() - log->written_ns >= BATCH_NS;
	if (log->failed) // a full disk is not asked more often than that
		due = event->type == EV_STOP || clock_ns() - log->written_ns >= BATCH_NS;
	if (!log->begun || log->lines.length == 0 || (!due && !log->failed) ||
		(log->lines.length == before && !log->failed))
		return 0;
	int failed = -1;
	if (due) {
		failed = write_lines(log, &log->error);
		if (!failed && event->type == EV_STOP)
			failed = sync_file(log, &log->error);
		log->failed = failed != 0;
	}
	return failed ? fail(err, "%s", log->error.text) : 0;
}

void session_log_close(struct session_log *log)
{
	if (!log)
		return;
	if (log->begun && log->lines.length > 0)
		write_lines(log, NULL);
	if (log->fd >= 0) {
		sync_file(log, NULL);
		close(log->fd);
	}
	text_free(&log->lines);
	free(log->path);
	free(log->directory);
	free(log);
}

/* Hands over the whole lines in text and keeps the rest. -1 = the callback wants no more. */
static int hand_over(struct text *text, int (*line)(void *user, const char *line, size_t length),
					 void *user, int *n)
{
	size_t start = 0;
	const char *end;
	int enough = 0;
	while (!enough && (end = memchr(text->data + start, '\n', text->length - start))) {
		size_t length = (size_t)(end - text->data) - start;
		++*n;
		enough = line(user, text->data + start, length);
		start += length + 1;
	}
	text->length -= start;
	memmove(text->data, text->data + start, text->length + 1);
	return enough ? -1 : 0;
}

int session_log_read(const char *path, int (*line)(void *user, const char *line, size_t length),
					 void *user, size_t *torn, struct error *err)
{
	struct text text = {0};
	int n = 0, failed = 0;
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return fail(err, "%s: %s", path, strerror(errno));
	for (;;) {
		if (!text_reserve(&text, READ_BYTES)) {
			failed =
				fail(err, "%s: no memory for a line of more than %zu bytes", path, text.length);
			break;
		}
		ssize_t got = read(fd, text.data + text.length, READ_BYTES);
		if (got < 0 && errno == EINTR)
			continue;
		if (got < 0)
			failed = fail(err, "%s: %s", path, strerror(errno));
		if (got <= 0)
			break;
		text.length += (size_t)got;
		text.data[text.length] = 0;
		if (hand_over(&text, line, user, &n))
			break;
	}
	if (torn)
		*torn = text.length;
	close(fd);
	text_free(&text);
	return failed ? -1 : n;
}
