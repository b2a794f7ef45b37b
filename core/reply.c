#include "core/reply.h"
#include "base/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void no_memory(struct reply *reply)
{
	reply->failed = true;
	strcpy(reply->error, "no memory for the reply");
}

static void start(struct reply *reply, const struct event *event)
{
	struct text reasoning = reply->reasoning, answer = reply->answer;
	struct reply kept = {.segments = reply->segments,
						 .segments_capacity = reply->segments_capacity,
						 .switches = reply->switches,
						 .switches_capacity = reply->switches_capacity};
	for (size_t i = 0; i < reply->n_switches; i++)
		free(reply->switches[i].stale);
	*reply = kept;
	text_clear(&reasoning);
	text_clear(&answer);
	reply->reasoning = reasoning;
	reply->answer = answer;
	reply->thinking = event->turn.settings.thinking;
}

static void count(struct reply *reply, const struct event *event)
{
	struct segment *last = reply->n_segments ? &reply->segments[reply->n_segments - 1] : NULL;
	if (!last || last->phase != event->token.phase || strcmp(last->budget, event->token.budget)) {
		if (mem_grow(&reply->segments, &reply->segments_capacity, reply->n_segments + 1,
					 sizeof *reply->segments, NULL)) {
			no_memory(reply);
			return;
		}
		last = &reply->segments[reply->n_segments++];
		*last = (struct segment){.phase = event->token.phase};
		memcpy(last->budget, event->token.budget, sizeof last->budget);
	}
	int step = event->token.took_ns > 0;
	last->tokens++;
	last->steps += step;
	last->took_ns += event->token.took_ns;
	reply->completion_tokens++;
	reply->reasoning_tokens += event->token.phase == PHASE_THINK;
	reply->decode_steps += step;
	reply->decode_ns += event->token.took_ns;
}

static void drop_last_newline(struct text *text)
{
	if (text->length > 0 && text->data[text->length - 1] == '\n')
		text->data[--text->length] = 0;
}

static void token(struct reply *reply, const struct event *event)
{
	const char *bytes = event->text;
	size_t length = bytes ? event->length : 0;
	if (!event->token.given)
		count(reply, event);
	if (event->token.phase == PHASE_THINK) {
		text_append(&reply->reasoning, bytes, length);
		if (event->token.thinking_ends)
			drop_last_newline(&reply->reasoning);
	} else if (length > 0) {
		bool first = reply->thinking && !reply->answered && bytes[0] == '\n';
		reply->answered = true;
		text_append(&reply->answer, bytes + first, length - first);
	}
	if (reply->reasoning.failed || reply->answer.failed)
		no_memory(reply);
}

static void change(struct reply *reply, const struct event *event)
{
	if (mem_grow(&reply->switches, &reply->switches_capacity, reply->n_switches + 1,
				 sizeof *reply->switches, NULL)) {
		no_memory(reply);
		return;
	}
	struct reply_switch *to = &reply->switches[reply->n_switches++];
	*to = (struct reply_switch){.at = event->change.at,
								.handoff = event->change.handoff,
								.repair = event->change.repair,
								.replayed = event->change.replayed,
								.reason = event->change.reason,
								.took_ns = event->change.took_ns};
	memcpy(to->from, event->change.from, sizeof to->from);
	memcpy(to->to, event->change.to, sizeof to->to);
	snprintf(to->why, sizeof to->why, "%s", event->text ? event->text : "");
	if (event->n_numbers == 0)
		return;
	to->stale = mem_new(event->n_numbers, sizeof *to->stale, NULL);
	if (!to->stale) {
		no_memory(reply);
		return;
	}
	memcpy(to->stale, event->numbers, event->n_numbers * sizeof *to->stale);
	to->n_stale = event->n_numbers;
}

static void stop(struct reply *reply, const struct event *event)
{
	reply->done = true;
	reply->reason = event->stop.reason;
	reply->failed |= event->stop.reason == STOP_ERROR;
	reply->first_ns = event->stop.first_ns;
	reply->total_ns = event->stop.took_ns;
	if (event->stop.phase == PHASE_THINK && reply->thinking)
		drop_last_newline(&reply->reasoning);
}

void reply_event(struct reply *reply, const struct event *event)
{
	switch (event->type) {
	case EV_TURN: start(reply, event); break;
	case EV_PREFILL:
		reply->prompt_tokens += event->prefill.tokens + event->prefill.cached;
		reply->cached_tokens += event->prefill.cached;
		reply->prefill_ns += event->prefill.took_ns;
		break;
	case EV_TOKEN: token(reply, event); break;
	case EV_SWITCH: change(reply, event); break;
	case EV_STOP: stop(reply, event); break;
	case EV_ERROR: {
		size_t n = event->text ? strnlen(event->text, sizeof reply->error - 1) : 0;
		memcpy(reply->error, event->text ? event->text : "", n);
		reply->error[n] = 0;
		break;
	}
	default: break;
	}
}

void reply_free(struct reply *reply)
{
	text_free(&reply->reasoning);
	text_free(&reply->answer);
	for (size_t i = 0; i < reply->n_switches; i++)
		free(reply->switches[i].stale);
	free(reply->segments);
	free(reply->switches);
	*reply = (struct reply){0};
}
