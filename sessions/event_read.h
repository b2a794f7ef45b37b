/* A line of a session log back into an event: what event_json() wrote, and what other versions
 * may add to it. */
#ifndef SESSIONS_EVENT_READ_H
#define SESSIONS_EVENT_READ_H

#include "base/error.h"
#include "core/event.h"

/* 1 = read: *event owns text and numbers (event_release). 0 = a kind that this version does not
 * know: left out. -1 = no such line: not JSON, or a field is missing or has another type; unknown
 * fields are allowed. EV_OPENED has no model; its text is the line itself. */
int event_read(const char *line, size_t length, struct event *event, struct error *err);
void event_release(struct event *event); // of event_read; takes {0}

/* What a session line says about its checkpoint. */
struct session_origin {
	char version[32], hash[24], time[24];
	char *checkpoint; // the folder; "" = not known
	char (*budgets)[BUDGET_NAME_BYTES];
	int n_budgets;
};

/* From the text of a replayed EV_OPENED. */
int session_origin_read(const struct event *opened, struct session_origin *origin,
						struct error *err);
void session_origin_free(struct session_origin *origin); // takes {0}

#endif
