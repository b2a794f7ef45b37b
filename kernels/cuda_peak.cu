/*
 * What the card could do at most, by the simplest kernels there are: a read of memory is what
 * decoding is held against.
 */
#include "kernels/cuda_kernel.cuh"

extern "C" {
#include "kernels/cuda_profile.h"
}

#define THREADS 256
#define BLOCKS 16 // of a multiprocessor
#define AT_ONCE 8 // loads of 16 bytes in flight

/* Zeros would be read and multiplied faster than what is measured against them. Two BF16 of any
 * sign and mantissa between 2^-7 and 2. */
static __global__ void fill_kernel(uint32_t *memory, int64_t n)
{
	AWAIT_EARLIER();
	int64_t step = (int64_t)gridDim.x * blockDim.x;
	for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step) {
		uint32_t h = (uint32_t)i * 0x9e3779b1u ^ (uint32_t)(i >> 32);
		h = (h ^ h >> 16) * 0x85ebca6bu;
		h = (h ^ h >> 13) * 0xc2b2ae35u;
		h ^= h >> 16;
		memory[i] = (h & 0x83ff83ffu) | 0x3c003c00u;
	}
}

/* sink is NULL: nothing is written, but the reads must not go away. */
static __global__ void __launch_bounds__(THREADS)
	read_kernel(const uint4 *memory, int64_t n, unsigned *sink)
{
	AWAIT_EARLIER();
	int64_t step = (int64_t)gridDim.x * blockDim.x;
	unsigned sum = 0;
	for (int64_t i = (int64_t)blockIdx.x * blockDim.x + threadIdx.x; i < n; i += step * AT_ONCE) {
		uint4 words[AT_ONCE];
#pragma unroll
		for (int k = 0; k < AT_ONCE; k++)
			words[k] = __ldg(memory + (i + k * step < n ? i + k * step : i));
#pragma unroll
		for (int k = 0; k < AT_ONCE; k++)
			sum |= words[k].x & words[k].y & words[k].z & words[k].w;
	}
	if (sum == 0xffffffffu && sink)
		*sink = sum;
}

static __global__ void delay_kernel(unsigned long long ns)
{
	AWAIT_EARLIER();
#ifdef __CUDA_ARCH__
	unsigned long long start, now;
	asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(start));
	do {
		__nanosleep(1000);
		asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
	} while (now - start < ns);
#else
	(void)ns;
#endif
}

extern "C" void cuda_delay(struct device *device, uint64_t ns)
{
	LAUNCH(device, delay_kernel, 1, 1, 0, (unsigned long long)ns);
}

extern "C" void cuda_fill_random(struct device *device, void *memory, size_t bytes)
{
	LAUNCH(device, fill_kernel, device->n_sms * BLOCKS, THREADS, 0, (uint32_t *)memory,
		   (int64_t)(bytes / sizeof(uint32_t)));
}

static void read_all(struct device *device, const void *memory, size_t bytes)
{
	LAUNCH(device, read_kernel, device->n_sms * BLOCKS, THREADS, 0, (const uint4 *)memory,
		   (int64_t)(bytes / sizeof(uint4)), (unsigned *)NULL);
}

extern "C" double cuda_read_rate(struct device *device, const void *memory, size_t bytes)
{
	cudaEvent_t from = NULL, to = NULL;
	double best = 0;
	bool failed = cudaEventCreateWithFlags(&from, cudaEventDefault) != cudaSuccess ||
				  cudaEventCreateWithFlags(&to, cudaEventDefault) != cudaSuccess;
	for (int run = 0; run < 4 && !failed && !device->failed; run++) { // the first one warms up
		float ms = 0;
		cudaEventRecord(from, device->stream);
		read_all(device, memory, bytes);
		cudaEventRecord(to, device->stream);
		failed = cuda_failed(device, cudaStreamSynchronize(device->stream), "reading memory") ||
				 cudaEventElapsedTime(&ms, from, to) != cudaSuccess;
		double rate = ms > 0 ? (double)bytes / (ms / 1e3) : 0;
		best = run && rate > best ? rate : best;
	}
	if (from)
		cudaEventDestroy(from);
	if (to)
		cudaEventDestroy(to);
	return failed ? 0 : best;
}
