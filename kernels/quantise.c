#include "kernels/quantise.h"

#include "kernels/convert.h"
#include <math.h>
#include <string.h>

#define E4M3_MAX 448.0f
#define E2M1_MAX 6.0f
#define CODE_OF_1 0x38 // E4M3

float quantise_scale(enum dtype format, float amax)
{
	float largest = format == DTYPE_NVFP4 ? E2M1_MAX * E4M3_MAX : E4M3_MAX;
	return amax > 0 ? amax / largest : 1; // a scale must be above 0
}

/* The quotient as a float that rounds to any shorter format as the quotient itself does: rounded to
 * odd, so that no quotient beside a tie becomes one. */
static float quotient(double above, double below)
{
	double q = above / below;
	float f = (float)q;
	if ((double)f == q)
		return f;
	uint32_t bits;
	memcpy(&bits, &f, sizeof bits);
	if (fabs((double)f) > fabs(q))
		bits--; // towards 0
	bits |= 1;
	memcpy(&f, &bits, sizeof f);
	return f;
}

static void quantise_block(float scale, const float *x, uint8_t *codes, uint8_t *scale_code)
{
	float amax = 0;
	for (int i = 0; i < NVFP4_BLOCK; i++)
		amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
	uint8_t code = f32_to_e4m3(quotient((double)amax, (double)E2M1_MAX * (double)scale));
	if (code == 0)
		code = CODE_OF_1; // a block of zeros, nearly
	if (scale_code)
		*scale_code = code;
	double unit = (double)e4m3_values[code] * (double)scale;
	for (int i = 0; codes && i < NVFP4_BLOCK; i += 2)
		codes[i / 2] = (uint8_t)(f32_to_e2m1(quotient((double)x[i], unit)) |
								 f32_to_e2m1(quotient((double)x[i + 1], unit)) << 4);
}

void quantise_row(enum dtype format, float scale, const float *row, int64_t n, uint8_t *codes,
				  uint8_t *scales)
{
	if (format == DTYPE_F8_E4M3) {
		for (int64_t i = 0; i < n; i++)
			codes[i] = f32_to_e4m3(quotient((double)row[i], (double)scale));
		return;
	}
	for (int64_t i = 0; i + NVFP4_BLOCK <= n; i += NVFP4_BLOCK)
		quantise_block(scale, row + i, codes ? codes + i / 2 : NULL,
					   scales ? scales + i / NVFP4_BLOCK : NULL);
}
