/*
 * RMSNorm of a row and the gated one of a group, as device functions: cuda_norm.cu runs them alone,
 * a product may run them in front of itself. The order of sums is the same, so are the bits.
 */
#ifndef KERNELS_CUDA_NORM_CUH
#define KERNELS_CUDA_NORM_CUH

#include "kernels/cuda_kernel.cuh"

#define NORM_THREADS 256

/* A block of NORM_THREADS. `to` may be x: every thread reads its channels before it writes them. */
static __device__ __forceinline__ void norm_row(const struct norm_op &o, int row, float *to)
{
	const float *x = o.x + (int64_t)row * o.width;
	float sum = 0;
	for (int i = threadIdx.x; i < o.width; i += NORM_THREADS)
		sum += x[i] * x[i];
	sum = block_sum(sum);
	float r = o.scale / sqrtf(sum / o.count + o.eps);
	for (int i = threadIdx.x; i < o.width; i += NORM_THREADS)
		to[i] = x[i] * r * o.weight[i];
}

/* A warp; `to` is a whole row and may be y's. */
static __device__ __forceinline__ void gate_group(const struct gated_norm_op &o, int row, int g,
												  float *to)
{
	int start = o.group_start[g], end = o.group_start[g + 1], lane = threadIdx.x % WARP;
	const float *y = o.y + (int64_t)row * o.width, *z = o.z + (int64_t)row * o.z_stride;
	float sum = 0;
	for (int i = start + lane; i < end; i += WARP) {
		float v = y[i] * (z[i] / (1 + expf(-z[i])));
		to[i] = v;
		sum += v * v;
	}
	sum = warp_sum(sum);
	float r = o.scale / sqrtf(sum / o.count[g] + o.eps);
	for (int i = start + lane; i < end; i += WARP)
		to[i] = to[i] * r * o.weight[i];
}

#endif
