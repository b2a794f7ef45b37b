#include "base/pool.h"
#include <limits.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct sums {
	int seen[64]; // how often each part ran: plain memory, the pool must order it
	int numbers[1000];
	long total[64];
	int n_parts;
};

static void count_part(void *argument, int part, int n_parts)
{
	struct sums *sums = argument;
	sums->seen[part]++;
	if (part == 0)
		sums->n_parts = n_parts;
}

static void add_share(void *argument, int part, int n_parts)
{
	struct sums *sums = argument;
	int from, to;
	pool_share(part, n_parts, 1000, 16, &from, &to);
	sums->total[part] = 0;
	for (int i = from; i < to; i++)
		sums->total[part] += sums->numbers[i]++;
}

static void every_part_runs_once(void **state)
{
	struct error err = {0};
	(void)state;
	for (int n = 1; n <= 9; n++) {
		struct sums sums = {0};
		struct pool *pool = pool_open(n, &err);
		assert_non_null(pool);
		assert_int_equal(pool_size(pool), n);
		for (int run = 1; run <= 200; run++) {
			pool_run(pool, count_part, &sums);
			for (int part = 0; part < n; part++)
				assert_int_equal(sums.seen[part], run);
		}
		assert_int_equal(sums.n_parts, n);
		assert_int_equal(sums.seen[n], 0);
		pool_close(pool);
	}
}

/* One run reads what the run before has written, on whatever thread, with different tasks in turn.
 */
static void runs_follow_each_other(void **state)
{
	struct sums sums = {0};
	struct error err = {0};
	struct pool *pool = pool_open(4, &err);
	(void)state;
	for (int run = 0; run < 3000; run++) {
		long total = 0;
		pool_run(pool, add_share, &sums);
		for (int part = 0; part < 4; part++)
			total += sums.total[part];
		assert_int_equal(total, 1000L * run);
		pool_run(pool, count_part, &sums);
		assert_int_equal(sums.seen[3], run + 1);
	}
	pool_close(pool);
}

/* Part 0 holds on until all the others have begun: everybody has a thread of his own. */
static void wait_for_the_others(void *argument, int part, int n_parts)
{
	_Atomic int *begun = argument;
	(void)part;
	atomic_fetch_add(begun, 1);
	while (atomic_load(begun) < n_parts) {
	}
}

static void parts_run_at_the_same_time(void **state)
{
	struct error err = {0};
	struct pool *pool = pool_open(3, &err);
	(void)state;
	for (int run = 0; run < 20; run++) {
		_Atomic int begun = 0;
		pool_run(pool, wait_for_the_others, &begun);
		assert_int_equal(atomic_load(&begun), 3);
	}
	pool_close(pool);
}

static void closing_without_a_run(void **state)
{
	struct error err = {0};
	(void)state;
	for (int i = 0; i < 50; i++) {
		struct pool *pool = pool_open(4, &err);
		assert_non_null(pool);
		pool_close(pool);
	}
	pool_close(NULL);
	assert_null(pool_open(0, &err));
	assert_string_equal(err.text, "0 threads, expected 1 to 4096");
	assert_true(pool_cpus() >= 1);
}

static void shares_cover_everything_once(void **state)
{
	const int sizes[] = {0, 1, 7, 16, 100, 1000, INT_MAX}, grains[] = {1, 16, 64};
	(void)state;
	for (size_t s = 0; s < sizeof sizes / sizeof sizes[0]; s++) {
		for (size_t g = 0; g < 3; g++) {
			for (int n_parts = 1; n_parts < 40; n_parts += 3) {
				int at = 0, from, to;
				for (int part = 0; part < n_parts; part++) {
					pool_share(part, n_parts, sizes[s], grains[g], &from, &to);
					assert_int_equal(from, at);
					assert_true(to >= from);
					assert_true(to == sizes[s] || to % grains[g] == 0);
					at = to;
				}
				assert_int_equal(at, sizes[s]);
			}
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_part_runs_once),         cmocka_unit_test(runs_follow_each_other),
		cmocka_unit_test(parts_run_at_the_same_time),   cmocka_unit_test(closing_without_a_run),
		cmocka_unit_test(shares_cover_everything_once),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
