#include "core/vocab.h"
#include "base/hash.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

static int table_init(struct vocab_table *table, size_t n, struct error *err)
{
	size_t n_slots = 16;
	while (n_slots < n * 2)
		n_slots *= 2;
	table->slots = mem_new(n_slots, sizeof *table->slots, err);
	table->mask = (uint32_t)(n_slots - 1);
	return table->slots ? 0 : -1;
}

int vocab_init(struct vocab *vocab, int32_t size, size_t n_ordinary, size_t n_special,
			   struct error *err)
{
	vocab->size = size;
	vocab->tokens = mem_new((size_t)size, sizeof *vocab->tokens, err);
	if (!vocab->tokens || table_init(&vocab->ordinary, n_ordinary, err))
		return -1;
	return table_init(&vocab->special, n_special, err);
}

void vocab_free(struct vocab *vocab)
{
	text_free(&vocab->bytes);
	free(vocab->tokens);
	free(vocab->ordinary.slots);
	free(vocab->special.slots);
	*vocab = (struct vocab){0};
}

/* The slot that holds these bytes, or the free one where they would go. */
static struct vocab_slot *slot_of(const struct vocab *vocab, const struct vocab_table *table,
								  const char *bytes, size_t length, uint32_t *tag)
{
	uint64_t hash = hash_mix(hash_bytes(bytes, length));
	*tag = (uint32_t)(hash >> 32);
	for (uint32_t at = (uint32_t)hash & table->mask;; at = (at + 1) & table->mask) {
		struct vocab_slot *slot = &table->slots[at];
		if (slot->id == 0)
			return slot;
		if (slot->tag != *tag)
			continue;
		const struct vocab_token *token = &vocab->tokens[slot->id - 1];
		if (token->length == length && memcmp(vocab->bytes.data + token->start, bytes, length) == 0)
			return slot;
	}
}

int vocab_add(struct vocab *vocab, int32_t id, const char *bytes, size_t length,
			  enum token_kind kind, struct error *err)
{
	uint32_t start = (uint32_t)vocab->bytes.length;
	text_append(&vocab->bytes, bytes, length);
	if (text_check(&vocab->bytes, err))
		return -1;
	struct vocab_table *table = kind == TOKEN_SPECIAL ? &vocab->special : &vocab->ordinary;
	uint32_t tag;
	struct vocab_slot *slot = slot_of(vocab, table, bytes, length, &tag);
	*slot = (struct vocab_slot){(uint32_t)id + 1, tag};
	vocab->tokens[id] = (struct vocab_token){start, (uint32_t)length, kind};
	return 0;
}

int32_t vocab_find(const struct vocab *vocab, const char *bytes, size_t length,
				   enum token_kind kind)
{
	const struct vocab_table *table = kind == TOKEN_SPECIAL ? &vocab->special : &vocab->ordinary;
	uint32_t tag;
	return (int32_t)slot_of(vocab, table, bytes, length, &tag)->id - 1;
}

enum token_kind vocab_kind(const struct vocab *vocab, int32_t id)
{
	return id >= 0 && id < vocab->size ? (enum token_kind)vocab->tokens[id].kind : TOKEN_NONE;
}
