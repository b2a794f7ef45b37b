/*
 * A thread pool for one caller at a time: the caller works too, so n threads are n - 1 workers.
 * Between two runs workers spin for a few microseconds and then sleep, so that a busy neighbour
 * costs little and a decode step is not paid in wake-ups.
 */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/error.h"

struct pool;

/* One part of a run: part 0 .. n_parts-1, each exactly once, on any thread. */
typedef void pool_task(void *argument, int part, int n_parts);

struct pool *pool_open(int n_threads, struct error *err); // n_threads >= 1
void pool_close(struct pool *pool);                       // takes NULL
int pool_size(const struct pool *pool);

/* Runs task for every part and returns when all are done. n_parts = pool_size. */
void pool_run(struct pool *pool, pool_task *task, void *argument);

/* CPUs that this process may use (affinity and cgroup quota), at least 1. */
int pool_cpus(void);

/* part's share of n items: [*from, *to), in multiples of `grain`, deterministic. */
void pool_share(int part, int n_parts, int n, int grain, int *from, int *to);

#endif
