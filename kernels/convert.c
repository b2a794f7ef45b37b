#include "kernels/convert.h"

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
