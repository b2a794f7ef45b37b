/* error, memory, text, file, hash, clock and origin. */
#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "base/origin.h"
#include "base/text.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

static void error_escapes_what_a_terminal_obeys(void **state)
{
	struct error err = {0};
	(void)state;
	assert_int_equal(fail(&err, "tensor \"%s\" has %d rows", "a\033[2J\n\x7f", 3), -1);
	assert_string_equal(err.text, "tensor \"a\\x1b[2J\\x0a\\x7f\" has 3 rows");
	fail(&err, "%s", "\xc3\xa9 \xff \xc2\x9b \xe2\x82\xac");
	assert_string_equal(err.text, "\xc3\xa9 \\xff \\xc2\\x9b \xe2\x82\xac");
	assert_int_equal(fail(NULL, "nobody listens"), -1);
}

static void error_is_cut_between_characters(void **state)
{
	struct error err;
	char longer[1200];
	(void)state;
	for (size_t i = 0; i + 1 < sizeof longer; i += 2)
		memcpy(longer + i, "\xc3\xa9", 2);
	longer[sizeof longer - 2] = 0;
	fail(&err, "%s", longer);
	assert_int_equal(strlen(err.text), 510);
	fail(&err, "x%s", longer);
	assert_int_equal(strlen(err.text), 511);
	fail(&err, "xy%s", longer);
	assert_int_equal(strlen(err.text), 510);
}

static void error_takes_context(void **state)
{
	struct error err;
	(void)state;
	fail(&err, "the file ends early");
	assert_int_equal(fail_in(&err, "shard %d", 3), -1);
	assert_string_equal(err.text, "shard 3: the file ends early");
	fail(&err, "again: %s", err.text);
	assert_string_equal(err.text, "again: shard 3: the file ends early");
}

static void memory_is_checked(void **state)
{
	struct error err = {0};
	size_t product = 0;
	(void)state;
	assert_false(mem_multiply(SIZE_MAX / 2, 3, &product));
	assert_true(mem_multiply(6, 7, &product));
	assert_int_equal(product, 42);
	assert_null(mem_new(SIZE_MAX / 2, 4, &err));
	assert_non_null(strstr(err.text, "no memory for "));
	assert_null(mem_new_aligned(SIZE_MAX - 3, 1, &err));
	char *none = mem_new(0, 8, &err);
	assert_non_null(none);
	free(none);
	char *lines = mem_new_aligned(3, 50, &err);
	assert_int_equal((uintptr_t)lines % 64, 0);
	for (int i = 0; i < 150; i++)
		assert_int_equal(lines[i], 0);
	free(lines);
}

static void memory_grows_by_half_and_zeroed(void **state)
{
	struct error err = {0};
	int *numbers = NULL;
	size_t capacity = 0;
	(void)state;
	assert_int_equal(mem_grow(&numbers, &capacity, 100, sizeof *numbers, &err), 0);
	assert_int_equal(capacity, 100);
	numbers[99] = 7;
	assert_int_equal(mem_grow(&numbers, &capacity, 101, sizeof *numbers, &err), 0);
	assert_int_equal(capacity, 150);
	assert_int_equal(numbers[99], 7);
	assert_int_equal(numbers[149], 0);
	int *before = numbers;
	assert_int_equal(mem_grow(&numbers, &capacity, SIZE_MAX / 2, sizeof *numbers, &err), -1);
	assert_ptr_equal(numbers, before);
	assert_int_equal(capacity, 150);
	free(numbers);
}

static void text_appends_and_hands_over(void **state)
{
	struct text text = {0};
	char longer[1000];
	(void)state;
	assert_string_equal(text_chars(&text), "");
	text_add(&text, "ab");
	text_append(&text, "\0c", 2);
	text_add_char(&text, 'd');
	assert_int_equal(text.length, 5);
	assert_memory_equal(text.data, "ab\0cd", 6);
	text_clear(&text);
	memset(longer, 'x', sizeof longer);
	longer[999] = 0;
	text_format(&text, "%d-%s", 7, longer);
	assert_int_equal(text.length, 1001);
	char *taken = text_take(&text);
	assert_int_equal(strlen(taken), 1001);
	assert_null(text.data);
	free(taken);
	taken = text_take(&text);
	assert_string_equal(taken, "");
	free(taken);
}

static void text_remembers_failure(void **state)
{
	struct text text = {0};
	struct error err = {0};
	(void)state;
	text_add(&text, "kept");
	assert_false(text_reserve(&text, SIZE_MAX - 2));
	text_add(&text, "not appended");
	assert_string_equal(text_chars(&text), "kept");
	assert_int_equal(text_check(&text, &err), -1);
	assert_null(text_take(&text));
	assert_int_equal(text_check(&text, &err), 0);
}

static void file_reads_and_refuses(void **state)
{
	char folder[] = "/tmp/elastiscope-base-XXXXXX";
	struct text text = {0};
	struct error err = {0};
	(void)state;
	assert_non_null(mkdtemp(folder));
	char *path = file_join(folder, "file", &err), *fifo = file_join(folder, "fifo", &err);
	FILE *f = fopen(path, "w");
	fputs("12345", f);
	fclose(f);
	assert_int_equal(file_read(path, 5, &text, &err), 0);
	assert_string_equal(text_chars(&text), "12345");
	assert_int_equal(file_read(path, 4, &text, &err), -1);
	assert_non_null(strstr(err.text, "has 5 bytes, at most 4"));
	assert_int_equal(file_read(folder, 4, &text, &err), -1);
	assert_non_null(strstr(err.text, "is a directory"));
	assert_int_equal(mkfifo(fifo, 0600), 0);
	assert_int_equal(file_read(fifo, 4, &text, &err), -1);
	assert_non_null(strstr(err.text, "is not a regular file"));
	assert_int_equal(file_read("/nowhere/at all", 4, &text, &err), -1);
	assert_string_equal(err.text, "/nowhere/at all: No such file or directory");
	assert_true(file_exists(path));
	assert_false(file_exists(folder));
	assert_true(file_is_directory(folder));
	unlink(path);
	unlink(fifo);
	rmdir(folder);
	text_free(&text);
	free(path);
	free(fifo);
}

static void file_makes_directories(void **state)
{
	char folder[] = "/tmp/elastiscope-base-XXXXXX";
	struct error err = {0};
	(void)state;
	assert_non_null(mkdtemp(folder));
	char *inner = file_join(folder, "a", &err), *deep = file_join(inner, "b/", &err);
	char *under_file = file_join(deep, "file/x", &err), *file = file_join(deep, "file", &err);
	assert_int_equal(file_make_directories(deep, &err), 0);
	assert_int_equal(file_make_directories(deep, &err), 0);
	assert_true(file_is_directory(deep));
	fclose(fopen(file, "w"));
	assert_int_equal(file_make_directories(under_file, &err), -1);
	assert_non_null(strstr(err.text, "can't create the folder"));
	unlink(file);
	rmdir(deep);
	rmdir(inner);
	rmdir(folder);
	free(inner);
	free(deep);
	free(under_file);
	free(file);
}

static void file_places_follow_xdg(void **state)
{
	struct error err = {0};
	(void)state;
	setenv("HOME", "/home/me", 1);
	setenv("XDG_DATA_HOME", "/data", 1);
	setenv("XDG_STATE_HOME", "relative/is/ignored", 1);
	unsetenv("XDG_CACHE_HOME");
	char *data = file_place(PLACE_DATA, "sessions", &err);
	char *state_home = file_place(PLACE_STATE, "history", &err);
	char *cache = file_place(PLACE_CACHE, "", &err);
	assert_string_equal(data, "/data/elastiscope/sessions");
	assert_string_equal(state_home, "/home/me/.local/state/elastiscope/history");
	assert_string_equal(cache, "/home/me/.cache/elastiscope");
	unsetenv("HOME");
	assert_null(file_place(PLACE_CACHE, "x", &err));
	assert_non_null(strstr(err.text, "HOME"));
	free(data);
	free(state_home);
	free(cache);
}

static void file_finds_what_is_shared(void **state)
{
	struct error err = {0};
	(void)state;
	unsetenv("ELASTISCOPE_SHARE");
	char *demo = file_shared("demo", &err); // this test runs from the build folder
	assert_non_null(demo);
	assert_true(file_is_directory(demo));
	free(demo);
	setenv("ELASTISCOPE_SHARE", "/nowhere", 1);
	assert_null(file_shared("demo", &err));
	assert_non_null(strstr(err.text, "/nowhere"));
	unsetenv("ELASTISCOPE_SHARE");
	assert_null(file_shared("no such thing", &err));
}

static void hashes_match_their_definitions(void **state)
{
	char digits[65];
	(void)state;
	assert_true(hash_bytes("", 0) == 0xcbf29ce484222325u);
	assert_true(hash_bytes("a", 1) == 0xaf63dc4c8601ec8cu); // the FNV page's test vectors
	assert_true(hash_bytes("foobar", 6) == 0x85944171f73967e8u);
	assert_true(hash_mix(0x9e3779b97f4a7c15u) == 0xe220a8397b1dcdafu); // splitmix64, seed 0
	hash_sha256("abc", 3, digits);
	assert_string_equal(digits, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

static void clock_and_origin(void **state)
{
	char now[24];
	(void)state;
	uint64_t before = clock_ns();
	assert_true(clock_ns() >= before);
	clock_utc(now);
	assert_int_equal(strlen(now), 20);
	assert_int_equal(now[10], 'T');
	assert_int_equal(now[19], 'Z');
	assert_string_equal(origin_name(ORIGIN_ESTIMATED), "estimated");
	assert_string_equal(origin_name((enum origin)99), "unknown");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_escapes_what_a_terminal_obeys),
		cmocka_unit_test(error_is_cut_between_characters),
		cmocka_unit_test(error_takes_context),
		cmocka_unit_test(memory_is_checked),
		cmocka_unit_test(memory_grows_by_half_and_zeroed),
		cmocka_unit_test(text_appends_and_hands_over),
		cmocka_unit_test(text_remembers_failure),
		cmocka_unit_test(file_reads_and_refuses),
		cmocka_unit_test(file_makes_directories),
		cmocka_unit_test(file_places_follow_xdg),
		cmocka_unit_test(file_finds_what_is_shared),
		cmocka_unit_test(hashes_match_their_definitions),
		cmocka_unit_test(clock_and_origin),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
