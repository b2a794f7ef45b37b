/*
 * Matrix products with many tokens. In fast math by cuBLASLt where it is there: BF16 weights as
 * they are stored, FP8 ones too from Ada on, with activations in E4M3 by the checkpoint's
 * input_scale; others (and those of several spans) unpacked to BF16 first; the router in F32. By
 * tensor cores of our own where it is not (cuda_pipe.cu). Else in F32 tile by tile: a block has 64
 * tokens x 128 rows, and blocks that share weights run next to each other.
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

/* Codes of a kept row as they are, 16 at a time: a block a row. */
static __global__ void gather_kernel(struct cuda_view m, uint8_t *to)
{
	AWAIT_EARLIER();
	const uint8_t *from = (const uint8_t *)m.at.data + stored_row(m, blockIdx.x) * m.stride;
	to += (int64_t)blockIdx.x * m.n_columns;
	for (int s = 0; s < m.n_column_spans; s++) {
		struct span span = column_span(m, s);
		for (int i = threadIdx.x * 16; i < span.length; i += THREADS * 16)
			*(uint4 *)(to + i) = *(const uint4 *)(from + span.start + i);
		to += span.length;
	}
}

/* Whether the library multiplies this in E4M3: what activations are divided by is known beforehand,
 * and everything begins on 16 bytes. */
static bool library_codes(const struct device *device, const struct matrix *w)
{
	return cuda_codes_allow(device, w) && w->input_scale > 0 && w->n_rows % 16 == 0;
}

/* p->w: the matrix where it is stored, or one in scratch without what is not kept; in p->type.
 * False: too large for that, several spans in F32, or the device has failed. */
static bool place_weights(struct device *device, const struct matrix *w, struct blas_product *p)
{
	size_t n = (size_t)w->n_rows * (size_t)w->n_columns;
	bool whole = w->n_row_spans == 1 && w->n_column_spans == 1;
	bool codes = p->type == BLAS_E4M3;
	if (whole && (codes || w->dtype == DTYPE_BF16 || w->dtype == DTYPE_F32)) {
		p->w = matrix_at(w, w->rows[0].start, w->columns[0].start);
		p->w_stride = w->stride;
		return true;
	}
	if (n > CARD_UNPACKED_BYTES / sizeof(uint16_t) || w->dtype == DTYPE_F32)
		return false;
	void *to = cuda_scratch(device, CUDA_SCRATCH_WEIGHTS, n, codes ? 1 : sizeof(uint16_t));
	if (to && codes)
		LAUNCH(device, gather_kernel, w->n_rows, THREADS, 0, cuda_view(w), (uint8_t *)to);
	else if (to)
		LAUNCH(device, unpack_kernel, w->n_rows, THREADS, 0, cuda_view(w), (uint16_t *)to);
	p->w = to;
	p->w_stride = w->n_columns;
	return to && !device->failed;
}

/* The router's weights in F32, whose activations stay so, are the one product in F32. Matrices that
 * lie there as they are multiplied go to the library from few tokens on (lanes of a batch): it
 * divides their columns too, our 256 rows a block would leave most of the card idle. */
static bool library_takes(const struct device *device, const struct linear_op *o)
{
	const struct matrix *w = o->w;
	bool wide = o->precise && w->dtype == DTYPE_F32 && (uintptr_t)o->x % 16 == 0;
	bool ready = w->n_row_spans == 1 && w->n_column_spans == 1 && w->dtype == DTYPE_BF16;
	return device->blas && o->n >= (ready ? CUDA_PREFILL_TOKENS : BLAS_TOKENS) &&
		   (wide || (!o->precise && cuda_narrow(device, w)));
}

static bool multiply_by_library(struct device *device, const struct linear_op *o)
{
	const struct matrix *w = o->w;
	int64_t n_y = (int64_t)o->n * w->n_rows;
	bool scaled = w->dtype == DTYPE_F8_E4M3 || w->dtype == DTYPE_NVFP4;
	struct blas_product p;
	if (!library_takes(device, o))
		return false;
	memset(&p, 0, sizeof p);
	p.type = o->precise ? BLAS_F32 : library_codes(device, w) ? BLAS_E4M3 : BLAS_BF16;
	p.y = o->y;
	p.y_stride = w->n_rows;
	p.n = o->n;
	p.rows = w->n_rows;
	p.columns = w->n_columns;
	p.scale = (scaled ? w->scale : 1) * (p.type == BLAS_E4M3 ? w->input_scale : 1);
	p.add = o->mode == LINEAR_ADD;
	if (!place_weights(device, w, &p))
		return false;
	if (p.type == BLAS_F32)
		p.x = o->x;
	else if (p.type == BLAS_E4M3)
		p.x = cuda_code_rows(device, o->x, o->n, w->n_columns, w->input_scale).codes;
	else
		p.x = cuda_narrow_rows(device, o->x, o->n, w->n_columns);
	if (!p.x || !cuda_blas_multiply(device, &p))
		return false;
	if (o->mode == LINEAR_RELU2)
		LAUNCH(device, relu2_kernel, blocks_of(n_y, THREADS), THREADS, 0, o->y, n_y);
	return true;
}

/* ---- tensor cores of our own ---- */

static bool multiply_by_pipe(struct device *device, const struct linear_op *o)
{
	struct pipe_op op = cuda_pipe_dense(cuda_view(o->w), o->y, o->n, o->mode);
	if (o->precise || !cuda_pipe_takes(device, o->w))
		return false;
	if (cuda_multiplies_codes(device) && cuda_codes_allow(device, o->w)) {
		struct coded_rows x =
			cuda_code_rows(device, o->x, o->n, o->w->n_columns, o->w->input_scale);
		op.x = x.codes;
		op.scales = x.scales;
	} else {
		op.x = cuda_narrow_rows(device, o->x, o->n, o->w->n_columns);
	}
	if (op.x)
		cuda_pipe(device, &op);
	return true;
}

bool cuda_gemm(struct device *device, const struct linear_op *o)
{
	struct cuda_view m = cuda_view(o->w);
	if (o->n < CUDA_PREFILL_TOKENS)
		return false;
	if (multiply_by_library(device, o) || device->failed || multiply_by_pipe(device, o))
		return true;
	struct target to = {o->x, o->y, o->n, (int)o->mode,
						m.aligned && (uintptr_t)o->x % 16 == 0 && m.n_columns % 4 == 0};
	dim3 grid(blocks_of(o->n, TILE_TOKENS), blocks_of(m.n_rows, TILE_ROWS));
	LAUNCH(device, gemm_kernel, grid, TILE_THREADS, TILE_SHARED, m, to);
	return true;
}
