/*
 * Sampling parameters: what may be asked for, and what the checkpoint recommends. The choice itself
 * is the backend's operation `pick` (kernels/pick.h).
 */
#ifndef CORE_SAMPLER_H
#define CORE_SAMPLER_H

#include "core/config.h"
#include "core/elastic.h"
#include "kernels/backend.h"

/* elastic.json's sampling, else generation_config.json's (do_sample false = greedy), else
 * temperature 1; seed 0, no filters. */
void sampler_defaults(struct pick_params *params, const struct config *config,
					  const struct elastic *elastic);

/* Ranges: temperature 0..100, 0 < top_p <= 1, 0 <= min_p < 1, top_k >= 0. */
int sampler_check(const struct pick_params *params, struct error *err);

/* A seed from the system's entropy, 1 .. 2^31 - 1, so that it can be typed again. */
uint64_t sampler_new_seed(void);

#endif
