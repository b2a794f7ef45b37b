/*
 * An engine for tests that plays a list of exact events with exact timestamps. Events are put into
 * chapters; a chapter is told when its request is submitted (or at once), so a test knows
 * everything that will ever come: nothing is computed and nothing waits for a clock. What was
 * submitted can be read back.
 *
 *     struct script *script = script_open(&err);
 *     script_on(script, REQUEST_TURN);               // what follows belongs to the next turn asked
 * for script_turn(script, 0, &settings); script_prefill(script, 5, 28, 0, "large", 4000000);
 *     script_token(script, 9, "large", PHASE_THINK, "4", 0);
 *     script_token(script, 12, "large", PHASE_THINK, "8", 2000000);
 *     script_stop(script, 13, STOP_EOS);
 *     ... give &script->engine to the app ...
 *
 * Times are milliseconds of the engine's clock for at_ms, nanoseconds for took_ns. Positions count
 * on by themselves. Out of memory ends in abort(): it is a test.
 */
#ifndef TESTS_ENGINE_SCRIPT_H
#define TESTS_ENGINE_SCRIPT_H

#include "core/engine.h"

struct script {
	struct engine engine;         // first: &script->engine is what the app gets
	struct gauges gauges;         // what gauges() answers; a test may change it at any time
	struct expert_counts experts; // borrowed: what experts() copies
	struct script_inside *inside;
};

struct script *script_open(struct error *err);

/* Begins a chapter, told when a request of this type is submitted (the oldest chapter of the type
 * first). Before the first call events are told at once. */
void script_on(struct script *script, enum request_type type);
void script_at_once(struct script *script);

/* Adds an event as it is; text and numbers are copied. */
void script_event(struct script *script, const struct event *event);

/* The usual ones. seq is 0. */
void script_opened(struct script *script, double at_ms, struct model *model, int context);
void script_turn(struct script *script, double at_ms, const struct turn_settings *settings);
void script_message(struct script *script, double at_ms, const char *role, const char *text);
void script_prefill(struct script *script, double at_ms, int tokens, int cached, const char *budget,
					uint64_t took_ns);
/* The text "</think>" makes the token that ends the thoughts (its text is then empty, as always).
 */
void script_token(struct script *script, double at_ms, const char *budget, enum phase phase,
				  const char *text, uint64_t took_ns);
void script_switch(struct script *script, double at_ms, const char *from, const char *to,
				   enum handoff handoff, enum switch_reason reason, uint64_t took_ns);
void script_stop(struct script *script, double at_ms, enum stop_reason reason);
void script_error(struct script *script, double at_ms, const char *text);
void script_notice(struct script *script, double at_ms, const char *text);

/* What was submitted, oldest first, with texts, tokens and the conversation's path copied; NULL
 * behind the last. The next submit fails with this sentence (NULL = no more). */
const struct request *script_request(const struct script *script, size_t number);
size_t script_n_requests(const struct script *script);
void script_refuse(struct script *script, const char *sentence);

#endif
