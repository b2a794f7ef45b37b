/*
 * Attention of many tokens in F32 (fast math has another, cuda_flash_pipe.cu): a block has 64 query
 * rows of a head and walks the keys that the last of them sees, 32 at a time, with the softmax
 * online. Query heads that share a KV head are blocks next to each other and find K and V in L2.
 * The rows are appended to the cache before.
 */
#include "kernels/cuda_cache.cuh"
#include "kernels/cuda_mma.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
}

#define QUERIES 64
#define KEYS WARP   // at a time
#define MAX_DIM 128 // of a head; more would not fit the shared memory of every card
#define THREADS 256
#define WARPS (THREADS / WARP)
#define WARP_TILES (QUERIES / 16 * (MAX_DIM / 8) / WARPS) // 16 x 8 of the outputs a warp

/* Rows in shared memory are 4 longer than what they hold, against bank conflicts. */
#define SCORES (KEYS + 4)

/* F32 in dynamic shared memory; width: head_dim up to a multiple of 16, beyond which all is 0. */
struct flash {
	float *q;                    // (QUERIES, width), scaled
	float *k, *v;                // (KEYS, width)
	float *p;                    // (QUERIES, KEYS)
	float *top, *total, *shrink; // (QUERIES)
	int width, stride;
};

static __host__ __device__ __forceinline__ int width_of(int head_dim)
{
	return (head_dim + 15) / 16 * 16;
}

static __device__ struct flash flash_in(unsigned char *memory, int head_dim)
{
	struct flash f;
	f.width = width_of(head_dim);
	f.stride = f.width + 4;
	f.q = (float *)memory;
	f.k = f.q + QUERIES * f.stride;
	f.v = f.k + KEYS * f.stride;
	f.p = f.v + KEYS * f.stride;
	f.top = f.p + QUERIES * SCORES;
	f.total = f.top + QUERIES;
	f.shrink = f.total + QUERIES;
	return f;
}

static size_t flash_bytes(int head_dim)
{
	return ((QUERIES + 2 * KEYS) * (size_t)(width_of(head_dim) + 4) + QUERIES * SCORES +
			3 * QUERIES) *
		   sizeof(float);
}

/* n rows of the cache; 0 beyond, also where a row ends. */
template <typename KV>
static __device__ void load_rows(const struct flash &f, float *to, const KV *cache, int64_t stride,
								 int head_dim, int n)
{
	for (int i = threadIdx.x; i < KEYS * f.width; i += THREADS) {
		int row = i / f.width, d = i % f.width;
		to[row * f.stride + d] = row < n && d < head_dim ? read_kv(cache, row * stride + d) : 0;
	}
}

/* p = q . k */
static __device__ void multiply_scores(const struct flash &f)
{
	struct factor q = {f.q, f.stride, 1}, k = {f.k, f.stride, 1};
	for (int at = threadIdx.x / WARP; at < QUERIES / 16 * (KEYS / 8); at += WARPS) {
		int row = at / (KEYS / 8) * 16, column = at % (KEYS / 8) * 8;
		float sums[4] = {0, 0, 0, 0};
		multiply_16x8<false>(sums, q, row, k, column, f.width);
#pragma unroll
		for (int e = 0; e < 4; e++)
			f.p[(row + mma_row(e)) * SCORES + column + mma_column(e)] = sums[e];
	}
}

/* Scores become weights, a warp a row and a lane a key. Query row i sees `seen` + i of the keys. */
static __device__ void soften(const struct flash &f, int seen)
{
	int lane = threadIdx.x % WARP;
	for (int row = threadIdx.x / WARP; row < QUERIES; row += WARPS) {
		bool sees = lane < seen + row;
		float s = sees ? f.p[row * SCORES + lane] : -INFINITY, before = f.top[row];
		float max = warp_max(s);
		max = max > before ? max : before;
		float e = sees ? expf(s - max) : 0, sum = warp_sum(e);
		f.p[row * SCORES + lane] = e;
		__syncwarp();
		if (lane == 0) {
			float less = before == max ? 1 : expf(before - max);
			f.shrink[row] = less;
			f.total[row] = f.total[row] * less + sum;
			f.top[row] = max;
		}
	}
}

/* A warp's i-th 16 x 8 of the outputs stands here; warps divide them 4 x 2. */
static __device__ __forceinline__ int output_row(void)
{
	return threadIdx.x / WARP / 2 * 16;
}

static __device__ __forceinline__ int output_column(int i)
{
	return (i * 2 + (int)threadIdx.x / WARP % 2) * 8;
}

/* Block (query rows, head): the last rows, which see most, first. */
template <typename KV>
static __global__ void __launch_bounds__(THREADS) flash_kernel(struct attention_op o)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	struct flash f = flash_in(memory, o.head_dim);
	int dim = o.head_dim, h = blockIdx.y, first = (int)(gridDim.x - 1 - blockIdx.x) * QUERIES;
	int n = o.n - first < QUERIES ? o.n - first : QUERIES, seen = *o.length + first + 1;
	int64_t stride = (int64_t)o.n_kv_heads * dim, head = (int64_t)o.kv_head[h] * dim;
	float scale = o.scale * (sizeof(KV) == 1 ? o.k_scale : 1);
	float y[WARP_TILES][4];
	for (int i = threadIdx.x; i < QUERIES * f.width; i += THREADS) {
		int row = i / f.width, d = i % f.width;
		f.q[row * f.stride + d] =
			row < n && d < dim ? o.q[((int64_t)(first + row) * o.n_heads + h) * dim + d] * scale
							   : 0;
	}
	if (threadIdx.x < QUERIES) {
		f.top[threadIdx.x] = -INFINITY;
		f.total[threadIdx.x] = 0;
	}
#pragma unroll
	for (int i = 0; i < WARP_TILES * 4; i++)
		y[i / 4][i % 4] = 0;
	for (int from = 0; from < seen + n - 1; from += KEYS) {
		int n_keys = seen + n - 1 - from < KEYS ? seen + n - 1 - from : KEYS;
		int64_t at = from * stride + head;
		__syncthreads();
		load_rows<KV>(f, f.k, (const KV *)o.k_cache + at, stride, dim, n_keys);
		load_rows<KV>(f, f.v, (const KV *)o.v_cache + at, stride, dim, n_keys);
		__syncthreads();
		multiply_scores(f);
		__syncthreads();
		soften(f, seen - from);
		__syncthreads();
		struct factor p = {f.p, SCORES, 1}, v = {f.v, 1, f.stride};
#pragma unroll
		for (int i = 0; i < WARP_TILES; i++) {
			if (output_column(i) >= f.width)
				break;
#pragma unroll
			for (int e = 0; e < 4; e++)
				y[i][e] *= f.shrink[output_row() + mma_row(e)];
			multiply_16x8<false>(y[i], p, output_row(), v, output_column(i), KEYS);
		}
	}
	float unit = sizeof(KV) == 1 ? o.v_scale : 1;
#pragma unroll
	for (int i = 0; i < WARP_TILES * 4; i++) {
		int row = output_row() + mma_row(i % 4), d = output_column(i / 4) + mma_column(i % 4);
		if (row < n && d < dim)
			o.y[((int64_t)(first + row) * o.n_heads + h) * dim + d] =
				y[i / 4][i % 4] / f.total[row] * unit;
	}
}

/* After the last read of the length. */
static __global__ void advance_kernel(int32_t *length, int n)
{
	AWAIT_EARLIER();
	*length += n;
}

template <typename KV> static void launch(struct device *device, const struct attention_op *o)
{
	dim3 grid(blocks_of(o->n, QUERIES), o->n_heads);
	size_t shared = flash_bytes(o->head_dim);
	LAUNCH(device, flash_kernel<KV>, grid, THREADS, shared, *o);
}

bool cuda_flash(struct device *device, const struct attention_op *o)
{
	if (o->n < CUDA_PREFILL_TOKENS || o->head_dim > MAX_DIM)
		return false;
	cuda_append(device, o);
	if (cuda_flash_pipe(device, o))
		;
	else if (device->options.kv_dtype == DTYPE_F32)
		launch<float>(device, o);
	else if (device->options.kv_dtype == DTYPE_BF16)
		launch<uint16_t>(device, o);
	else
		launch<uint8_t>(device, o);
	LAUNCH(device, advance_kernel, 1, 1, 0, o->length, o->n);
	return true;
}
