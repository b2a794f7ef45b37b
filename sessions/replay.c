/*
 * No thread: the descriptor is a timer that is due when the next event is. `play_ns` is the time of
 * the recording that has been reached; pauses simply do not count.
 */
#include "sessions/replay.h"
#include "base/clock.h"
#include "base/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#define LONGEST_WAIT_NS 1000000000u // between two turns

struct replay {
	struct engine engine; // first
	const struct session *session;
	double speed;
	int timer;
	bool begun, paused, hurry; // hurry: to the end of the turn
	int steps;                 // tokens to show while paused
	size_t next;               // event
	uint64_t due_ns;           // when it is due; clock_ns()
	struct gauges gauges;
	bool told_end;
	char end[160];
	struct event over;
};

static bool is_token(const struct event *event)
{
	return event->type == EV_TOKEN && event->seq == 0 && !event->token.given;
}

/* Makes the descriptor readable when the next event is due. */
static void arm(struct replay *replay)
{
	struct itimerspec spec = {0};
	bool held = replay->paused && replay->steps == 0;
	if (replay->begun && !held && !replay->told_end) {
		uint64_t due = replay->due_ns ? replay->due_ns : 1; // 0 would disarm it
		spec.it_value = (struct timespec){(time_t)(due / 1000000000u), (long)(due % 1000000000u)};
	}
	timerfd_settime(replay->timer, TFD_TIMER_ABSTIME, &spec, NULL);
}

/* How long after the event before it this one comes. */
static uint64_t wait_of(const struct replay *replay, size_t i)
{
	const struct event *events = replay->session->events;
	if (i == 0 || i >= replay->session->n_events || replay->speed <= 0 || replay->hurry ||
		replay->paused || events[i].at_ns <= events[i - 1].at_ns)
		return 0;
	uint64_t wait = events[i].at_ns - events[i - 1].at_ns;
	bool idle = !replay->gauges.busy;
	if (idle && wait > LONGEST_WAIT_NS)
		wait = LONGEST_WAIT_NS;
	double scaled = (double)wait / replay->speed;
	return scaled < 1e18 ? (uint64_t)scaled : 0;
}

/* What the gauges of the recorded engine showed, as far as events tell. */
static void gauge(struct replay *replay, const struct event *event)
{
	struct gauges *gauges = &replay->gauges;
	const char *budget = NULL;
	if (event->type == EV_OPENED)
		gauges->context_size = event->opened.context;
	if (event->seq != 0)
		return;
	switch (event->type) {
	case EV_TURN:
		gauges->busy = true;
		gauges->thought_tokens = 0;
		gauges->phase = event->turn.settings.thinking ? PHASE_THINK : PHASE_ANSWER;
		break;
	case EV_PREFILL:
		gauges->context_used = event->prefill.from + event->prefill.tokens;
		budget = event->prefill.budget;
		break;
	case EV_TOKEN:
		gauges->context_used = event->token.at;
		gauges->phase = event->token.thinking_ends ? PHASE_ANSWER : event->token.phase;
		gauges->thought_tokens += event->token.phase == PHASE_THINK;
		budget = event->token.budget;
		break;
	case EV_SWITCH: budget = event->change.to; break;
	case EV_STOP:
		gauges->busy = false;
		replay->hurry = false;
		break;
	default: break;
	}
	if (budget)
		memcpy(gauges->budget, budget, strnlen(budget, BUDGET_NAME_BYTES - 1) + 1);
}

/* Behind the last event: that it is the last. */
static const struct event *end(struct replay *replay)
{
	int tokens = 0;
	if (replay->gauges.busy) { // the log ends inside a turn
		replay->gauges.busy = false;
		replay->over = (struct event){.type = EV_STOP, .stop.reason = STOP_STOPPED};
		return &replay->over;
	}
	for (size_t i = 0; i < replay->session->n_events; i++)
		tokens += is_token(&replay->session->events[i]);
	replay->told_end = true;
	snprintf(replay->end, sizeof replay->end, "the replay is over: %zu turn%s, %d tokens",
			 replay->session->n_turns, replay->session->n_turns == 1 ? "" : "s", tokens);
	replay->over =
		(struct event){.type = EV_NOTICE, .text = replay->end, .length = strlen(replay->end)};
	if (replay->session->n_events)
		replay->over.at_ns = replay->session->events[replay->session->n_events - 1].at_ns;
	arm(replay);
	return &replay->over;
}

static const struct event *next(struct engine *engine)
{
	struct replay *replay = (struct replay *)engine;
	uint64_t expirations, now = clock_ns();
	ssize_t ignored = read(replay->timer, &expirations, sizeof expirations);
	(void)ignored;
	bool held = replay->paused && replay->steps == 0;
	if (!replay->begun || held || replay->told_end || replay->due_ns > now) {
		arm(replay);
		return NULL;
	}
	if (replay->next >= replay->session->n_events)
		return end(replay);
	const struct event *event = &replay->session->events[replay->next++];
	gauge(replay, event);
	if (replay->paused && is_token(event))
		replay->steps--;
	uint64_t wait = wait_of(replay, replay->next);
	// from when this one was due, so that lateness does not add up; but not from long ago
	uint64_t from = now - replay->due_ns < LONGEST_WAIT_NS ? replay->due_ns : now;
	replay->due_ns = from + wait;
	arm(replay);
	return event;
}

static int submit(struct engine *engine, const struct request *request, struct error *err)
{
	struct replay *replay = (struct replay *)engine;
	uint64_t now = clock_ns();
	switch (request->type) {
	case REQUEST_OPEN:
		if (replay->begun)
			return fail(err, "this is a replay; start elastiscope DIR for a model");
		replay->begun = true;
		replay->due_ns = now;
		break;
	case REQUEST_TURN:
	case REQUEST_COMPLETE:
		return fail(err, "this is a replay: there is no model that could answer");
	case REQUEST_CLEAR: return fail(err, "this is a replay; it goes its own way");
	case REQUEST_PAUSE:
		replay->paused = request->value != 0;
		replay->steps = 0;
		replay->gauges.paused = replay->paused;
		replay->due_ns = now;
		break;
	case REQUEST_STEP: replay->steps += replay->paused; break;
	case REQUEST_STOP:
		replay->hurry = replay->gauges.busy;
		replay->due_ns = now;
		break;
	default: break;
	}
	arm(replay);
	return 0;
}

static int descriptor(struct engine *engine)
{
	return ((struct replay *)engine)->timer;
}

static void gauges(struct engine *engine, struct gauges *out)
{
	*out = ((struct replay *)engine)->gauges;
}

static int experts(struct engine *engine, struct expert_counts *out, struct error *err)
{
	(void)engine, (void)err; // logs do not have them
	out->n_layers = out->n_experts = 0;
	return 0;
}

static void close_replay(struct engine *engine)
{
	struct replay *replay = (struct replay *)engine;
	if (!replay)
		return;
	if (replay->timer >= 0)
		close(replay->timer);
	free(replay);
}

struct engine *engine_replay_open(const struct engine_options *options, struct error *err)
{
	static const struct engine_table table = {submit, descriptor, next,
											  gauges, experts,    close_replay};
	const struct replay_options *wanted = options->record_user;
	struct replay *replay = mem_new(1, sizeof *replay, err);
	if (!replay)
		return NULL;
	replay->engine.table = &table;
	replay->session = wanted->session;
	replay->speed = wanted->speed;
	replay->timer = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC);
	if (replay->timer < 0) {
		fail(err, "no timer for the replay");
		free(replay);
		return NULL;
	}
	return &replay->engine;
}

bool engine_replay_over(const struct engine *engine)
{
	return ((const struct replay *)engine)->told_end;
}
