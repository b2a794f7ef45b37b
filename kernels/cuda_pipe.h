/*
 * Matrix products with many tokens on tensor cores (cuda_pipe.cu), for dense matrices and for
 * experts, whose tokens are sorted by expert on the card (cuda_grouped.cu).
 */
#ifndef KERNELS_CUDA_PIPE_H
#define KERNELS_CUDA_PIPE_H

#include "kernels/cuda_device.h"
#include <string.h>

/* Up to so many pairs of a token and a choice, of one expert: plan.pairs[first..first + n). */
struct expert_tile {
	int32_t expert, first, n;
};

struct expert_plan {
	int32_t *n_tiles;          // 1
	struct expert_tile *tiles; // NULL: no experts
	int32_t *pairs;            // by expert
	int max_tiles;             // host: as many blocks are started
};

#define PIPE_TOKENS 128 // of a tile, at most

struct pipe_op {
	struct cuda_view m;          // the spans, which all experts share
	const struct placed *placed; // an expert; NULL: m.at
	struct expert_plan plan;
	const void *x; // (rows of x, n_columns) as multiplied: BF16, or E4M3 where scales are given
	const float *scales; // of a row of x in E4M3
	float *y;            // (n, n_rows), or a row a pair; NULL: only in BF16
	uint16_t *narrow_y;  // the same in BF16; NULL: only in F32
	int n;               // tokens; not with experts
	int pairs_of_row;    // that share a row of x: top_k, or 1
	enum linear_mode mode;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Whether a matrix can go this way: fast math, weights that are BF16 without a loss (up to a
 * scale), spans that allow loads of 16 bytes. */
bool cuda_pipe_takes(const struct device *device, const struct matrix *m);

/* Without experts, and without x. */
static inline struct pipe_op cuda_pipe_dense(struct cuda_view m, float *y, int n,
											 enum linear_mode mode)
{
	struct pipe_op op;
	memset(&op, 0, sizeof op);
	op.m = m;
	op.y = y;
	op.n = n;
	op.pairs_of_row = 1;
	op.mode = mode;
	return op;
}

/* All of the experts' matrices are of m's dtype. */
void cuda_pipe(struct device *device, const struct pipe_op *op);

/* n rows in BF16 in scratch; NULL: the device has failed. */
uint16_t *cuda_narrow_rows(struct device *device, const float *x, int n, int width);

/* n rows in E4M3 in scratch, divided by input_scale; where that is 0, each by its largest value
 * over 448. scales: what each was divided by. codes NULL: the device has failed. */
struct coded_rows {
	uint8_t *codes; // (n, width), width a multiple of 16
	float *scales;  // (n)
};
struct coded_rows cuda_code_rows(struct device *device, const float *x, int n, int width,
								 float input_scale);

/* Whether a matrix can be multiplied in E4M3 as it is stored: fast math, spans of whole 16 bytes.
 */
bool cuda_codes_allow(const struct device *device, const struct matrix *m);

/* Whether the card's warps multiply E4M3 (8.9, 12.x). On Hopper and data centre Blackwell mma.sync
 * converts to F16 first: there only the library gains by E4M3. */
bool cuda_multiplies_codes(const struct device *device);

#ifdef __cplusplus
}
#endif

#endif
