/*
 * cuBLASLt, which is opened when a device is: a machine without it multiplies with kernels of our
 * own (cuda_gemm.cu). What is declared of it here is the part that is called, after its manual.
 *
 * Algorithms are chosen by its heuristic, once a shape. Any thread may multiply: recorded passes
 * are captured by one of their own.
 */
#ifndef KERNELS_CUDA_BLAS_H
#define KERNELS_CUDA_BLAS_H

#include "kernels/cuda_device.h"

struct cuda_blas;

/* What both factors are stored in; 0, a type that nobody has said, is none. E4M3: all begin on 16
 * bytes, and rows and columns are multiples of 16. F32 is multiplied as such, not in TF32. */
enum blas_type { BLAS_F32 = 1, BLAS_BF16, BLAS_E4M3 };

/* y = scale * W x, or y += scale * W x. */
struct blas_product {
	enum blas_type type;
	const void *w; // (rows, columns), rows w_stride apart
	int64_t w_stride;
	const void *x; // (n, columns)
	float *y;      // (n, rows) in F32, rows y_stride apart
	int64_t y_stride;
	int n, rows, columns;
	float scale;
	bool add;
};

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_blas *cuda_blas_open(void); // NULL: not here
void cuda_blas_close(struct cuda_blas *blas);

/* False, and nothing was done: no library, or it does not take this shape. */
bool cuda_blas_multiply(struct device *device, const struct blas_product *p);

#ifdef __cplusplus
}
#endif

#endif
