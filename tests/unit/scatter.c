/* Points in a frame of characters. */
#include "inspect/scatter.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

static void points_and_their_front(void **state)
{
	const struct scatter_point points[] = {{10, 90, 'a', true},
										   {20, 100, 'b', true},
										   {20, 95, 'c', false},
										   {10, 90, 'd', false}, // beside a
										   {NAN, 90, 'e', false}};
	struct scatter scatter = {points, 5, 20, 5, "ms", "%", true};
	struct text out = {0};
	(void)state;
	scatter_draw(&scatter, &out);
	assert_string_equal(text_chars(&out), "         %\n"
										  "     100 |                   b\n"
										  "         |                   .\n"
										  "      95 |                   c\n"
										  "         |                   .\n"
										  "      90 |ad..................\n"
										  "         +--------------------\n"
										  "          10       ms       20\n");
	text_clear(&out);
	scatter.ascii = false;
	scatter_draw(&scatter, &out);
	assert_non_null(strstr(text_chars(&out), "│ad··"));
	text_free(&out);
}

static void few_points(void **state)
{
	const struct scatter_point point = {5, 50, 'a', true};
	struct scatter scatter = {&point, 0, 20, 4, "ms", "%", true};
	struct text out = {0};
	(void)state;
	scatter_draw(&scatter, &out);
	assert_null(strchr(text_chars(&out), 'a'));
	text_clear(&out);
	scatter.n = 1;
	scatter_draw(&scatter, &out);
	assert_non_null(strchr(text_chars(&out), 'a'));
	text_free(&out);
}

/* The first and the last label of y, and the line below the frame. */
static void expect_ends(double low, double high, const char *top, const char *bottom,
						const char *below)
{
	const struct scatter_point points[] = {{low / 10, low, 'a', false},
										   {high / 10, high, 'b', false}};
	struct scatter scatter = {points, 2, 20, 16, "ms", "%", true, false};
	struct text out = {0};
	scatter_draw(&scatter, &out);
	assert_non_null(strstr(text_chars(&out), top));
	assert_non_null(strstr(text_chars(&out), bottom));
	assert_non_null(strstr(text_chars(&out), below));
	text_free(&out);
}

static void axes_end_at_round_numbers(void **state)
{
	(void)state;
	expect_ends(77.23, 96.68, "%\n     100 |", "      75 |", " 7.5      ms       10\n");
	expect_ends(0.3, 0.7, "     0.7 |", "     0.3 |a", " 0.03     ms     0.07\n");
	expect_ends(-3, 1200, "    1200 |", "    -200 |", " -20      ms      120\n");
	expect_ends(50, 50, "      52 |", "      48 |", " 4.8      ms      5.2\n"); // a point
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(points_and_their_front),
		cmocka_unit_test(few_points),
		cmocka_unit_test(axes_end_at_round_numbers),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
