/*
 * Products on tensor cores: the kernel around cuda_pipe.cuh, and activations rounded to BF16 once,
 * so that every block copies them as they are.
 */
#include "kernels/cuda_pipe.cuh"

extern "C" {
#include "kernels/cuda_pipe.h"
#include "kernels/cuda_prefill.h"
}

#define NARROW_THREADS 256

/* What a block knows of its tokens. */
struct pipe_tokens {
	const unsigned char *x[PIPE_TOKENS]; // NULL: none
	int32_t y[PIPE_TOKENS];              // row of y
};

/* Two neighbours of a row; the second one only where there is one. */
static __device__ __forceinline__ void put(const struct pipe_op &o, int64_t at, float a, float b,
										   bool both)
{
	if (o.mode == LINEAR_RELU2) {
		a = a > 0 ? a * a : 0;
		b = b > 0 ? b * b : 0;
	}
	if (o.mode == LINEAR_ADD) {
		a += o.y[at];
		b += both ? o.y[at + 1] : 0;
	}
	if (o.y && both && ((uintptr_t)(o.y + at) & 7) == 0) {
		float2 pair = {a, b};
		*(float2 *)(o.y + at) = pair;
	} else if (o.y) {
		o.y[at] = a;
		if (both)
			o.y[at + 1] = b;
	}
	if (!o.narrow_y)
		return;
	if (both && ((uintptr_t)(o.narrow_y + at) & 3) == 0) {
		*(uint32_t *)(o.narrow_y + at) = pack_bf16(a, b);
	} else {
		o.narrow_y[at] = to_bf16(a);
		if (both)
			o.narrow_y[at + 1] = to_bf16(b);
	}
}

/* n of the tokens times 256 rows. */
template <int TOKENS, enum pipe_kind K>
static __device__ __forceinline__ void multiply(const struct pipe_op &o, unsigned char *memory,
												const struct pipe_tokens &tokens, int n,
												const struct placed &at, int first)
{
	float sums[pipe_share<TOKENS>::sums], scale = K == PIPE_BF16 ? 1 : at.scale;
	pipe_product<TOKENS, K>(memory, tokens.x, n, o.m, at, first, sums);
#pragma unroll
	for (int i = 0; i < pipe_share<TOKENS>::sums; i += 2) {
		int token = pipe_token<TOKENS>(i), row = first + pipe_row<TOKENS>(i);
		if (token >= n || row >= o.m.n_rows)
			continue;
		float by = scale;
		if (K == PIPE_FP8)
			by *= o.scales[tokens.y[token] / o.pairs_of_row];
		put(o, (int64_t)tokens.y[token] * o.m.n_rows + row, sums[i] * by, sums[i + 1] * by,
			row + 1 < o.m.n_rows);
	}
}

/* Block (tile of tokens, 256 rows): blocks of the same rows run next to each other. */
template <enum pipe_kind K>
static __global__ void __launch_bounds__(PIPE_THREADS, 1) pipe_kernel(struct pipe_op o)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	struct pipe_tokens *tokens = (struct pipe_tokens *)(memory + PIPE_SHARED);
	int first_row = blockIdx.y * PIPE_ROWS, thread = threadIdx.x;
	struct expert_tile tile = {0, (int)blockIdx.x * PIPE_TOKENS, PIPE_TOKENS};
	if (!o.plan.tiles)
		tile.n = o.n - tile.first < PIPE_TOKENS ? o.n - tile.first : PIPE_TOKENS;
	else if ((int)blockIdx.x < *o.plan.n_tiles)
		tile = o.plan.tiles[blockIdx.x];
	else
		return;
	if (thread < PIPE_TOKENS) {
		int y = 0;
		if (thread < tile.n)
			y = o.plan.tiles ? o.plan.pairs[tile.first + thread] : tile.first + thread;
		tokens->y[thread] = y;
		tokens->x[thread] = thread < tile.n ? (const unsigned char *)o.x +
												  (int64_t)(y / o.pairs_of_row) * o.m.n_columns *
													  (K == PIPE_FP8 ? 1 : 2)
											: NULL;
	}
	struct placed at = o.placed ? o.placed[tile.expert] : o.m.at;
	__syncthreads();
	if (tile.n > 64)
		multiply<PIPE_TOKENS, K>(o, memory, *tokens, tile.n, at, first_row);
	else
		multiply<64, K>(o, memory, *tokens, tile.n, at, first_row);
}

/* Four at a time, as many as there are. */
static __global__ void narrow_kernel(const float *x, int64_t n, uint16_t *to)
{
	AWAIT_EARLIER();
	int64_t i = ((int64_t)blockIdx.x * blockDim.x + threadIdx.x) * 4;
	if (i + 4 <= n && (uintptr_t)x % 16 == 0) {
		float4 v = *(const float4 *)(x + i);
		uint2 both = {pack_bf16(v.x, v.y), pack_bf16(v.z, v.w)};
		*(uint2 *)(to + i) = both;
		return;
	}
	for (int k = 0; k < 4 && i + k < n; k++)
		to[i + k] = to_bf16(x[i + k]);
}

uint16_t *cuda_narrow_rows(struct device *device, const float *x, int n, int width)
{
	int64_t all = (int64_t)n * width;
	uint16_t *to = (uint16_t *)cuda_scratch(device, CUDA_SCRATCH_X, (size_t)all, sizeof *to);
	if (to)
		LAUNCH(device, narrow_kernel, blocks_of(all, 4 * NARROW_THREADS), NARROW_THREADS, 0, x, all,
			   to);
	return device->failed ? NULL : to;
}

/* A block a row. */
static __global__ void code_kernel(const float *x, int width, float input_scale, uint8_t *codes,
								   float *scales)
{
	AWAIT_EARLIER();
	__shared__ float tops[NARROW_THREADS / WARP];
	int64_t row = blockIdx.x;
	float scale = input_scale, top = 0;
	x += row * width;
	codes += row * width;
	if (input_scale <= 0) {
		for (int i = threadIdx.x; i < width; i += NARROW_THREADS)
			top = fmaxf(top, fabsf(x[i]));
		top = warp_max(top);
		if (threadIdx.x % WARP == 0)
			tops[threadIdx.x / WARP] = top;
		__syncthreads();
		for (int i = 0; i < NARROW_THREADS / WARP; i++)
			top = fmaxf(top, tops[i]);
		scale = top > 0 ? top / 448 : 1;
	}
	for (int i = threadIdx.x * 4; i < width; i += NARROW_THREADS * 4) {
		uint32_t four = 0;
#pragma unroll
		for (int k = 0; k < 4; k++)
			four |= (uint32_t)to_e4m3(x[i + k] / scale) << (8 * k);
		*(uint32_t *)(codes + i) = four;
	}
	if (threadIdx.x == 0)
		scales[row] = scale;
}

struct coded_rows cuda_code_rows(struct device *device, const float *x, int n, int width,
								 float input_scale)
{
	struct coded_rows rows;
	size_t bytes = (size_t)n * (size_t)width, all = bytes + (size_t)n * sizeof(float);
	rows.codes = (uint8_t *)cuda_scratch(device, CUDA_SCRATCH_X, all, 1);
	rows.scales = (float *)(rows.codes + bytes);
	if (rows.codes)
		LAUNCH(device, code_kernel, n, NARROW_THREADS, 0, x, width, input_scale, rows.codes,
			   rows.scales);
	if (device->failed)
		rows.codes = NULL;
	return rows;
}

bool cuda_codes_allow(const struct device *device, const struct matrix *m)
{
	bool allow = device->options.math == MATH_FAST && device->capability >= 89 &&
				 m->dtype == DTYPE_F8_E4M3 && (uintptr_t)m->data % 16 == 0 && m->stride % 16 == 0 &&
				 m->n_columns > 0;
	for (int i = 0; i < m->n_column_spans; i++)
		allow &= m->columns[i].start % 16 == 0 && m->columns[i].length % 16 == 0;
	return allow;
}

bool cuda_multiplies_codes(const struct device *device)
{
	return device->capability == 89 || device->capability >= 120;
}

bool cuda_pipe_takes(const struct device *device, const struct matrix *m)
{
	return cuda_narrow(device, m) && cuda_view(m).aligned && m->n_columns > 0;
}

template <enum pipe_kind K> static void launch(struct device *device, const struct pipe_op *op)
{
	size_t shared = PIPE_SHARED + sizeof(struct pipe_tokens);
	dim3 grid(op->plan.tiles ? op->plan.max_tiles : blocks_of(op->n, PIPE_TOKENS),
			  blocks_of(op->m.n_rows, PIPE_ROWS));
	LAUNCH(device, pipe_kernel<K>, grid, PIPE_THREADS, shared, *op);
}

void cuda_pipe(struct device *device, const struct pipe_op *op)
{
	if (op->scales)
		launch<PIPE_FP8>(device, op);
	else if (op->m.at.dtype == DTYPE_BF16)
		launch<PIPE_BF16>(device, op);
	else if (op->m.at.dtype == DTYPE_F8_E4M3)
		launch<PIPE_FP8_AS_BF16>(device, op);
	else
		launch<PIPE_NVFP4_AS_BF16>(device, op);
}
