/*
 * RMSNorm of the residual, and the gated one of Mamba's groups: a block a row or a group.
 */
#include "kernels/cuda_kernel.cuh"

#define NORM_THREADS 512
#define GROUP_THREADS 256

/* y may be x: every thread reads its channels before it writes them. */
static __global__ void norm_kernel(struct norm_op o)
{
	const float *x = o.x + (int64_t)blockIdx.x * o.width;
	float *y = o.y + (int64_t)blockIdx.x * o.width, sum = 0;
	for (int i = threadIdx.x; i < o.width; i += blockDim.x)
		sum += x[i] * x[i];
	sum = block_sum(sum);
	float r = o.scale / sqrtf(sum / o.count + o.eps);
	for (int i = threadIdx.x; i < o.width; i += blockDim.x)
		y[i] = x[i] * r * o.weight[i];
}

extern "C" void cuda_norm(struct device *device, int n_lanes, const struct norm_op *op)
{
	for (const struct norm_op *o = op; o < op + n_lanes && !device->failed; o++)
		LAUNCH(device, norm_kernel, o->n, NORM_THREADS, 0, *o);
}

static __global__ void gated_norm_kernel(struct gated_norm_op o)
{
	int t = blockIdx.y, g = blockIdx.x, start = o.group_start[g], end = o.group_start[g + 1];
	float *y = o.y + (int64_t)t * o.width, sum = 0;
	const float *z = o.z + (int64_t)t * o.z_stride;
	for (int i = start + threadIdx.x; i < end; i += blockDim.x) {
		float v = y[i] * (z[i] / (1 + expf(-z[i])));
		y[i] = v;
		sum += v * v;
	}
	sum = block_sum(sum);
	float r = o.scale / sqrtf(sum / o.count[g] + o.eps);
	for (int i = start + threadIdx.x; i < end; i += blockDim.x)
		y[i] = y[i] * r * o.weight[i];
}

extern "C" void cuda_gated_norm(struct device *device, int n_lanes, const struct gated_norm_op *op)
{
	for (const struct gated_norm_op *o = op; o < op + n_lanes && !device->failed; o++)
		LAUNCH(device, gated_norm_kernel, dim3(o->n_groups, o->n), GROUP_THREADS, 0, *o);
}
