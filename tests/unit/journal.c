/* The journal: order, several readers, large and late reads, descriptors, models held and given
 * back. */
#include "core/journal.h"
#include "core/model.h"
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

static bool readable(struct journal *journal, int reader)
{
	struct pollfd fd = {.fd = journal_fd(journal, reader), .events = POLLIN};
	return poll(&fd, 1, 0) == 1;
}

static void append_token(struct journal *journal, int at, const char *text)
{
	struct event event = {
		.type = EV_TOKEN, .text = text, .length = text ? strlen(text) : 0, .token.at = at};
	assert_int_equal(journal_append(journal, &event, NULL), 0);
}

static void readers_see_what_comes_after_them(void **state)
{
	struct journal *journal = journal_open(NULL);
	(void)state;
	append_token(journal, 0, "nobody sees this");
	int a = journal_add_reader(journal, NULL);
	assert_null(journal_next(journal, a));
	assert_false(readable(journal, a));
	append_token(journal, 1, "one");
	int b = journal_add_reader(journal, NULL);
	append_token(journal, 2, "two");
	assert_true(readable(journal, a) && readable(journal, b));
	const struct event *event = journal_next(journal, a);
	assert_int_equal(event->token.at, 1);
	assert_string_equal(event->text, "one");
	assert_true(readable(journal, a));
	event = journal_next(journal, b);
	assert_int_equal(event->token.at, 2);
	assert_false(readable(journal, b));
	assert_int_equal(journal_next(journal, a)->token.at, 2);
	assert_null(journal_next(journal, a));
	assert_null(journal_next(journal, b));
	assert_false(readable(journal, a));
	journal_close(journal);
}

static void a_late_reader_catches_up(void **state)
{
	struct journal *journal = journal_open(NULL);
	int quick = journal_add_reader(journal, NULL), late = journal_add_reader(journal, NULL);
	char text[64];
	(void)state;
	for (int i = 0; i < 5000; i++) {
		snprintf(text, sizeof text, "token %d", i);
		append_token(journal, i, text);
		const struct event *event = journal_next(journal, quick);
		assert_int_equal(event->token.at, i);
	}
	for (int i = 0; i < 5000; i++) {
		const struct event *event = journal_next(journal, late);
		snprintf(text, sizeof text, "token %d", i);
		assert_int_equal(event->token.at, i);
		assert_string_equal(event->text, text);
	}
	assert_null(journal_next(journal, late));
	journal_close(journal);
}

static void long_texts_and_lists_are_copied(void **state)
{
	struct journal *journal = journal_open(NULL);
	int reader = journal_add_reader(journal, NULL);
	size_t length = 300000;
	char *text = malloc(length);
	int32_t *numbers = malloc(40000 * sizeof *numbers);
	(void)state;
	memset(text, 'x', length);
	text[7] = 0; // a length counts, not a NUL
	for (int i = 0; i < 40000; i++)
		numbers[i] = i;
	struct event event = {
		.type = EV_NOTICE, .text = text, .length = length, .numbers = numbers, .n_numbers = 40000};
	append_token(journal, 1, NULL);
	assert_int_equal(journal_append(journal, &event, NULL), 0);
	append_token(journal, 2, "");
	memset(text, 'y', length);
	memset(numbers, 0, 40000 * sizeof *numbers);
	assert_null(journal_next(journal, reader)->text);
	const struct event *got = journal_next(journal, reader);
	assert_int_equal(got->length, length);
	assert_int_equal(got->text[8], 'x');
	assert_int_equal(got->text[7], 0);
	assert_int_equal(got->text[length], 0);
	assert_int_equal(got->numbers[39999], 39999);
	assert_string_equal(journal_next(journal, reader)->text, "");
	free(text);
	free(numbers);
	journal_close(journal);
}

static void too_many_readers_are_an_error(void **state)
{
	struct journal *journal = journal_open(NULL);
	struct error err = {0};
	(void)state;
	for (int i = 0; i < JOURNAL_MAX_READERS; i++)
		assert_int_equal(journal_add_reader(journal, &err), i);
	assert_int_equal(journal_add_reader(journal, &err), -1);
	assert_non_null(strstr(err.text, "8 readers"));
	journal_close(journal);
	journal_close(NULL);
}

static void a_model_is_held_until_all_have_passed(void **state)
{
	struct journal *journal = journal_open(NULL);
	struct model model = {.references = 1};
	struct event event = {.type = EV_OPENED, .opened.model = &model};
	int a = journal_add_reader(journal, NULL), b = journal_add_reader(journal, NULL);
	(void)state;
	assert_int_equal(journal_append(journal, &event, NULL), 0);
	assert_int_equal(model.references, 2);
	assert_ptr_equal(journal_next(journal, a)->opened.model, &model);
	assert_null(journal_next(journal, a));
	assert_int_equal(model.references, 2);
	assert_non_null(journal_next(journal, b));
	assert_int_equal(model.references, 2);
	assert_null(journal_next(journal, b));
	assert_int_equal(model.references, 1);
	assert_int_equal(journal_append(journal, &event, NULL), 0);
	assert_int_equal(model.references, 2);
	journal_close(journal);
	assert_int_equal(model.references, 1);
}

#define N_EVENTS 20000

static void *append_many(void *argument)
{
	for (int i = 0; i < N_EVENTS; i++)
		append_token(argument, i, "some text of a token");
	return NULL;
}

static void *read_many(void *argument)
{
	struct journal *journal = argument;
	static _Thread_local int expected;
	int reader = 1;
	while (expected < N_EVENTS) {
		const struct event *event = journal_next(journal, reader);
		if (!event) {
			struct pollfd fd = {.fd = journal_fd(journal, reader), .events = POLLIN};
			assert_true(poll(&fd, 1, 20000) == 1);
			continue;
		}
		assert_int_equal(event->token.at, expected);
		assert_int_equal(event->length, 20);
		expected++;
	}
	return NULL;
}

static void threads_lose_nothing(void **state)
{
	struct journal *journal = journal_open(NULL);
	pthread_t writer, other;
	int n = 0;
	(void)state;
	assert_int_equal(journal_add_reader(journal, NULL), 0);
	assert_int_equal(journal_add_reader(journal, NULL), 1);
	pthread_create(&writer, NULL, append_many, journal);
	pthread_create(&other, NULL, read_many, journal);
	while (n < N_EVENTS) {
		const struct event *event = journal_next(journal, 0);
		if (!event) {
			struct pollfd fd = {.fd = journal_fd(journal, 0), .events = POLLIN};
			assert_int_equal(poll(&fd, 1, 20000), 1);
			continue;
		}
		assert_int_equal(event->token.at, n);
		n++;
	}
	pthread_join(writer, NULL);
	pthread_join(other, NULL);
	assert_null(journal_next(journal, 0));
	journal_close(journal);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(readers_see_what_comes_after_them),
		cmocka_unit_test(a_late_reader_catches_up),
		cmocka_unit_test(long_texts_and_lists_are_copied),
		cmocka_unit_test(too_many_readers_are_an_error),
		cmocka_unit_test(a_model_is_held_until_all_have_passed),
		cmocka_unit_test(threads_lose_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
