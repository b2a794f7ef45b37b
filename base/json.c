/*
 * One pass without recursion: the open arrays and objects lie on a stack of JSON_MAX_DEPTH node
 * numbers. Duplicate keys are looked for when an object closes, by comparing *unescaped* keys, a
 * few directly and many through a hash table (a tokenizer's vocabulary is one object of 131,072
 * members).
 */
#include "base/json.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/utf8.h"
#include <stdlib.h>
#include <string.h>

struct reader {
	struct json *json;
	const char *source;
	size_t length, at;
	size_t capacity; // of json->nodes
	uint32_t stack[JSON_MAX_DEPTH];
	int depth;
	struct error *err;
};

/* "line L, column C" of an offset; a column is a character. */
static int fail_at(struct reader *r, size_t at, const char *what)
{
	size_t line = 1, column = 1;
	for (size_t i = 0; i < at && i < r->length; i++) {
		if (r->source[i] == '\n') {
			line++;
			column = 1;
		} else if ((r->source[i] & 0xc0) != 0x80) {
			column++;
		}
	}
	return fail(r->err, "line %zu, column %zu: %s", line, column, what);
}

/* The same for a syntax error, which also says what stands there. */
static int expected(struct reader *r, const char *what)
{
	char text[160];
	struct error found = {""};
	if (r->at >= r->length) {
		fail(&found, "the text ends, expected %s", what);
	} else if (r->source[r->at] == 0) {
		fail(&found, "found '\\x00', expected %s", what);
	} else {
		uint32_t code;
		int n = utf8_decode(r->source + r->at, r->length - r->at, &code);
		fail(&found, "found '%.*s', expected %s", n > 0 ? n : 1, r->source + r->at, what);
	}
	memcpy(text, found.text, sizeof text - 1);
	text[sizeof text - 1] = 0;
	return fail_at(r, r->at, text);
}

/* Unescaping */

static int hex4(const char *p)
{
	int value = 0;
	for (int i = 0; i < 4; i++) {
		char c = p[i];
		int digit = c >= '0' && c <= '9'   ? c - '0'
					: c >= 'a' && c <= 'f' ? c - 'a' + 10
					: c >= 'A' && c <= 'F' ? c - 'A' + 10
										   : -1;
		if (digit < 0)
			return -1;
		value = value * 16 + digit;
	}
	return value;
}

/* Reads the \uXXXX (or the pair of them) whose backslash is at p; returns its bytes, or 0 if it is
 * none. */
static int unicode_escape(const char *p, size_t length, uint32_t *code)
{
	int high = length >= 6 ? hex4(p + 2) : -1;
	if (high < 0 || (high >= 0xdc00 && high <= 0xdfff))
		return 0;
	*code = (uint32_t)high;
	if (high < 0xd800 || high > 0xdbff)
		return 6;
	int low = length >= 12 && p[6] == '\\' && p[7] == 'u' ? hex4(p + 8) : -1;
	if (low < 0xdc00 || low > 0xdfff)
		return 0;
	*code = 0x10000u + ((uint32_t)(high - 0xd800) << 10) + (uint32_t)(low - 0xdc00);
	return 12;
}

static char simple_escape(char c)
{
	switch (c) {
	case '"':
	case '\\':
	case '/': return c;
	case 'b': return '\b';
	case 'f': return '\f';
	case 'n': return '\n';
	case 'r': return '\r';
	case 't': return '\t';
	default: return 0;
	}
}

/* The next piece of a checked string: the bytes up to a backslash as they stand, or one escape. */
struct piece {
	const char *bytes;
	size_t length;
	char escape[4];
};

static bool next_piece(const char **p, const char *end, struct piece *piece)
{
	uint32_t code;
	if (*p == end)
		return false;
	if (**p != '\\') {
		const char *stop = memchr(*p, '\\', (size_t)(end - *p));
		piece->bytes = *p;
		piece->length = (size_t)((stop ? stop : end) - *p);
		*p += piece->length;
		return true;
	}
	piece->bytes = piece->escape;
	if ((*p)[1] == 'u') {
		*p += unicode_escape(*p, (size_t)(end - *p), &code);
		piece->length = (size_t)utf8_encode(code, piece->escape);
	} else {
		piece->escape[0] = simple_escape((*p)[1]);
		piece->length = 1;
		*p += 2;
	}
	return true;
}

void json_string(const struct json *json, const struct json_node *string, struct text *out)
{
	const char *p = json->source + string->start, *end = json->source + string->end;
	struct piece piece;
	if (!string->escaped) {
		text_append(out, p, (size_t)(end - p));
		return;
	}
	while (next_piece(&p, end, &piece))
		text_append(out, piece.bytes, piece.length);
}

static bool string_is(const struct json *json, const struct json_node *string, const char *text,
					  size_t length)
{
	const char *p = json->source + string->start, *end = json->source + string->end;
	struct piece piece;
	if (!string->escaped)
		return (size_t)(end - p) == length && memcmp(p, text, length) == 0;
	while (next_piece(&p, end, &piece)) {
		if (piece.length > length || memcmp(piece.bytes, text, piece.length) != 0)
			return false;
		text += piece.length;
		length -= piece.length;
	}
	return length == 0;
}

/* Duplicate keys */

/* A key's unescaped bytes: in place, or (with escapes) in `scratch`. */
static const char *key_bytes(struct reader *r, uint32_t key, struct text *scratch, size_t *length)
{
	const struct json_node *node = &r->json->nodes[key];
	*length = node->end - node->start;
	if (!node->escaped)
		return r->source + node->start;
	text_clear(scratch);
	json_string(r->json, node, scratch);
	*length = scratch->length;
	return text_chars(scratch);
}

static int duplicate(struct reader *r, uint32_t key)
{
	return fail_at(r, r->json->nodes[key].start - 1, "this object has this key already");
}

/* Fills `table` (size a power of two, at least twice the keys) with key node numbers; 0 = free,
 * because the root is never a key. */
static int check_keys_by_hash(struct reader *r, const struct json_node *object, uint32_t *table,
							  size_t size, struct text *scratch)
{
	uint32_t key = (uint32_t)(object - r->json->nodes) + 1;
	for (uint32_t i = 0; i < object->n_children; i++, key = r->json->nodes[key + 1].next) {
		size_t length;
		const char *bytes = key_bytes(r, key, scratch, &length);
		if (scratch->failed)
			return text_check(scratch, r->err);
		size_t slot = hash_mix(hash_bytes(bytes, length)) & (size - 1);
		for (; table[slot]; slot = (slot + 1) & (size - 1))
			if (string_is(r->json, &r->json->nodes[table[slot]], bytes, length))
				return duplicate(r, key);
		table[slot] = key;
	}
	return 0;
}

static int check_few_keys(struct reader *r, const struct json_node *object, struct text *scratch)
{
	uint32_t first = (uint32_t)(object - r->json->nodes) + 1, key = first;
	for (uint32_t i = 0; i < object->n_children; i++, key = r->json->nodes[key + 1].next) {
		size_t length;
		const char *bytes = key_bytes(r, key, scratch, &length);
		if (scratch->failed)
			return text_check(scratch, r->err);
		for (uint32_t other = first; other != key; other = r->json->nodes[other + 1].next)
			if (string_is(r->json, &r->json->nodes[other], bytes, length))
				return duplicate(r, key);
	}
	return 0;
}

static int check_keys(struct reader *r, const struct json_node *object)
{
	struct text scratch = {0};
	int result;
	if (object->n_children < 2)
		return 0;
	if (object->n_children <= 8) {
		result = check_few_keys(r, object, &scratch);
	} else {
		size_t size = 32;
		while (size < 2 * (size_t)object->n_children)
			size *= 2;
		uint32_t *table = mem_new(size, sizeof *table, r->err);
		result = table ? check_keys_by_hash(r, object, table, size, &scratch) : -1;
		free(table);
	}
	text_free(&scratch);
	return result;
}

/* Reading */

static void skip_space(struct reader *r)
{
	while (r->at < r->length) {
		char c = r->source[r->at];
		if (c != ' ' && c != '\n' && c != '\t' && c != '\r')
			return;
		r->at++;
	}
}

static bool at_char(const struct reader *r, char c)
{
	return r->at < r->length && r->source[r->at] == c;
}

static struct json_node *add_node(struct reader *r, enum json_type type, size_t start, size_t end)
{
	struct json *json = r->json;
	if (json->n_nodes == UINT32_MAX) {
		fail_at(r, start, "too many values");
		return NULL;
	}
	if (json->n_nodes == r->capacity &&
		mem_grow(&json->nodes, &r->capacity, r->capacity + 1, sizeof *json->nodes, r->err) < 0)
		return NULL;
	struct json_node *node = &json->nodes[json->n_nodes++];
	*node = (struct json_node){
		.type = (uint8_t)type, .next = json->n_nodes, .start = start, .end = end};
	return node;
}

static int read_escape(struct reader *r)
{
	const char *p = r->source + r->at;
	size_t left = r->length - r->at;
	uint32_t code;
	if (left < 2)
		return fail_at(r, r->length, "the text ends in a string");
	if (p[1] == 'u') {
		int n = unicode_escape(p, left, &code);
		if (!n)
			return fail_at(r, r->at,
						   "expected \\u and four hexadecimal digits of a character "
						   "(surrogates in pairs)");
		r->at += (size_t)n;
		return 0;
	}
	if (!simple_escape(p[1]))
		return fail_at(r, r->at, "unknown escape in a string");
	r->at += 2;
	return 0;
}

/* Whether one of eight bytes is a quote, a backslash, a control or not ASCII (it may say yes to a
 * byte above such a one; the byte loop then decides). */
static bool special_byte(const char *p)
{
	const uint64_t ones = 0x0101010101010101u, tops = 0x8080808080808080u;
	uint64_t x, quote, slash;
	memcpy(&x, p, sizeof x);
	quote = x ^ (ones * '"');
	slash = x ^ (ones * '\\');
	return (x | (x - ones * 0x20) | (quote - ones) | (slash - ones)) & tops;
}

static int read_string(struct reader *r)
{
	size_t start = ++r->at;
	bool escaped = false;
	for (;;) {
		while (r->length - r->at >= 8 && !special_byte(r->source + r->at))
			r->at += 8;
		if (r->at >= r->length)
			return fail_at(r, r->length, "the text ends in a string");
		unsigned char c = (unsigned char)r->source[r->at];
		if (c == '"')
			break;
		if (c < 0x20)
			return fail_at(r, r->at, "control character in a string");
		if (c == '\\') {
			escaped = true;
			if (read_escape(r) < 0)
				return -1;
		} else if (c < 0x80) {
			r->at++;
		} else {
			uint32_t code;
			int n = utf8_decode(r->source + r->at, r->length - r->at, &code);
			if (n <= 0)
				return fail_at(r, r->at, "ill-formed UTF-8");
			r->at += (size_t)n;
		}
	}
	struct json_node *node = add_node(r, JSON_STRING, start, r->at++);
	if (!node)
		return -1;
	node->escaped = escaped;
	return 0;
}

static bool read_digits(struct reader *r)
{
	size_t start = r->at;
	while (r->at < r->length && r->source[r->at] >= '0' && r->source[r->at] <= '9')
		r->at++;
	return r->at > start;
}

static int read_number(struct reader *r)
{
	size_t start = r->at;
	if (at_char(r, '-'))
		r->at++;
	if (at_char(r, '0'))
		r->at++; // and no digit may follow: what comes next is then an unexpected '1'
	else if (!read_digits(r))
		return expected(r, "a digit");
	if (at_char(r, '.')) {
		r->at++;
		if (!read_digits(r))
			return expected(r, "a digit");
	}
	if (at_char(r, 'e') || at_char(r, 'E')) {
		r->at++;
		if (at_char(r, '+') || at_char(r, '-'))
			r->at++;
		if (!read_digits(r))
			return expected(r, "a digit");
	}
	return add_node(r, JSON_NUMBER, start, r->at) ? 0 : -1;
}

static int read_word(struct reader *r, const char *word, enum json_type type)
{
	size_t length = strlen(word), start = r->at;
	if (r->length - r->at < length || memcmp(r->source + r->at, word, length) != 0)
		return expected(r, "a value");
	r->at += length;
	return add_node(r, type, start, r->at) ? 0 : -1;
}

static int open_group(struct reader *r, enum json_type type)
{
	if (r->depth == JSON_MAX_DEPTH)
		return fail_at(r, r->at, "nested too deep");
	r->stack[r->depth] = r->json->n_nodes;
	if (!add_node(r, type, r->at, r->at))
		return -1;
	r->depth++;
	r->at++;
	return 0;
}

static int close_group(struct reader *r)
{
	struct json_node *group = &r->json->nodes[r->stack[--r->depth]];
	group->end = ++r->at;
	group->next = r->json->n_nodes;
	return group->type == JSON_OBJECT ? check_keys(r, group) : 0;
}

/* A whole scalar, or the beginning of an array or object. */
static int read_value(struct reader *r)
{
	skip_space(r);
	if (r->at >= r->length)
		return expected(r, "a value");
	switch (r->source[r->at]) {
	case '{': return open_group(r, JSON_OBJECT);
	case '[': return open_group(r, JSON_ARRAY);
	case '"': return read_string(r);
	case 't': return read_word(r, "true", JSON_TRUE);
	case 'f': return read_word(r, "false", JSON_FALSE);
	case 'n': return read_word(r, "null", JSON_NULL);
	case '-': return read_number(r);
	default:
		return r->source[r->at] >= '0' && r->source[r->at] <= '9' ? read_number(r)
																  : expected(r, "a value");
	}
}

static int read_key(struct reader *r)
{
	skip_space(r);
	if (!at_char(r, '"'))
		return expected(r, "a key in quotes");
	if (read_string(r) < 0)
		return -1;
	skip_space(r);
	if (!at_char(r, ':'))
		return expected(r, "':'");
	r->at++;
	return 0;
}

/* The innermost open group is given its next element, or closed. */
static int read_in_group(struct reader *r)
{
	struct json_node *group = &r->json->nodes[r->stack[r->depth - 1]];
	bool object = group->type == JSON_OBJECT;
	skip_space(r);
	if (at_char(r, object ? '}' : ']'))
		return close_group(r);
	if (group->n_children) {
		if (!at_char(r, ','))
			return expected(r, object ? "',' or '}'" : "',' or ']'");
		r->at++;
	}
	group->n_children++; // before the nodes move
	if (object && read_key(r) < 0)
		return -1;
	return read_value(r);
}

static int read_text(struct reader *r)
{
	if (r->length >= 3 && memcmp(r->source, "\xef\xbb\xbf", 3) == 0)
		return fail_at(r, 0, "a byte order mark, expected a value");
	if (read_value(r) < 0)
		return -1;
	while (r->depth > 0)
		if (read_in_group(r) < 0)
			return -1;
	skip_space(r);
	return r->at < r->length ? expected(r, "the end") : 0;
}

int json_parse(struct json *json, const char *source, size_t length, struct error *err)
{
	struct reader r = {.json = json, .source = source, .length = length, .err = err};
	*json = (struct json){.source = source};
	if (read_text(&r) < 0) {
		json_free(json);
		return -1;
	}
	struct json_node *fitting = realloc(json->nodes, json->n_nodes * sizeof *fitting);
	if (fitting)
		json->nodes = fitting;
	return 0;
}

void json_free(struct json *json)
{
	free(json->nodes);
	*json = (struct json){0};
}

/* Walking */

const struct json_node *json_first(const struct json *json, const struct json_node *parent)
{
	(void)json;
	return parent && parent->n_children ? parent + 1 : NULL;
}

const struct json_node *json_next(const struct json *json, const struct json_node *parent,
								  const struct json_node *child)
{
	uint32_t next = parent->type == JSON_OBJECT ? json_value(child)->next : child->next;
	return next < parent->next ? &json->nodes[next] : NULL;
}

const struct json_node *json_value(const struct json_node *key)
{
	return key + 1;
}

const struct json_node *json_member(const struct json *json, const struct json_node *object,
									const char *key)
{
	size_t length = strlen(key);
	if (!json_is(object, JSON_OBJECT))
		return NULL;
	for (const struct json_node *at = json_first(json, object); at;
		 at = json_next(json, object, at))
		if (string_is(json, at, key, length))
			return json_value(at);
	return NULL;
}

bool json_is(const struct json_node *node, enum json_type type)
{
	return node && node->type == type;
}

bool json_equals(const struct json *json, const struct json_node *string, const char *text)
{
	return json_is(string, JSON_STRING) && string_is(json, string, text, strlen(text));
}

void json_add_string(struct text *out, const char *string)
{
	text_add_char(out, '"');
	for (const char *p = string; *p; p++)
		if (*p == '"' || *p == '\\')
			text_format(out, "\\%c", *p);
		else if ((unsigned char)*p < 0x20)
			text_format(out, "\\u%04x", *p);
		else
			text_add_char(out, *p);
	text_add_char(out, '"');
}
