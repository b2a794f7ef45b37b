/*
 * What happened, on disk: one JSONL file a session (one checkpoint, one conversation: with another
 * one a new file begins), append-only, one write() per batch of events, fsync at the end of a turn.
 * A torn last line is what a crash may leave, and readers tolerate it. A failed write (a full disk)
 * is an error that names the file; later events are tried again, nothing stops.
 */
#ifndef SESSIONS_LOG_H
#define SESSIONS_LOG_H

#include "base/error.h"
#include "core/event.h"

struct session_log;

/* directory NULL: $XDG_DATA_HOME/elastiscope/sessions, made if needed; the file's name is date,
 * time and pid. Nothing is created before the first turn or message; EV_OPENED and EV_CLEARED
 * behind these end the file, and the next one begins with the session line. */
struct session_log *session_log_open(const char *directory, struct error *err);

/* Exactly this file (--events FILE; "-" = stdout). */
/* Whether the log's folder is there and can be written, or can be made; an error says why not. The
 * file itself comes with the first message. */
int session_log_check(const struct session_log *log, struct error *err);

struct session_log *session_log_open_file(const char *path, struct error *err);
void session_log_close(struct session_log *log);             // takes NULL
const char *session_log_path(const struct session_log *log); // until the next event

/* Fits engine_options.record. Tokens are batched: written when a turn ends, 64 KiB are full, or an
 * event other than a token comes, or 200 ms have passed. */
int session_log_record(void *log, const struct event *event, struct error *err);

/* The lines of a log that are whole. For each: line (without newline). Returns lines read, -1 on
 * error; *torn = bytes of an unfinished last line. */
int session_log_read(const char *path, int (*line)(void *user, const char *line, size_t length),
					 void *user, size_t *torn, struct error *err);

#endif
