/*
 * Choosing an id. The filters work on softmax(logits / temperature), in this order: top-k, then
 * top-p over what top-k left (renormalised; the smallest set that reaches top_p, at least one),
 * then min-p (relative to the most probable id). That is the order of HF transformers; llama.cpp by
 * default applies the temperature after its filters. Each keeps a prefix of the ids sorted by logit
 * (ties: the lower id first), so the result is one prefix, and no sort of the vocabulary is needed
 * to find its end.
 */
#ifndef KERNELS_PICK_H
#define KERNELS_PICK_H

#include "kernels/cpu.h"

/* Gumbel noise: -log(-log(u)), u = (top 53 bits of the hash + 1/2) / 2^53, hash =
 * hash_mix(hash_mix(hash_mix(seed) + position) + id). */
double pick_noise(uint64_t seed, int64_t position, int32_t id);

#endif
