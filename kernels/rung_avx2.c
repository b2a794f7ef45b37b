/* AVX2, FMA, F16C: eight lanes, tails through a zeroed copy. Compiled for these alone; see rung.c.
 */
#include "kernels/rung.h"
#include <immintrin.h>
#include <string.h>

#define LANES 8
#define TILE_R 2
#define TILE_T 3
#define BLEND_Y 4
#define BLEND_V 2

typedef __m256 vec;

static inline vec widen_bf16(__m128i v)
{
	return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}

/* E4M3 shifted up by 7 is the F16 pattern of the value times 2^-8, subnormals too; all ones (NaN)
 * would read as 480. */
static inline vec widen_e4m3(__m128i v)
{
	__m128i sign = _mm_set1_epi16((int16_t)0x8000), ones = _mm_set1_epi16((int16_t)0xbf80);
	__m128i half = _mm_and_si128(_mm_slli_epi16(_mm_cvtepi8_epi16(v), 7), ones);
	__m128i nan = _mm_cmpeq_epi16(_mm_or_si128(half, sign), ones);
	return _mm256_cvtph_ps(_mm_or_si128(half, _mm_and_si128(nan, _mm_set1_epi16(0x7e00))));
}

/* Four bytes: a lane's nibble to its low end; three bits look up the magnitude, the fourth is the
 * sign. */
static inline vec widen_e2m1(const uint8_t *p)
{
	int32_t bytes;
	memcpy(&bytes, p, sizeof bytes);
	__m256i code =
		_mm256_srlv_epi32(_mm256_set1_epi32(bytes), _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
	__m256i sign =
		_mm256_and_si256(_mm256_slli_epi32(code, 28), _mm256_set1_epi32((int32_t)0x80000000));
	vec magnitude = _mm256_permutevar8x32_ps(_mm256_setr_ps(0, 0.5f, 1, 1.5f, 2, 3, 4, 6), code);
	return _mm256_or_ps(magnitude, _mm256_castsi256_ps(sign));
}

static inline __m128i copy_8(const uint8_t *p, int n)
{
	uint8_t copy[16] = {0};
	memcpy(copy, p, (size_t)n);
	return _mm_loadu_si128((const __m128i *)copy);
}

static inline vec copy_f32(const float *p, int n)
{
	float copy[LANES] = {0};
	memcpy(copy, p, (size_t)n * sizeof *p);
	return _mm256_loadu_ps(copy);
}

static inline __m128i copy_16(const uint16_t *p, int n)
{
	uint16_t copy[LANES] = {0};
	memcpy(copy, p, (size_t)n * sizeof *p);
	return _mm_loadu_si128((const __m128i *)copy);
}

static inline void store_part(float *p, vec a, int n)
{
	float copy[LANES];
	_mm256_storeu_ps(copy, a);
	memcpy(p, copy, (size_t)n * sizeof *p);
}

static inline float sum_lanes(vec a)
{
	__m128 half = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
	half = _mm_add_ps(half, _mm_movehl_ps(half, half));
	return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}

/* a * 2^n in two steps, as 2^n alone may be no normal number. */
static inline vec scale(vec a, vec n)
{
	__m256i whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1),
			bias = _mm256_set1_epi32(127);
	__m256i rest = _mm256_sub_epi32(whole, half);
	a = _mm256_mul_ps(a, _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23)));
	return _mm256_mul_ps(a,
						 _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23)));
}

#define vec_zero() _mm256_setzero_ps()
#define vec_set(a) _mm256_set1_ps(a)
#define vec_add(a, b) _mm256_add_ps(a, b)
#define vec_mul(a, b) _mm256_mul_ps(a, b)
#define vec_fma(a, b, c) _mm256_fmadd_ps(a, b, c)
#define vec_div(a, b) _mm256_div_ps(a, b)
#define vec_min(a, b) _mm256_min_ps(a, b)
#define vec_max(a, b) _mm256_max_ps(a, b)
#define vec_round(a) _mm256_round_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)
#define vec_scale(a, n) scale(a, n)
#define vec_sum(a) sum_lanes(a)
#define vec_load_f32(p) _mm256_loadu_ps(p)
#define vec_load_bf16(p) widen_bf16(_mm_loadu_si128((const __m128i *)(p)))
#define vec_load_f16(p) _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(p)))
#define vec_load_e4m3(p) widen_e4m3(_mm_loadl_epi64((const __m128i *)(p)))
#define vec_load_e2m1(p) widen_e2m1(p)
#define vec_load_part_e4m3(p, n) widen_e4m3(copy_8(p, n))
#define vec_load_part_f32(p, n) copy_f32(p, n)
#define vec_load_part_bf16(p, n) widen_bf16(copy_16(p, n))
#define vec_load_part_f16(p, n) _mm256_cvtph_ps(copy_16(p, n))
#define vec_store(p, a) _mm256_storeu_ps(p, a)
#define vec_store_part(p, a, n) store_part(p, a, n)

#include "kernels/rung_simd.h"

const struct cpu_rung rung_avx2 = {
	.name = "avx2",
	.dot_f32 = dot_f32,
	.dot_bf16 = dot_bf16,
	.dot_f16 = dot_f16,
	.dot_f8 = dot_f8,
	.dot_nvfp4 = dot_nvfp4,
	.ssm_row = ssm_row,
	.exp = exp_all,
	.silu = silu,
	.blend_f32 = blend_f32,
	.blend_bf16 = blend_bf16,
	.blend_f8 = blend_e4m3,
};
