/*
 * What of importance is heavy, as jobs: a curve whose scores are norms of many weights, and a
 * calibration. A job retains its model; its result is its own until it is taken.
 */
#ifndef INSPECT_IMPORTANCE_JOB_H
#define INSPECT_IMPORTANCE_JOB_H

#include "core/job.h"
#include "inspect/calibrate.h"
#include "inspect/importance.h"

struct curve_job {
	struct job job;
	struct model *model;
	struct importance_query query;
	struct importance_curve curve;
};

/* Curves of the checkpoint's own, not of query->scores: those are there at once. */
struct curve_job *curve_job(struct model *model, const struct importance_query *query,
							struct error *err);

struct calibrate_job {
	struct job job;
	struct model *model;
	struct text paths; // each ends in NUL
	struct device_options device;
	struct calibration calibration;
};

/* The files are read by the job: what is wrong with them is its error. */
struct calibrate_job *calibrate_job(struct model *model, const char *const *paths, int n,
									struct error *err);

/* Whether weights of that many bytes are read for the norms of a query; 0 where scores are known.
 */
int64_t importance_cost(const struct model *model, const struct importance_query *query);

#endif
