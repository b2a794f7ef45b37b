/*
 * A recorded session run again, token by token: every turn with its messages, its seed and its
 * sampling, budgets changed where they were changed, thoughts ended where they were ended, stopped
 * where it was stopped. The same tokens come out, or there is a first difference.
 */
#ifndef SESSIONS_VERIFY_H
#define SESSIONS_VERIFY_H

#include "core/engine.h"
#include "sessions/session.h"

struct verify_token {
	int32_t id; // -1 = no token: the turn was over
	float logprob;
	char budget[BUDGET_NAME_BYTES];
	struct text text;
};

struct verify_result {
	int n_turns, n_tokens; // compared
	int n_left_out;
	struct text left_out;  // a line for each: "turn 3: it has no token"
	double largest_change; // of a logprob, over equal tokens
	char recorded_rung[32], rung[32];
	bool differs; // then:
	int turn;     // its id
	int at;       // position
	struct verify_token recorded, now;
};

/* The engine is local and has the checkpoint with this hash open; it is left paused. -1: a turn
 * failed for another reason than its tokens. progress (may be NULL) is called once a turn. */
int session_verify(const struct session *session, struct engine *engine, const char *hash,
				   void (*progress)(void *user, int turn, int n_turns), void *user,
				   struct verify_result *result, struct error *err);
void verify_free(struct verify_result *result); // takes {0}

#endif
