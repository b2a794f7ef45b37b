/*
 * Experts with many tokens: the pairs of a token and a choice are sorted by expert on the card, and
 * a block takes up to 64 of one expert through 128 rows of its matrix. Nothing goes back to the
 * host: as many blocks are started as there can be tiles, and those beyond the last return.
 *
 * A pair's product does not depend on where it was sorted to, and a token's sum is over ascending
 * choices in one thread: results repeat bit for bit.
 */
#include "kernels/cuda_tile.cuh"

extern "C" {
#include "kernels/cuda_prefill.h"
}

#define SORT_THREADS 256
#define COMBINE_THREADS 256
#define MAX_EXPERTS 4096

/* Up to TILE_TOKENS pairs of one expert: plan.pairs[first..first + n). */
struct expert_tile {
	int32_t expert, first, n;
};

struct plan {
	int32_t *n_tiles; // 1
	struct expert_tile *tiles;
	int32_t *pairs; // by expert
};

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
static __global__ void sort_kernel(const int32_t *ids, int n_pairs, int n_experts, struct plan plan,
								   struct cuda_fault *fault)
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
			for (int i = 0; i < n; i += TILE_TOKENS) {
				struct expert_tile tile = {e, at + i, n - i < TILE_TOKENS ? n - i : TILE_TOKENS};
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
template <bool NARROW>
static __global__ void __launch_bounds__(TILE_THREADS)
	grouped_kernel(struct grouped o, struct plan plan)
{
	AWAIT_EARLIER();
	SHARED_DYNAMIC(memory);
	__shared__ int32_t pairs[TILE_TOKENS];
	struct tile t = tile_in<NARROW>(memory);
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
	tile_product<NARROW>(t, o.m, o.placed[tile.expert], o.aligned, first_row, sums);
#pragma unroll
	for (int i = 0; i < TILE_SUMS; i++) {
		int token = tile_token<NARROW>(i), row = first_row + tile_row<NARROW>(i);
		if (token >= tile.n || row >= o.m.n_rows)
			continue;
		float v = sums[i];
		if (o.relu2)
			v = v > 0 ? v * v : 0;
		o.y[(int64_t)pairs[token] * o.m.n_rows + row] = v;
	}
}

/* A block a token: y += sum of weight times output; norms of the outputs where asked for. */
static __global__ void combine_kernel(struct experts_op o, const float *outputs)
{
	AWAIT_EARLIER();
	int64_t first = (int64_t)blockIdx.x * o.top_k;
	float *y = o.y + (int64_t)blockIdx.x * o.width;
	outputs += first * o.width;
	for (int i = threadIdx.x; i < o.width; i += COMBINE_THREADS) {
		float sum = y[i];
		for (int k = 0; k < o.top_k; k++)
			sum += o.weights[first + k] * outputs[(int64_t)k * o.width + i];
		y[i] = sum;
	}
	for (int k = 0; k < o.top_k && o.norms; k++) {
		float sum = 0;
		for (int i = threadIdx.x; i < o.width; i += COMBINE_THREADS) {
			float v = outputs[(int64_t)k * o.width + i];
			sum += v * v;
		}
		sum = block_sum(sum);
		if (threadIdx.x == 0)
			o.norms[first + k] = sqrtf(sum);
	}
}

static void launch(struct device *device, const struct grouped *o, const struct plan *plan,
				   int max_tiles, bool narrow)
{
	dim3 grid(max_tiles, blocks_of(o->m.n_rows, TILE_ROWS));
	if (narrow)
		LAUNCH(device, grouped_kernel<true>, grid, TILE_THREADS, TILE_SHARED, *o, *plan);
	else
		LAUNCH(device, grouped_kernel<false>, grid, TILE_THREADS, TILE_SHARED, *o, *plan);
}

/* What all experts allow: wide loads of weights, and of activations of `width`; BF16 products. */
static bool all_aligned(const struct matrix *m, int n, const float *x, int width)
{
	bool aligned = (uintptr_t)x % 16 == 0 && width % 4 == 0;
	for (int e = 0; e < n && aligned; e++)
		aligned = cuda_view(&m[e]).aligned;
	return aligned;
}

static bool all_narrow(const struct device *device, const struct matrix *m, int n)
{
	while (n > 0 && cuda_narrow(device, &m[n - 1]))
		n--;
	return n == 0;
}

bool cuda_grouped(struct device *device, const struct experts_op *o)
{
	int n_pairs = o->n * o->top_k, busy = n_pairs < o->n_experts ? n_pairs : o->n_experts;
	/* a tile is worth its while where an expert has several tokens */
	if (o->n < CUDA_PREFILL_TOKENS || n_pairs < 2 * o->n_experts || o->n_experts > MAX_EXPERTS)
		return false;
	int max_tiles = busy + n_pairs / TILE_TOKENS;
	size_t n_plan = 1 + 3 * (size_t)max_tiles + (size_t)n_pairs;
	struct plan plan;
	plan.n_tiles = (int32_t *)cuda_scratch(device, CUDA_SCRATCH_PLAN, n_plan, sizeof(int32_t));
	float *outputs = (float *)cuda_scratch(device, CUDA_SCRATCH_OUTPUTS,
										   (size_t)n_pairs * (size_t)o->width, sizeof(float));
	if (device->failed)
		return true;
	plan.tiles = (struct expert_tile *)(plan.n_tiles + 1);
	plan.pairs = (int32_t *)(plan.tiles + max_tiles);
	struct grouped up = {cuda_view(o->up),
						 o->placed_up,
						 o->x,
						 o->hidden,
						 o->top_k,
						 true,
						 all_aligned(o->up, o->n_experts, o->x, o->width)};
	struct grouped down = {cuda_view(o->down),
						   o->placed_down,
						   o->hidden,
						   outputs,
						   1,
						   false,
						   all_aligned(o->down, o->n_experts, o->hidden, o->ffn)};
	LAUNCH(device, sort_kernel, 1, SORT_THREADS, (size_t)o->n_experts * sizeof(int32_t), o->ids,
		   n_pairs, o->n_experts, plan, &device->mailbox->fault);
	launch(device, &up, &plan, max_tiles, all_narrow(device, o->up, o->n_experts));
	launch(device, &down, &plan, max_tiles, all_narrow(device, o->down, o->n_experts));
	LAUNCH(device, combine_kernel, o->n, COMBINE_THREADS, 0, *o, outputs);
	return true;
}
