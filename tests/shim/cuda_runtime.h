/*
 * What a kernel sees, on the host: a launch runs its blocks one after the other, a block's threads
 * are fibers that meet at barriers and shuffles. One launch at a time.
 */
#ifndef TESTS_SHIM_CUDA_RUNTIME_H
#define TESTS_SHIM_CUDA_RUNTIME_H

#include "cuda_runtime_api.h"
#include <functional>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __restrict__ __restrict
#define __launch_bounds__(...)
#define __grid_constant__
#define __align__(n) alignas(n)
#define __shared__ static // blocks run one after the other
#define SHARED_DYNAMIC(name) unsigned char *name = shim_shared()

struct dim3 {
	unsigned x, y, z;
	dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z)
	{
	}
};
struct alignas(16) uint4 {
	unsigned x, y, z, w;
};
struct alignas(8) uint2 {
	unsigned x, y;
};
struct alignas(8) float2 {
	float x, y;
};
struct alignas(16) float4 {
	float x, y, z, w;
};
static inline float4 make_float4(float x, float y, float z, float w)
{
	return {x, y, z, w};
}

extern thread_local dim3 shim_thread_index, shim_block_index, shim_block_dim, shim_grid_dim;
#define threadIdx shim_thread_index
#define blockIdx shim_block_index
#define blockDim shim_block_dim
#define gridDim shim_grid_dim

unsigned char *shim_shared(void);
void shim_meet_block(void);
/* All live lanes of the warp meet; each gives 8 bytes and gets those of `source` (0..31). */
uint64_t shim_exchange(uint64_t mine, int source);
uint32_t shim_ballot(bool mine);
int shim_lane(void);
/* mma.m16n8k16, BF16 with F32 sums: see kernels/cuda_mma.cuh. */
void shim_mma(float sums[4], const uint32_t a[4], const uint32_t b[2]);
/* mma.m16n8k32, E4M3; ldmatrix.x4; cp.async: see there. Copies are made when they are waited for.
 */
void shim_mma_e4m3(float sums[4], const uint32_t a[4], const uint32_t b[2]);
float shim_from_e4m3(uint32_t code);
void shim_load_matrices(uint32_t to[4], const void *row, bool turned);
void shim_copy_async(void *to, const void *from); // 16 bytes; NULL: zeros
void shim_copy_commit(void);
void shim_copy_wait(int n_left);

#define __syncthreads() shim_meet_block()
#define __syncwarp() ((void)shim_ballot(true))
#define __ballot_sync(mask, predicate) shim_ballot((predicate) != 0)
#define __threadfence() ((void)0)
#define __threadfence_system() ((void)0)

template <typename T> static inline T __shfl_sync(unsigned, T value, int source)
{
	uint64_t bits = 0;
	memcpy(&bits, &value, sizeof value);
	bits = shim_exchange(bits, source & 31);
	memcpy(&value, &bits, sizeof value);
	return value;
}
template <typename T> static inline T __shfl_xor_sync(unsigned mask, T value, int lanes)
{
	return __shfl_sync(mask, value, shim_lane() ^ lanes);
}

static inline unsigned __reduce_max_sync(unsigned mask, unsigned v)
{
	for (int lanes = 16; lanes > 0; lanes /= 2) {
		unsigned other = __shfl_xor_sync(mask, v, lanes);
		v = other > v ? other : v;
	}
	return v;
}
static inline unsigned __reduce_min_sync(unsigned mask, unsigned v)
{
	return ~__reduce_max_sync(mask, ~v);
}

template <typename T> static inline T __ldg(const T *p)
{
	return *p;
}
template <typename T> static inline T atomicAdd(T *p, T v)
{
	T old = *p;
	*p += v;
	return old;
}
template <typename T> static inline T atomicCAS(T *p, T expected, T v)
{
	T old = *p;
	if (old == expected)
		*p = v;
	return old;
}
/* Counts to `top`, then 0 again. */
static inline unsigned atomicInc(unsigned *p, unsigned top)
{
	unsigned old = *p;
	*p = old >= top ? 0 : old + 1;
	return old;
}
static inline float __uint_as_float(unsigned bits)
{
	float v;
	memcpy(&v, &bits, 4);
	return v;
}
static inline unsigned __float_as_uint(float v)
{
	unsigned bits;
	memcpy(&bits, &v, 4);
	return bits;
}
static inline float __fmul_rn(float a, float b)
{
	return a * b;
}
static inline int __popc(unsigned v)
{
	return __builtin_popcount(v);
}
static inline int __ffs(int v)
{
	return __builtin_ffs(v);
}

void shim_later(const std::function<void()> &what); // now, or recorded while a stream captures
/* name: "FILE:KERNEL" as the launch spells it; noted when it runs (started() in shim.cpp). */
void shim_run(const char *name, dim3 grid, dim3 block, size_t shared,
			  const std::function<void()> &thread);

/* Arguments are taken by value at the launch, as a graph keeps them. */
template <typename... P, typename... A>
static inline void shim_launch(const char *name, void (*kernel)(P...), dim3 grid, dim3 block,
							   size_t shared, A... args)
{
	shim_run(name, grid, block, shared, [=]() { kernel((P)args...); });
}

#endif
