/*
 * How many ids there are and what they weigh (e^z), counted by bin or digit by a block's threads,
 * and where a sum over bins reaches a goal. Masses are in fixed point, so that the order in which
 * threads add them does not matter.
 */
#ifndef KERNELS_CUDA_MASSES_CUH
#define KERNELS_CUDA_MASSES_CUH

#include "kernels/cuda_kernel.cuh"

#define THREADS 256 // of a block
#define WARPS (THREADS / WARP)
#define BINS 1024
#define FIXED 0x1p44 // of e^z, at most 1
#define LIMBS 4      // a mass in 12 bits each: room for a million of them in 32

struct sum {
	unsigned count;
	unsigned long long mass;
};

/* In shared memory, by bin or digit. */
struct masses {
	unsigned count[BINS], limbs[LIMBS][BINS];
};

static __device__ void masses_clear(struct masses *m, int n)
{
	__syncthreads(); // whoever reads them
	for (int i = threadIdx.x; i < n; i += THREADS) {
		m->count[i] = 0;
		for (int k = 0; k < LIMBS; k++)
			m->limbs[k][i] = 0;
	}
	__syncthreads();
}

static __device__ __forceinline__ void masses_add(struct masses *m, int at, float z)
{
	unsigned long long mass = (unsigned long long)((double)expf(z) * FIXED);
	atomicAdd(&m->count[at], 1u);
#pragma unroll
	for (int k = 0; k < LIMBS; k++) {
		unsigned limb = (unsigned)(mass >> 12 * k) & 4095;
		if (limb)
			atomicAdd(&m->limbs[k][at], limb);
	}
}

static __device__ __forceinline__ struct sum masses_at(const struct masses *m, int at)
{
	struct sum sum = {m->count[at], 0};
#pragma unroll
	for (int k = 0; k < LIMBS; k++)
		sum.mass += (unsigned long long)m->limbs[k][at] << 12 * k;
	return sum;
}

static __device__ __forceinline__ void add(struct sum *a, struct sum b)
{
	a->count += b.count;
	a->mass += b.mass;
}

/* What the threads before this one have; *all: what all have. */
static __device__ struct sum scan(struct sum mine, struct sum *all)
{
	__shared__ struct sum warps[WARPS];
	int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
	struct sum up = mine, before = {0, 0};
	for (int back = 1; back < WARP; back *= 2) {
		struct sum other;
		other.count = __shfl_sync(FULL_WARP, up.count, lane >= back ? lane - back : lane);
		other.mass = __shfl_sync(FULL_WARP, up.mass, lane >= back ? lane - back : lane);
		if (lane >= back)
			add(&up, other);
	}
	__syncthreads(); // whoever reads the sums of a call before
	if (lane == WARP - 1)
		warps[warp] = up;
	__syncthreads();
	*all = before;
	for (int w = 0; w < WARPS; w++) {
		if (w < warp)
			add(&before, warps[w]);
		add(all, warps[w]);
	}
	before.count += up.count - mine.count;
	before.mass += up.mass - mine.mass;
	return before;
}

/* Where count or mass reaches its target, which both are at least 1 and one does. */
struct goal {
	unsigned count;
	unsigned long long mass;
};

struct place {
	int at; // bin or digit
	struct sum before, own;
};

/* A thread has n sums, those from n * thread on, behind `before`. All get the place. */
static __device__ struct place find(struct sum before, const struct sum *own, int n,
									struct goal goal)
{
	__shared__ struct place place;
	__syncthreads(); // whoever reads the place of a call before
	for (int i = 0; i < n; i++) {
		struct sum after = before;
		add(&after, own[i]);
		if (before.count < goal.count && before.mass < goal.mass &&
			(after.count >= goal.count || after.mass >= goal.mass)) {
			place.at = (int)threadIdx.x * n + i;
			place.before = before;
			place.own = own[i];
		}
		before = after;
	}
	__syncthreads();
	return place;
}

#endif
