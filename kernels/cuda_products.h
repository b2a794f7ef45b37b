/*
 * Products of a few tokens: matrices that read the same rows are one launch, and the norm that
 * makes these rows may stand in front of them. Lanes that share the matrices read them once, other
 * lanes are further blocks of the launch. What is fused gives the same bits as one by one.
 */
#ifndef KERNELS_CUDA_PRODUCTS_H
#define KERNELS_CUDA_PRODUCTS_H

#include "kernels/cuda_device.h"

#define CUDA_MAX_PRODUCTS 3 // that read the same rows: q, k, v
#define CUDA_MAX_EXPERTS 4096

/* Operations of n_lanes lanes each, all below CUDA_PREFILL_TOKENS tokens. */
struct cuda_products {
	const struct norm_op *norm;        // or NULL; its y is written too
	const struct gated_norm_op *gated; // or NULL; its y stays as it was
	const struct linear_op *linear[CUDA_MAX_PRODUCTS];
	int n_linear, n_lanes;
};

#ifdef __cplusplus
extern "C" {
#endif

/* Whether a row of so many columns can be made by a norm in front, or wait in shared memory. */
bool cuda_products_stage(int n_columns);

void cuda_start_products(struct device *device, const struct cuda_products *p);

/* The experts' two halves: routing may stand in front of the first (op NULL: the choice is there),
 * the shared expert's second product behind the second. */
void cuda_experts_up(struct device *device, int n_lanes, const struct route_op *route,
					 const struct experts_op *op);
/* Whether the second half can multiply with so many numbers: ffn, the shared expert's. */
bool cuda_experts_stage(int n_columns);
void cuda_experts_down(struct device *device, int n_lanes, const struct experts_op *op,
					   const struct linear_op *shared);

#ifdef __cplusplus
}
#endif

#endif
