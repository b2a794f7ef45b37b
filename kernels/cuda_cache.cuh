/*
 * A value of the KV cache, by the type it is stored in: float, BF16's bits, E4M3's code.
 */
#ifndef KERNELS_CUDA_CACHE_CUH
#define KERNELS_CUDA_CACHE_CUH

#include "kernels/cuda_kernel.cuh"

/* How a value is stored: float, BF16's bits, E4M3's code (times a scale that is applied to queries
 * and results). */
static __device__ __forceinline__ float read_kv(const float *cache, int64_t i)
{
	return cache[i];
}
static __device__ __forceinline__ float read_kv(const uint16_t *cache, int64_t i)
{
	return from_bf16(cache[i]);
}
static __device__ __forceinline__ float read_kv(const uint8_t *cache, int64_t i)
{
	return from_e4m3(cache[i]);
}
static __device__ __forceinline__ void write_kv(float *cache, int64_t i, float v, float)
{
	cache[i] = v;
}
static __device__ __forceinline__ void write_kv(uint16_t *cache, int64_t i, float v, float)
{
	cache[i] = to_bf16(v);
}
static __device__ __forceinline__ void write_kv(uint8_t *cache, int64_t i, float v, float scale)
{
	cache[i] = to_e4m3(v / scale);
}

#endif
