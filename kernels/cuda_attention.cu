/*
 * Attention over the cache: rows are appended, then blocks divide the cache (split KV), each with
 * all query heads that share a KV head, so that K and V are read once; a last kernel puts the parts
 * together. How the cache is divided does not depend on its length, which lies in device memory: a
 * recorded pass stays right while the sequence grows.
 */
#include "kernels/cuda_cache.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
}

#define HEADS 16 // query heads that share a pass over K and V
#define TILE 32  // rows of the cache at a time
#define THREADS 128
#define MAX_DIM 224 // of a head: its tile fits 48 KB of shared memory
#define CHANNELS 2  // of a head that a thread sums up
#define MAX_SPLITS 64

/* ---- the cache ---- */

template <typename KV> static __global__ void append_kernel(struct attention_op o)
{
	AWAIT_EARLIER();
	int64_t width = (int64_t)o.n_kv_heads * o.head_dim, n = o.n * width, at = *o.length * width;
	int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x;
	if (i >= n)
		return;
	write_kv((KV *)o.k_cache, at + i, o.k[i], o.k_scale);
	write_kv((KV *)o.v_cache, at + i, o.v[i], o.v_scale);
}

static void append(struct device *device, const struct attention_op *o)
{
	unsigned blocks = blocks_of((int64_t)o->n * o->n_kv_heads * o->head_dim, 256);
	if (device->options.kv_dtype == DTYPE_F32)
		LAUNCH(device, append_kernel<float>, blocks, 256, 0, *o);
	else if (device->options.kv_dtype == DTYPE_BF16)
		LAUNCH(device, append_kernel<uint16_t>, blocks, 256, 0, *o);
	else
		LAUNCH(device, append_kernel<uint8_t>, blocks, 256, 0, *o);
}

/* ---- a part of the cache ---- */

/* What a part found, relative to e^max: (token, head, split). */
struct parts {
	float *y;         // (..., head_dim)
	float *max, *sum; // (...)
	int n_splits;
};

/* The heads of a group: those of KV head kv from the (group * HEADS)th on, at most HEADS. */
static __device__ int find_heads(const struct attention_op &o, int kv, int group, int heads[HEADS])
{
	int seen = 0, n = 0;
	for (int h = 0; h < o.n_heads && n < HEADS; h++)
		if (o.kv_head[h] == kv && seen++ >= group * HEADS)
			heads[n++] = h;
	return n;
}

/* Block (split, KV head and group, token). Dynamic shared memory: q (HEADS, head_dim), k (TILE,
 * head_dim + 1). */
template <typename KV>
static __global__ void __launch_bounds__(THREADS)
	attend_kernel(struct attention_op o, struct parts out)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	__shared__ float p[HEADS][TILE], top[HEADS], total[HEADS], shrink[HEADS];
	__shared__ int heads[HEADS], n_heads;
	int dim = o.head_dim, thread = threadIdx.x, kv = blockIdx.y % o.n_kv_heads, t = blockIdx.z;
	float *q = (float *)memory, *k = q + HEADS * dim, unit = sizeof(KV) == 1 ? o.k_scale : 1;
	int64_t stride = (int64_t)o.n_kv_heads * dim;
	const KV *k_cache = (const KV *)o.k_cache + (int64_t)kv * dim;
	const KV *v_cache = (const KV *)o.v_cache + (int64_t)kv * dim;
	int rows = *o.length + t + 1; // that the token sees
	int tiles = (rows + TILE - 1) / TILE, each = (tiles + out.n_splits - 1) / out.n_splits;
	int from = blockIdx.x * each * TILE, to = from + each * TILE;
	to = to < rows ? to : rows;
	if (thread == 0)
		n_heads = find_heads(o, kv, blockIdx.y / o.n_kv_heads, heads);
	if (thread < HEADS) {
		top[thread] = -INFINITY;
		total[thread] = 0;
	}
	__syncthreads();
	if (n_heads == 0)
		return;
	for (int i = thread; i < n_heads * dim; i += THREADS)
		q[i] = o.q[((int64_t)t * o.n_heads + heads[i / dim]) * dim + i % dim] * o.scale * unit;
	float y[HEADS][CHANNELS]; // of the channels thread, thread + THREADS
#pragma unroll
	for (int h = 0; h < HEADS; h++)
#pragma unroll
		for (int d = 0; d < CHANNELS; d++)
			y[h][d] = 0;
	for (int row = from; row < to; row += TILE) {
		int n = to - row < TILE ? to - row : TILE;
		__syncthreads();
		for (int i = thread; i < n * dim; i += THREADS)
			k[i / dim * (dim + 1) + i % dim] = read_kv(k_cache, (row + i / dim) * stride + i % dim);
		__syncthreads();
		for (int i = thread; i < n_heads * TILE; i += THREADS) { // a lane a row
			float s = -INFINITY;
			if (i % TILE < n) {
				const float *a = q + i / TILE * dim, *b = k + i % TILE * (dim + 1);
				s = 0;
				for (int d = 0; d < dim; d++)
					s += a[d] * b[d];
			}
			float max = warp_max(s), before = top[i / TILE];
			max = max > before ? max : before;
			float e = i % TILE < n ? expf(s - max) : 0, sum = warp_sum(e);
			p[i / TILE][i % TILE] = e;
			if (i % TILE == 0) {
				float less = expf(before - max);
				shrink[i / TILE] = less;
				total[i / TILE] = total[i / TILE] * less + sum;
				top[i / TILE] = max;
			}
		}
		__syncthreads();
#pragma unroll
		for (int h = 0; h < HEADS; h++)
#pragma unroll
			for (int d = 0; d < CHANNELS; d++)
				y[h][d] *= h < n_heads ? shrink[h] : 0;
#pragma unroll
		for (int d = 0; d < CHANNELS; d++) {
			int channel = thread + d * THREADS;
			for (int j = 0; j < n && channel < dim; j++) {
				float v = read_kv(v_cache, (row + j) * stride + channel);
#pragma unroll
				for (int h = 0; h < HEADS; h++)
					y[h][d] += (h < n_heads ? p[h][j] : 0) * v;
			}
		}
	}
	__syncthreads();
#pragma unroll
	for (int h = 0; h < HEADS; h++) {
		if (h >= n_heads)
			break;
		int64_t at = ((int64_t)t * o.n_heads + heads[h]) * out.n_splits + blockIdx.x;
#pragma unroll
		for (int d = 0; d < CHANNELS; d++)
			if (thread + d * THREADS < dim)
				out.y[at * dim + thread + d * THREADS] = y[h][d];
		if (thread == 0) {
			out.max[at] = top[h];
			out.sum[at] = total[h];
		}
	}
}

/* ---- all parts ---- */

/* Block (head, token). The last thing to read the length also moves it on. */
static __global__ void combine_kernel(struct attention_op o, struct parts in, float unit)
{
	AWAIT_EARLIER();
	int64_t at = ((int64_t)blockIdx.y * o.n_heads + blockIdx.x) * in.n_splits;
	float max = -INFINITY, sum = 0;
	for (int s = 0; s < in.n_splits; s++)
		max = in.max[at + s] > max ? in.max[at + s] : max;
	for (int s = 0; s < in.n_splits; s++)
		sum += in.sum[at + s] * expf(in.max[at + s] - max);
	for (int d = threadIdx.x; d < o.head_dim; d += blockDim.x) {
		float y = 0;
		for (int s = 0; s < in.n_splits; s++)
			y += in.y[(at + s) * o.head_dim + d] * expf(in.max[at + s] - max);
		o.y[((int64_t)blockIdx.y * o.n_heads + blockIdx.x) * o.head_dim + d] = y / sum * unit;
	}
	if (blockIdx.x == 0 && blockIdx.y == 0 && threadIdx.x == 0)
		*o.length += o.n;
}

/* Enough blocks for the card, a constant of the shapes. */
static int splits_of(const struct device *device, const struct attention_op *o)
{
	int splits = 2 * device->n_sms / (o->n_kv_heads * o->n);
	return splits < 1 ? 1 : splits > MAX_SPLITS ? MAX_SPLITS : splits;
}

template <typename KV>
static void attend(struct device *device, const struct attention_op *o, struct parts parts)
{
	int groups = (o->n_heads + HEADS - 1) / HEADS; // at most so many of one KV head
	size_t shared =
		((size_t)HEADS * o->head_dim + (size_t)TILE * (o->head_dim + 1)) * sizeof(float);
	LAUNCH(device, attend_kernel<KV>, dim3(parts.n_splits, o->n_kv_heads * groups, o->n), THREADS,
		   shared, *o, parts);
	LAUNCH(device, combine_kernel, dim3(o->n_heads, o->n), 128, 0, *o, parts,
		   sizeof(KV) == 1 ? o->v_scale : 1.0f);
}

extern "C" void cuda_attention(struct device *device, int n_lanes, const struct attention_op *op)
{
	for (const struct attention_op *o = op; o < op + n_lanes && !device->failed; o++) {
		if (o->head_dim > MAX_DIM) {
			fail(cuda_failure(device), "heads of %d channels, expected at most %d", o->head_dim,
				 MAX_DIM);
			return;
		}
		append(device, o);
		if (cuda_flash(device, o))
			continue;
		struct parts parts = {NULL, NULL, NULL, splits_of(device, o)};
		size_t n = (size_t)o->n * o->n_heads * parts.n_splits;
		parts.y = (float *)cuda_scratch(device, CUDA_SCRATCH_ATTENTION,
										n * ((size_t)o->head_dim + 2), sizeof(float));
		if (!parts.y)
			return;
		parts.max = parts.y + n * o->head_dim;
		parts.sum = parts.max + n;
		if (device->options.kv_dtype == DTYPE_F32)
			attend<float>(device, o, parts);
		else if (device->options.kv_dtype == DTYPE_BF16)
			attend<uint16_t>(device, o, parts);
		else
			attend<uint8_t>(device, o, parts);
	}
}
