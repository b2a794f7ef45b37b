/*
 * A block's part of a matrix product with many tokens in F32: 64 tokens x 128 stored rows, 32
 * columns at a time through shared memory. Weights of any format are unpacked on the way in: exact
 * math, the router, and spans that tensor cores' wide loads do not take (cuda_pipe.cuh).
 *
 * Both sides are gathered: activation rows by pointer (experts choose tokens), weights by the
 * matrix's spans.
 */
#ifndef KERNELS_CUDA_TILE_CUH
#define KERNELS_CUDA_TILE_CUH

#include "kernels/cuda_dot.cuh"

#define TILE_TOKENS 64
#define TILE_ROWS 128
#define TILE_DEPTH 32
#define TILE_THREADS 256
#define TILE_SUMS (TILE_TOKENS * TILE_ROWS / TILE_THREADS) // a thread's
#define TILE_STRIDE (TILE_DEPTH + 1)                       // no bank conflicts

/* In dynamic shared memory. */
#define TILE_SHARED                                                                                \
	(TILE_TOKENS * sizeof(float *) + TILE_ROWS * sizeof(int64_t) +                                 \
	 (TILE_TOKENS + TILE_ROWS) * TILE_STRIDE * sizeof(float))

struct tile {
	const float **x; // (TILE_TOKENS): set by the caller; NULL = no token
	int64_t *stored; // (TILE_ROWS): -1 = beyond the last
	float *a, *b;    // (tokens, depth), (rows, depth)
};

static __device__ __forceinline__ struct tile tile_in(unsigned char *memory)
{
	struct tile t;
	t.x = (const float **)memory;
	t.stored = (int64_t *)(t.x + TILE_TOKENS);
	t.a = (float *)(t.stored + TILE_ROWS);
	t.b = t.a + TILE_TOKENS * TILE_STRIDE;
	return t;
}

/* N values to row `row`, columns j.. of a tile. */
template <int N>
static __device__ __forceinline__ void tile_put(float *to, int row, int j, const float *v)
{
#pragma unroll
	for (int i = 0; i < N; i++)
		to[row * TILE_STRIDE + j + i] = v[i];
}

/* Packed columns [from, from + length) of the tokens, 0 beyond. */
static __device__ __forceinline__ void tile_load_x(const struct tile &t, bool aligned, int from,
												   int length)
{
	for (int i = threadIdx.x; i < TILE_TOKENS * (TILE_DEPTH / 4); i += TILE_THREADS) {
		int token = i / (TILE_DEPTH / 4), j = i % (TILE_DEPTH / 4) * 4;
		const float *x = t.x[token];
		float v[4] = {0, 0, 0, 0};
		if (x && j < length) {
			if (aligned) {
				float4 part = *(const float4 *)(x + from + j);
				v[0] = part.x, v[1] = part.y, v[2] = part.z, v[3] = part.w;
			} else {
#pragma unroll
				for (int k = 0; k < 4; k++)
					v[k] = j + k < length ? x[from + j + k] : 0;
			}
		}
		tile_put<4>(t.a, token, j, v);
	}
}

/* Stored columns [start, start + length) of the rows, 0 beyond. */
template <enum dtype D>
static __device__ __forceinline__ void tile_load_w(const struct tile &t, const struct placed &at,
												   int64_t stride, bool aligned, int start,
												   int length)
{
	const int each = at_once<D>::n, steps = TILE_DEPTH / each;
	for (int i = threadIdx.x; i < TILE_ROWS * steps; i += TILE_THREADS) {
		int r = i / steps, j = i % steps * each;
		int64_t stored = t.stored[r];
		float w[each];
#pragma unroll
		for (int k = 0; k < each; k++)
			w[k] = 0;
		if (stored >= 0 && j < length) {
			const void *row = row_at<D>(at, stride, stored);
			const uint8_t *scales =
				D == DTYPE_NVFP4 ? at.scales + stored * stride / NVFP4_BLOCK : NULL;
			if (aligned) {
				struct pack<D> p;
				load<D>(p, row, scales, start + j);
				unpack<D>(p, w);
			} else {
#pragma unroll
				for (int k = 0; k < each; k++)
					if (j + k < length)
						w[k] = element<D>(row, start + j + k) *
							   (D == DTYPE_NVFP4 ? from_e4m3(scales[(start + j + k) / NVFP4_BLOCK])
												 : 1);
			}
		}
		tile_put<each>(t.b, r, j, w);
	}
}

/* sums += what is in the tiles, 8 tokens a warp. */
static __device__ __forceinline__ void tile_multiply(const struct tile &t, float sums[TILE_SUMS])
{
	int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
	const float *a = t.a + warp * 8 * TILE_STRIDE, *b = t.b + lane * TILE_STRIDE;
	for (int k = 0; k < TILE_DEPTH; k++) {
		float w[4];
#pragma unroll
		for (int r = 0; r < 4; r++)
			w[r] = b[r * WARP * TILE_STRIDE + k];
#pragma unroll
		for (int i = 0; i < TILE_SUMS; i++)
			sums[i] += a[i / 4 * TILE_STRIDE + k] * w[i % 4];
	}
}

/* Where a thread's sum i stands in the tile. */
static __device__ __forceinline__ int tile_token(int i)
{
	return threadIdx.x / WARP * 8 + i / 4;
}

static __device__ __forceinline__ int tile_row(int i)
{
	return threadIdx.x % WARP + i % 4 * WARP;
}

/* sums = W x for the kept rows first.. and the tokens of t.x, which the caller has set (no barrier
 * needed between). at: where the matrix lies; aligned: wide loads of both sides. */
static __device__ void tile_product(const struct tile &t, const struct cuda_view &m,
									const struct placed &at, bool aligned, int first,
									float sums[TILE_SUMS])
{
	for (int r = threadIdx.x; r < TILE_ROWS; r += TILE_THREADS)
		t.stored[r] = first + r < m.n_rows ? stored_row(m, first + r) : -1;
#pragma unroll
	for (int i = 0; i < TILE_SUMS; i++)
		sums[i] = 0;
	__syncthreads();
	for (int s = 0, packed = 0; s < m.n_column_spans; s++) {
		struct span span = column_span(m, s);
		for (int j = 0; j < span.length; j += TILE_DEPTH) {
			int start = span.start + j, n = span.length - j;
			tile_load_x(t, aligned, packed + j, n);
			switch (at.dtype) {
			case DTYPE_F32: tile_load_w<DTYPE_F32>(t, at, m.stride, aligned, start, n); break;
			case DTYPE_BF16: tile_load_w<DTYPE_BF16>(t, at, m.stride, aligned, start, n); break;
			case DTYPE_F16: tile_load_w<DTYPE_F16>(t, at, m.stride, aligned, start, n); break;
			case DTYPE_F8_E4M3:
				tile_load_w<DTYPE_F8_E4M3>(t, at, m.stride, aligned, start, n);
				break;
			default: tile_load_w<DTYPE_NVFP4>(t, at, m.stride, aligned, start, n); break;
			}
			__syncthreads();
			tile_multiply(t, sums);
			__syncthreads();
		}
		packed += span.length;
	}
	float scale = at.dtype == DTYPE_F8_E4M3 || at.dtype == DTYPE_NVFP4 ? at.scale : 1;
#pragma unroll
	for (int i = 0; i < TILE_SUMS; i++)
		sums[i] *= scale;
}

#endif
