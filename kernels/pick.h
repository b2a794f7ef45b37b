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

#include <stdint.h>

#define N_ALTERNATIVES 5

/* How an id is chosen. The id is a pure function of logits, these and position: noise is a hash of
 * (seed, position, id), argmax of logit / temperature + Gumbel noise over what the filters leave.
 */
struct pick_params {
	uint64_t seed;
	float temperature; // 0 = greedy (ties: the lower id)
	float top_p;       // 1 = off
	float min_p;       // 0 = off
	int32_t top_k;     // 0 = off
	int32_t forced;    // >= 0: this id is taken; its logprob is still the model's
};

struct picked {
	int32_t id;
	float logprob; // natural log of softmax(logits)[id], before temperature and filters
	float entropy; // of softmax(logits), nats, before temperature and filters
	struct {
		int32_t id;
		float logprob;
	} top[N_ALTERNATIVES]; // the most probable, best first; id -1 where the vocabulary is smaller
};

/* What changes from token to token; device memory, so that a recorded pass can be replayed. */
struct pick_ask {
	int64_t position; // of the token that is being chosen
	struct pick_params params;
};

struct pick_op {
	const float *logits; // (vocab)
	int vocab;
	const struct pick_ask *ask;
	struct picked *out; // host memory, valid after finish(), of a replayed pass too
};

/* Gumbel noise: -log(-log(u)), u = (top 53 bits of the hash + 1/2) / 2^53, hash =
 * hash_mix(hash_mix(hash_mix(seed) + position) + id). */
double pick_noise(uint64_t seed, int64_t position, int32_t id);

#endif
