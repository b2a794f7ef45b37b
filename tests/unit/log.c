/* Events as lines of JSON, and the session log: batches, modes, torn lines, full disks. */
#include "sessions/log.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"
#include "sessions/event_json.h"
#include <dirent.h>
#include <locale.h>
#include <math.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

static struct event example(enum event_type type)
{
	static const int32_t numbers[] = {3, 7};
	struct event event = {.type = type, .at_ns = 1234567890};
	event.numbers = numbers;
	event.n_numbers = 2;
	event.text = "a \"quoted\" \\ line\n\x01 \xc3\xa9 \xf0\x9f\x98\x80 \xff.\xe2\x82";
	event.length = strlen(event.text);
	if (type == EV_TOKEN) {
		event.token.at = 40;
		event.token.id = 13;
		event.token.logprob = -0.1f;
		event.token.took_ns = 2000001;
		event.token.picked.top[0].id = 13;
		event.token.picked.top[0].logprob = -0.1f;
		event.token.picked.top[1].id = 5;
		event.token.picked.top[1].logprob = -INFINITY;
		event.token.picked.top[2].id = -1;
		strcpy(event.token.budget, "large");
	} else if (type == EV_MEMORY) {
		event.memory =
			(struct memory_use){.weights_bytes = 5000000000, .vram_bytes = -1, .n_sequences = 3};
	} else if (type == EV_TURN) {
		event.turn.parent = -1;
		event.turn.settings.sampling.seed = 18446744073709551615u;
		event.turn.settings.sampling.temperature = 0.6f;
		event.turn.settings.policy = event.turn.settings.thinking = true;
		strcpy(event.turn.settings.think, "12b");
		strcpy(event.turn.settings.answer, "30b");
	}
	return event;
}

static void every_event_has_its_fields(void **state)
{
	static const struct {
		enum event_type type;
		const char *fields;
	} cases[] = {
		{EV_OPENED, "version checkpoint hash budgets device time"},
		{EV_TURN,
		 "id parent seed temperature top_p top_k min_p n read think answer handoff think_limit "
		 "policy math rung"},
		{EV_MESSAGE, "role text"},
		{EV_PREFILL, "from tokens cached cuts budget took_ms"},
		{EV_TOKEN, "at id text logprob budget phase took_ms top"},
		{EV_SWITCH, "at from to handoff reason took_ms stale"},
		{EV_MEMORY,
		 "weights_bytes resident_bytes kv_bytes ssm_bytes conv_bytes scratch_bytes rss_bytes "
		 "vram_bytes sequences"},
		{EV_STOP, "reason tokens"},
		{EV_ERROR, "text"},
		{EV_NOTICE, "text"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct event event = example(cases[i].type);
		struct text line = {0};
		struct json json = {0};
		struct error err = {0};
		char fields[256], *save = NULL;
		assert_int_equal(event_json(&event, &line, &err), 0);
		assert_int_equal(line.data[line.length - 1], '\n');
		if (json_parse(&json, line.data, line.length, &err))
			print_error("%s in %s", err.text, line.data), assert_true(false);
		assert_true(json_is(json_member(&json, json.nodes, "ev"), JSON_STRING));
		assert_true(json_is(json_member(&json, json.nodes, "seq"), JSON_NUMBER));
		double ms;
		assert_int_equal(json_number(&json, json_member(&json, json.nodes, "ms"), "ms", &ms, &err),
						 0);
		assert_float_equal(ms, 1234.56789, 1e-9);
		strcpy(fields, cases[i].fields);
		for (char *f = strtok_r(fields, " ", &save); f; f = strtok_r(NULL, " ", &save))
			if (!json_member(&json, json.nodes, f))
				print_error("no field %s in %s", f, line.data), assert_true(false);
		json_free(&json);
		text_free(&line);
	}
}

static void a_token_line_is_exact(void **state)
{
	struct event event = example(EV_TOKEN);
	struct text line = {0};
	(void)state;
	setlocale(LC_NUMERIC, "de_DE.UTF-8"); // where it exists, its comma must not show
	assert_int_equal(event_json(&event, &line, NULL), 0);
	setlocale(LC_NUMERIC, "C");
	assert_string_equal(line.data,
						"{\"ev\":\"token\",\"ms\":1234.567890,\"seq\":0,\"at\":40,\"id\":13,"
						"\"text\":\"a \\\"quoted\\\" "
						"\\\\ line\\n\\u0001 \xc3\xa9 \xf0\x9f\x98\x80 " UTF8_REPLACEMENT
						"." UTF8_REPLACEMENT "\",\"logprob\":-0.100000001,\"budget\":\"large\","
						"\"phase\":\"prefill\",\"took_ms\":2.000001,"
						"\"top\":[[13,-0.100000001],[5,null]]}\n");
	text_clear(&line);
	event.type = EV_PROGRESS;
	assert_int_equal(event_json(&event, &line, NULL), 0);
	assert_int_equal(line.length, 0);
	event = example(EV_MEMORY);
	assert_int_equal(event_json(&event, &line, NULL), 0);
	assert_non_null(strstr(line.data, "\"weights_bytes\":5000000000,"));
	assert_non_null(strstr(line.data, "\"vram_bytes\":null,"));
	text_clear(&line);
	event = example(EV_TURN);
	assert_int_equal(event_json(&event, &line, NULL), 0);
	assert_non_null(strstr(line.data, "\"seed\":18446744073709551615,"));
	assert_non_null(strstr(line.data, "\"parent\":null,"));
	assert_non_null(strstr(line.data, "\"read\":\"12b\",\"think\":\"12b\",\"answer\":\"30b\","));
	text_free(&line);
}

static int record(struct session_log *log, enum event_type type, struct error *err)
{
	struct event event = example(type);
	return session_log_record(log, &event, err);
}

static int n_files(const char *folder)
{
	struct dirent **names;
	int n = scandir(folder, &names, NULL, NULL);
	for (int i = 0; i < n; i++)
		free(names[i]);
	free(n < 0 ? NULL : names);
	return n - 2; // . and ..
}

static long size_of(const char *path)
{
	struct stat info;
	return stat(path, &info) ? -1 : (long)info.st_size;
}

struct seen {
	int lines, whole;
};

static int see(void *user, const char *line, size_t length)
{
	struct seen *seen = user;
	struct json json = {0};
	seen->lines++;
	seen->whole += json_parse(&json, line, length, NULL) == 0;
	json_free(&json);
	return 0;
}

static int see_types(void *user, const char *line, size_t length)
{
	struct json json = {0};
	struct text *types = user;
	if (json_parse(&json, line, length, NULL) == 0)
		json_string(&json, json_member(&json, json.nodes, "ev"), types);
	text_add_char(types, ' ');
	json_free(&json);
	return 0;
}

/* One checkpoint and one conversation a file; what was never said has none. */
static void another_conversation_is_another_file(void **state)
{
	static const struct {
		enum event_type events[5];
		int n;
		const char *lines; // of the file
	} files[] = {
		{{EV_OPENED, EV_NOTICE, EV_OPENED, EV_CLEARED, EV_TURN}, 5, "session turn "},
		{{EV_CLEARED, EV_CLEARED, EV_NOTICE, EV_TURN, EV_STOP}, 5, "session notice turn stop "},
		{{EV_OPENED, EV_MESSAGE}, 2, "session message "},
	};
	char folder[] = "/tmp/elastiscope-log-XXXXXX";
	struct error err = {0};
	char *paths[3];
	(void)state;
	assert_non_null(mkdtemp(folder));
	struct session_log *log = session_log_open(folder, &err);
	for (int k = 0; k < 3; k++) {
		for (int i = 0; i < files[k].n; i++)
			assert_int_equal(record(log, files[k].events[i], &err), 0);
		paths[k] = mem_string(session_log_path(log), strlen(session_log_path(log)), NULL);
	}
	session_log_close(log);
	assert_int_equal(n_files(folder), 3);
	for (int k = 0; k < 3; k++) {
		struct text seen = {0};
		session_log_read(paths[k], see_types, &seen, NULL, &err);
		assert_string_equal(text_chars(&seen), files[k].lines);
		text_free(&seen);
		unlink(paths[k]);
		free(paths[k]);
	}
	rmdir(folder);
}

static void a_session_is_recorded_in_batches(void **state)
{
	char folder[] = "/tmp/elastiscope-log-XXXXXX";
	struct error err = {0};
	struct stat info;
	(void)state;
	assert_non_null(mkdtemp(folder));
	char *deep = file_join(folder, "a/sessions", &err);
	struct session_log *log = session_log_open(deep, &err), *twin = session_log_open(deep, &err);
	assert_non_null(log);
	assert_int_equal(record(log, EV_OPENED, &err), 0);
	assert_false(file_is_directory(deep)); // nothing was said yet
	assert_int_equal(record(log, EV_TURN, &err), 0);
	assert_int_equal(stat(session_log_path(log), &info), 0);
	assert_int_equal(info.st_mode & 0777, 0600);
	long before = (long)info.st_size;
	assert_int_equal(stat(deep, &info), 0);
	assert_int_equal(info.st_mode & 0777, 0700);
	assert_int_equal(record(log, EV_TOKEN, &err), 0);
	assert_int_equal(record(log, EV_TOKEN, &err), 0);
	assert_int_equal(record(log, EV_STOP, &err), 0);
	assert_true(size_of(session_log_path(log)) > before);
	assert_int_equal(record(log, EV_TOKEN, &err), 0);
	assert_int_equal(record(twin, EV_TURN, &err), 0); // the same second and process: another name
	assert_string_not_equal(session_log_path(log), session_log_path(twin));
	char *path = mem_string(session_log_path(log), strlen(session_log_path(log)), NULL);
	char *other = mem_string(session_log_path(twin), strlen(session_log_path(twin)), NULL);
	session_log_close(log);
	session_log_close(twin);
	struct seen seen = {0};
	size_t torn = 1;
	assert_int_equal(session_log_read(path, see, &seen, &torn, &err), 6);
	assert_int_equal(seen.whole, 6);
	assert_int_equal(torn, 0);

	FILE *f = fopen(path, "a");
	fputs("{\"ev\":\"tok", f);
	fclose(f);
	seen = (struct seen){0};
	assert_int_equal(session_log_read(path, see, &seen, &torn, &err), 6);
	assert_int_equal(torn, 10);
	assert_int_equal(session_log_read("/nowhere/x.jsonl", see, &seen, &torn, &err), -1);
	assert_int_equal(session_log_read(folder, see, &seen, &torn, &err), -1);
	assert_non_null(strstr(err.text, folder));
	unlink(path);
	unlink(other);
	rmdir(deep);
	char *parent = file_join(folder, "a", &err);
	rmdir(parent);
	assert_int_equal(rmdir(folder), 0);
	free(parent);
	free(deep);
	free(path);
	free(other);
}

static void a_full_disk_loses_nothing(void **state)
{
	char path[] = "/tmp/elastiscope-log-XXXXXX";
	struct error err = {0};
	struct rlimit limit, small;
	struct seen seen = {0};
	size_t torn;
	(void)state;
	close(mkstemp(path));
	signal(SIGXFSZ, SIG_IGN);
	struct session_log *log = session_log_open_file(path, &err);
	assert_int_equal(record(log, EV_TURN, &err), 0);
	long before = size_of(path);
	getrlimit(RLIMIT_FSIZE, &limit);
	small = limit;
	small.rlim_cur = (rlim_t)before + 30; // the next line fits in part
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
	assert_int_equal(record(log, EV_MESSAGE, &err), -1);
	assert_non_null(strstr(err.text, path));
	assert_int_equal(size_of(path), before + 30);
	assert_int_equal(record(log, EV_TOKEN, &err), -1); // still failing
	assert_int_equal(record(log, EV_STOP, &err), -1);
	assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
	assert_int_equal(record(log, EV_STOP, &err), 0);
	session_log_close(log);
	assert_int_equal(session_log_read(path, see, &seen, &torn, &err), 5);
	assert_int_equal(seen.whole, 5);
	unlink(path);

	log = session_log_open_file("/dev/full", &err);
	assert_int_equal(record(log, EV_TURN, &err), -1);
	assert_non_null(strstr(err.text, "No space left"));
	session_log_close(log);
	log = session_log_open_file("/nowhere/at/all", &err);
	assert_int_equal(record(log, EV_TURN, &err), -1);
	assert_non_null(strstr(err.text, "/nowhere/at/all"));
	session_log_close(log);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_event_has_its_fields),
		cmocka_unit_test(a_token_line_is_exact),
		cmocka_unit_test(a_session_is_recorded_in_batches),
		cmocka_unit_test(another_conversation_is_another_file),
		cmocka_unit_test(a_full_disk_loses_nothing),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
