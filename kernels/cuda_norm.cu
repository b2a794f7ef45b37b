/*
 * RMSNorm of the residual, a block a row, and the gated one of Mamba's groups, a warp a group.
 */
#include "kernels/cuda_norm.cuh"

/* Block (row, lane). */
static __global__ void __launch_bounds__(NORM_THREADS)
	norm_kernel(const __grid_constant__ struct lanes<norm_op> lanes)
{
	AWAIT_EARLIER();
	const struct norm_op &o = lanes.at[blockIdx.y];
	if ((int)blockIdx.x < o.n)
		norm_row<PLAIN>(o, o.x + (int64_t)blockIdx.x * o.width,
						o.y + (int64_t)blockIdx.x * o.width);
}

extern "C" void cuda_norm(struct device *device, int n_lanes, const struct norm_op *op)
{
	struct lanes<norm_op> lanes;
	for (int n; n_lanes > 0 && !device->failed; op += n, n_lanes -= n) {
		n = take_lanes(lanes, op, n_lanes);
		LAUNCH(device, norm_kernel, dim3(most_rows(lanes, n), n), NORM_THREADS, 0, lanes);
	}
}

/* Block (groups, row, lane). */
static __global__ void __launch_bounds__(NORM_THREADS)
	gated_norm_kernel(const __grid_constant__ struct lanes<gated_norm_op> lanes)
{
	AWAIT_EARLIER();
	const struct gated_norm_op &o = lanes.at[blockIdx.z];
	int row = blockIdx.y, g = (int)(blockIdx.x * blockDim.x + threadIdx.x) / WARP;
	float *y = o.y + (int64_t)row * o.width;
	if (row < o.n && g < o.n_groups)
		gate_group<PLAIN>(o, y, o.z + row * o.z_stride, g, y);
}

extern "C" void cuda_gated_norm(struct device *device, int n_lanes, const struct gated_norm_op *op)
{
	struct lanes<gated_norm_op> lanes;
	for (int n; n_lanes > 0 && !device->failed; op += n, n_lanes -= n) {
		int groups = 0;
		n = take_lanes(lanes, op, n_lanes);
		for (int l = 0; l < n; l++)
			groups = op[l].n_groups > groups ? op[l].n_groups : groups;
		dim3 grid(blocks_of(groups, NORM_THREADS / WARP), most_rows(lanes, n), n);
		LAUNCH(device, gated_norm_kernel, grid, NORM_THREADS, 0, lanes);
	}
}

extern "C" int cuda_compiled_for(void)
{
#ifdef __CUDACC__
	struct cudaFuncAttributes attributes;
	if (cudaFuncGetAttributes(&attributes, norm_kernel) == cudaSuccess)
		return attributes.ptxVersion;
#endif
	return 0;
}
