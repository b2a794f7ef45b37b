/* Decoding NVFP4, for rungs compiled with AVX-512. */
#ifndef KERNELS_NVFP4_AVX512_H
#define KERNELS_NVFP4_AVX512_H

#include <immintrin.h>
#include <stdint.h>

#define SCALE_BLOCKS 16 // decoded at a time

/* E4M3 to F32: shifted up by 7 it is an F16 pattern, the value times 2^-8; NaN would read as 480.
 * n <= SCALE_BLOCKS, the rest is 0. */
static inline __attribute__((always_inline)) void decode_scales(const uint8_t *scales, int n,
																float out[SCALE_BLOCKS])
{
	__mmask16 mask = (__mmask16)((1u << n) - 1);
	__m256i wide = _mm256_cvtepi8_epi16(_mm_maskz_loadu_epi8(mask, scales));
	__m256i ones = _mm256_set1_epi16((int16_t)0xbf80), sign = _mm256_set1_epi16((int16_t)0x8000);
	__m256i half = _mm256_and_si256(_mm256_slli_epi16(wide, 7), ones);
	__mmask16 nan = _mm256_cmpeq_epi16_mask(_mm256_or_si256(half, sign), ones);
	half = _mm256_mask_mov_epi16(half, nan, _mm256_set1_epi16(0x7e00));
	_mm512_storeu_ps(out, _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256)));
}

/* The four scales at `four`, each in four lanes. */
static inline __attribute__((always_inline)) __m512 spread_scales(const float *four)
{
	const __m512i lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
	return _mm512_permutevar_ps(_mm512_broadcast_f32x4(_mm_loadu_ps(four)), lanes);
}

/* Rows are read in order; with scales as a second stream the prefetchers fall behind (measured: 7.9
 * GB/s from memory without, 10.5 with, as from L2). */
#define AHEAD 2048

/* 64 weights: 32 bytes, masked, as BF16: element 2i of low[i], 2i + 1 of high[i]. The table's
 * entries repeat, so a low nibble needs no mask and a high one a shift. */
static inline __attribute__((always_inline)) void decode_pairs(const uint8_t *codes, __mmask32 mask,
															   __m512i *low, __m512i *high)
{
	const __m512i table = _mm512_broadcast_i64x4(
		_mm256_setr_epi16(0, 0x3f00, 0x3f80, 0x3fc0, 0x4000, 0x4040, 0x4080, 0x40c0,
						  (int16_t)0x8000, (int16_t)0xbf00, (int16_t)0xbf80, (int16_t)0xbfc0,
						  (int16_t)0xc000, (int16_t)0xc040, (int16_t)0xc080, (int16_t)0xc0c0));
	_mm_prefetch((const char *)codes + AHEAD, _MM_HINT_T0); // past the end: no fault
	__m512i pair = _mm512_cvtepu8_epi16(_mm256_maskz_loadu_epi8(mask, codes));
	*low = _mm512_permutexvar_epi16(pair, table);
	*high = _mm512_permutexvar_epi16(_mm512_srli_epi16(pair, 4), table);
}

#endif
