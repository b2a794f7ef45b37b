/*
 * Text on its way to the model, with a mark on every byte: who wrote it. Only the template may say
 * <|im_end|>; what a user, a tool or a file says is text and stays text, whatever it looks like.
 * The chat format writes a prompt, the tokenizer reads it.
 */
#ifndef CORE_PROMPT_H
#define CORE_PROMPT_H

#include "base/error.h"
#include "base/text.h"
#include <stddef.h>

enum trust {
	TRUST_NONE,  // user, system and tool text: special tokens are never looked for
	TRUST_THINK, // assistant text: <think> and </think> are recognised, nothing else
	TRUST_ALL,   // the template's own text: every special token is recognised
};

/* Bytes [start, end) of the text. Ranges ascend, touch and differ in trust. */
struct text_range {
	size_t start, end;
	enum trust trust;
};

/* Starts as {0}. Owns its text and ranges. */
struct prompt {
	struct text text;
	struct text_range *ranges; // cover the whole text
	size_t n_ranges, capacity;
};

/* Appends bytes; those of the same trust as the end of the prompt join its last range. Running out
 * of memory sets text.failed (base/text.h). */
void prompt_append(struct prompt *prompt, const char *bytes, size_t length, enum trust trust);
void prompt_add(struct prompt *prompt, const char *string, enum trust trust);

/* 0, or -1 with "no memory ..." if an append failed. */
int prompt_check(const struct prompt *prompt, struct error *err);

void prompt_free(struct prompt *prompt); // takes {0}

#endif
