/* Every row of every rung against the C reference: random shapes, odd sizes, unaligned rows, guard
 * bytes around what is written; and the same bits for every number of rows and tokens in a call. */
#include "base/memory.h"
#include "kernels/convert.h"
#include "kernels/cpu.h"
#include "tests/kernels/case.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define ROUNDS 300
#define MAX_T 17

typedef void dot_function(const struct product *p);

static const struct cpu_rung *rung(int i, int *n)
{
	return cpu_rungs(n)[i];
}

/* n numbers in the given format, at an address aligned to the element only. */
static void *random_numbers(enum dtype dtype, size_t n)
{
	bool codes = dtype == DTYPE_F8_E4M3 || dtype == DTYPE_NVFP4;
	size_t element = codes ? 1 : dtype_bytes(dtype);
	char *bytes = case_new_bytes(dtype_span_bytes(dtype, n) + element);
	bytes += case_int(0, 1) ? element : 0;
	for (size_t i = 0; codes && i < dtype_span_bytes(dtype, n); i++)
		bytes[i] = (char)case_int(0, dtype == DTYPE_NVFP4 ? 255 : 126);
	if (codes)
		return bytes;
	for (size_t i = 0; i < n; i++) {
		float value = case_float();
		if (dtype == DTYPE_F32)
			((float *)(void *)bytes)[i] = value;
		else
			((uint16_t *)(void *)bytes)[i] =
				dtype == DTYPE_BF16 ? f32_to_bf16(value) : f32_to_f16(value);
	}
	return bytes;
}

static int odd_size(int most)
{
	return case_int(0, 3) ? case_int(0, most) : 16 * case_int(0, most / 16);
}

/* `reference` and `tested` on the same product; then every (row, token) alone gives tested's bits.
 */
static void check_dot(enum dtype dtype, bool narrow, dot_function *reference, dot_function *tested)
{
	int n = odd_size(300), n_w = case_int(1, 9), n_x = case_int(1, MAX_T);
	bool blocks = dtype == DTYPE_NVFP4;
	n = blocks ? n / NVFP4_BLOCK * NVFP4_BLOCK : n;
	int64_t stride = n + case_int(0, 5) * (blocks ? NVFP4_BLOCK : 1);
	int64_t out_stride = n_w + case_int(0, 3);
	const void *x[MAX_T], *wide[MAX_T];
	void *w = random_numbers(dtype, (size_t)(n_w * stride));
	for (int t = 0; t < n_x; t++) {
		x[t] = random_numbers(narrow ? DTYPE_BF16 : DTYPE_F32, (size_t)n);
		wide[t] = x[t];
		if (narrow) {
			float *f = case_new((size_t)n);
			convert_to_f32(x[t], DTYPE_BF16, (size_t)n, f);
			wide[t] = f;
		}
	}
	size_t n_out = (size_t)((n_x - 1) * out_stride + n_w);
	float *expected = case_new(n_out), *found = case_new(n_out), alone;
	struct product p = {w, wide, expected, stride, out_stride, n_w, n_x, n};
	p.scale_stride = stride / NVFP4_BLOCK;
	p.scales = random_numbers(DTYPE_F8_E4M3, (size_t)(n_w * p.scale_stride));
	p.scale = 1.0f / (blocks ? 512 : 128);
	memcpy(found, expected, n_out * sizeof *found); // the gaps between rows stay
	reference(&p);
	p.x = x;
	p.out = found;
	tested(&p);
	for (size_t i = 0; i < n_out; i++)
		case_near((double)expected[i], (double)found[i], 1e-5 * sqrt(n + 1), "dot");
	for (int r = 0; r < n_w; r++)
		for (int t = 0; t < n_x; t++) {
			struct product one = p;
			one.w = (const char *)w + dtype_span_bytes(dtype, (size_t)(r * stride));
			one.scales = p.scales + r * p.scale_stride;
			one.x = x + t;
			one.n_w = one.n_x = 1;
			one.out = &alone;
			tested(&one);
			case_same(&alone, &found[t * out_stride + r], 1, "a dot alone");
		}
}

static void dots_agree(void **state)
{
	(void)state;
	int n;
	const struct cpu_rung *c = rung(0, &n), *narrow = cpu_rung_best(MATH_FAST);
	for (int round = 0; round < ROUNDS; round++) {
		case_seed((uint64_t)round);
		for (int i = 0; i < n; i++) {
			const struct cpu_rung *r = rung(i, &n);
			check_dot(DTYPE_F32, false, c->dot_f32, r->dot_f32);
			check_dot(DTYPE_BF16, false, c->dot_bf16, r->dot_bf16);
			check_dot(DTYPE_F16, false, c->dot_f16, r->dot_f16);
			check_dot(DTYPE_F8_E4M3, false, c->dot_f8, r->dot_f8);
			check_dot(DTYPE_NVFP4, false, c->dot_nvfp4, r->dot_nvfp4);
			case_done();
		}
		if (narrow->dot_bf16_bf16)
			check_dot(DTYPE_BF16, true, c->dot_bf16, narrow->dot_bf16_bf16);
		if (narrow->dot_nvfp4_bf16)
			check_dot(DTYPE_NVFP4, true, c->dot_nvfp4, narrow->dot_nvfp4_bf16);
		case_done();
	}
}

static void same_value(float expected, float found)
{
	if (isnan(expected) ? !isnan(found) : expected != found)
		fail_msg("%.9g, expected %.9g", (double)found, (double)expected);
}

/* Every E4M3 byte at every place of a row, also in its tail; exact, as the rest is 0. */
static void every_e4m3_code_decodes(void **state)
{
	(void)state;
	int n_rungs;
	cpu_rungs(&n_rungs);
	case_seed(5000);
	for (int n = 37; n <= 64; n += 27) {
		uint8_t *w = case_new_bytes((size_t)n);
		float *x = case_new((size_t)n), found;
		const void *rows = x;
		for (int j = 0; j < n; j++)
			x[j] = 1;
		struct product p = {w, &rows, &found, n, 1, 1, 1, n, .scale = 0.25f};
		for (int i = 0; i < n_rungs; i++)
			for (int j = 0; j < n; j++)
				for (int code = 0; code < 256; code++) {
					memset(w, 0, (size_t)n);
					w[j] = (uint8_t)code;
					rung(i, &n_rungs)->dot_f8(&p);
					same_value(e4m3_values[code] * 0.25f, found);
				}
		case_done();
	}
}

/* Every E2M1 code under every block scale, at every place of a row of three blocks. */
static void every_nvfp4_code_decodes(void **state)
{
	(void)state;
	enum { N = 3 * NVFP4_BLOCK };
	int n_rungs;
	cpu_rungs(&n_rungs);
	case_seed(5001);
	uint8_t *w = case_new_bytes(N / 2), *scales = case_new_bytes(3);
	float *x = case_new(N), found;
	const void *rows = x;
	for (int j = 0; j < N; j++)
		x[j] = 1;
	struct product p = {w, &rows, &found, N, 1, 1, 1, N, scales, 3, 0.25f};
	for (int i = 0; i < n_rungs; i++)
		for (int j = 0; j < N; j++)
			for (int code = 0; code < 16; code++) {
				memset(w, 0, N / 2);
				memset(scales, 0x38, 3); // 1: a wrong block would show
				w[j / 2] = (uint8_t)(j % 2 ? code << 4 : code);
				for (int scale = 0; scale < 256; scale++) {
					scales[j / NVFP4_BLOCK] = (uint8_t)scale;
					rung(i, &n_rungs)->dot_nvfp4(&p);
					same_value(e2m1_values[code] * e4m3_values[scale] * 0.25f, found);
				}
			}
	case_done();
}

static void reference_is_right(void **state)
{
	(void)state;
	int n_rungs;
	for (int round = 0; round < 50; round++) {
		case_seed((uint64_t)round);
		int n = odd_size(300);
		const void *x = random_numbers(DTYPE_F32, (size_t)n);
		const uint16_t *w = random_numbers(DTYPE_F16, (size_t)n);
		double sum = 0;
		for (int i = 0; i < n; i++)
			sum += (double)f16_to_f32(w[i]) * (double)((const float *)x)[i];
		float found;
		rung(0, &n_rungs)->dot_f16(&(struct product){w, &x, &found, n, 1, 1, 1, n});
		case_near(sum, (double)found, 2e-6 * sqrt(n + 1), "the reference's dot");
		case_done();
	}
}

static void ssm_rows_agree(void **state)
{
	(void)state;
	int n_rungs;
	for (int round = 0; round < ROUNDS; round++) {
		case_seed(1000 + (uint64_t)round);
		int n = odd_size(200);
		float *s = case_new((size_t)n), *b = case_new((size_t)n), *c = case_new((size_t)n);
		float *before = case_new((size_t)n), decay = fabsf(case_float()), input = case_float();
		memcpy(before, s, (size_t)n * sizeof *s);
		float expected = rung(0, &n_rungs)->ssm_row(s, b, c, decay, input, n);
		for (int i = 1; i < n_rungs; i++) {
			float *other = case_new((size_t)n);
			memcpy(other, before, (size_t)n * sizeof *s);
			float found = rung(i, &n_rungs)->ssm_row(other, b, c, decay, input, n);
			case_near((double)expected, (double)found, 1e-5 * sqrt(n + 1), "ssm row");
			for (int j = 0; j < n; j++)
				case_near((double)s[j], (double)other[j], 1e-6, "ssm state");
		}
		case_done();
	}
}

static const enum dtype blend_formats[] = {DTYPE_F32, DTYPE_BF16, DTYPE_F8_E4M3};
enum { N_BLENDS = sizeof blend_formats / sizeof blend_formats[0] };

static void (*blend_of(const struct cpu_rung *r, int format))(const struct blend *)
{
	return format == 0 ? r->blend_f32 : format == 1 ? r->blend_bf16 : r->blend_f8;
}

/* Every E4M3 byte at every place of a row of values, its tail too; exact, as the rest is 0. */
static void every_cached_code_decodes(void **state)
{
	(void)state;
	enum { N = 77 };
	int n_rungs;
	cpu_rungs(&n_rungs);
	case_seed(5002);
	uint8_t *v = case_new_bytes(N);
	float *y = case_new(N);
	const float half = 0.5f;
	struct blend b = {y, &half, v, N, 1, N, 1, 1, N};
	for (int i = 0; i < n_rungs; i++)
		for (int code = 0; code < 256; code++)
			for (int j = 0; j < N; j++) {
				memset(v, 0, N);
				memset(y, 0, N * sizeof *y);
				v[j] = (uint8_t)code;
				rung(i, &n_rungs)->blend_f8(&b);
				same_value(e4m3_values[code] * half, y[j]);
				same_value(0, y[j ? j - 1 : 1]);
			}
	case_done();
}

static void blends_agree(void **state)
{
	(void)state;
	int n_rungs;
	const struct cpu_rung *c = rung(0, &n_rungs);
	for (int round = 0; round < ROUNDS; round++) {
		case_seed(2000 + (uint64_t)round);
		int n = odd_size(200), n_v = case_int(0, 20), n_y = case_int(1, 9);
		struct blend b = {.y_stride = n + case_int(0, 3),
						  .a_stride = n_v + case_int(0, 3),
						  .v_stride = n + case_int(0, 5),
						  .n_y = n_y,
						  .n_v = n_v,
						  .n = n};
		size_t n_all = (size_t)((n_y - 1) * b.y_stride + n);
		float *start = case_new(n_all), *expected = case_new(n_all), *found = case_new(n_all),
			  *alone;
		b.a = case_new((size_t)(n_y * b.a_stride));
		for (int i = 0; i < N_BLENDS * n_rungs; i++) {
			const struct cpu_rung *r = rung(i / N_BLENDS, &n_rungs);
			int format = i % N_BLENDS;
			b.v = random_numbers(blend_formats[format], (size_t)(n_v * b.v_stride));
			b.y = memcpy(expected, start, n_all * sizeof *start);
			blend_of(c, format)(&b);
			b.y = memcpy(found, start, n_all * sizeof *start);
			blend_of(r, format)(&b);
			for (size_t j = 0; j < n_all; j++)
				case_near((double)expected[j], (double)found[j], format == 2 ? 1e-5 * 448 : 1e-5,
						  "blend");
			int h = n_y - 1; // one head alone: the same bits
			struct blend one = b;
			alone = case_new((size_t)n);
			one.y = memcpy(alone, start + h * b.y_stride, (size_t)n * sizeof *alone);
			one.a += h * b.a_stride;
			one.n_y = 1;
			blend_of(r, format)(&one);
			case_same(found + h * b.y_stride, alone, (size_t)n, "a blend alone");
		}
		case_done();
	}
}

static void same_or_near(double expected, float found, const char *what)
{
	if (isnan(expected) || isinf(expected))
		assert_true(isnan(expected) ? isnan(found) : (double)found == expected);
	else if (fabs(expected - (double)found) > 2.5e-7 * fabs(expected) + 2e-45)
		fail_msg("%s: %.9g, expected %.9g", what, (double)found, expected);
}

/* Against doubles: everywhere within about 2 ulp, subnormal results too, and right past both ends.
 */
static void exponentials_are_right(void **state)
{
	(void)state;
	int n_rungs;
	cpu_rungs(&n_rungs);
	for (int i = 0; i < n_rungs; i++) {
		const struct cpu_rung *r = rung(i, &n_rungs);
		for (int round = 0; round < 100; round++) {
			case_seed(3000 + (uint64_t)round);
			int n = odd_size(100);
			float *x = case_new((size_t)n), *e = case_new((size_t)n), *y = case_new((size_t)n), one;
			const float special[] = {0,     -0.0f, INFINITY, -INFINITY, NAN,
									 88.7f, 89,    -87.4f,   -103.5f,   -200};
			for (int j = 0; j < n; j++)
				x[j] = j < 10 && round % 2 ? special[j] : x[j] * (float)(round % 50);
			memcpy(e, x, (size_t)n * sizeof *x);
			r->exp(e, n);
			r->silu(y, x, n);
			for (int j = 0; j < n; j++) {
				same_or_near((double)(float)exp((double)x[j]), e[j], "exp");
				if (!(x[j] < -87)) // below, the result is nothing beside its neighbours
					same_or_near((double)x[j] / (1 + exp(-(double)x[j])), y[j], "silu");
				one = x[j];
				r->exp(&one, 1);
				case_same(&one, &e[j], 1, "exp alone");
				r->silu(&one, &x[j], 1);
				case_same(&one, &y[j], 1, "silu alone");
			}
			case_done();
		}
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(exponentials_are_right),
		cmocka_unit_test(reference_is_right),
		cmocka_unit_test(dots_agree),
		cmocka_unit_test(every_e4m3_code_decodes),
		cmocka_unit_test(every_nvfp4_code_decodes),
		cmocka_unit_test(ssm_rows_agree),
		cmocka_unit_test(blends_agree),
		cmocka_unit_test(every_cached_code_decodes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
