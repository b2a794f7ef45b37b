/*
 * Tensor cores, as prefill uses them: a warp multiplies 16 x 16 by 16 x 8 in BF16 with F32 sums.
 * The shim does the same exchange of fragments in C, so that which lane holds what is tested there
 * (PTX ISA, "Matrix Fragments for mma.m16n8k16").
 *
 * multiply_16x8 is the plain way to use them: both factors lie in shared memory as F32 with any
 * strides and are rounded on the way; with NARROW false the same lanes sum the same elements in
 * F32.
 */
#ifndef KERNELS_CUDA_MMA_CUH
#define KERNELS_CUDA_MMA_CUH

#include "kernels/cuda_kernel.cuh"

/* Two values as BF16, the first in the lower half. */
static __device__ __forceinline__ uint32_t pack_bf16(float low, float high)
{
#ifdef __CUDACC__
	uint32_t both;
	asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
	return both;
#else
	return to_bf16(low) | (uint32_t)to_bf16(high) << 16;
#endif
}

/* sums += A B. With g = lane / 4 and c = lane % 4, a lane holds of A (16, 16) the rows g and g + 8
 * at the columns 2c, 2c + 1 and the same + 8: a[0] = (g, 2c), a[1] = (g + 8, 2c), a[2] = (g, 2c +
 * 8), a[3] = (g + 8, 2c + 8), the neighbour in the upper half; of B (16, 8) column g: b[0] = rows
 * 2c, 2c + 1, b[1] = + 8; of the sums (g, 2c), (g, 2c + 1), (g + 8, 2c), (g + 8, 2c + 1). */
static __device__ __forceinline__ void mma_bf16(float sums[4], const uint32_t a[4],
												const uint32_t b[2])
{
#ifdef __CUDACC__
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
				 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
				 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
				 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
	shim_mma(sums, a, b);
#endif
}

/* The same with 32 columns of E4M3: a register has four neighbours, (g, 4c..4c + 3), where BF16 has
 * two. Cards before 8.9 have no such instruction; Hopper's converts to F16 first, and gains
 * nothing.
 */
static __device__ __forceinline__ void mma_e4m3(float sums[4], const uint32_t a[4],
												const uint32_t b[2])
{
#if defined(__CUDACC__) && (!defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 890)
	asm volatile("mma.sync.aligned.m16n8k32.row.col.f32.e4m3.e4m3.f32 "
				 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
				 : "+f"(sums[0]), "+f"(sums[1]), "+f"(sums[2]), "+f"(sums[3])
				 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#elif defined(__CUDACC__)
	(void)sums, (void)a, (void)b;
#else
	shim_mma_e4m3(sums, a, b);
#endif
}

/* Four 8 x 8 matrices of 16-bit elements from shared memory: lane l gives the address of row l % 8
 * of matrix l / 8, 16 bytes of it, and gets of matrix i the pair 2 (l % 4) of row l / 4. */
static __device__ __forceinline__ void load_matrices(uint32_t to[4], const void *row)
{
#ifdef __CUDACC__
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
				 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
				 : "r"((uint32_t)__cvta_generic_to_shared(row))
				 : "memory");
#else
	shim_load_matrices(to, row, false);
#endif
}

/* The same, each matrix turned: the lane gets the pair 2 (l % 4) of column l / 4. */
static __device__ __forceinline__ void load_matrices_turned(uint32_t to[4], const void *row)
{
#ifdef __CUDACC__
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
				 : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
				 : "r"((uint32_t)__cvta_generic_to_shared(row))
				 : "memory");
#else
	shim_load_matrices(to, row, true);
#endif
}

/* ---- asynchronous copies to shared memory ---- */

/* 16 bytes, or zeros: there once the thread has waited for their group, for others behind a barrier
 * after that. */
static __device__ __forceinline__ void copy_async(void *to, const void *from, bool in)
{
#ifdef __CUDACC__
	asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(
					 (uint32_t)__cvta_generic_to_shared(to)),
				 "l"(from), "r"(in ? 16 : 0)
				 : "memory");
#else
	shim_copy_async(to, in ? from : NULL);
#endif
}

/* What was started since the last one is a group. */
static __device__ __forceinline__ void copy_commit(void)
{
#ifdef __CUDACC__
	asm volatile("cp.async.commit_group;" ::: "memory");
#else
	shim_copy_commit();
#endif
}

/* Until at most N groups are under way. */
template <int N> static __device__ __forceinline__ void copy_wait(void)
{
#ifdef __CUDACC__
	asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory");
#else
	shim_copy_wait(N);
#endif
}

/* ---- two BF16, four bytes ---- */

/* Both products, rounded. */
static __device__ __forceinline__ uint32_t multiply_bf16(uint32_t a, uint32_t b)
{
#ifdef __CUDACC__
	uint32_t y;
	asm("fma.rn.bf16x2 %0, %1, %2, %3;" : "=r"(y) : "r"(a), "r"(b), "r"(0x80008000u));
	return y;
#else
	return pack_bf16(from_bf16(a & 0xffff) * from_bf16(b & 0xffff),
					 from_bf16(a >> 16) * from_bf16(b >> 16));
#endif
}

/* Byte i is byte (at >> 4 i & 7) of b:a. */
static __device__ __forceinline__ uint32_t select_bytes(uint32_t a, uint32_t b, uint32_t at)
{
#ifdef __CUDACC__
	return __byte_perm(a, b, at);
#else
	uint64_t all = a | (uint64_t)b << 32;
	uint32_t y = 0;
	for (int i = 0; i < 4; i++)
		y |= (uint32_t)(all >> (8 * (at >> (4 * i) & 7)) & 0xff) << (8 * i);
	return y;
#endif
}

/* Four E4M3 codes as BF16: shifted to the place of BF16's exponent they are the value times 2^-120.
 */
static __device__ __forceinline__ void unpack_e4m3(uint32_t codes, uint32_t to[2])
{
	const uint32_t up = 0x7b807b80; // 2^120, twice
#pragma unroll
	for (int i = 0; i < 2; i++) {
		uint32_t wide = select_bytes(codes, 0, i ? 0x3424 : 0x1404);
		to[i] = multiply_bf16((wide & 0x80008000) | (wide & 0x7f007f00) >> 4, up);
	}
	if (((codes & 0x7f7f7f7f) + 0x01010101) & 0x80808080) // one of them is no number
#pragma unroll
		for (int i = 0; i < 4; i++)
			if ((codes >> (8 * i) & 0x7f) == 0x7f)
				to[i / 2] |= 0x7fc0u << (i % 2 * 16);
}

/* A factor in shared memory: element (i, k) at [i * outer + k * inner]. i is its row (A) or column
 * (B), k what is summed over. */
struct factor {
	const float *at;
	int outer, inner;
};

static __device__ __forceinline__ uint32_t factor_pair(const struct factor &f, int i, int k)
{
	const float *at = f.at + i * f.outer + k * f.inner;
	return pack_bf16(at[0], at[f.inner]);
}

/* sums += A[row..row+15, 0..depth-1] B[0..depth-1, column..column+7] of the whole warp; a lane's
 * four are those of mma_bf16. depth is a multiple of 16; what lies beyond the data is 0. */
template <bool NARROW>
static __device__ __forceinline__ void multiply_16x8(float sums[4], const struct factor &a, int row,
													 const struct factor &b, int column, int depth)
{
	int lane = threadIdx.x % WARP, g = lane / 4, c = lane % 4 * 2;
	if (NARROW) {
		for (int k = 0; k < depth; k += 16) {
			const uint32_t left[4] = {
				factor_pair(a, row + g, k + c), factor_pair(a, row + g + 8, k + c),
				factor_pair(a, row + g, k + c + 8), factor_pair(a, row + g + 8, k + c + 8)};
			const uint32_t right[2] = {factor_pair(b, column + g, k + c),
									   factor_pair(b, column + g, k + c + 8)};
			mma_bf16(sums, left, right);
		}
		return;
	}
	const float *a0 = a.at + (row + g) * a.outer, *a1 = a0 + 8 * a.outer;
	const float *b0 = b.at + (column + c) * b.outer, *b1 = b0 + b.outer;
	for (int k = 0; k < depth; k++) {
		sums[0] += a0[k * a.inner] * b0[k * b.inner];
		sums[1] += a0[k * a.inner] * b1[k * b.inner];
		sums[2] += a1[k * a.inner] * b0[k * b.inner];
		sums[3] += a1[k * a.inner] * b1[k * b.inner];
	}
}

/* Where a lane's sum i of multiply_16x8 stands in the 16 x 8. */
static __device__ __forceinline__ int mma_row(int i)
{
	return threadIdx.x % WARP / 4 + i / 2 * 8;
}

static __device__ __forceinline__ int mma_column(int i)
{
	return threadIdx.x % WARP % 4 * 2 + i % 2;
}

#endif
