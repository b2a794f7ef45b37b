/*
 * Long work as EV_PROGRESS tells of it: what, how far, how fast. For a status line or a line on a
 * terminal.
 */
#ifndef CORE_PROGRESS_H
#define CORE_PROGRESS_H

#include "base/text.h"
#include "core/event.h"

struct progress {
	char what[128]; // "" = nothing is under way
	bool bytes;
	int64_t done, total; // total 0 = not known
	int64_t from;        // done when it began
	uint64_t began_ns, at_ns;
};

/* EV_PROGRESS of an upload (core/upload.h); what it says lies in *what, which must be empty. */
struct event progress_upload(const char *budget, uint64_t done, uint64_t total, struct text *what);

/* Takes EV_PROGRESS, and the end of it; other events change nothing. */
void progress_event(struct progress *progress, const struct event *event);

/* Appends "uploading large: 12.30 GiB of 59.00 GiB (20%), 3.10 GiB/s, 0:15 left". */
void progress_text(const struct progress *progress, struct text *out);

#endif
