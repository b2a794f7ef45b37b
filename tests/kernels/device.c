/* Opening a device, its memory, its rungs, and that the benchmark reports. */
#include "kernels/bench.h"
#include "kernels/cpu.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void options_are_checked(void **state)
{
	(void)state;
	struct error err = {0};
	assert_null(backend_cpu.open(&(struct device_options){.n_threads = -1}, &err));
	assert_string_equal(err.text, "threads: -1, expected 0 (all) to 256");
	assert_null(backend_cpu.open(&(struct device_options){.kv_dtype = DTYPE_I32}, &err));
	assert_string_equal(err.text, "KV cache in I32, expected F32, BF16 or F8_E4M3");
	struct device *device = backend_cpu.open(&(struct device_options){.n_threads = 3}, &err);
	assert_non_null(device);
	assert_int_equal(backend_cpu.threads(device), 3);
	backend_cpu.close(device);
	backend_cpu.close(NULL);
}

static void memory_is_zeroed_and_copied(void **state)
{
	(void)state;
	struct error err = {0};
	const struct backend *b = &backend_cpu;
	struct device *device = b->open(&(struct device_options){.n_threads = 1}, &err);
	unsigned char *memory = b->alloc(device, 1000, &err), host[1000];
	assert_non_null(memory);
	assert_ptr_equal(b->adopt(device, host, sizeof host, &err), host);
	for (int i = 0; i < 1000; i++)
		assert_int_equal(memory[i], 0);
	b->upload(device, memory, "abc", 3);
	b->copy(device, memory + 3, memory, 3);
	b->zero(device, memory, 1);
	b->download(device, host, memory, 6);
	assert_memory_equal(host, "\0bcabc", 6);
	b->release(device, memory);
	b->release(device, NULL);
	assert_int_equal(b->begin(device, 7), STEP_RUN);
	assert_int_equal(b->finish(device, &err), 0);
	assert_null(b->alloc(device, SIZE_MAX, &err));
	assert_true(err.text[0]);
	b->close(device);
}

static void rungs_climb_from_c(void **state)
{
	(void)state;
	int n;
	const struct cpu_rung *const *rungs = cpu_rungs(&n);
	assert_true(n >= 1);
	assert_string_equal(rungs[0]->name, "c");
	unsetenv("ELASTISCOPE_RUNG");
	assert_ptr_equal(cpu_rung_best(MATH_EXACT), rungs[n - 1]);
	for (int i = 0; i < n; i++) {
		setenv("ELASTISCOPE_RUNG", rungs[i]->name, 1);
		assert_ptr_equal(cpu_rung_best(MATH_EXACT), rungs[i]);
		assert_ptr_equal(cpu_rung_best(MATH_FAST), rungs[i]); // and nothing above it
	}
	setenv("ELASTISCOPE_RUNG", "avx512+bf16", 1); // what is there of it
	assert_ptr_equal(cpu_rung_best(MATH_EXACT), rungs[n - 1]);
	const struct cpu_rung *fast = cpu_rung_best(MATH_FAST);
	unsetenv("ELASTISCOPE_RUNG");
	assert_ptr_equal(cpu_rung_best(MATH_FAST), fast);
	unsetenv("ELASTISCOPE_RUNG");
}

static void count_row(void *arg, const char *name, const char *rung, double ns, double bytes)
{
	assert_true(name[0] && rung[0] && ns > 0 && bytes >= 0);
	++*(int *)arg;
}

static void benchmark_reports_every_rung(void **state)
{
	(void)state;
	int n_rungs, n_rows = 0;
	cpu_rungs(&n_rungs);
	assert_int_equal(kernels_bench(count_row, &n_rows, NULL), 0);
	assert_true(n_rows > 6 * n_rungs);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(options_are_checked),
		cmocka_unit_test(memory_is_zeroed_and_copied),
		cmocka_unit_test(rungs_climb_from_c),
		cmocka_unit_test(benchmark_reports_every_rung),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
