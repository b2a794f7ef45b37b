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

/* One span of rows and one of columns: what the library takes as it is stored. From a whole block
 * on where `even`, as in real models; else from anywhere. */
static void one_span(struct matrix *m, bool even)
{
	static struct span rows, columns;
	int row = m->n_rows > 1, column = m->n_columns < 32 ? 0 : even ? NVFP4_BLOCK : 1;
	if (m->dtype == DTYPE_NVFP4 && column)
		column = NVFP4_BLOCK;
	rows = (struct span){row, m->n_rows - row};
	columns = (struct span){column, m->n_columns - column};
	m->rows = m->device_rows = &rows;
	m->columns = m->device_columns = &columns;
	m->n_row_spans = m->n_column_spans = 1;
	m->n_rows = rows.length;
	m->n_columns = columns.length;
}

/* ---- products ---- */

static void products_are_right(void **state)
{
	(void)state;
	for (int round = 0; round < 30; round++) {
		case_seed(1000 + (uint64_t)round);
		struct matrix w;
		bool even = round % 2;
		int rows = case_int(1, round % 3 ? 200 : 300), n = case_int(16, 140);
		int columns = case_int(1, even ? 400 : 150); // more than the steps that are under way
		if (even)
			columns = columns / 16 * 16 + 16;
		do
			case_matrix(&w, dtypes[round % N_WEIGHT_DTYPES], rows, columns);
		while (even && w.stride % 16);
		if (round % 4)
			one_span(&w, even);
		size_t n_y = (size_t)n * (size_t)w.n_rows;
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
								.ffn = ffn,
								.keep_hidden = round % 4 != 1};
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
		if (op.keep_hidden)
			check_close(expected.hidden, op.hidden, n_pairs * (size_t)ffn, "hidden");
		check_close(expected.y, op.y, n_y, "experts");
		if (op.norms)
			check_close(expected.norms, op.norms, n_pairs, "norms");
		case_done();
	}
}

/* ---- recurrence ---- */

/* n of 0..stored-1, ascending. */
static int32_t *random_choice(int n, int stored)
{
	int32_t *list = case_new_bytes((size_t)n * sizeof *list);
	for (int i = 0, at = 0; i < n; i++, at++) {
		at += case_int(0, 3) ? 0 : case_int(0, stored - at - (n - i));
		list[i] = at;
	}
	return list;
}

/* Heads of odd widths, states of the parent's rows: what is not kept stays as it was. */
static void recurrence_is_right(void **state)
{
	(void)state;
	for (int round = 0; round < 10; round++) {
		case_seed(1200 + (uint64_t)round);
		int n = case_int(16, 110), heads = case_int(1, 3), head_dim = case_int(1, 70);
		int groups = case_int(1, heads), size = round % 3 ? case_int(1, 128) : 128;
		int inner = heads * head_dim, stored = inner + case_int(0, 20);
		size_t width = (size_t)(inner + 2 * groups * size), n_y = (size_t)n * (size_t)inner;
		size_t n_state = (size_t)stored * (size_t)size;
		struct ssm_op op = {.dt_stride = heads + 3,
							.n = n,
							.n_heads = heads,
							.head_dim = head_dim,
							.n_groups = groups,
							.state_size = size};
		float *dt = case_new((size_t)(n * op.dt_stride)), *a = case_new((size_t)heads);
		int32_t *group = case_new_bytes((size_t)heads * sizeof *group);
		dt[17 % n] = 30; // past softplus's threshold
		for (int h = 0; h < heads; h++) {
			a[h] = -0.3f * expf(a[h]);
			group[h] = h * groups / heads;
		}
		op.xbc = case_new((size_t)n * width);
		op.dt = dt;
		op.a = a;
		op.d = case_new((size_t)heads);
		op.dt_bias = case_new((size_t)heads);
		op.head_group = group;
		op.state_row = random_choice(inner, stored);
		op.state = case_new(n_state);
		op.y = case_new(n_y);
		struct ssm_op expected = op;
		expected.state = copy_of(op.state, n_state);
		expected.y = case_new(n_y);
		case_backend->ssm(case_device(1), 1, &op);
		backend_cpu.ssm(reference, 1, &expected);
		finish_both(case_device(1));
		check_close(expected.y, op.y, n_y, "ssm");
		check_close(expected.state, op.state, n_state, "ssm state");
		case_done();
	}
}

/* ---- attention ---- */

static void *cache_of(const float *values, size_t n, enum dtype kv)
{
	uint8_t *cache = case_new_bytes(n * dtype_bytes(kv));
	if (kv == DTYPE_F32)
		memcpy(cache, values, n * sizeof *values);
	for (size_t i = 0; kv != DTYPE_F32 && i < n; i++)
		if (kv == DTYPE_BF16)
			((uint16_t *)(void *)cache)[i] = f32_to_bf16(values[i]);
		else
			cache[i] = f32_to_e4m3(values[i]);
	return cache;
}

static void check_attention(enum dtype kv)
{
	struct device_options options = {
		.n_threads = 1, .kv_dtype = kv, .math = case_looseness() > 1 ? MATH_FAST : MATH_EXACT};
	struct device *device = case_backend->open(&options, NULL);
	options.math = MATH_EXACT;
	struct device *plain = backend_cpu.open(&options, NULL);
	assert_non_null(device);
	assert_non_null(plain);
	for (int round = 0; round < 4; round++) {
		case_seed(1300 + (uint64_t)round);
		int n = case_int(16, 140), n_kv = case_int(1, 2), heads = n_kv * case_int(1, 2);
		/* of whole 16 bytes, as tensor cores want them, but for the last */
		int dim = round == 0 ? 128 : round == 3 ? case_int(1, 128) : 8 * case_int(1, 16);
		int past = round % 2 ? case_int(1, 90) : 0;
		size_t n_q = (size_t)(n * heads * dim), n_rows = (size_t)(n * n_kv * dim);
		size_t n_cache = (size_t)((past + n) * n_kv * dim);
		int32_t *kv_head = case_new_bytes((size_t)heads * sizeof *kv_head);
		int32_t *length = case_new_bytes(2 * sizeof *length);
		for (int h = 0; h < heads; h++)
			kv_head[h] = h * n_kv / heads;
		length[0] = length[1] = past;
		struct attention_op op = {.q = case_new(n_q),
								  .k = case_new(n_rows),
								  .v = case_new(n_rows),
								  .length = &length[0],
								  .kv_head = kv_head,
								  .y = case_new(n_q),
								  .n = n,
								  .n_heads = heads,
								  .n_kv_heads = n_kv,
								  .head_dim = dim,
								  .scale = 1 / sqrtf((float)dim),
								  .k_scale = 0.5f,
								  .v_scale = 0.25f};
		const float *k = case_new(n_cache), *v = case_new(n_cache);
		op.k_cache = cache_of(k, n_cache, kv);
		op.v_cache = cache_of(v, n_cache, kv);
		struct attention_op expected = op;
		expected.length = &length[1];
		expected.k_cache = cache_of(k, n_cache, kv);
		expected.v_cache = cache_of(v, n_cache, kv);
		expected.y = case_new(n_q);
		case_backend->attention(device, 1, &op);
		backend_cpu.attention(plain, 1, &expected);
		case_finish(device);
		assert_int_equal(backend_cpu.finish(plain, NULL), 0);
		assert_int_equal(length[0], past + n);
		assert_memory_equal(op.k_cache, expected.k_cache, n_cache * dtype_bytes(kv));
		assert_memory_equal(op.v_cache, expected.v_cache, n_cache * dtype_bytes(kv));
		check_close(expected.y, op.y, n_q, dtype_name(kv));
		case_done();
	}
	case_backend->close(device);
	backend_cpu.close(plain);
}

static void attention_is_right(void **state)
{
	(void)state;
	check_attention(DTYPE_F32);
	check_attention(DTYPE_BF16);
	check_attention(DTYPE_F8_E4M3);
}

int main(void)
{
	const struct CMUnitTest exact[] = {
		cmocka_unit_test(products_are_right),
		cmocka_unit_test(experts_are_right),
		cmocka_unit_test(recurrence_is_right),
		cmocka_unit_test(attention_is_right),
	};
	const struct CMUnitTest fast[] = {
		cmocka_unit_test(products_are_right),
		cmocka_unit_test(experts_are_right),
		cmocka_unit_test(recurrence_is_right),
		cmocka_unit_test(attention_is_right),
	};
	int failed = cmocka_run_group_tests(exact, open_both, close_both);
	return failed + cmocka_run_group_tests(fast, open_both_fast, close_both);
}
