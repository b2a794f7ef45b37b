/*
 * A run hands out its parts through one atomic ticket: the number of the run above, the next part
 * below. Whoever is awake takes the next part, so a worker that a busy machine has put aside delays
 * nobody. A worker that comes late, with the ticket of an older run in its hand, fails to exchange
 * it and sees that there is nothing to do; that is why it may read the task before it owns a part.
 *
 * Sleeping is a futex on `epoch` (workers) and on `left` (the caller). Each side first announces
 * that it sleeps and then looks again, in the total order of seq_cst, so no wake-up is lost.
 */
#include "base/pool.h"
#include "base/clock.h"
#include "base/memory.h"
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define SPIN_NS 20000

struct pool {
	int n_threads, n_started;
	uint64_t spin_ns;
	pthread_t *threads;                   // n_threads - 1
	_Atomic(pool_task *) task;            // of the run that the ticket names
	_Atomic(void *) argument;             //
	_Alignas(64) _Atomic uint64_t ticket; // run << 32 | next part
	_Alignas(64) _Atomic uint32_t left;   // parts that are not done
	_Atomic bool caller_sleeps;
	_Alignas(64) _Atomic uint32_t epoch; // + 1 a run
	_Atomic int sleepers;
	_Atomic bool closing;
};

static void futex_wait(_Atomic uint32_t *word, uint32_t while_it_is)
{
	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, while_it_is, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
	__builtin_ia32_pause();
#elif defined(__aarch64__)
	__asm__ volatile("yield");
#endif
}

/* Spins until *word is (or, with `differs`, is not) `value`; false when the time is over. */
static bool spin(_Atomic uint32_t *word, uint32_t value, bool differs, uint64_t spin_ns)
{
	if (!spin_ns)
		return (atomic_load(word) == value) != differs;
	uint64_t end = clock_ns() + spin_ns;
	do {
		for (int i = 0; i < 32; i++) {
			if ((atomic_load(word) == value) != differs)
				return true;
			relax();
		}
	} while (clock_ns() < end);
	return false;
}

/* Takes parts of the present run until there are none. */
static void work(struct pool *pool)
{
	uint64_t ticket = atomic_load(&pool->ticket);
	while ((uint32_t)ticket < (uint32_t)pool->n_threads) {
		pool_task *task = atomic_load_explicit(&pool->task, memory_order_relaxed);
		void *argument = atomic_load_explicit(&pool->argument, memory_order_relaxed);
		if (!atomic_compare_exchange_weak(&pool->ticket, &ticket, ticket + 1))
			continue;
		task(argument, (int)(uint32_t)ticket, pool->n_threads);
		if (atomic_fetch_sub(&pool->left, 1) == 1 && atomic_load(&pool->caller_sleeps))
			futex_wake(&pool->left, 1);
		ticket = atomic_load(&pool->ticket);
	}
}

static void *worker(void *argument)
{
	struct pool *pool = argument;
	for (;;) {
		uint32_t epoch = atomic_load(&pool->epoch);
		if (atomic_load(&pool->closing)) // after the epoch: closing moves it
			return NULL;
		work(pool);
		if (spin(&pool->epoch, epoch, true, pool->spin_ns))
			continue;
		atomic_fetch_add(&pool->sleepers, 1);
		while (atomic_load(&pool->epoch) == epoch)
			futex_wait(&pool->epoch, epoch);
		atomic_fetch_sub(&pool->sleepers, 1);
	}
}

static void wake_workers(struct pool *pool)
{
	atomic_fetch_add(&pool->epoch, 1);
	if (atomic_load(&pool->sleepers) > 0)
		futex_wake(&pool->epoch, INT_MAX);
}

void pool_run(struct pool *pool, pool_task *task, void *argument)
{
	if (pool->n_threads == 1) {
		task(argument, 0, 1);
		return;
	}
	uint64_t run = (atomic_load_explicit(&pool->ticket, memory_order_relaxed) >> 32) + 1;
	atomic_store_explicit(&pool->task, task, memory_order_relaxed);
	atomic_store_explicit(&pool->argument, argument, memory_order_relaxed);
	atomic_store(&pool->left, (uint32_t)pool->n_threads);
	atomic_store(&pool->ticket, run << 32);
	wake_workers(pool);
	work(pool);
	if (spin(&pool->left, 0, false, pool->spin_ns))
		return;
	atomic_store(&pool->caller_sleeps, true);
	for (uint32_t left; (left = atomic_load(&pool->left)) != 0;)
		futex_wait(&pool->left, left);
	atomic_store(&pool->caller_sleeps, false);
}

void pool_close(struct pool *pool)
{
	if (!pool)
		return;
	atomic_store(&pool->closing, true);
	wake_workers(pool);
	for (int i = 0; i < pool->n_started; i++)
		pthread_join(pool->threads[i], NULL);
	free(pool->threads);
	free(pool);
}

struct pool *pool_open(int n_threads, struct error *err)
{
	if (n_threads < 1 || n_threads > 4096) {
		fail(err, "%d threads, expected 1 to 4096", n_threads);
		return NULL;
	}
	struct pool *pool = mem_new_aligned(1, sizeof *pool, err);
	if (!pool)
		return NULL;
	pool->n_threads = n_threads;
	// where there are more threads than CPUs, who spins keeps the others from working
	pool->spin_ns = n_threads > pool_cpus() ? 0 : SPIN_NS;
	pool->ticket = (uint32_t)n_threads; // run 0 has no part left
	pool->threads = mem_new((size_t)n_threads, sizeof *pool->threads, err);
	if (!pool->threads) {
		pool_close(pool);
		return NULL;
	}
	// signals belong to the thread that asked for them, whatever the opener has blocked
	sigset_t all, before;
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &before);
	for (int failed = 0; pool->n_started < n_threads - 1 && !failed; pool->n_started += !failed) {
		failed = pthread_create(&pool->threads[pool->n_started], NULL, worker, pool);
		if (failed)
			fail(err, "can't start thread %d of %d: %s", pool->n_started + 2, n_threads,
				 strerror(failed));
	}
	pthread_sigmask(SIG_SETMASK, &before, NULL);
	if (pool->n_started < n_threads - 1) {
		pool_close(pool);
		return NULL;
	}
	return pool;
}

int pool_size(const struct pool *pool)
{
	return pool->n_threads;
}

/* CPUs */

static int affinity_cpus(void)
{
	for (int bits = 1024; bits <= 1 << 16; bits *= 2) {
		cpu_set_t *set = CPU_ALLOC(bits);
		size_t size = CPU_ALLOC_SIZE(bits);
		if (!set)
			return 1;
		int result = sched_getaffinity(0, size, set),
			cpus = result == 0 ? CPU_COUNT_S(size, set) : 0;
		CPU_FREE(set);
		if (result == 0)
			return cpus;
		if (errno != EINVAL) // EINVAL: the machine has more CPUs than bits
			break;
	}
	return 1;
}

/* The first line of a file, without its newline; "" if there is none. */
static void read_line(const char *path, char *line, int size)
{
	FILE *file = fopen(path, "re");
	line[0] = 0;
	if (!file)
		return;
	if (!fgets(line, size, file))
		line[0] = 0;
	line[strcspn(line, "\n")] = 0;
	fclose(file);
}

/* CPUs that "QUOTA PERIOD" is worth, rounded up; INT_MAX for "max 100000" or anything else. */
static int quota_cpus(const char *quota)
{
	long long allowed, period;
	if (sscanf(quota, "%lld %lld", &allowed, &period) != 2 || allowed <= 0 || period <= 0)
		return INT_MAX;
	long long cpus = (allowed + period - 1) / period;
	return cpus < INT_MAX ? (int)cpus : INT_MAX;
}

/* cgroup v2 limits a process by every folder from its own up to the root; v1 is read at its root,
 * which is what a container sees. */
static int cgroup_cpus(void)
{
	char own[1024], path[1200], line[64], period[64];
	int cpus = INT_MAX;
	read_line("/proc/self/cgroup", own, sizeof own);
	if (strncmp(own, "0::/", 4) == 0) {
		for (char *end = own + strlen(own); end > own + 3; end = strrchr(own + 3, '/')) {
			*end = 0;
			snprintf(path, sizeof path, "/sys/fs/cgroup%s/cpu.max", own + 3);
			read_line(path, line, sizeof line);
			cpus = quota_cpus(line) < cpus ? quota_cpus(line) : cpus;
		}
	}
	read_line("/sys/fs/cgroup/cpu.max", line, sizeof line);
	cpus = quota_cpus(line) < cpus ? quota_cpus(line) : cpus;
	read_line("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", line, sizeof line);
	read_line("/sys/fs/cgroup/cpu/cpu.cfs_period_us", period, sizeof period);
	snprintf(path, sizeof path, "%s %s", line, period);
	return quota_cpus(path) < cpus ? quota_cpus(path) : cpus;
}

int pool_cpus(void)
{
	int cpus = affinity_cpus(), quota = cgroup_cpus();
	cpus = quota < cpus ? quota : cpus;
	return cpus < 1 ? 1 : cpus;
}

void pool_share(int part, int n_parts, int n, int grain, int *from, int *to)
{
	int64_t blocks = ((int64_t)n + grain - 1) / grain;
	int64_t first = blocks * part / n_parts * grain, end = blocks * (part + 1) / n_parts * grain;
	*from = (int)(first < n ? first : n);
	*to = (int)(end < n ? end : n);
}
