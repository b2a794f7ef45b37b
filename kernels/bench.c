#include "kernels/bench.h"
#include "base/clock.h"
#include "base/memory.h"
#include "kernels/cpu.h"
#include <stdlib.h>

#define BIG_BYTES (64u << 20) // more than a processor's caches, read from memory
#define COLUMNS 2048
#define TOKENS 16
#define ROWS 48 // a block of weights that stays in L2
#define OP_TOKENS 64
#define MIN_NS 15000000 // a measurement repeats for as long

struct bench {
	kernels_bench_row *row;
	void *arg;
	const struct cpu_rung *rung;
	void *weights;         // BIG_BYTES; small values in every format
	float *x, *y;          // (OP_TOKENS, COLUMNS) each
	struct device *device; // for whole operations
	double sink;           // keeps results alive
};

typedef void bench_call(struct bench *b);

static void measure(struct bench *b, const char *name, const char *rung, double bytes,
					bench_call *call)
{
	uint64_t best = UINT64_MAX, start = clock_ns(), now = start;
	do {
		uint64_t before = now;
		call(b);
		now = clock_ns();
		best = now - before < best ? now - before : best;
	} while (now - start < MIN_NS);
	b->row(b->arg, name, rung, (double)best, bytes);
}

static void read_memory(struct bench *b)
{
	const uint64_t *words = b->weights;
	uint64_t sum[8] = {0};
	for (size_t i = 0; i < BIG_BYTES / sizeof *words; i += 8)
		for (int j = 0; j < 8; j++)
			sum[j] += words[i + (size_t)j];
	for (int j = 0; j < 8; j++)
		b->sink += (double)sum[j];
}

static struct product decode(const struct bench *b, const void *const *x, size_t element)
{
	return (struct product){.w = b->weights,
							.x = x,
							.out = b->y,
							.w_stride = COLUMNS,
							.out_stride = OP_TOKENS * COLUMNS,
							.n_w = (int)(BIG_BYTES / element / COLUMNS),
							.n_x = 1,
							.n = COLUMNS};
}

static void decode_f32(struct bench *b)
{
	struct product p = decode(b, &(const void *){b->x}, 4);
	b->rung->dot_f32(&p);
}

static void decode_bf16(struct bench *b)
{
	struct product p = decode(b, &(const void *){b->x}, 2);
	b->rung->dot_bf16(&p);
}

static void decode_f16(struct bench *b)
{
	struct product p = decode(b, &(const void *){b->x}, 2);
	b->rung->dot_f16(&p);
}

static void decode_f8(struct bench *b)
{
	struct product p = decode(b, &(const void *){b->x}, 1);
	p.scale = 1;
	b->rung->dot_f8(&p);
}

/* The scales are read from the weights' last ninth, so that a call reads BIG_BYTES. */
static struct product nvfp4(const struct bench *b, const void *const *x)
{
	struct product p = decode(b, x, 1);
	p.n_w = (int)((size_t)BIG_BYTES / (COLUMNS / 2 + COLUMNS / NVFP4_BLOCK));
	p.scales = (const uint8_t *)b->weights + (size_t)p.n_w * (COLUMNS / 2);
	p.scale_stride = COLUMNS / NVFP4_BLOCK;
	p.scale = 1;
	return p;
}

static void decode_nvfp4(struct bench *b)
{
	struct product p = nvfp4(b, &(const void *){b->x});
	b->rung->dot_nvfp4(&p);
}

static void decode_nvfp4_narrow(struct bench *b)
{
	struct product p = nvfp4(b, &(const void *){b->x});
	b->rung->dot_nvfp4_bf16(&p);
}

static void decode_narrow(struct bench *b)
{
	struct product p = decode(b, &(const void *){b->x}, 2); // any bits do as BF16 activations
	b->rung->dot_bf16_bf16(&p);
}

static void prefill(struct bench *b, void (*dot)(const struct product *), size_t x_element)
{
	const void *x[TOKENS];
	for (size_t t = 0; t < TOKENS; t++)
		x[t] = (const char *)b->x + t * COLUMNS * x_element;
	dot(&(struct product){.w = b->weights,
						  .x = x,
						  .out = b->y,
						  .w_stride = COLUMNS,
						  .out_stride = ROWS,
						  .n_w = ROWS,
						  .n_x = TOKENS,
						  .n = COLUMNS});
}

static void prefill_bf16(struct bench *b)
{
	prefill(b, b->rung->dot_bf16, 4);
}

static void prefill_narrow(struct bench *b)
{
	prefill(b, b->rung->dot_bf16_bf16, 2);
}

static void ssm_rows(struct bench *b)
{
	for (int i = 0; i < 64; i++) // a head's state: 64 rows of 128
		b->sink += (double)b->rung->ssm_row(b->y + 128 * i, b->x, b->x + 128, 0.5f, 0.25f, 128);
}

static void blend_rows(struct bench *b)
{
	b->rung->blend_bf16(&(struct blend){.y = b->y,
										.a = b->x,
										.v = b->weights,
										.y_stride = 128,
										.a_stride = 64,
										.v_stride = 256,
										.n_y = 16,
										.n_v = 64,
										.n = 128});
}

static void bench_rung(struct bench *b)
{
	const char *name = b->rung->name;
	if (b->rung->dot_bf16_bf16) { // the rest is its lower rung's
		measure(b, "dot bf16, 1 token, bf16 activations", name, BIG_BYTES, decode_narrow);
		measure(b, "dot nvfp4, 1 token, bf16 activations", name, BIG_BYTES, decode_nvfp4_narrow);
		measure(b, "dot bf16, 48 rows x 16 tokens, bf16 activations", name, 0, prefill_narrow);
		return;
	}
	measure(b, "dot f32, 1 token", name, BIG_BYTES, decode_f32);
	measure(b, "dot bf16, 1 token", name, BIG_BYTES, decode_bf16);
	measure(b, "dot f16, 1 token", name, BIG_BYTES, decode_f16);
	measure(b, "dot fp8, 1 token", name, BIG_BYTES, decode_f8);
	measure(b, "dot nvfp4, 1 token", name, BIG_BYTES, decode_nvfp4);
	measure(b, "dot bf16, 48 rows x 16 tokens", name, 0, prefill_bf16);
	measure(b, "ssm, 64 rows of 128", name, 0, ssm_rows);
	measure(b, "blend bf16, 64 rows of 128, 16 heads", name, 0, blend_rows);
}

static void linear(struct bench *b, int n, int rows)
{
	struct span r = {0, rows}, c = {0, COLUMNS};
	struct matrix w = {.data = b->weights,
					   .dtype = DTYPE_BF16,
					   .stride = COLUMNS,
					   .rows = &r,
					   .columns = &c,
					   .n_row_spans = 1,
					   .n_column_spans = 1,
					   .n_rows = rows,
					   .n_columns = COLUMNS};
	struct linear_op op = {.w = &w, .x = b->x, .y = b->y, .n = n, .mode = LINEAR_SET};
	backend_cpu.linear(b->device, 1, &op);
}

static void linear_decode(struct bench *b)
{
	linear(b, 1, BIG_BYTES / 2 / COLUMNS);
}

static void linear_prefill(struct bench *b)
{
	linear(b, OP_TOKENS, COLUMNS);
}

static int bench_operations(struct bench *b, enum math math, struct error *err)
{
	struct device_options options = {.math = math, .kv_dtype = DTYPE_F32};
	b->device = backend_cpu.open(&options, err);
	if (!b->device)
		return -1;
	const char *rung = backend_cpu.rung(b->device);
	measure(b, "linear bf16, 1 token, all threads", rung, BIG_BYTES, linear_decode);
	measure(b, "linear bf16, 2048 x 2048 x 64 tokens, all threads", rung, 0, linear_prefill);
	int failed = backend_cpu.finish(b->device, err);
	backend_cpu.close(b->device);
	return failed;
}

static int bench_all(struct bench *b, struct error *err)
{
	int n;
	const struct cpu_rung *const *rungs = cpu_rungs(&n);
	measure(b, "read", "-", BIG_BYTES, read_memory);
	for (int i = 0; i < n; i++) {
		b->rung = rungs[i];
		bench_rung(b);
	}
	b->rung = cpu_rung_best(MATH_FAST);
	bool narrow = b->rung->dot_bf16_bf16 != NULL;
	if (narrow)
		bench_rung(b);
	if (bench_operations(b, MATH_EXACT, err) < 0)
		return -1;
	return narrow ? bench_operations(b, MATH_FAST, err) : 0;
}

int kernels_bench(kernels_bench_row *row, void *arg, struct error *err)
{
	struct bench b = {.row = row, .arg = arg};
	size_t n = (size_t)OP_TOKENS * COLUMNS;
	b.weights = mem_new_aligned(BIG_BYTES, 1, err);
	b.x = mem_new_aligned(n, sizeof *b.x, err);
	b.y = mem_new_aligned(n, sizeof *b.y, err);
	int result = -1;
	if (b.weights && b.x && b.y) {
		uint16_t *halves = b.weights;
		for (size_t i = 0; i < BIG_BYTES / 2; i++)
			halves[i] = (uint16_t)(0x3c00 + i % 64); // about 0.01 in BF16, 1 in F16
		for (size_t i = 0; i < n; i++)
			b.x[i] = (float)(i % 7) * 0.125f;
		result = bench_all(&b, err);
	}
	free(b.weights);
	free(b.x);
	free(b.y);
	return result;
}
