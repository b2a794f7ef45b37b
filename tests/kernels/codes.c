/* Prompts through FP8 weights in fast math, activations in E4M3 too where the card multiplies such:
 * against the CPU's products of activations that were coded the same way. A card that does not, or
 * has no library, rounds them to BF16 instead. */
#include "kernels/convert.h"
#include "tests/kernels/case.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define CODED 1e-3   // relative: tensor cores add with fewer bits than F32 has
#define ROUNDED 1e-2 // BF16
#define TWICE 8e-2   // coded at two places, of which the reference knows the first

static struct device *reference; // CPU, exact

static int open_both(void **state)
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

static double distance(const float *expected, const float *found, size_t n)
{
	double error = 0, size = 0;
	for (size_t i = 0; i < n; i++) {
		double d = (double)found[i] - (double)expected[i];
		error += d * d;
		size += (double)expected[i] * (double)expected[i];
	}
	return sqrt(error / size);
}

/* As the device codes a row: divided by the scale, or by its largest value over 448. */
static float *coded(const float *x, int n, int width, float input_scale)
{
	float *to = case_new((size_t)(n * width));
	for (int t = 0; t < n; t++) {
		float scale = input_scale, top = 0;
		for (int i = 0; i < width; i++)
			top = fmaxf(top, fabsf(x[t * width + i]));
		if (scale <= 0)
			scale = top / 448;
		for (int i = 0; i < width; i++)
			to[t * width + i] = e4m3_values[f32_to_e4m3(x[t * width + i] / scale)] * scale;
	}
	return to;
}

/* FP8 of so many kept rows in two runs (or one) and columns from 16 on, both multiples of 16: all
 * on 16 bytes. */
struct whole {
	struct span rows[2], columns;
};

static void whole_blocks(struct matrix *m, struct whole *spans, int rows, int columns, bool one)
{
	do
		case_matrix(m, DTYPE_F8_E4M3, rows + 1, columns + 16);
	while (m->stride % 16);
	spans->rows[0] = (struct span){0, one ? rows : 16};
	spans->rows[1] = (struct span){17, rows - 16};
	spans->columns = (struct span){16, columns};
	m->rows = m->device_rows = spans->rows;
	m->columns = m->device_columns = &spans->columns;
	m->n_row_spans = one ? 1 : 2;
	m->n_column_spans = 1;
	m->n_rows = rows;
	m->n_columns = columns;
}

static float *twin(const float *values, size_t n)
{
	float *copy = case_new(n);
	memcpy(copy, values, n * sizeof *copy);
	return copy;
}

/* Of what the device found: as with coded activations, or without what it lacks, as in BF16. On the
 * shim it is known which (codes). */
static void check(const float *coded, const float *exact, const float *found, size_t n, bool codes)
{
	double from_coded = distance(coded, found, n), from_exact = distance(exact, found, n);
#if !defined(TEST_SHIM)
	codes = from_coded <= CODED;
#endif
	if (!(codes ? from_coded <= CODED : from_exact <= ROUNDED))
		fail_msg("off by %g of coded, by %g of exact", from_coded, from_exact);
}

/* Whether warps multiply E4M3 and have to, as in shim_codes_alone. */
static bool alone(void)
{
	const char *library = getenv("SHIM_CUBLAS");
	return library && strcmp(library, "0") == 0;
}

static void products_take_codes(void **state)
{
	(void)state;
	for (int round = 0; round < 8; round++) {
		struct matrix w;
		struct whole spans;
		case_seed(1500 + (uint64_t)round);
		int n = case_int(64, 150), rows = 16 * case_int(2, 18), columns = 16 * case_int(1, 18);
		whole_blocks(&w, &spans, rows, columns, round % 2);
		w.input_scale = round % 4 < 2 ? 0.011f : 0; // values up to 4.9, and a larger one
		size_t n_x = (size_t)(n * columns), n_y = (size_t)(n * rows);
		float *x = case_new(n_x);
		x[n_x - 1] = 20;
		struct linear_op op = {.w = &w, .x = x, .n = n, .mode = (enum linear_mode)(round % 3)};
		op.y = case_new(n_y);
		struct linear_op exact = op, with_codes = op;
		exact.y = twin(op.y, n_y);
		with_codes.y = twin(op.y, n_y);
		with_codes.x = coded(x, n, columns, w.input_scale);
		case_backend->linear(case_device(1), 1, &op);
		case_finish(case_device(1));
		backend_cpu.linear(reference, 1, &exact);
		backend_cpu.linear(reference, 1, &with_codes);
		assert_int_equal(backend_cpu.finish(reference, NULL), 0);
		check(with_codes.y, exact.y, op.y, n_y, w.input_scale > 0 || alone());
		case_done();
	}
}

static void experts_take_codes(void **state)
{
	(void)state;
	enum { N_EXPERTS = 4, TOP_K = 2 };
	static struct matrix up[N_EXPERTS], down[N_EXPERTS];
	for (int round = 0; round < 3; round++) {
		struct whole up_spans, down_spans;
		case_seed(1600 + (uint64_t)round);
		int width = 16 * case_int(3, 8), ffn = 16 * case_int(4, 12), n = case_int(40, 180);
		whole_blocks(&up[0], &up_spans, ffn, width, true);
		whole_blocks(&down[0], &down_spans, width, ffn, false);
		for (int e = 1; e < N_EXPERTS; e++) {
			case_sibling(&up[e], &up[0], DTYPE_F8_E4M3);
			case_sibling(&down[e], &down[0], DTYPE_F8_E4M3);
		}
		size_t n_pairs = (size_t)n * TOP_K, n_y = (size_t)(n * width);
		size_t n_hidden = n_pairs * (size_t)ffn;
		int32_t *ids = case_new_bytes(n_pairs * sizeof *ids);
		for (int t = 0; t < n; t++) {
			ids[2 * t] = case_int(0, N_EXPERTS - 2);
			ids[2 * t + 1] = case_int(ids[2 * t] + 1, N_EXPERTS - 1);
		}
		struct experts_op op = {.up = up,
								.down = down,
								.placed_up = case_placed(up, N_EXPERTS),
								.placed_down = case_placed(down, N_EXPERTS),
								.x = case_new(n_y),
								.ids = ids,
								.weights = case_new(n_pairs),
								.hidden = case_new(n_hidden),
								.y = case_new(n_y),
								.n = n,
								.n_experts = N_EXPERTS,
								.top_k = TOP_K,
								.width = width,
								.ffn = ffn,
								.keep_hidden = true};
		struct experts_op exact = op, with_codes = op;
		exact.hidden = case_new(n_hidden);
		with_codes.hidden = case_new(n_hidden);
		exact.y = twin(op.y, n_y);
		with_codes.y = twin(op.y, n_y);
		with_codes.x = coded(op.x, n, width, 0);
		case_backend->experts(case_device(1), 1, &op);
		case_finish(case_device(1));
		backend_cpu.experts(reference, 1, &exact);
		backend_cpu.experts(reference, 1, &with_codes);
		assert_int_equal(backend_cpu.finish(reference, NULL), 0);
		check(with_codes.hidden, exact.hidden, op.hidden, n_hidden, alone());
		assert_true(distance(with_codes.y, op.y, n_y) <= (alone() ? TWICE : 2 * TWICE));
		case_done();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(products_take_codes),
		cmocka_unit_test(experts_take_codes),
	};
	return cmocka_run_group_tests(tests, open_both, close_both);
}
