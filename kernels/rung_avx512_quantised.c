/*
 * FP8 and NVFP4 against F32 activations, where a look at more elements at once pays.
 *
 * FP8, 32 weights a step: bytes widened to words are F16 patterns once shifted; NaN, which would
 * read as 480, is looked for apart.
 *
 * NVFP4, 64 weights a step: 32 bytes widened to words, two look-ups in a table of BF16 values (its
 * entries repeat, so a low nibble needs no mask and a high one a shift), halves of words as F32.
 * Lane i then holds elements 4i, 4i + 1, 4i + 2 and 4i + 3, so activations are put into that order
 * once a call; four lanes share a block and its scale.
 */
#include "kernels/nvfp4_avx512.h"
#include "kernels/rung.h"
#include <immintrin.h>
#include <math.h>

#define STEP 64
#define CHUNK 2048 // columns whose activations are put in order at a time; a fixed order of sums
#define TILE_R 2   // rows x tokens whose sums stay in registers
#define TILE_T 4

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

/* x[64 g + 4 i + k] to out[64 g + 16 k + i], zeros to the end of the last step. */
static void put_in_order(const float *x, int n, float *out)
{
	const __m512i each4 =
		_mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
	for (int j = 0; j < n; j += STEP, out += STEP) {
		__m512 part[4];
		UNROLL for (int i = 0; i < 4; i++) // n is a multiple of 16
			part[i] = j + 16 * i < n ? _mm512_loadu_ps(x + j + 16 * i) : _mm512_setzero_ps();
		UNROLL for (int k = 0; k < 4; k++)
		{
			__m512i index = _mm512_add_epi32(each4, _mm512_set1_epi32(k));
			__m512 low = _mm512_permutex2var_ps(part[0], index, part[1]);
			__m512 high = _mm512_permutex2var_ps(part[2], index, part[3]);
			_mm512_storeu_ps(out + 16 * k, _mm512_mask_mov_ps(low, 0xff00, high));
		}
	}
}

struct operands {
	const uint8_t *codes[TILE_R], *scales[TILE_R]; // a row each
	const float *x[TILE_T];                        // in order
};

/* 64 columns from j on: sum[r][t] += W[r] x[t]. decoded: scales of 16 blocks from a multiple of 256
 * columns on. */
INLINE void step(const struct operands *o, int j, __mmask32 mask,
				 float decoded[TILE_R][SCALE_BLOCKS], int R, int T, __m512 sum[TILE_R][TILE_T])
{
	const __m512i high = _mm512_set1_epi32((int32_t)0xffff0000);
	__m512 p[TILE_R][TILE_T], w[TILE_R][4];
	UNROLL for (int r = 0; r < R; r++)
	{
		__m512i even, odd;
		decode_pairs(o->codes[r] + j / 2, mask, &even, &odd);
		w[r][0] = _mm512_castsi512_ps(_mm512_slli_epi32(even, 16));
		w[r][1] = _mm512_castsi512_ps(_mm512_slli_epi32(odd, 16));
		w[r][2] = _mm512_castsi512_ps(_mm512_and_si512(even, high));
		w[r][3] = _mm512_castsi512_ps(_mm512_and_si512(odd, high));
	}
	UNROLL for (int k = 0; k < 4; k++) UNROLL for (int t = 0; t < T; t++)
	{
		__m512 x = _mm512_loadu_ps(o->x[t] + j + 16 * k);
		UNROLL for (int r = 0; r < R; r++) p[r][t] =
			k ? _mm512_fmadd_ps(w[r][k], x, p[r][t]) : _mm512_mul_ps(w[r][k], x);
	}
	UNROLL for (int r = 0; r < R; r++)
	{
		__m512 scale = spread_scales(decoded[r] + j / NVFP4_BLOCK % SCALE_BLOCKS);
		UNROLL for (int t = 0; t < T; t++) sum[r][t] = _mm512_fmadd_ps(p[r][t], scale, sum[r][t]);
	}
}

/* R rows against T tokens, columns [0, n): sums of the chunk. */
INLINE void tile(const struct operands *o, int n, int R, int T, float out[TILE_R][TILE_T])
{
	float decoded[TILE_R][SCALE_BLOCKS];
	__m512 sum[TILE_R][TILE_T];
	UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < T; t++) sum[r][t] =
		_mm512_setzero_ps();
	int j = 0;
	for (; j + 4 * STEP <= n; j += 4 * STEP) {
		UNROLL for (int r = 0; r < R; r++)
			decode_scales(o->scales[r] + j / NVFP4_BLOCK, SCALE_BLOCKS, decoded[r]);
		UNROLL for (int i = 0; i < 4; i++) step(o, j + i * STEP, ~(__mmask32)0, decoded, R, T, sum);
	}
	if (j < n)
		UNROLL for (int r = 0; r < R; r++)
			decode_scales(o->scales[r] + j / NVFP4_BLOCK, (n - j) / NVFP4_BLOCK, decoded[r]);
	for (; j < n; j += STEP) {
		int left = n - j;
		__mmask32 mask = left >= STEP ? ~(__mmask32)0 : (__mmask32)((UINT32_C(1) << left / 2) - 1);
		step(o, j, mask, decoded, R, T, sum);
	}
	UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < T; t++) out[r][t] =
		_mm512_reduce_add_ps(sum[r][t]);
}

/* Columns [from, from + n) of rows [r, r + R), for n_x tokens from t0 on. */
INLINE void rows(const struct product *p, struct operands *o, int r, int R, int from, int n, int t0,
				 int n_x)
{
	float sums[TILE_R][TILE_T];
	for (int i = 0; i < R; i++) {
		o->codes[i] = (const uint8_t *)p->w + ((r + i) * p->w_stride + from) / 2;
		o->scales[i] = p->scales + (r + i) * p->scale_stride + from / NVFP4_BLOCK;
	}
	if (n_x == TILE_T)
		tile(o, n, R, TILE_T, sums);
	for (int t = 0; n_x < TILE_T && t < n_x; t++) {
		struct operands one = *o;
		float of_one[TILE_R][TILE_T];
		one.x[0] = o->x[t];
		tile(&one, n, R, 1, of_one);
		for (int i = 0; i < R; i++)
			sums[i][t] = of_one[i][0];
	}
	for (int i = 0; i < R; i++)
		for (int t = 0; t < n_x; t++) {
			float *out = &p->out[(t0 + t) * p->out_stride + r + i];
			*out = from ? *out + sums[i][t] : sums[i][t];
		}
}

/* All rows; one long row at a time for a single token is one stream for the prefetcher. */
static void columns(const struct product *p, int from, int n, int t0, int n_x)
{
	float ordered[TILE_T][CHUNK];
	struct operands o;
	int r = 0;
	for (int t = 0; t < n_x; t++) {
		put_in_order((const float *)p->x[t0 + t] + from, n, ordered[t]);
		o.x[t] = ordered[t];
	}
	for (; n_x > 1 && r + TILE_R <= p->n_w; r += TILE_R)
		rows(p, &o, r, TILE_R, from, n, t0, n_x);
	for (; r < p->n_w; r++)
		rows(p, &o, r, 1, from, n, t0, n_x);
}

void dot_nvfp4_avx512(const struct product *p)
{
	for (int t0 = 0; t0 < p->n_x; t0 += TILE_T) {
		int n_x = p->n_x - t0 < TILE_T ? p->n_x - t0 : TILE_T;
		for (int from = 0; from < p->n || from == 0; from += CHUNK)
			columns(p, from, p->n - from < CHUNK ? p->n - from : CHUNK, t0, n_x);
		for (int t = t0; t < t0 + n_x; t++)
			for (int r = 0; r < p->n_w; r++)
				p->out[t * p->out_stride + r] *= p->scale;
	}
}

/* ---- FP8 ---- */

static bool has_nan(const uint8_t *codes, int n)
{
	__m512i most = _mm512_setzero_si512(), bits = _mm512_set1_epi8(0x7f);
	for (int j = 0; j < n; j += 64) {
		__mmask64 mask = n - j >= 64 ? ~(__mmask64)0 : ((__mmask64)1 << (n - j)) - 1;
		__m512i part = _mm512_maskz_loadu_epi8(mask, codes + j);
		most = _mm512_max_epu8(most, _mm512_and_si512(part, bits));
	}
	return _mm512_cmpeq_epi8_mask(most, bits) != 0;
}

/* 32 columns from j on, the values times 2^-8; NaN reads as 1.875. */
INLINE void f8_step(const uint8_t *const codes[TILE_R], const float *const x[TILE_T], int j,
					__mmask32 mask, int R, int T, __m512 sum[TILE_R][TILE_T][2])
{
	const __m512i ones = _mm512_set1_epi16((int16_t)0xbf80);
	__mmask16 halves[2] = {(__mmask16)mask, (__mmask16)(mask >> 16)};
	__m512 w[TILE_R][2];
	UNROLL for (int r = 0; r < R; r++)
	{
		__m512i wide = _mm512_cvtepi8_epi16(_mm256_maskz_loadu_epi8(mask, codes[r] + j));
		wide = _mm512_and_si512(_mm512_slli_epi16(wide, 7), ones);
		w[r][0] = _mm512_cvtph_ps(_mm512_castsi512_si256(wide));
		w[r][1] = _mm512_cvtph_ps(_mm512_extracti64x4_epi64(wide, 1));
	}
	UNROLL for (int k = 0; k < 2; k++) UNROLL for (int t = 0; t < T; t++)
	{
		__m512 xs = _mm512_maskz_loadu_ps(halves[k], x[t] + j + 16 * k);
		UNROLL for (int r = 0; r < R; r++) sum[r][t][k] =
			_mm512_fmadd_ps(w[r][k], xs, sum[r][t][k]);
	}
}

INLINE void f8_tile(const struct product *p, int r0, int t0, int R, int T)
{
	const uint8_t *codes[TILE_R];
	const float *x[TILE_T];
	__m512 sum[TILE_R][TILE_T][2];
	UNROLL for (int r = 0; r < R; r++)
	{
		codes[r] = (const uint8_t *)p->w + (r0 + r) * p->w_stride;
		UNROLL for (int t = 0; t < T; t++) sum[r][t][0] = sum[r][t][1] = _mm512_setzero_ps();
	}
	UNROLL for (int t = 0; t < T; t++) x[t] = p->x[t0 + t];
	int j = 0;
	for (; j + 32 <= p->n; j += 32)
		f8_step(codes, x, j, ~(__mmask32)0, R, T, sum);
	if (j < p->n)
		f8_step(codes, x, j, (__mmask32)((UINT32_C(1) << (p->n - j)) - 1), R, T, sum);
	UNROLL for (int r = 0; r < R; r++)
	{
		float scale = 256 * p->scale;
		if (has_nan(codes[r], p->n))
			scale = NAN;
		UNROLL for (int t = 0; t < T; t++) p->out[(t0 + t) * p->out_stride + r0 + r] =
			_mm512_reduce_add_ps(_mm512_add_ps(sum[r][t][0], sum[r][t][1])) * scale;
	}
}

void dot_f8_avx512(const struct product *p)
{
	int r = 0;
	for (; p->n_x > 1 && r + TILE_R <= p->n_w; r += TILE_R) {
		int t = 0;
		for (; t + TILE_T <= p->n_x; t += TILE_T)
			f8_tile(p, r, t, TILE_R, TILE_T);
		for (; t < p->n_x; t++)
			f8_tile(p, r, t, TILE_R, 1);
	}
	for (; r < p->n_w; r++) {
		int t = 0;
		for (; t + TILE_T <= p->n_x; t += TILE_T)
			f8_tile(p, r, t, 1, TILE_T);
		for (; t < p->n_x; t++)
			f8_tile(p, r, t, 1, 1);
	}
}
