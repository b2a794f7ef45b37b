/*
 * Text <-> token ids: byte-level BPE as tokenizer.json describes it (specification: GPT-2's byte
 * alphabet, a regular expression that cuts text into pieces, merges by rank). What the file says is
 * what happens: ids of special tokens, the expression and ignore_merges are read, never assumed.
 * Files that ask for anything else (Unigram, WordPiece, normalisers, byte fallback ...) are
 * refused.
 *
 * Immutable after tokenizer_open, so every thread may use it. No token is ever added that the text
 * does not ask for (no BOS).
 *
 * A model without a tokenizer.json has none: NULL, which decode, special and bytes take. Then a
 * token's text is a blank and its id, and a line of ids is what a text is read as: model_encode().
 */
#ifndef CORE_TOKENIZER_H
#define CORE_TOKENIZER_H

#include "base/error.h"
#include "base/text.h"
#include "core/prompt.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct tokenizer;

struct id_list { // starts as {0}; free(ids)
	int32_t *ids;
	size_t n, capacity;
};

int id_list_add(struct id_list *list, int32_t id, struct error *err);
/* Appends the ids of "1 2 3", "1,2,3" or "[1, 2, 3]"; on -1 none. */
int id_list_parse(struct id_list *list, const char *text, size_t length, struct error *err);

/* Opens a tokenizer.json, or one already in memory (nothing of it is kept). Errors begin with path.
 */
struct tokenizer *tokenizer_open(const char *path, struct error *err);
struct tokenizer *tokenizer_parse(const char *json, size_t length, struct error *err);
void tokenizer_close(struct tokenizer *tokenizer); // takes NULL

/* Ids are 0 .. size-1; there may be holes. */
int tokenizer_size(const struct tokenizer *tokenizer);

/* All added_tokens of the file count as special, also those marked "special": false. */
int tokenizer_special(const struct tokenizer *tokenizer, const char *text); // its id, or -1
bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id);

/* The bytes of a token (of a special token its name), NULL if no token has this id. */
const char *tokenizer_bytes(const struct tokenizer *tokenizer, int32_t id, size_t *length);

/*
 * Appends the ids of the prompt. Special tokens are looked for as far as each range is trusted,
 * leftmost first, longest first, and never across a border to a less trusted range; between them
 * the text is one text, so that pieces and merges cross borders. Ill-formed UTF-8 is an error that
 * names the byte's offset (text from a model's own tokens is repaired by the decoder before it
 * comes back here). Linear in the text but for a logarithm; a piece of 1 MB is no special case.
 */
int tokenizer_encode(const struct tokenizer *tokenizer, const struct prompt *prompt,
					 struct id_list *out, struct error *err);
int tokenizer_encode_text(const struct tokenizer *tokenizer, const char *text, size_t length,
						  enum trust trust, struct id_list *out, struct error *err);

/* Appends the token's bytes as they are; "[id 999999]" for an id that has none, " 17" without a
 * tokenizer. */
void tokenizer_decode(const struct tokenizer *tokenizer, int32_t id, struct text *out);

/*
 * Decoding as a stream: what is appended to out is always well-formed UTF-8. An incomplete tail
 * waits for the next token; bytes that can no longer become a character give one U+FFFD per maximal
 * ill-formed part (Unicode 3.9). Starts as {0}.
 */
struct decode_state {
	char tail[4];
	int n;
};

void tokenizer_decode_step(const struct tokenizer *tokenizer, struct decode_state *state,
						   int32_t id, struct text *out);
void tokenizer_decode_flush(struct decode_state *state, struct text *out); // a tail gives U+FFFD

#endif
