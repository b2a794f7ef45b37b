/*
 * Attention of many tokens on tensor cores (fast math; KV in BF16 or FP8): a block has 128 query
 * rows of a head, a warp 16 of them, and walks the keys that the last of them sees, 64 at a time.
 * Scores, weights and outputs of a row stay in its warp's registers: scores become the weights'
 * half of the next product where they are. K and V come by asynchronous copies a step ahead (FP8:
 * codes, unpacked to BF16 on the way); queries and weights are rounded to BF16, sums are F32.
 *
 * Query heads that share a KV head are blocks next to each other and find K and V in L2. The rows
 * were appended to the cache before.
 */
#include "kernels/cuda_mma.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
}

#define WARPS 8
#define THREADS (WARPS * WARP)
#define QUERIES (WARPS * 16)
#define KEYS 64 // at a time
#define LOG2_E 1.44269504f

/* Rows of DIM values in BF16: chunks of 16 bytes, exchanged by the row's number against bank
 * conflicts. */
template <int DIM> static __device__ __forceinline__ int chunk_at(int row, int chunk)
{
	return (row * (DIM / 8) + (chunk ^ (row & 7))) * 16;
}

/* Keys from.. of a head's K or V, dim values of n rows, 0 beyond. */
template <int DIM>
static __device__ __forceinline__ void load_keys(unsigned char *to, const uint16_t *cache,
												 int64_t stride, int dim, int n)
{
#pragma unroll
	for (int i = 0; i < KEYS * DIM / 8 / THREADS; i++) {
		int at = threadIdx.x + i * THREADS, row = at / (DIM / 8), chunk = at % (DIM / 8);
		copy_async(to + chunk_at<DIM>(row, chunk), cache + row * stride + chunk * 8,
				   row < n && chunk * 8 < dim);
	}
}
template <int DIM>
static __device__ __forceinline__ void load_keys(unsigned char *to, const uint8_t *cache,
												 int64_t stride, int dim, int n)
{
#pragma unroll
	for (int i = 0; i < KEYS * DIM / 8 / THREADS; i++) {
		int at = threadIdx.x + i * THREADS, row = at / (DIM / 8), chunk = at % (DIM / 8);
		uint2 codes = {0, 0};
		uint32_t w[4];
		if (row < n && chunk * 8 < dim)
			codes = *(const uint2 *)(cache + row * stride + chunk * 8);
		unpack_e4m3(codes.x, w);
		unpack_e4m3(codes.y, w + 2);
		uint4 all = {w[0], w[1], w[2], w[3]};
		*(uint4 *)(to + chunk_at<DIM>(row, chunk)) = all;
	}
}

/* A warp's 16 query rows as the left factor, 0 beyond; a lane's rows are g and g + 8. */
template <int DIM>
static __device__ __forceinline__ void load_queries(uint32_t q[DIM / 16][4],
													const struct attention_op &o, int h, int first)
{
#pragma unroll
	for (int k = 0; k < DIM / 16; k++)
#pragma unroll
		for (int i = 0; i < 4; i++) {
			int token = first + mma_row(i % 2 * 2), d = k * 16 + mma_column(0) + i / 2 * 8;
			const float *at = o.q + ((int64_t)token * o.n_heads + h) * o.head_dim + d;
			q[k][i] = token < o.n && d < o.head_dim ? pack_bf16(at[0], at[1]) : 0;
		}
}

/* Online softmax of the warp's 16 x 64 scores (in units of log2): weights in their place, the
 * largest so far and the lane's part of the sum of weights for both of its rows; shrink: by what
 * earlier weights become smaller. */
static __device__ __forceinline__ void soften(float s[KEYS / 8][4], float top[2], float total[2],
											  float shrink[2])
{
#pragma unroll
	for (int r = 0; r < 2; r++) {
		float max = top[r];
#pragma unroll
		for (int j = 0; j < KEYS / 8; j++)
			max = fmaxf(max, fmaxf(s[j][2 * r], s[j][2 * r + 1]));
		max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 1));
		max = fmaxf(max, __shfl_xor_sync(FULL_WARP, max, 2));
		shrink[r] = exp2f(top[r] - max);
		total[r] *= shrink[r];
		top[r] = max;
#pragma unroll
		for (int j = 0; j < KEYS / 8; j++)
#pragma unroll
			for (int e = 2 * r; e < 2 * r + 2; e++) {
				s[j][e] = exp2f(s[j][e] - max);
				total[r] += s[j][e];
			}
	}
}

/* s = q . k of 64 keys. */
template <int DIM>
static __device__ __forceinline__ void
multiply_keys(float s[KEYS / 8][4], const uint32_t q[DIM / 16][4], const unsigned char *k)
{
	int lane = threadIdx.x % WARP;
#pragma unroll
	for (int i = 0; i < KEYS / 8 * 4; i++)
		s[i / 4][i % 4] = 0;
#pragma unroll
	for (int d = 0; d < DIM / 16; d++)
#pragma unroll
		for (int j = 0; j < KEYS / 16; j++) {
			uint32_t b[4];
			load_matrices(
				b, k + chunk_at<DIM>(j * 16 + lane % 8 + lane / 16 * 8, 2 * d + lane / 8 % 2));
			mma_bf16(s[2 * j], q[d], b);
			mma_bf16(s[2 * j + 1], q[d], b + 2);
		}
}

/* y += weights . v of 64 keys; the lane's scores of two neighbouring 16 x 8 are its share of the
 * 16 x 16 that they make as a left factor. */
template <int DIM>
static __device__ __forceinline__ void
multiply_values(float y[DIM / 8][4], const float s[KEYS / 8][4], const unsigned char *v)
{
	int lane = threadIdx.x % WARP;
#pragma unroll
	for (int j = 0; j < KEYS / 16; j++) {
		const uint32_t a[4] = {pack_bf16(s[2 * j][0], s[2 * j][1]),
							   pack_bf16(s[2 * j][2], s[2 * j][3]),
							   pack_bf16(s[2 * j + 1][0], s[2 * j + 1][1]),
							   pack_bf16(s[2 * j + 1][2], s[2 * j + 1][3])};
#pragma unroll
		for (int d = 0; d < DIM / 16; d++) {
			uint32_t b[4];
			load_matrices_turned(b, v + chunk_at<DIM>(j * 16 + lane % 16, 2 * d + lane / 16));
			mma_bf16(y[2 * d], a, b);
			mma_bf16(y[2 * d + 1], a, b + 2);
		}
	}
}

/* What no query row may see yet, and scores in units of log2. */
static __device__ __forceinline__ void mask(float s[KEYS / 8][4], int from, int seen, float scale)
{
#pragma unroll
	for (int i = 0; i < KEYS / 8 * 4; i++) {
		int key = from + i / 4 * 8 + mma_column(i % 4);
		s[i / 4][i % 4] = key < seen + mma_row(i % 4) ? s[i / 4][i % 4] * scale : -INFINITY;
	}
}

/* Block (query rows, head): the last rows, which see most, first. Dynamic shared memory: K and V of
 * two steps. */
template <typename KV, int DIM>
static __global__ void __launch_bounds__(THREADS, 1) flash_pipe_kernel(struct attention_op o)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	const int part = KEYS * DIM * 2; // bytes
	int h = blockIdx.y, first = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES, past = *o.length;
	int warp_first = first + (int)threadIdx.x / WARP * 16, last = first + QUERIES;
	int n_keys = past + (last < o.n ? last : o.n), seen = past + warp_first + 1; // by its first row
	int64_t stride = (int64_t)o.n_kv_heads * o.head_dim;
	const KV *k = (const KV *)o.k_cache + (int64_t)o.kv_head[h] * o.head_dim;
	const KV *v = (const KV *)o.v_cache + (int64_t)o.kv_head[h] * o.head_dim;
	float scale = o.scale * (sizeof(KV) == 1 ? o.k_scale : 1) * LOG2_E;
	uint32_t q[DIM / 16][4];
	float y[DIM / 8][4], s[KEYS / 8][4], top[2] = {-INFINITY, -INFINITY}, total[2] = {0, 0};
	load_queries<DIM>(q, o, h, warp_first);
#pragma unroll
	for (int i = 0; i < DIM / 8 * 4; i++)
		y[i / 4][i % 4] = 0;
	load_keys<DIM>(memory, k, stride, o.head_dim, n_keys);
	load_keys<DIM>(memory + part, v, stride, o.head_dim, n_keys);
	copy_commit();
	for (int from = 0, step = 0; from < n_keys; from += KEYS, step ^= 1) {
		int next = from + KEYS;
		unsigned char *now = memory + step * 2 * part, *then = memory + (step ^ 1) * 2 * part;
		if (next < n_keys) {
			load_keys<DIM>(then, k + next * stride, stride, o.head_dim, n_keys - next);
			load_keys<DIM>(then + part, v + next * stride, stride, o.head_dim, n_keys - next);
		}
		copy_commit();
		copy_wait<1>();
		__syncthreads();
		if (from < seen + 15) {
			float shrink[2];
			multiply_keys<DIM>(s, q, now);
			mask(s, from, seen, scale);
			soften(s, top, total, shrink);
#pragma unroll
			for (int i = 0; i < DIM / 8 * 4; i++)
				y[i / 4][i % 4] *= shrink[i % 4 / 2];
			multiply_values<DIM>(y, s, now + part);
		}
		__syncthreads(); // before the step after next comes here
	}
	copy_wait<0>();
#pragma unroll
	for (int r = 0; r < 2; r++) {
		total[r] += __shfl_xor_sync(FULL_WARP, total[r], 1);
		total[r] += __shfl_xor_sync(FULL_WARP, total[r], 2);
		total[r] = (sizeof(KV) == 1 ? o.v_scale : 1) / total[r];
	}
#pragma unroll
	for (int i = 0; i < DIM / 8 * 4; i++) {
		int token = warp_first + mma_row(i % 4), d = i / 4 * 8 + mma_column(i % 4);
		if (token < o.n && d < o.head_dim)
			o.y[((int64_t)token * o.n_heads + h) * o.head_dim + d] =
				y[i / 4][i % 4] * total[i % 4 / 2];
	}
}

template <typename KV, int DIM>
static void launch(struct device *device, const struct attention_op *o)
{
	const size_t shared = (size_t)4 * KEYS * DIM * 2;
	dim3 grid(blocks_of(o->n, QUERIES), o->n_heads);
	LAUNCH(device, (flash_pipe_kernel<KV, DIM>), grid, THREADS, shared, *o);
}

bool cuda_flash_pipe(struct device *device, const struct attention_op *o)
{
	enum dtype kv = device->options.kv_dtype;
	if (device->options.math != MATH_FAST || o->head_dim % 8 || o->head_dim > 128 ||
		(uintptr_t)o->k_cache % 16 || (uintptr_t)o->v_cache % 16)
		return false;
	if (kv == DTYPE_BF16 && o->head_dim <= 64)
		launch<uint16_t, 64>(device, o);
	else if (kv == DTYPE_BF16)
		launch<uint16_t, 128>(device, o);
	else if (kv == DTYPE_F8_E4M3 && o->head_dim <= 64)
		launch<uint8_t, 64>(device, o);
	else if (kv == DTYPE_F8_E4M3)
		launch<uint8_t, 128>(device, o);
	else
		return false;
	return true;
}
