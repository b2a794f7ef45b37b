#include "tui/importance_work.h"
#include "base/clock.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_FILES 64

const struct scores *importance_source(const struct importance_work *work)
{
	return work->source > 0 ? &work->sources[work->source - 1] : NULL;
}

bool importance_same(const struct importance_query *a, const struct importance_query *b)
{
	return a->axis == b->axis && a->layer == b->layer && a->expert == b->expert &&
		   a->metric == b->metric && a->scores == b->scores;
}

static void drop_norms(struct importance_work *work)
{
	if (work->waiting && work->talk->jobs)
		jobs_cancel(work->talk->jobs, &work->waiting->job); // nobody's: the app frees it
	if (work->done)
		work->done->job.free(&work->done->job);
	work->waiting = work->done = NULL;
}

static int take(struct importance_work *work, struct importance_curve *curve, struct error *err)
{
	struct curve_job *done = work->done;
	int status = done->job.state == JOB_DONE ? 1 : fail(err, "%s", done->job.error.text);
	*curve = done->curve;
	done->curve = (struct importance_curve){0};
	done->job.free(&done->job);
	work->done = NULL;
	return status;
}

int importance_want(struct importance_work *work, const struct importance_query *query,
					struct importance_curve *curve, struct error *err)
{
	struct model *model = work->talk->model;
	*curve = (struct importance_curve){.query = *query};
	if (!work->talk->jobs || importance_cost(model, query) <= work->at_once_bytes)
		return importance_open(curve, model, query, err) < 0 ? -1 : 1;
	if (work->done && importance_same(&work->done->query, query))
		return take(work, curve, err);
	if ((work->waiting && importance_same(&work->waiting->query, query)) ||
		(work->is_stopped && importance_same(&work->stopped, query)))
		return 0;
	drop_norms(work);
	work->is_stopped = false;
	work->waiting = curve_job(model, query, err);
	if (!work->waiting)
		return -1;
	jobs_submit(work->talk->jobs, &work->waiting->job);
	return 0;
}

/* ---- words ---- */

/* Splits at blanks, in place; at most max. */
static int words_of(char *line, const char **words, int max)
{
	int n = 0;
	for (char *at = line; *(at += strspn(at, " \t"));) {
		size_t length = strcspn(at, " \t");
		if (n == max)
			return max + 1;
		words[n++] = at;
		at += length;
		if (*at)
			*at++ = 0;
	}
	return n;
}

static int open_sources(struct importance_work *work, const char *const *names, int n,
						struct error *err)
{
	struct scores opened[SCORES_MAX] = {0};
	for (int i = 0; i < n; i++)
		if (scores_open_named(&opened[i], names[i], work->talk->model, err) < 0) {
			while (i-- > 0)
				scores_close(&opened[i]);
			return -1;
		}
	for (int i = 0; i < work->n_sources; i++)
		scores_close(&work->sources[i]);
	memcpy(work->sources, opened, sizeof opened);
	work->n_sources = n;
	work->source = n > 0;
	return 0;
}

int importance_load(struct importance_work *work, const char *arguments, struct error *err)
{
	const char *words[SCORES_MAX];
	char *line = strdup(arguments);
	int n = line ? words_of(line, words, SCORES_MAX) : 0, status;
	if (!line)
		status = fail(err, "no memory for a command");
	else if (!work->talk->model)
		status = fail(err, "scores: no model is open");
	else if (n == 1 && strcmp(words[0], "off") == 0)
		status = open_sources(work, NULL, 0, err);
	else if (n < 1 || n > SCORES_MAX)
		status = fail(err, "scores: one or %d files are expected, cache, or off", SCORES_MAX);
	else
		status = open_sources(work, words, n, err);
	free(line);
	return status;
}

int importance_calibrate(struct importance_work *work, const char *arguments, struct error *err)
{
	const char *words[MAX_FILES];
	struct calibrate_job *job = NULL;
	char *line = strdup(arguments);
	int n = line ? words_of(line, words, MAX_FILES) : 0;
	if (!line)
		fail(err, "no memory for a command");
	else if (!work->talk->model || !work->talk->jobs)
		fail(err, "calibrate: no model is open");
	else if (n < 1 || n > MAX_FILES)
		fail(err, "calibrate: 1 to %d files of text are expected", MAX_FILES);
	else if (work->calibrating)
		fail(err, "calibrate: one is running; Ctrl-C stops it");
	else
		job = calibrate_job(work->talk->model, words, n, err);
	if (job) {
		work->calibrating = job;
		work->start_ns = 0;
		jobs_submit(work->talk->jobs, &job->job);
	}
	free(line);
	return job ? 0 : -1;
}

/* ---- jobs ---- */

bool importance_work_busy(const struct importance_work *work)
{
	return work->waiting || work->calibrating;
}

bool importance_work_stop(struct importance_work *work)
{
	if (work->waiting) {
		work->stopped = work->waiting->query;
		work->is_stopped = true;
		drop_norms(work);
		return true;
	}
	if (work->calibrating)
		jobs_cancel(work->talk->jobs, &work->calibrating->job);
	return work->calibrating != NULL;
}

/* The scores become the first source; what was first stays to be held against them. */
static void take_scores(struct importance_work *work, const char *path, char *said, size_t size)
{
	struct scores scores;
	struct error err = {0};
	if (scores_open(&scores, path, work->talk->model, &err) < 0) {
		snprintf(said, size, "%s", err.text);
		return;
	}
	if (work->n_sources == SCORES_MAX)
		scores_close(&work->sources[--work->n_sources]);
	memmove(&work->sources[1], &work->sources[0], (size_t)work->n_sources * sizeof scores);
	work->sources[0] = scores;
	work->n_sources++;
	work->source = 1;
	snprintf(said, size, "measured on %.60s, %lld tokens; o: the checkpoint's own scores",
			 scores.text, (long long)scores.tokens);
}

bool importance_work_job(struct importance_work *work, struct job *job, char *said, size_t size)
{
	said[0] = 0;
	if (work->waiting && job == &work->waiting->job) {
		work->done = work->waiting;
		work->waiting = NULL;
		return true;
	}
	if (!work->calibrating || job != &work->calibrating->job)
		return false;
	struct calibrate_job *it = work->calibrating;
	work->calibrating = NULL;
	if (job->state == JOB_DONE && it->model == work->talk->model)
		take_scores(work, it->calibration.path, said, size);
	else if (job->state == JOB_FAILED)
		snprintf(said, size, "calibrate: %s", job->error.text);
	else
		snprintf(said, size, "stopped; :calibrate with the same files goes on");
	job->free(job);
	return true;
}

static void calibration_progress(struct importance_work *work, const struct job_progress *progress,
								 char *out, size_t size)
{
	uint64_t now = clock_ns();
	if (progress->job != &work->calibrating->job || progress->total == 0) {
		snprintf(out, size, "measuring: waits for its turn");
		return;
	}
	if (work->start_ns == 0) {
		work->start_ns = now;
		work->start_done = progress->done;
	}
	double seconds = (double)(now - work->start_ns) / 1e9;
	double rate = seconds > 0 ? (double)(progress->done - work->start_done) / seconds : 0;
	int left = rate > 0 ? (int)((progress->total - progress->done) / rate) : 0;
	snprintf(out, size, "measuring: %d of %d tokens, %.0f a second, %d:%02d left; Ctrl-C stops",
			 progress->done, progress->total, rate, left / 60, left % 60);
}

void importance_progress(struct importance_work *work, char *out, size_t size)
{
	struct job_progress progress = {0};
	out[0] = 0;
	if (!importance_work_busy(work))
		return;
	jobs_progress(work->talk->jobs, &progress);
	if (work->waiting) {
		bool mine = progress.job == &work->waiting->job && progress.total > 0;
		int percent = mine ? (int)((int64_t)progress.done * 100 / progress.total) : 0;
		snprintf(out, size, "computing norms of weights: %d%%; Ctrl-C stops",
				 percent < 100 ? percent : 99);
	} else {
		calibration_progress(work, &progress, out, size);
	}
}

void importance_work_close(struct importance_work *work)
{
	if (work->calibrating && work->talk->jobs) // without a queue it has been freed
		jobs_cancel(work->talk->jobs, &work->calibrating->job);
	work->calibrating = NULL;
	drop_norms(work);
	work->is_stopped = false;
	for (int i = 0; i < work->n_sources; i++)
		scores_close(&work->sources[i]);
	work->n_sources = work->source = 0;
}
