/*
 * Whether every stored number is one. Opening looks at scalars and at the E4M3 bytes of small
 * checkpoints (quantised.h), because reading 30 GB takes longer than opening it; these read the
 * rest: every element of every tensor, about as fast as memory. Who calls: --warm (the bytes are
 * read anyway), `info --check`, `doctor`, and whoever computed a NaN and wants to know why.
 *
 * Found are: NaN and infinities of F32, BF16 and F16, NaN codes of E4M3, and negative block scales.
 */
#ifndef CORE_FINITE_H
#define CORE_FINITE_H

#include "core/checkpoint.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The first byte of n that is a NaN, or, where !negative, below 0; n if there is none. */
size_t finite_codes(const uint8_t *codes, size_t n, bool negative);

/* After every few MB, with the bytes read so far; false stops. */
typedef bool finite_step(void *user, uint64_t done);

/* -1 and a sentence that names tensor, element and value; also when step stopped it. */
int finite_check(const struct checkpoint *checkpoint, finite_step *step, void *user,
				 struct error *err);

/* err says that a NaN was computed: puts the stored number that is to blame in front, if one is.
 * Returns -1. */
int finite_explain(const struct checkpoint *checkpoint, struct error *err);

#endif
