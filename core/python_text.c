#include "core/python_text.h"
#include "base/utf8.h"
#include <ctype.h>
#include <math.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The fewest digits that give the same number back, as 0.0001 <= |value| < 1e16 or with an
 * exponent. */
void python_float(double value, struct text *out)
{
	if (!isfinite(value)) {
		text_add(out, isnan(value) ? "nan" : value < 0 ? "-inf" : "inf");
		return;
	}
	char shortest[40], digits[40];
	for (int n = 1; n <= 17; n++) {
		snprintf(shortest, sizeof shortest, "%.*e", n - 1, value);
		if (strtod(shortest, NULL) == value)
			break;
	}
	const char *e = strchr(shortest, 'e');
	int exponent = (int)strtol(e + 1, NULL, 10), n = 0;
	for (const char *p = shortest; p < e; p++) // whatever the locale's decimal point is
		if (isdigit((unsigned char)*p))
			digits[n++] = *p;
	if (signbit(value))
		text_add_char(out, '-');
	if (exponent < -4 || exponent >= 16) {
		text_add_char(out, digits[0]);
		if (n > 1)
			text_add_char(out, '.');
		text_append(out, digits + 1, (size_t)(n - 1));
		text_format(out, "e%c%02d", exponent < 0 ? '-' : '+', abs(exponent));
		return;
	}
	if (exponent < 0) {
		text_add(out, "0.");
		for (int i = -1; i > exponent; i--)
			text_add_char(out, '0');
		text_append(out, digits, (size_t)n);
		return;
	}
	for (int i = 0; i <= exponent; i++)
		text_add_char(out, i < n ? digits[i] : '0');
	text_add_char(out, '.');
	if (n > exponent + 1)
		text_append(out, digits + exponent + 1, (size_t)(n - exponent - 1));
	else
		text_add_char(out, '0');
}

/* A Python int keeps all its digits; a float is rounded to a double. */
static void put_number(const struct json *json, const struct json_node *node, bool is_json,
					   struct text *out)
{
	const char *spelling = json->source + node->start;
	size_t length = node->end - node->start;
	bool whole = true;
	for (size_t i = 0; i < length; i++)
		whole = whole && spelling[i] != '.' && spelling[i] != 'e' && spelling[i] != 'E';
	double value;
	if (whole && length == 2 && spelling[0] == '-' && spelling[1] == '0')
		text_add_char(out, '0');
	else if (whole)
		text_append(out, spelling, length);
	else if (json_number(json, node, "a number", &value, NULL) == 0)
		python_float(value, out);
	else // too large for a double
		text_format(out, "%s%s", *spelling == '-' ? "-" : "", is_json ? "Infinity" : "inf");
}

void python_json_string(const char *bytes, size_t length, struct text *out)
{
	text_add_char(out, '"');
	for (size_t i = 0; i < length; i++) {
		char c = bytes[i];
		static const char escapes[] = "\"\"\\\\\bb\ff\nn\rr\tt";
		const char *escape = NULL;
		for (const char *p = escapes; *p && !escape; p += 2)
			escape = *p == c ? p + 1 : NULL;
		if (escape)
			text_format(out, "\\%c", *escape);
		else if ((unsigned char)c < 0x20)
			text_format(out, "\\u%04x", (unsigned)(unsigned char)c);
		else
			text_add_char(out, c);
	}
	text_add_char(out, '"');
}

/* What repr() shows as it is. Of the Unicode database only the controls, spaces and format
 * characters that could turn up in a schema are known here. */
static bool printable(uint32_t code)
{
	return !(code < 0x20 || (code >= 0x7f && code <= 0xa0) || code == 0xad || code == 0x1680 ||
			 (code >= 0x2000 && code <= 0x200f) || (code >= 0x2028 && code <= 0x202f) ||
			 (code >= 0x205f && code <= 0x206f) || code == 0x3000 || code == 0xfeff ||
			 (code >= 0xe000 && code <= 0xf8ff) || code >= 0xe0000);
}

static void put_repr_string(const struct text *string, struct text *out)
{
	const char *bytes = text_chars(string);
	bool single = memchr(bytes, '\'', string->length) != NULL;
	char quote = single && !memchr(bytes, '"', string->length) ? '"' : '\'';
	text_add_char(out, quote);
	for (size_t i = 0; i < string->length;) {
		uint32_t code = 0;
		int size = utf8_decode(bytes + i, string->length - i, &code);
		size = size <= 0 ? 1 : size;
		if (code == '\n' || code == '\r' || code == '\t')
			text_format(out, "\\%c", code == '\n' ? 'n' : code == '\r' ? 'r' : 't');
		else if (code == '\\' || code == (unsigned char)quote)
			text_format(out, "\\%c", (char)code);
		else if (printable(code))
			text_append(out, bytes + i, (size_t)size);
		else
			text_format(out,
						code < 0x100     ? "\\x%02x"
						: code < 0x10000 ? "\\u%04x"
										 : "\\U%08x",
						code);
		i += (size_t)size;
	}
	text_add_char(out, quote);
}

static void put_string(const struct json *json, const struct json_node *node, bool is_json,
					   struct text *out)
{
	struct text string = {0};
	json_string(json, node, &string);
	if (string.failed)
		out->failed = true;
	else if (is_json)
		python_json_string(string.data, string.length, out);
	else
		put_repr_string(&string, out);
	text_free(&string);
}

/* json.dumps or repr. Depth is bounded by the reader's JSON_MAX_DEPTH. */
static void put_value(const struct json *json, const struct json_node *value, bool is_json,
					  struct text *out)
{
	static const char *const words[][2] = {{"None", "null"}, {"False", "false"}, {"True", "true"}};
	switch ((enum json_type)value->type) {
	case JSON_NULL:
	case JSON_FALSE:
	case JSON_TRUE: text_add(out, words[value->type - JSON_NULL][is_json]); break;
	case JSON_NUMBER: put_number(json, value, is_json, out); break;
	case JSON_STRING: put_string(json, value, is_json, out); break;
	case JSON_ARRAY:
	case JSON_OBJECT: {
		bool object = value->type == JSON_OBJECT;
		const struct json_node *first = json_first(json, value);
		text_add_char(out, object ? '{' : '[');
		for (const struct json_node *at = first; at; at = json_next(json, value, at)) {
			text_add(out, at == first ? "" : ", ");
			put_value(json, at, is_json, out);
			if (object) {
				text_add(out, ": ");
				put_value(json, json_value(at), is_json, out);
			}
		}
		text_add_char(out, object ? '}' : ']');
	}
	}
}

void python_json(const struct json *json, const struct json_node *value, struct text *out)
{
	put_value(json, value, true, out);
}

void python_str(const struct json *json, const struct json_node *value, struct text *out)
{
	if (value->type == JSON_STRING)
		json_string(json, value, out);
	else
		put_value(json, value, false, out);
}

static bool is_space(uint32_t code)
{
	return (code >= 0x09 && code <= 0x0d) || (code >= 0x1c && code <= 0x20) || code == 0x85 ||
		   code == 0xa0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200a) || code == 0x2028 ||
		   code == 0x2029 || code == 0x202f || code == 0x205f || code == 0x3000;
}

void python_strip(const char **bytes, size_t *length)
{
	uint32_t code;
	while (*length > 0) {
		int size = utf8_decode(*bytes, *length, &code);
		if (size <= 0 || !is_space(code))
			break;
		*bytes += size;
		*length -= (size_t)size;
	}
	while (*length > 0) {
		size_t size = 1; // of the last character: back over its continuation bytes
		while (size < 4 && size < *length && ((*bytes)[*length - size] & 0xc0) == 0x80)
			size++;
		if (utf8_decode(*bytes + *length - size, size, &code) <= 0 || !is_space(code))
			break;
		*length -= size;
	}
}
