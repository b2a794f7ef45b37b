/*
 * The inner loops of a vector rung, written once. A rung's file defines, with `vec` of `LANES`
 * floats:
 *
 *   vec_zero() vec_set(float) vec_add(a, b) vec_mul(a, b) vec_div(a, b) vec_min(a, b) vec_max(a, b)
 *   vec_fma(a, b, c) = a * b + c, vec_sum(a), vec_round(a), vec_scale(a, n) = a * 2^n;
 *   min and max give b where one is NaN
 *   vec_load_TYPE(p), vec_load_part_TYPE(p, n) (0 < n < LANES, the rest 0) for f32, bf16, f16
 *   vec_load_e4m3(p), vec_load_part_e4m3(p, n): the values times 2^-8 (an F16 pattern, moved)
 *   vec_load_e2m1(p): LANES / 2 bytes, low nibble first
 *   vec_store(p, a), vec_store_part(p, a, n)
 *   TILE_R, TILE_T: stored rows x activation rows whose sums stay in registers; BLEND_Y, BLEND_V
 *
 * and then includes this file. Order of summation of a dot: chunk c of LANES elements goes to
 * partial sum c % 2; at the end the two are added, then the lanes (vec_sum). Every tile shape keeps
 * it.
 */
#include "kernels/convert.h"

#define INLINE static inline __attribute__((always_inline))
#define UNROLL _Pragma("GCC unroll 8")

#define SHORT_ROW 512 // elements; below, several rows at once hide the latency of their sums

/* A stored row, and LANES elements of it from element `at` on. */
#define DEFINE_ROW(type, name)                                                                     \
	INLINE const type *row_##name(const struct product *p, int r)                                  \
	{                                                                                              \
		return (const type *)p->w + r * p->w_stride;                                               \
	}                                                                                              \
	INLINE vec lanes_##name(const type *row, int at)                                               \
	{                                                                                              \
		return vec_load_##name(row + at);                                                          \
	}                                                                                              \
	INLINE vec part_##name(const type *row, int at, int n)                                         \
	{                                                                                              \
		return vec_load_part_##name(row + at, n);                                                  \
	}

struct nvfp4_row {
	const uint8_t *codes, *scales;
};

INLINE struct nvfp4_row row_nvfp4_plain(const struct product *p, int r)
{
	return (struct nvfp4_row){(const uint8_t *)p->w + r * p->w_stride / 2,
							  p->scales + r * p->scale_stride};
}

INLINE vec lanes_nvfp4_plain(struct nvfp4_row row, int at)
{
	return vec_mul(vec_load_e2m1(row.codes + at / 2),
				   vec_set(e4m3_values[row.scales[at / NVFP4_BLOCK]]));
}

/* Never called: rows are whole blocks, and a block is a whole number of vectors. */
INLINE vec part_nvfp4_plain(struct nvfp4_row row, int at, int n)
{
	(void)row, (void)at, (void)n;
	return vec_zero();
}

#define DEFINE_DOT(row_type, name)                                                                 \
	INLINE void name##_tile(const struct product *p, int r0, int t0, int R, int T)                 \
	{                                                                                              \
		vec sum[TILE_R][TILE_T][2], xs[TILE_T];                                                    \
		row_type w[TILE_R];                                                                        \
		const float *x[TILE_T];                                                                    \
		int j = 0;                                                                                 \
		UNROLL for (int r = 0; r < R; r++)                                                         \
		{                                                                                          \
			w[r] = row_##name(p, r0 + r);                                                          \
			UNROLL for (int t = 0; t < T; t++) sum[r][t][0] = sum[r][t][1] = vec_zero();           \
		}                                                                                          \
		UNROLL for (int t = 0; t < T; t++) x[t] = p->x[t0 + t];                                    \
		for (; j + 2 * LANES <= p->n; j += 2 * LANES)                                              \
			UNROLL for (int half = 0; half < 2; half++)                                            \
			{                                                                                      \
				UNROLL for (int t = 0; t < T; t++) xs[t] = vec_load_f32(x[t] + j + half * LANES);  \
				UNROLL for (int r = 0; r < R; r++)                                                 \
				{                                                                                  \
					vec ws = lanes_##name(w[r], j + half * LANES);                                 \
					UNROLL for (int t = 0; t < T; t++) sum[r][t][half] =                           \
						vec_fma(ws, xs[t], sum[r][t][half]);                                       \
				}                                                                                  \
			}                                                                                      \
		if (j + LANES <= p->n) {                                                                   \
			UNROLL for (int t = 0; t < T; t++) xs[t] = vec_load_f32(x[t] + j);                     \
			UNROLL for (int r = 0; r < R; r++)                                                     \
			{                                                                                      \
				vec ws = lanes_##name(w[r], j);                                                    \
				UNROLL for (int t = 0; t < T; t++) sum[r][t][0] =                                  \
					vec_fma(ws, xs[t], sum[r][t][0]);                                              \
			}                                                                                      \
			j += LANES;                                                                            \
		}                                                                                          \
		if (j < p->n) { /* into the first sum whatever its turn: the same for every shape */       \
			UNROLL for (int t = 0; t < T; t++) xs[t] = vec_load_part_f32(x[t] + j, p->n - j);      \
			UNROLL for (int r = 0; r < R; r++)                                                     \
			{                                                                                      \
				vec ws = part_##name(w[r], j, p->n - j);                                           \
				UNROLL for (int t = 0; t < T; t++) sum[r][t][0] =                                  \
					vec_fma(ws, xs[t], sum[r][t][0]);                                              \
			}                                                                                      \
		}                                                                                          \
		UNROLL for (int r = 0; r < R; r++) UNROLL for (int t = 0; t < T; t++)                      \
			p->out[(t0 + t) * p->out_stride + r0 + r] =                                            \
			vec_sum(vec_add(sum[r][t][0], sum[r][t][1]));                                          \
	}                                                                                              \
	static void dot_##name(const struct product *p)                                                \
	{                                                                                              \
		int r = 0;                                                                                 \
		if (p->n_x > 1 || p->n <= SHORT_ROW) {                                                     \
			for (; r + TILE_R <= p->n_w; r += TILE_R) {                                            \
				int t = 0;                                                                         \
				for (; t + TILE_T <= p->n_x; t += TILE_T)                                          \
					name##_tile(p, r, t, TILE_R, TILE_T);                                          \
				for (; t + 2 <= p->n_x; t += 2)                                                    \
					name##_tile(p, r, t, TILE_R, 2);                                               \
				for (; t < p->n_x; t++)                                                            \
					name##_tile(p, r, t, TILE_R, 1);                                               \
			}                                                                                      \
		}                                                                                          \
		for (; r < p->n_w; r++) { /* one long row is one stream for the prefetcher */              \
			int t = 0;                                                                             \
			for (; t + TILE_T <= p->n_x; t += TILE_T)                                              \
				name##_tile(p, r, t, 1, TILE_T);                                                   \
			for (; t < p->n_x; t++)                                                                \
				name##_tile(p, r, t, 1, 1);                                                        \
		}                                                                                          \
	}

DEFINE_ROW(float, f32)
DEFINE_ROW(uint16_t, bf16)
DEFINE_ROW(uint16_t, f16)
DEFINE_ROW(uint8_t, e4m3)
DEFINE_DOT(const float *, f32)
DEFINE_DOT(const uint16_t *, bf16)
DEFINE_DOT(const uint16_t *, f16)
DEFINE_DOT(const uint8_t *, e4m3)
DEFINE_DOT(struct nvfp4_row, nvfp4_plain)

static void scale_results(const struct product *p, float factor)
{
	for (int t = 0; t < p->n_x; t++)
		for (int r = 0; r < p->n_w; r++)
			p->out[t * p->out_stride + r] = p->out[t * p->out_stride + r] * factor * p->scale;
}

static inline void dot_f8(const struct product *p)
{
	dot_e4m3(p);
	scale_results(p, 256);
}

static inline void dot_nvfp4(const struct product *p)
{
	dot_nvfp4_plain(p);
	scale_results(p, 1);
}

static float ssm_row(float *s, const float *b, const float *c, float decay, float input, int n)
{
	vec keep = vec_set(decay), in = vec_set(input), sum[2] = {vec_zero(), vec_zero()};
	int j = 0;
	for (; j + 2 * LANES <= n; j += 2 * LANES)
		UNROLL for (int half = 0; half < 2; half++)
		{
			int at = j + half * LANES;
			vec v = vec_fma(keep, vec_load_f32(s + at), vec_mul(in, vec_load_f32(b + at)));
			vec_store(s + at, v);
			sum[half] = vec_fma(v, vec_load_f32(c + at), sum[half]);
		}
	for (; j < n; j += LANES) {
		int m = n - j < LANES ? n - j : LANES;
		bool full = m == LANES;
		vec before = full ? vec_load_f32(s + j) : vec_load_part_f32(s + j, m);
		vec bs = full ? vec_load_f32(b + j) : vec_load_part_f32(b + j, m);
		vec cs = full ? vec_load_f32(c + j) : vec_load_part_f32(c + j, m);
		vec v = vec_fma(keep, before, vec_mul(in, bs));
		if (full)
			vec_store(s + j, v);
		else
			vec_store_part(s + j, v, m);
		sum[0] = vec_fma(v, cs, sum[0]);
	}
	return vec_sum(vec_add(sum[0], sum[1]));
}

/* e^v = 2^n e^r, |r| <= ln(2)/2; the series up to r^7 / 7! leaves 5e-9. Past the ends 2^n itself
 * gives 0 and inf. */
INLINE vec exp_of(vec v)
{
	v = vec_max(vec_set(-105), vec_min(vec_set(90), v));
	vec n = vec_round(vec_mul(v, vec_set(1.44269504f)));
	vec r = vec_fma(n, vec_set(-0.693359375f), v); // ln(2) in two parts, the first exact times n
	r = vec_fma(n, vec_set(2.12194440e-4f), r);
	vec p = vec_set(1.0f / 5040);
	p = vec_fma(p, r, vec_set(1.0f / 720));
	p = vec_fma(p, r, vec_set(1.0f / 120));
	p = vec_fma(p, r, vec_set(1.0f / 24));
	p = vec_fma(p, r, vec_set(1.0f / 6));
	p = vec_fma(p, r, vec_set(0.5f));
	p = vec_fma(p, r, vec_set(1));
	p = vec_fma(p, r, vec_set(1));
	return vec_scale(p, n);
}

static void exp_all(float *v, int n)
{
	int i = 0;
	for (; i + LANES <= n; i += LANES)
		vec_store(v + i, exp_of(vec_load_f32(v + i)));
	if (i < n)
		vec_store_part(v + i, exp_of(vec_load_part_f32(v + i, n - i)), n - i);
}

INLINE vec silu_of(vec x)
{
	return vec_div(x, vec_add(vec_set(1), exp_of(vec_mul(x, vec_set(-1)))));
}

static void silu(float *y, const float *x, int n)
{
	int i = 0;
	for (; i + LANES <= n; i += LANES)
		vec_store(y + i, silu_of(vec_load_f32(x + i)));
	if (i < n)
		vec_store_part(y + i, silu_of(vec_load_part_f32(x + i, n - i)), n - i);
}

#define PLAIN(a) (a)
#define TIMES_256(a) (256 * (a)) // what vec_load_e4m3 leaves out

/* A tile of BLEND_Y heads x BLEND_V vectors of y stays in registers over all rows of v. */
#define DEFINE_BLEND(type, name, factor)                                                           \
	INLINE void blend_##name##_tile(const struct blend *b, int h0, int j, int H, int V)            \
	{                                                                                              \
		vec sum[BLEND_Y][BLEND_V], vs[BLEND_V];                                                    \
		float *y = b->y + h0 * b->y_stride + j;                                                    \
		const float *a = b->a + h0 * b->a_stride;                                                  \
		const type *v = (const type *)b->v + j;                                                    \
		UNROLL for (int h = 0; h < H; h++) UNROLL for (int k = 0; k < V; k++) sum[h][k] =          \
			vec_load_f32(y + h * b->y_stride + k * LANES);                                         \
		for (int i = 0; i < b->n_v; i++) {                                                         \
			UNROLL for (int k = 0; k < V; k++) vs[k] =                                             \
				vec_load_##name(v + i * b->v_stride + k * LANES);                                  \
			UNROLL for (int h = 0; h < H; h++)                                                     \
			{                                                                                      \
				vec weight = vec_set(factor(a[h * b->a_stride + i]));                              \
				UNROLL for (int k = 0; k < V; k++) sum[h][k] = vec_fma(weight, vs[k], sum[h][k]);  \
			}                                                                                      \
		}                                                                                          \
		UNROLL for (int h = 0; h < H; h++) UNROLL for (int k = 0; k < V; k++)                      \
			vec_store(y + h * b->y_stride + k * LANES, sum[h][k]);                                 \
	}                                                                                              \
	static void blend_##name##_rest(const struct blend *b, int h, int j)                           \
	{                                                                                              \
		float *y = b->y + h * b->y_stride + j;                                                     \
		vec sum = vec_load_part_f32(y, b->n - j);                                                  \
		for (int i = 0; i < b->n_v; i++) {                                                         \
			const type *row = (const type *)b->v + i * b->v_stride + j;                            \
			vec weight = vec_set(factor(b->a[h * b->a_stride + i]));                               \
			sum = vec_fma(weight, vec_load_part_##name(row, b->n - j), sum);                       \
		}                                                                                          \
		vec_store_part(y, sum, b->n - j);                                                          \
	}                                                                                              \
	INLINE void blend_##name##_heads(const struct blend *b, int h0, int H)                         \
	{                                                                                              \
		int j = 0;                                                                                 \
		for (; j + BLEND_V * LANES <= b->n; j += BLEND_V * LANES)                                  \
			blend_##name##_tile(b, h0, j, H, BLEND_V);                                             \
		for (; j + LANES <= b->n; j += LANES)                                                      \
			blend_##name##_tile(b, h0, j, H, 1);                                                   \
		for (int h = h0; j < b->n && h < h0 + H; h++)                                              \
			blend_##name##_rest(b, h, j);                                                          \
	}                                                                                              \
	static void blend_##name(const struct blend *b)                                                \
	{                                                                                              \
		int h = 0;                                                                                 \
		for (; h + BLEND_Y <= b->n_y; h += BLEND_Y)                                                \
			blend_##name##_heads(b, h, BLEND_Y);                                                   \
		for (; h < b->n_y; h++)                                                                    \
			blend_##name##_heads(b, h, 1);                                                         \
	}

DEFINE_BLEND(float, f32, PLAIN)
DEFINE_BLEND(uint16_t, bf16, PLAIN)
DEFINE_BLEND(uint8_t, e4m3, TIMES_256)
