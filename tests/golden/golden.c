#include "golden.h"
#include "base/file.h"
#include "base/hash.h"
#include "tests/tested.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

const struct backend *const golden_backend = TESTED_BACKEND;

struct golden_run golden_run;

static const struct golden_test *current; // the test that runs now
static uint64_t left;                     // hash of what it compared

void golden_note(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	printf("# ");
	vprintf(format, arguments);
	printf("\n");
	va_end(arguments);
}

void golden_fail(const char *format, ...)
{
	va_list arguments;
	va_start(arguments, format);
	vprint_error(format, arguments);
	va_end(arguments);
	print_error("\n");
	_fail(current ? current->name : "golden", 0);
	abort();
}

void golden_must(int result, const struct error *err)
{
	if (result)
		golden_fail("%s", err->text);
}

char *golden_path(const char *file)
{
	struct error err = {0};
	const char *tests = getenv("ELASTISCOPE_TESTS");
	char *folder, *path;

	assert_non_null(tests);
	folder = file_join(tests, "golden", &err);
	assert_non_null(folder);
	path = file_join(folder, file, &err);
	assert_non_null(path);
	free(folder);
	return path;
}

void golden_open_kv(struct golden *g, const char *folder, const char *budgets, enum math math,
					enum dtype kv_dtype)
{
	struct error err = {0};
	struct model_options options = {0};
	struct device_options device = {
		.n_threads = golden_run.threads, .math = math, .kv_dtype = kv_dtype};
	char *path = strcmp(folder, "demo") ? golden_path(folder) : file_shared("demo", &err);
	char *file = NULL;

	*g = (struct golden){.kv_dtype = device.kv_dtype};
	assert_non_null(path);
	if (budgets) {
		file = file_join(path, budgets, &err);
		assert_non_null(file);
		options.budgets_file = file;
	}
	g->model = model_open(path, &options, &err);
	golden_must(g->model ? 0 : -1, &err);
	g->device = golden_backend->open(&device, &err);
	golden_must(g->device ? 0 : -1, &err);
	g->workspace = workspace_open(&g->model->config, golden_backend, g->device, GOLDEN_LANES,
								  GOLDEN_TOKENS, true, &err);
	golden_must(g->workspace ? 0 : -1, &err);
	free(file);
	free(path);
}

void golden_open(struct golden *g, const char *folder, const char *budgets, enum math math)
{
	golden_open_kv(g, folder, budgets, math, math == MATH_FAST ? DTYPE_BF16 : DTYPE_F32);
}

void golden_close(struct golden *g)
{
	workspace_close(g->workspace);
	for (int i = 0; i < g->n_slices; i++)
		slice_free(&g->slices[i]);
	golden_backend->close(g->device);
	model_release(g->model);
}

const struct slice *golden_slice(struct golden *g, const char *name)
{
	struct error err = {0};
	struct budget budget = {0};
	struct slice *slice = &g->slices[g->n_slices];

	for (int i = 0; i < g->n_slices; i++)
		if (!strcmp(g->names[i], name))
			return &g->slices[i];
	assert_true(g->n_slices < GOLDEN_SLICES);
	golden_must(model_budget(g->model, name, &budget, &err), &err);
	golden_must(slice_build(slice, &g->model->weights, &g->model->config, &budget, golden_backend,
							g->device, &err),
				&err);
	budget_free(&budget);
	snprintf(g->names[g->n_slices++], sizeof g->names[0], "%s", name);
	return slice;
}

void golden_sequence(struct golden *g, struct sequence *sequence, const char *budget)
{
	struct error err = {0};
	golden_must(sequence_open(sequence, &g->model->config, golden_backend, g->device, g->kv_dtype,
							  GOLDEN_CONTEXT, &err),
				&err);
	if (budget)
		golden_must(sequence_use(sequence, golden_slice(g, budget), &err), &err);
}

void golden_read(struct golden *g, struct sequence *sequence, const int32_t *ids, int n, int chunk,
				 float *out)
{
	struct error err = {0};
	size_t vocab = (size_t)g->model->config.vocab_size;

	for (int at = 0; at < n; at += chunk) {
		struct lane lane = {.sequence = sequence,
							.tokens = ids + at,
							.n_tokens = n - at < chunk ? n - at : chunk,
							.logits = out ? LOGITS_ALL : LOGITS_NONE};
		golden_must(forward(g->workspace, &lane, 1, NULL, NULL, &err), &err);
		if (out)
			golden_backend->download(g->device, out + (size_t)at * vocab, lane.out,
									 (size_t)lane.n_tokens * vocab * sizeof *out);
	}
}

static const struct tensor *find(const struct checkpoint *values, const char *name, size_t n,
								 enum dtype dtype)
{
	const struct tensor *tensor = checkpoint_find(values, name);
	if (!tensor)
		golden_fail("no golden tensor %s", name);
	assert_int_equal(tensor->dtype, dtype);
	assert_int_equal(tensor->bytes, n * 4);
	return tensor;
}

const float *golden_floats(const struct checkpoint *values, const char *name, size_t n)
{
	return find(values, name, n, DTYPE_F32)->data;
}

const int32_t *golden_ids(const struct checkpoint *values, const char *name, size_t n)
{
	return find(values, name, n, DTYPE_I32)->data;
}

double golden_error(const float *found, const float *expected, size_t n)
{
	double difference = 0, magnitude = 0;

	for (size_t i = 0; i < n; i++) {
		double d = fabs((double)found[i] - (double)expected[i]);
		if (!isfinite(d))
			return INFINITY;
		difference = fmax(difference, d);
		magnitude = fmax(magnitude, fabs((double)expected[i]));
	}
	return magnitude > 0 ? difference / magnitude : difference;
}

void golden_close_to(struct golden *g, const char *what, const float *found, const float *expected,
					 size_t n, double limit)
{
	double error = golden_error(found, expected, n);

	g->hash = hash_mix(g->hash ^ hash_bytes(found, n * sizeof *found));
	if (!(error <= limit))
		golden_fail("%s: relative error %.2g, expected at most %.2g", what, error, limit);
	if (error > g->worst)
		g->worst = error;
}

void golden_same(const char *what, const float *found, const float *expected, size_t n)
{
	if (golden_backend == &backend_cpu)
		assert_memory_equal(found, expected, n * sizeof *found);
	else if (!(golden_error(found, expected, n) <= 1e-5))
		golden_fail("%s: relative error %.2g between two ways to run it", what,
					golden_error(found, expected, n));
}

void golden_same_picked(const char *what, const struct picked *found, const struct picked *expected)
{
	const float a[] = {found->logprob, found->entropy},
				b[] = {expected->logprob, expected->entropy};
	if (found->id != expected->id)
		golden_fail("%s: token %d, another way to run it says %d", what, found->id, expected->id);
	golden_same(what, a, b, 2);
	for (int i = 0; i < N_ALTERNATIVES; i++) {
		assert_int_equal(found->top[i].id, expected->top[i].id);
		golden_same(what, &found->top[i].logprob, &expected->top[i].logprob, 1);
	}
}

void golden_leave(const struct golden *g, const char *what)
{
	left = hash_mix(left ^ g->hash);
	if (golden_run.threads == 1 && g->worst > 0)
		golden_note("%s, %s: largest relative error %.2g", what, golden_run.rung, g->worst);
}

static void run_one(void **state)
{
	uint64_t one_thread = 0;
	int n;
	const struct cpu_rung *const *rungs = cpu_rungs(&n);

	current = *state;
	if (golden_backend != &backend_cpu) {
		golden_run = (struct golden_run){golden_backend->name, 1};
		left = 1;
		current->run();
		return;
	}
	for (int rung = 0; rung < n; rung++)
		for (int threads = 1; threads <= 2; threads++) {
			/* The best one with its BF16 products, which only --math fast takes. */
			unsetenv("ELASTISCOPE_RUNG");
			const char *name = rung == n - 1 ? cpu_rung_best(MATH_FAST)->name : rungs[rung]->name;
			golden_run = (struct golden_run){name, threads};
			setenv("ELASTISCOPE_RUNG", name, 1);
			left = 1;
			current->run();
			if (threads == 1)
				one_thread = left;
			else if (left != one_thread)
				golden_fail("%s, rung %s: results depend on the number of threads", current->name,
							name);
		}
}

int golden_main(const struct golden_test *tests, int n)
{
	struct CMUnitTest all[16] = {0};
	const char *only = getenv("ELASTISCOPE_GOLDEN");
	size_t n_wanted = 0;

	assert_true(n <= 16);
	for (int i = 0; i < n; i++) {
		if (only && strcmp(only, tests[i].name) != 0)
			continue;
		all[n_wanted].name = tests[i].name;
		all[n_wanted].test_func = run_one;
		all[n_wanted++].initial_state = (void *)(uintptr_t)&tests[i];
	}
	if (n_wanted == 0) {
		fprintf(stderr, "ELASTISCOPE_GOLDEN=%s: no test of this program\n", only);
		return 1;
	}
	return _cmocka_run_group_tests("golden", all, n_wanted, NULL, NULL);
}
