/*
 * The handoff lab: one switch of budget taken apart. The tokens before `at` were read by `from`;
 * from `at` on `to` reads. What did carrying the state cost, what would re-prefilling have cost,
 * how far apart are the two states, and how much of the gap does repair:N close?
 *
 * The reference is `to` re-prefilled: it reads ids[0..at) itself. Continuation: ids[at..n); where
 * that is shorter than the horizon, the reference writes the rest greedily. Then every candidate
 * (carry, repair:N) reads the same continuation and is held against the reference, token by token.
 *
 * Slow (a prefill and horizon tokens for each of 3 + n_repairs states): for a job or a command. It
 * opens its own CPU device.
 */
#ifndef INSPECT_LAB_H
#define INSPECT_LAB_H

#include "core/config.h"
#include "core/event.h"
#include "core/job.h"
#include "core/model.h"

#define LAB_MAX_REPAIRS 16
#define LAB_HORIZON 64 // tokens, where 0 is asked for

struct lab_plan {
	struct model *model;
	struct device_options device; // n_threads 0 counts as 1; kv_dtype must be set
	const int32_t *ids;           // (n)
	int n, at;                    // 1 <= at <= n
	const char *from, *to;        // budgets as model_budget() takes them
	int horizon;                  // tokens after the switch, 0 = LAB_HORIZON
	/* Ascending; 0 is carry, `at` or more is re-prefill. NULL: 0, 1, 2, 4, ... below `at`. */
	const int *repairs;
	int n_repairs;
	/* Called between passes; non-zero stops with an error. May be NULL. */
	int (*step)(void *user, int done, int total);
	void *user;
};

/* Cosine similarity of what carry and re-prefill leave in a layer, over the channels that `to`
 * uses; sums in doubles; NAN where there is nothing to compare (kind, or a layer that a budget
 * lacks). */
struct lab_layer {
	enum layer_kind kind;
	double conv, ssm, k, v;
};

/* KL(reprefill || candidate) in nats over the horizon. */
struct lab_repair {
	int n;        // asked for
	int replayed; // tokens that were run again
	double ms;    // of the switch alone
	double kl_mean, kl_max;
	double top1; // share of positions with the same most probable id, 0..1
};

struct lab {
	char from[BUDGET_NAME_BYTES], to[BUDGET_NAME_BYTES];
	int at, horizon;     // horizon: positions compared
	int32_t *ids;        // (horizon): what was read, ids[0] at position `at`
	double *kl;          // (horizon): KL(reprefill || carry) after reading ids[i]
	double *p, *p_carry; // (horizon): probability of what comes next, ids[i + 1]; the last NAN
	double kl_mean, kl_max, top1;
	double carry_ms, reprefill_ms;      // of a second pass: the first one faults pages in
	int carry_tokens, reprefill_tokens; // run again for the switch: 0 and `at`
	struct lab_layer *layers;           // (n_layers)
	int n_layers;
	double conv, ssm, k, v; // means over the layers that have one
	struct lab_repair repairs[LAB_MAX_REPAIRS];
	int n_repairs;
};

int lab_run(struct lab *lab, const struct lab_plan *plan, struct error *err);
void lab_free(struct lab *lab); // takes {0}

/* The same in the background: job.run fills `lab`. The plan's model is retained, ids and names are
 * copied; step and user are ignored. */
struct lab_job {
	struct job job; // first
	struct lab_plan plan;
	struct lab lab;
};
struct lab_job *lab_job(const struct lab_plan *plan, struct error *err);

#endif
