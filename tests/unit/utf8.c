#include "base/utf8.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static int decode(const char *bytes, size_t length)
{
	uint32_t code = 0;
	return utf8_decode(bytes, length, &code);
}

/* Every code point there and back. */
static void every_character_survives(void **state)
{
	(void)state;
	for (uint32_t code = 0; code <= 0x110000; code++) {
		char bytes[4];
		uint32_t back = 0;
		int n = utf8_encode(code, bytes);
		if (code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) {
			assert_int_equal(n, 0);
			continue;
		}
		assert_int_equal(n, code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4);
		assert_int_equal(utf8_decode(bytes, (size_t)n, &back), n);
		assert_int_equal(back, code);
		for (int cut = 1; cut < n; cut++)
			assert_int_equal(decode(bytes, (size_t)cut), 0);
	}
}

/* The table "maximal subparts" of the Unicode standard, section 3.9. */
static void ill_formed_parts_are_maximal(void **state)
{
	(void)state;
	assert_int_equal(decode("\x80", 1), -1);
	assert_int_equal(decode("\xc0\xaf", 2), -1);         // overlong
	assert_int_equal(decode("\xe0\x80\xaf", 3), -1);     // overlong
	assert_int_equal(decode("\xf0\x8f\xbf\xbf", 4), -1); // overlong
	assert_int_equal(decode("\xed\xa0\x80", 3), -1);     // a surrogate
	assert_int_equal(decode("\xf4\x90\x80\x80", 4), -1); // above U+10FFFF
	assert_int_equal(decode("\xf5\x80", 2), -1);
	assert_int_equal(decode("\xff", 1), -1);
	assert_int_equal(decode("\xe1\x80\xe2", 3), -2);
	assert_int_equal(decode("\xf0\x91\x92\x41", 4), -3);
	assert_int_equal(decode("\xc3\x41", 2), -1);
}

static void validity_says_where(void **state)
{
	const char text[] =
		"sixteen bytes..: \xc3\xa9\xe2\x82\xac and more ascii \xf0\x9f\x98\x80 \xe2\x82 end";
	size_t at = 0;
	(void)state;
	size_t bad = (size_t)(strstr(text, "\xe2\x82 end") - text);
	assert_false(utf8_valid(text, sizeof text - 1, &at));
	assert_int_equal(at, bad);
	assert_true(utf8_valid(text, bad, &at));
	assert_int_equal(at, bad);
	assert_false(utf8_valid(text, bad + 2, NULL)); // cut in the middle
	assert_true(utf8_valid("", 0, NULL));
}

static void widths_are_those_of_a_terminal(void **state)
{
	static const struct {
		uint32_t code;
		int width;
	} rows[] = {
		{'a', 1},     {' ', 1},      {0, -1},        {0x1b, -1},   {0x7f, -1},   {0x9b, -1},
		{0xa0, 1},    {0xe9, 1},     {0xad, 1},      {0x301, 0},   {0x200b, 0},  {0x200d, 0},
		{0xfe0f, 0},  {0x20ac, 1},   {0x2500, 1},    {0x2588, 1},  {0x28ff, 1},  {0x2026, 1},
		{0x4e2d, 2},  {0xac00, 2},   {0x1100, 2},    {0x1161, 0},  {0xff21, 2},  {0xff71, 1},
		{0x3042, 2},  {0x1f600, 2},  {0x1f1e6, 1},   {0x2764, 1},  {0x231a, 2},  {0x20000, 2},
		{0xe0100, 0}, {0x10ffff, 1}, {0x110000, -1}, {0xd800, -1}, {0x2028, -1}, {0x5d0, 1},
		{0x5b0, 0},   {0x3000, 2},   {0x303f, 1},    {0x1f3fb, 2}, {0xe33, 1},   {0xe34, 0},
	};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
		if (utf8_width(rows[i].code) != rows[i].width)
			print_message("U+%04X\n", (unsigned)rows[i].code);
		assert_int_equal(utf8_width(rows[i].code), rows[i].width);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_character_survives),
		cmocka_unit_test(ill_formed_parts_are_maximal),
		cmocka_unit_test(validity_says_where),
		cmocka_unit_test(widths_are_those_of_a_terminal),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
