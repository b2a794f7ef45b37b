/*
 * Mamba-2: the convolution, a thread a channel and chunk of tokens, and the recurrence, whose
 * states stay in registers while the tokens pass, a warp a state row; and of a few tokens both in
 * one kernel that reads and writes the state once, at the memory's speed. The sums have the same
 * order everywhere, so that results are the same bits.
 */
#include "kernels/cuda_kernel.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
}

#define CONV_MAX_KERNEL 16
#define CONV_TOKENS 64 // a thread's; at least CONV_MAX_KERNEL: only the first chunk sees the state
#define CONV_THREADS 128
#define SSM_MAX_STATES 256
#define SSM_WARPS 4

/* ---- the convolution ---- */

/* y[t, c]. */
static __device__ __forceinline__ float convolve(const struct conv_op &o, int c, int t)
{
	int past = o.kernel - 1;
	const float *state = o.state + o.channel[c], *weight = o.weight + (int64_t)c * o.kernel;
	float sum = o.bias[c];
#pragma unroll 4
	for (int k = 0; k < o.kernel; k++) {
		int row = t - past + k; // of x; before it lies the state
		float x =
			row < 0 ? state[(int64_t)(past + row) * o.state_channels] : o.x[row * o.x_stride + c];
		sum = fmaf(weight[k], x, sum);
	}
	return sum / (1 + expf(-sum));
}

/* The last inputs of channel c become its state; once, when everybody has read it. */
static __device__ __forceinline__ void shift(const struct conv_op &o, int c)
{
	int past = o.kernel - 1;
	float *state = o.state + o.channel[c], rows[4];
	for (int from = 0; from < past;
		 from += 4) { // ascending: what is read lies behind what is written
#pragma unroll
		for (int k = 0; k < 4; k++) {
			int row = o.n - past + from + k;
			if (from + k < past)
				rows[k] = row < 0 ? state[(int64_t)(past + row) * o.state_channels]
								  : o.x[row * o.x_stride + c];
		}
#pragma unroll
		for (int k = 0; k < 4; k++)
			if (from + k < past)
				state[(int64_t)(from + k) * o.state_channels] = rows[k];
	}
}

/* Block (channels, tokens, lane). */
static __global__ void __launch_bounds__(CONV_THREADS)
	conv_kernel(const __grid_constant__ struct lanes<conv_op> lanes)
{
	AWAIT_EARLIER();
	const struct conv_op &o = lanes.at[blockIdx.z];
	int c = blockIdx.x * CONV_THREADS + threadIdx.x, from = blockIdx.y * CONV_TOKENS;
	int to = from + CONV_TOKENS < o.n ? from + CONV_TOKENS : o.n;
	if (c >= o.channels)
		return;
	for (int t = from; t < to; t++)
		o.y[(int64_t)t * o.channels + c] = convolve(o, c, t);
	if (from == 0)
		shift(o, c);
}

static bool conv_fits(struct device *device, int n_lanes, const struct conv_op *op)
{
	for (const struct conv_op *o = op; o < op + n_lanes; o++) {
		if (o->kernel >= 1 && o->kernel <= CONV_MAX_KERNEL)
			continue;
		fail(cuda_failure(device), "convolution over %d inputs, expected 1 to %d", o->kernel,
			 CONV_MAX_KERNEL);
		return false;
	}
	return true;
}

extern "C" void cuda_conv(struct device *device, int n_lanes, const struct conv_op *op)
{
	struct lanes<conv_op> lanes;
	if (device->failed || !conv_fits(device, n_lanes, op))
		return;
	for (int n; n_lanes > 0; op += n, n_lanes -= n) {
		int channels = 0;
		n = take_lanes(lanes, op, n_lanes);
		for (int l = 0; l < n; l++)
			channels = op[l].channels > channels ? op[l].channels : channels;
		dim3 grid(blocks_of(channels, CONV_THREADS), blocks_of(most_rows(lanes, n), CONV_TOKENS),
				  n);
		LAUNCH(device, conv_kernel, grid, CONV_THREADS, 0, lanes);
	}
}

/* ---- the recurrence ---- */

/* A lane of a warp has 4 S values of a row, those from 4 (lane + 32 i) on; 0 beyond its end. */
template <int S>
static __device__ __forceinline__ void load_row(float s[S][4], const float *row, int n)
{
	bool wide = n % 4 == 0 && (uintptr_t)row % 16 == 0;
#pragma unroll
	for (int i = 0; i < S; i++) {
		int j = 4 * ((int)threadIdx.x % WARP + WARP * i);
		if (wide && j < n) {
			float4 v = *(const float4 *)(row + j);
			s[i][0] = v.x;
			s[i][1] = v.y;
			s[i][2] = v.z;
			s[i][3] = v.w;
			continue;
		}
#pragma unroll
		for (int e = 0; e < 4; e++)
			s[i][e] = j + e < n ? row[j + e] : 0;
	}
}

template <int S>
static __device__ __forceinline__ void store_row(const float s[S][4], float *row, int n)
{
	bool wide = n % 4 == 0 && (uintptr_t)row % 16 == 0;
#pragma unroll
	for (int i = 0; i < S; i++) {
		int j = 4 * ((int)threadIdx.x % WARP + WARP * i);
		if (wide && j < n)
			*(float4 *)(row + j) = make_float4(s[i][0], s[i][1], s[i][2], s[i][3]);
#pragma unroll
		for (int e = 0; e < 4; e++)
			if (!wide && j + e < n)
				row[j + e] = s[i][e];
	}
}

struct rate {
	float d, decay; // softplus(dt), exp(d a)
};

static __device__ __forceinline__ struct rate rate_of(const struct ssm_op &o, int h, int t)
{
	float v = o.dt[t * o.dt_stride + h] + o.dt_bias[h];
	float d = v > 20 ? v : log1pf(expf(v));
	struct rate rate = {d, expf(d * o.a[h])};
	return rate;
}

/* A token passes: the row's new values, and y of its channel, which every lane gets. */
template <int S>
static __device__ __forceinline__ float
step(float s[S][4], const float b[S][4], const float c[S][4], struct rate rate, float x, float skip)
{
	float input = rate.d * x, sum = 0;
#pragma unroll
	for (int i = 0; i < S; i++)
#pragma unroll
		for (int e = 0; e < 4; e++) {
			s[i][e] = fmaf(rate.decay, s[i][e], input * b[i][e]);
			sum = fmaf(s[i][e], c[i][e], sum);
		}
	return fmaf(skip, x, warp_sum(sum));
}

/* Block (rows, lane), a warp a row (head h, channel p). */
template <int S>
static __global__ void __launch_bounds__(SSM_WARPS *WARP)
	ssm_kernel(const __grid_constant__ struct lanes<ssm_op> lanes)
{
	AWAIT_EARLIER();
	const struct ssm_op &o = lanes.at[blockIdx.y];
	int i = blockIdx.x * SSM_WARPS + threadIdx.x / WARP, inner = o.n_heads * o.head_dim;
	int64_t stride = inner + 2 * (int64_t)o.n_groups * o.state_size;
	if (i >= inner)
		return;
	int h = i / o.head_dim;
	float *state = o.state + (int64_t)o.state_row[i] * o.state_size, s[S][4], b[S][4], c[S][4];
	load_row<S>(s, state, o.state_size);
	for (int t = 0; t < o.n; t++) {
		const float *x = o.xbc + t * stride;
		const float *row = x + inner + (int64_t)o.head_group[h] * o.state_size;
		load_row<S>(b, row, o.state_size);
		load_row<S>(c, row + (int64_t)o.n_groups * o.state_size, o.state_size);
		float y = step<S>(s, b, c, rate_of(o, h, t), x[i], o.d[h]);
		if (threadIdx.x % WARP == 0)
			o.y[(int64_t)t * inner + i] = y;
	}
	store_row<S>(s, state, o.state_size);
}

static bool ssm_fits(struct device *device, int n_lanes, const struct ssm_op *op)
{
	for (const struct ssm_op *o = op; o < op + n_lanes; o++) {
		if (o->state_size <= SSM_MAX_STATES)
			continue;
		fail(cuda_failure(device), "a state of %d values a channel, expected at most %d",
			 o->state_size, SSM_MAX_STATES);
		return false;
	}
	return true;
}

/* Of lanes that stand side by side and are not for the prefill kernel. */
static void start_ssm(struct device *device, int n_lanes, const struct ssm_op *op)
{
	struct lanes<ssm_op> lanes;
	for (int n; n_lanes > 0; op += n, n_lanes -= n) {
		int rows = 0, states = 0;
		n = take_lanes(lanes, op, n_lanes);
		for (int l = 0; l < n; l++) {
			rows = op[l].n_heads * op[l].head_dim > rows ? op[l].n_heads * op[l].head_dim : rows;
			states = op[l].state_size > states ? op[l].state_size : states;
		}
		dim3 grid(blocks_of(rows, SSM_WARPS), n);
		if (states > 128)
			LAUNCH(device, ssm_kernel<2>, grid, SSM_WARPS * WARP, 0, lanes);
		else
			LAUNCH(device, ssm_kernel<1>, grid, SSM_WARPS * WARP, 0, lanes);
	}
}

extern "C" void cuda_ssm(struct device *device, int n_lanes, const struct ssm_op *op)
{
	int first = 0;
	if (device->failed || !ssm_fits(device, n_lanes, op))
		return;
	for (int l = 0; l < n_lanes; l++)
		if (cuda_chunked(device, &op[l])) {
			start_ssm(device, l - first, op + first);
			first = l + 1;
		}
	start_ssm(device, n_lanes - first, op + first);
}

/* ---- both ---- */

#define BOTH_ROWS 4  // state rows of a warp, whose loads are in flight together
#define BOTH_WARPS 8 // that have rows; one more makes as many threads as channels, and keeps house
#define BLOCK_ROWS (BOTH_ROWS * BOTH_WARPS)
#define BOTH_THREADS ((BOTH_WARPS + 1) * WARP)

struct both {
	struct conv_op conv;
	struct ssm_op ssm;
};

#define BOTH_LANES 22 // of a launch

/* A token in shared memory: what a block needs of the convolution, and the head's rate. */
template <int S> struct token {
	float x[BLOCK_ROWS], b[128 * S], c[128 * S];
	struct rate rate;
	float padding[2]; // b and c stay aligned
};

/* Value j of a token, which the block at head h and its channels from p0 on reads. */
template <int S>
static __device__ __forceinline__ float token_value(const struct both &o, int h, int p0, int t,
													int j)
{
	int size = o.ssm.state_size, i = j - BLOCK_ROWS, inner = o.ssm.n_heads * o.ssm.head_dim;
	if (j < BLOCK_ROWS)
		return p0 + j < o.ssm.head_dim ? convolve(o.conv, h * o.ssm.head_dim + p0 + j, t) : 0;
	int first = inner + (i < 128 * S ? 0 : o.ssm.n_groups * size) + o.ssm.head_group[h] * size;
	return i % (128 * S) < size ? convolve(o.conv, first + i % (128 * S), t) : 0;
}

static __device__ __forceinline__ void prefetch_line(const float *at)
{
#ifdef __CUDACC__
	asm volatile("prefetch.global.L2 [%0];" ::"l"(at));
#else
	(void)*(const volatile float *)at; // it must be there
#endif
}

/* The block's part of the state comes towards L2, while earlier kernels still run: nobody sees a
 * difference. 128 bytes a thread. */
static __device__ void prefetch_state(const struct ssm_op &o)
{
	int parts = (o.head_dim + BLOCK_ROWS - 1) / BLOCK_ROWS, lines = (o.state_size + 31) / 32;
	int first = (int)blockIdx.x / parts * o.head_dim, p0 = blockIdx.x % parts * BLOCK_ROWS;
	for (int i = threadIdx.x; i < BLOCK_ROWS * lines; i += BOTH_THREADS) {
		int p = p0 + i / lines;
		if (p < o.head_dim && first < o.n_heads * o.head_dim)
			prefetch_line(o.state + (int64_t)o.state_row[first + p] * o.state_size +
						  i % lines * 32);
	}
}

/*
 * Block (head and part of its channels, lane), n below CUDA_PREFILL_TOKENS. B and C of a group are
 * convolved by every block that needs them, so the convolution's state may be moved on only when
 * all have read it. The channels of x are the block's own. Those of B and C (also of groups without
 * a head) fall to the last block to take a number: a block takes it behind a barrier, after all of
 * its threads have used what they loaded, and behind a fence; the last block's stores come after
 * its own fence and barrier. So every load of the state happens before the store over it, and none
 * can see it. atomicInc leaves the ticket at 0 for the next launch, which waits for this one.
 */
template <int S>
static __global__ void __launch_bounds__(BOTH_THREADS)
	conv_ssm_kernel(const __grid_constant__ struct lanes<both, BOTH_LANES> lanes, unsigned *tickets)
{
	prefetch_state(lanes.at[blockIdx.y].ssm);
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	__shared__ bool last;
	const struct both &both = lanes.at[blockIdx.y];
	const struct ssm_op &o = both.ssm;
	struct token<S> *tokens = (struct token<S> *)memory;
	const int values = BLOCK_ROWS + 2 * 128 * S;
	int parts = (o.head_dim + BLOCK_ROWS - 1) / BLOCK_ROWS, h = blockIdx.x / parts;
	int p0 = blockIdx.x % parts * BLOCK_ROWS, inner = o.n_heads * o.head_dim;
	int thread = threadIdx.x, lane = thread % WARP, warp = thread / WARP;
	int first = h * o.head_dim + p0 + warp * BOTH_ROWS; // the warp's rows
	int n_rows = warp < BOTH_WARPS ? o.head_dim - p0 - warp * BOTH_ROWS : 0;
	float s[BOTH_ROWS][S][4], b[S][4], c[S][4];
	if (h >= o.n_heads)
		return;
#pragma unroll
	for (int r = 0; r < BOTH_ROWS; r++)
		if (r < n_rows)
			load_row<S>(s[r], o.state + (int64_t)o.state_row[first + r] * o.state_size,
						o.state_size);
	for (int i = thread; i < o.n * values; i += BOTH_THREADS)
		((float *)&tokens[i / values])[i % values] =
			token_value<S>(both, h, p0, i / values, i % values);
	if (thread < o.n)
		tokens[thread].rate = rate_of(o, h, thread);
	__syncthreads();
	if (warp == BOTH_WARPS) {
		if (p0 + lane < o.head_dim)
			shift(both.conv, h * o.head_dim + p0 + lane);
		if (lane == 0) {
			__threadfence();
			unsigned top = (unsigned)(o.n_heads * parts) - 1;
			last = atomicInc(&tickets[blockIdx.y], top) == top;
			__threadfence();
		}
	}
	for (int t = 0; t < o.n && n_rows > 0; t++) {
		const struct token<S> &token = tokens[t];
		float y = 0;
		load_row<S>(b, token.b, 128 * S);
		load_row<S>(c, token.c, 128 * S);
#pragma unroll
		for (int r = 0; r < BOTH_ROWS; r++)
			if (r < n_rows) {
				float sum = step<S>(s[r], b, c, token.rate, token.x[warp * BOTH_ROWS + r], o.d[h]);
				y = lane == r ? sum : y;
			}
		if (lane < BOTH_ROWS && lane < n_rows)
			o.y[(int64_t)t * inner + first + lane] = y;
	}
#pragma unroll
	for (int r = 0; r < BOTH_ROWS; r++)
		if (r < n_rows)
			store_row<S>(s[r], o.state + (int64_t)o.state_row[first + r] * o.state_size,
						 o.state_size);
	__syncthreads();
	for (int i = inner + thread; last && i < both.conv.channels; i += BOTH_THREADS)
		shift(both.conv, i);
}

static bool one_piece(const struct conv_op *conv, const struct ssm_op *ssm)
{
	int inner = ssm->n_heads * ssm->head_dim;
	return conv->y == ssm->xbc && conv->n == ssm->n && inner > 0 && ssm->n < CUDA_PREFILL_TOKENS &&
		   conv->channels == inner + 2 * ssm->n_groups * ssm->state_size;
}

extern "C" bool cuda_conv_ssm(struct device *device, int n_lanes, const struct conv_op *conv,
							  const struct ssm_op *ssm)
{
	unsigned *tickets = cuda_tickets(device, BOTH_LANES);
	for (int l = 0; l < n_lanes; l++)
		if (!one_piece(&conv[l], &ssm[l]))
			return false;
	if (!tickets || !conv_fits(device, n_lanes, conv) || !ssm_fits(device, n_lanes, ssm))
		return true;
	for (int done = 0, n = 0; done < n_lanes; done += n) {
		struct lanes<both, BOTH_LANES> lanes;
		static_assert(sizeof lanes < 4080, "more than a kernel can take");
		int blocks = 0, states = 0, tokens = 0;
		n = n_lanes - done < BOTH_LANES ? n_lanes - done : BOTH_LANES;
		for (int l = 0; l < n; l++) {
			const struct ssm_op *o = &ssm[done + l];
			int mine = o->n_heads * (int)blocks_of(o->head_dim, BLOCK_ROWS);
			lanes.at[l].conv = conv[done + l];
			lanes.at[l].ssm = *o;
			blocks = mine > blocks ? mine : blocks;
			states = o->state_size > states ? o->state_size : states;
			tokens = o->n > tokens ? o->n : tokens;
		}
		dim3 grid(blocks, n);
		if (states > 128)
			LAUNCH(device, conv_ssm_kernel<2>, grid, BOTH_THREADS, tokens * sizeof(struct token<2>),
				   lanes, tickets);
		else
			LAUNCH(device, conv_ssm_kernel<1>, grid, BOTH_THREADS, tokens * sizeof(struct token<1>),
				   lanes, tickets);
	}
	return true;
}
