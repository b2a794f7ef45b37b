/*
 * RMSNorm of a row and the gated one of a group, as device functions: cuda_norm.cu runs them alone,
 * a product may run them in front of itself. The order of sums is the same, so are the bits.
 */
#ifndef KERNELS_CUDA_NORM_CUH
#define KERNELS_CUDA_NORM_CUH

#include "kernels/cuda_dot.cuh"

#define NORM_THREADS 256

/* A block of NORM_THREADS. `to` may be x: every thread reads its channels before it writes them. */
template <enum layout L>
static __device__ __forceinline__ void norm_row(const struct norm_op &o, const float *x, float *to)
{
	float sum = 0;
	for (int i = threadIdx.x; i < o.width; i += NORM_THREADS) {
		float v = x[i];
		to[place<L>(i)] = v * o.weight[i];
		sum = fmaf(v, v, sum);
	}
	sum = block_sum(sum);
	float r = o.scale / sqrtf(sum / o.count + o.eps);
	for (int i = threadIdx.x; i < o.width; i += NORM_THREADS)
		to[place<L>(i)] *= r;
}

/* A warp; `to` is a whole row and may be y. */
template <enum layout L>
static __device__ __forceinline__ void gate_group(const struct gated_norm_op &o, const float *y,
												  const float *z, int g, float *to)
{
	int start = o.group_start[g], end = o.group_start[g + 1], lane = threadIdx.x % WARP;
	float sum = 0;
	for (int i = start + lane; i < end; i += WARP) {
		float v = y[i] * (z[i] / (1 + expf(-z[i])));
		to[place<L>(i)] = v * o.weight[i];
		sum = fmaf(v, v, sum);
	}
	sum = warp_sum(sum);
	float r = o.scale / sqrtf(sum / o.count[g] + o.eps);
	for (int i = start + lane; i < end; i += WARP)
		to[place<L>(i)] *= r;
}

#endif
