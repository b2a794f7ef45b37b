/*
 * The tokens of a tokenizer: bytes by id, id by bytes. Flat arrays and open addressing, because a
 * vocabulary of 131,072 tokens must load in a fraction of a second. Ordinary and special tokens
 * live in two tables, so that no piece of text can ever be looked up and come out as a special
 * token.
 */
#ifndef CORE_VOCAB_H
#define CORE_VOCAB_H

#include "base/error.h"
#include "base/text.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum token_kind { TOKEN_NONE, TOKEN_ORDINARY, TOKEN_SPECIAL }; // NONE: a hole in the ids

struct vocab_token {
	uint32_t start, length; // in bytes
	uint32_t kind;
};

struct vocab_slot {
	uint32_t id;  // + 1, 0 = free
	uint32_t tag; // half of the hash: a slot of other bytes is passed without looking at them
};

struct vocab_table {
	struct vocab_slot *slots;
	uint32_t mask; // number of slots - 1
};

struct vocab {                  // starts as {0}
	struct text bytes;          // every token's bytes, one after the other
	struct vocab_token *tokens; // (size)
	int32_t size;
	struct vocab_table ordinary, special;
};

/* Room for ids 0..size-1, of which at most n_ordinary and n_special are used. */
int vocab_init(struct vocab *vocab, int32_t size, size_t n_ordinary, size_t n_special,
			   struct error *err);
void vocab_free(struct vocab *vocab);

/* Ids and bytes must be new. Bytes are copied. */
int vocab_add(struct vocab *vocab, int32_t id, const char *bytes, size_t length,
			  enum token_kind kind, struct error *err);

/* The id of exactly these bytes, or -1. */
int32_t vocab_find(const struct vocab *vocab, const char *bytes, size_t length,
				   enum token_kind kind);

enum token_kind vocab_kind(const struct vocab *vocab, int32_t id); // NONE out of range too

#endif
