/*
 * What a card needs besides weights, states and activations, as arithmetic: nothing is opened, so
 * that what fits can be said before anything is uploaded, and by a build without CUDA. Whoever
 * takes scratch in the CUDA backend adds it here; tests/shim/footprint.c holds both against each
 * other.
 */
#ifndef KERNELS_CARD_H
#define KERNELS_CARD_H

#include <stdbool.h>
#include <stdint.h>

/* A matrix that is not stored in BF16, or in several spans, is unpacked for cuBLASLt if it is no
 * larger than this. */
#define CARD_UNPACKED_BYTES ((uint64_t)128 << 20)
#define CARD_BLAS_BYTES ((uint64_t)32 << 20) // cuBLASLt's own

/* What the driver keeps for a program that has opened the card (its context, our kernels,
 * cuBLASLt's) and for recorded passes: seen on others' cards, not counted by us. */
#define CARD_DRIVER_BYTES ((uint64_t)640 << 20)

/* The largest passes that will be asked for. */
struct pass_shape {
	int n_tokens, n_lanes;
	int64_t hidden;
	int64_t columns;  // most inputs that a matrix has
	int64_t unpacked; // most weights of a matrix within CARD_UNPACKED_BYTES in BF16
	int64_t n_experts, top_k, ffn;
	int64_t n_heads, head_dim;
	bool fast; // MATH_FAST
};

/* Weights lie in blocks; the next one when so many bytes are there. The last block's end is empty.
 */
uint64_t card_block_bytes(uint64_t uploaded);

/* Tokens that prefill reads in a pass: so many that each of 128 experts gets a tile full of them
 * where the card computes fast, and so few that it can be stopped where it does not. bytes: the
 * card's memory, 1/48 of which may be activations. A power of two. */
int card_chunk(int n_sms, uint64_t bytes);

/* The most: what a pass takes less where it rounds more, or is narrower, is not taken off. */
uint64_t card_scratch_bytes(const struct pass_shape *shape);

#endif
