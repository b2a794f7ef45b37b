/*
 * A study in the background: an engine of its own on the CPU with one thread, the open model, and
 * the rows as they come. What was found so far can be looked at while it runs; a study that was
 * cancelled or failed keeps its rows.
 */
#ifndef INSPECT_STUDY_JOB_H
#define INSPECT_STUDY_JOB_H

#include "core/job.h"
#include "core/model.h"
#include "inspect/study_plan.h"
#include <pthread.h>

struct study_job {
	struct job job; // first
	struct study_plan plan;
	char *rows;     // path; NULL = study_plan_place(), which is put here
	char note[256]; // the last turn that failed, "" = none

	// the job's own
	struct model *model;
	struct engine_options options;
	struct event opened;
	pthread_mutex_t mutex;      // guards those below
	struct study_summary *live; // (n_cells): of the rows that were there
	size_t n_done, n_had;
	uint64_t began_ns;

	uint64_t looked_ns; // the job's thread alone
};

struct study_ask {
	struct model *model;             // retained
	const char *tasks, *grid, *rows; // grid may be ""; rows NULL = a place of the program's
	size_t limit;
	struct turn_settings settings; // sampling, max_tokens
	struct device_options device;  // n_threads is 1
	int context;
};

/* Reads the tasks and checks the grid at once; NULL and err if they are wrong. */
struct study_job *study_job(const struct study_ask *ask, struct error *err);

struct study_state {
	size_t n_done, n_had, n_all;
	uint64_t began_ns; // clock_ns() of the first turn, 0 = none has begun
};

/* From the submitter's thread, at any time: copies the newest (n_cells) summaries. */
void study_job_look(struct study_job *job, struct study_summary *summaries,
					struct study_state *state);

#endif
