/* Operations over many tokens against the CPU's, in exact and in fast math: they take other kernels
 * than a few tokens do, and fast math rounds activations to BF16. */
#include "kernels/convert.h"
#include "tests/kernels/case.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const enum dtype dtypes[] = {DTYPE_BF16, DTYPE_F8_E4M3, DTYPE_NVFP4, DTYPE_F32, DTYPE_F16};
#define N_WEIGHT_DTYPES ((int)(sizeof dtypes / sizeof dtypes[0]))

static struct device *reference; // CPU, exact

static int open_both(void **state)
{
	struct device_options options = {.n_threads = 1, .kv_dtype = DTYPE_F32};
	reference = backend_cpu.open(&options, NULL);
	return reference ? case_open(state) : -1;
}

static int open_both_fast(void **state)
{
	struct device_options options = {.n_threads = 1, .kv_dtype = DTYPE_F32};
	reference = backend_cpu.open(&options, NULL);
	return reference ? case_open_fast(state) : -1;
}

static int close_both(void **state)
{
	backend_cpu.close(reference);
	return case_close(state);
}

static float *copy_of(const float *values, size_t n)
{
	float *copy = case_new(n);
	memcpy(copy, values, n * sizeof *copy);
	return copy;
}

/* |found - expected| / |expected| over the whole, and no value far off by itself. Exact math leaves
 * the order of sums; BF16 has 8 bits. */
static void check_close(const float *expected, const float *found, size_t n, const char *what)
{
	double limit = case_looseness() > 1 ? 1e-2 : 1e-5, error = 0, size = 0;
	for (size_t i = 0; i < n; i++)
		size += (double)expected[i] * (double)expected[i] / (double)n;
	for (size_t i = 0; i < n; i++) {
		double d = (double)found[i] - (double)expected[i];
		error += d * d / (double)n;
		if (!(fabs(d) <= 5 * limit * (sqrt(size) + fabs((double)expected[i]))))
			fail_msg("%s: value %zu of %zu is %.9g, expected %.9g", what, i, n, (double)found[i],
					 (double)expected[i]);
	}
	if (!(sqrt(error) <= limit * sqrt(size)))
		fail_msg("%s: off by %.3g of %.3g", what, sqrt(error), sqrt(size));
}

static void finish_both(struct device *device)
{
	struct error err = {0};
	case_finish(device);
	if (backend_cpu.finish(reference, &err))
		fail_msg("%s", err.text);
}

/* Rows and columns of whole blocks of 16, as real models have: the wide loads. */
static void whole_blocks(struct matrix *m)
{
	static struct span rows, columns;
	rows = (struct span){0, m->n_rows};
	columns = (struct span){0, m->n_columns};
	m->rows = m->device_rows = &rows;
	m->columns = m->device_columns = &columns;
	m->n_row_spans = m->n_column_spans = 1;
}

/* ---- products ---- */

static void products_are_right(void **state)
{
	(void)state;
	for (int round = 0; round < 20; round++) {
		case_seed(1000 + (uint64_t)round);
		struct matrix w;
		bool even = round % 2;
		int rows = case_int(1, 200), columns = case_int(1, 150), n = case_int(16, 140);
		if (even)
			columns = columns / 16 * 16 + 16;
		do
			case_matrix(&w, dtypes[round % N_WEIGHT_DTYPES], rows, columns);
		while (even && w.stride % 16);
		if (even)
			whole_blocks(&w);
		size_t n_y = (size_t)n * (size_t)rows;
		struct linear_op op = {
			.w = &w, .n = n, .mode = (enum linear_mode)(round % 3), .precise = round % 7 == 6};
		op.x = case_new((size_t)n * (size_t)w.n_columns);
		op.y = case_new(n_y);
		struct linear_op expected = op;
		expected.y = copy_of(op.y, n_y);
		case_backend->linear(case_device(1), 1, &op);
		backend_cpu.linear(reference, 1, &expected);
		finish_both(case_device(1));
		check_close(expected.y, op.y, n_y, dtype_name(w.dtype));
		case_done();
	}
}

/* ---- experts ---- */

#define MAX_EXPERTS 6

static void experts_are_right(void **state)
{
	(void)state;
	static struct matrix up[MAX_EXPERTS], down[MAX_EXPERTS];
	for (int round = 0; round < 12; round++) {
		case_seed(1100 + (uint64_t)round);
		enum dtype dtype = dtypes[round % N_WEIGHT_DTYPES];
		enum dtype other = round % 4 == 3 ? DTYPE_F8_E4M3 : dtype;
		int width = 16 * case_int(1, 5), ffn = 16 * case_int(1, 9), n = case_int(16, 90);
		int n_experts = case_int(1, MAX_EXPERTS), top_k = case_int(1, n_experts);
		if (round % 3 == 0 && dtype != DTYPE_NVFP4)
			width -= 3, ffn -= 5;
		case_matrix(&up[0], dtype, ffn, width);
		case_matrix(&down[0], dtype, width, ffn);
		for (int e = 1; e < n_experts; e++) {
			case_sibling(&up[e], &up[0], e % 2 ? dtype : other);
			case_sibling(&down[e], &down[0], e % 2 ? other : dtype);
		}
		size_t n_pairs = (size_t)n * (size_t)top_k, n_y = (size_t)n * (size_t)width;
		int32_t *ids = case_new_bytes(n_pairs * sizeof *ids);
		for (int t = 0; t < n; t++) // the last expert only now and then: a tile of few, or none
			for (int k = 0, e = 0; k < top_k; k++, e++) {
				int last = n_experts - top_k + k;
				e = case_int(e, last > e && t % 9 ? last - 1 : last);
				ids[t * top_k + k] = e;
			}
		struct experts_op op = {.up = up,
								.down = down,
								.ids = ids,
								.n = n,
								.n_experts = n_experts,
								.top_k = top_k,
								.width = width,
								.ffn = ffn};
		op.placed_up = case_placed(up, n_experts);
		op.placed_down = case_placed(down, n_experts);
		op.x = case_new(n_y);
		op.weights = case_new(n_pairs);
		op.hidden = case_new(n_pairs * (size_t)ffn);
		op.y = case_new(n_y);
		op.norms = round % 2 ? case_new(n_pairs) : NULL;
		struct experts_op expected = op;
		expected.hidden = case_new(n_pairs * (size_t)ffn);
		expected.y = copy_of(op.y, n_y);
		expected.norms = op.norms ? case_new(n_pairs) : NULL;
		case_backend->experts(case_device(1), 1, &op);
		backend_cpu.experts(reference, 1, &expected);
		finish_both(case_device(1));
		check_close(expected.hidden, op.hidden, n_pairs * (size_t)ffn, "hidden");
		check_close(expected.y, op.y, n_y, "experts");
		if (op.norms)
			check_close(expected.norms, op.norms, n_pairs, "norms");
		case_done();
	}
}

int main(void)
{
	const struct CMUnitTest exact[] = {
		cmocka_unit_test(products_are_right),
		cmocka_unit_test(experts_are_right),
	};
	const struct CMUnitTest fast[] = {
		cmocka_unit_test(products_are_right),
		cmocka_unit_test(experts_are_right),
	};
	int failed = cmocka_run_group_tests(exact, open_both, close_both);
	return failed + cmocka_run_group_tests(fast, open_both_fast, close_both);
}
