/*
 * What a warp does in attention of a few tokens: 4 query heads over 32 rows of the cache, which lie
 * in shared memory as they are stored, softmax online. Products and sums are in F32.
 */
#ifndef KERNELS_CUDA_ATTEND_CUH
#define KERNELS_CUDA_ATTEND_CUH

#include "kernels/cuda_cache.cuh"

#define WARP_HEADS 4
#define ATTEND_WARPS 8 // of a block

/* How rows and queries stand in shared memory. */
struct attend_layout {
	int row_bytes; // from one row of K or V to the next: 16 more than it has, against bank
				   // conflicts
	int n_chunks;  // 16 bytes of a row; 0 beyond head_dim
	int q_stride;  // floats, of a head of q; 0 beyond head_dim
	int width;     // head_dim up to a multiple of 4: what is summed up
};

static __host__ __device__ __forceinline__ struct attend_layout attend_layout(int head_dim,
																			  int size)
{
	struct attend_layout layout;
	layout.n_chunks = (head_dim * size + 15) / 16;
	layout.row_bytes = layout.n_chunks * 16 + 16;
	layout.q_stride = (head_dim + 15) / 16 * 16;
	layout.width = (head_dim + 3) / 4 * 4;
	return layout;
}

/* Relative to e^top; a lane has the channels from 4 (lane + 32 g) on, and of total its rows'. */
template <int G> struct sums {
	float y[WARP_HEADS][G][4];
	float top[WARP_HEADS], total[WARP_HEADS];
};

/* Value i of 16 bytes of a cache; i is known to the compiler. */
template <typename KV> static __device__ __forceinline__ float value_of(const uint4 &raw, int i)
{
	uint32_t words[4] = {raw.x, raw.y, raw.z, raw.w};
	if (sizeof(KV) == 4)
		return __uint_as_float(words[i % 4]);
	if (sizeof(KV) == 2)
		return from_bf16(words[i / 2 % 4] >> i % 2 * 16 & 0xffff);
	return from_e4m3(words[i / 4] >> i % 4 * 8 & 0xff);
}

static __device__ __forceinline__ void four_of(float v[4], const float *at)
{
	float4 f = *(const float4 *)at;
	v[0] = f.x;
	v[1] = f.y;
	v[2] = f.z;
	v[3] = f.w;
}
static __device__ __forceinline__ void four_of(float v[4], const uint16_t *at)
{
	uint2 u = *(const uint2 *)at;
	v[0] = from_bf16(u.x & 0xffff);
	v[1] = from_bf16(u.x >> 16);
	v[2] = from_bf16(u.y & 0xffff);
	v[3] = from_bf16(u.y >> 16);
}
static __device__ __forceinline__ void four_of(float v[4], const uint8_t *at)
{
	uint32_t u = *(const uint32_t *)at;
#pragma unroll
	for (int e = 0; e < 4; e++)
		v[e] = from_e4m3(u >> e * 8 & 0xff);
}

/* s[h] = q_h . k of the lane's row. Lanes 8 apart share 4 rows at first and take every fourth 16
 * bytes of them; what they found is added up so that each ends with the row of its number. */
template <typename KV>
static __device__ __forceinline__ void multiply_scores(float s[WARP_HEADS],
													   const struct attend_layout &layout,
													   const float *q, const unsigned char *k)
{
	const int VALUES = 16 / sizeof(KV);
	int lane = threadIdx.x % WARP, row_bytes = layout.row_bytes, q_stride = layout.q_stride;
	float part[4][WARP_HEADS]; // of the rows lane % 8 + 8 r
#pragma unroll
	for (int i = 0; i < 4 * WARP_HEADS; i++)
		part[i / WARP_HEADS][i % WARP_HEADS] = 0;
	k += lane % 8 * row_bytes;
	for (int c = lane / 8; c < layout.n_chunks; c += 4) {
		uint4 raw[4];
#pragma unroll
		for (int r = 0; r < 4; r++)
			raw[r] = *(const uint4 *)(k + 8 * r * row_bytes + c * 16);
#pragma unroll
		for (int i = 0; i < VALUES; i += 4) {
			float v[4][4];
#pragma unroll
			for (int e = 0; e < 16; e++)
				v[e / 4][e % 4] = value_of<KV>(raw[e / 4], i + e % 4);
#pragma unroll
			for (int h = 0; h < WARP_HEADS; h++) {
				float4 a = *(const float4 *)(q + h * q_stride + c * VALUES + i);
#pragma unroll
				for (int r = 0; r < 4; r++) {
					part[r][h] = fmaf(a.x, v[r][0], part[r][h]);
					part[r][h] = fmaf(a.y, v[r][1], part[r][h]);
					part[r][h] = fmaf(a.z, v[r][2], part[r][h]);
					part[r][h] = fmaf(a.w, v[r][3], part[r][h]);
				}
			}
		}
	}
	bool high = lane & 16, odd = lane & 8;
#pragma unroll
	for (int h = 0; h < WARP_HEADS; h++) {
		float even_row = high ? part[2][h] : part[0][h], odd_row = high ? part[3][h] : part[1][h];
		even_row += __shfl_xor_sync(FULL_WARP, high ? part[0][h] : part[2][h], 16);
		odd_row += __shfl_xor_sync(FULL_WARP, high ? part[1][h] : part[3][h], 16);
		s[h] = odd ? odd_row : even_row;
		s[h] += __shfl_xor_sync(FULL_WARP, odd ? even_row : odd_row, 8);
	}
}

/* n rows (at most 32, a lane a row) enter the sums. */
template <typename KV, int G>
static __device__ __forceinline__ void
add_rows(struct sums<G> &sums, const struct attend_layout &layout, const float *q,
		 const unsigned char *k, const unsigned char *v, int n)
{
	__shared__ float4 weights[ATTEND_WARPS][WARP];
	int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
	int row_bytes = layout.row_bytes, width = layout.width;
	float s[WARP_HEADS];
	multiply_scores<KV>(s, layout, q, k);
#pragma unroll
	for (int h = 0; h < WARP_HEADS; h++) {
		float max = warp_max(lane < n ? s[h] : -INFINITY), before = sums.top[h];
		max = max > before ? max : before;
		float less = before == max ? 1 : expf(before - max);
		s[h] = lane < n ? expf(s[h] - max) : 0;
		sums.top[h] = max;
		sums.total[h] = sums.total[h] * less + s[h];
#pragma unroll
		for (int i = 0; i < 4 * G; i++)
			sums.y[h][i / 4][i % 4] *= less;
	}
	__syncwarp(); // whoever reads the rows before
	weights[warp][lane] = make_float4(s[0], s[1], s[2], s[3]);
	__syncwarp();
#pragma unroll 4
	for (int j = 0; j < n; j++) {
		float4 w = weights[warp][j];
#pragma unroll
		for (int g = 0; g < G; g++) {
			int channel = 4 * (lane + WARP * g);
			float x[4];
			if (channel >= width)
				break;
			four_of(x, (const KV *)(v + j * row_bytes) + channel);
#pragma unroll
			for (int e = 0; e < 4; e++) {
				sums.y[0][g][e] = fmaf(w.x, x[e], sums.y[0][g][e]);
				sums.y[1][g][e] = fmaf(w.y, x[e], sums.y[1][g][e]);
				sums.y[2][g][e] = fmaf(w.z, x[e], sums.y[2][g][e]);
				sums.y[3][g][e] = fmaf(w.w, x[e], sums.y[3][g][e]);
			}
		}
	}
}

#endif
