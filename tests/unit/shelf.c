/* The logs of a folder: listed, counted, searched, found. */
#include "sessions/shelf.h"
#include "base/file.h"
#include "base/memory.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define SESSION(folder)                                                                            \
	"{\"ev\":\"session\",\"ms\":1.5,\"seq\":0,\"version\":\"9.9\",\"checkpoint\":\"" folder        \
	"\",\"hash\":\"0123456789abcdef\",\"budgets\":[\"large\"],\"device\":\"avx2, 3 threads\","     \
	"\"time\":\"2026-11-22T12:00:00Z\"}\n"

static void put_turn(FILE *file, int seq, int id, int parent, const char *question)
{
	fprintf(file,
			"{\"ev\":\"turn\",\"ms\":2,\"seq\":%d,\"id\":%d,\"parent\":%d,\"known\":0,\"seed\":1,"
			"\"temperature\":0,\"top_p\":1,\"top_k\":0,\"min_p\":0,\"n\":0,\"read\":\"large\","
			"\"think\":\"large\",\"answer\":\"large\",\"handoff\":\"carry\",\"think_limit\":0,"
			"\"policy\":\"none\",\"math\":\"fast\",\"rung\":\"avx2\"}\n"
			"{\"ev\":\"message\",\"ms\":3,\"seq\":%d,\"role\":\"user\",\"text\":\"%s\"}\n",
			seq, id, parent, seq, question);
	for (int at = 1; at <= 3; at++)
		fprintf(
			file,
			"{\"ev\":\"token\",\"ms\":%d,\"seq\":%d,\"at\":%d,\"id\":7,\"text\":\"%s\","
			"\"logprob\":-1,\"budget\":\"large\",\"phase\":\"answer\",\"took_ms\":1,\"top\":[]}\n",
			4 + at, seq, at,
			at == 1   ? "forty"
			: at == 2 ? "-two"
					  : "");
	fprintf(file, "{\"ev\":\"stop\",\"ms\":9,\"seq\":%d,\"reason\":\"eos\",\"tokens\":3}\n", seq);
}

static FILE *begin_log(const char *folder, const char *name)
{
	char *path = file_join(folder, name, NULL);
	FILE *file = fopen(path, "w");
	assert_non_null(file);
	fputs(SESSION("/x/model"), file);
	free(path);
	return file;
}

static void put_log(const char *folder, const char *name, const char *question)
{
	FILE *file = begin_log(folder, name);
	put_turn(file, 0, 0, -1, question);
	fclose(file);
}

static void logs_are_listed_found_and_searched(void **state)
{
	char folder[] = "/tmp/elastiscope-session-XXXXXX";
	struct shelf shelf;
	struct error err = {0};
	struct text table = {0};
	(void)state;
	assert_non_null(mkdtemp(folder));
	put_log(folder, "2026-01-01T00-00-00Z-1.jsonl", "the oldest");
	put_log(folder, "2026-01-03T00-00-00Z-1.jsonl", "the newest\\nof all");
	put_log(folder, "2026-01-02T00-00-00Z-1.jsonl", "a Needle here");
	char *junk = file_join(folder, "2026-01-04T00-00-00Z-1.jsonl", NULL);
	FILE *file = fopen(junk, "w");
	fputs("no log\n", file);
	fclose(file);
	assert_int_equal(shelf_open(folder, NULL, &shelf, &err), 0);
	assert_int_equal(shelf.n_rows, 3);
	assert_string_equal(shelf.rows[0].first.data, "the newest of all");
	assert_int_equal(shelf.rows[0].n_turns, 1);
	assert_int_equal(shelf.rows[0].n_tokens, 3);
	assert_int_equal(shelf.rows[0].length_ns, 7500000); // from its session line on
	shelf_table(&shelf, 120, &table);
	assert_non_null(strstr(table.data, "  2  2026-11-22 12:00  model        0123456789abcdef"));
	char *third = mem_string(shelf.rows[2].path, strlen(shelf.rows[2].path), NULL);
	shelf_close(&shelf);
	assert_int_equal(shelf_open(folder, "nEEdle", &shelf, &err), 0);
	assert_int_equal(shelf.n_rows, 1);
	assert_int_equal(shelf.rows[0].number, 2);
	assert_string_equal(shelf.rows[0].found.data, "a Needle here");
	shelf_close(&shelf);
	assert_int_equal(shelf_open(folder, "TY-Two", &shelf, &err), 0); // across tokens or not
	assert_int_equal(shelf.n_rows, 3);
	shelf_close(&shelf);
	static const char *const names[] = {"3", "2026-01-01T00-00-00Z-1",
										"2026-01-01T00-00-00Z-1.jsonl"};
	for (int i = 0; i < 3; i++) {
		char *path = shelf_find(folder, names[i], &err);
		assert_string_equal(path, third);
		free(path);
	}
	assert_null(shelf_find(folder, "4", &err));
	assert_non_null(strstr(err.text, "there are 3"));
	assert_null(shelf_find(folder, "nobody", &err));
	assert_int_equal(shelf_open("/nowhere/at/all", NULL, &shelf, &err), 0);
	assert_int_equal(shelf.n_rows, 0);
	shelf_close(&shelf);
	static const char *const files[] = {
		"2026-01-01T00-00-00Z-1.jsonl", "2026-01-02T00-00-00Z-1.jsonl",
		"2026-01-03T00-00-00Z-1.jsonl", "2026-01-04T00-00-00Z-1.jsonl"};
	for (int i = 0; i < 4; i++) {
		char *path = file_join(folder, files[i], NULL);
		unlink(path);
		free(path);
	}
	assert_int_equal(rmdir(folder), 0);
	text_free(&table);
	free(third);
	free(junk);
}

/* A column's turns count once it was kept: by its event, or by a turn that goes on from it. The
 * checkpoint is the last one, which is what shows and resumes. */
static void a_kept_column_counts(void **state)
{
	char folder[] = "/tmp/elastiscope-session-XXXXXX";
	static const char name[] = "2026-01-01T00-00-00Z-1.jsonl";
	struct shelf shelf;
	(void)state;
	assert_non_null(mkdtemp(folder));
	for (int way = 0; way < 3; way++) {
		FILE *file = begin_log(folder, name);
		fputs(SESSION("/x/other"), file);
		put_turn(file, 1, 0, -1, "left");
		put_turn(file, 2, 1, -1, "right");
		put_turn(file, 1, 2, 0, "left");
		put_turn(file, 2, 3, 1, "right");
		if (way != 1)
			fputs("{\"ev\":\"kept\",\"ms\":10,\"seq\":0,\"turn\":3}\n", file);
		if (way != 0)
			put_turn(file, 0, 4, 3, "on");
		fclose(file);
		assert_int_equal(shelf_open(folder, NULL, &shelf, NULL), 0);
		assert_int_equal(shelf.rows[0].n_turns, way ? 3 : 2);
		assert_string_equal(shelf.rows[0].origin.checkpoint, "/x/other");
		shelf_close(&shelf);
	}
	char *path = file_join(folder, name, NULL);
	unlink(path);
	free(path);
	assert_int_equal(rmdir(folder), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(logs_are_listed_found_and_searched),
		cmocka_unit_test(a_kept_column_counts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
