#include "core/progress.h"
#include "base/size.h"
#include "core/budget.h"
#include <stdio.h>
#include <string.h>

#define RATE_NS 300000000u // before that a rate says nothing

struct event progress_upload(const char *budget, uint64_t done, uint64_t total, struct text *what)
{
	struct event event = {.type = EV_PROGRESS};
	text_format(what, "uploading %s", budget_name_text(budget));
	event.text = text_chars(what);
	event.length = what->length;
	event.progress.done = (int64_t)done;
	event.progress.total = (int64_t)total;
	event.progress.bytes = true;
	return event;
}

void progress_event(struct progress *p, const struct event *event)
{
	const char *what = event->text ? event->text : "";
	if (event->type != EV_PROGRESS)
		return;
	if (strncmp(p->what, what, sizeof p->what - 1) != 0 || event->progress.done < p->done) {
		*p = (struct progress){.from = event->progress.done, .began_ns = event->at_ns};
		snprintf(p->what, sizeof p->what, "%s", what);
	}
	p->bytes = event->progress.bytes;
	p->done = event->progress.done;
	p->total = event->progress.total;
	p->at_ns = event->at_ns;
	if (p->done >= p->total)
		*p = (struct progress){0};
}

void progress_text(const struct progress *p, struct text *out)
{
	char a[32], b[32];
	double seconds = (double)(p->at_ns - p->began_ns) / 1e9;
	double rate = seconds > 0 ? (double)(p->done - p->from) / seconds : 0;
	text_add(out, p->what);
	if (p->what[0] == '\0' || p->total <= 0)
		return;
	int percent = (int)((double)p->done * 100 / (double)p->total);
	if (p->bytes)
		text_format(out, ": %s of %s (%d%%)", size_text((uint64_t)p->done, a),
					size_text((uint64_t)p->total, b), percent);
	else
		text_format(out, ": %lld of %lld (%d%%)", (long long)p->done, (long long)p->total, percent);
	if (p->at_ns - p->began_ns < RATE_NS || rate <= 0)
		return;
	int left = (int)((double)(p->total - p->done) / rate);
	if (p->bytes)
		text_format(out, ", %s/s", size_text((uint64_t)rate, a));
	text_format(out, ", %d:%02d left", left / 60, left % 60);
}
