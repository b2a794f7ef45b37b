/*
 * The probe in the background: one mask, a bisection, or a file from elsewhere. The probe travels
 * with the job, so that its baseline is read once: whoever gets the job back takes it out again.
 */
#ifndef INSPECT_MASK_JOB_H
#define INSPECT_MASK_JOB_H

#include "core/job.h"
#include "inspect/against.h"
#include "inspect/bisect.h"

enum mask_task { MASK_PROBE, MASK_BISECT, MASK_AGAINST };

struct mask_job {
	struct job job; // first
	enum mask_task task;
	struct probe probe;
	char *base, *mask; // budgets as text: the baseline or good one, and what is tried; of
					   // MASK_BISECT also DIR#BUDGET
	char *path;        // MASK_AGAINST
	struct probe_result result;
	struct bisect bisect;
	struct against against;
};

/* Texts are copied, the probe is taken over (and is {0} afterwards), on failure too. */
struct mask_job *mask_job(enum mask_task task, struct probe *probe, const char *base,
						  const char *mask, const char *path, struct error *err);

#endif
