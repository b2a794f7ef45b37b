#include "core/job.h"
#include "base/clock.h"
#include "base/memory.h"
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define PROGRESS_NS 100000000u // between two wake-ups for progress

struct job_list {
	struct job *first, *last;
};

struct jobs {
	pthread_t thread;
	pthread_mutex_t mutex; // guards all below, and every field of a submitted job
	pthread_cond_t changed;
	struct job_list waiting, ended;
	struct job *running;
	bool cancelled; // the running one shall end
	bool closing;
	int done, total; // of the running one
	uint64_t said_ns;
	int fd;
};

static void append(struct job_list *list, struct job *job)
{
	job->next = NULL;
	if (list->last)
		list->last->next = job;
	else
		list->first = job;
	list->last = job;
}

static struct job *take(struct job_list *list)
{
	struct job *job = list->first;
	if (!job)
		return NULL;
	list->first = job->next;
	if (!list->first)
		list->last = NULL;
	job->next = NULL;
	return job;
}

static void wake(struct jobs *jobs)
{
	uint64_t one = 1;
	ssize_t written = write(jobs->fd, &one, sizeof one);
	(void)written; // full: readable already
}

static void end(struct jobs *jobs, struct job *job, enum job_state state)
{
	job->state = state;
	append(&jobs->ended, job);
	wake(jobs);
}

/* Runs one job; called and left with the mutex held. */
static void run_one(struct jobs *jobs, struct job *job)
{
	struct error err = {0};
	jobs->running = job;
	jobs->cancelled = false;
	jobs->done = jobs->total = 0;
	job->state = JOB_RUNNING;
	wake(jobs);
	pthread_mutex_unlock(&jobs->mutex);
	int failed = job->run(job, &err);
	pthread_mutex_lock(&jobs->mutex);
	jobs->running = NULL;
	job->error = err;
	end(jobs, job, !failed ? JOB_DONE : jobs->cancelled ? JOB_CANCELLED : JOB_FAILED);
}

static void *run(void *user)
{
	struct jobs *jobs = user;
	struct job *job;
	pthread_mutex_lock(&jobs->mutex);
	while (!jobs->closing) {
		if ((job = take(&jobs->waiting)))
			run_one(jobs, job);
		else
			pthread_cond_wait(&jobs->changed, &jobs->mutex);
	}
	pthread_mutex_unlock(&jobs->mutex);
	return NULL;
}

/* No handler runs on this thread's stack but for a crash's, which has to restore the terminal. */
static int start(struct jobs *jobs, struct error *err)
{
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
	sigset_t all, before;
	sigfillset(&all);
	for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
		sigdelset(&all, crashes[i]);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	int failed = pthread_create(&jobs->thread, NULL, run, jobs);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return failed ? fail(err, "can't start the jobs' thread: %s", strerror(failed)) : 0;
}

static void release(struct jobs *jobs)
{
	struct job *job;
	while ((job = take(&jobs->waiting)) || (job = take(&jobs->ended)))
		job->free(job);
	if (jobs->fd >= 0)
		close(jobs->fd);
	pthread_cond_destroy(&jobs->changed);
	pthread_mutex_destroy(&jobs->mutex);
	free(jobs);
}

struct jobs *jobs_open(struct error *err)
{
	struct jobs *jobs = mem_new(1, sizeof *jobs, err);
	if (!jobs)
		return NULL;
	pthread_mutex_init(&jobs->mutex, NULL);
	pthread_cond_init(&jobs->changed, NULL);
	jobs->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (jobs->fd < 0)
		fail(err, "can't make an eventfd for jobs");
	if (jobs->fd < 0 || start(jobs, err)) {
		release(jobs);
		return NULL;
	}
	return jobs;
}

void jobs_close(struct jobs *jobs)
{
	if (!jobs)
		return;
	pthread_mutex_lock(&jobs->mutex);
	jobs->closing = jobs->cancelled = true;
	pthread_cond_signal(&jobs->changed);
	pthread_mutex_unlock(&jobs->mutex);
	pthread_join(jobs->thread, NULL);
	release(jobs);
}

void jobs_submit(struct jobs *jobs, struct job *job)
{
	pthread_mutex_lock(&jobs->mutex);
	job->jobs = jobs;
	job->state = JOB_WAITING;
	append(&jobs->waiting, job);
	pthread_cond_signal(&jobs->changed);
	pthread_mutex_unlock(&jobs->mutex);
}

int jobs_fd(const struct jobs *jobs)
{
	return jobs->fd;
}

struct job *jobs_next(struct jobs *jobs)
{
	pthread_mutex_lock(&jobs->mutex);
	struct job *job = take(&jobs->ended);
	if (!job) { // quiet until something happens again
		uint64_t count;
		ssize_t n = read(jobs->fd, &count, sizeof count);
		(void)n;
	}
	pthread_mutex_unlock(&jobs->mutex);
	return job;
}

void jobs_progress(struct jobs *jobs, struct job_progress *out)
{
	pthread_mutex_lock(&jobs->mutex);
	*out = (struct job_progress){.job = jobs->running};
	if (jobs->running) {
		out->name = jobs->running->name;
		out->done = jobs->done;
		out->total = jobs->total;
	}
	for (const struct job *job = jobs->waiting.first; job; job = job->next)
		out->n_waiting++;
	pthread_mutex_unlock(&jobs->mutex);
}

void jobs_cancel(struct jobs *jobs, const struct job *job)
{
	struct job_list all;
	struct job *at;
	pthread_mutex_lock(&jobs->mutex);
	if (jobs->running && (!job || job == jobs->running))
		jobs->cancelled = true;
	all = jobs->waiting;
	jobs->waiting = (struct job_list){0};
	while ((at = take(&all))) {
		if (!job || at == job)
			end(jobs, at, JOB_CANCELLED);
		else
			append(&jobs->waiting, at);
	}
	pthread_mutex_unlock(&jobs->mutex);
}

int job_step(struct job *job, int done, int total)
{
	struct jobs *jobs = job->jobs;
	if (!jobs)
		return 0;
	uint64_t now = clock_ns();
	pthread_mutex_lock(&jobs->mutex);
	bool cancelled = jobs->cancelled;
	jobs->done = done;
	jobs->total = total;
	if (now - jobs->said_ns >= PROGRESS_NS) {
		jobs->said_ns = now;
		wake(jobs);
	}
	pthread_mutex_unlock(&jobs->mutex);
	return cancelled ? -1 : 0;
}

int job_plan_step(void *job, int done, int total)
{
	return job_step(job, done, total);
}
