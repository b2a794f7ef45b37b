#include "kernels/convert.h"
#include <math.h>

/* Tables, as short as the formats: a byte decodes faster by looking it up. */
// clang-format off
const float e4m3_values[256] = {
	0, 0.001953125f, 0.00390625f, 0.005859375f, 0.0078125f, 0.009765625f, 0.01171875f, 0.013671875f,
	0.015625f, 0.017578125f, 0.01953125f, 0.021484375f, 0.0234375f, 0.025390625f, 0.02734375f, 0.029296875f,
	0.03125f, 0.03515625f, 0.0390625f, 0.04296875f, 0.046875f, 0.05078125f, 0.0546875f, 0.05859375f,
	0.0625f, 0.0703125f, 0.078125f, 0.0859375f, 0.09375f, 0.1015625f, 0.109375f, 0.1171875f,
	0.125f, 0.140625f, 0.15625f, 0.171875f, 0.1875f, 0.203125f, 0.21875f, 0.234375f,
	0.25f, 0.28125f, 0.3125f, 0.34375f, 0.375f, 0.40625f, 0.4375f, 0.46875f,
	0.5f, 0.5625f, 0.625f, 0.6875f, 0.75f, 0.8125f, 0.875f, 0.9375f,
	1, 1.125f, 1.25f, 1.375f, 1.5f, 1.625f, 1.75f, 1.875f,
	2, 2.25f, 2.5f, 2.75f, 3, 3.25f, 3.5f, 3.75f,
	4, 4.5f, 5, 5.5f, 6, 6.5f, 7, 7.5f,
	8, 9, 10, 11, 12, 13, 14, 15,
	16, 18, 20, 22, 24, 26, 28, 30,
	32, 36, 40, 44, 48, 52, 56, 60,
	64, 72, 80, 88, 96, 104, 112, 120,
	128, 144, 160, 176, 192, 208, 224, 240,
	256, 288, 320, 352, 384, 416, 448, NAN,
	-0.0f, -0.001953125f, -0.00390625f, -0.005859375f, -0.0078125f, -0.009765625f, -0.01171875f, -0.013671875f,
	-0.015625f, -0.017578125f, -0.01953125f, -0.021484375f, -0.0234375f, -0.025390625f, -0.02734375f, -0.029296875f,
	-0.03125f, -0.03515625f, -0.0390625f, -0.04296875f, -0.046875f, -0.05078125f, -0.0546875f, -0.05859375f,
	-0.0625f, -0.0703125f, -0.078125f, -0.0859375f, -0.09375f, -0.1015625f, -0.109375f, -0.1171875f,
	-0.125f, -0.140625f, -0.15625f, -0.171875f, -0.1875f, -0.203125f, -0.21875f, -0.234375f,
	-0.25f, -0.28125f, -0.3125f, -0.34375f, -0.375f, -0.40625f, -0.4375f, -0.46875f,
	-0.5f, -0.5625f, -0.625f, -0.6875f, -0.75f, -0.8125f, -0.875f, -0.9375f,
	-1, -1.125f, -1.25f, -1.375f, -1.5f, -1.625f, -1.75f, -1.875f,
	-2, -2.25f, -2.5f, -2.75f, -3, -3.25f, -3.5f, -3.75f,
	-4, -4.5f, -5, -5.5f, -6, -6.5f, -7, -7.5f,
	-8, -9, -10, -11, -12, -13, -14, -15,
	-16, -18, -20, -22, -24, -26, -28, -30,
	-32, -36, -40, -44, -48, -52, -56, -60,
	-64, -72, -80, -88, -96, -104, -112, -120,
	-128, -144, -160, -176, -192, -208, -224, -240,
	-256, -288, -320, -352, -384, -416, -448, NAN,
};
// clang-format on

const float e2m1_values[16] = {0,     0.5f,  1,  1.5f,  2,  3,  4,  6,
							   -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

static uint32_t bits_of(float value)
{
	uint32_t bits;
	memcpy(&bits, &value, sizeof bits);
	return bits;
}

static float float_of(uint32_t bits)
{
	float value;
	memcpy(&value, &bits, sizeof value);
	return value;
}

/* value / 2^shift, rounded to nearest, ties to even. 0 < shift < 32. */
static uint32_t shift_round(uint32_t value, unsigned shift)
{
	uint32_t half = (UINT32_C(1) << (shift - 1)) - 1 + ((value >> shift) & 1);
	return (uint32_t)(((uint64_t)value + half) >> shift);
}

uint16_t f32_to_bf16(float value)
{
	uint32_t bits = bits_of(value);
	if ((bits & 0x7fffffff) > 0x7f800000) // NaN: rounding up could turn it into inf or -0
		return (uint16_t)(bits >> 16 | 0x40);
	return (uint16_t)shift_round(bits, 16);
}

/* Without a branch, so that the compiler can do many at once. */
void convert_to_bf16(const float *values, size_t n, uint16_t *out)
{
	for (size_t i = 0; i < n; i++) {
		uint32_t bits = bits_of(values[i]);
		uint32_t rounded = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
		bool nan = (int32_t)(bits & 0x7fffffff) > 0x7f800000;
		out[i] = (uint16_t)(nan ? bits >> 16 | 0x40 : rounded);
	}
}

float f16_to_f32(uint16_t bits)
{
	/* The F16 pattern read as an F32 one is the value times 2^-112, subnormals too. */
	uint32_t wide = (uint32_t)(bits & 0x7fff) << 13;
	uint32_t sign = (uint32_t)(bits & 0x8000) << 16;
	uint32_t magnitude = bits_of(float_of(wide) * 0x1p112f);
	if ((bits & 0x7c00) == 0x7c00)
		magnitude = wide | 0x7f800000;
	return float_of(sign | magnitude);
}

uint16_t f32_to_f16(float value)
{
	uint32_t bits = bits_of(value), sign = bits >> 16 & 0x8000, magnitude = bits & 0x7fffffff;
	if (magnitude > 0x7f800000)
		return (uint16_t)(sign | 0x7e00);
	if (magnitude >= 0x47800000) // 65536 and above; 65520..65535 carry into inf below
		return (uint16_t)(sign | 0x7c00);
	if (magnitude >= 0x38800000) // 2^-14, the smallest normal: move the exponent's bias
		return (uint16_t)(sign | shift_round(magnitude - (UINT32_C(112) << 23), 13));
	if (magnitude < 0x33000000) // below 2^-25, half the smallest subnormal
		return (uint16_t)sign;
	uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
	return (uint16_t)(sign | shift_round(mantissa, 126 - (magnitude >> 23)));
}

uint8_t f32_to_e4m3(float value)
{
	uint32_t bits = bits_of(value), sign = bits >> 24 & 0x80, magnitude = bits & 0x7fffffff;
	if (magnitude > 0x7f800000)
		return 0x7f;
	if (magnitude >= 0x43e00000) // 448
		return (uint8_t)(sign | 0x7e);
	if (magnitude >= 0x3c800000) // 2^-6, the smallest normal: move the exponent's bias
		return (uint8_t)(sign | shift_round(magnitude - (UINT32_C(120) << 23), 20));
	if (magnitude < 0x3a800000) // below 2^-10, half the smallest subnormal
		return (uint8_t)sign;
	uint32_t mantissa = (magnitude & 0x7fffff) | 0x800000;
	return (uint8_t)(sign | shift_round(mantissa, 141 - (magnitude >> 23)));
}

uint8_t f32_to_e2m1(float value)
{
	// halfway between neighbours; a tie goes to the even code
	float x = fabsf(value);
	int code = (x > 0.25f) + (x >= 0.75f) + (x > 1.25f) + (x >= 1.75f) + (x > 2.5f) + (x >= 3.5f) +
			   (x > 5);
	return (uint8_t)(code | (signbit(value) ? 8 : 0));
}

bool convert_to_f32(const void *source, enum dtype dtype, size_t n, float *out)
{
	const uint16_t *half = source;
	switch (dtype) {
	case DTYPE_F32: memcpy(out, source, n * sizeof *out); return true;
	case DTYPE_BF16:
		for (size_t i = 0; i < n; i++)
			out[i] = bf16_to_f32(half[i]);
		return true;
	case DTYPE_F16:
		for (size_t i = 0; i < n; i++)
			out[i] = f16_to_f32(half[i]);
		return true;
	default: return false;
	}
}

void matrix_widen(const struct matrix *m, int64_t row, int64_t column, int n, float *out)
{
	const uint8_t *codes = m->data;
	if (m->dtype == DTYPE_F8_E4M3) {
		codes += row * m->stride + column;
		for (int i = 0; i < n; i++)
			out[i] = e4m3_values[codes[i]] * m->scale;
	} else if (m->dtype == DTYPE_NVFP4) {
		for (int64_t i = 0, at = row * m->stride + column; i < n; i++, at++) {
			int code = at % 2 ? codes[at / 2] >> 4 : codes[at / 2] & 15;
			out[i] = e2m1_values[code] * e4m3_values[m->scales[at / NVFP4_BLOCK]] * m->scale;
		}
	} else {
		convert_to_f32(matrix_at(m, row, column), m->dtype, (size_t)n, out);
	}
}
