/*
 * Many budgets of one checkpoint tried on the same text against one of them, the base: what curves,
 * maps and sensitivities are made of. As many as fidelity takes are lanes of one pass, so a weight
 * row is read once for them.
 */
#ifndef INSPECT_TRIALS_H
#define INSPECT_TRIALS_H

#include "core/model.h"
#include "core/slice.h"
#include "inspect/fidelity.h"

/* How and on what a budget is tried. Borrowed. */
struct trials_plan {
	const struct model *model;
	const struct budget *base;
	const struct backend *backend;
	struct device *device;
	enum dtype kv_dtype;
	const int32_t *ids;
	int n;      // tokens
	int window; // read from one empty state; 0 = all
	/* Called between chunks with tokens read of all budgets' tokens; non-zero stops with an error.
	 * May be NULL. */
	int (*step)(void *user, int done, int total);
	void *user;
};

struct trial {
	struct estimate kl;  // KL(base || budget), nats a token
	struct estimate ppl; // of the budget
	double same_top;     // share of positions with the base's most probable id
};

/* out: (n). base_out: the base against itself, kl 0. An error names the budget. */
int trials_run(const struct trials_plan *plan, const struct budget *budgets, int n,
			   struct trial *out, struct trial *base_out, struct error *err);

#endif
