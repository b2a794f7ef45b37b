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

/* E4M3 shifted up by 7 is the F16 pattern of the value times 2^-8, subnormals too; all ones (NaN)
 * would read as 480. */
static inline vec widen_e4m3(__m128i v)
{
	__m256i sign = _mm256_set1_epi16((int16_t)0x8000), ones = _mm256_set1_epi16((int16_t)0xbf80);
	__m256i half = _mm256_and_si256(_mm256_slli_epi16(_mm256_cvtepi8_epi16(v), 7), ones);
	__mmask16 nan = _mm256_cmpeq_epi16_mask(_mm256_or_si256(half, sign), ones);
	return _mm512_cvtph_ps(_mm256_mask_mov_epi16(half, nan, _mm256_set1_epi16(0x7e00)));
}

/* Eight bytes: bits 0-3 of lane 2j are byte j's low nibble, of lane 2j + 1 its high one; looking up
 * in sixteen values reads no other bits. */
static inline vec widen_e2m1(const uint8_t *p)
{
	__m512i code = _mm512_cvtepu8_epi64(_mm_loadl_epi64((const __m128i *)p));
	code = _mm512_or_si512(code, _mm512_slli_epi64(code, 28));
	return _mm512_permutexvar_ps(code, _mm512_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f,
													  -1, -1.5f, -2, -3, -4, -6));
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
#define vec_load_e4m3(p) widen_e4m3(_mm_loadu_si128((const __m128i *)(p)))
#define vec_load_e2m1(p) widen_e2m1(p)
#define vec_load_part_e4m3(p, n) widen_e4m3(_mm_maskz_loadu_epi8(first_n(n), p))
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
	.dot_f8 = dot_f8_avx512,
	.dot_nvfp4 = dot_nvfp4_avx512,
	.ssm_row = ssm_row,
	.exp = exp_all,
	.silu = silu,
	.blend_f32 = blend_f32,
	.blend_bf16 = blend_bf16,
	.blend_f8 = blend_e4m3,
};
