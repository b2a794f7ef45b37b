#include "core/tokenizer.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "core/tokenizer_file.h"
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT_BYTES ((size_t)1 << 30) // positions in a piece are int32_t

int id_list_add(struct id_list *list, int32_t id, struct error *err)
{
	if (mem_grow(&list->ids, &list->capacity, list->n + 1, sizeof *list->ids, err))
		return -1;
	list->ids[list->n++] = id;
	return 0;
}

static bool separates(char c)
{
	return c && strchr(", \t\r\n[]", c);
}

/* Up to 20 bytes of a word, whole characters only. */
static int shown(const char *word, size_t length)
{
	size_t n = length < 20 ? length : 20;
	while (n < length && n > 0 && ((unsigned char)word[n] & 0xc0) == 0x80)
		n--;
	return (int)n;
}

int id_list_parse(struct id_list *list, const char *text, size_t length, struct error *err)
{
	size_t n_before = list->n;
	for (size_t at = 0, end; at < length; at = end) {
		int64_t id = 0;
		for (end = at; end < length && !separates(text[end]); end++)
			id = id < 0 || id > INT32_MAX || text[end] < '0' || text[end] > '9'
					 ? -1
					 : id * 10 + (text[end] - '0');
		if (end > at && (id < 0 || id > INT32_MAX)) {
			list->n = n_before;
			return fail(err, "'%.*s' is not a token id", shown(text + at, end - at), text + at);
		}
		if (end > at && id_list_add(list, (int32_t)id, err)) {
			list->n = n_before;
			return -1;
		}
		end += end == at;
	}
	return 0;
}

void tokenizer_close(struct tokenizer *tokenizer)
{
	if (!tokenizer)
		return;
	vocab_free(&tokenizer->vocab);
	bpe_free(&tokenizer->bpe);
	pieces_close(tokenizer->pieces);
	free(tokenizer->special_lengths);
	free(tokenizer);
}

struct encoder {
	const struct tokenizer *tokenizer;
	struct piece_reader *reader;
	struct bpe_work work;
	struct id_list *out;
};

static int encode_piece(struct encoder *encoder, const char *piece, size_t length,
						struct error *err)
{
	const struct tokenizer *tokenizer = encoder->tokenizer;
	struct id_list *out = encoder->out;
	if (tokenizer->ignore_merges) {
		int32_t whole = vocab_find(&tokenizer->vocab, piece, length, TOKEN_ORDINARY);
		if (whole >= 0)
			return id_list_add(out, whole, err);
	}
	if (mem_grow(&out->ids, &out->capacity, out->n + length, sizeof *out->ids, err))
		return -1;
	int32_t *ids = out->ids + out->n;
	for (size_t i = 0; i < length; i++)
		ids[i] = tokenizer->byte_ids[(unsigned char)piece[i]];
	int64_t n = bpe_merge(&tokenizer->bpe, &encoder->work, ids, length, err);
	if (n < 0)
		return -1;
	out->n += (size_t)n;
	return 0;
}

/* The text between two special tokens. */
static int encode_between(struct encoder *encoder, const char *text, size_t length,
						  struct error *err)
{
	if (length == 0)
		return 0;
	size_t start, end;
	int more;
	piece_reader_begin(encoder->reader, text, length);
	while ((more = piece_reader_next(encoder->reader, &start, &end, err)) > 0)
		if (encode_piece(encoder, text + start, end - start, err))
			return -1;
	return more;
}

/* The longest special token at `at` that the trust of its range r allows, or -1. */
static int32_t special_at(const struct tokenizer *tokenizer, const struct prompt *prompt, size_t r,
						  size_t at)
{
	const char *text = prompt->text.data;
	const struct text_range *range = &prompt->ranges[r];
	if (range->trust == TRUST_NONE || !tokenizer->begins_special[(unsigned char)text[at]])
		return -1;
	// <think> may be written half by the template and half by the assistant
	size_t think_end = range->end;
	for (size_t i = r + 1; i < prompt->n_ranges && prompt->ranges[i].trust != TRUST_NONE; i++)
		think_end = prompt->ranges[i].end;
	for (size_t i = 0; i < tokenizer->n_special_lengths; i++) {
		size_t length = tokenizer->special_lengths[i];
		if (length > think_end - at)
			continue;
		int32_t id = vocab_find(&tokenizer->vocab, text + at, length, TOKEN_SPECIAL);
		bool think = id >= 0 && (id == tokenizer->think || id == tokenizer->end_think);
		bool whole = range->trust == TRUST_ALL && length <= range->end - at;
		if (id >= 0 && (think || whole))
			return id;
	}
	return -1;
}

static int encode_all(struct encoder *encoder, const struct prompt *prompt, struct error *err)
{
	const struct tokenizer *tokenizer = encoder->tokenizer;
	const char *text = prompt->text.data;
	size_t start = 0, at = 0; // of the text that no special token has ended yet; of the search
	for (size_t r = 0; r < prompt->n_ranges; r++) {
		size_t end = prompt->ranges[r].end;
		if (prompt->ranges[r].trust == TRUST_NONE)
			at = end > at ? end : at;
		while (at < end) {
			int32_t id = special_at(tokenizer, prompt, r, at);
			if (id < 0) {
				at++;
				continue;
			}
			if (encode_between(encoder, text + start, at - start, err) ||
				id_list_add(encoder->out, id, err))
				return -1;
			at += tokenizer->vocab.tokens[id].length;
			start = at;
		}
	}
	return encode_between(encoder, text + start, prompt->text.length - start, err);
}

int tokenizer_encode(const struct tokenizer *tokenizer, const struct prompt *prompt,
					 struct id_list *out, struct error *err)
{
	size_t bad, n_before = out->n;
	if (prompt_check(prompt, err))
		return -1;
	if (prompt->text.length == 0)
		return 0;
	if (prompt->text.length > MAX_TEXT_BYTES)
		return fail(err, "the text has %zu bytes, at most %zu can be encoded at once",
					prompt->text.length, MAX_TEXT_BYTES);
	if (!utf8_valid(prompt->text.data, prompt->text.length, &bad))
		return fail(err, "the text is not valid UTF-8 at byte %zu (0x%02x)", bad,
					(unsigned)(unsigned char)prompt->text.data[bad]);
	struct encoder encoder = {.tokenizer = tokenizer, .out = out};
	encoder.reader = piece_reader_open(tokenizer->pieces, err);
	int result = encoder.reader ? encode_all(&encoder, prompt, err) : -1;
	if (result)
		out->n = n_before;
	piece_reader_close(encoder.reader);
	bpe_work_free(&encoder.work);
	return result;
}

int tokenizer_encode_text(const struct tokenizer *tokenizer, const char *text, size_t length,
						  enum trust trust, struct id_list *out, struct error *err)
{
	struct prompt prompt = {0};
	prompt_append(&prompt, text, length, trust);
	int result = tokenizer_encode(tokenizer, &prompt, out, err);
	prompt_free(&prompt);
	return result;
}

int tokenizer_size(const struct tokenizer *tokenizer)
{
	return tokenizer->vocab.size;
}

int tokenizer_special(const struct tokenizer *tokenizer, const char *text)
{
	return tokenizer ? vocab_find(&tokenizer->vocab, text, strlen(text), TOKEN_SPECIAL) : -1;
}

bool tokenizer_is_special(const struct tokenizer *tokenizer, int32_t id)
{
	return tokenizer && vocab_kind(&tokenizer->vocab, id) == TOKEN_SPECIAL;
}

const char *tokenizer_bytes(const struct tokenizer *tokenizer, int32_t id, size_t *length)
{
	const struct vocab *vocab = tokenizer ? &tokenizer->vocab : NULL;
	if (!vocab || vocab_kind(vocab, id) == TOKEN_NONE)
		return NULL;
	*length = vocab->tokens[id].length;
	return vocab->bytes.data + vocab->tokens[id].start;
}

/* The text of an id that has no bytes. */
static void write_id(const struct tokenizer *tokenizer, int32_t id, struct text *out)
{
	text_format(out, tokenizer ? "[id %d]" : " %d", id);
}

void tokenizer_decode(const struct tokenizer *tokenizer, int32_t id, struct text *out)
{
	size_t length;
	const char *bytes = tokenizer_bytes(tokenizer, id, &length);
	if (bytes)
		text_append(out, bytes, length);
	else
		write_id(tokenizer, id, out);
}

/* Appends what the tail is known to be; at_end: nothing follows. */
static void decode_tail(struct decode_state *state, bool at_end, struct text *out)
{
	while (state->n > 0) {
		uint32_t code;
		int size = utf8_decode(state->tail, (size_t)state->n, &code);
		// a surrogate's first two bytes wait for the third, as in Python's decoder: some
		// programs write pairs of surrogates
		bool surrogate = size < 0 && state->n == 2 && state->tail[0] == '\xed' &&
						 (state->tail[1] & 0xc0) == 0x80;
		if (!at_end && (size == 0 || surrogate))
			return;
		if (size > 0)
			text_append(out, state->tail, (size_t)size);
		else
			text_add(out, UTF8_REPLACEMENT);
		size = size == 0 ? state->n : abs(size);
		state->n -= size;
		memmove(state->tail, state->tail + size, (size_t)state->n);
	}
}

void tokenizer_decode_step(const struct tokenizer *tokenizer, struct decode_state *state,
						   int32_t id, struct text *out)
{
	size_t length;
	const char *bytes = tokenizer_bytes(tokenizer, id, &length);
	if (!bytes) {
		tokenizer_decode_flush(state, out);
		write_id(tokenizer, id, out);
		return;
	}
	for (size_t i = 0; i < length; i++) {
		state->tail[state->n++] = bytes[i];
		decode_tail(state, false, out);
	}
}

void tokenizer_decode_flush(struct decode_state *state, struct text *out)
{
	decode_tail(state, true, out);
}
