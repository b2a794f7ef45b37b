/*
 * A block's part of a matrix product with many tokens on tensor cores: up to 128 tokens x 256 kept
 * rows, 64 bytes of every row at a time. Activations come as they are multiplied, in BF16 (or
 * E4M3), rows of whole 16 bytes; both sides are gathered, activations by pointer, weights by the
 * matrix's spans.
 *
 * What is multiplied as it is stored goes to shared memory by asynchronous copies, STAGES - 1 steps
 * ahead. FP8 and NVFP4 weights that meet BF16 activations are unpacked to BF16 on the way, through
 * registers, a step ahead: E4M3 codes and E2M1 times a block's scale are BF16 exactly.
 *
 * Shared rows of 64 bytes are four chunks of 16, exchanged by the row's number so that eight rows
 * read or written together are in eight different banks. A warp multiplies 64 tokens x 64 rows (32,
 * where the tokens are few): twice what it reads from shared memory in tensor instructions.
 */
#ifndef KERNELS_CUDA_PIPE_CUH
#define KERNELS_CUDA_PIPE_CUH

#include "kernels/cuda_dot.cuh"
#include "kernels/cuda_mma.cuh"

extern "C" {
#include "kernels/cuda_pipe.h"
}

#define PIPE_ROWS 256
#define PIPE_STEP 64 // bytes of a row in shared memory: 32 BF16, 64 E4M3
#define PIPE_STAGES 4
#define PIPE_THREADS 256
#define PIPE_STAGE_BYTES ((PIPE_TOKENS + PIPE_ROWS) * PIPE_STEP)
#define PIPE_SHARED (PIPE_STAGES * PIPE_STAGE_BYTES) // below the 99 KB of the smallest cards

/* How weights of dtype D meet the activations. */
enum pipe_kind { PIPE_BF16, PIPE_FP8_AS_BF16, PIPE_NVFP4_AS_BF16, PIPE_FP8 };

/* Columns of a row at a time, and the dtype that is stored. */
template <enum pipe_kind K> struct pipe_of {
	enum {
		depth = K == PIPE_FP8 ? 64 : 32,
		unpacks = K == PIPE_FP8_AS_BF16 || K == PIPE_NVFP4_AS_BF16,
	};
};

/* Where chunk (0..3) of a row of 64 bytes lies. */
static __device__ __forceinline__ int pipe_at(int row, int chunk)
{
	return row * PIPE_STEP + ((chunk ^ (row / 2 % 4)) * 16);
}

/* A walk over the matrix's columns, `depth` at a time within a span. */
struct pipe_walk {
	int s, j;          // span, and how far in it
	int start, length; // of the span
	int packed;        // columns of the spans before
};

static __device__ __forceinline__ void pipe_span(const struct cuda_view &m, struct pipe_walk &w)
{
	struct span span = {0, 0};
	if (w.s < m.n_column_spans)
		span = column_span(m, w.s);
	w.start = span.start;
	w.length = span.length;
}

static __device__ __forceinline__ struct pipe_walk pipe_begin(const struct cuda_view &m)
{
	struct pipe_walk w = {0, 0, 0, 0, 0};
	pipe_span(m, w);
	return w;
}

/* Past the end nothing is left (length 0). */
static __device__ __forceinline__ void pipe_next(const struct cuda_view &m, struct pipe_walk &w,
												 int depth)
{
	w.j += depth;
	if (w.j < w.length)
		return;
	w.packed += w.length;
	w.s++;
	w.j = 0;
	pipe_span(m, w);
}

static __device__ __forceinline__ int pipe_steps(const struct cuda_view &m, int depth)
{
	int n = 0;
	for (int s = 0; s < m.n_column_spans; s++)
		n += (column_span(m, s).length + depth - 1) / depth;
	return n;
}

/* ---- unpacking ---- */

/* Four E2M1 codes (the lower 16 bits) times the scale, which stands twice in `scale`: magnitudes by
 * table, upper and lower bytes apart; the sign is each code's fourth bit. */
static __device__ __forceinline__ void unpack_e2m1(uint32_t codes, uint32_t scale, uint32_t to[2])
{
	uint32_t at = codes & 0x7777;
	uint32_t upper = select_bytes(0x3f3f3f00, 0x40404040, at);
	uint32_t lower = select_bytes(0xc0800000, 0xc0804000, at);
	uint32_t spread = select_bytes(codes, codes >> 4, 0x5140); // a code a byte
	upper |= spread << 4 & 0x80808080;
	to[0] = multiply_bf16(select_bytes(lower, upper, 0x5140), scale);
	to[1] = multiply_bf16(select_bytes(lower, upper, 0x7362), scale);
}

/* 16 weights of a row on their way: what was loaded. */
template <enum pipe_kind K> struct pipe_packed {
	uint2 codes[2];
};
template <> struct pipe_packed<PIPE_NVFP4_AS_BF16> {
	uint2 codes;
	uint32_t scale; // of the block: E4M3
};

/* Columns column.. of the stored row that begins with element `row` (-1: none); those from `end` on
 * are 0. column is a multiple of 8 (NVFP4: 16), and so is end. */
template <enum pipe_kind K>
static __device__ __forceinline__ void pipe_load(struct pipe_packed<K> &p, const struct placed &at,
												 int64_t row, int column, int end)
{
	const uint2 none = {0, 0};
#pragma unroll
	for (int i = 0; i < 2; i++)
		p.codes[i] = row >= 0 && column + 8 * i < end
						 ? __ldg((const uint2 *)((const uint8_t *)at.data + row + column + 8 * i))
						 : none;
}
template <>
__device__ __forceinline__ void pipe_load(struct pipe_packed<PIPE_NVFP4_AS_BF16> &p,
										  const struct placed &at, int64_t row, int column, int end)
{
	const uint2 none = {0, 0};
	bool in = row >= 0 && column < end;
	p.codes = in ? __ldg((const uint2 *)((const uint8_t *)at.data + (row + column) / 2)) : none;
	p.scale = in ? __ldg(at.scales + (row + column) / NVFP4_BLOCK) : 0;
}

/* They as BF16. */
template <enum pipe_kind K>
static __device__ __forceinline__ void pipe_widen(const struct pipe_packed<K> &p, uint32_t w[8])
{
#pragma unroll
	for (int i = 0; i < 2; i++) {
		unpack_e4m3(p.codes[i].x, w + 4 * i);
		unpack_e4m3(p.codes[i].y, w + 4 * i + 2);
	}
}
template <>
__device__ __forceinline__ void pipe_widen(const struct pipe_packed<PIPE_NVFP4_AS_BF16> &p,
										   uint32_t w[8])
{
	float s = from_e4m3(p.scale);
	uint32_t scale = pack_bf16(s, s);
	unpack_e2m1(p.codes.x, scale, w);
	unpack_e2m1(p.codes.x >> 16, scale, w + 2);
	unpack_e2m1(p.codes.y, scale, w + 4);
	unpack_e2m1(p.codes.y >> 16, scale, w + 6);
}

/* ---- one side of a step into shared memory, by asynchronous copies ---- */

/* A thread copies a chunk of the rows thread / 4 + 64 i; from NULL, or not `in`: zeros. */
template <int ROWS>
static __device__ __forceinline__ void
pipe_copy(unsigned char *tile, const unsigned char *const *from, int64_t at, bool in)
{
	int row = threadIdx.x / 4, chunk = threadIdx.x % 4;
#pragma unroll
	for (int i = 0; i < ROWS / 64; i++)
		copy_async(tile + pipe_at(row + 64 * i, chunk), from[i] + at + chunk * 16,
				   in && from[i] != NULL);
}

/* ---- the product ---- */

/* A warp's fragments and sums: TOKENS / 64 x (8 warps / that) of 64 tokens x `rows`. */
template <int TOKENS> struct pipe_share {
	enum {
		warps = PIPE_THREADS / WARP / (TOKENS / 64), // side by side over the rows
		rows = PIPE_ROWS / warps,
		sums = 64 * rows / WARP, // a thread's
	};
};

template <int TOKENS> static __device__ __forceinline__ int pipe_first_token(void)
{
	return (int)threadIdx.x / WARP / pipe_share<TOKENS>::warps * 64;
}

template <int TOKENS> static __device__ __forceinline__ int pipe_first_row(void)
{
	return (int)threadIdx.x / WARP % pipe_share<TOKENS>::warps * pipe_share<TOKENS>::rows;
}

/* Where a thread's sum i stands in the tile; i and i + 1 (i even) are neighbours in a row's
 * direction. */
template <int TOKENS> static __device__ __forceinline__ int pipe_token(int i)
{
	const int blocks = pipe_share<TOKENS>::rows / 8;
	return pipe_first_token<TOKENS>() + i / (4 * blocks) * 16 + mma_row(i % 4);
}

template <int TOKENS> static __device__ __forceinline__ int pipe_row(int i)
{
	const int blocks = pipe_share<TOKENS>::rows / 8;
	return pipe_first_row<TOKENS>() + i / 4 % blocks * 8 + mma_column(i % 4);
}

/* One step: 64 bytes of every row, for the warp's first n_blocks x 16 tokens. */
template <int TOKENS, bool FP8>
static __device__ __forceinline__ void pipe_multiply(const unsigned char *x, const unsigned char *w,
													 int n_blocks, float *sums)
{
	const int rows = pipe_share<TOKENS>::rows;
	int lane = threadIdx.x % WARP, token = pipe_first_token<TOKENS>() + lane % 16;
	int row = pipe_first_row<TOKENS>() + lane % 8 + lane / 16 * 8;
#pragma unroll
	for (int half = 0; half < 2; half++) { // 32 bytes: 16 BF16, 32 E4M3
		uint32_t a[4][4], b[rows / 16][4];
#pragma unroll
		for (int i = 0; i < 4; i++)
			load_matrices(a[i], x + pipe_at(token + 16 * i, 2 * half + lane / 16));
#pragma unroll
		for (int i = 0; i < rows / 16; i++)
			load_matrices(b[i], w + pipe_at(row + 16 * i, 2 * half + lane / 8 % 2));
#pragma unroll
		for (int i = 0; i < 4; i++) {
			if (i >= n_blocks)
				break;
#pragma unroll
			for (int k = 0; k < rows / 8; k++) {
				float *to = sums + (i * (rows / 8) + k) * 4;
				if (FP8)
					mma_e4m3(to, a[i], b[k / 2] + k % 2 * 2);
				else
					mma_bf16(to, a[i], b[k / 2] + k % 2 * 2);
			}
		}
	}
}

/* What a thread brings of every step: a chunk of some tokens and rows, or 16 weights of two rows to
 * unpack. */
template <int TOKENS, enum pipe_kind K>
struct pipe_feed {
	unsigned char *memory;                      // the stages
	const unsigned char * tokens[TOKENS / 64];  // NULL: none
	const unsigned char * rows[PIPE_ROWS / 64]; // stored rows
	int64_t stored[2];                          // first elements of the rows to unpack, -1: none
	struct pipe_packed<K>
		packed[2];
	struct pipe_walk ahead, unpacked; // the next step to copy, to load
};

/* Starts the copies of the next step; a group even where there is none. */
template <int TOKENS, enum pipe_kind K>
static __device__ __forceinline__ void pipe_start(struct pipe_feed<TOKENS, K> &f,
												  const struct cuda_view &m, int step)
{
	const int bytes = K == PIPE_FP8 ? 1 : 2;
	unsigned char *stage = f.memory + step % PIPE_STAGES * PIPE_STAGE_BYTES;
	bool in = f.ahead.j + (int)threadIdx.x % 4 * (16 / bytes) < f.ahead.length;
	if (f.ahead.length) {
		pipe_copy<TOKENS>(stage, f.tokens, (int64_t)(f.ahead.packed + f.ahead.j) * bytes, in);
		if (!pipe_of<K>::unpacks)
			pipe_copy<PIPE_ROWS>(stage + PIPE_TOKENS * PIPE_STEP, f.rows,
								 (int64_t)(f.ahead.start + f.ahead.j) * bytes, in);
		pipe_next(m, f.ahead, pipe_of<K>::depth);
	}
	copy_commit();
}

template <int TOKENS, enum pipe_kind K>
static __device__ __forceinline__ void
pipe_fetch(struct pipe_feed<TOKENS, K> &f, const struct cuda_view &m, const struct placed &at)
{
	int column = f.unpacked.start + f.unpacked.j + (int)threadIdx.x % 2 * 16;
#pragma unroll
	for (int i = 0; i < 2; i++)
		pipe_load<K>(f.packed[i], at, f.stored[i], column, f.unpacked.start + f.unpacked.length);
	pipe_next(m, f.unpacked, pipe_of<K>::depth);
}

template <int TOKENS, enum pipe_kind K>
static __device__ __forceinline__ void pipe_put(const struct pipe_feed<TOKENS, K> &f, int step)
{
	unsigned char *w = f.memory + step % PIPE_STAGES * PIPE_STAGE_BYTES + PIPE_TOKENS * PIPE_STEP;
	int row = threadIdx.x / 2, chunk = threadIdx.x % 2 * 2;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		uint32_t v[8];
		pipe_widen<K>(f.packed[i], v);
		uint4 a = {v[0], v[1], v[2], v[3]}, b = {v[4], v[5], v[6], v[7]};
		*(uint4 *)(w + pipe_at(row + 128 * i, chunk)) = a;
		*(uint4 *)(w + pipe_at(row + 128 * i, chunk + 1)) = b;
	}
}

template <int TOKENS, enum pipe_kind K>
static __device__ __forceinline__ void
pipe_prepare(struct pipe_feed<TOKENS, K> &f, const unsigned char *const *x,
			 const struct cuda_view &m, const struct placed &at, int first)
{
	int thread = threadIdx.x;
#pragma unroll
	for (int i = 0; i < TOKENS / 64; i++)
		f.tokens[i] = x[thread / 4 + 64 * i];
#pragma unroll
	for (int i = 0; i < PIPE_ROWS / 64; i++) {
		int row = first + thread / 4 + 64 * i;
		f.rows[i] = pipe_of<K>::unpacks || row >= m.n_rows
						? NULL
						: (const unsigned char *)at.data +
							  stored_row(m, row) * m.stride * (K == PIPE_FP8 ? 1 : 2);
	}
#pragma unroll
	for (int i = 0; i < 2; i++) {
		int row = first + thread / 2 + 128 * i;
		f.stored[i] = pipe_of<K>::unpacks && row < m.n_rows ? stored_row(m, row) * m.stride : -1;
	}
	f.ahead = f.unpacked = pipe_begin(m);
}

/* sums = W x without the tensor's scale, for the kept rows first.. and n_tokens of x: their rows in
 * device memory, TOKENS pointers in shared memory behind a barrier, NULL beyond. */
template <int TOKENS, enum pipe_kind K>
static __device__ __forceinline__ void
pipe_product(unsigned char *memory, const unsigned char *const *x, int n_tokens,
			 const struct cuda_view &m, const struct placed &at, int first, float *sums)
{
	int n_steps = pipe_steps(m, pipe_of<K>::depth);
	int n_blocks = (n_tokens - pipe_first_token<TOKENS>() + 15) / 16;
	struct pipe_feed<TOKENS, K> feed;
	if (first + pipe_first_row<TOKENS>() >= m.n_rows)
		n_blocks = 0;
	feed.memory = memory;
	pipe_prepare<TOKENS, K>(feed, x, m, at, first);
#pragma unroll
	for (int i = 0; i < pipe_share<TOKENS>::sums; i++)
		sums[i] = 0;
	for (int i = 0; i < PIPE_STAGES - 1; i++)
		pipe_start(feed, m, i);
	if (pipe_of<K>::unpacks) {
		pipe_fetch(feed, m, at);
		pipe_put(feed, 0);
		pipe_fetch(feed, m, at);
	}
	for (int step = 0; step < n_steps; step++) {
		const unsigned char *stage = memory + step % PIPE_STAGES * PIPE_STAGE_BYTES;
		copy_wait<PIPE_STAGES - 2>();
		__syncthreads(); // the step is here, and nobody reads the one before any more
		pipe_start(feed, m, step + PIPE_STAGES - 1);
		if (pipe_of<K>::unpacks) {
			pipe_put(feed, step + 1);
			pipe_fetch(feed, m, at);
		}
		if (n_blocks > 0)
			pipe_multiply<TOKENS, K == PIPE_FP8>(stage, stage + PIPE_TOKENS * PIPE_STEP, n_blocks,
												 sums);
	}
	copy_wait<0>();
}

#endif
