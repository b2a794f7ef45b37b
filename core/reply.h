/*
 * One turn put together from its events: what the model said, where budgets changed, what it cost.
 * The conversation's owner appends reasoning and text from here; `chat --json` prints it.
 */
#ifndef CORE_REPLY_H
#define CORE_REPLY_H

#include "base/text.h"
#include "core/event.h"

struct segment { // consecutive tokens of one phase and budget
	enum phase phase;
	char budget[BUDGET_NAME_BYTES];
	int tokens, steps;
	uint64_t took_ns;
};

struct reply_switch {
	int at;
	char from[BUDGET_NAME_BYTES], to[BUDGET_NAME_BYTES];
	enum handoff handoff;
	int repair, replayed;
	enum switch_reason reason;
	char why[RULE_REASON_BYTES]; // a policy's reason, "" = none
	uint64_t took_ns;
	int32_t *stale;
	size_t n_stale;
};

struct reply {
	/* Without tags; the newline before </think> and the one behind it belong to the format and to
	 * neither (core/chat.h), so that what is rendered next equals what was generated. */
	struct text reasoning, answer;
	bool thinking, answered; // the turn began inside <think>; the answer has begun
	struct segment *segments;
	size_t n_segments, segments_capacity;
	struct reply_switch *switches;
	size_t n_switches, switches_capacity;
	int prompt_tokens, cached_tokens, reasoning_tokens, completion_tokens;
	uint64_t prefill_ns, decode_ns, first_ns, total_ns;
	int decode_steps;
	bool done, failed;
	enum stop_reason reason;
	char error[512];
};

/* Events of one seq; EV_TURN starts it anew. Memory that runs out ends in failed. */
void reply_event(struct reply *reply, const struct event *event);
void reply_free(struct reply *reply); // takes {0}

#endif
