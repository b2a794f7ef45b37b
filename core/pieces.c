#include "core/pieces.h"
#include "base/memory.h"
#include "base/text.h"
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define PCRE2_CODE_UNIT_WIDTH 8
#include <pcre2.h>

#define JIT_STACK_BYTES ((size_t)8 << 20)
#define MATCH_LIMIT 10000000u // of PCRE2 itself; the text's length is added to it

struct pieces {
	pcre2_code *code;
};

struct piece_reader {
	const struct pieces *pieces;
	pcre2_match_data *match;
	pcre2_match_context *context;
	pcre2_jit_stack *stack;
	const char *text;
	size_t length, at;
	size_t match_start, match_end; // found, not handed out yet; 0, 0 = none
};

/* Unicode's White_Space, which is what the reference means by \s. PCRE2's own \s adds U+180E. */
#define SPACE                                                                                      \
	"\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}"             \
	"\\x{202f}\\x{205f}\\x{3000}"
#define NO_SPACE                                                                                   \
	"\\x{0}-\\x{8}\\x{e}-\\x{1f}\\x{21}-\\x{84}\\x{86}-\\x{9f}\\x{a1}-\\x{167f}\\x{1681}-\\x{"     \
	"1fff}"                                                                                        \
	"\\x{200b}-\\x{2027}\\x{202a}-\\x{202e}\\x{2030}-\\x{205e}\\x{2060}-\\x{2fff}"                 \
	"\\x{3001}-\\x{10ffff}"

/* Writes \s and \S out. Classes within classes and && mean nothing to PCRE2: refused. */
static int translate(const char *pattern, size_t length, struct text *out, struct error *err)
{
	bool in_class = false;
	for (size_t i = 0; i < length; i++) {
		char c = pattern[i], after = i + 1 < length ? pattern[i + 1] : 0;
		if (c == '\\' && (after == 's' || after == 'S')) {
			if (in_class)
				text_add(out, after == 's' ? SPACE : NO_SPACE);
			else
				text_add(out, after == 's' ? "[" SPACE "]" : "[^" SPACE "]");
			i++;
			continue;
		}
		text_add_char(out, c);
		if (c == '\\' && i + 1 < length) {
			text_add_char(out, after);
			i++;
		} else if (in_class && (c == '[' || (c == '&' && after == '&'))) {
			return fail(err,
						"the regular expression has a set within a set at character %zu; "
						"only plain sets are supported",
						i);
		} else if (c == '[') {
			in_class = true;
			if (after == '^')
				text_add_char(out, pattern[++i]);
			if (i + 1 < length && pattern[i + 1] == ']')
				text_add_char(out, pattern[++i]);
		} else if (c == ']') {
			in_class = false;
		}
	}
	return text_check(out, err);
}

struct pieces *pieces_open(const char *pattern, size_t length, struct error *err)
{
	struct text translated = {0};
	struct pieces *pieces = NULL;
	if (translate(pattern, length, &translated, err) == 0)
		pieces = mem_new(1, sizeof *pieces, err);
	if (pieces) {
		int code;
		PCRE2_SIZE at;
		pieces->code =
			pcre2_compile((PCRE2_SPTR)text_chars(&translated), translated.length,
						  PCRE2_UTF | PCRE2_UCP | PCRE2_NEVER_BACKSLASH_C, &code, &at, NULL);
		if (!pieces->code) {
			char why[128] = "";
			pcre2_get_error_message(code, (PCRE2_UCHAR *)why, sizeof why);
			fail(err, "the regular expression does not compile: %s", why);
			pieces_close(pieces);
			pieces = NULL;
		} else {
			pcre2_jit_compile(pieces->code, PCRE2_JIT_COMPLETE); // without it: slower, same result
		}
	}
	text_free(&translated);
	return pieces;
}

void pieces_close(struct pieces *pieces)
{
	if (!pieces)
		return;
	pcre2_code_free(pieces->code);
	free(pieces);
}

struct piece_reader *piece_reader_open(const struct pieces *pieces, struct error *err)
{
	struct piece_reader *reader = mem_new(1, sizeof *reader, err);
	if (!reader)
		return NULL;
	reader->pieces = pieces;
	reader->match = pcre2_match_data_create_from_pattern(pieces->code, NULL);
	reader->context = pcre2_match_context_create(NULL);
	reader->stack = pcre2_jit_stack_create(32 << 10, JIT_STACK_BYTES, NULL);
	if (!reader->match || !reader->context) {
		piece_reader_close(reader);
		fail(err, "no memory to match the tokenizer's regular expression");
		return NULL;
	}
	if (reader->stack)
		pcre2_jit_stack_assign(reader->context, NULL, reader->stack);
	return reader;
}

void piece_reader_close(struct piece_reader *reader)
{
	if (!reader)
		return;
	pcre2_match_data_free(reader->match);
	pcre2_match_context_free(reader->context);
	pcre2_jit_stack_free(reader->stack);
	free(reader);
}

void piece_reader_begin(struct piece_reader *reader, const char *text, size_t length)
{
	reader->text = text;
	reader->length = length;
	reader->at = reader->match_start = reader->match_end = 0;
	// a run of spaces is tried back to its start once: the work grows with the text
	size_t limit = MATCH_LIMIT + (length < (size_t)1 << 28 ? 8 * length : (size_t)1 << 31);
	pcre2_set_match_limit(reader->context, (uint32_t)limit);
}

/* Finds the next match at or after `at`. 1, 0 = there is none, -1. */
static int find(struct piece_reader *reader, struct error *err)
{
	// the text was checked as a whole: checking it again at every piece would be quadratic
	uint32_t options = PCRE2_NO_UTF_CHECK | PCRE2_NOTEMPTY;
	PCRE2_SPTR text = (PCRE2_SPTR)reader->text;
	int found = pcre2_match(reader->pieces->code, text, reader->length, reader->at, options,
							reader->match, reader->context);
	if (found == PCRE2_ERROR_JIT_STACKLIMIT) // the interpreter keeps its stack on the heap
		found = pcre2_match(reader->pieces->code, text, reader->length, reader->at,
							options | PCRE2_NO_JIT, reader->match, reader->context);
	if (found == PCRE2_ERROR_NOMATCH)
		return 0;
	if (found < 0) {
		char why[128] = "";
		pcre2_get_error_message(found, (PCRE2_UCHAR *)why, sizeof why);
		return fail(err, "the tokenizer's regular expression fails at byte %zu: %s", reader->at,
					why);
	}
	const PCRE2_SIZE *range = pcre2_get_ovector_pointer(reader->match);
	if (range[0] < reader->at || range[1] <= range[0]) // \K can do that
		return fail(err, "the tokenizer's regular expression matches backwards at byte %zu",
					reader->at);
	reader->match_start = range[0];
	reader->match_end = range[1];
	return 1;
}

int piece_reader_next(struct piece_reader *reader, size_t *start, size_t *end, struct error *err)
{
	if (reader->at >= reader->length)
		return 0;
	*start = reader->at;
	if (reader->match_end <= reader->at) {
		int found = find(reader, err);
		if (found < 0)
			return -1;
		if (!found)
			reader->match_start = reader->match_end = reader->length;
	}
	*end = *start < reader->match_start ? reader->match_start : reader->match_end;
	reader->at = *end;
	return 1;
}
