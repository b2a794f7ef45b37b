/*
 * What every budget would have said: one text, read by each of a checkpoint's budgets alone, and at
 * every token from `first` on the most probable ids, and where the actual one stands among all.
 * Probabilities are of softmax(logits), before temperature and filters.
 *
 * For the background: opens a CPU device of its own.
 */
#ifndef INSPECT_OUTLOOK_H
#define INSPECT_OUTLOOK_H

#include "core/event.h"
#include "core/job.h"
#include "core/model.h"

#define OUTLOOK_TOP 8
#define OUTLOOK_BUDGETS 6

struct outlook_view {         // of one token by one budget
	int32_t top[OUTLOOK_TOP]; // best first, -1 where the vocabulary is smaller
	float p[OUTLOOK_TOP];
	float p_actual, entropy; // nats
	int rank; // of the actual token, 1 = the most probable (ties: the lower id first)
};

struct outlook {
	int first, n;  // tokens [first, n)
	int n_budgets; // the largest ones, in the order of elastic.budgets; then the typed one
	char budgets[OUTLOOK_BUDGETS][BUDGET_NAME_BYTES];
	struct outlook_view *views; // (n_budgets, n - first)
};

struct outlook_plan {
	struct model *model;
	struct device_options device; // n_threads 0 counts as 1; kv_dtype must be set
	const char *typed;            // widths: one more, behind the file's; NULL = none
	const int32_t *ids;           // (n)
	int n, first;                 // 1 <= first < n: nothing comes before token 0
	/* Called between chunks; non-zero stops with an error. May be NULL. */
	int (*step)(void *user, int done, int total);
	void *user;
};

int outlook_run(struct outlook *outlook, const struct outlook_plan *plan, struct error *err);
void outlook_free(struct outlook *outlook); // takes {0}

/* NULL outside [first, n). */
const struct outlook_view *outlook_at(const struct outlook *outlook, int budget, int token);

/* The same in the background: the plan's model is retained, ids and typed are copied; step and user
 * are ignored. */
struct outlook_job {
	struct job job; // first
	struct outlook_plan plan;
	char typed[BUDGET_NAME_BYTES];
	struct outlook outlook;
};
struct outlook_job *outlook_job(const struct outlook_plan *plan, struct error *err);

#endif
