/*
 * Mamba-2's recurrence over many tokens, in chunks (state-space duality). Inside a chunk of Q
 * tokens, with c_i = sum of d_k a over k <= i (so all exponents are <= 0):
 *
 *   M[i,j] = j <= i ? (C_i . B_j) exp(c_i - c_j) d_j : 0
 *   y_i    = sum_j M[i,j] x_j + exp(c_i) S C_i + D x_i
 *   S      = exp(c_last) S + sum_j exp(c_last - c_j) d_j x_j B_j^T
 *
 * which are four matrix products. A block has 32 channels of a head and walks the chunks in order;
 * their state stays in shared memory, in F32. Q is a warp: C . B is computed again by every block
 * of a head's group, and the work of a token grows with Q, so that longer chunks would not pay.
 */
#include "kernels/cuda_mma.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
}

#define CHUNK WARP     // Q
#define CHANNELS 32    // of a head that a block has
#define MAX_STATES 128 // a channel; twice as many would not fit the shared memory of every card
#define THREADS 256

/* Rows in shared memory are 4 longer than what they hold, against bank conflicts. */
#define SHORT (CHUNK + 4)

/* F32 in dynamic shared memory; states: state_size up to a multiple of 16, beyond which all is 0.
 */
struct chunk {
	float *b, *c;   // (CHUNK, states)
	float *state;   // (CHANNELS, states)
	float *x;       // (CHUNK, CHANNELS)
	float *m;       // (CHUNK, CHUNK)
	float *d, *sum; // (CHUNK): step sizes, and c_i
	int states, stride;
};

static __host__ __device__ __forceinline__ int states_of(const struct ssm_op &o)
{
	return (o.state_size + 15) / 16 * 16;
}

static __device__ struct chunk chunk_in(unsigned char *memory, const struct ssm_op &o)
{
	struct chunk k;
	k.states = states_of(o);
	k.stride = k.states + 4;
	k.b = (float *)memory;
	k.c = k.b + CHUNK * k.stride;
	k.state = k.c + CHUNK * k.stride;
	k.x = k.state + CHANNELS * k.stride;
	k.m = k.x + CHUNK * SHORT;
	k.d = k.m + CHUNK * SHORT;
	k.sum = k.d + CHUNK;
	return k;
}

static size_t chunk_bytes(const struct ssm_op &o)
{
	return ((2 * CHUNK + CHANNELS) * (size_t)(states_of(o) + 4) + 2 * CHUNK * SHORT + 2 * CHUNK) *
		   sizeof(float);
}

/* Tokens t0..t0+n-1 of head h, channels p0..; 0 beyond. The first warp makes d and its sums. */
static __device__ void load_chunk(const struct chunk &k, const struct ssm_op &o, int h, int p0,
								  int t0, int n)
{
	int inner = o.n_heads * o.head_dim, thread = threadIdx.x;
	int64_t stride = inner + 2 * (int64_t)o.n_groups * o.state_size;
	const float *first = o.xbc + t0 * stride;
	const float *b = first + inner + (int64_t)o.head_group[h] * o.state_size;
	const float *c = b + (int64_t)o.n_groups * o.state_size;
	for (int i = thread; i < CHUNK * k.states; i += THREADS) {
		int t = i / k.states, j = i % k.states;
		bool in = t < n && j < o.state_size;
		k.b[t * k.stride + j] = in ? b[t * stride + j] : 0;
		k.c[t * k.stride + j] = in ? c[t * stride + j] : 0;
	}
	for (int i = thread; i < CHUNK * CHANNELS; i += THREADS) {
		int t = i / CHANNELS, p = i % CHANNELS;
		k.x[t * SHORT + p] =
			t < n && p0 + p < o.head_dim ? first[t * stride + (int64_t)h * o.head_dim + p0 + p] : 0;
	}
	if (thread >= WARP)
		return;
	float v = thread < n ? o.dt[(t0 + thread) * o.dt_stride + h] + o.dt_bias[h] : 0;
	float d = thread < n ? (v > 20 ? v : log1pf(expf(v))) : 0, sum = d * o.a[h]; // softplus
	for (int back = 1; back < WARP; back *= 2) {
		float before = __shfl_sync(FULL_WARP, sum, thread >= back ? thread - back : thread);
		sum += thread >= back ? before : 0;
	}
	k.d[thread] = d;
	k.sum[thread] = sum;
}

/* M: warps take 16 x 8 of it in turn. */
template <bool NARROW> static __device__ void multiply_scores(const struct chunk &k)
{
	struct factor c = {k.c, k.stride, 1}, b = {k.b, k.stride, 1};
	for (int at = threadIdx.x / WARP; at < CHUNK / 16 * (CHUNK / 8); at += THREADS / WARP) {
		int row = at / (CHUNK / 8) * 16, column = at % (CHUNK / 8) * 8;
		float sums[4] = {0, 0, 0, 0};
		if (column < row + 16)
			multiply_16x8<NARROW>(sums, c, row, b, column, k.states);
#pragma unroll
		for (int e = 0; e < 4; e++) {
			int i = row + mma_row(e), j = column + mma_column(e);
			k.m[i * SHORT + j] = j <= i ? sums[e] * expf(k.sum[i] - k.sum[j]) * k.d[j] : 0;
		}
	}
}

/* y of the chunk's tokens, which n of them are. */
template <bool NARROW>
static __device__ void multiply_outputs(const struct chunk &k, const struct ssm_op &o, int h,
										int p0, float *y, int n)
{
	struct factor c = {k.c, k.stride, 1}, s = {k.state, k.stride, 1};
	struct factor m = {k.m, SHORT, 1}, x = {k.x, 1, SHORT};
	int64_t inner = (int64_t)o.n_heads * o.head_dim;
	for (int at = threadIdx.x / WARP; at < CHUNK / 16 * (CHANNELS / 8); at += THREADS / WARP) {
		int row = at / (CHANNELS / 8) * 16, column = at % (CHANNELS / 8) * 8;
		float sums[4] = {0, 0, 0, 0};
		multiply_16x8<NARROW>(sums, c, row, s, column, k.states);
#pragma unroll
		for (int e = 0; e < 4; e++)
			sums[e] *= expf(k.sum[row + mma_row(e)]);
		multiply_16x8<NARROW>(sums, m, row, x, column, CHUNK);
#pragma unroll
		for (int e = 0; e < 4; e++) {
			int t = row + mma_row(e), p = column + mma_column(e);
			if (t < n && p0 + p < o.head_dim)
				y[t * inner + (int64_t)h * o.head_dim + p0 + p] =
					sums[e] + o.d[h] * k.x[t * SHORT + p];
		}
	}
}

/* The state behind the chunk; x was multiplied with exp(c_last - c_j) d_j. */
template <bool NARROW> static __device__ void multiply_state(const struct chunk &k)
{
	struct factor x = {k.x, 1, SHORT}, b = {k.b, 1, k.stride};
	float decay = expf(k.sum[CHUNK - 1]);
	int columns = k.states / 8;
	for (int at = threadIdx.x / WARP; at < CHANNELS / 16 * columns; at += THREADS / WARP) {
		int row = at / columns * 16, column = at % columns * 8;
		float sums[4];
#pragma unroll
		for (int e = 0; e < 4; e++)
			sums[e] = decay * k.state[(row + mma_row(e)) * k.stride + column + mma_column(e)];
		multiply_16x8<NARROW>(sums, x, row, b, column, CHUNK);
#pragma unroll
		for (int e = 0; e < 4; e++)
			k.state[(row + mma_row(e)) * k.stride + column + mma_column(e)] = sums[e];
	}
}

/* Block (channels, head). */
template <bool NARROW>
static __global__ void __launch_bounds__(THREADS) chunked_kernel(struct ssm_op o)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	struct chunk k = chunk_in(memory, o);
	int h = blockIdx.y, p0 = blockIdx.x * CHANNELS;
	int n_channels = o.head_dim - p0 < CHANNELS ? o.head_dim - p0 : CHANNELS;
	const int32_t *rows = o.state_row + (int64_t)h * o.head_dim + p0;
	for (int i = threadIdx.x; i < CHANNELS * k.states; i += THREADS) {
		int p = i / k.states, j = i % k.states;
		k.state[p * k.stride + j] =
			p < n_channels && j < o.state_size ? o.state[(int64_t)rows[p] * o.state_size + j] : 0;
	}
	for (int t0 = 0; t0 < o.n; t0 += CHUNK) {
		int n = o.n - t0 < CHUNK ? o.n - t0 : CHUNK;
		load_chunk(k, o, h, p0, t0, n);
		__syncthreads();
		multiply_scores<NARROW>(k);
		__syncthreads();
		multiply_outputs<NARROW>(k, o, h, p0, o.y + (int64_t)t0 * o.n_heads * o.head_dim, n);
		__syncthreads();
		for (int i = threadIdx.x; i < CHUNK * CHANNELS; i += THREADS) {
			int t = i / CHANNELS;
			k.x[t * SHORT + i % CHANNELS] *= expf(k.sum[CHUNK - 1] - k.sum[t]) * k.d[t];
		}
		__syncthreads();
		multiply_state<NARROW>(k);
		__syncthreads();
	}
	for (int i = threadIdx.x; i < n_channels * o.state_size; i += THREADS) {
		int p = i / o.state_size, j = i % o.state_size;
		o.state[(int64_t)rows[p] * o.state_size + j] = k.state[p * k.stride + j];
	}
}

bool cuda_chunked(struct device *device, const struct ssm_op *o)
{
	size_t shared = chunk_bytes(*o);
	dim3 grid(blocks_of(o->head_dim, CHANNELS), o->n_heads);
	if (o->n < CUDA_PREFILL_TOKENS || o->state_size > MAX_STATES)
		return false;
	if (device->options.math == MATH_FAST) {
		LAUNCH(device, chunked_kernel<true>, grid, THREADS, shared, *o);
	} else {
		LAUNCH(device, chunked_kernel<false>, grid, THREADS, shared, *o);
	}
	return true;
}
