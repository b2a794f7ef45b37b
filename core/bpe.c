#include "core/bpe.h"
#include "base/hash.h"
#include "base/memory.h"
#include <stdbool.h>
#include <stdlib.h>

struct bpe_symbol {
	int32_t id;         // -1 = merged into the one before it
	int32_t prev, next; // -1 = none
};

struct bpe_pair {
	uint32_t rank;
	int32_t at;          // index of the left symbol
	int32_t left, right; // ids when it was found; if they changed, the pair is gone
	int32_t id;          // of the result
};

int bpe_init(struct bpe *bpe, size_t n_merges, struct error *err)
{
	size_t n_slots = 16;
	while (n_slots < n_merges * 2)
		n_slots *= 2;
	bpe->slots = mem_new(n_slots, sizeof *bpe->slots, err);
	bpe->mask = (uint32_t)(n_slots - 1);
	return bpe->slots ? 0 : -1;
}

void bpe_free(struct bpe *bpe)
{
	free(bpe->slots);
	*bpe = (struct bpe){0};
}

static struct bpe_merge *slot_of(const struct bpe *bpe, int32_t left, int32_t right)
{
	uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
	uint32_t at = (uint32_t)hash_mix(key) & bpe->mask;
	while (bpe->slots[at].rank && (bpe->slots[at].left != left || bpe->slots[at].right != right))
		at = (at + 1) & bpe->mask;
	return &bpe->slots[at];
}

void bpe_add(struct bpe *bpe, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
	*slot_of(bpe, left, right) = (struct bpe_merge){left, right, id, rank + 1};
}

static bool before(const struct bpe_pair *a, const struct bpe_pair *b)
{
	return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

/* Puts the pair that begins at a symbol on the heap, if it may merge. Room is made by bpe_merge. */
static void push(const struct bpe *bpe, struct bpe_work *work, int32_t at)
{
	const struct bpe_symbol *left = &work->symbols[at];
	if (left->next < 0)
		return;
	int32_t right = work->symbols[left->next].id;
	const struct bpe_merge *merge = slot_of(bpe, left->id, right);
	if (!merge->rank)
		return;
	struct bpe_pair pair = {merge->rank, at, left->id, right, merge->id};
	size_t hole = work->n_heap++;
	for (; hole > 0 && before(&pair, &work->heap[(hole - 1) / 2]); hole = (hole - 1) / 2)
		work->heap[hole] = work->heap[(hole - 1) / 2];
	work->heap[hole] = pair;
}

static struct bpe_pair pop(struct bpe_work *work)
{
	struct bpe_pair *heap = work->heap, top = heap[0], last = heap[--work->n_heap];
	size_t hole = 0;
	for (;;) {
		size_t child = 2 * hole + 1;
		if (child >= work->n_heap)
			break;
		if (child + 1 < work->n_heap && before(&heap[child + 1], &heap[child]))
			child++;
		if (!before(&heap[child], &last))
			break;
		heap[hole] = heap[child];
		hole = child;
	}
	heap[hole] = last;
	return top;
}

int64_t bpe_merge(const struct bpe *bpe, struct bpe_work *work, int32_t *ids, size_t n,
				  struct error *err)
{
	if (n < 2)
		return (int64_t)n;
	// a symbol begins one pair at first, and each of the n - 1 merges pushes two at most
	if (mem_grow(&work->symbols, &work->symbol_capacity, n, sizeof *work->symbols, err) ||
		mem_grow(&work->heap, &work->heap_capacity, 3 * n, sizeof *work->heap, err))
		return -1;
	struct bpe_symbol *symbols = work->symbols;
	for (size_t i = 0; i < n; i++)
		symbols[i] = (struct bpe_symbol){ids[i], (int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1};
	work->n_heap = 0;
	for (size_t i = 0; i + 1 < n; i++)
		push(bpe, work, (int32_t)i);
	while (work->n_heap) {
		struct bpe_pair pair = pop(work);
		struct bpe_symbol *left = &symbols[pair.at];
		if (left->id != pair.left || left->next < 0 || symbols[left->next].id != pair.right)
			continue;
		struct bpe_symbol *right = &symbols[left->next];
		left->id = pair.id;
		left->next = right->next;
		right->id = -1;
		if (left->next >= 0)
			symbols[left->next].prev = pair.at;
		push(bpe, work, pair.at);
		if (left->prev >= 0)
			push(bpe, work, left->prev);
	}
	int64_t n_out = 0;
	for (int32_t i = 0; i >= 0; i = symbols[i].next)
		ids[n_out++] = symbols[i].id;
	return n_out;
}

void bpe_work_free(struct bpe_work *work)
{
	free(work->symbols);
	free(work->heap);
	*work = (struct bpe_work){0};
}
