/*
 * The reference rung: plain C, sixteen partial sums that every compiler turns into vectors.
 */
#include "kernels/convert.h"
#include "kernels/rung.h"
#include <math.h>

#define LANES 16

static float reduce(float sum[LANES])
{
	for (int step = LANES / 2; step > 0; step /= 2)
		for (int i = 0; i < step; i++)
			sum[i] += sum[i + step];
	return sum[0];
}

static float same(float value)
{
	return value;
}

#define DEFINE_DOT(name, type, widen)                                                              \
	static float name##_row(const type *w, const float *x, int n)                                  \
	{                                                                                              \
		float sum[LANES] = {0};                                                                    \
		int j = 0;                                                                                 \
		for (; j + LANES <= n; j += LANES)                                                         \
			for (int i = 0; i < LANES; i++)                                                        \
				sum[i] += widen(w[j + i]) * x[j + i];                                              \
		for (int i = 0; j < n; i++, j++)                                                           \
			sum[i] += widen(w[j]) * x[j];                                                          \
		return reduce(sum);                                                                        \
	}                                                                                              \
	static void name(const struct product *p)                                                      \
	{                                                                                              \
		const type *w = p->w;                                                                      \
		for (int r = 0; r < p->n_w; r++)                                                           \
			for (int t = 0; t < p->n_x; t++)                                                       \
				p->out[t * p->out_stride + r] = name##_row(w + r * p->w_stride, p->x[t], p->n);    \
	}

DEFINE_DOT(dot_f32, float, same)
DEFINE_DOT(dot_bf16, uint16_t, bf16_to_f32)
DEFINE_DOT(dot_f16, uint16_t, f16_to_f32)

static void scale_results(const struct product *p)
{
	for (int t = 0; t < p->n_x; t++)
		for (int r = 0; r < p->n_w; r++)
			p->out[t * p->out_stride + r] *= p->scale;
}

static inline float e4m3_to_f32(uint8_t code)
{
	return e4m3_values[code];
}

DEFINE_DOT(dot_e4m3, uint8_t, e4m3_to_f32)

static void dot_f8(const struct product *p)
{
	dot_e4m3(p);
	scale_results(p);
}

static float nvfp4_row(const uint8_t *w, const uint8_t *scales, const float *x, int n)
{
	float sum[LANES] = {0};
	for (int j = 0; j < n; j += NVFP4_BLOCK, scales++)
		for (int i = 0; i < NVFP4_BLOCK; i++) {
			uint8_t pair = w[(j + i) / 2];
			sum[i] += e2m1_values[i % 2 ? pair >> 4 : pair & 15] * e4m3_values[*scales] * x[j + i];
		}
	return reduce(sum);
}

static void dot_nvfp4(const struct product *p)
{
	for (int r = 0; r < p->n_w; r++)
		for (int t = 0; t < p->n_x; t++)
			p->out[t * p->out_stride + r] =
				nvfp4_row((const uint8_t *)p->w + r * p->w_stride / 2,
						  p->scales + r * p->scale_stride, p->x[t], p->n);
	scale_results(p);
}

static float ssm_row(float *s, const float *b, const float *c, float decay, float input, int n)
{
	float sum[LANES] = {0};
	int j = 0;
	for (; j + LANES <= n; j += LANES)
		for (int i = 0; i < LANES; i++) {
			s[j + i] = decay * s[j + i] + input * b[j + i];
			sum[i] += s[j + i] * c[j + i];
		}
	for (int i = 0; j < n; i++, j++) {
		s[j] = decay * s[j] + input * b[j];
		sum[i] += s[j] * c[j];
	}
	return reduce(sum);
}

static void exp_all(float *v, int n)
{
	for (int i = 0; i < n; i++)
		v[i] = expf(v[i]);
}

static void silu(float *y, const float *x, int n)
{
	for (int i = 0; i < n; i++)
		y[i] = x[i] / (1 + expf(-x[i]));
}

#define DEFINE_BLEND(name, type, widen)                                                            \
	static void name(const struct blend *b)                                                        \
	{                                                                                              \
		for (int h = 0; h < b->n_y; h++) {                                                         \
			float *y = b->y + h * b->y_stride;                                                     \
			for (int i = 0; i < b->n_v; i++) {                                                     \
				const type *v = (const type *)b->v + i * b->v_stride;                              \
				float a = b->a[h * b->a_stride + i];                                               \
				for (int j = 0; j < b->n; j++)                                                     \
					y[j] += a * widen(v[j]);                                                       \
			}                                                                                      \
		}                                                                                          \
	}

DEFINE_BLEND(blend_f32, float, same)
DEFINE_BLEND(blend_bf16, uint16_t, bf16_to_f32)
DEFINE_BLEND(blend_f8, uint8_t, e4m3_to_f32)

const struct cpu_rung rung_c = {
	.name = "c",
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
	.blend_f8 = blend_f8,
};
