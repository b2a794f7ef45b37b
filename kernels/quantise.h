/*
 * Rows of numbers as FP8 (E4M3, one scale a matrix) or NVFP4 (E2M1, an E4M3 scale per 16 columns,
 * one F32 scale a matrix), as NVIDIA ModelOpt stores weights (spec nemotron-h.md 6). Round to
 * nearest, ties to the even code, of the exact quotient.
 */
#ifndef KERNELS_QUANTISE_H
#define KERNELS_QUANTISE_H

#include "kernels/tensor.h"

/* weight_scale of FP8, weight_scale_2 of NVFP4, of a matrix whose largest magnitude is amax; 1
 * where it is 0. */
float quantise_scale(enum dtype format, float amax);

/* n numbers; of NVFP4 a multiple of 16, codes (two a byte) or scales may be NULL. A block whose
 * scale would be 0 has 1. */
void quantise_row(enum dtype format, float scale, const float *row, int64_t n, uint8_t *codes,
				  uint8_t *scales);

#endif
