/*
 * Jobs: order, progress, results, failure, cancelling and closing. Nothing waits for a clock: the
 * test's jobs wait for a gate that the test opens.
 */
#include "core/job.h"
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

struct gate {
	pthread_mutex_t mutex;
	pthread_cond_t changed;
	bool running, open;
	int freed;
};

struct count {
	struct job job; // first
	struct gate *gate;
	int to;    // counts up to this
	int steps; // the result
	bool fails, waits;
};

static int run_count(struct job *job, struct error *err)
{
	struct count *count = (struct count *)job;
	if (count->waits) {
		pthread_mutex_lock(&count->gate->mutex);
		count->gate->running = true;
		pthread_cond_broadcast(&count->gate->changed);
		while (!count->gate->open)
			pthread_cond_wait(&count->gate->changed, &count->gate->mutex);
		pthread_mutex_unlock(&count->gate->mutex);
	}
	for (int i = 0; i < count->to; i++) {
		if (job_step(job, i + 1, count->to))
			return fail(err, "stopped");
		count->steps++;
	}
	return count->fails ? fail(err, "counted to %d", count->to) : 0;
}

static void free_count(struct job *job)
{
	struct count *count = (struct count *)job;
	count->gate->freed++;
	free(count);
}

static struct count *counting(struct gate *gate, int to)
{
	struct count *count = calloc(1, sizeof *count);
	assert_non_null(count);
	*count = (struct count){
		.job = {.name = "count", .run = run_count, .free = free_count}, .gate = gate, .to = to};
	return count;
}

static void gate_open(struct gate *gate)
{
	pthread_mutex_lock(&gate->mutex);
	gate->open = true;
	pthread_cond_broadcast(&gate->changed);
	pthread_mutex_unlock(&gate->mutex);
}

static void gate_wait(struct gate *gate)
{
	pthread_mutex_lock(&gate->mutex);
	while (!gate->running)
		pthread_cond_wait(&gate->changed, &gate->mutex);
	pthread_mutex_unlock(&gate->mutex);
}

static struct count *next_ended(struct jobs *jobs)
{
	struct job *job;
	while (!(job = jobs_next(jobs))) {
		struct pollfd poll_fd = {.fd = jobs_fd(jobs), .events = POLLIN};
		assert_int_equal(poll(&poll_fd, 1, 60000), 1);
	}
	return (struct count *)job;
}

#define GATE                                                                                       \
	{                                                                                              \
		.mutex = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER                    \
	}

static void jobs_run_in_order_and_hand_over(void **state)
{
	struct gate gate = GATE;
	struct error err = {0};
	struct jobs *jobs = jobs_open(&err);
	(void)state;
	assert_non_null(jobs);
	assert_null(jobs_next(jobs));
	for (int i = 1; i <= 3; i++) {
		struct count *count = counting(&gate, 1000 * i);
		count->fails = i == 2;
		jobs_submit(jobs, &count->job);
	}
	for (int i = 1; i <= 3; i++) {
		struct count *count = next_ended(jobs);
		assert_int_equal(count->to, 1000 * i);
		assert_int_equal(count->steps, 1000 * i);
		assert_int_equal(count->job.state, i == 2 ? JOB_FAILED : JOB_DONE);
		assert_string_equal(count->job.error.text, i == 2 ? "counted to 2000" : "");
		count->job.free(&count->job);
	}
	assert_null(jobs_next(jobs));
	struct pollfd poll_fd = {.fd = jobs_fd(jobs), .events = POLLIN};
	assert_int_equal(poll(&poll_fd, 1, 0), 0); // quiet
	jobs_close(jobs);
	assert_int_equal(gate.freed, 3);
}

static void cancelled_jobs_come_back_too(void **state)
{
	struct gate gate = GATE;
	struct error err = {0};
	struct jobs *jobs = jobs_open(&err);
	struct count *running = counting(&gate, 5), *waiting = counting(&gate, 5),
				 *last = counting(&gate, 5);
	struct job_progress progress;
	(void)state;
	assert_non_null(jobs);
	running->waits = true;
	jobs_submit(jobs, &running->job);
	jobs_submit(jobs, &waiting->job);
	jobs_submit(jobs, &last->job);
	gate_wait(&gate);
	jobs_progress(jobs, &progress);
	assert_ptr_equal(progress.job, &running->job);
	assert_string_equal(progress.name, "count");
	assert_int_equal(progress.total, 0);
	assert_int_equal(progress.n_waiting, 2);
	jobs_cancel(jobs, &waiting->job);
	assert_ptr_equal(next_ended(jobs), waiting);
	assert_int_equal(waiting->job.state, JOB_CANCELLED);
	assert_int_equal(waiting->steps, 0);
	jobs_cancel(jobs, &running->job);
	gate_open(&gate);
	assert_ptr_equal(next_ended(jobs), running);
	assert_int_equal(running->job.state, JOB_CANCELLED);
	assert_int_equal(running->steps, 0);
	assert_ptr_equal(next_ended(jobs), last); // others go on
	assert_int_equal(last->job.state, JOB_DONE);
	free_count(&running->job);
	free_count(&waiting->job);
	free_count(&last->job);
	jobs_close(jobs);
	assert_int_equal(gate.freed, 3);
}

static void closing_ends_and_frees_all(void **state)
{
	struct gate gate = GATE;
	struct jobs *jobs = jobs_open(NULL);
	struct count *running = counting(&gate, 1 << 30);
	(void)state;
	assert_non_null(jobs);
	running->waits = true;
	jobs_submit(jobs, &running->job);
	for (int i = 0; i < 3; i++)
		jobs_submit(jobs, &counting(&gate, 1)->job);
	gate_wait(&gate);
	gate_open(&gate); // counts for ever, unless it is told
	jobs_close(jobs);
	assert_int_equal(gate.freed, 4);
	jobs_close(NULL);
	struct count *own = counting(&gate, 7); // never submitted: never cancelled
	assert_int_equal(run_count(&own->job, NULL), 0);
	assert_int_equal(own->steps, 7);
	free_count(&own->job);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(jobs_run_in_order_and_hand_over),
		cmocka_unit_test(cancelled_jobs_come_back_too),
		cmocka_unit_test(closing_ends_and_frees_all),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
