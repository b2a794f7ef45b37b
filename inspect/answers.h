/*
 * Several budgets write on from one prompt, side by side: lanes of one pass, so that the weights of
 * a checkpoint are read once a token for all of them. Each goes its own way; where two first part
 * is answers_part().
 */
#ifndef INSPECT_ANSWERS_H
#define INSPECT_ANSWERS_H

#include "core/slice.h"

#define ANSWERS_SIDES 4

struct answers_plan {
	const struct slice *sides[ANSWERS_SIDES]; // borrowed; one device, vocabularies of one size
	int n_sides;
	const int32_t *prompt;
	int n_prompt;
	int max_tokens; // of each answer
	const int32_t *stop_ids;
	int n_stop_ids;
	struct pick_params params; // of all: the same noise at the same position
	enum dtype kv_dtype;
	/* Called between chunks and tokens; non-zero stops with an error. May be NULL. */
	int (*step)(void *user, int done, int total);
	void *user;
};

struct answer {
	int32_t *ids; // (n), the stop id included
	int n;
	bool stopped; // at a stop id, not at max_tokens
};

struct answers {
	struct answer of[ANSWERS_SIDES];
};

int answers_write(struct answers *answers, const struct answers_plan *plan, struct error *err);
void answers_free(struct answers *answers); // takes {0}

/* The first index where two answers differ (where one ends and the other goes on, too), -1 = they
 * are equal. */
int answers_part(const struct answer *a, const struct answer *b);

#endif
