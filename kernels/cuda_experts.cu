/*
 * Routing and experts, without going back to the host: the router's choice stays in device memory
 * and the products read it there, a token's chosen experts side by side. A token's sum is over
 * ascending choices, in one warp.
 */
#include "kernels/cuda_dot.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
}

#define WARPS 8
#define ROWS 2 // stored rows of up a warp
#define MAX_EXPERTS 4096

/* ---- routing: a warp a token ---- */

static __device__ __forceinline__ float sigmoid(float v)
{
	return 1 / (1 + expf(-v));
}

/* Ascends with the score; 0 is left for what is taken. NaN loses to all, -0 is 0. */
static __device__ __forceinline__ uint32_t key_of(float score)
{
	uint32_t bits = __float_as_uint(score + 0.0f);
	if (isnan(score))
		return 1;
	return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}

/* A choice in the making, shared memory: see route_bytes(). */
struct choice {
	uint32_t *keys;       // (n_experts); expert e is lane e % 32's
	float *weights;       // the same memory, once the choice is made: (top_k)
	int32_t *ids;         // (top_k), ascending
	unsigned char *taken; // (n_experts): 1 = chosen, 2 = fills the list and counts for nothing
};

static __host__ __device__ __forceinline__ size_t route_bytes(int n_experts, int top_k)
{
	return (size_t)(n_experts + top_k) * 4 + (size_t)(n_experts + 3) / 4 * 4;
}

static __device__ __forceinline__ struct choice choice_in(unsigned char *memory, int n_experts,
														  int top_k)
{
	struct choice c;
	c.keys = (uint32_t *)memory;
	c.weights = (float *)memory;
	c.ids = (int32_t *)(c.keys + n_experts);
	c.taken = (unsigned char *)(c.ids + top_k);
	return c;
}

/* The given experts, and the lowest others that fill the list. */
static __device__ void take_given(const int32_t *given, int n, int top_k, unsigned char *taken)
{
	int missing = top_k;
	for (int k = 0; k < top_k && given[k] >= 0; k++, missing--)
		taken[given[k]] = 1;
	for (int e = 0; e < n && missing > 0; e++)
		if (!taken[e]) {
			taken[e] = 2;
			missing--;
		}
}

/* The best ones; ties: the lower index. */
static __device__ void take_best(const struct choice &c, int n, int top_k)
{
	int lane = threadIdx.x % WARP;
	for (int k = 0; k < top_k; k++) {
		uint32_t most = 0, id = n;
		for (int e = lane; e < n; e += WARP)
			if (c.keys[e] > most) {
				most = c.keys[e];
				id = e;
			}
		uint32_t best = warp_most(most);
		id = warp_least(most == best ? id : n);
		if ((int)id % WARP == lane) {
			c.keys[id] = 0;
			c.taken[id] = 1;
		}
	}
}

/* One warp; leaves the choice in c.ids and c.weights. */
static __device__ void route(const struct route_op &o, int token, const struct choice &c)
{
	int lane = threadIdx.x % WARP, n = o.n_experts, at = 0;
	const float *logits = o.logits + (int64_t)token * n;
	for (int e = lane; e < n; e += WARP) {
		c.keys[e] = key_of(sigmoid(logits[e]) + o.bias[e]);
		c.taken[e] = 0;
	}
	__syncwarp();
	if (!o.given)
		take_best(c, n, o.top_k);
	else if (lane == 0)
		take_given(o.given + (int64_t)token * o.top_k, n, o.top_k, c.taken);
	__syncwarp();
	for (int first = 0; first < n; first += WARP) {
		int e = first + lane, how = e < n ? c.taken[e] : 0;
		uint32_t chosen = __ballot_sync(FULL_WARP, how != 0);
		if (how) {
			int k = at + __popc(chosen & ((1u << lane) - 1));
			/* too few are allowed: a forbidden one fills the list and counts for nothing */
			bool counts = o.given ? how == 1 : o.bias[e] != -INFINITY;
			c.ids[k] = e;
			c.weights[k] = counts ? sigmoid(logits[e]) : 0;
		}
		at += __popc(chosen);
	}
	__syncwarp();
	float sum = 0;
	for (int k = 0; k < o.top_k; k++)
		sum += c.weights[k];
	__syncwarp();
	float scale = o.normalise ? o.scale / (sum + 1e-20f) : o.scale;
	for (int k = lane; k < o.top_k; k += WARP)
		c.weights[k] *= scale;
	__syncwarp();
}

/* A warp; where others read the choice. */
static __device__ __forceinline__ void publish(const struct route_op &o, int token,
											   const struct choice &c)
{
	for (int k = threadIdx.x % WARP; k < o.top_k; k += WARP) {
		o.ids[(int64_t)token * o.top_k + k] = c.ids[k];
		o.weights[(int64_t)token * o.top_k + k] = c.weights[k];
	}
}

/* Block (token, lane). */
static __global__ void route_kernel(struct lanes<route_op> lanes)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	const struct route_op &o = lanes.at[blockIdx.y];
	if ((int)blockIdx.x >= o.n)
		return;
	struct choice c = choice_in(memory, o.n_experts, o.top_k);
	route(o, blockIdx.x, c);
	publish(o, blockIdx.x, c);
}

extern "C" void cuda_route(struct device *device, int n_lanes, const struct route_op *op)
{
	struct lanes<route_op> lanes;
	for (int n; n_lanes > 0 && !device->failed; op += n, n_lanes -= n) {
		size_t bytes = 0;
		n = take_lanes(lanes, op, n_lanes);
		for (int l = 0; l < n; l++) {
			size_t needed = route_bytes(op[l].n_experts, op[l].top_k);
			if (op[l].top_k < 1 || op[l].top_k > op[l].n_experts || op[l].n_experts > MAX_EXPERTS) {
				fail(cuda_failure(device), "router: %d of %d experts", op[l].top_k,
					 op[l].n_experts);
				return;
			}
			bytes = needed > bytes ? needed : bytes;
		}
		LAUNCH(device, route_kernel, dim3(most_rows(lanes, n), n), WARP, bytes, lanes);
	}
}

/* ---- experts ---- */

struct experts {
	struct cuda_view up, down; // the spans, which all experts share
	const struct placed *placed_up, *placed_down;
	const float *x, *weights;
	const int32_t *ids;
	float *hidden, *y, *outputs; // outputs: (n, top_k, width), or NULL
	int n_experts, top_k;
	bool aligned_up, aligned_down;
	struct cuda_fault *fault;
};

/* sums[r] = rows first.. of the expert's matrix times x. The dtype is the block's, or the pair's
 * where experts of one layer are stored in several: D_ANY. */
#define D_ANY ((enum dtype)N_DTYPES)
template <enum dtype D, int R>
static __device__ __forceinline__ void expert_rows(const struct cuda_view &m,
												   const struct placed &at, bool aligned, int first,
												   const float *x, float sums[R][1])
{
	if (D != D_ANY) {
		dot_rows<D == D_ANY ? DTYPE_F32 : D, R, 1>(m, at, aligned, first, x, 0, sums);
		return;
	}
	switch (at.dtype) {
	case DTYPE_F32: dot_rows<DTYPE_F32, R, 1>(m, at, aligned, first, x, 0, sums); break;
	case DTYPE_BF16: dot_rows<DTYPE_BF16, R, 1>(m, at, aligned, first, x, 0, sums); break;
	case DTYPE_F16: dot_rows<DTYPE_F16, R, 1>(m, at, aligned, first, x, 0, sums); break;
	case DTYPE_F8_E4M3: dot_rows<DTYPE_F8_E4M3, R, 1>(m, at, aligned, first, x, 0, sums); break;
	default: dot_rows<DTYPE_NVFP4, R, 1>(m, at, aligned, first, x, 0, sums); break;
	}
}

/* Block (rows, pair of a token and a choice). */
template <enum dtype D>
static __global__ void __launch_bounds__(WARPS *WARP) up_kernel(struct experts o)
{
	AWAIT_EARLIER();
	int first = (int)(blockIdx.x * WARPS + threadIdx.x / WARP) * ROWS, lane = threadIdx.x % WARP;
	int pair = blockIdx.y, e = o.ids[pair];
	float sums[ROWS][1];
	if (e < 0 || e >= o.n_experts) {
		if (threadIdx.x == 0 &&
			atomicCAS(&o.fault->kind, (int)FAULT_NONE, (int)FAULT_EXPERT) == FAULT_NONE) {
			o.fault->found = e;
			o.fault->limit = o.n_experts;
		}
		return;
	}
	if (first >= o.up.n_rows)
		return;
	expert_rows<D, ROWS>(o.up, o.placed_up[e], o.aligned_up, first,
						 o.x + (int64_t)(pair / o.top_k) * o.up.n_columns, sums);
#pragma unroll
	for (int r = 0; r < ROWS; r++)
		if (lane == r && first + r < o.up.n_rows)
			o.hidden[(int64_t)pair * o.up.n_rows + first + r] =
				sums[r][0] > 0 ? sums[r][0] * sums[r][0] : 0;
}

/* Block (rows, token): a warp a row, the choices one after the other. */
template <enum dtype D>
static __global__ void __launch_bounds__(WARPS *WARP) down_kernel(struct experts o)
{
	AWAIT_EARLIER();
	int row = (int)(blockIdx.x * WARPS + threadIdx.x / WARP), lane = threadIdx.x % WARP;
	int64_t token = blockIdx.y;
	if (row >= o.down.n_rows)
		return;
	float y = o.y[token * o.down.n_rows + row];
	for (int k = 0; k < o.top_k; k++) {
		int64_t pair = token * o.top_k + k;
		int e = o.ids[pair];
		float sums[1][1];
		if (e < 0 || e >= o.n_experts)
			return;
		expert_rows<D, 1>(o.down, o.placed_down[e], o.aligned_down, row,
						  o.hidden + pair * o.down.n_columns, sums);
		y += o.weights[pair] * sums[0][0];
		if (o.outputs && lane == 0)
			o.outputs[pair * o.down.n_rows + row] = sums[0][0];
	}
	if (lane == 0)
		o.y[token * o.down.n_rows + row] = y;
}

static __global__ void norms_kernel(const float *outputs, int width, float *norms)
{
	AWAIT_EARLIER();
	float sum = 0;
	outputs += (int64_t)blockIdx.x * width;
	for (int i = threadIdx.x; i < width; i += blockDim.x)
		sum += outputs[i] * outputs[i];
	sum = block_sum(sum);
	if (threadIdx.x == 0)
		norms[blockIdx.x] = sqrtf(sum);
}

/* The experts' common dtype, or D_ANY; *aligned: every one of them can take wide loads. */
static enum dtype common(const struct matrix *m, int n, bool *aligned)
{
	enum dtype dtype = m[0].dtype;
	*aligned = true;
	for (int e = 0; e < n; e++) {
		*aligned &= cuda_view(&m[e]).aligned;
		dtype = m[e].dtype == dtype ? dtype : D_ANY;
	}
	return dtype;
}

#define BY_DTYPE(dtype, kernel, grid)                                                              \
	switch ((int)(dtype)) {                                                                        \
	case DTYPE_F32: LAUNCH(device, kernel<DTYPE_F32>, grid, WARPS *WARP, 0, e); break;             \
	case DTYPE_BF16: LAUNCH(device, kernel<DTYPE_BF16>, grid, WARPS *WARP, 0, e); break;           \
	case DTYPE_F16: LAUNCH(device, kernel<DTYPE_F16>, grid, WARPS *WARP, 0, e); break;             \
	case DTYPE_F8_E4M3: LAUNCH(device, kernel<DTYPE_F8_E4M3>, grid, WARPS *WARP, 0, e); break;     \
	case DTYPE_NVFP4: LAUNCH(device, kernel<DTYPE_NVFP4>, grid, WARPS *WARP, 0, e); break;         \
	default: LAUNCH(device, kernel<D_ANY>, grid, WARPS *WARP, 0, e); break;                        \
	}

static void run_experts(struct device *device, const struct experts_op *o)
{
	struct experts e = {cuda_view(o->up),
						cuda_view(o->down),
						o->placed_up,
						o->placed_down,
						o->x,
						o->weights,
						o->ids,
						o->hidden,
						o->y,
						NULL,
						o->n_experts,
						o->top_k,
						false,
						false,
						&device->mailbox->fault};
	enum dtype up = common(o->up, o->n_experts, &e.aligned_up);
	enum dtype down = common(o->down, o->n_experts, &e.aligned_down);
	/* 16-byte loads of activations too: rows of whole 32 bytes */
	e.aligned_up &= (uintptr_t)o->x % 16 == 0 && o->width % 8 == 0;
	e.aligned_down &= (uintptr_t)o->hidden % 16 == 0 && o->ffn % 8 == 0;
	if (o->norms) {
		e.outputs = (float *)cuda_scratch(device, CUDA_SCRATCH_OUTPUTS,
										  (size_t)o->n * o->top_k * o->width, sizeof(float));
		if (!e.outputs)
			return;
	}
	dim3 up_grid(blocks_of(o->ffn, WARPS * ROWS), o->n * o->top_k);
	dim3 down_grid(blocks_of(o->width, WARPS), o->n);
	BY_DTYPE(up, up_kernel, up_grid)
	BY_DTYPE(down, down_kernel, down_grid)
	if (o->norms)
		LAUNCH(device, norms_kernel, o->n * o->top_k, 256, 0, e.outputs, o->width, o->norms);
}

extern "C" void cuda_experts(struct device *device, int n_lanes, const struct experts_op *op)
{
	for (const struct experts_op *o = op; o < op + n_lanes && !device->failed; o++)
		if (o->n_experts > 0 && o->n > 0 && o->ffn > 0 && !cuda_grouped(device, o))
			run_experts(device, o);
}
