#include "base/json.h"
#include "base/clock.h"
#include <float.h>
#include <locale.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Parses an exact-size heap copy, so that the sanitizer sees a read beyond the end. */
static int parse(struct json *json, const char *source, size_t length, char **copy,
				 struct error *err)
{
	*copy = malloc(length ? length : 1);
	if (length)
		memcpy(*copy, source, length);
	return json_parse(json, *copy, length, err);
}

static void accepts(const char *source)
{
	struct json json;
	struct error err = {0};
	char *copy;
	if (parse(&json, source, strlen(source), &copy, &err) < 0)
		fail_msg("%s: %s", source, err.text);
	assert_int_equal(json.nodes[0].next, json.n_nodes);
	json_free(&json);
	free(copy);
}

static void refuses(const char *source, size_t length, const char *sentence)
{
	struct json json;
	struct error err = {0};
	char *copy;
	if (parse(&json, source, length, &copy, &err) == 0)
		fail_msg("accepted: %s", source);
	assert_string_equal(err.text, sentence);
	assert_null(json.nodes);
	free(copy);
}

#define REFUSES(source, sentence) refuses(source, sizeof source - 1, sentence)

static void accepts_what_rfc_8259_says(void **state)
{
	(void)state;
	accepts("null");
	accepts(" \t\r\n{ } ");
	accepts("[]");
	accepts("[1, -0, 0.5, 1e5, 1E-5, 2.50e+10, -12]");
	accepts("{\"a\": {\"a\": [{}, [], true, false, null]}, \"\": 1}");
	accepts("\"\\\" \\\\ \\/ \\b \\f \\n \\r \\t \\u00e9 \\ud83d\\uDE00 \\u0000\"");
	accepts("\"\x7f\xc3\xa9\xf0\x9f\x98\x80\"");
}

static void refuses_everything_else(void **state)
{
	(void)state;
	REFUSES("", "line 1, column 1: the text ends, expected a value");
	REFUSES("{\n \"a\": tru}", "line 2, column 7: found 't', expected a value");
	REFUSES("[1,]", "line 1, column 4: found ']', expected a value");
	REFUSES("[1 2]", "line 1, column 4: found '2', expected ',' or ']'");
	REFUSES("[1", "line 1, column 3: the text ends, expected ',' or ']'");
	REFUSES("{\"a\":1,}", "line 1, column 8: found '}', expected a key in quotes");
	REFUSES("{\"a\" 1}", "line 1, column 6: found '1', expected ':'");
	REFUSES("{a:1}", "line 1, column 2: found 'a', expected a key in quotes");
	REFUSES("{\"a\":1]", "line 1, column 7: found ']', expected ',' or '}'");
	REFUSES("[1}", "line 1, column 3: found '}', expected ',' or ']'");
	REFUSES("1 x", "line 1, column 3: found 'x', expected the end");
	REFUSES("null\0", "line 1, column 5: found '\\x00', expected the end");
	REFUSES("[\"\xc3\xa9\", ?]", "line 1, column 7: found '?', expected a value");
	REFUSES("\xef\xbb\xbf{}", "line 1, column 1: a byte order mark, expected a value");
	REFUSES("01", "line 1, column 2: found '1', expected the end");
	REFUSES("+1", "line 1, column 1: found '+', expected a value");
	REFUSES(".5", "line 1, column 1: found '.', expected a value");
	REFUSES("1.", "line 1, column 3: the text ends, expected a digit");
	REFUSES("1e+", "line 1, column 4: the text ends, expected a digit");
	REFUSES("-", "line 1, column 2: the text ends, expected a digit");
	REFUSES("NaN", "line 1, column 1: found 'N', expected a value");
	REFUSES("nul", "line 1, column 1: found 'n', expected a value");
}

static void refuses_bad_strings(void **state)
{
	const char *surrogate =
		"line 1, column 2: expected \\u and four hexadecimal digits of a character "
		"(surrogates in pairs)";
	(void)state;
	refuses("\"\\ud800\"", 8, surrogate);
	refuses("\"\\udc00\"", 8, surrogate);
	refuses("\"\\ud800\\u0041\"", 14, surrogate);
	refuses("\"\\ud800\\ud800\"", 14, surrogate);
	refuses("\"\\u12g4\"", 8, surrogate);
	refuses("\"\\u12", 5, surrogate);
	REFUSES("\"\\x41\"", "line 1, column 2: unknown escape in a string");
	REFUSES("\"ab\ncd\"", "line 1, column 4: control character in a string");
	REFUSES("\"ab\0cd\"", "line 1, column 4: control character in a string");
	REFUSES("\"abcdefghijklm", "line 1, column 15: the text ends in a string");
	REFUSES("\"abc\\", "line 1, column 6: the text ends in a string");
	REFUSES("\"ab\xed\xa0\x80\"", "line 1, column 4: ill-formed UTF-8");
	REFUSES("\"ab\xc3", "line 1, column 4: ill-formed UTF-8");
	REFUSES("\"abcdefghijkl\xff\"", "line 1, column 14: ill-formed UTF-8");
}

static void refuses_duplicate_keys(void **state)
{
	struct text many = {0};
	struct json json;
	struct error err = {0};
	(void)state;
	REFUSES("{\"a\":1,\n\"a\":2}", "line 2, column 1: this object has this key already");
	REFUSES("{\"a\":1,\"\\u0061\":2}", "line 1, column 8: this object has this key already");
	accepts("{\"a\\u0000\":1,\"a\":2,\"A\":3}");
	text_add(&many, "{");
	for (int i = 0; i < 1000; i++)
		text_format(&many, "\"key %d\": [{\"key 1\": %d}],\n", i, i);
	text_add(&many, "\"\\u006bey 500\": 1}");
	assert_int_equal(json_parse(&json, many.data, many.length, &err), -1);
	assert_string_equal(err.text, "line 1001, column 1: this object has this key already");
	memcpy(strstr(many.data, "\\u006b"), "\\u006c", 6); // now it is "ley 500"
	assert_int_equal(json_parse(&json, many.data, many.length, &err), 0);
	assert_int_equal(json.nodes[0].n_children, 1001);
	assert_true(json_is(json_member(&json, json.nodes, "ley 500"), JSON_NUMBER));
	json_free(&json);
	text_free(&many);
}

static void depth_is_limited(void **state)
{
	char deep[2 * JSON_MAX_DEPTH + 2];
	struct json json;
	struct error err = {0};
	(void)state;
	memset(deep, '[', JSON_MAX_DEPTH);
	memset(deep + JSON_MAX_DEPTH, ']', JSON_MAX_DEPTH);
	assert_int_equal(json_parse(&json, deep, 2 * JSON_MAX_DEPTH, &err), 0);
	assert_int_equal(json.n_nodes, JSON_MAX_DEPTH);
	json_free(&json);
	memset(deep, '[', JSON_MAX_DEPTH + 1);
	assert_int_equal(json_parse(&json, deep, JSON_MAX_DEPTH + 1, &err), -1);
	assert_string_equal(err.text, "line 1, column 129: nested too deep");
}

static void walks_and_unescapes(void **state)
{
	const char source[] = "{\"list\": [1, [2, 3], {\"x\": 4}, \"a\\u0000\\u00e9\\ud83d\\ude00\"], "
						  "\"b\\n\": \"\\\"\"}";
	struct json json;
	struct error err = {0};
	struct text text = {0};
	(void)state;
	assert_int_equal(json_parse(&json, source, sizeof source - 1, &err), 0);
	const struct json_node *list = json_member(&json, json.nodes, "list");
	assert_true(json_is(list, JSON_ARRAY));
	assert_int_equal(list->n_children, 4);
	int seen = 0;
	const enum json_type types[] = {JSON_NUMBER, JSON_ARRAY, JSON_OBJECT, JSON_STRING};
	for (const struct json_node *at = json_first(&json, list); at;
		 at = json_next(&json, list, at)) {
		assert_int_equal(at->type, types[seen++]);
		if (at->type == JSON_STRING)
			json_string(&json, at, &text);
	}
	assert_int_equal(seen, 4);
	assert_int_equal(text.length, 8);
	assert_memory_equal(text.data, "a\0\xc3\xa9\xf0\x9f\x98\x80", 8);
	const struct json_node *quote = json_member(&json, json.nodes, "b\n");
	assert_true(json_equals(&json, quote, "\""));
	assert_false(json_equals(&json, quote, "\"\""));
	assert_false(json_equals(&json, quote, ""));
	assert_false(json_equals(&json, list, "[1, [2, 3]]"));
	assert_null(json_member(&json, json.nodes, "x"));
	assert_null(json_member(&json, list, "x"));
	assert_null(json_member(&json, NULL, "x"));
	assert_null(json_first(&json, quote));
	text_clear(&text);
	json_string(&json, list, &text);
	assert_memory_equal(text.data, "[1, [2, 3]", 10);
	text_free(&text);
	json_free(&json);
}

/* The number in `source` as an integer, or -1 and the sentence in err. */
static int integer(const char *source, int64_t *value, struct error *err)
{
	struct json json;
	assert_int_equal(json_parse(&json, source, strlen(source), err), 0);
	int result = json_integer(&json, json.nodes, "n", value, err);
	json_free(&json);
	return result;
}

static void integers_are_exact(void **state)
{
	static const struct {
		const char *source;
		int64_t value;
	} rows[] = {
		{"0", 0},
		{"-0.000e7", 0},
		{"2.0", 2},
		{"1e3", 1000},
		{"1200e-2", 12},
		{"-12.50e1", -125},
		{"9007199254740993", 9007199254740993},
		{"9223372036854775807", INT64_MAX},
		{"-9223372036854775808", INT64_MIN},
		{"0e99999999999999999999999", 0},
		{"100000000000000000000000000000e-28", 10},
		{"0.00000000000000000000000000001e30", 10},
	};
	int64_t value = 0;
	struct error err = {0};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		if (integer(rows[i].source, &value, &err) < 0)
			fail_msg("%s", err.text);
		assert_true(value == rows[i].value);
	}
	assert_int_equal(integer("2.5", &value, &err), -1);
	assert_string_equal(err.text, "n is 2.5, expected a whole number");
	assert_int_equal(integer("1e-1", &value, &err), -1);
	assert_int_equal(integer("9223372036854775808", &value, &err), -1);
	assert_string_equal(err.text, "n is 9223372036854775808, expected a number of 64 bits");
	assert_int_equal(integer("1e99999999999999999999999", &value, &err), -1);
	assert_int_equal(integer("\"7\"", &value, &err), -1);
	assert_string_equal(err.text, "n is \"7\", expected a whole number");
	assert_int_equal(json_integer(&(struct json){0}, NULL, "n", &value, &err), -1);
	assert_string_equal(err.text, "n is missing, expected a whole number");
}

static void numbers_do_not_follow_the_locale(void **state)
{
	const char source[] =
		"[0.5, 1e-400, 1.7976931348623157e308, 1e309, null,"
		" 0.1000000000000000000000000000000000000000000000000000000000000000000000001]";
	struct json json;
	struct error err = {0};
	double value = 0;
	(void)state;
	setlocale(LC_ALL, "de_DE.UTF-8"); // where it is installed
	assert_int_equal(json_parse(&json, source, sizeof source - 1, &err), 0);
	const struct json_node *n = json.nodes + 1;
	assert_int_equal(json_number(&json, n++, "n", &value, &err), 0);
	assert_true(value == 0.5);
	assert_int_equal(json_number(&json, n++, "n", &value, &err), 0);
	assert_true(value == 0);
	assert_int_equal(json_number(&json, n++, "n", &value, &err), 0);
	assert_true(value == DBL_MAX);
	assert_int_equal(json_number(&json, n++, "n", &value, &err), -1);
	assert_string_equal(err.text, "n is 1e309, expected a number that fits a double");
	assert_int_equal(json_number(&json, n++, "n", &value, &err), -1);
	assert_string_equal(err.text, "n is null, expected a number");
	assert_int_equal(json_number(&json, n++, "n", &value, &err), 0);
	assert_true(value == 0.1);
	json_free(&json);
}

/* The shape of a full-size tokenizer.json: 131,072 members, 269,443 pairs. */
static void a_large_vocabulary_parses(void **state)
{
	struct text source = {0};
	struct json json;
	struct error err = {0};
	(void)state;
	text_add(&source, "{\n  \"model\": {\n    \"vocab\": {");
	for (int i = 0; i < 131072; i++)
		text_format(&source, "%s\n      \"\xc4\xa0tok%x\": %d", i ? "," : "",
					(unsigned)i * 2654435761u, i);
	text_add(&source, "\n    },\n    \"merges\": [");
	for (int i = 0; i < 269443; i++)
		text_format(&source, "%s\n      [\n        \"\xc4\xa0%x\",\n        \"\\\"%d\"\n      ]",
					i ? "," : "", (unsigned)i * 2654435761u, i);
	text_add(&source, "\n    ]\n  }\n}\n");
	assert_int_equal(text_check(&source, &err), 0);
	uint64_t start = clock_ns();
	assert_int_equal(json_parse(&json, source.data, source.length, &err), 0);
	print_message("%zu bytes in %.1f ms\n", source.length, (double)(clock_ns() - start) * 1e-6);
	const struct json_node *model = json_member(&json, json.nodes, "model");
	assert_int_equal(json_member(&json, model, "vocab")->n_children, 131072);
	assert_int_equal(json_member(&json, model, "merges")->n_children, 269443);
	json_free(&json);
	text_free(&source);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(accepts_what_rfc_8259_says),
		cmocka_unit_test(refuses_everything_else),
		cmocka_unit_test(refuses_bad_strings),
		cmocka_unit_test(refuses_duplicate_keys),
		cmocka_unit_test(depth_is_limited),
		cmocka_unit_test(walks_and_unescapes),
		cmocka_unit_test(integers_are_exact),
		cmocka_unit_test(numbers_do_not_follow_the_locale),
		cmocka_unit_test(a_large_vocabulary_parses),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
