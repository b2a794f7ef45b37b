#include "tui/meter.h"
#include <stdio.h>
#include <unistd.h>

#define SHORT_NS 1000000000u

void meter_clear(struct meter *meter)
{
	if (meter->drawn)
		fputs("\r\033[K", stderr); // what follows begins a line
	meter->drawn = false;
}

void meter_event(struct meter *meter, const struct event *event)
{
	progress_event(&meter->progress, event);
	const struct progress *p = &meter->progress;
	bool ours = event->type == EV_PROGRESS && p->what[0];
	meter_clear(meter);
	meter->drawn = ours && p->at_ns - p->began_ns > SHORT_NS && isatty(STDERR_FILENO);
	if (meter->drawn) {
		struct text line = {0};
		progress_text(p, &line);
		fprintf(stderr, "%s", text_chars(&line));
		text_free(&line);
	}
	fflush(stderr);
}
