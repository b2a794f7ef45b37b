#include "inspect/study_job.h"
#include "base/clock.h"
#include "base/memory.h"
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LOOK_NS 500000000u // between two summaries of what is there

static size_t all_rows(const struct study_job *job)
{
	return job->plan.study.tasks->n * job->plan.study.n_cells;
}

/* What is shown while it runs; a failure shows the last one. */
static int summarise(struct study_job *job, struct error *err)
{
	const struct study *study = &job->plan.study;
	size_t bytes = study->n_cells * sizeof *job->live;
	struct study_summary *fresh = mem_new(study->n_cells, sizeof *fresh, err);
	int result = fresh ? study_summarise(study, fresh, err) : -1;
	pthread_mutex_lock(&job->mutex);
	if (result == 0)
		memcpy(job->live, fresh, bytes);
	job->n_done = study->n_done;
	job->n_had = study->n_had;
	pthread_mutex_unlock(&job->mutex);
	free(fresh);
	job->looked_ns = clock_ns();
	return result;
}

static int report(struct study_job *job)
{
	size_t all = all_rows(job), done = job->plan.study.n_done;
	return job_step(&job->job, done > INT_MAX ? INT_MAX : (int)done,
					all > INT_MAX ? INT_MAX : (int)all);
}

static int on_row(void *user, const struct study *study, size_t task, size_t cell,
				  struct error *err)
{
	struct study_job *job = user;
	if (study_file_add(job->plan.file, study, task, cell, err))
		return -1;
	return clock_ns() - job->looked_ns > LOOK_NS ? summarise(job, err) : 0;
}

static bool cancelled(void *user)
{
	return report(user) != 0;
}

static void note(void *user, const char *sentence)
{
	struct study_job *job = user;
	snprintf(job->note, sizeof job->note, "%s", sentence);
}

/* On the engine's thread, before the event can be read. */
static int record(void *user, const struct event *event, struct error *err)
{
	struct study_job *job = user;
	(void)err;
	if (event->type == EV_OPENED)
		job->opened = *event;
	return 0;
}

static int wait_opened(struct study_job *job, struct engine *engine, struct error *err)
{
	struct request request = {.type = REQUEST_OPEN, .model = job->model};
	if (engine_submit(engine, &request, err))
		return -1;
	for (const struct event *event; (event = engine_wait(engine, -1)) != NULL;) {
		if (event->type == EV_ERROR)
			return fail(err, "%s", event->text);
		if (event->type == EV_OPENED)
			return 0;
	}
	return fail(err, "the engine stopped before the model was open");
}

static int ready(struct study_job *job, struct engine *engine, struct error *err)
{
	if (wait_opened(job, engine, err))
		return -1;
	study_plan_facts(&job->plan, job->model, &job->opened);
	if (!job->rows)
		job->rows = study_plan_place(&job->plan, err);
	if (!job->rows || study_plan_rows(&job->plan, job->rows, err) || summarise(job, err))
		return -1;
	pthread_mutex_lock(&job->mutex);
	job->began_ns = clock_ns();
	pthread_mutex_unlock(&job->mutex);
	return 0;
}

static int run(struct job *it, struct error *err)
{
	struct study_job *job = (struct study_job *)it;
	struct study_watch watch = {on_row, cancelled, note, job};
	job->options.record = record;
	job->options.record_user = job;
	struct engine *engine = engine_local_open(&job->options, err);
	int result =
		engine && !ready(job, engine, err) ? study_run(&job->plan.study, engine, &watch, err) : -1;
	engine_close(engine);
	study_file_close(job->plan.file); // others may go on with it
	job->plan.file = NULL;
	return summarise(job, err) || result ? -1 : 0;
}

static void job_free(struct job *it)
{
	struct study_job *job = (struct study_job *)it;
	study_plan_free(&job->plan);
	pthread_mutex_destroy(&job->mutex);
	model_release(job->model);
	free(job->live);
	free(job->rows);
	free(job);
}

static int prepare(struct study_job *job, const struct study_ask *ask, struct error *err)
{
	if (ask->rows && !(job->rows = mem_string(ask->rows, strlen(ask->rows), err)))
		return -1;
	if (grid_parse(&job->plan.grid, ask->grid, err) ||
		study_plan_tasks(&job->plan, ask->tasks, ask->limit, err) ||
		study_plan_cells(&job->plan, ask->model, &ask->settings, err))
		return -1;
	job->live = mem_new(job->plan.study.n_cells, sizeof *job->live, err);
	return job->live ? study_summarise(&job->plan.study, job->live, err) : -1;
}

struct study_job *study_job(const struct study_ask *ask, struct error *err)
{
	struct study_job *job = mem_new(1, sizeof *job, err);
	if (!job)
		return NULL;
	job->job = (struct job){.name = "study", .run = run, .free = job_free};
	job->model = model_retain(ask->model);
	job->options = (struct engine_options){
		.backend = &backend_cpu, .device = ask->device, .context = ask->context};
	job->options.device.n_threads = 1;
	pthread_mutex_init(&job->mutex, NULL);
	if (prepare(job, ask, err) == 0)
		return job;
	job_free(&job->job);
	return NULL;
}

void study_job_look(struct study_job *job, struct study_summary *summaries,
					struct study_state *state)
{
	pthread_mutex_lock(&job->mutex);
	memcpy(summaries, job->live, job->plan.study.n_cells * sizeof *summaries);
	*state = (struct study_state){job->n_done, job->n_had, all_rows(job), job->began_ns};
	pthread_mutex_unlock(&job->mutex);
}
