/*
 * The width staircase: which widths are chosen (core/target.h) for evenly spaced targets from the
 * smallest budget's cost to the parent's, and what they really cost.
 */
#ifndef INSPECT_STAIRCASE_H
#define INSPECT_STAIRCASE_H

#include "core/job.h"
#include "core/model.h"
#include "core/slice.h"

struct staircase_step {
	double target;
	struct slice_cost cost;
	int width[N_AXES]; // the largest where layers differ
	int n_layers;      // that run
};

struct staircase {
	char metric[8];
	struct staircase_step *steps; // (n), ascending targets
	int n;
	bool changes[N_AXES];   // the axis has more than one width
	bool by_router;         // else by importance
	double at[MAX_BUDGETS]; // each of the file's budgets on the metric, for marks
	int n_budgets;
};

/* metric: active, total or bytes; n >= 2. A checkpoint whose only budget is the parent goes down to
 * half of it, or as far as importance can choose. */
int staircase_open(struct staircase *staircase, const struct model *model, const char *metric,
				   int n, struct error *err);
void staircase_close(struct staircase *staircase); // takes {0}

/* The same in the background; the model is retained. */
struct staircase_job {
	struct job job; // first
	struct model *model;
	struct staircase staircase;
};
struct staircase_job *staircase_job(struct model *model, const char *metric, int n,
									struct error *err);

#endif
