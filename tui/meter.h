/* The progress of long work as one line of standard error, drawn over itself: on a terminal only,
 * and only of what takes longer than a second. */
#ifndef TUI_METER_H
#define TUI_METER_H

#include "core/progress.h"

struct meter {
	struct progress progress;
	bool drawn; // the line is there
};

void meter_clear(struct meter *meter);
void meter_event(struct meter *meter, const struct event *event); // any: it knows its own

#endif
