/*
 * A growing byte string: always NUL-terminated after the first append, may hold NUL bytes. Running
 * out of memory sets `failed` and makes every later append do nothing, so that a long chain of
 * appends needs one check at its end (text_check). Starts as {0}; text_free takes {0} too.
 */
#ifndef BASE_TEXT_H
#define BASE_TEXT_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>

struct text {
	char *data; // NULL while nothing was ever appended; use text_chars() for a C string
	size_t length, capacity;
	bool failed;
};

void text_append(struct text *text, const char *bytes, size_t length);
void text_add(struct text *text, const char *string);
void text_add_char(struct text *text, char byte);
void text_format(struct text *text, const char *format, ...) __attribute__((format(printf, 2, 3)));
void text_clear(struct text *text); // length 0, memory kept, failed reset
void text_free(struct text *text);

/* Makes room for `more` bytes at data + length, for a caller that fills them itself and then moves
 * length and the NUL. False if there is no memory or an append has failed already. */
bool text_reserve(struct text *text, size_t more);

/* The bytes as a C string, "" when empty. Valid until the next append. */
const char *text_chars(const struct text *text);

/* 0, or -1 with "no memory ..." if an append failed. */
int text_check(const struct text *text, struct error *err);

/* Hands the bytes over to the caller (free()); text is empty afterwards. NULL if an append failed.
 */
char *text_take(struct text *text);

#endif
