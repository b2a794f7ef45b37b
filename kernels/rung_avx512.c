/* AVX-512 F, BW, VL, DQ: sixteen lanes, tails by mask. Compiled for these alone; see rung.c. */
#include "kernels/rung.h"
#include <immintrin.h>

#define LANES 16
#define TILE_R 3
#define TILE_T 4
#define BLEND_Y 4
#define BLEND_V 4

typedef __m512 vec;

static inline __mmask16 first_n(int n)
{
	return (__mmask16)((1u << n) - 1);
}

static inline vec widen_bf16(__m256i v)
{
	return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}

#define vec_zero() _mm512_setzero_ps()
#define vec_set(a) _mm512_set1_ps(a)
#define vec_add(a, b) _mm512_add_ps(a, b)
#define vec_mul(a, b) _mm512_mul_ps(a, b)
#define vec_fma(a, b, c) _mm512_fmadd_ps(a, b, c)
#define vec_div(a, b) _mm512_div_ps(a, b)
#define vec_min(a, b) _mm512_min_ps(a, b)
#define vec_max(a, b) _mm512_max_ps(a, b)
#define vec_round(a) _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define vec_scale(a, n) _mm512_scalef_ps(a, n)
#define vec_sum(a) _mm512_reduce_add_ps(a)
#define vec_load_f32(p) _mm512_loadu_ps(p)
#define vec_load_bf16(p) widen_bf16(_mm256_loadu_si256((const __m256i *)(p)))
#define vec_load_f16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(p)))
#define vec_load_part_f32(p, n) _mm512_maskz_loadu_ps(first_n(n), p)
#define vec_load_part_bf16(p, n) widen_bf16(_mm256_maskz_loadu_epi16(first_n(n), p))
#define vec_load_part_f16(p, n) _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_n(n), p))
#define vec_store(p, a) _mm512_storeu_ps(p, a)
#define vec_store_part(p, a, n) _mm512_mask_storeu_ps(p, first_n(n), a)

#include "kernels/rung_simd.h"

const struct cpu_rung rung_avx512 = {
	.name = "avx512",
	.dot_f32 = dot_f32,
	.dot_bf16 = dot_bf16,
	.dot_f16 = dot_f16,
	.ssm_row = ssm_row,
	.exp = exp_all,
	.silu = silu,
	.blend_f32 = blend_f32,
	.blend_bf16 = blend_bf16,
};
