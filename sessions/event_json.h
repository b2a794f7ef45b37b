/* An event as one line of JSON, the format of session logs and of `--events` (design:
 * docs/files.md). */
#ifndef SESSIONS_EVENT_JSON_H
#define SESSIONS_EVENT_JSON_H

#include "base/text.h"
#include "core/event.h"

/* "session", "turn" ...; NULL = not logged. */
const char *event_type_name(enum event_type type);

/* Appends the line with its newline; nothing for events that are not logged (progress). */
int event_json(const struct event *event, struct text *out, struct error *err);

#endif
