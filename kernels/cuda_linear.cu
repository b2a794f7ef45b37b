/*
 * Matrix products, embedding. One warp multiplies a few rows with up to TOKENS activation rows, so
 * a decode step reads every weight once; more tokens are more blocks that find the weights in L2.
 */
#include "kernels/cuda_dot.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
}

#define WARPS 8
#define TOKENS 8 // activation rows that share a pass over the weights
#define ROWS 2   // stored rows a warp

/* ---- embedding ---- */

template <enum dtype D>
static __device__ void widen_row(const struct cuda_view &m, int row, float *y)
{
	int64_t stored = stored_row(m, row);
	const void *data = (const char *)m.at.data;
	for (int s = 0, packed = 0; s < m.n_column_spans; s++) {
		struct span span = column_span(m, s);
		for (int i = threadIdx.x; i < span.length; i += blockDim.x) {
			int64_t at = stored * m.stride + span.start + i;
			float v = element<D>(data, at);
			if (D == DTYPE_NVFP4)
				v *= from_e4m3(m.at.scales[at / NVFP4_BLOCK]);
			if (D == DTYPE_NVFP4 || D == DTYPE_F8_E4M3)
				v *= m.at.scale;
			y[packed + i] = v;
		}
		packed += span.length;
	}
}

struct embedding {
	struct cuda_view m;
	const int32_t *ids;
	float *y;
	int n;
};

/* Block (token, lane). */
static __global__ void embed_kernel(struct lanes<embedding> lanes, struct cuda_fault *fault)
{
	AWAIT_EARLIER();
	const struct embedding &o = lanes.at[blockIdx.y];
	if ((int)blockIdx.x >= o.n)
		return;
	const struct cuda_view &m = o.m;
	int32_t id = o.ids[blockIdx.x];
	float *y = o.y + (int64_t)blockIdx.x * m.n_columns;
	if (id < 0 || id >= m.n_rows) {
		if (threadIdx.x == 0 && atomicCAS(&fault->kind, (int)FAULT_NONE, (int)FAULT_TOKEN) == 0) {
			fault->found = id;
			fault->limit = m.n_rows;
		}
		return;
	}
	switch (m.at.dtype) {
	case DTYPE_F32: widen_row<DTYPE_F32>(m, id, y); break;
	case DTYPE_BF16: widen_row<DTYPE_BF16>(m, id, y); break;
	case DTYPE_F16: widen_row<DTYPE_F16>(m, id, y); break;
	case DTYPE_F8_E4M3: widen_row<DTYPE_F8_E4M3>(m, id, y); break;
	default: widen_row<DTYPE_NVFP4>(m, id, y); break;
	}
}

extern "C" void cuda_embed(struct device *device, int n_lanes, const struct embed_op *op)
{
	struct lanes<embedding> lanes;
	for (int n; n_lanes > 0 && !device->failed; op += n, n_lanes -= n) {
		n = n_lanes < LANES ? n_lanes : LANES;
		for (int l = 0; l < n; l++) {
			struct embedding e = {cuda_view(op[l].table), op[l].ids, op[l].y, op[l].n};
			lanes.at[l] = e;
		}
		LAUNCH(device, embed_kernel, dim3(most_rows(lanes, n), n), 256, 0, lanes,
			   &device->mailbox->fault);
	}
}

/* ---- products ---- */

struct target {
	const float *x;
	float *y;
	int n, mode;
	bool aligned;
};

static __device__ __forceinline__ void store(float *y, float v, int mode)
{
	if (mode == LINEAR_ADD)
		*y += v;
	else
		*y = mode == LINEAR_RELU2 ? (v > 0 ? v * v : 0) : v;
}

/* Rows of a warp: ROWS of them, tokens of a block: T. */
template <enum dtype D, int T>
static __global__ void __launch_bounds__(WARPS *WARP)
	linear_kernel(struct cuda_view m, struct target to)
{
	AWAIT_EARLIER();
	int first = (int)(blockIdx.x * WARPS + threadIdx.x / WARP) * ROWS, lane = threadIdx.x % WARP;
	int token = (int)blockIdx.y * T, left = to.n - token;
	float sums[ROWS][T];
	if (first >= m.n_rows)
		return;
	/* a last group of fewer tokens reads the last ones again, and its results are dropped */
	int skip = left < T ? T - left : 0;
	int from = token - skip;
	dot_rows<D, ROWS, T>(m, m.at, to.aligned, first, to.x + (int64_t)from * m.n_columns,
						 m.n_columns, sums);
#pragma unroll
	for (int r = 0; r < ROWS; r++)
#pragma unroll
		for (int t = 0; t < T; t++)
			if (lane == r * T + t && t >= skip && first + r < m.n_rows)
				store(&to.y[(int64_t)(from + t) * m.n_rows + first + r], sums[r][t], to.mode);
}

template <enum dtype D> static void launch(struct device *device, const struct linear_op *o)
{
	struct cuda_view m = cuda_view(o->w);
	struct target to = {o->x, o->y, o->n, (int)o->mode,
						m.aligned && (uintptr_t)o->x % 16 == 0 && m.n_columns % 4 == 0};
	dim3 grid(blocks_of(m.n_rows, WARPS * ROWS), blocks_of(o->n, TOKENS));
	if (o->n >= TOKENS)
		LAUNCH(device, (linear_kernel<D, TOKENS>), grid, WARPS * WARP, 0, m, to);
	else if (o->n >= 4)
		LAUNCH(device, (linear_kernel<D, 4>), dim3(grid.x, 2), WARPS * WARP, 0, m, to);
	else if (o->n >= 2)
		LAUNCH(device, (linear_kernel<D, 2>), dim3(grid.x, 2), WARPS * WARP, 0, m, to);
	else
		LAUNCH(device, (linear_kernel<D, 1>), grid, WARPS * WARP, 0, m, to);
}

extern "C" void cuda_linear(struct device *device, int n_lanes, const struct linear_op *op)
{
	for (const struct linear_op *o = op; o < op + n_lanes && !device->failed; o++) {
		if (o->w->n_rows == 0 || o->n == 0 || cuda_gemm(device, o))
			continue;
		switch (o->w->dtype) {
		case DTYPE_F32: launch<DTYPE_F32>(device, o); break;
		case DTYPE_BF16: launch<DTYPE_BF16>(device, o); break;
		case DTYPE_F16: launch<DTYPE_F16>(device, o); break;
		case DTYPE_F8_E4M3: launch<DTYPE_F8_E4M3>(device, o); break;
		case DTYPE_NVFP4: launch<DTYPE_NVFP4>(device, o); break;
		default:
			fail(cuda_failure(device), "a product with a matrix of %s", dtype_name(o->w->dtype));
		}
	}
}
