/*
 * Experts of a few tokens (cuda_products.h): the choice stays in device memory, and the products
 * read it there. The first half divides the rows of a token's chosen experts evenly among warps, as
 * if they were one matrix; the second adds up what a row gets of each, in the order of the choices.
 */
#include "kernels/cuda_dot.cuh"
#include "kernels/cuda_route.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
#include "kernels/cuda_products.h"
}

#define UP_THREADS 256
#define UP_PER_SM 3      // blocks: 80 registers a thread
#define DOWN_THREADS 768 // a block an SM: 80 registers
#define MOST_FLOATS                                                                                \
	((size_t)23 << 10) // in shared memory: what every card has, with sums beside them

/* The first half of a lane. */
struct up {
	struct cuda_view m; // the spans, which all experts share
	const struct placed *placed;
	const float *x;
	const int32_t *ids;
	float *hidden;         // (n, top_k, ffn)
	struct route_op route; // logits NULL: ids are there already
	int n, n_experts, top_k;
};

/* The second half; with a shared expert behind it, if x is not NULL. */
struct down {
	struct cuda_view m, shared;
	const struct placed *placed;
	const float *hidden, *weights, *x;
	const int32_t *ids;
	float *y, *outputs; // outputs: (n, top_k, width), or NULL
	int n, n_experts, top_k;
};

#define EXPERT_LANES 16 // of a launch

static __device__ __forceinline__ void complain(struct cuda_fault *fault, int e, int n_experts)
{
	if (atomicCAS(&fault->kind, (int)FAULT_NONE, (int)FAULT_EXPERT) == FAULT_NONE) {
		fault->found = e;
		fault->limit = n_experts;
	}
}

/* ---- the first half ---- */

/* Block (rows of the chosen experts, token, lane). Dynamic shared memory: the token, its choice. */
template <enum dtype D>
static __global__ void __launch_bounds__(UP_THREADS, UP_PER_SM)
	up_kernel(const __grid_constant__ struct lanes<up, EXPERT_LANES> lanes,
			  struct cuda_fault *fault)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	const struct up &o = lanes.at[blockIdx.z];
	int token = blockIdx.y, warp = threadIdx.x / WARP, n_rows = o.m.n_rows;
	float *x = (float *)memory;
	const int32_t *ids = o.ids + (int64_t)token * o.top_k;
	if (token >= o.n)
		return;
	if (o.route.logits) {
		struct choice c =
			choice_in((unsigned char *)(x + staged_floats(o.m.n_columns)), o.n_experts, o.top_k);
		if (warp == 0) {
			route(o.route, token, c);
			if (blockIdx.x == 0)
				publish(o.route, token, c);
		}
		ids = c.ids;
	}
	stage(o.x + (int64_t)token * o.m.n_columns, o.m.n_columns, UP_THREADS, x);
	__syncthreads();
	int64_t share = blockIdx.x + gridDim.x * warp, shares = gridDim.x * (UP_THREADS / WARP);
	int64_t all = (int64_t)o.top_k * n_rows, first = all * share / shares;
	int64_t end = all * (share + 1) / shares;
	struct factors f;
	f.m = &o.m;
	f.x = x;
	f.stride = 0;
	f.aligned = o.m.aligned;
	for (int k; first < end; first = (int64_t)(k + 1) * n_rows) {
		k = (int)(first / n_rows);
		int e = ids[k], row = (int)(first % n_rows), left = (int)(end - first);
		if (e < 0 || e >= o.n_experts) {
			if (threadIdx.x % WARP == 0)
				complain(fault, e, o.n_experts);
			continue;
		}
		f.at = o.placed[e];
		float *y = o.hidden + ((int64_t)token * o.top_k + k) * n_rows;
		struct results to = {&y, 1, LINEAR_RELU2};
		multiply_rows<D, 1, STAGED>(f, to, row, left < n_rows - row ? row + left : n_rows);
	}
}

/* ---- the second half ---- */

/* A block has up to DOWN_ROWS rows of y. Its work is cut by matrix (the chosen experts', the shared
 * one) and by rows; warps take the next piece that is left. Then the sums of a row
 * are added in the order of the choices, the shared expert last. */
#define DOWN_ROWS 32

/* Matrix i, or -1 where the choice is wrong (the first half has said so). */
static __device__ __forceinline__ int expert_of(const struct down &o, int64_t token, int i)
{
	int e = i < o.top_k ? o.ids[token * o.top_k + i] : 0;
	return e < 0 || e >= o.n_experts ? -1 : e;
}

/* As many of the matrices from `from` on as find room for what they multiply with. */
static __device__ __forceinline__ int stage_some(const struct down &o, int64_t token, int from,
												 int n, int room, float *x)
{
	int i = from;
	for (int at = 0; i < n; i++) {
		bool routed = i < o.top_k;
		int columns = routed ? o.m.n_columns : o.shared.n_columns;
		if (i > from && at + staged_floats(columns) > room)
			break;
		stage(routed ? o.hidden + (token * o.top_k + i) * columns : o.x + token * columns, columns,
			  DOWN_THREADS, x + at);
		at += staged_floats(columns);
	}
	return i;
}

static __device__ __forceinline__ int first_row(int n_rows, int block)
{
	return (int)((int64_t)n_rows * block / gridDim.x);
}

/* The shared expert's rows are known before the choice is. */
static __device__ __forceinline__ void prefetch_shared(const struct down &o)
{
	int row = first_row(o.m.n_rows, blockIdx.x) + (int)threadIdx.x / WARP;
	for (; o.x && row < first_row(o.m.n_rows, blockIdx.x + 1); row += DOWN_THREADS / WARP)
		prefetch_rows(o.shared, row, row + 1);
}

/* Block (rows of y, token, lane). Dynamic shared memory: sums (matrices, DOWN_ROWS), then `room`
 * floats for what is multiplied. */
template <enum dtype D>
static __global__ void __launch_bounds__(DOWN_THREADS, 1)
	down_kernel(const __grid_constant__ struct lanes<down, EXPERT_LANES> lanes, int room)
{
	prefetch_shared(lanes.at[blockIdx.z]);
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	__shared__ int taken;
	const struct down &o = lanes.at[blockIdx.z];
	int64_t token = blockIdx.y;
	int n = o.top_k + (o.x != NULL), lane = threadIdx.x % WARP, n_rows = o.m.n_rows;
	int first = first_row(n_rows, blockIdx.x), rows = first_row(n_rows, blockIdx.x + 1) - first;
	float *sums = (float *)memory, *x = sums + n * DOWN_ROWS;
	if (token >= o.n)
		return;
	for (int from = 0, to; from < n; from = to) {
		__syncthreads();
		if (threadIdx.x == 0)
			taken = 0;
		to = stage_some(o, token, from, n, room, x);
		__syncthreads();
		const int at_once = at_most<D, 1>::rows;
		int cuts = (rows + at_once - 1) / at_once;
		for (;;) {
			int piece = lane == 0 ? atomicAdd(&taken, 1) : 0;
			piece = __shfl_sync(FULL_WARP, piece, 0);
			if (piece >= (to - from) * cuts)
				break;
			int i = to - 1 - piece / cuts,
				row = piece % cuts * at_once; // the shared one first
			int e = expert_of(o, token, i), left = rows - row;
			float *y = sums + i * DOWN_ROWS - first;
			struct results result = {&y, 1, LINEAR_SET};
			struct factors f;
			if (e < 0)
				continue;
			f.m = i < o.top_k ? &o.m : &o.shared;
			f.at = i < o.top_k ? o.placed[e] : o.shared.at;
			f.x = x + (i - from) * staged_floats(o.m.n_columns);
			f.stride = 0;
			f.aligned = f.m->aligned;
			row += first;
			multiply_rows<D, 1, STAGED>(f, result, row, row + (left < at_once ? left : at_once));
		}
	}
	__syncthreads();
	if ((int)threadIdx.x >= rows)
		return;
	int row = first + threadIdx.x;
	float y = o.y[token * n_rows + row];
	for (int i = 0; i < n; i++) {
		float sum = sums[i * DOWN_ROWS + threadIdx.x];
		if (expert_of(o, token, i) < 0)
			return;
		if (o.outputs && i < o.top_k)
			o.outputs[(token * o.top_k + i) * n_rows + row] = sum;
		y = i < o.top_k ? fmaf(o.weights[token * o.top_k + i], sum, y) : y + sum;
	}
	o.y[token * n_rows + row] = y;
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

/* ---- starting them ---- */

#define BY_DTYPE(dtype, kernel, grid, threads, shared, ...)                                        \
	switch ((int)(dtype)) {                                                                        \
	case DTYPE_F32: LAUNCH(device, kernel<DTYPE_F32>, grid, threads, shared, __VA_ARGS__); break;  \
	case DTYPE_BF16: LAUNCH(device, kernel<DTYPE_BF16>, grid, threads, shared, __VA_ARGS__);       \
		break;                                                                                     \
	case DTYPE_F16: LAUNCH(device, kernel<DTYPE_F16>, grid, threads, shared, __VA_ARGS__); break;  \
	case DTYPE_F8_E4M3:                                                                            \
		LAUNCH(device, kernel<DTYPE_F8_E4M3>, grid, threads, shared, __VA_ARGS__);                 \
		break;                                                                                     \
	case DTYPE_NVFP4:                                                                              \
		LAUNCH(device, kernel<DTYPE_NVFP4>, grid, threads, shared, __VA_ARGS__);                   \
		break;                                                                                     \
	default: LAUNCH(device, kernel<D_ANY>, grid, threads, shared, __VA_ARGS__); break;             \
	}

/* The experts' common dtype, or D_ANY; view.aligned: every one of them can take wide loads. */
static enum dtype common(const struct matrix *m, int n, struct cuda_view *view)
{
	enum dtype dtype = m[0].dtype;
	*view = cuda_view(&m[0]);
	for (int e = 1; e < n; e++) {
		view->aligned &= cuda_view(&m[e]).aligned;
		dtype = m[e].dtype == dtype ? dtype : D_ANY;
	}
	return dtype;
}

/* Blocks for each of so many tokens, so that the card is full; at least and at most so many. */
static unsigned blocks_each(int blocks, int tokens, unsigned least, unsigned most)
{
	unsigned each = (unsigned)(blocks / tokens);
	return each < least ? least : each < most ? each : most;
}

/* ---- the first half ---- */

static enum dtype fill(struct up *up, const struct experts_op *o, const struct route_op *route)
{
	enum dtype dtype = common(o->up, o->n_experts, &up->m);
	struct route_op none = {};
	up->placed = o->placed_up;
	up->x = o->x;
	up->ids = o->ids;
	up->hidden = o->hidden;
	up->route = route ? *route : none;
	up->n = o->n;
	up->n_experts = o->n_experts;
	up->top_k = o->top_k;
	return dtype;
}

static void start_up(struct device *device, int n, const struct route_op *route,
					 const struct experts_op *op)
{
	struct lanes<up, EXPERT_LANES> lanes;
	enum dtype dtype = D_ANY;
	size_t shared = 0;
	int64_t rows = 0;
	for (int l = 0; l < n; l++) {
		const struct experts_op *o = &op[l];
		enum dtype mine = fill(&lanes.at[l], o, route ? &route[l] : NULL);
		size_t bytes = staged_floats(o->width) * sizeof(float);
		bytes += route ? route_bytes(o->n_experts, o->top_k) : 0;
		dtype = l == 0 || mine == dtype ? mine : D_ANY;
		shared = bytes > shared ? bytes : shared;
		rows = (int64_t)o->top_k * o->ffn > rows ? (int64_t)o->top_k * o->ffn : rows;
	}
	int tokens = most_rows(lanes, n);
	dim3 grid(
		blocks_each(UP_PER_SM * device->n_sms, tokens * n, 1, blocks_of(rows, UP_THREADS / WARP)),
		tokens, n);
	static_assert(sizeof lanes < 4080, "more than a kernel can take");
	BY_DTYPE(dtype, up_kernel, grid, UP_THREADS, shared, lanes, &device->mailbox->fault)
}

extern "C" void cuda_experts_up(struct device *device, int n_lanes, const struct route_op *route,
								const struct experts_op *op)
{
	for (int done = 0, n; done < n_lanes && !device->failed; done += n) {
		n = n_lanes - done < EXPERT_LANES ? n_lanes - done : EXPERT_LANES;
		start_up(device, n, route ? route + done : NULL, op + done);
	}
}

/* ---- the second half ---- */

static enum dtype fill(struct down *down, const struct experts_op *o,
					   const struct linear_op *shared)
{
	enum dtype dtype = common(o->down, o->n_experts, &down->m);
	down->placed = o->placed_down;
	down->hidden = o->hidden;
	down->weights = o->weights;
	down->x = shared ? shared->x : NULL;
	down->ids = o->ids;
	down->y = o->y;
	down->outputs = NULL;
	down->n = o->n;
	down->n_experts = o->n_experts;
	down->top_k = o->top_k;
	if (!shared)
		return dtype;
	down->shared = cuda_view(shared->w);
	return shared->w->dtype == dtype ? dtype : D_ANY;
}

/* What the lanes' outputs before their weights need, if somebody wants their norms. */
static bool keep_outputs(struct device *device, int n, const struct experts_op *op,
						 struct lanes<down, EXPERT_LANES> &lanes)
{
	size_t all = 0;
	for (int l = 0; l < n; l++)
		all += op[l].norms ? (size_t)op[l].n * op[l].top_k * op[l].width : 0;
	float *at = all ? (float *)cuda_scratch(device, CUDA_SCRATCH_OUTPUTS, all, sizeof *at) : NULL;
	if (all && !at)
		return false;
	for (int l = 0; l < n; l++)
		if (op[l].norms) {
			lanes.at[l].outputs = at;
			at += (size_t)op[l].n * op[l].top_k * op[l].width;
		}
	return true;
}

static void start_down(struct device *device, int n, const struct experts_op *op,
					   const struct linear_op *shared_op)
{
	struct lanes<down, EXPERT_LANES> lanes;
	enum dtype dtype = D_ANY;
	size_t floats = 0, sums = 0;
	int width = 0;
	for (int l = 0; l < n; l++) {
		const struct experts_op *o = &op[l];
		const struct linear_op *s = shared_op ? &shared_op[l] : NULL;
		enum dtype mine = fill(&lanes.at[l], o, s);
		size_t all =
			(size_t)o->top_k * staged_floats(o->ffn) + (s ? staged_floats(s->w->n_columns) : 0);
		dtype = l == 0 || mine == dtype ? mine : D_ANY;
		floats = all > floats ? all : floats;
		sums =
			(size_t)(o->top_k + 1) * DOWN_ROWS > sums ? (size_t)(o->top_k + 1) * DOWN_ROWS : sums;
		width = o->width > width ? o->width : width;
	}
	if (!keep_outputs(device, n, op, lanes))
		return;
	floats = floats < MOST_FLOATS ? floats : MOST_FLOATS;
	int tokens = most_rows(lanes, n);
	dim3 grid(
		blocks_each(device->n_sms, tokens * n, blocks_of(width, DOWN_ROWS), blocks_of(width, 2)),
		tokens, n);
	static_assert(sizeof lanes < 4080, "more than a kernel can take");
	BY_DTYPE(dtype, down_kernel, grid, DOWN_THREADS, (sums + floats) * sizeof(float), lanes,
			 (int)floats)
	for (int l = 0; l < n; l++)
		if (op[l].norms)
			LAUNCH(device, norms_kernel, op[l].n * op[l].top_k, 256, 0, lanes.at[l].outputs,
				   op[l].width, op[l].norms);
}

extern "C" bool cuda_experts_stage(int n_columns)
{
	return (size_t)staged_floats(n_columns) <= MOST_FLOATS;
}

extern "C" void cuda_experts_down(struct device *device, int n_lanes, const struct experts_op *op,
								  const struct linear_op *shared)
{
	for (int done = 0, n; done < n_lanes && !device->failed; done += n) {
		n = n_lanes - done < EXPERT_LANES ? n_lanes - done : EXPERT_LANES;
		start_down(device, n, op + done, shared ? shared + done : NULL);
	}
}

/* ---- the operation ---- */

/* Lanes side by side, none of them for the prefill kernels. */
static void start_lanes(struct device *device, int n_lanes, const struct experts_op *op)
{
	cuda_experts_up(device, n_lanes, NULL, op);
	cuda_experts_down(device, n_lanes, op, NULL);
}

extern "C" void cuda_experts(struct device *device, int n_lanes, const struct experts_op *op)
{
	int first = 0;
	for (int l = 0; l < n_lanes && !device->failed; l++) {
		const struct experts_op *o = &op[l];
		if (!cuda_products_stage(o->width) || !cuda_experts_stage(o->ffn))
			fail(cuda_failure(device), "experts of %d by %d, expected at most %d", o->width, o->ffn,
				 (int)MOST_FLOATS);
		if (o->n_experts > 0 && o->n > 0 && o->ffn > 0 && !cuda_grouped(device, o))
			continue;
		start_lanes(device, l - first, op + first);
		first = l + 1;
	}
	start_lanes(device, n_lanes - first, op + first);
}
