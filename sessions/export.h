/* A session for people and other programs. */
#ifndef SESSIONS_EXPORT_H
#define SESSIONS_EXPORT_H

#include "base/text.h"
#include "sessions/session.h"

struct cJSON;

/* The conversation (its active path) with seeds, budgets and switches. */
void session_markdown(const struct session *session, struct text *out);

/* {version, checkpoint, hash, budgets, time, messages (OpenAI form, with reasoning_content), turns:
 * [{id, seed, ..., text, reasoning, usage, timings, segments, switches}], damage}: messages are the
 * active path's, turns are all. NULL without memory. */
struct cJSON *session_json(const struct session *session);

/* A row a token of all turns. */
void session_csv(const struct session *session, struct text *out);

#endif
