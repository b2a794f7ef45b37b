/*
 * vdpbf16ps on weights as mapped and activations rounded to BF16: 32 products an instruction. On
 * Zen 4 it runs at twice the speed of F32 multiply-adds (on Intel at half of it, so rung.c does not
 * use it there).
 */
#include "kernels/nvfp4_avx512.h"
#include "kernels/rung.h"
#include <immintrin.h>

#define LANES 32
#define SHORT_ROW 512
#define TILE_R 3
#define TILE_T 4
#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

static inline __mmask32 first_n(int n)
{
	return n < LANES ? (__mmask32)((UINT32_C(1) << n) - 1) : ~(__mmask32)0;
}

INLINE __m512bh load(const uint16_t *p, __mmask32 mask)
{
	return (__m512bh)_mm512_maskz_loadu_epi16(mask, p);
}

/* Chunk c of 32 goes to partial sum c % 2, in every tile shape. */
INLINE void tile(const struct product *p, int r0, int t0, int R, int T)
{
	__m512 sum[TILE_R][TILE_T][2];
	__m512bh xs[TILE_T];
	const uint16_t *w[TILE_R], *x[TILE_T];
	UNROLL for (int r = 0; r < R; r++)
	{
		w[r] = (const uint16_t *)p->w + (r0 + r) * p->w_stride;
		UNROLL for (int t = 0; t < T; t++) sum[r][t][0] = sum[r][t][1] = _mm512_setzero_ps();
	}
	UNROLL for (int t = 0; t < T; t++) x[t] = p->x[t0 + t];
	int j = 0;
	for (; j + 2 * LANES <= p->n; j += 2 * LANES)
		UNROLL for (int half = 0; half < 2; half++)
		{
			int at = j + half * LANES;
			UNROLL for (int t = 0; t < T; t++) xs[t] = load(x[t] + at, ~(__mmask32)0);
			UNROLL for (int r = 0; r < R; r++)
			{
				__m512bh ws = load(w[r] + at, ~(__mmask32)0);
				UNROLL for (int t = 0; t < T; t++) sum[r][t][half] =
					_mm512_dpbf16_ps(sum[r][t][half], ws, xs[t]);
			}
		}
	for (; j < p->n; j += LANES) {
		__mmask32 mask = first_n(p->n - j);
		UNROLL for (int t = 0; t < T; t++) xs[t] = load(x[t] + j, mask);
		UNROLL for (int r = 0; r < R; r++)
		{
			__m512bh ws = load(w[r] + j, mask);
			UNROLL for (int t = 0; t < T; t++) sum[r][t][0] =
				_mm512_dpbf16_ps(sum[r][t][0], ws, xs[t]);
		}
	}
	UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < T; t++)
		p->out[(t0 + t) * p->out_stride + r0 + r] =
		_mm512_reduce_add_ps(_mm512_add_ps(sum[r][t][0], sum[r][t][1]));
}

void dot_bf16_bf16_avx512(const struct product *p)
{
	int r = 0;
	if (p->n_x > 1 || p->n <= SHORT_ROW) {
		for (; r + TILE_R <= p->n_w; r += TILE_R) {
			int t = 0;
			for (; t + TILE_T <= p->n_x; t += TILE_T)
				tile(p, r, t, TILE_R, TILE_T);
			for (; t < p->n_x; t++)
				tile(p, r, t, TILE_R, 1);
		}
	}
	for (; r < p->n_w; r++) {
		int t = 0;
		for (; t + TILE_T <= p->n_x; t += TILE_T)
			tile(p, r, t, 1, TILE_T);
		for (; t < p->n_x; t++)
			tile(p, r, t, 1, 1);
	}
}

/* ---- NVFP4: look-ups give BF16, four lanes share a block and its scale ---- */

#define STEP 64
#define CHUNK 2048 // columns whose activations are split at a time; a fixed order of sums

/* Of every 64: elements 2i first, then 2i + 1; zeros to the end of the last step. */
static void split(const uint16_t *x, int n, uint16_t *out)
{
	__m512i odd = _mm512_cvtepi8_epi16(_mm256_setr_epi8(1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23,
														25, 27, 29, 31, 33, 35, 37, 39, 41, 43, 45,
														47, 49, 51, 53, 55, 57, 59, 61, 63));
	__m512i even = _mm512_sub_epi16(odd, _mm512_set1_epi16(1));
	for (int j = 0; j < n; j += STEP, out += STEP) {
		int left = n - j;
		__m512i low = _mm512_maskz_loadu_epi16(first_n(left), x + j);
		__m512i high = left > LANES ? _mm512_maskz_loadu_epi16(first_n(left - LANES), x + j + LANES)
									: _mm512_setzero_si512();
		_mm512_storeu_si512(out, _mm512_permutex2var_epi16(low, even, high));
		_mm512_storeu_si512(out + LANES, _mm512_permutex2var_epi16(low, odd, high));
	}
}

struct operands {
	const uint8_t *codes, *scales; // of a row
	const uint16_t *x[TILE_T];     // split
};

INLINE void nvfp4_step(const struct operands *o, int j, __mmask32 mask, const float *decoded, int T,
					   __m512 sum[TILE_T])
{
	__m512i low, high;
	decode_pairs(o->codes + j / 2, mask, &low, &high);
	__m512 scale = spread_scales(decoded + j / NVFP4_BLOCK % SCALE_BLOCKS);
	UNROLL for (int t = 0; t < T; t++)
	{
		__m512 p = _mm512_dpbf16_ps(_mm512_setzero_ps(), (__m512bh)low,
									(__m512bh)_mm512_loadu_si512(o->x[t] + j));
		p = _mm512_dpbf16_ps(p, (__m512bh)high, (__m512bh)_mm512_loadu_si512(o->x[t] + j + LANES));
		sum[t] = _mm512_fmadd_ps(p, scale, sum[t]);
	}
}

INLINE void nvfp4_row(const struct operands *o, int n, int T, float out[TILE_T])
{
	float decoded[SCALE_BLOCKS];
	__m512 sum[TILE_T];
	UNROLL for (int t = 0; t < T; t++) sum[t] = _mm512_setzero_ps();
	int j = 0;
	for (; j + 4 * STEP <= n; j += 4 * STEP) {
		decode_scales(o->scales + j / NVFP4_BLOCK, SCALE_BLOCKS, decoded);
		UNROLL for (int i = 0; i < 4; i++)
			nvfp4_step(o, j + i * STEP, ~(__mmask32)0, decoded, T, sum);
	}
	if (j < n)
		decode_scales(o->scales + j / NVFP4_BLOCK, (n - j) / NVFP4_BLOCK, decoded);
	for (; j < n; j += STEP)
		nvfp4_step(o, j, first_n((n - j) / 2), decoded, T, sum);
	UNROLL for (int t = 0; t < T; t++) out[t] = _mm512_reduce_add_ps(sum[t]);
}

static void nvfp4_columns(const struct product *p, int from, int n, int t0, int n_x)
{
	uint16_t x[TILE_T][CHUNK];
	struct operands o;
	for (int t = 0; t < n_x; t++) {
		split((const uint16_t *)p->x[t0 + t] + from, n, x[t]);
		o.x[t] = x[t];
	}
	for (int r = 0; r < p->n_w; r++) {
		float sums[TILE_T];
		o.codes = (const uint8_t *)p->w + (r * p->w_stride + from) / 2;
		o.scales = p->scales + r * p->scale_stride + from / NVFP4_BLOCK;
		if (n_x == TILE_T)
			nvfp4_row(&o, n, TILE_T, sums);
		for (int t = 0; n_x < TILE_T && t < n_x; t++) {
			struct operands one = o;
			one.x[0] = o.x[t];
			nvfp4_row(&one, n, 1, sums + t);
		}
		for (int t = 0; t < n_x; t++) {
			float *out = &p->out[(t0 + t) * p->out_stride + r];
			*out = from ? *out + sums[t] : sums[t];
		}
	}
}

void dot_nvfp4_bf16_avx512(const struct product *p)
{
	for (int t0 = 0; t0 < p->n_x; t0 += TILE_T) {
		int n_x = p->n_x - t0 < TILE_T ? p->n_x - t0 : TILE_T;
		for (int from = 0; from < p->n || from == 0; from += CHUNK)
			nvfp4_columns(p, from, p->n - from < CHUNK ? p->n - from : CHUNK, t0, n_x);
		for (int t = t0; t < t0 + n_x; t++)
			for (int r = 0; r < p->n_w; r++)
				p->out[t * p->out_stride + r] *= p->scale;
	}
}
