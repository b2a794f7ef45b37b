/*
 * The engine as everybody above sees it: requests go in, events come out. engine_local runs the
 * model on a worker thread, sessions/replay.c plays a log, tests/engine/ a script, all through this
 * interface. Calls come from one thread, the owner's.
 */
#ifndef CORE_ENGINE_H
#define CORE_ENGINE_H

#include "base/error.h"
#include "core/conversation.h"
#include "core/event.h"

enum request_type {
	REQUEST_OPEN,   // directory, budgets_file, lenient, or model; EV_OPENED, or EV_ERROR: all stays
	REQUEST_DEVICE, // text: "cpu", "cuda:N", .. (backend_choose): the open model moves there.
					// EV_OPENED, and the next turn reads the conversation again; or EV_ERROR, and
					// all stays
	REQUEST_TURN,     // messages + settings: the model answers. With tokens it goes on from exactly
					  // these ids (prompt and answer so far, perhaps another last one: a branch)
					  // instead of the rendered messages; whether it thinks is read off them
	REQUEST_COMPLETE, // tokens or text + settings: raw continuation, no chat format, no BOS
	REQUEST_SETTINGS, // settings for what is running and the next turn: budget, policy, handoff,
					  // limit
	REQUEST_STOP,     // end the generation, keep the text
	REQUEST_END_THINKING,
	REQUEST_PACE,   // value: tokens/s of the largest budget, 0 = as fast as it goes
	REQUEST_PAUSE,  // value: 1 pause, 0 go on
	REQUEST_STEP,   // one token while paused
	REQUEST_MEMORY, // EV_MEMORY soon
	REQUEST_CLEAR, // forget the sequence: a new conversation, or a column, whose memory is released
	REQUEST_SAY,   // conversation: what was said elsewhere, for the log; nobody answers
	REQUEST_FORK,  // value: another seq, whose tokens and state are copied to this one, so that
				   // columns and branches start warm; in order, when both are idle. To seq 0:
				   // EV_KEPT
};

struct request {
	enum request_type type;
	int seq;
	const char *directory, *budgets_file; // OPEN
	struct model *model; // OPEN: one that is open already, retained, instead of a directory
	bool lenient;
	const struct conversation
		*conversation; // TURN: its active path; the last message is the user's
	/* COMPLETE: (n_tokens), or text. TURN: NULL = render the conversation, else exactly these ids:
	 * n_prompt of them are the prompt, the rest the answer so far, whose tokens come as events that
	 * are `given`. */
	const int32_t *tokens;
	int n_tokens, n_prompt;
	/* TURN: it does not go on from the turn before. With tokens it leaves the answer of turn
	 * `left`, without it follows that; -1 = a turn of another log. */
	bool branched;
	int left;
	const char *text;
	bool stop_eos; // COMPLETE: end at stop ids
	struct turn_settings settings;
	double value;
};

/* The newest numbers, not events: read under a mutex at any time. */
struct gauges {
	bool busy, paused, prefilling;
	enum phase phase;
	char budget[BUDGET_NAME_BYTES]; // that reads the next token
	int context_used, context_size;
	int thought_tokens; // of this turn
	int prefill_done, prefill_total;
	double pace;
	bool log_failed;
	struct device_gauges card; // as of the newest EV_MEMORY, and so:
	int64_t read_bytes;        // weights, of all that are there, that the running budget uses
};

/* Routing counts since the model was opened: counts[(phase * n_layers + layer) * n_experts + e]
 * with the parent's layers and stored expert indices; phase prefill, think, answer. */
struct expert_counts {
	int n_layers, n_experts;
	uint32_t *counts;
	uint64_t version; // grows with every change
};

struct engine {
	const struct engine_table *table;
};

struct engine_table {
	/* Copies the request (its conversation's active path, texts, tokens); never waits for the
	 * model. */
	int (*submit)(struct engine *engine, const struct request *request, struct error *err);
	int (*fd)(struct engine *engine); // readable while events wait
	const struct event *(*next)(
		struct engine *engine); // NULL = none now; valid until the next call
	void (*gauges)(struct engine *engine, struct gauges *out);
	/* Copies into out (grown as needed, free(out->counts)); version tells whether it changed. */
	int (*experts)(struct engine *engine, struct expert_counts *out, struct error *err);
	void (*close)(struct engine *engine); // stops the worker, frees; takes NULL
};

/* Calls through the table. */
int engine_submit(struct engine *engine, const struct request *request, struct error *err);
const struct event *engine_next(struct engine *engine);
/* Blocks until an event is there (poll on fd); for commands. NULL after timeout_ms (-1 = never). */
const struct event *engine_wait(struct engine *engine, int timeout_ms);
void engine_close(struct engine *engine); // takes NULL

struct engine_options {
	const struct backend *backend;
	struct device_options device;
	int context; // tokens a sequence can hold, 0 = the model's maximum, at most 32768 by itself
	bool warm;   // touch the pages of all budgets after opening, with progress
	/* Sees every event on the worker before anybody else (the log); may fail: a mark in gauges. */
	int (*record)(void *user, const struct event *event, struct error *err);
	void *record_user;
};

struct engine *engine_local_open(const struct engine_options *options, struct error *err);

#endif
