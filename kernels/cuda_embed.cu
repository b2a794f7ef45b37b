/*
 * Embedding: a block a token widens its row.
 */
#include "kernels/cuda_kernel.cuh"

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
static __global__ void embed_kernel(const __grid_constant__ struct lanes<embedding> lanes,
									struct cuda_fault *fault)
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
