/*
 * Matrix products with many tokens. In fast math by cuBLASLt where it is there, BF16 weights as
 * they are stored, others (and those of several spans) unpacked to BF16 first; by tensor cores of
 * our own where it is not (cuda_pipe.cu); else in F32 tile by tile: a block has 64 tokens x 128
 * rows, and blocks that share weights run next to each other.
 */
#include "kernels/cuda_mma.cuh"
#include "kernels/cuda_tile.cuh"

extern "C" {
#include "kernels/cuda_blas.h"
#include "kernels/cuda_pipe.h"
#include "kernels/cuda_prefill.h"
}

#define BLAS_TOKENS 64
#define THREADS 256

/* ---- tiles ---- */

struct target {
	const float *x;
	float *y;
	int n, mode;
	bool aligned;
};

static __global__ void __launch_bounds__(TILE_THREADS)
	gemm_kernel(struct cuda_view m, struct target to)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	struct tile t = tile_in(memory);
	int first_token = blockIdx.x * TILE_TOKENS, first_row = blockIdx.y * TILE_ROWS;
	float sums[TILE_SUMS];
	if (threadIdx.x < TILE_TOKENS) {
		int token = first_token + (int)threadIdx.x;
		t.x[threadIdx.x] = token < to.n ? to.x + (int64_t)token * m.n_columns : NULL;
	}
	tile_product(t, m, m.at, to.aligned, first_row, sums);
#pragma unroll
	for (int i = 0; i < TILE_SUMS; i++) {
		int token = first_token + tile_token(i), row = first_row + tile_row(i);
		if (token >= to.n || row >= m.n_rows)
			continue;
		float *y = to.y + (int64_t)token * m.n_rows + row, v = sums[i];
		if (to.mode == LINEAR_ADD)
			*y += v;
		else
			*y = to.mode == LINEAR_RELU2 ? (v > 0 ? v * v : 0) : v;
	}
}

/* ---- cuBLASLt ---- */

static __global__ void relu2_kernel(float *y, int64_t n)
{
	AWAIT_EARLIER();
	int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
	if (i < n)
		y[i] = y[i] > 0 ? y[i] * y[i] : 0;
}

/* A kept row in BF16 without the tensor's scale: nothing is lost. */
template <enum dtype D>
static __device__ void unpack_row(const struct cuda_view &m, int row, uint16_t *to)
{
	const int each = at_once<D>::n;
	int64_t stored = stored_row(m, row);
	const void *from = row_at<D>(m.at, m.stride, stored);
	const uint8_t *scales = D == DTYPE_NVFP4 ? m.at.scales + stored * m.stride / NVFP4_BLOCK : NULL;
	for (int s = 0; s < m.n_column_spans; s++) {
		struct span span = column_span(m, s);
		int step = m.aligned ? each : 1;
		for (int i = threadIdx.x * step; i < span.length; i += THREADS * step) {
			float w[each];
			if (m.aligned) {
				struct pack<D> p;
				load<D>(p, from, scales, span.start + i);
				unpack<D>(p, w);
#pragma unroll
				for (int k = 0; k < each; k += 2)
					*(uint32_t *)(to + i + k) = pack_bf16(w[k], w[k + 1]);
			} else {
				w[0] = element<D>(from, span.start + i);
				if (D == DTYPE_NVFP4)
					w[0] *= from_e4m3(scales[(span.start + i) / NVFP4_BLOCK]);
				to[i] = to_bf16(w[0]);
			}
		}
		to += span.length;
	}
}

/* A block a row. */
static __global__ void unpack_kernel(struct cuda_view m, uint16_t *to)
{
	AWAIT_EARLIER();
	to += (int64_t)blockIdx.x * m.n_columns;
	switch (m.at.dtype) {
	case DTYPE_BF16: unpack_row<DTYPE_BF16>(m, blockIdx.x, to); break;
	case DTYPE_F8_E4M3: unpack_row<DTYPE_F8_E4M3>(m, blockIdx.x, to); break;
	default: unpack_row<DTYPE_NVFP4>(m, blockIdx.x, to); break;
	}
}

static bool multiply_by_library(struct device *device, const struct linear_op *o)
{
	const struct matrix *w = o->w;
	bool stored = w->dtype == DTYPE_BF16 && w->n_row_spans == 1 && w->n_column_spans == 1;
	size_t n_y = (size_t)o->n * (size_t)w->n_rows;
	size_t n_w = (size_t)w->n_rows * (size_t)w->n_columns;
	if (!device->blas || o->n < BLAS_TOKENS || o->precise || !cuda_narrow(device, w) ||
		(!stored && n_w > CARD_UNPACKED_BYTES / sizeof(uint16_t)))
		return false;
	uint16_t *x = cuda_narrow_rows(device, o->x, o->n, w->n_columns);
	struct blas_product p = {NULL,
							 w->stride,
							 x,
							 o->y,
							 w->n_rows,
							 o->n,
							 w->n_rows,
							 w->n_columns,
							 w->dtype == DTYPE_BF16 ? 1 : w->scale,
							 o->mode == LINEAR_ADD};
	if (stored) {
		p.w = matrix_at(w, w->rows[0].start, w->columns[0].start);
	} else {
		uint16_t *unpacked =
			(uint16_t *)cuda_scratch(device, CUDA_SCRATCH_WEIGHTS, n_w, sizeof *unpacked);
		if (!unpacked)
			return false;
		LAUNCH(device, unpack_kernel, w->n_rows, THREADS, 0, cuda_view(w), unpacked);
		p.w = unpacked;
		p.w_stride = w->n_columns;
	}
	if (!x)
		return false;
	if (!cuda_blas_multiply(device, &p))
		return false;
	if (o->mode == LINEAR_RELU2)
		LAUNCH(device, relu2_kernel, blocks_of((int64_t)n_y, THREADS), THREADS, 0, o->y,
			   (int64_t)n_y);
	return true;
}

bool cuda_gemm(struct device *device, const struct linear_op *o)
{
	struct cuda_view m = cuda_view(o->w);
	if (o->n < CUDA_PREFILL_TOKENS)
		return false;
	if (multiply_by_library(device, o) || device->failed)
		return true;
	struct target to = {o->x, o->y, o->n, (int)o->mode,
						m.aligned && (uintptr_t)o->x % 16 == 0 && m.n_columns % 4 == 0};
	if (!o->precise && cuda_pipe_takes(device, o->w)) {
		struct pipe_op op = cuda_pipe_dense(m, o->y, o->n, o->mode);
		op.x = cuda_narrow_rows(device, o->x, o->n, m.n_columns);
		if (op.x)
			cuda_pipe(device, &op);
		return true;
	}
	dim3 grid(blocks_of(o->n, TILE_TOKENS), blocks_of(m.n_rows, TILE_ROWS));
	LAUNCH(device, gemm_kernel, grid, TILE_THREADS, TILE_SHARED, m, to);
	return true;
}
