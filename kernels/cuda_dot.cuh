/*
 * The inner product that decoding lives by: a warp multiplies R stored rows with T activation rows,
 * every lane loading 8 weights (NVFP4: a block of 16) at a time, 16 bytes of BF16. What a weight
 * needs is unpacked to F32; sums are F32. The order of summation depends on the matrix alone: not
 * on T, so that tokens do not change when they share a call.
 */
#ifndef KERNELS_CUDA_DOT_CUH
#define KERNELS_CUDA_DOT_CUH

#include "kernels/cuda_kernel.cuh"

/* Elements a lane takes at once. */
template <enum dtype D> struct at_once {
	enum { n = D == DTYPE_NVFP4 ? NVFP4_BLOCK : 8 };
};

/* The bytes that they are stored in. */
template <enum dtype D> struct pack {
	uint4 a; // BF16, F16
};
template <> struct pack<DTYPE_F32> {
	float4 a, b;
};
template <> struct pack<DTYPE_F8_E4M3> {
	uint2 a;
};
template <> struct pack<DTYPE_NVFP4> {
	uint2 a;
	float scale; // of the block
};

template <enum dtype D>
static __device__ __forceinline__ void load(struct pack<D> &p, const void *row, const uint8_t *,
											int64_t j)
{
	p.a = __ldg((const uint4 *)((const uint16_t *)row + j));
}
template <>
__device__ __forceinline__ void load(struct pack<DTYPE_F32> &p, const void *row, const uint8_t *,
									 int64_t j)
{
	p.a = __ldg((const float4 *)((const float *)row + j));
	p.b = __ldg((const float4 *)((const float *)row + j + 4));
}
template <>
__device__ __forceinline__ void load(struct pack<DTYPE_F8_E4M3> &p, const void *row,
									 const uint8_t *, int64_t j)
{
	p.a = __ldg((const uint2 *)((const uint8_t *)row + j));
}
template <>
__device__ __forceinline__ void load(struct pack<DTYPE_NVFP4> &p, const void *row,
									 const uint8_t *scales, int64_t j)
{
	p.a = __ldg((const uint2 *)((const uint8_t *)row + j / 2));
	p.scale = from_e4m3(__ldg(scales + j / NVFP4_BLOCK));
}

template <enum dtype D>
static __device__ __forceinline__ void unpack(const struct pack<D> &p, float w[8])
{
	const uint32_t words[4] = {p.a.x, p.a.y, p.a.z, p.a.w};
#pragma unroll
	for (int i = 0; i < 4; i++) {
		w[2 * i] = D == DTYPE_BF16 ? from_bf16(words[i] & 0xffff) : from_f16(words[i] & 0xffff);
		w[2 * i + 1] =
			D == DTYPE_BF16 ? __uint_as_float(words[i] & 0xffff0000u) : from_f16(words[i] >> 16);
	}
}
template <> __device__ __forceinline__ void unpack(const struct pack<DTYPE_F32> &p, float w[8])
{
	w[0] = p.a.x, w[1] = p.a.y, w[2] = p.a.z, w[3] = p.a.w;
	w[4] = p.b.x, w[5] = p.b.y, w[6] = p.b.z, w[7] = p.b.w;
}
template <> __device__ __forceinline__ void unpack(const struct pack<DTYPE_F8_E4M3> &p, float w[8])
{
	const uint32_t words[2] = {p.a.x, p.a.y};
#pragma unroll
	for (int i = 0; i < 8; i++)
		w[i] = from_e4m3(words[i / 4] >> (8 * (i % 4)) & 0xff);
}
template <> __device__ __forceinline__ void unpack(const struct pack<DTYPE_NVFP4> &p, float w[16])
{
	const uint32_t words[2] = {p.a.x, p.a.y};
#pragma unroll
	for (int i = 0; i < 16; i++)
		w[i] = from_e2m1(words[i / 8] >> (4 * (i % 8)) & 15) * p.scale;
}

/* Where stored rows lie, by the row. */
template <enum dtype D>
static __device__ __forceinline__ const void *row_at(const struct placed &at, int64_t stride,
													 int64_t row)
{
	int64_t elements = row * stride;
	return (const char *)at.data + (D == DTYPE_NVFP4     ? elements / 2
									: D == DTYPE_F32     ? elements * 4
									: D == DTYPE_F8_E4M3 ? elements
														 : elements * 2);
}

/* One span of columns, whole steps: sums[r][t] += the row r's part . x[t]'s. */
template <enum dtype D, int R, int T>
static __device__ __forceinline__ void
dot_steps(const void *const rows[R], const uint8_t *const scales[R], const float *x,
		  int64_t x_stride, int start, int length, float sums[R][T])
{
	const int each = at_once<D>::n;
	int lane = threadIdx.x % WARP;
#pragma unroll 4
	for (int j = lane * each; j < length; j += WARP * each) {
		struct pack<D> packs[R];
#pragma unroll
		for (int r = 0; r < R; r++)
			load<D>(packs[r], rows[r], scales[r], start + j);
#pragma unroll
		for (int r = 0; r < R; r++) {
			float w[at_once<D>::n];
			unpack<D>(packs[r], w);
#pragma unroll
			for (int t = 0; t < T; t++) {
				const float4 *v = (const float4 *)(x + t * x_stride + j);
#pragma unroll
				for (int i = 0; i < each / 4; i++) {
					float4 part = v[i];
					sums[r][t] += w[4 * i] * part.x;
					sums[r][t] += w[4 * i + 1] * part.y;
					sums[r][t] += w[4 * i + 2] * part.z;
					sums[r][t] += w[4 * i + 3] * part.w;
				}
			}
		}
	}
}

/* The same where nothing is aligned: an element a lane. */
template <enum dtype D, int R, int T>
static __device__ __forceinline__ void
dot_elements(const void *const rows[R], const uint8_t *const scales[R], const float *x,
			 int64_t x_stride, int start, int length, float sums[R][T])
{
	for (int j = threadIdx.x % WARP; j < length; j += WARP)
		for (int r = 0; r < R; r++) {
			float w = element<D>(rows[r], start + j);
			if (D == DTYPE_NVFP4)
				w *= from_e4m3(scales[r][(start + j) / NVFP4_BLOCK]);
			for (int t = 0; t < T; t++)
				sums[r][t] += w * x[t * x_stride + j];
		}
}

/* sums[r][t] = (W x[t])[first + r] for the kept rows first..first+R-1 (the last one again where
 * there are fewer); every lane gets them. at: where the matrix lies (experts share a view). */
template <enum dtype D, int R, int T>
static __device__ __forceinline__ void dot_rows(const struct cuda_view &m, const struct placed &at,
												bool aligned, int first, const float *x,
												int64_t x_stride, float sums[R][T])
{
	const void *rows[R];
	const uint8_t *scales[R];
	int packed = 0;
#pragma unroll
	for (int r = 0; r < R; r++) {
		int row = first + r < m.n_rows ? first + r : m.n_rows - 1;
		int64_t stored = stored_row(m, row);
		rows[r] = row_at<D>(at, m.stride, stored);
		scales[r] = D == DTYPE_NVFP4 ? at.scales + stored * m.stride / NVFP4_BLOCK : NULL;
#pragma unroll
		for (int t = 0; t < T; t++)
			sums[r][t] = 0;
	}
	for (int s = 0; s < m.n_column_spans; s++) {
		struct span span = column_span(m, s);
		if (aligned)
			dot_steps<D, R, T>(rows, scales, x + packed, x_stride, span.start, span.length, sums);
		else
			dot_elements<D, R, T>(rows, scales, x + packed, x_stride, span.start, span.length,
								  sums);
		packed += span.length;
	}
#pragma unroll
	for (int r = 0; r < R; r++)
#pragma unroll
		for (int t = 0; t < T; t++) {
			sums[r][t] = warp_sum(sums[r][t]);
			if (D == DTYPE_F8_E4M3 || D == DTYPE_NVFP4)
				sums[r][t] *= at.scale;
		}
}

#endif
