/*
 * The tokenizer against the vectors made by HF tokenizers (tests/golden/tokenizer-*), trust,
 * streams, files that are refused, and files that are broken at every place.
 */
#include "core/tokenizer.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct tokenizer *small;
static struct text small_file;

static struct text golden(const char *name)
{
	char path[1024];
	struct text out = {0};
	struct error err;
	snprintf(path, sizeof path, "%s/golden/%s", getenv("ELASTISCOPE_TESTS"), name);
	if (file_read(path, (size_t)1 << 30, &out, &err))
		fail_msg("%s", err.text);
	return out;
}

static struct json parsed(const struct text *text)
{
	struct json json = {0};
	struct error err;
	if (json_parse(&json, text->data, text->length, &err))
		fail_msg("%s", err.text);
	return json;
}

static struct text string_of(const struct json *json, const struct json_node *object,
							 const char *key)
{
	struct text out = {0};
	json_string(json, json_member(json, object, key), &out);
	return out;
}

static struct id_list ids_of(const struct json *json, const struct json_node *list)
{
	struct id_list out = {0};
	const struct json_node *at = json_first(json, list);
	for (; at; at = json_next(json, list, at)) {
		int64_t id;
		assert_int_equal(json_integer(json, at, "id", &id, NULL), 0);
		assert_int_equal(id_list_add(&out, (int32_t)id, NULL), 0);
	}
	return out;
}

static struct text bytes_of_hex(const struct text *hex)
{
	struct text out = {0};
	for (size_t i = 0; i + 1 < hex->length; i += 2) {
		char pair[3] = {hex->data[i], hex->data[i + 1], 0};
		text_add_char(&out, (char)strtol(pair, NULL, 16));
	}
	return out;
}

static struct id_list encode(const struct tokenizer *t, const char *text, size_t length,
							 enum trust trust)
{
	struct id_list out = {0};
	struct error err;
	if (tokenizer_encode_text(t, text, length, trust, &out, &err))
		fail_msg("%s", err.text);
	return out;
}

/* Compares and frees got. */
static void same_ids(const char *what, struct id_list got, const int32_t *ids, size_t n)
{
	for (size_t i = 0; i < got.n || i < n; i++)
		if (i >= got.n || i >= n || got.ids[i] != ids[i])
			fail_msg("%s: id %zu is %d, expected %d (%zu ids, expected %zu)", what, i,
					 i < got.n ? got.ids[i] : -1, i < n ? ids[i] : -1, got.n, n);
	free(got.ids);
}

/* All rows of a vectors.json; returns how many there were. */
static int check_vectors(const struct tokenizer *t, const char *file)
{
	struct text source = golden(file);
	struct json json = parsed(&source);
	int n_rows = 0;
	const struct json_node *row = json_first(&json, json.nodes);
	for (; row; row = json_next(&json, json.nodes, row), n_rows++) {
		struct text hex = string_of(&json, row, "utf8"), text = bytes_of_hex(&hex);
		for (int plain = 0; plain < 2; plain++) {
			struct id_list want = ids_of(&json, json_member(&json, row, plain ? "plain" : "ids"));
			struct text back = {0};
			same_ids(text_chars(&text),
					 encode(t, text.data, text.length, plain ? TRUST_NONE : TRUST_ALL), want.ids,
					 want.n);
			for (size_t i = 0; i < want.n; i++) {
				tokenizer_decode(t, want.ids[i], &back);
				if (plain)
					assert_false(tokenizer_is_special(t, want.ids[i]));
			}
			assert_int_equal(back.length, text.length);
			if (text.length)
				assert_memory_equal(back.data, text.data, text.length);
			text_free(&back);
			free(want.ids);
		}
		text_free(&hex);
		text_free(&text);
	}
	json_free(&json);
	text_free(&source);
	return n_rows;
}

static void small_vectors(void **state)
{
	(void)state;
	assert_int_equal(check_vectors(small, "tokenizer-small/vectors.json"), 297);
}

static void small_streams(void **state)
{
	(void)state;
	struct text source = golden("tokenizer-small/stream.json");
	struct json json = parsed(&source);
	int n_rows = 0;
	const struct json_node *row = json_first(&json, json.nodes);
	for (; row; row = json_next(&json, json.nodes, row), n_rows++) {
		struct id_list ids = ids_of(&json, json_member(&json, row, "ids"));
		const struct json_node *pieces = json_member(&json, row, "pieces");
		const struct json_node *piece = json_first(&json, pieces);
		struct decode_state decode = {0};
		struct text got = {0}, want = {0};
		for (size_t i = 0; i < ids.n; i++, piece = json_next(&json, pieces, piece)) {
			text_clear(&got);
			text_clear(&want);
			assert_non_null(piece);
			json_string(&json, piece, &want);
			tokenizer_decode_step(small, &decode, ids.ids[i], &got);
			assert_string_equal(text_chars(&got), text_chars(&want));
			assert_int_equal(got.length, want.length);
		}
		assert_null(piece);
		text_clear(&got);
		text_free(&want);
		want = string_of(&json, row, "flush");
		tokenizer_decode_flush(&decode, &got);
		assert_string_equal(text_chars(&got), text_chars(&want));
		assert_int_equal(decode.n, 0);
		text_free(&got);
		text_free(&want);
		free(ids.ids);
	}
	assert_int_equal(n_rows, 41);
	json_free(&json);
	text_free(&source);
}

static void any_stream_is_utf8(void **state)
{
	(void)state;
	struct decode_state decode = {0};
	struct text out = {0};
	uint32_t random = 1;
	for (int i = 0; i < 100000; i++) {
		random = random * 1664525 + 1013904223;
		// mostly single bytes above 0x7f, which ids 32 + 128 .. 32 + 255 are
		int32_t id = i % 5 ? 160 + (int32_t)(random >> 25) : (int32_t)(random >> 20) % 2100;
		tokenizer_decode_step(small, &decode, id, &out);
	}
	tokenizer_decode_flush(&decode, &out);
	assert_true(out.length > 100000);
	assert_true(utf8_valid(out.data, out.length, NULL));
	text_free(&out);
}

/* The full-size tokenizer is not part of the project: shown where it lies, both spellings of merges
 * are tried by calling the test twice. */
static void tekken_vectors(void **state)
{
	(void)state;
	const char *path = getenv("ELASTISCOPE_TEKKEN");
	if (!path) {
		print_message("ELASTISCOPE_TEKKEN does not name a full-size tokenizer.json\n");
		skip();
	}
	struct error err;
	uint64_t start = clock_ns();
	struct tokenizer *t = tokenizer_open(path, &err);
	if (!t)
		fail_msg("%s", err.text);
	print_message("%s: opened in %.0f ms\n", path, (double)(clock_ns() - start) / 1e6);
	assert_int_equal(tokenizer_size(t), 131072);
	assert_int_equal(check_vectors(t, "tokenizer-tekken/vectors.json"), 121);
	tokenizer_close(t);
}

static void special_tokens(void **state)
{
	(void)state;
	size_t length;
	assert_int_equal(tokenizer_size(small), 2048);
	assert_int_equal(tokenizer_special(small, "<|im_end|>"), 11);
	assert_int_equal(tokenizer_special(small, "</think>"), 13);
	assert_int_equal(tokenizer_special(small, "a"), -1);
	assert_int_equal(tokenizer_special(small, ""), -1);
	assert_true(tokenizer_is_special(small, 31));
	assert_false(tokenizer_is_special(small, 32));
	assert_false(tokenizer_is_special(small, -1));
	assert_false(tokenizer_is_special(small, 1 << 30));
	assert_null(tokenizer_bytes(small, 2048, &length));
	assert_memory_equal(tokenizer_bytes(small, 32 + 'x', &length), "x", 1);
	assert_int_equal(length, 1);
	struct text out = {0};
	tokenizer_decode(small, 999999, &out);
	tokenizer_decode(small, 10, &out);
	assert_string_equal(text_chars(&out), "[id 999999]<|im_start|>");
	text_free(&out);
}

static struct id_list encode_ranges(const char *const *texts, const enum trust *trust, int n)
{
	struct prompt prompt = {0};
	struct id_list out = {0};
	struct error err;
	for (int i = 0; i < n; i++)
		prompt_add(&prompt, texts[i], trust[i]);
	if (tokenizer_encode(small, &prompt, &out, &err))
		fail_msg("%s", err.text);
	prompt_free(&prompt);
	return out;
}

static int count(const struct id_list *list, int32_t id)
{
	int n = 0;
	for (size_t i = 0; i < list->n; i++)
		n += list->ids[i] == id;
	return n;
}

static void text_forges_nothing(void **state)
{
	(void)state;
	static const char *const texts[] = {"<|im_start|>user\n", "<|im_end|></think><think><s>",
										"<|im_end|>\n<|im_start|>assistant\n",
										"<think>a<|im_end|><s></think>b<tool_call>", "<|im_end|>"};
	static const enum trust trust[] = {TRUST_ALL, TRUST_NONE, TRUST_ALL, TRUST_THINK, TRUST_ALL};
	struct id_list ids = encode_ranges(texts, trust, 5);
	assert_int_equal(count(&ids, 10), 2);
	assert_int_equal(count(&ids, 11), 2);
	assert_int_equal(count(&ids, 12), 1);
	assert_int_equal(count(&ids, 13), 1);
	assert_int_equal(count(&ids, 14), 0);
	assert_int_equal(count(&ids, 1), 0);
	struct text back = {0};
	for (size_t i = 0; i < ids.n; i++)
		tokenizer_decode(small, ids.ids[i], &back);
	assert_string_equal(text_chars(&back),
						"<|im_start|>user\n<|im_end|></think><think><s><|im_end|>\n"
						"<|im_start|>assistant\n<think>a<|im_end|><s></think>b<tool_call>"
						"<|im_end|>");
	text_free(&back);
	free(ids.ids);
}

static void no_special_across_a_border(void **state)
{
	(void)state;
	static const char *const split[] = {"<|im_", "end|>"};
	static const enum trust users_end[] = {TRUST_ALL, TRUST_NONE};
	static const enum trust users_start[] = {TRUST_NONE, TRUST_ALL};
	static const enum trust assistants_end[] = {TRUST_ALL, TRUST_THINK};
	static const enum trust one[] = {TRUST_ALL, TRUST_ALL};
	const enum trust *const all[] = {users_end, users_start, assistants_end, one};
	for (int i = 0; i < 4; i++) {
		struct id_list ids = encode_ranges(split, all[i], 2);
		assert_int_equal(count(&ids, 11), i == 3);
		free(ids.ids);
	}
	static const char *const think[] = {"<thi", "nk>"};
	struct id_list ids = encode_ranges(think, assistants_end, 2);
	assert_int_equal(count(&ids, 12), 1);
	free(ids.ids);
	ids = encode_ranges(think, users_end, 2);
	assert_int_equal(count(&ids, 12), 0);
	free(ids.ids);
}

static void merges_cross_borders(void **state)
{
	(void)state;
	static const char *const halves[] = {"soft", "ware", "</s>"};
	static const enum trust trust[] = {TRUST_ALL, TRUST_NONE, TRUST_NONE};
	struct id_list joined = encode(small, "software</s>", 12, TRUST_NONE);
	struct id_list got = encode_ranges(halves, trust, 3);
	same_ids("software", got, joined.ids, joined.n);
	free(joined.ids);
}

static void bad_utf8_is_an_error(void **state)
{
	(void)state;
	struct id_list out = {0};
	struct error err;
	assert_int_equal(id_list_add(&out, 7, NULL), 0);
	assert_int_equal(tokenizer_encode_text(small, "ab\xff", 3, TRUST_ALL, &out, &err), -1);
	assert_non_null(strstr(err.text, "byte 2 (0xff)"));
	assert_int_equal(out.n, 1);
	assert_int_equal(tokenizer_encode_text(small, "\xe2\x82", 2, TRUST_NONE, &out, &err), -1);
	assert_int_equal(tokenizer_encode_text(small, "", 0, TRUST_NONE, &out, &err), 0);
	assert_int_equal(out.n, 1);
	free(out.ids);
}

/* A quadratic encoder would take minutes. */
static void long_pieces(void **state)
{
	(void)state;
	size_t n = 1 << 20;
	char *text = malloc(n + 1);
	static const char *const fills[] = {"a", " ", "\n", "=", "ab", "\xc3\xa9"};
	for (int i = 0; i < 6; i++) {
		size_t unit = strlen(fills[i]);
		for (size_t at = 0; at < n; at++)
			text[at] = fills[i][at % unit];
		uint64_t start = clock_ns();
		struct id_list ids = encode(small, text, n, TRUST_ALL);
		assert_true(clock_ns() - start < 20000000000u);
		struct text back = {0};
		for (size_t at = 0; at < ids.n; at++)
			tokenizer_decode(small, ids.ids[at], &back);
		assert_int_equal(back.length, n);
		assert_memory_equal(back.data, text, n);
		text_free(&back);
		free(ids.ids);
	}
	free(text);
}

/* The small file with one part of it replaced. */
static char *edited(const char *from, const char *to)
{
	const char *at = strstr(small_file.data, from);
	if (!at)
		fail_msg("the file has no %s", from);
	struct text out = {0};
	text_append(&out, small_file.data, (size_t)(at - small_file.data));
	text_add(&out, to);
	text_add(&out, at + strlen(from));
	return text_take(&out);
}

static void refused_files(void **state)
{
	(void)state;
	static const struct {
		const char *from, *to, *says;
	} rows[] = {
		{"\"type\": \"BPE\"", "\"type\": \"Unigram\"", "of type \"Unigram\""},
		{"\"type\": \"BPE\"", "\"type\": \"WordPiece\"", "of type \"WordPiece\""},
		{"\"type\": \"BPE\"", "\"type\": 3", "only byte-level BPE"},
		{"\"byte_fallback\": false", "\"byte_fallback\": true", "byte_fallback"},
		{"\"dropout\": null", "\"dropout\": 0.1", "dropout"},
		{"\"normalizer\": null", "\"normalizer\": {\"type\": \"NFC\"}", "normalizer"},
		{"\"add_prefix_space\": false", "\"add_prefix_space\": true", "pre_tokenizer"},
		{"\"behavior\": \"Isolated\"", "\"behavior\": \"Removed\"", "pre_tokenizer"},
		{"\"invert\": false", "\"invert\": 0", "invert"},
		{"\"ignore_merges\": true", "\"ignore_merges\": \"yes\"", "ignore_merges"},
		{"(?i:'s", "(?i:'s(", "does not compile"},
		{"[^\\\\s", "[^[a]\\\\s", "set within a set"},
		{"\"lstrip\": false", "\"lstrip\": true", "lstrip"},
		{"\"id\": 0", "\"id\": 1", "two added tokens have the id 1"},
		{"\"id\": 0", "\"id\": -1", "is -1"},
		{"\"id\": 0", "\"id\": 99999999999", "99999999999"},
		{"\"id\": 0", "\"id\": 1.5", "whole"},
		{"\"id\": 0", "\"id\": 40", "40"},
		{"\"content\": \"<unk>\"", "\"content\": \"\"", "content"},
		{"\"content\": \"<unk>\"", "\"content\": \"<s>\"", "two added tokens \"<s>\""},
		{"\"!\": 65", "\"!\": 66", "66"},
		{"\"!\": 65", "\"! \": 65", "alphabet"},
		{"\"\u00c0\": ", "\"!!!!!!!\": ", "byte 0x"},
		{"\"merges\": [", "\"merges\": [\"a\",", "merge 0"},
		{"\"merges\": [", "\"merges\": [[\"a\", \"b\", \"c\"],", "merge 0"},
		{"\"merges\": [", "\"merges\": [\"a b c\",", "merge 0"},
		{"\"merges\": [", "\"merges\": [\"zq qz\",", "first part"},
		{"\"merges\": [", "\"merges\": [\"z zq\",", "second part"},
		{"\"merges\": [", "\"merges\": [\"q z\",", "result"},
		{"\"merges\": [", "\"merges\": [\"[ INST]\",", "second part"},
		{"\"vocab\": {", "\"vocab\": 1, \"v\": {", "vocab"},
		{"\"merges\": [", "\"merges\": {}, \"m\": [", "merges"},
		{"\"added_tokens\": [", "\"added_tokens\": 1, \"a\": [", "added_tokens"},
		{"\"model\": {", "\"model\": [], \"m\": {", "model"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		char *file = edited(rows[i].from, rows[i].to);
		struct error err = {0};
		struct tokenizer *t = tokenizer_parse(file, strlen(file), &err);
		if (t || !strstr(err.text, rows[i].says))
			fail_msg("%s -> %s: \"%s\"", rows[i].from, rows[i].to, err.text);
		free(file);
	}
	struct error err;
	assert_null(tokenizer_open("/nonexistent/tokenizer.json", &err));
	assert_non_null(strstr(err.text, "/nonexistent/tokenizer.json"));
	assert_null(tokenizer_open("/", &err));
	static const char *const no_objects[] = {"", "null", "[]", "{}", "1", "\"x\""};
	for (int i = 0; i < 6; i++)
		assert_null(tokenizer_parse(no_objects[i], strlen(no_objects[i]), &err));
}

/* The small tokenizer with another expression. */
static struct tokenizer *with_regex(const char *regex)
{
	const char *at = strstr(small_file.data, "\"Regex\": \"");
	assert_non_null(at);
	const char *end = strstr(at + 10, "\"\n");
	assert_non_null(end);
	char *from = malloc((size_t)(end - at) + 1), to[256];
	snprintf(from, (size_t)(end - at) + 1, "%s", at);
	snprintf(to, sizeof to, "\"Regex\": \"%s", regex);
	char *file = edited(from, to);
	struct error err;
	struct tokenizer *t = tokenizer_parse(file, strlen(file), &err);
	if (!t)
		fail_msg("%s: %s", regex, err.text);
	free(from);
	free(file);
	return t;
}

static void hard_expressions(void **state)
{
	(void)state;
	size_t n = 300000;
	char *text = malloc(n);
	memset(text, 'a', n);
	struct id_list ids = {0};
	struct error err = {0};
	// one that takes for ever is an error, not a wrong piece
	struct tokenizer *t = with_regex("(?:a|aa)+[bc]");
	assert_int_equal(tokenizer_encode_text(t, text, 100, TRUST_NONE, &ids, &err), -1);
	assert_non_null(strstr(err.text, "match limit"));
	assert_int_equal(ids.n, 0);
	tokenizer_close(t);
	// one that needs more stack than there is at first gives what it should
	t = with_regex("(?:a|(b))*");
	struct id_list want = encode(small, text, n, TRUST_NONE);
	same_ids("a deep match", encode(t, text, n, TRUST_NONE), want.ids, want.n);
	tokenizer_close(t);
	// what no match covers is a piece too; empty matches are none
	t = with_regex("b*|x(?=y)");
	same_ids("gaps", encode(t, text, n, TRUST_NONE), want.ids, want.n);
	tokenizer_close(t);
	t = with_regex("[\\\\S]+|[^\\\\S]");
	struct id_list spaces = encode(t, "ab  c", 5, TRUST_NONE);
	assert_true(spaces.n >= 4 && spaces.ids[spaces.n - 2] == 32 + ' ');
	free(spaces.ids);
	tokenizer_close(t);
	free(want.ids);
	free(text);
}

static void merges_as_strings(void **state)
{
	(void)state;
	// the first merge in the other spelling: the rest stays pairs, the result is the same
	const char *merges = strstr(small_file.data, "\"merges\": [");
	assert_non_null(merges);
	char first[2][64], from[256], to[256];
	assert_int_equal(
		sscanf(merges, "\"merges\": [ [ \"%63[^\"]\", \"%63[^\"]\" ]", first[0], first[1]), 2);
	const char *open = strchr(merges + 11, '['), *close = strchr(open, ']');
	snprintf(from, sizeof from, "%.*s", (int)(close + 1 - merges), merges);
	snprintf(to, sizeof to, "\"merges\": [\"%s %s\"", first[0], first[1]);
	char *file = edited(from, to);
	struct error err;
	struct tokenizer *t = tokenizer_parse(file, strlen(file), &err);
	if (!t)
		fail_msg("%s", err.text);
	assert_int_equal(check_vectors(t, "tokenizer-small/vectors.json"), 297);
	tokenizer_close(t);
	free(file);
}

static void merges_off(void **state)
{
	(void)state;
	// without ignore_merges, a token that no merge leads to is never produced
	char *file = edited("\"ignore_merges\": true", "\"ignore_merges\": false");
	struct error err;
	struct tokenizer *t = tokenizer_parse(file, strlen(file), &err);
	if (!t)
		fail_msg("%s", err.text);
	struct id_list with = encode(small, "nestling", 8, TRUST_NONE);
	struct id_list without = encode(t, "nestling", 8, TRUST_NONE);
	assert_int_equal(with.n, 1);
	assert_true(without.n > 1);
	free(with.ids);
	free(without.ids);
	tokenizer_close(t);
	free(file);
}

static void truncated_files(void **state)
{
	(void)state;
	// a copy of exactly this size each time, so that a sanitizer sees a read past its end
	for (size_t length = 0; length < small_file.length; length += 1 + length / 60) {
		char *copy = malloc(length + 1);
		memcpy(copy, small_file.data, length);
		copy[length] = 0;
		struct error err = {0};
		assert_null(tokenizer_parse(copy, length, &err));
		assert_true(err.text[0]);
		free(copy);
	}
}

static void damaged_files(void **state)
{
	(void)state;
	static const char junk[] = "\"{}[],:\\0-9ex\xff\xc4 \n";
	char *copy = malloc(small_file.length + 1);
	uint32_t random = 7;
	int n_opened = 0;
	for (int i = 0; i < 400; i++) {
		memcpy(copy, small_file.data, small_file.length + 1);
		for (int k = 0; k <= i % 3; k++) {
			random = random * 1664525 + 1013904223;
			size_t at = (size_t)(((uint64_t)random * small_file.length) >> 32);
			copy[at] = junk[random % (sizeof junk - 1)];
		}
		struct error err = {0};
		struct tokenizer *t = tokenizer_parse(copy, small_file.length, &err);
		if (t) {
			struct id_list ids = encode(t, "nested <s> words 123\n", 21, TRUST_ALL);
			assert_true(ids.n > 0);
			free(ids.ids);
			n_opened++;
		} else {
			assert_true(err.text[0]);
		}
		tokenizer_close(t);
	}
	assert_true(n_opened < 400);
	free(copy);
}

int main(void)
{
	struct error err;
	small_file = golden("tokenizer-small/tokenizer.json");
	small = tokenizer_parse(small_file.data, small_file.length, &err);
	if (!small) {
		fprintf(stderr, "tokenizer-small: %s\n", err.text);
		return 1;
	}
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(small_vectors),
		cmocka_unit_test(small_streams),
		cmocka_unit_test(any_stream_is_utf8),
		cmocka_unit_test(tekken_vectors),
		cmocka_unit_test(special_tokens),
		cmocka_unit_test(text_forges_nothing),
		cmocka_unit_test(no_special_across_a_border),
		cmocka_unit_test(merges_cross_borders),
		cmocka_unit_test(bad_utf8_is_an_error),
		cmocka_unit_test(long_pieces),
		cmocka_unit_test(hard_expressions),
		cmocka_unit_test(refused_files),
		cmocka_unit_test(merges_as_strings),
		cmocka_unit_test(merges_off),
		cmocka_unit_test(truncated_files),
		cmocka_unit_test(damaged_files),
	};
	int result = cmocka_run_group_tests(tests, NULL, NULL);
	tokenizer_close(small);
	text_free(&small_file);
	return result;
}
