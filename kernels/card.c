#include "kernels/card.h"

#define LEAST 256
#define MOST 4096
#define TOKENS_OF_SM 32
#define TOKEN_BYTES ((uint64_t)256 << 10) // of activations and scratch, at 30B
#define TILE_TOKENS 64                    // as cuda_grouped.cu sorts them
#define MAX_SPLITS 64                     // of a decoding attention's keys
#define SMALL_BYTES ((uint64_t)3 << 19)   // picks of 32 lanes, tickets, plans of a few bytes

int card_chunk(int n_sms, uint64_t bytes)
{
	int chunk = LEAST;
	while (chunk < MOST && 2 * chunk <= n_sms * TOKENS_OF_SM &&
		   2 * (uint64_t)chunk * TOKEN_BYTES <= bytes / 48)
		chunk *= 2;
	return chunk;
}

static uint64_t larger(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

uint64_t card_scratch_bytes(const struct pass_shape *s)
{
	uint64_t n = (uint64_t)s->n_tokens, pairs = n * (uint64_t)s->top_k;
	uint64_t lanes = (uint64_t)s->n_lanes, heads = (uint64_t)s->n_heads;
	uint64_t tiles = (uint64_t)s->n_experts + pairs / TILE_TOKENS;
	uint64_t bytes = SMALL_BYTES;
	bytes += lanes * heads * MAX_SPLITS * (((uint64_t)s->head_dim + 3) / 4 * 4 + 4) * sizeof(float);
	if (s->n_experts) {
		bytes += pairs * (uint64_t)s->hidden *
				 sizeof(float); // experts' outputs, as without tensor cores
		bytes += (1 + 3 * tiles + pairs + 4) * sizeof(int32_t); // pairs by expert
	}
	if (!s->fast)
		return bytes;
	bytes += n * larger((uint64_t)s->columns, (uint64_t)s->hidden) * 2; // activations in BF16
	bytes += pairs * (uint64_t)s->ffn * 2; // between the experts' products, if kept
	bytes += (uint64_t)s->unpacked * 2;
	return bytes + CARD_BLAS_BYTES;
}

uint64_t card_block_bytes(uint64_t uploaded)
{
	const uint64_t least = (uint64_t)1 << 20, most = (uint64_t)256 << 20;
	uint64_t bytes = uploaded / 8;
	return bytes < least ? least : bytes > most ? most : bytes;
}
