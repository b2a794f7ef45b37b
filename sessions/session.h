/*
 * A session log in memory: its events, and what they were about: turns, and the conversation as the
 * tree of messages that it was (an undone or retried turn is a branch). Logs of other versions are
 * read as far as they are understood; a torn last line, broken lines and unknown kinds of events
 * are counted and left out.
 */
#ifndef SESSIONS_SESSION_H
#define SESSIONS_SESSION_H

#include "core/conversation.h"
#include "core/reply.h"
#include "sessions/event_read.h"

struct session_turn { // of seq 0; those of a compare column that was kept are made so
	int left; // the turn (index) whose answer it leaves or follows, where its event says so; -1
	size_t first, end;  // its events: from EV_TURN to behind EV_STOP (or where the log ends)
	int opening;        // index in openings, -1 = the log names no checkpoint
	int user, answer;   // messages of the conversation, NO_MESSAGE = none
	int active_before;  // the message that it follows
	const char *system; // borrowed from its event; NULL = none
	bool over;          // has its EV_STOP
	struct reply reply;
};

struct session_opening { // a checkpoint was opened
	size_t event;
	struct session_origin origin;
};

struct session {
	char *path;
	struct event *events; // each owns its text and numbers
	size_t n_events, events_capacity;
	struct session_opening *openings;
	size_t n_openings, openings_capacity;
	struct session_turn *turns;
	size_t n_turns, turns_capacity;
	struct conversation conversation; // active: the last message said
	size_t torn_bytes;
	int n_broken, n_unknown; // lines
	struct error broken;     // the first broken line
};

/* -1: no file, no memory, or not one line of it is an event. */
int session_read(const char *path, struct session *session, struct error *err);
void session_free(struct session *session); // takes {0}

/* What was opened last; NULL = the log does not say. */
const struct session_origin *session_last_origin(const struct session *session);

/* Whether the conversation can go on with this checkpoint; else a sentence that names both. */
int session_check_hash(const struct session *session, const char *hash, struct error *err);

/* The turn that this message of the conversation is the answer of, or NULL. */
const struct session_turn *session_turn_of(const struct session *session, int answer);

/* The turn with this id that was the last before `n` of them, or -1: ids are those of one run. */
int session_find_turn(const struct session *session, int id, size_t n);

/* One line about what could not be read; nothing if all could. */
void session_damage(const struct session *session, struct text *out);

#endif
