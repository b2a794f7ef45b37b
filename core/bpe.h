/*
 * Byte-pair merging: of all neighbours that may merge, the pair of the lowest rank goes first, the
 * leftmost of equals. A linked list and a heap: n log n, so that a piece of a million bytes is
 * fine.
 */
#ifndef CORE_BPE_H
#define CORE_BPE_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

struct bpe_merge {
	int32_t left, right; // ids of the two parts
	int32_t id;          // of the result
	uint32_t rank;       // + 1; 0 = a free slot
};

struct bpe { // starts as {0}; read-only once filled
	struct bpe_merge *slots;
	uint32_t mask;
};

struct bpe_work { // memory of one thread, used again for every piece; starts as {0}
	struct bpe_symbol *symbols;
	struct bpe_pair *heap;
	size_t symbol_capacity, heap_capacity, n_heap;
};

int bpe_init(struct bpe *bpe, size_t n_merges, struct error *err);
void bpe_free(struct bpe *bpe);

/* At most n_merges calls. A pair that was there already gets the new rank. */
void bpe_add(struct bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id);

/* Merges ids[0..n) in place and returns how many are left, or -1 (no memory). n < 2^31. */
int64_t bpe_merge(const struct bpe *bpe, struct bpe_work *work, int32_t *ids, size_t n,
				  struct error *err);
void bpe_work_free(struct bpe_work *work);

#endif
