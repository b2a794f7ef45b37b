/*
 * The engine that runs the model in this process: the table's functions, called by the owner's
 * thread, and the start and end of the worker (core/worker.h), which does the rest.
 */
#include "base/clock.h"
#include "base/memory.h"
#include "core/worker.h"
#include <signal.h>
#include <stdlib.h>
#include <string.h>

struct local {
	struct engine engine; // first
	struct worker worker;
	pthread_t thread;
	int reader;
};

static int submit(struct engine *engine, const struct request *request, struct error *err)
{
	struct local *local = (struct local *)engine;
	if (request->seq < 0 || request->seq >= MAX_SEQUENCES)
		return fail(err, "sequence %d: expected 0 to %d", request->seq, MAX_SEQUENCES - 1);
	if (request->type == REQUEST_OPEN && !request->directory && !request->model)
		return fail(err, "open: no directory is named");
	if ((request->type == REQUEST_TURN || request->type == REQUEST_SAY) && !request->conversation &&
		!request->tokens)
		return fail(err, "turn: there is no conversation");
	if ((request->type == REQUEST_COMPLETE || request->type == REQUEST_TURN) &&
		request->n_tokens < 0)
		return fail(err, "complete: %d tokens", request->n_tokens);
	if (request->type == REQUEST_FORK && !(request->value >= 0 && request->value < MAX_SEQUENCES))
		return fail(err, "fork of sequence %g: expected 0 to %d", request->value,
					MAX_SEQUENCES - 1);
	struct request_copy *copy = request_copy(request, err);
	if (!copy)
		return -1;
	queue_put(&local->worker.queue, copy);
	return 0;
}

static int descriptor(struct engine *engine)
{
	struct local *local = (struct local *)engine;
	return journal_fd(local->worker.journal, local->reader);
}

static const struct event *next(struct engine *engine)
{
	struct local *local = (struct local *)engine;
	return journal_next(local->worker.journal, local->reader);
}

static void gauges(struct engine *engine, struct gauges *out)
{
	struct worker *worker = &((struct local *)engine)->worker;
	pthread_mutex_lock(&worker->shared);
	*out = worker->gauges;
	pthread_mutex_unlock(&worker->shared);
}

static int experts(struct engine *engine, struct expert_counts *out, struct error *err)
{
	struct worker *worker = &((struct local *)engine)->worker;
	int failed = 0;
	pthread_mutex_lock(&worker->shared);
	const struct expert_counts *from = &worker->experts;
	size_t n = (size_t)N_PHASES * (size_t)from->n_layers * (size_t)from->n_experts;
	bool same = out->counts && out->n_layers == from->n_layers && out->n_experts == from->n_experts;
	uint32_t *counts = same ? out->counts : realloc(out->counts, (n + 1) * sizeof *counts);
	if (!counts) {
		failed = fail(err, "no memory for %zu expert counts", n);
	} else {
		if (n > 0 && !(same && out->version == from->version))
			memcpy(counts, from->counts, n * sizeof *counts);
		*out = *from;
		out->counts = counts;
	}
	pthread_mutex_unlock(&worker->shared);
	return failed;
}

static void release(struct local *local)
{
	journal_close(local->worker.journal);
	queue_finish(&local->worker.queue);
	free(local->worker.experts.counts);
	free(local->worker.parents);
	pthread_mutex_destroy(&local->worker.shared);
	free(local);
}

static void close_local(struct engine *engine)
{
	struct local *local = (struct local *)engine;
	if (!local)
		return;
	queue_end(&local->worker.queue);
	pthread_join(local->thread, NULL);
	release(local);
}

static const struct engine_table table = {submit, descriptor, next, gauges, experts, close_local};

static void *run(void *worker)
{
	worker_run(worker);
	return NULL;
}

/* No handler runs on the worker's stack, nor on those of the threads it makes, but for a crash's,
 * which has to restore the terminal. */
static int start(struct local *local, struct error *err)
{
	sigset_t all, before;
	static const int crashes[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP, SIGSYS};
	sigfillset(&all);
	for (size_t i = 0; i < sizeof crashes / sizeof *crashes; i++)
		sigdelset(&all, crashes[i]);
	pthread_sigmask(SIG_BLOCK, &all, &before);
	int failed = pthread_create(&local->thread, NULL, run, &local->worker);
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	return failed ? fail(err, "can't start the worker thread: %s", strerror(failed)) : 0;
}

struct engine *engine_local_open(const struct engine_options *options, struct error *err)
{
	struct local *local = mem_new(1, sizeof *local, err);
	if (!local)
		return NULL;
	struct worker *worker = &local->worker;
	local->engine.table = &table;
	worker->options = *options;
	worker->opened_ns = clock_ns();
	pthread_mutex_init(&worker->shared, NULL);
	queue_init(&worker->queue);
	for (int i = 0; i < MAX_SEQUENCES; i++)
		track_init(&worker->tracks[i], worker, i);
	worker->journal = journal_open(err);
	if (worker->journal) {
		local->reader = journal_add_reader(worker->journal, err);
		if (local->reader >= 0 && !start(local, err))
			return &local->engine;
	}
	release(local);
	return NULL;
}
