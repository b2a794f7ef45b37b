#include "core/tokenizer_file.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"
#include <stdlib.h>
#include <string.h>

#define MAX_FILE_BYTES ((size_t)1 << 29)
#define MAX_ID ((int64_t)1 << 22)

/* What is needed while a file is read. */
struct loader {
	struct tokenizer *tokenizer;
	struct json json;
	int16_t byte_of[0x144];  // GPT-2's alphabet: code point -> byte, -1 = not in it
	struct text name, bytes; // scratch
};

/* GPT-2 writes a byte as the character of that number if it is printable Latin-1, and the others,
 * in order, as U+0100, U+0101 ... */
static void alphabet_init(int16_t byte_of[0x144])
{
	for (int code = 0; code < 0x144; code++)
		byte_of[code] = -1;
	int other = 0x100;
	for (int byte = 0; byte < 256; byte++) {
		bool itself = (byte > 0x20 && byte < 0x7f) || (byte > 0xa0 && byte != 0xad);
		byte_of[itself ? byte : other++] = (int16_t)byte;
	}
}

/* Appends the bytes that a token's text stands for; false if a character is not of the alphabet.
 * The text is well-formed UTF-8. */
static bool from_alphabet(const struct loader *load, const char *text, size_t length,
						  struct text *out)
{
	char bytes[256];
	size_t n = 0;
	for (size_t i = 0; i < length;) {
		uint32_t code = (unsigned char)text[i];
		int size = 1;
		if (code >= 0x80)
			size = utf8_decode(text + i, length - i, &code);
		if (size <= 0 || code >= 0x144 || load->byte_of[code] < 0)
			return false;
		if (n == sizeof bytes) {
			text_append(out, bytes, n);
			n = 0;
		}
		bytes[n++] = (char)load->byte_of[code];
		i += (size_t)size;
	}
	text_append(out, bytes, n);
	return true;
}

/* The bytes of a string node: in the source if nothing is escaped, else in load->name. */
static struct text string_of(struct loader *load, const struct json_node *node)
{
	if (!node->escaped)
		return (struct text){.data = (char *)load->json.source + node->start,
							 .length = node->end - node->start};
	text_clear(&load->name);
	json_string(&load->json, node, &load->name);
	return load->name;
}

static int shown(struct text name) // for "%.*s": as much of a name as fits in a sentence
{
	return (int)(name.length < 60 ? name.length : 60);
}

static int id_of(struct loader *load, const struct json_node *node, const char *what, int64_t *id,
				 struct error *err)
{
	if (json_integer(&load->json, node, what, id, err))
		return -1;
	if (*id < 0 || *id >= MAX_ID)
		return fail(err, "%s is %lld, expected 0 to %lld", what, (long long)*id,
					(long long)MAX_ID - 1);
	return 0;
}

/* Only null, or an empty string or list, will do. */
static int refuse_set(struct loader *load, const struct json_node *object, const char *key,
					  struct error *err)
{
	const struct json_node *node = json_member(&load->json, object, key);
	bool empty = !node || json_is(node, JSON_NULL) || json_is(node, JSON_FALSE) ||
				 (json_is(node, JSON_STRING) && node->start == node->end);
	double number = 1;
	if (json_is(node, JSON_NUMBER) && !json_number(&load->json, node, key, &number, NULL))
		empty = number == 0;
	return empty ? 0 : fail(err, "\"%s\" is set, which is not supported", key);
}

/* A flag that may be missing. */
static int flag_of(struct loader *load, const struct json_node *object, const char *key,
				   bool missing, bool *value, struct error *err)
{
	const struct json_node *node = json_member(&load->json, object, key);
	if (node && !json_is(node, JSON_TRUE) && !json_is(node, JSON_FALSE))
		return fail(err, "\"%s\" is neither true nor false", key);
	*value = node ? json_is(node, JSON_TRUE) : missing;
	return 0;
}

static bool has_type(struct loader *load, const struct json_node *object, const char *type)
{
	const struct json_node *node = json_member(&load->json, object, "type");
	return json_is(node, JSON_STRING) && json_equals(&load->json, node, type);
}

/* [Split by a regular expression, ByteLevel] */
static int read_pre_tokenizer(struct loader *load, struct error *err)
{
	static const char expected[] = "the pre_tokenizer is not a Sequence of Split (a Regex, "
								   "Isolated, not inverted) and ByteLevel (no prefix space, no "
								   "regex of its own), the only one supported";
	struct json *json = &load->json;
	const struct json_node *node = json_member(json, json->nodes, "pre_tokenizer");
	const struct json_node *list = json_member(json, node, "pretokenizers");
	if (!has_type(load, node, "Sequence") || !json_is(list, JSON_ARRAY) || list->n_children != 2)
		return fail(err, "%s", expected);
	const struct json_node *split = json_first(json, list);
	const struct json_node *byte_level = json_next(json, list, split);
	const struct json_node *regex = json_member(json, json_member(json, split, "pattern"), "Regex");
	const struct json_node *behavior = json_member(json, split, "behavior");
	bool invert = true, prefix = true, own_regex = true;
	if (flag_of(load, split, "invert", false, &invert, err) ||
		flag_of(load, byte_level, "add_prefix_space", true, &prefix, err) ||
		flag_of(load, byte_level, "use_regex", true, &own_regex, err))
		return -1;
	if (!has_type(load, split, "Split") || !json_is(regex, JSON_STRING) ||
		!json_is(behavior, JSON_STRING) || !json_equals(json, behavior, "Isolated") || invert ||
		!has_type(load, byte_level, "ByteLevel") || prefix || own_regex)
		return fail(err, "%s", expected);
	struct text pattern = string_of(load, regex);
	load->tokenizer->pieces = pieces_open(pattern.data, pattern.length, err);
	return load->tokenizer->pieces ? 0 : -1;
}

static int read_special(struct loader *load, const struct json_node *entry, struct error *err)
{
	struct json *json = &load->json;
	struct vocab *vocab = &load->tokenizer->vocab;
	const struct json_node *content = json_member(json, entry, "content");
	if (!json_is(content, JSON_STRING) || content->start == content->end)
		return fail(err, "an added token has no \"content\"");
	static const char *const flags[] = {"lstrip", "rstrip", "single_word"};
	struct text name = string_of(load, content);
	int64_t id;
	if (id_of(load, json_member(json, entry, "id"), "the id of an added token", &id, err))
		return -1;
	for (int i = 0; i < 3; i++) {
		bool set = false;
		if (flag_of(load, entry, flags[i], false, &set, err))
			return -1;
		if (set)
			return fail(err, "added token \"%.*s\" has %s, which is not supported", shown(name),
						name.data, flags[i]);
	}
	if (vocab_kind(vocab, (int32_t)id) != TOKEN_NONE)
		return fail(err, "two added tokens have the id %lld", (long long)id);
	if (vocab_find(vocab, name.data, name.length, TOKEN_SPECIAL) >= 0)
		return fail(err, "there are two added tokens \"%.*s\"", shown(name), name.data);
	return vocab_add(vocab, (int32_t)id, name.data, name.length, TOKEN_SPECIAL, err);
}

static int read_token(struct loader *load, const struct json_node *key, int64_t id,
					  struct error *err)
{
	struct vocab *vocab = &load->tokenizer->vocab;
	struct text name = string_of(load, key);
	int32_t special = vocab_find(vocab, name.data, name.length, TOKEN_SPECIAL);
	if (special >= 0)
		return special == id ? 0
							 : fail(err, "added token \"%.*s\" has the id %d, and %lld in vocab",
									shown(name), name.data, special, (long long)id);
	if (vocab_kind(vocab, (int32_t)id) != TOKEN_NONE)
		return fail(err, "token \"%.*s\" has the id %lld, which another token has too", shown(name),
					name.data, (long long)id);
	text_clear(&load->bytes);
	if (name.length == 0 || !from_alphabet(load, name.data, name.length, &load->bytes))
		return fail(err, "token %lld \"%.*s\" is not written in the byte-level alphabet",
					(long long)id, shown(name), name.data);
	if (text_check(&load->bytes, err))
		return -1;
	return vocab_add(vocab, (int32_t)id, load->bytes.data, load->bytes.length, TOKEN_ORDINARY, err);
}

/* added_tokens and model.vocab. */
static int read_vocab(struct loader *load, const struct json_node *model, struct error *err)
{
	struct json *json = &load->json;
	const struct json_node *added = json_member(json, json->nodes, "added_tokens");
	const struct json_node *vocab = json_member(json, model, "vocab");
	if (!json_is(vocab, JSON_OBJECT))
		return fail(err, "the model has no \"vocab\"");
	if (added && !json_is(added, JSON_ARRAY))
		return fail(err, "\"added_tokens\" is not a list");
	int64_t id, size = 0;
	int32_t *ids = mem_new(vocab->n_children, sizeof *ids, err);
	if (!ids)
		return -1;
	int result = 0;
	size_t n = 0;
	const struct json_node *at = json_first(json, vocab);
	for (; at && !result; at = json_next(json, vocab, at)) {
		result = id_of(load, json_value(at), "the id of a token in vocab", &id, err);
		if (!result)
			ids[n++] = (int32_t)id;
		size = !result && id >= size ? id + 1 : size;
	}
	at = added ? json_first(json, added) : NULL;
	for (; at && !result; at = json_next(json, added, at)) {
		result = id_of(load, json_member(json, at, "id"), "the id of an added token", &id, err);
		size = !result && id >= size ? id + 1 : size;
	}
	if (!result)
		result = vocab_init(&load->tokenizer->vocab, (int32_t)size, vocab->n_children,
							added ? added->n_children : 0, err);
	at = added ? json_first(json, added) : NULL;
	for (; at && !result; at = json_next(json, added, at))
		result = read_special(load, at, err);
	at = json_first(json, vocab);
	for (n = 0; at && !result; at = json_next(json, vocab, at))
		result = read_token(load, at, ids[n++], err);
	free(ids);
	return result;
}

/* One merge: "a b", or ["a", "b"]. Appends the bytes of both parts; *split = where the second
 * begins. */
static int read_parts(struct loader *load, const struct json_node *merge, uint32_t rank,
					  size_t *split, struct error *err)
{
	struct text *bytes = &load->bytes;
	text_clear(bytes);
	if (json_is(merge, JSON_STRING)) {
		struct text both = string_of(load, merge);
		const char *space = memchr(both.data ? both.data : "", ' ', both.length);
		size_t left = space ? (size_t)(space - both.data) : 0;
		if (space && from_alphabet(load, both.data, left, bytes)) {
			*split = bytes->length;
			if (from_alphabet(load, space + 1, both.length - left - 1, bytes))
				return text_check(bytes, err);
		}
	} else if (json_is(merge, JSON_ARRAY) && merge->n_children == 2) {
		const struct json_node *first = json_first(&load->json, merge);
		const struct json_node *second = json_next(&load->json, merge, first);
		if (json_is(first, JSON_STRING) && json_is(second, JSON_STRING)) {
			struct text part = string_of(load, first);
			bool good = from_alphabet(load, part.data, part.length, bytes);
			*split = bytes->length;
			part = string_of(load, second);
			if (good && from_alphabet(load, part.data, part.length, bytes))
				return text_check(bytes, err);
		}
	}
	return fail(err, "merge %u is neither \"a b\" nor [\"a\", \"b\"] in the byte-level alphabet",
				rank);
}

static int read_merges(struct loader *load, const struct json_node *model, struct error *err)
{
	struct tokenizer *tokenizer = load->tokenizer;
	const struct json_node *merges = json_member(&load->json, model, "merges");
	if (!json_is(merges, JSON_ARRAY))
		return fail(err, "the model has no \"merges\"");
	if (bpe_init(&tokenizer->bpe, merges->n_children, err))
		return -1;
	uint32_t rank = 0;
	const struct json_node *at = json_first(&load->json, merges);
	for (; at; at = json_next(&load->json, merges, at), rank++) {
		size_t split = 0;
		if (read_parts(load, at, rank, &split, err))
			return -1;
		const char *bytes = text_chars(&load->bytes);
		size_t length = load->bytes.length;
		int32_t left = vocab_find(&tokenizer->vocab, bytes, split, TOKEN_ORDINARY);
		int32_t right =
			vocab_find(&tokenizer->vocab, bytes + split, length - split, TOKEN_ORDINARY);
		int32_t both = vocab_find(&tokenizer->vocab, bytes, length, TOKEN_ORDINARY);
		// ordinary tokens only, so that text can't merge into a special one
		if (left < 0 || right < 0 || both < 0)
			return fail(err, "merge %u: %s is no ordinary token of vocab", rank,
						left < 0    ? "its first part"
						: right < 0 ? "its second part"
									: "its result");
		bpe_add(&tokenizer->bpe, left, right, rank, both);
	}
	return 0;
}

static int compare_lengths(const void *a, const void *b)
{
	uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
	return x < y ? 1 : x > y ? -1 : 0;
}

/* What encoding looks up in a moment: bytes, first bytes and lengths of special tokens. */
static int prepare(struct tokenizer *tokenizer, struct error *err)
{
	const struct vocab *vocab = &tokenizer->vocab;
	for (int byte = 0; byte < 256; byte++) {
		char c = (char)byte;
		tokenizer->byte_ids[byte] = vocab_find(vocab, &c, 1, TOKEN_ORDINARY);
		if (tokenizer->byte_ids[byte] < 0)
			return fail(err, "the byte 0x%02x has no token of its own", byte);
	}
	uint32_t *lengths = mem_new((size_t)vocab->size, sizeof *lengths, err);
	if (!lengths)
		return -1;
	tokenizer->special_lengths = lengths;
	size_t n = 0;
	for (int32_t id = 0; id < vocab->size; id++)
		if (vocab->tokens[id].kind == TOKEN_SPECIAL) {
			const char *first = vocab->bytes.data + vocab->tokens[id].start;
			tokenizer->begins_special[(unsigned char)*first] = true;
			lengths[n++] = vocab->tokens[id].length;
		}
	qsort(lengths, n, sizeof *lengths, compare_lengths);
	for (size_t i = 0; i < n; i++)
		if (i == 0 || lengths[i] != lengths[i - 1])
			lengths[tokenizer->n_special_lengths++] = lengths[i];
	tokenizer->think = tokenizer_special(tokenizer, "<think>");
	tokenizer->end_think = tokenizer_special(tokenizer, "</think>");
	return 0;
}

static int read_tokenizer(struct loader *load, struct error *err)
{
	static const char *const unsupported[] = {"byte_fallback", "dropout", "end_of_word_suffix",
											  "continuing_subword_prefix"};
	struct json *json = &load->json;
	const struct json_node *root = json->nodes, *model = json_member(json, root, "model");
	const struct json_node *decoder = json_member(json, root, "decoder");
	if (!json_is(model, JSON_OBJECT))
		return fail(err, "there is no \"model\" object: not a tokenizer.json");
	const struct json_node *type = json_member(json, model, "type");
	if (!has_type(load, model, "BPE")) {
		struct text name = {0};
		if (json_is(type, JSON_STRING))
			name = string_of(load, type);
		return fail(err, "the model is of type \"%.*s\", only byte-level BPE is supported",
					shown(name), name.data ? name.data : "");
	}
	for (int i = 0; i < 4; i++)
		if (refuse_set(load, model, unsupported[i], err))
			return -1;
	if (refuse_set(load, root, "normalizer", err))
		return -1;
	if (decoder && !json_is(decoder, JSON_NULL) && !has_type(load, decoder, "ByteLevel"))
		return fail(err, "the decoder is not ByteLevel, the only one supported");
	if (flag_of(load, model, "ignore_merges", false, &load->tokenizer->ignore_merges, err) ||
		read_pre_tokenizer(load, err) || read_vocab(load, model, err) ||
		read_merges(load, model, err))
		return -1;
	return prepare(load->tokenizer, err);
}

struct tokenizer *tokenizer_parse(const char *json, size_t length, struct error *err)
{
	struct loader load = {0};
	alphabet_init(load.byte_of);
	load.tokenizer = mem_new(1, sizeof *load.tokenizer, err);
	if (load.tokenizer &&
		(json_parse(&load.json, json, length, err) || read_tokenizer(&load, err))) {
		tokenizer_close(load.tokenizer);
		load.tokenizer = NULL;
	}
	json_free(&load.json);
	text_free(&load.name);
	text_free(&load.bytes);
	return load.tokenizer;
}

struct tokenizer *tokenizer_open(const char *path, struct error *err)
{
	struct text file = {0};
	struct tokenizer *tokenizer = NULL;
	if (file_read(path, MAX_FILE_BYTES, &file, err) == 0) {
		tokenizer = tokenizer_parse(text_chars(&file), file.length, err);
		if (!tokenizer)
			fail_in(err, "%s", path);
	}
	text_free(&file);
	return tokenizer;
}
