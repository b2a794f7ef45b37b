/*
 * A study in the background, on a checkpoint without a tokenizer: its answers are those of the
 * golden greedy continuations. Stopped, gone on with, written. Waits are for the queue, not for a
 * clock.
 */
#include "inspect/study_job.h"
#include "base/file.h"
#include <poll.h>
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>
/* needs that above */
#include "tests/unit/folder.h"
#include "tests/unit/opened.h"

#define N_CELLS 3

struct scene {
	struct folder folder;
	char tasks[4096], rows[600];
	struct model *model;
	struct jobs *jobs;
};

static void open_scene(struct scene *scene)
{
	char path[4096];
	struct model_options options = {0};
	struct error err = {0};
	folder_make(&scene->folder);
	opened_path(path, "golden/nest-tiny", NULL);
	opened_path(scene->tasks, "cli", "study_ids.jsonl");
	snprintf(scene->rows, sizeof scene->rows, "%s", folder_file(&scene->folder, "rows.csv"));
	scene->model = model_open(path, &options, &err);
	assert_non_null(scene->model);
	scene->jobs = jobs_open(&err);
	assert_non_null(scene->jobs);
}

static void close_scene(struct scene *scene)
{
	jobs_close(scene->jobs);
	model_release(scene->model);
	folder_remove(&scene->folder);
}

static struct study_ask ask_of(const struct scene *scene)
{
	return (struct study_ask){.model = scene->model,
							  .tasks = scene->tasks,
							  .grid = "",
							  .rows = scene->rows,
							  .settings = {.max_tokens = 6, .sampling = {.top_p = 1, .forced = -1}},
							  .device = {.math = MATH_EXACT, .kv_dtype = DTYPE_F32},
							  .context = 64};
}

static struct study_job *begin(struct scene *scene, const struct study_ask *ask)
{
	struct error err = {0};
	struct study_job *job = study_job(ask, &err);
	if (!job)
		fail_msg("%s", err.text);
	jobs_submit(scene->jobs, &job->job);
	return job;
}

static void wait_for(struct scene *scene, const struct study_job *job)
{
	struct job *ended;
	while (!(ended = jobs_next(scene->jobs)))
		poll(&(struct pollfd){.fd = jobs_fd(scene->jobs), .events = POLLIN}, 1, -1);
	assert_ptr_equal(ended, &job->job);
}

static void answers_are_the_golden_ones(void **state)
{
	struct scene scene;
	struct study_summary sums[N_CELLS];
	struct study_state now;
	(void)state;
	open_scene(&scene);
	struct study_ask ask = ask_of(&scene);
	struct study_job *job = begin(&scene, &ask);
	wait_for(&scene, job);
	assert_string_equal(job->job.error.text, "");
	assert_int_equal(job->job.state, JOB_DONE);
	assert_int_equal(job->plan.study.n_cells, N_CELLS); // nobody thinks
	study_job_look(job, sums, &now);
	assert_int_equal(now.n_done, 12);
	assert_int_equal(now.n_all, 12);
	assert_int_equal(now.n_had, 0);
	assert_true(now.began_ns > 0);
	assert_int_equal(sums[0].right, 2); // large: its own, and the one that medium shares
	assert_int_equal(sums[1].right, 2);
	assert_int_equal(sums[2].right, 1);
	assert_string_equal(study_row(&job->plan.study, 0, 0)->text, " 141 29 9 114 53 75");
	assert_string_equal(job->plan.facts[FACT_THREADS].value, "1");

	char copy[700];
	struct text one = {0}, other = {0};
	snprintf(copy, sizeof copy, "%s.copy", scene.rows);
	OK(study_plan_write(&job->plan, copy, &err));
	OK(file_read(scene.rows, 1 << 20, &one, &err));
	OK(file_read(copy, 1 << 20, &other, &err));
	assert_string_equal(text_chars(&one), text_chars(&other));
	struct error err = {0};
	assert_int_equal(study_plan_write(&job->plan, copy, &err), -1);
	assert_non_null(strstr(err.text, "is there already"));
	text_free(&one);
	text_free(&other);
	job->job.free(&job->job);
	close_scene(&scene);
}

/* Stopped as soon as it has begun; asked again it goes on with the same file. */
static void a_stopped_study_goes_on(void **state)
{
	struct scene scene;
	struct study_summary sums[N_CELLS];
	struct study_state now = {0};
	(void)state;
	open_scene(&scene);
	struct study_ask ask = ask_of(&scene);
	ask.settings.max_tokens = 0; // until the context is full
	struct study_job *job = begin(&scene, &ask);
	while (now.began_ns == 0) {
		sched_yield();
		study_job_look(job, sums, &now);
	}
	jobs_cancel(scene.jobs, &job->job);
	wait_for(&scene, job);
	study_job_look(job, sums, &now);
	size_t had = now.n_done;
	if (job->job.state == JOB_CANCELLED) // it may have been faster
		assert_true(had < 12);
	else
		assert_int_equal(had, 12);
	job->job.free(&job->job);
	job = begin(&scene, &ask);
	wait_for(&scene, job);
	study_job_look(job, sums, &now);
	assert_int_equal(job->job.state, JOB_DONE);
	assert_int_equal(now.n_had, had);
	assert_int_equal(now.n_done, 12);
	job->job.free(&job->job);
	close_scene(&scene);
}

static void what_is_wrong_is_said_at_once(void **state)
{
	struct scene scene;
	struct error err = {0};
	(void)state;
	open_scene(&scene);
	struct study_ask ask = ask_of(&scene);
	ask.grid = "answer=huge";
	assert_null(study_job(&ask, &err));
	assert_non_null(strstr(err.text, "answer: budget \"huge\""));
	ask.grid = "";
	ask.tasks = "/nowhere";
	assert_null(study_job(&ask, &err));
	assert_non_null(strstr(err.text, "/nowhere"));
	close_scene(&scene);
}

/* The job has a place for its rows, and fails where that is not one. */
static void rows_that_cannot_be_written(void **state)
{
	struct scene scene;
	(void)state;
	open_scene(&scene);
	struct study_ask ask = ask_of(&scene);
	ask.rows = scene.folder.path;
	struct study_job *job = begin(&scene, &ask);
	wait_for(&scene, job);
	assert_int_equal(job->job.state, JOB_FAILED);
	assert_non_null(strstr(job->job.error.text, scene.folder.path));
	job->job.free(&job->job);
	setenv("XDG_DATA_HOME", scene.folder.path, 1);
	ask.rows = NULL;
	ask.limit = 1;
	job = begin(&scene, &ask);
	wait_for(&scene, job);
	assert_int_equal(job->job.state, JOB_DONE);
	assert_non_null(strstr(job->rows, "/elastiscope/studies/nest-tiny-"));
	assert_true(file_exists(job->rows));
	assert_int_equal(job->plan.study.n_done, 3);
	job->job.free(&job->job);
	close_scene(&scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(answers_are_the_golden_ones),
		cmocka_unit_test(a_stopped_study_goes_on),
		cmocka_unit_test(what_is_wrong_is_said_at_once),
		cmocka_unit_test(rows_that_cannot_be_written),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
