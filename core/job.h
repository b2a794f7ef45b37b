/*
 * Heavy work off the UI thread: one background thread that runs jobs in the order in which they
 * were submitted. Jobs read only what nobody changes (a retained model) and open a CPU device of
 * their own with one thread, so that the chat never waits for them.
 *
 * Who owns a job: the submitter until jobs_submit(), the queue until jobs_next() hands it over,
 * then the submitter again. All functions but job_step() belong to the submitter's thread. A result
 * is a field of the struct that holds the job first.
 */
#ifndef CORE_JOB_H
#define CORE_JOB_H

#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

enum job_state { JOB_NEW, JOB_WAITING, JOB_RUNNING, JOB_DONE, JOB_FAILED, JOB_CANCELLED };

struct jobs;

struct job {
	const char *name; // static: "handoff lab"
	int (*run)(struct job *job, struct error *err);
	void (*free)(struct job *job); // the struct and its result; never while it runs

	// written by the queue; final when jobs_next() has handed the job over
	enum job_state state;
	struct error error; // JOB_FAILED
	struct jobs *jobs;  // NULL = not submitted
	struct job *next;
};

struct job_progress {
	const struct job *job; // NULL = none is running
	const char *name;
	int done, total; // total 0 = it has not said anything yet
	int n_waiting;
};

struct jobs *jobs_open(struct error *err);
void jobs_close(struct jobs *jobs); // cancels all, waits for the running one, frees; takes NULL

void jobs_submit(struct jobs *jobs, struct job *job);

/* Readable when a job has begun or ended, or when progress has changed (at most 10 times a second),
 * until jobs_next() has returned NULL. */
int jobs_fd(const struct jobs *jobs);

/* The oldest job that has ended, DONE, FAILED or CANCELLED, NULL = none. The caller frees it:
 * job->free(job). */
struct job *jobs_next(struct jobs *jobs);

void jobs_progress(struct jobs *jobs, struct job_progress *out);

/* A waiting job never runs, a running one is told by job_step(); it comes out of jobs_next() soon.
 * NULL = all. */
void jobs_cancel(struct jobs *jobs, const struct job *job);

/* From run(), between chunks: 0 go on, -1 cancelled: free what is half done and return -1. A job
 * that was never submitted (a command runs it itself) is never cancelled. */
int job_step(struct job *job, int done, int total);

/* The same as the `step` of a plan (fidelity, outlook, lab, ...), whose `user` is the job. */
int job_plan_step(void *job, int done, int total);

#endif
