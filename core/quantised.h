/*
 * Quantised weights as NVIDIA ModelOpt writes them (spec nemotron-h.md 6): which tensors say how a
 * module's weight is stored, and whether they make sense together.
 *
 *   weight_scale_2             NVFP4: U8 [out, in/2], E4M3 weight_scale [out, in/16], F32 factor
 *   weight_scale alone         FP8: F8_E4M3 [out, in], one F32 factor
 *   neither                    as its dtype says
 *
 * What the tensors say decides; what the configuration says is held against it (declared.h).
 * input_scale is kept for devices that multiply E4M3 (fast math); else activations stay wide. Other
 * layouts are refused.
 */
#ifndef CORE_QUANTISED_H
#define CORE_QUANTISED_H

#include "core/checkpoint.h"
#include <stdbool.h>

/* A tensor by name, ticked off in used (n_tensors); NULL if there is none. */
const struct tensor *tensor_take(const struct checkpoint *checkpoint, uint8_t *used,
								 const char *name);

void shape_text(char *out, size_t size, const int64_t *shape, int n_dims); // "[96, 64]"

/* Turns *weight, called `name` (".weight" at its end), into what operations read: dtype, shape
 * [out, in], scales, scale. A weight without scales stays as it is, unless its dtype needs some. */
int quantised_bind(struct tensor *weight, const struct checkpoint *checkpoint, uint8_t *used,
				   const char *name, const int64_t shape[2], struct error *err);

/* An optional F32 scalar (k_scale, input_scale): finite and positive. */
int quantised_scalar(const struct checkpoint *checkpoint, uint8_t *used, const char *name,
					 float *out, struct error *err);

/* Whether module (a name without ".weight") is missing because a layout that is not read holds it:
 * then the error says which. */
bool quantised_refused(const struct checkpoint *checkpoint, const char *name, struct error *err);

/* How the tensors say that a module (a name without ".weight") is stored: "NVFP4", "FP8", or "" for
 * as its dtype says. */
const char *quantised_as(const struct checkpoint *checkpoint, const char *module);

#endif
