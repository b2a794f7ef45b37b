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
										  "     100 |                  b.\n"
										  "         |                  .\n"
										  "   94.69 |                  c\n"
										  "         |                  .\n"
										  "   89.38 | ad................\n"
										  "         +--------------------\n"
										  "          9.375    ms    20.62\n");
	text_clear(&out);
	scatter.ascii = false;
	scatter_draw(&scatter, &out);
	assert_non_null(strstr(text_chars(&out), "│ ad··"));
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(points_and_their_front),
		cmocka_unit_test(few_points),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
