/*
 * The regular expression of a tokenizer, which cuts text into the pieces that are merged one by
 * one. Compiled with PCRE2, as text between special tokens; what no match covers is a piece of its
 * own.
 */
#ifndef CORE_PIECES_H
#define CORE_PIECES_H

#include "base/error.h"
#include <stddef.h>

struct pieces; // read-only once open; any thread may use it

struct pieces *pieces_open(const char *pattern, size_t length, struct error *err);
void pieces_close(struct pieces *pieces); // takes NULL

/* One thread's place in a text. */
struct piece_reader;

struct piece_reader *piece_reader_open(const struct pieces *pieces, struct error *err);
void piece_reader_close(struct piece_reader *reader); // takes NULL

/* Begins a text: well-formed UTF-8, borrowed until the last piece was read. */
void piece_reader_begin(struct piece_reader *reader, const char *text, size_t length);

/* 1 and the next piece [*start, *end), never empty; 0 at the end; -1 when the expression cannot be
 * matched within PCRE2's limits (never a wrong piece). */
int piece_reader_next(struct piece_reader *reader, size_t *start, size_t *end, struct error *err);

#endif
