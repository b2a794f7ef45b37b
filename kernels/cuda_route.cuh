/*
 * The router's choice of experts, by one warp and in shared memory: cuda_route.cu makes it for
 * itself, the experts' first product may make it in front of itself.
 */
#ifndef KERNELS_CUDA_ROUTE_CUH
#define KERNELS_CUDA_ROUTE_CUH

#include "kernels/cuda_kernel.cuh"

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

#endif
