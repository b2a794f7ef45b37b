/*
 * UTF-8 as Unicode 3.9 and RFC 3629 define it: no surrogates, no overlong forms, at most U+10FFFF.
 */
#ifndef BASE_UTF8_H
#define BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define UTF8_REPLACEMENT "\xEF\xBF\xBD" // U+FFFD

/* Decodes one character at bytes[0..length). Returns its length (1..4) and the code point; 0 when
 * the bytes so far are the beginning of a character that is not complete; a negative number -n when
 * they are ill-formed: n bytes are the maximal ill-formed part, to be replaced by one U+FFFD.
 * length > 0. */
int utf8_decode(const char *bytes, size_t length, uint32_t *code);

/* Writes a code point, returns 1..4 (0 for one that has no encoding). */
int utf8_encode(uint32_t code, char out[4]);

/* Whether all of it is well-formed. *at = offset of the first byte that is not. at may be NULL. */
bool utf8_valid(const char *bytes, size_t length, size_t *at);

/* Columns that a character takes on a terminal: 0 (combining), 1, 2 (wide); -1 for controls.
 * Does not depend on the locale. */
int utf8_width(uint32_t code);

#endif
