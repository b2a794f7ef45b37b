/* What operations must move and compute, in numbers worked out by hand. */
#include "kernels/work.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static void is(struct work work, double bytes, double flops)
{
	assert_true(fabs(work.bytes - bytes) < 1e-6 * bytes + 1e-9);
	assert_true(fabs(work.flops - flops) < 1e-6 * flops + 1e-9);
}

static struct matrix matrix(enum dtype dtype, int rows, int columns, const void *data)
{
	return (struct matrix){.dtype = dtype, .n_rows = rows, .n_columns = columns, .data = data};
}

static void products(void **state)
{
	(void)state;
	static const char a, b;
	struct matrix w = matrix(DTYPE_BF16, 10304, 2688, &a);
	struct linear_op ops[3] = {{.w = &w, .n = 1, .mode = LINEAR_SET}};
	is(work_linear(ops, 1), 10304.0 * 2688 * 2 + 4 * (10304 + 2688), 2.0 * 10304 * 2688);
	ops[0].mode = LINEAR_ADD; // what is added to is read
	is(work_linear(ops, 1), 10304.0 * 2688 * 2 + 4 * (2 * 10304 + 2688), 2.0 * 10304 * 2688);
	w.dtype = DTYPE_NVFP4; // half a byte, a scale of a byte per 16, one of 4 bytes
	is(work_linear(ops, 1), 10304.0 * 2688 * 9 / 16 + 4 + 4 * (2 * 10304 + 2688),
	   2.0 * 10304 * 2688);
	// three lanes, the first two of one stored matrix, of which the second keeps more
	struct matrix narrow = matrix(DTYPE_F8_E4M3, 64, 32, &a), wide = narrow,
				  other = matrix(DTYPE_F32, 16, 8, &b);
	wide.n_columns = 48;
	ops[0] = (struct linear_op){.w = &narrow, .n = 2};
	ops[1] = (struct linear_op){.w = &wide, .n = 1};
	ops[2] = (struct linear_op){.w = &other, .n = 1};
	is(work_linear(ops, 3),
	   64 * 48 + 4 + 16 * 8 * 4 + 4 * 2 * (32 + 64) + 4 * (48 + 64) + 4 * (8 + 16),
	   2.0 * (2 * 64 * 32 + 64 * 48 + 16 * 8));
	wide.n_columns = 32; // as much: one reads it, not none and not both
	is(work_linear(ops, 2), 64 * 32 + 4 + 4 * 3 * (32 + 64), 2.0 * 3 * 64 * 32);
}

static void experts(void **state)
{
	(void)state;
	static const char a;
	struct matrix up = matrix(DTYPE_BF16, 1856, 2688, &a);
	struct matrix down = matrix(DTYPE_BF16, 2688, 1856, &a);
	struct experts_op ops[2] = {{.up = &up,
								 .down = &down,
								 .n = 1,
								 .n_experts = 128,
								 .top_k = 6,
								 .width = 2688,
								 .ffn = 1856}};
	double one = 2.0 * 1856 * 2688 * 2, rows = 4 * (3 * 2688 + 2 * 6 * 1856);
	double flops = 6 * 4.0 * 2688 * 1856;
	is(work_experts(ops, 1), 6 * one + rows, flops);
	ops[1] = ops[0]; // two tokens of two lanes choose 11.71875 of 128 on average
	is(work_experts(ops, 2), 11.71875 * one + 2 * rows, 2 * flops);
	ops[0].n = 2;
	is(work_experts(ops, 1), 11.71875 * one + 2 * rows, 2 * flops);
}

static void states(void **state)
{
	(void)state;
	struct ssm_op ssm = {.n = 1, .n_heads = 64, .head_dim = 64, .n_groups = 8, .state_size = 128};
	is(work_ssm(&ssm, 1), 4 * (4096 + 2048 + 64 + 4096 + 2 * 4096 * 128.0), 5 * 4096 * 128.0);
	struct conv_op conv = {.n = 1, .channels = 6144, .kernel = 4};
	is(work_conv(&conv, 1), 4 * 6144 * (2 + 4 + 1 + 6.0), 2 * 6144 * 4.0);
	struct attention_op attention = {.n = 1, .n_heads = 32, .n_kv_heads = 2, .head_dim = 128};
	is(work_attention(&attention, 1, DTYPE_BF16, 1000),
	   4 * (2 * 4096 + 2 * 256) + 2 * 256 * 2 * 1001.0, 4 * 4096 * 1001.0);
	attention.n = 3; // sees 11, 12 and 13 rows
	is(work_attention(&attention, 1, DTYPE_F8_E4M3, 10),
	   4 * 3 * (2 * 4096 + 2 * 256) + 2 * 256 * 13.0, 4 * 4096 * (11 + 12 + 13.0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(products),
		cmocka_unit_test(experts),
		cmocka_unit_test(states),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
