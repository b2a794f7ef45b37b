/*
 * A teacher-forced comparison (inspect/fidelity.h) in the background: opens a CPU device and the
 * slices of two or three budgets, which may belong to different checkpoints with one vocabulary.
 */
#ifndef INSPECT_FIDELITY_JOB_H
#define INSPECT_FIDELITY_JOB_H

#include "core/event.h"
#include "core/job.h"
#include "inspect/fidelity.h"

struct fidelity_side_plan {
	struct model *model;
	const char *budget; // as model_budget() takes them
};

struct fidelity_job {
	struct job job; // first
	struct model *models[FIDELITY_SIDES];
	char budgets[FIDELITY_SIDES][BUDGET_NAME_BYTES];
	struct device_options device;
	int32_t *ids; // (plan.n)
	struct fidelity_plan plan;
	struct fidelity fidelity;
};

/* Models are retained, names and ids (n) copied. Positions [first, n - 1): those with a next
 * token. device.n_threads 0 counts as 1; kv_dtype must be set. */
struct fidelity_job *fidelity_job(const struct fidelity_side_plan *sides, int n_sides,
								  const int32_t *ids, int n, int first,
								  const struct device_options *device, struct error *err);

#endif
