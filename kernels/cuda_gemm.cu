/*
 * Matrix products with many tokens, tile by tile: a block has 64 tokens x 128 rows, and blocks that
 * share weights run next to each other.
 */
#include "kernels/cuda_tile.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
}

struct target {
	const float *x;
	float *y;
	int n, mode;
	bool aligned;
};

template <bool NARROW>
static __global__ void __launch_bounds__(TILE_THREADS)
	gemm_kernel(struct cuda_view m, struct target to)
{
	SHARED_DYNAMIC(memory);
	struct tile t = tile_in<NARROW>(memory);
	int first_token = blockIdx.x * TILE_TOKENS, first_row = blockIdx.y * TILE_ROWS;
	float sums[TILE_SUMS];
	if (threadIdx.x < TILE_TOKENS) {
		int token = first_token + (int)threadIdx.x;
		t.x[threadIdx.x] = token < to.n ? to.x + (int64_t)token * m.n_columns : NULL;
	}
	tile_product<NARROW>(t, m, m.at, to.aligned, first_row, sums);
#pragma unroll
	for (int i = 0; i < TILE_SUMS; i++) {
		int token = first_token + tile_token<NARROW>(i), row = first_row + tile_row<NARROW>(i);
		if (token >= to.n || row >= m.n_rows)
			continue;
		float *y = to.y + (int64_t)token * m.n_rows + row, v = sums[i];
		if (to.mode == LINEAR_ADD)
			*y += v;
		else
			*y = to.mode == LINEAR_RELU2 ? (v > 0 ? v * v : 0) : v;
	}
}

bool cuda_gemm(struct device *device, const struct linear_op *o)
{
	struct cuda_view m = cuda_view(o->w);
	if (o->n < CUDA_PREFILL_TOKENS)
		return false;
	struct target to = {o->x, o->y, o->n, (int)o->mode,
						m.aligned && (uintptr_t)o->x % 16 == 0 && m.n_columns % 4 == 0};
	dim3 grid(blocks_of(o->n, TILE_TOKENS), blocks_of(m.n_rows, TILE_ROWS));
	if (!o->precise && cuda_narrow(device, o->w))
		LAUNCH(device, gemm_kernel<true>, grid, TILE_THREADS, TILE_SHARED, m, to);
	else
		LAUNCH(device, gemm_kernel<false>, grid, TILE_THREADS, TILE_SHARED, m, to);
	return true;
}
