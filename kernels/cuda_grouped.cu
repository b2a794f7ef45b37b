/*
 * Experts with many tokens: the pairs of a token and a choice are sorted by expert on the card, and
 * a block takes up to 128 of one expert through 256 rows of its matrix on tensor cores
 * (cuda_pipe.cu), or 64 through 128 in F32. Nothing goes back to the host: as many blocks are
 * started as there can be tiles, and those beyond the last return.
 *
 * A pair's product does not depend on where it was sorted to, and a token's sum is over ascending
 * choices in one thread: results repeat bit for bit.
 */
#include "kernels/cuda_tile.cuh"

extern "C" {
#include "kernels/cuda_pipe.h"
#include "kernels/cuda_prefill.h"
}

#define SORT_THREADS 256
#define COMBINE_THREADS 256
#define MAX_EXPERTS 4096

struct grouped {
	struct cuda_view m; // the spans, which all experts share
	const struct placed *placed;
	const float *x;   // a row a token, or a pair
	float *y;         // a row a pair
	int pairs_of_row; // that share a row of x: top_k, or 1
	bool relu2, aligned;
};

/* One block. Dynamic shared memory: an integer an expert, how many chose it, then where its next
 * pair goes. */
static __global__ void sort_kernel(const int32_t *ids, int n_pairs, int n_experts, int tile_tokens,
								   struct expert_plan plan, struct cuda_fault *fault)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	int32_t *next = (int32_t *)memory;
	for (int e = threadIdx.x; e < n_experts; e += SORT_THREADS)
		next[e] = 0;
	__syncthreads();
	for (int i = threadIdx.x; i < n_pairs; i += SORT_THREADS) {
		int e = ids[i];
		if (e >= 0 && e < n_experts) {
			atomicAdd(&next[e], 1);
		} else if (atomicCAS(&fault->kind, (int)FAULT_NONE, (int)FAULT_EXPERT) == FAULT_NONE) {
			fault->found = e;
			fault->limit = n_experts;
		}
	}
	__syncthreads();
	if (threadIdx.x == 0) {
		int at = 0, n_tiles = 0;
		for (int e = 0; e < n_experts; e++) {
			int n = next[e];
			for (int i = 0; i < n; i += tile_tokens) {
				struct expert_tile tile = {e, at + i, n - i < tile_tokens ? n - i : tile_tokens};
				plan.tiles[n_tiles++] = tile;
			}
			next[e] = at;
			at += n;
		}
		*plan.n_tiles = n_tiles;
	}
	__syncthreads();
	for (int i = threadIdx.x; i < n_pairs; i += SORT_THREADS) {
		int e = ids[i];
		if (e >= 0 && e < n_experts)
			plan.pairs[atomicAdd(&next[e], 1)] = i;
	}
}

/* Block (tile, rows). */
static __global__ void __launch_bounds__(TILE_THREADS)
	grouped_kernel(struct grouped o, struct expert_plan plan)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	__shared__ int32_t pairs[TILE_TOKENS];
	struct tile t = tile_in(memory);
	if ((int)blockIdx.x >= *plan.n_tiles)
		return;
	struct expert_tile tile = plan.tiles[blockIdx.x];
	int first_row = blockIdx.y * TILE_ROWS, thread = threadIdx.x;
	float sums[TILE_SUMS];
	if (thread < TILE_TOKENS) {
		pairs[thread] = thread < tile.n ? plan.pairs[tile.first + thread] : 0;
		t.x[thread] = thread < tile.n
						  ? o.x + (int64_t)(pairs[thread] / o.pairs_of_row) * o.m.n_columns
						  : NULL;
	}
	tile_product(t, o.m, o.placed[tile.expert], o.aligned, first_row, sums);
#pragma unroll
	for (int i = 0; i < TILE_SUMS; i++) {
		int token = tile_token(i), row = first_row + tile_row(i);
		if (token >= tile.n || row >= o.m.n_rows)
			continue;
		float v = sums[i];
		if (o.relu2)
			v = v > 0 ? v * v : 0;
		o.y[(int64_t)pairs[token] * o.m.n_rows + row] = v;
	}
}

static __device__ __forceinline__ float widened(float v)
{
	return v;
}
static __device__ __forceinline__ float widened(uint16_t bits)
{
	return from_bf16(bits);
}

/* A block a token: y += sum of weight times output; norms of the outputs where asked for. Outputs
 * in F32, or BF16's bits. */
template <typename T> static __global__ void combine_kernel(struct experts_op o, const T *outputs)
{
	AWAIT_EARLIER();
	int64_t first = (int64_t)blockIdx.x * o.top_k;
	float *y = o.y + (int64_t)blockIdx.x * o.width;
	outputs += first * o.width;
	for (int i = threadIdx.x; i < o.width; i += COMBINE_THREADS) {
		float sum = y[i];
		for (int k = 0; k < o.top_k; k++)
			sum += o.weights[first + k] * widened(outputs[(int64_t)k * o.width + i]);
		y[i] = sum;
	}
	for (int k = 0; k < o.top_k && o.norms; k++) {
		float sum = 0;
		for (int i = threadIdx.x; i < o.width; i += COMBINE_THREADS) {
			float v = widened(outputs[(int64_t)k * o.width + i]);
			sum += v * v;
		}
		sum = block_sum(sum);
		if (threadIdx.x == 0)
			o.norms[first + k] = sqrtf(sum);
	}
}

/* What all experts allow: wide loads of weights, and of activations of `width`; BF16 products. */
static bool all_aligned(const struct matrix *m, int n, const float *x, int width)
{
	bool aligned = (uintptr_t)x % 16 == 0 && width % 4 == 0;
	for (int e = 0; e < n && aligned; e++)
		aligned = cuda_view(&m[e]).aligned;
	return aligned;
}

/* Whether tensor cores take all of them as they take the first. */
static bool all_take(const struct device *device, const struct matrix *m, int n)
{
	bool take = true;
	for (int e = 0; e < n && take; e++)
		take = m[e].dtype == m[0].dtype && cuda_pipe_takes(device, &m[e]);
	return take;
}

/* Activations in E4M3 are divided by a scale of their own each: the experts' calibrated ones
 * differ, and a token is coded once for all that it chose. */
static bool all_allow_codes(const struct device *device, const struct experts_op *o)
{
	bool allow = true;
	for (int e = 0; e < o->n_experts && allow; e++)
		allow = cuda_codes_allow(device, &o->up[e]) && cuda_codes_allow(device, &o->down[e]);
	return allow;
}

/* Room for the plan and the outputs; false: the device has failed. */
static bool open_plan(struct device *device, const struct experts_op *o, bool pipe,
					  struct expert_plan *plan, float **outputs)
{
	int n_pairs = o->n * o->top_k, busy = n_pairs < o->n_experts ? n_pairs : o->n_experts;
	int tile_tokens = pipe ? PIPE_TOKENS : TILE_TOKENS;
	plan->max_tiles = busy + n_pairs / tile_tokens;
	size_t n = 1 + 3 * (size_t)plan->max_tiles + (size_t)n_pairs;
	plan->n_tiles = (int32_t *)cuda_scratch(device, CUDA_SCRATCH_PLAN, n, sizeof(int32_t));
	*outputs =
		(float *)cuda_scratch(device, CUDA_SCRATCH_OUTPUTS, (size_t)n_pairs * (size_t)o->width,
							  pipe ? sizeof(uint16_t) : sizeof(float));
	if (device->failed)
		return false;
	plan->tiles = (struct expert_tile *)(plan->n_tiles + 1);
	plan->pairs = (int32_t *)(plan->tiles + plan->max_tiles);
	return true;
}

static void run_tiles(struct device *device, const struct experts_op *o,
					  const struct expert_plan *plan, float *outputs)
{
	const struct grouped up = {cuda_view(o->up),
							   o->placed_up,
							   o->x,
							   o->hidden,
							   o->top_k,
							   true,
							   all_aligned(o->up, o->n_experts, o->x, o->width)};
	const struct grouped down = {cuda_view(o->down),
								 o->placed_down,
								 o->hidden,
								 outputs,
								 1,
								 false,
								 all_aligned(o->down, o->n_experts, o->hidden, o->ffn)};
	dim3 up_grid(plan->max_tiles, blocks_of(o->ffn, TILE_ROWS));
	dim3 down_grid(plan->max_tiles, blocks_of(o->width, TILE_ROWS));
	LAUNCH(device, grouped_kernel, up_grid, TILE_THREADS, TILE_SHARED, up, *plan);
	LAUNCH(device, grouped_kernel, down_grid, TILE_THREADS, TILE_SHARED, down, *plan);
	LAUNCH(device, combine_kernel<float>, o->n, COMBINE_THREADS, 0, *o, outputs);
}

/* The experts' activations go to the second product in E4M3. */
static bool code_both(struct device *device, const struct experts_op *o, struct pipe_op *up,
					  struct pipe_op *down)
{
	struct coded_rows x = cuda_code_rows(device, o->x, o->n, o->width, 0);
	up->x = x.codes;
	up->scales = x.scales;
	if (!up->x)
		return false;
	cuda_pipe(device, up);
	x = cuda_code_rows(device, o->hidden, o->n * o->top_k, o->ffn, 0);
	down->x = x.codes;
	down->scales = x.scales;
	return down->x != NULL;
}

/* In BF16, which lie in the place of the F32 ones where nobody looks at those. */
static bool narrow_both(struct device *device, const struct experts_op *o, struct pipe_op *up,
						struct pipe_op *down)
{
	size_t n_hidden = (size_t)o->n * (size_t)o->top_k * (size_t)o->ffn;
	up->narrow_y = (uint16_t *)o->hidden;
	if (o->keep_hidden || (uintptr_t)o->hidden % 16)
		up->narrow_y =
			(uint16_t *)cuda_scratch(device, CUDA_SCRATCH_HIDDEN, n_hidden, sizeof *up->narrow_y);
	if (!o->keep_hidden)
		up->y = NULL;
	up->x = cuda_narrow_rows(device, o->x, o->n, o->width);
	down->x = up->narrow_y;
	if (!up->x || !down->x)
		return false;
	cuda_pipe(device, up);
	return true;
}

/* What the experts put out is rounded to BF16 as activations are: it is most of what moves. */
static void run_pipe(struct device *device, const struct experts_op *o,
					 const struct expert_plan *plan, float *outputs)
{
	struct pipe_op up = cuda_pipe_dense(cuda_view(o->up), o->hidden, 0, LINEAR_RELU2);
	struct pipe_op down = cuda_pipe_dense(cuda_view(o->down), NULL, 0, LINEAR_SET);
	bool codes = cuda_multiplies_codes(device) && all_allow_codes(device, o);
	up.placed = o->placed_up;
	down.placed = o->placed_down;
	up.plan = down.plan = *plan;
	up.pairs_of_row = o->top_k;
	down.narrow_y = (uint16_t *)outputs;
	if (!(codes ? code_both : narrow_both)(device, o, &up, &down))
		return;
	cuda_pipe(device, &down);
	LAUNCH(device, combine_kernel<uint16_t>, o->n, COMBINE_THREADS, 0, *o, down.narrow_y);
}

bool cuda_grouped(struct device *device, const struct experts_op *o)
{
	int n_pairs = o->n * o->top_k;
	struct expert_plan plan;
	float *outputs;
	/* a tile is worth its while where an expert has several tokens */
	if (o->n < CUDA_PREFILL_TOKENS || n_pairs < 2 * o->n_experts || o->n_experts > MAX_EXPERTS)
		return false;
	bool pipe = all_take(device, o->up, o->n_experts) && all_take(device, o->down, o->n_experts);
	int tile_tokens = pipe ? PIPE_TOKENS : TILE_TOKENS;
	if (!open_plan(device, o, pipe, &plan, &outputs))
		return true;
	LAUNCH(device, sort_kernel, 1, SORT_THREADS, (size_t)o->n_experts * sizeof(int32_t), o->ids,
		   n_pairs, o->n_experts, tile_tokens, plan, &device->mailbox->fault);
	if (pipe)
		run_pipe(device, o, &plan, outputs);
	else
		run_tiles(device, o, &plan, outputs);
	return true;
}
