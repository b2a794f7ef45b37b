/*
 * Numbers from their spelling: whole numbers exactly, whatever way they are written (2.0, 1e3),
 * fractions by strtod in the C locale.
 */
#include "base/json.h"
#include "base/memory.h"
#include <locale.h>
#include <stdlib.h>
#include <string.h>

/* A number's spelling taken apart: value = +-digits (without points and zeros at its ends) x
 * 10^scale. */
struct spelling {
	const char *first, *last; // the first and the last digit that is not 0; NULL = the number is 0
	int64_t scale;
	bool negative;
};

static struct spelling take_apart(const char *p, const char *end)
{
	struct spelling s = {.negative = *p == '-'};
	int64_t exponent = 0, after_point = 0, zeros = 0; // zeros: digits since `last`
	bool point = false;
	for (p += s.negative; p < end && *p != 'e' && *p != 'E'; p++) {
		if (*p == '.') {
			point = true;
			continue;
		}
		after_point += point;
		zeros = *p == '0' ? zeros + 1 : 0;
		if (*p != '0') {
			s.first = s.first ? s.first : p;
			s.last = p;
		}
	}
	if (p < end) {
		bool minus = *++p == '-';
		for (p += *p == '-' || *p == '+'; p < end; p++)
			exponent = exponent < INT64_C(1000000000000000) ? exponent * 10 + (*p - '0') : exponent;
		exponent = minus ? -exponent : exponent;
	}
	s.scale = exponent - after_point + zeros;
	return s;
}

static int not_a_number(const struct json *json, const struct json_node *node, const char *what,
						const char *wanted, struct error *err)
{
	if (!node)
		return fail(err, "%s is missing, expected %s", what, wanted);
	size_t length = node->end - node->start;
	bool quoted = node->type == JSON_STRING;
	return fail(err, "%s is %s%.*s%s%s, expected %s", what, quoted ? "\"" : "",
				length > 40 ? 40 : (int)length, json->source + node->start,
				length > 40 ? "..." : "", quoted ? "\"" : "", wanted);
}

int json_integer(const struct json *json, const struct json_node *node, const char *what,
				 int64_t *value, struct error *err)
{
	uint64_t magnitude = 0;
	if (!json_is(node, JSON_NUMBER))
		return not_a_number(json, node, what, "a whole number", err);
	struct spelling s = take_apart(json->source + node->start, json->source + node->end);
	if (s.first && s.scale < 0)
		return not_a_number(json, node, what, "a whole number", err);
	bool fits = !s.first || s.scale < 20;
	for (const char *p = s.first; p && p <= s.last && fits; p++) {
		if (*p != '.')
			fits = !__builtin_mul_overflow(magnitude, 10, &magnitude) &&
				   !__builtin_add_overflow(magnitude, (uint64_t)(*p - '0'), &magnitude);
	}
	for (int64_t i = 0; s.first && fits && i < s.scale; i++)
		fits = !__builtin_mul_overflow(magnitude, 10, &magnitude);
	if (!fits || magnitude > (uint64_t)INT64_MAX + s.negative)
		return not_a_number(json, node, what, "a number of 64 bits", err);
	*value = s.negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
	return 0;
}

int json_number(const struct json *json, const struct json_node *node, const char *what,
				double *value, struct error *err)
{
	char brief[64], *copy = brief;
	if (!json_is(node, JSON_NUMBER))
		return not_a_number(json, node, what, "a number", err);
	size_t length = node->end - node->start;
	if (length >= sizeof brief) {
		copy = mem_string(json->source + node->start, length, err);
		if (!copy)
			return -1;
	} else {
		memcpy(brief, json->source + node->start, length);
		brief[length] = 0;
	}
	// the C locale: elsewhere the decimal point may be a comma (glibc returns a static object here)
	double read = strtod_l(copy, NULL, newlocale(LC_ALL_MASK, "C", NULL));
	if (copy != brief)
		free(copy);
	if (read - read != 0)
		return not_a_number(json, node, what, "a number that fits a double", err);
	*value = read;
	return 0;
}
