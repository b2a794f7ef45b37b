/*
 * Inside the CPU backend: the device and the operations, one file a family (cpu_linear.c,
 * cpu_mamba.c, cpu_attention.c, cpu_moe.c, pick.c). Operations allocate nothing but scratch that
 * grows at the first call of a size; a failure is kept, and what follows does nothing.
 */
#ifndef KERNELS_CPU_DEVICE_H
#define KERNELS_CPU_DEVICE_H

#include "base/pool.h"
#include "kernels/backend.h"
#include "kernels/cpu.h"

enum scratch_use {
	SCRATCH_X,
	SCRATCH_HIDDEN,
	SCRATCH_OUTPUTS,
	SCRATCH_PLAN,
	SCRATCH_LANES,
	SCRATCH_PICK,
	N_SCRATCH
};

struct device {
	struct pool *pool;
	const struct cpu_rung *rung;
	enum math math;
	enum dtype kv_dtype;
	bool failed;
	struct error failure; // the first
	struct {
		void *memory;
		size_t bytes;
	} scratch[N_SCRATCH];
};

/* Where a failure's sentence goes: fail(device_failure(device), "...") keeps only the first. */
struct error *device_failure(struct device *device);

/* n * size bytes, aligned to 64, contents undefined; NULL (and the device has failed) without
 * memory. */
void *device_scratch(struct device *device, enum scratch_use use, size_t n, size_t size);

/* Runs task in parts. `work` is in multiply-adds, roughly: what is over sooner than threads wake up
 * runs on the caller as one part. */
void device_run(struct device *device, double work, pool_task *task, void *argument);
#define WORK_EXP 12 // an expf in multiply-adds

/* x . x in the rung's order of summation; what both norms divide by. */
float cpu_sum_of_squares(const struct cpu_rung *rung, const float *x, int n);

/* ---- rows of matrices: cpu_matrix.c ---- */

#define TILE_ROWS 48
#define TILE_TOKENS 16

/* Consecutive kept rows: stored row and packed row of the first, how many (<= TILE_ROWS). */
struct run {
	int stored, packed, n;
};

struct run_cursor {
	int span, done, packed;
};

/* The stored row at which a part's share of m's kept rows begins; 0 for the first part, INT32_MAX
 * past the last. Lanes that share a matrix use one lane's boundaries, so that a stored row stays in
 * one part. */
int matrix_boundary(const struct matrix *m, int part, int n_parts);

void run_seek(struct run_cursor *at, const struct matrix *m, int stored); // first kept >= stored
bool run_next(struct run_cursor *at, const struct matrix *m, int to, struct run *run); // below `to`

/* One end past the last stored row that m keeps. */
int matrix_end(const struct matrix *m);

/* tile[t][r] = (W x[t])[run.packed + r] for t < n_x <= TILE_TOKENS; over several column spans the
 * spans' sums are added in their order. x rows are BF16 if narrow (and then dot_bf16_bf16 runs),
 * else F32. */
void matrix_tile(const struct cpu_rung *rung, const struct matrix *m, const struct run *run,
				 const void *const *x, int n_x, bool narrow, float tile[TILE_TOKENS][TILE_ROWS]);

/* Whether products with m take activations rounded to BF16 on this device. */
bool matrix_narrow(const struct device *device, const struct matrix *m);

/* Multiply-adds of one token. */
double matrix_work(const struct matrix *m);

/* ---- operations ---- */

void cpu_embed(struct device *device, int n_lanes, const struct embed_op *op);
void cpu_norm(struct device *device, int n_lanes, const struct norm_op *op);
void cpu_linear(struct device *device, int n_lanes, const struct linear_op *op);
void cpu_conv(struct device *device, int n_lanes, const struct conv_op *op);
void cpu_ssm(struct device *device, int n_lanes, const struct ssm_op *op);
void cpu_gated_norm(struct device *device, int n_lanes, const struct gated_norm_op *op);
void cpu_attention(struct device *device, int n_lanes, const struct attention_op *op);
void cpu_route(struct device *device, int n_lanes, const struct route_op *op);
void cpu_experts(struct device *device, int n_lanes, const struct experts_op *op);
void cpu_pick(struct device *device, int n_lanes, const struct pick_op *op);

#endif
