/* Files of tasks: what is read, what is named, what counts as right. */
#include "inspect/tasks.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

static struct tasks read(const char *source)
{
	struct tasks tasks = {0};
	struct error err = {0};
	tasks_parse(&tasks, "tasks", source, strlen(source), &err);
	assert_string_equal(err.text, "");
	return tasks;
}

/* Whether a reply to a task of this answer and match is right. */
static bool right(const char *match, const char *answer, const char *reply)
{
	char line[256];
	snprintf(line, sizeof line, "{\"prompt\":\"p\",\"answer\":%s,\"match\":\"%s\"}", answer, match);
	struct tasks tasks = read(line);
	bool is = task_right(&tasks.items[0], reply, strlen(reply));
	tasks_free(&tasks);
	return is;
}

static void broken_lines_are_named(void **state)
{
	(void)state;
	struct tasks tasks = read("{\"prompt\": \"a\\u0041\", \"answer\": \"b\", \"kind\": \"k\"}\r\n"
							  "\n"
							  "{\"prompt\": \"a\"}\n"
							  "{\"prompt\": \"a\", \"answer\": \"b\n"
							  "[1]\n"
							  "{\"prompt\": \"\", \"answer\": \"b\"}\n"
							  "{\"prompt\": \"a\", \"answer\": \"b\", \"match\": \"fuzzy\"}\n"
							  "{\"prompt\": \"a\", \"answer\": \"(b\", \"match\": \"regex\"}\n"
							  "{\"prompt\": \"a\", \"answer\": \"b\", \"match\": \"number\"}\n"
							  "{\"prompt\": 7, \"answer\": \"b\"}\n"
							  "{\"prompt\": \"c\", \"answer\": 12.5, \"match\": \"number\"}");
	const char *broken = text_chars(&tasks.broken);
	assert_int_equal(tasks.n, 2);
	assert_int_equal(tasks.n_broken, 8);
	assert_string_equal(tasks.items[0].prompt, "aA");
	assert_string_equal(tasks.items[0].kind, "k");
	assert_int_equal(tasks.items[0].match, MATCH_EXACT);
	assert_int_equal(tasks.items[1].line, 11);
	assert_true(tasks.items[1].number == 12.5);
	assert_string_not_equal(tasks.items[0].hash, tasks.items[1].hash);
	assert_non_null(strstr(broken, "tasks: line 3: no \"answer\"\n"));
	assert_non_null(strstr(broken, "tasks: line 4, column "));
	assert_non_null(strstr(broken, "tasks: line 5: expected an object"));
	assert_non_null(strstr(broken, "tasks: line 6: \"prompt\" is empty\n"));
	assert_non_null(strstr(broken, "tasks: line 7: \"match\": expected exact, regex or number\n"));
	assert_non_null(strstr(broken, "tasks: line 8: answer: the pattern is wrong at 2: "));
	assert_non_null(strstr(broken, "tasks: line 9: \"answer\": 'b' is not a number"));
	assert_non_null(strstr(broken, "tasks: line 10: \"prompt\": expected a string\n"));
	tasks_free(&tasks);
}

static void a_file_without_tasks_is_an_error(void **state)
{
	struct tasks tasks = {0};
	struct error err = {0};
	(void)state;
	assert_int_equal(tasks_parse(&tasks, "t", "\n", 1, &err), -1);
	assert_string_equal(err.text, "t: no tasks, expected a line of JSON for each");
	assert_int_equal(tasks_parse(&tasks, "t", "x\n{}", 4, &err), -1);
	assert_non_null(
		strstr(err.text, "t: none of 2 lines is a task; the first: t: line 1, column 1: "));
	tasks_free(&tasks);
	assert_int_equal(tasks_read(&tasks, "/nowhere/tasks", &err), -1);
	assert_non_null(strstr(err.text, "/nowhere/tasks"));
}

static void matches(void **state)
{
	(void)state;
	assert_true(right("exact", "\"1 + 1 = 2.\"", "1 + 1 = 2."));
	assert_true(right("exact", "\"1 + 1 = 2.\"", "\n1 + 1 = 2. \n"));
	assert_false(right("exact", "\"1 + 1 = 2.\"", "1 + 1 = 2"));
	assert_false(right("exact", "\"2\"", ""));
	assert_true(right("regex", "\"^4[0-9]$\"", "42"));
	assert_false(right("regex", "\"^4[0-9]$\"", "142"));
	assert_true(right("regex", "\"(?i)paris\"", "It is PARIS."));
	assert_false(right("regex", "\"a\"", "\xff"));                               // ill-formed
	assert_false(right("regex", "\"(a+)+$\"", "aaaaaaaaaaaaaaaaaaaaaaaaaaaab")); // ends
	assert_true(right("number", "\"42\"", "6 * 7 = 42."));
	assert_true(right("number", "42", "42.0"));
	assert_true(right("number", "1234567", "So it is 1,234,567."));
	assert_true(right("number", "-5", "2 - 7 = -5"));
	assert_true(right("number", "5", "12-7, or 12-5"));
	assert_true(right("number", "-3", "x=-3"));
	assert_false(right("number", "42", "42 or 43"));
	assert_false(right("number", "42", "none"));
}

static void a_limit_keeps_every_part(void **state)
{
	struct text source = {0};
	(void)state;
	for (int i = 0; i < 10; i++)
		text_format(&source, "{\"prompt\":\"%d\",\"answer\":\"x\"}\n", i);
	struct tasks tasks = read(text_chars(&source));
	text_free(&source);
	tasks_limit(&tasks, 20);
	assert_int_equal(tasks.n, 10);
	tasks_limit(&tasks, 4);
	assert_int_equal(tasks.n, 4);
	assert_string_equal(tasks.items[0].prompt, "0");
	assert_string_equal(tasks.items[1].prompt, "2");
	assert_string_equal(tasks.items[2].prompt, "5");
	assert_string_equal(tasks.items[3].prompt, "7");
	tasks_free(&tasks);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(broken_lines_are_named),
		cmocka_unit_test(a_file_without_tasks_is_an_error),
		cmocka_unit_test(matches),
		cmocka_unit_test(a_limit_keeps_every_part),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
