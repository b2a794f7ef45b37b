/*
 * Everything the program learns on the way is an event: plain data that the terminal, the line
 * chat, the session log and replay all read from one stream. seq says whose it is (0 = the
 * conversation). What has no fixed length (text, lists) hangs on `text` and `numbers`; whoever
 * keeps an event copies it.
 */
#ifndef CORE_EVENT_H
#define CORE_EVENT_H

#include "core/sequence.h"
#include "kernels/backend.h"
#include <stdbool.h>
#include <stdint.h>

struct model;

/* Sequences of an engine, by seq: the conversation, columns, branches. */
#define MAX_SEQUENCES 4

enum event_type {
	EV_OPENED,   // a model is open; in the log the line `session`
	EV_TURN,     // a turn begins, with every setting that decides it
	EV_MESSAGE,  // a message enters the conversation; text. Role "reasoning": of the next one
	EV_PREFILL,  // tokens were read
	EV_TOKEN,    // one token was chosen; text = what may be shown of it (may be empty)
	EV_SWITCH,   // another budget reads from now on
	EV_KEPT,     // a compare column became the conversation
	EV_CLEARED,  // the conversation was forgotten; a log goes on in a new file
	EV_MASK,     // a budget that is not the file's comes into use; text: its whole text
	EV_MEMORY,   // what memory is used for
	EV_STOP,     // the turn is over: exactly one for every turn or completion asked for
	EV_ERROR,    // text: one sentence; the engine goes on with what it has
	EV_NOTICE,   // text: one sentence worth a line
	EV_PROGRESS, // long work: text = what, done of total; not logged
	N_EVENT_TYPES
};

enum phase { PHASE_PREFILL, PHASE_THINK, PHASE_ANSWER, N_PHASES };
enum switch_reason { SWITCH_USER, SWITCH_POLICY, SWITCH_PHASE };
enum stop_reason { STOP_EOS, STOP_LENGTH, STOP_STOPPED, STOP_ERROR };

const char *phase_name(enum phase phase); // "prefill", "think", "answer"
const char *switch_reason_name(enum switch_reason reason);
const char *stop_reason_name(enum stop_reason reason);

#define RULE_BYTES 640
#define RULE_REASON_BYTES 64

/* What decides a turn; in requests and in EV_TURN. Budget names as model_budget() takes them. */
struct turn_settings {
	struct pick_params sampling;
	int max_tokens;                 // 0 = until the context is full
	char budget[BUDGET_NAME_BYTES]; // writes while no policy is on
	bool policy;                    // think / answer instead of budget
	char think[BUDGET_NAME_BYTES], answer[BUDGET_NAME_BYTES];
	char read[BUDGET_NAME_BYTES]; // reads the prompt; "" = who writes first
	char rule[RULE_BYTES];        // who writes, token by token (core/rule.h); "" = budget or policy
	enum handoff handoff;
	int repair;      // HANDOFF_REPAIR: tokens that are run again, see prefill_switch()
	bool thinking;   // false: --no-think
	int think_limit; // tokens, 0 = none
};

struct memory_use {
	int64_t weights_bytes, resident_bytes; // the mapping; of it in memory now. -1 = unknown
	int64_t kv_bytes, conv_bytes, ssm_bytes, snapshot_bytes, scratch_bytes;
	int64_t rss_bytes, vram_bytes;
	int64_t bytes_per_token; // weights that a decode step of the running budget reads
	/* The state above is that of all sequences that exist (the conversation, columns), as
	 * allocated: how many there are (0 = unknown), and each one's, by seq (not in logs). */
	int n_sequences;
	struct sequence_bytes sequences[MAX_SEQUENCES];
};

struct event {
	enum event_type type;
	int seq;
	uint64_t at_ns; // since the engine was opened
	union {
		struct {
			struct model
				*model; // the journal holds it until every reader has passed; to keep it, retain
			enum math math;
			enum dtype kv_dtype;
			char rung[32];
			int n_threads, context;
		} opened; // CLEARED too. A replayed one has no model; text: the recorded line, a JSON
				  // object
		struct {
			int id, parent; // of the turn; parent -1 = none
			int known; // messages of the path before that stay; those that follow come behind them
			bool branched; // as in struct request; numbers: all ids that it goes on from
			int left;
			struct turn_settings settings;
			enum math math;
			char rung[32];
		} turn;
		struct {
			char role[16];
		} message;
		struct {
			int from, tokens, cached;
			char budget[BUDGET_NAME_BYTES];
			uint64_t took_ns;
		} prefill; // numbers: positions where a chunk ended
		struct {
			int at; // position
			int32_t id;
			float logprob;
			char budget[BUDGET_NAME_BYTES]; // that sampled it
			enum phase phase;
			uint64_t
				took_ns; // computing only: forward, pick, decode. 0 = came out of a prefill (TTFT)
			struct picked picked;
			bool forced; // not the model's choice: the thoughts were ended
			bool given;  // nor computed: a branch begins with it. budget "" = who wrote it first
			bool thinking_ends; // this token is </think>; its text is empty, as a stop id's
		} token;
		struct {
			int at; // first position that `to` reads
			char from[BUDGET_NAME_BYTES], to[BUDGET_NAME_BYTES];
			enum handoff handoff;
			enum switch_reason reason;
			int repair;   // N of repair:N, else 0; with HANDOFF_REPREFILL it was asked for, but
						  // no state was old enough
			int replayed; // tokens that `to` has read again for it: `at` = no state was old enough
			uint64_t took_ns;
		} change; // numbers: stale layers; text: why, e.g. "entropy 2.31 > 2" (SWITCH_POLICY), or
				  // NULL
		struct {
			int turn; // its last, which the next one follows; -1 = nothing was said
		} kept;
		struct {
			char budget[BUDGET_NAME_BYTES]; // what later events call it
		} mask;
		struct memory_use memory;
		struct {
			enum stop_reason reason;
			int tokens;
			enum phase phase;  // think: it stopped inside its thoughts
			uint64_t took_ns;  // of the whole turn, waiting included
			uint64_t first_ns; // from request to first token
		} stop;
		struct {
			int64_t done, total;
			bool bytes; // of these, not of something else
		} progress;
	};
	const char *text; // length bytes and a NUL, or NULL
	size_t length;
	const int32_t *numbers;
	size_t n_numbers;
};

#endif
