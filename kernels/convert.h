/*
 * Number formats, one value or many. Encoding rounds to nearest, ties to even.
 */
#ifndef KERNELS_CONVERT_H
#define KERNELS_CONVERT_H

#include "kernels/tensor.h"
#include <stdbool.h>
#include <string.h>

static inline float bf16_to_f32(uint16_t bits)
{
	uint32_t wide = (uint32_t)bits << 16;
	float value;
	memcpy(&value, &wide, sizeof value);
	return value;
}

uint16_t f32_to_bf16(float value); // overflow goes to inf, NaN stays NaN
float f16_to_f32(uint16_t bits);
uint16_t f32_to_f16(float value); // overflow goes to inf, subnormals are kept
uint8_t f32_to_e4m3(float value); // saturates at 448, inf too; NaN is 0x7f

uint8_t f32_to_e2m1(float value); // a code 0..15, saturates at 6; not for NaN

/* spec nemotron-h.md 6.1. E4M3: 0x7f and 0xff are NaN, there is no infinity. */
extern const float e4m3_values[256];
extern const float e2m1_values[16]; // entry 8 is -0.0

/* f32_to_bf16() of n values. */
void convert_to_bf16(const float *values, size_t n, uint16_t *out);

/* Widens n elements of F32, BF16 or F16. false for any other dtype. */
bool convert_to_f32(const void *source, enum dtype dtype, size_t n, float *out);

/* Widens n elements of a stored row, of any dtype that a matrix can have. */
void matrix_widen(const struct matrix *m, int64_t row, int64_t column, int n, float *out);

#endif
