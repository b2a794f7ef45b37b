/*
 * A study from its files: the tasks, the grid's cells, what decides its rows (checkpoint, seed,
 * sampling, device), and the rows on disk. `study` runs it at once, `:study` as a job
 * (inspect/study_job.h).
 *
 * In order: fill `grid` and study_plan_tasks(), study_plan_cells(), study_plan_facts(), perhaps
 * study_plan_rows(); then study_run(&plan->study).
 */
#ifndef INSPECT_STUDY_PLAN_H
#define INSPECT_STUDY_PLAN_H

#include "inspect/study_file.h"

enum study_fact_name {
	FACT_CHECKPOINT,
	FACT_MODEL,
	FACT_SEED,
	FACT_TEMPERATURE,
	FACT_TOP_P,
	FACT_TOP_K,
	FACT_MIN_P,
	FACT_MAX_TOKENS,
	FACT_MATH,
	FACT_KV,
	FACT_RUNG,
	FACT_THREADS,
	FACT_CONTEXT,
	N_STUDY_FACTS
};

struct study_plan {
	char *tasks_file;
	char tasks_hash[17]; // of all tasks of the file, also of those that the limit leaves out
	struct tasks tasks;
	struct grid grid;
	struct cell *cells; // (study.n_cells)
	struct study study;
	struct study_fact facts[N_STUDY_FACTS];
	struct study_file *file; // NULL = rows are in memory alone
};

/* limit 0 = all. */
int study_plan_tasks(struct study_plan *plan, const char *path, size_t limit, struct error *err);
/* Completes and checks the grid; settings: what the cells leave open. */
int study_plan_cells(struct study_plan *plan, const struct model *model,
					 const struct turn_settings *settings, struct error *err);
/* opened: EV_OPENED of the engine that will run it. */
void study_plan_facts(struct study_plan *plan, const struct model *model,
					  const struct event *opened);
/* Rows go to this file, and what is there counts. */
int study_plan_rows(struct study_plan *plan, const char *path, struct error *err);
/* Where rows go if no file is named: one for each set of facts and tasks, so that asking again goes
 * on. Its folder is created. free(). */
char *study_plan_place(const struct study_plan *plan, struct error *err);

/* The rows that are there into a file that does not exist yet; no other one may be open. */
int study_plan_write(struct study_plan *plan, const char *path, struct error *err);

void study_plan_free(struct study_plan *plan); // takes {0}

#endif
