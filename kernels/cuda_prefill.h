/*
 * Operations over many tokens: tensor cores where fast math allows, tiles that read a weight once
 * for 64 tokens everywhere. Each takes an operation that its decode kernel would do slowly, or
 * answers false and has done nothing. Results agree with decode but for the order of sums and, in
 * fast math, for what is rounded: activations to BF16, or to E4M3 beside FP8 weights where that is
 * faster (cuda_gemm.cu, cuda_grouped.cu), and what experts put out to BF16.
 */
#ifndef KERNELS_CUDA_PREFILL_H
#define KERNELS_CUDA_PREFILL_H

#include "kernels/cuda_device.h"

#define CUDA_PREFILL_TOKENS 16 // fewer go through the decode kernels

#ifdef __cplusplus
extern "C" {
#endif

/* Whether products with this matrix round activations, to BF16 at least: fast math, and weights
 * that are BF16 without a loss (up to a scale). */
static inline bool cuda_narrow(const struct device *device, const struct matrix *m)
{
	return device->options.math == MATH_FAST &&
		   (m->dtype == DTYPE_BF16 || m->dtype == DTYPE_F8_E4M3 || m->dtype == DTYPE_NVFP4);
}

void cuda_append(struct device *device, const struct attention_op *o); // K and V, to the cache
bool cuda_flash(struct device *device,
				const struct attention_op *o); // cuda_flash.cu
bool cuda_flash_pipe(struct device *device,
					 const struct attention_op *o); // cuda_flash_pipe.cu, once appended
bool cuda_gemm(struct device *device, const struct linear_op *o);     // cuda_gemm.cu
bool cuda_chunked(struct device *device, const struct ssm_op *o);     // cuda_chunked.cu
bool cuda_grouped(struct device *device, const struct experts_op *o); // cuda_grouped.cu

#ifdef __cplusplus
}
#endif

#endif
