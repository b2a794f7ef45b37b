/* Operations that a pass starts together against the same ones started one by one: bit for bit,
 * several lanes, every format; and how many launches a layer is, so that it stays that few. */
#include "kernels/cuda_pass.h"
#include "tests/kernels/case.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_EXPERTS 5
#define N_TEST_LANES 3
#define MANY 40 // more than a launch takes
#define N_DTYPES_TESTED 5

static const enum dtype dtypes[N_DTYPES_TESTED] = {DTYPE_BF16, DTYPE_NVFP4, DTYPE_F8_E4M3,
												   DTYPE_F32, DTYPE_F16};

static enum dtype dtype_of(int round)
{
	return dtypes[round % N_DTYPES_TESTED];
}

/* Values of a lane that are compared: what an operation writes. */
#define MAX_KEPT 64
static struct {
	void *now, *before, *first;
	size_t bytes;
} kept[MAX_KEPT];
static int n_kept;

static void *keep(void *memory, size_t bytes)
{
	assert_true(n_kept < MAX_KEPT);
	kept[n_kept].now = memory;
	kept[n_kept].before = malloc(bytes);
	kept[n_kept].first = malloc(bytes);
	kept[n_kept].bytes = bytes;
	memcpy(kept[n_kept++].before, memory, bytes);
	return memory;
}

static float *keep_floats(int n)
{
	return keep(case_new((size_t)n), (size_t)n * sizeof(float));
}

static void leave(void)
{
	for (int i = 0; i < n_kept; i++) {
		free(kept[i].before);
		free(kept[i].first);
	}
	n_kept = 0;
	case_done();
}

/* Runs what `write` writes down one by one, then together; the launches of the latter. */
static int compare(void (*write)(struct device *device, const void *), const void *what)
{
	struct device *device = case_device(1);
	uint64_t before = 0;
	for (int together = 0; together < 2; together++) {
		for (int i = 0; i < n_kept; i++)
			memcpy(kept[i].now, kept[i].before, kept[i].bytes);
		device->one_by_one = !together;
		before = device->n_launches;
		write(device, what);
		case_finish(device);
		for (int i = 0; i < n_kept; i++)
			if (!together)
				memcpy(kept[i].first, kept[i].now, kept[i].bytes);
			else if (memcmp(kept[i].first, kept[i].now, kept[i].bytes) != 0)
				fail_msg("values %d of %d differ", i, n_kept);
	}
	return (int)(device->n_launches - before);
}

/* ---- a norm and what reads it ---- */

struct normed {
	int n_lanes, n_linear;
	struct norm_op norm[N_TEST_LANES];
	struct linear_op linear[3][N_TEST_LANES];
};

static struct norm_op random_norm(int n, int width)
{
	return (struct norm_op){.x = keep_floats(n * width),
							.weight = case_new((size_t)width),
							.y = keep_floats(n * width),
							.n = n,
							.width = width,
							.count = (float)width,
							.eps = 1e-5f,
							.scale = 0.5f};
}

static void write_normed(struct device *device, const void *what)
{
	const struct normed *t = what;
	case_backend->norm(device, t->n_lanes, t->norm);
	for (int i = 0; i < t->n_linear; i++)
		case_backend->linear(device, t->n_lanes, t->linear[i]);
}

static void norms_stand_in_front(void **state)
{
	(void)state;
	for (int round = 0; round < case_rounds(60, 10); round++) {
		static struct matrix w[3][N_TEST_LANES];
		case_seed(2000 + (uint64_t)round);
		struct normed t = {.n_lanes = case_int(1, N_TEST_LANES), .n_linear = case_int(1, 3)};
		for (int l = 0; l < t.n_lanes; l++) {
			int n = case_int(1, 7), width = 16 * case_int(1, 9);
			bool shares = l > 0 && case_int(0, 1);
			width = shares ? t.norm[0].width : width;
			t.norm[l] = random_norm(n, width);
			if (shares && round % 3) // lanes of one slice have one weight, others only the matrices
				t.norm[l].weight = t.norm[0].weight;
			for (int i = 0; i < t.n_linear; i++) {
				enum dtype dtype = dtype_of(round + (round % 2 ? i : 0)); // of one launch, or not
				const struct matrix *m = shares ? t.linear[i][0].w : &w[i][l];
				if (!shares)
					case_matrix(&w[i][l], dtype, case_int(1, 40), width);
				t.linear[i][l] = (struct linear_op){.w = m,
													.x = t.norm[l].y,
													.y = keep_floats(n * m->n_rows),
													.n = n,
													.mode = (enum linear_mode)(i % 3)};
			}
		}
		assert_int_equal(compare(write_normed, &t), 1);
		leave();
	}
}

/* A product that writes over what the norm reads is not put behind it. */
static void what_meets_stays_apart(void **state)
{
	(void)state;
	struct matrix w;
	struct normed t = {.n_lanes = 1, .n_linear = 1};
	case_seed(2100);
	t.norm[0] = random_norm(2, 48);
	case_matrix(&w, DTYPE_BF16, 48, 48);
	t.linear[0][0] =
		(struct linear_op){.w = &w, .x = t.norm[0].y, .y = kept[0].now, .n = 2, .mode = LINEAR_ADD};
	assert_ptr_equal(t.norm[0].x, kept[0].now);
	assert_int_equal(compare(write_normed, &t), 2);
	leave();
}

/* ---- a gated norm and its product ---- */

struct gated {
	struct gated_norm_op norm[2];
	struct linear_op linear[2];
};

static void write_gated(struct device *device, const void *what)
{
	const struct gated *t = what;
	case_backend->gated_norm(device, 2, t->norm);
	case_backend->linear(device, 2, t->linear);
}

static void gated_norms_stand_in_front(void **state)
{
	(void)state;
	for (int round = 0; round < case_rounds(40, 8); round++) {
		struct gated t;
		static struct matrix w[2];
		case_seed(2200 + (uint64_t)round);
		for (int l = 0; l < 2; l++) {
			int n = case_int(1, 5), groups = case_int(1, 9), each = case_int(1, 12) * 16;
			int width = groups * each, z_stride = width + 7;
			int32_t *start = case_new_bytes((size_t)(groups + 1) * sizeof *start);
			float *count = case_new((size_t)groups);
			for (int g = 0; g < groups; g++) {
				start[g + 1] = (g + 1) * each;
				count[g] = (float)each;
			}
			/* its y is not kept: undefined once the product has read it */
			float *y = case_new((size_t)(2 * n * width));
			t.norm[l] = (struct gated_norm_op){.y = y,
											   .z = case_new((size_t)(n * z_stride)),
											   .z_stride = z_stride,
											   .weight = case_new((size_t)width),
											   .group_start = start,
											   .count = count,
											   .n = n,
											   .width = width,
											   .n_groups = groups,
											   .eps = 1e-5f,
											   .scale = 2};
			case_matrix(&w[l], dtype_of(round), case_int(1, 50), width);
			t.linear[l] = (struct linear_op){
				.w = &w[l], .x = y, .y = keep_floats(n * w[l].n_rows), .n = n, .mode = LINEAR_ADD};
			memcpy(y + n * width, y, (size_t)(n * width) * sizeof *y);
		}
		struct device *device = case_device(1);
		uint64_t launches = device->n_launches;
		device->one_by_one = false;
		write_gated(device, &t);
		case_finish(device);
		assert_int_equal(device->n_launches - launches, 1);
		for (int l = 0; l < 2; l++) {
			size_t values = (size_t)(t.norm[l].n * t.norm[l].width);
			memcpy(t.norm[l].y, t.norm[l].y + values, values * sizeof(float));
			memcpy(kept[l].first, kept[l].now, kept[l].bytes);
			memcpy(kept[l].now, kept[l].before, kept[l].bytes);
		}
		device->one_by_one = true;
		write_gated(device, &t);
		case_finish(device);
		for (int l = 0; l < 2; l++)
			assert_memory_equal(kept[l].now, kept[l].first, kept[l].bytes);
		leave();
	}
}

/* ---- a mixture of experts ---- */

struct mixture {
	int n_lanes;
	bool shared;
	struct norm_op norm[N_TEST_LANES];
	struct linear_op gate[N_TEST_LANES], up[N_TEST_LANES], down[N_TEST_LANES];
	struct route_op route[N_TEST_LANES];
	struct experts_op experts[N_TEST_LANES];
	struct matrix m[N_TEST_LANES][3 + 2 * N_EXPERTS];
};

/* The order of core/forward.c. */
static void write_mixture(struct device *device, const void *what)
{
	const struct mixture *t = what;
	case_backend->norm(device, t->n_lanes, t->norm);
	case_backend->linear(device, t->n_lanes, t->gate);
	case_backend->route(device, t->n_lanes, t->route);
	case_backend->experts(device, t->n_lanes, t->experts);
	if (!t->shared)
		return;
	case_backend->linear(device, t->n_lanes, t->up);
	case_backend->linear(device, t->n_lanes, t->down);
}

static void random_experts(struct matrix m[N_EXPERTS], int rows, int columns, int round)
{
	case_matrix(&m[0], dtype_of(round), rows, columns);
	for (int e = 1; e < N_EXPERTS; e++)
		case_sibling(&m[e], &m[0], dtype_of(round % 7 == 6 ? round + e % 2 * 2 : round));
}

static void random_lane(struct mixture *t, int l, int round)
{
	int n = case_int(1, 4), width = 16 * case_int(1, 6), ffn = 16 * case_int(1, 5);
	int top_k = case_int(1, N_EXPERTS), wide = 16 * case_int(1, 9);
	struct matrix *m = t->m[l], *up = m + 3, *down = up + N_EXPERTS;
	case_matrix(&m[0], round % 2 ? DTYPE_F32 : DTYPE_BF16, N_EXPERTS, width);
	case_matrix(&m[1], dtype_of(round), wide, width);
	case_matrix(&m[2], dtype_of(round), width, wide);
	random_experts(up, ffn, width, round);
	random_experts(down, width, ffn, round);
	t->norm[l] = random_norm(n, width);
	t->gate[l] = (struct linear_op){
		.w = &m[0], .x = t->norm[l].y, .y = keep_floats(n * N_EXPERTS), .n = n, .precise = true};
	int32_t *ids = case_new_bytes((size_t)(n * top_k) * sizeof *ids);
	t->route[l] = (struct route_op){.logits = t->gate[l].y,
									.bias = case_new(N_EXPERTS),
									.ids = keep(ids, (size_t)(n * top_k) * sizeof *ids),
									.weights = keep_floats(n * top_k),
									.n = n,
									.n_experts = N_EXPERTS,
									.top_k = top_k,
									.normalise = round % 3 > 0,
									.scale = 1.5f};
	t->experts[l] = (struct experts_op){.up = up,
										.down = down,
										.placed_up = case_placed(up, N_EXPERTS),
										.placed_down = case_placed(down, N_EXPERTS),
										.x = t->norm[l].y,
										.ids = ids,
										.weights = t->route[l].weights,
										.hidden = keep_floats(n * top_k * ffn),
										.y = (float *)(uintptr_t)t->norm[l].x, // the residual
										.n = n,
										.n_experts = N_EXPERTS,
										.top_k = top_k,
										.width = width,
										.ffn = ffn};
	t->up[l] = (struct linear_op){
		.w = &m[1], .x = t->norm[l].y, .y = keep_floats(n * wide), .n = n, .mode = LINEAR_RELU2};
	t->down[l] = (struct linear_op){
		.w = &m[2], .x = t->up[l].y, .y = t->experts[l].y, .n = n, .mode = LINEAR_ADD};
}

static void mixtures_are_three_launches(void **state)
{
	(void)state;
	static struct mixture t;
	for (int round = 0; round < case_rounds(60, 14); round++) {
		case_seed(2300 + (uint64_t)round);
		t.n_lanes = round % 2 ? 1 : case_int(2, N_TEST_LANES);
		t.shared = round % 5 != 4;
		for (int l = 0; l < t.n_lanes; l++)
			random_lane(&t, l, round);
		assert_int_equal(compare(write_mixture, &t), 3);
		leave();
	}
}

/* ---- more lanes than a launch takes ---- */

static void many_lanes_are_as_one(void **state)
{
	(void)state;
	struct device *device = case_device(1);
	for (int round = 0; round < N_DTYPES_TESTED; round++) {
		static struct matrix w[3];
		static struct linear_op op[MANY];
		float *first[MANY];
		case_seed(2400 + (uint64_t)round);
		for (int i = 0; i < 3; i++)
			case_matrix(&w[i], dtype_of(round), case_int(1, 40), 64);
		for (int l = 0; l < MANY; l++) {
			const struct matrix *m = &w[l % 7 ? 0 : 1 + l % 2];
			op[l] = (struct linear_op){.w = m, .n = 1 + l % 2, .mode = (enum linear_mode)(l % 3)};
			size_t n_y = (size_t)(op[l].n * m->n_rows);
			op[l].x = case_new((size_t)(op[l].n * m->n_columns));
			op[l].y = case_new(n_y);
			first[l] = case_new(n_y);
			memcpy(first[l], op[l].y, n_y * sizeof(float));
			struct linear_op alone = op[l];
			alone.y = first[l];
			case_backend->linear(device, 1, &alone);
		}
		case_backend->linear(device, MANY, op);
		case_finish(device);
		for (int l = 0; l < MANY; l++)
			assert_memory_equal(first[l], op[l].y,
								(size_t)(op[l].n * op[l].w->n_rows) * sizeof(float));
		case_done();
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(norms_stand_in_front),       cmocka_unit_test(what_meets_stays_apart),
		cmocka_unit_test(gated_norms_stand_in_front), cmocka_unit_test(mixtures_are_three_launches),
		cmocka_unit_test(many_lanes_are_as_one),
	};
	return cmocka_run_group_tests(tests, case_open, case_close);
}
