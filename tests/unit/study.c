/* A study of scripted turns: rows, cancelling, what comes out, and the file that goes on. */
#include "inspect/study_file.h"
#include "tests/engine/script.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define N_TASKS 4
#define N_CELLS 3

static const char source[] = "{\"prompt\":\"a\",\"answer\":\"1\",\"kind\":\"x, y\"}\n"
							 "{\"prompt\":\"b\",\"answer\":\"2\"}\n"
							 "{\"prompt\":\"c\",\"answer\":\"3\"}\n"
							 "{\"prompt\":\"d\",\"answer\":\"4\"}\n";
static const struct cell cells[N_CELLS] = {
	{{"same", "large", "large", "none", "0", "none"}},
	{{"same", "small", "large", "reprefill", "0", "none"}},
	{{"same", "small", "large", "carry", "0", "none"}},
};
/* What the scripted engine answers: all right; the last wrong; two wrong. */
static const char *const replies[N_CELLS][N_TASKS] = {
	{"1", "2", "3", "4"}, {"1", "2", "3", "\"4,\\\n"}, {"1", "2", "0", "0"}};
static const struct study_fact facts[] = {{.name = "checkpoint", .value = "abcd"},
										  {.name = "seed", .number = true, .value = "100"}};

struct scene {
	struct tasks tasks;
	struct study study;
	struct script *script;
	int rows, stop_after;
	struct study_file *file;
	char notes[256];
};

static void open_scene(struct scene *scene)
{
	struct turn_settings base = {.max_tokens = 50, .sampling.seed = 100};
	struct error err = {0};
	*scene = (struct scene){.stop_after = -1};
	assert_int_equal(tasks_parse(&scene->tasks, "t", source, strlen(source), &err), 0);
	assert_int_equal(study_init(&scene->study, &scene->tasks, cells, N_CELLS, &base, "large", &err),
					 0);
	scene->script = script_open(&err);
}

static void close_scene(struct scene *scene)
{
	study_file_close(scene->file);
	study_free(&scene->study);
	tasks_free(&scene->tasks);
	scene->script->engine.table->close(&scene->script->engine);
}

/* The turn of one row: 3 thoughts, a switch where two budgets take part, the answer. */
static void play(struct scene *scene, size_t task, size_t cell)
{
	struct script *script = scene->script;
	const char *think = cells[cell].value[GRID_THINK];
	struct turn_settings settings = {.thinking = true};
	script_on(script, REQUEST_TURN);
	script_turn(script, 0, &settings);
	script_prefill(script, 1, 20, 0, think, 1000000);
	script_token(script, 2, think, PHASE_THINK, "so", 0);
	script_token(script, 3, think, PHASE_THINK, "\n", 1000000);
	script_token(script, 4, think, PHASE_THINK, "</think>", 1000000);
	if (cell > 0)
		script_switch(script, 5, think, "large", cell == 1 ? HANDOFF_REPREFILL : HANDOFF_CARRY,
					  SWITCH_PHASE, cell == 1 ? 3000000 : 1000);
	script_token(script, 6, "large", PHASE_ANSWER, "\n", 1000000);
	script_token(script, 7, "large", PHASE_ANSWER, replies[cell][task], 1000000);
	struct event event = {.type = EV_STOP};
	event.stop.reason = STOP_EOS;
	event.stop.phase = PHASE_ANSWER;
	event.stop.first_ns = 2000000;
	event.stop.took_ns = (9 - cell) * 1000000;
	script_event(script, &event);
}

static void play_all(struct scene *scene)
{
	for (size_t task = 0; task < N_TASKS; task++)
		for (size_t cell = 0; cell < N_CELLS; cell++)
			if (!study_row(&scene->study, task, cell)->done)
				play(scene, task, cell);
}

static int on_row(void *user, const struct study *study, size_t task, size_t cell,
				  struct error *err)
{
	struct scene *scene = user;
	scene->rows++;
	return scene->file ? study_file_add(scene->file, study, task, cell, err) : 0;
}

static bool cancelled(void *user)
{
	struct scene *scene = user;
	return scene->stop_after >= 0 && scene->rows >= scene->stop_after;
}

static void on_note(void *user, const char *sentence)
{
	snprintf(((struct scene *)user)->notes, 256, "%s", sentence);
}

static int run(struct scene *scene)
{
	struct study_watch watch = {on_row, cancelled, on_note, scene};
	struct error err = {0};
	int result = study_run(&scene->study, &scene->script->engine, &watch, &err);
	assert_string_equal(err.text, "");
	return result;
}

static void rows_and_what_comes_out(void **state)
{
	struct scene scene;
	struct study_summary sums[N_CELLS];
	(void)state;
	open_scene(&scene);
	assert_int_equal(scene.study.baseline, 0);
	play_all(&scene);
	assert_int_equal(run(&scene), 0);
	assert_int_equal(scene.rows, 12);
	assert_int_equal(scene.study.n_done, 12);
	// a clear and a turn for each row, with its prompt, settings and seed
	assert_int_equal(script_n_requests(scene.script), 24);
	const struct request *turn = script_request(scene.script, 2 * (1 * N_CELLS + 2) + 1);
	assert_int_equal(script_request(scene.script, 0)->type, REQUEST_CLEAR);
	assert_int_equal(turn->type, REQUEST_TURN);
	assert_string_equal(turn->conversation->messages[0].text, "b");
	assert_string_equal(turn->settings.think, "small");
	assert_int_equal(turn->settings.handoff, HANDOFF_CARRY);
	assert_int_equal(turn->settings.sampling.seed, 102);
	assert_int_equal(turn->settings.max_tokens, 50);

	assert_int_equal(study_summarise(&scene.study, sums, NULL), 0);
	assert_int_equal(sums[0].right, 4);
	assert_int_equal(sums[1].right, 3);
	assert_int_equal(sums[2].right, 2);
	assert_int_equal(sums[2].lost, 2);
	assert_int_equal(sums[2].won, 0);
	assert_true(fabs(sums[2].mcnemar.exact - 0.5) < 1e-12);
	assert_int_equal(sums[2].n_twin, 4);
	assert_int_equal(sums[2].n_same, 2); // 0 for 3, and 0 for what is no 4 either
	assert_int_equal(sums[1].n_twin, 0);
	assert_true(sums[0].tokens == 5 && sums[0].think_tokens == 3);
	assert_true(fabs(sums[1].median_seconds - 0.008) < 1e-12);
	assert_true(fabs(sums[1].switch_ms - 3) < 1e-9);
	assert_true(isnan(sums[0].switch_ms));
	assert_true(fabs(sums[0].tps - 1000) < 1e-6);
	assert_true(sums[0].front && sums[1].front && sums[2].front);
	close_scene(&scene);
}

static void a_failed_turn_is_wrong_and_named(void **state)
{
	struct scene scene;
	struct study_summary sums[N_CELLS];
	(void)state;
	open_scene(&scene);
	tasks_limit(&scene.tasks, 1);
	scene.study.n_cells = 1;
	script_on(scene.script, REQUEST_TURN);
	script_turn(scene.script, 0, &(struct turn_settings){.thinking = true});
	script_error(scene.script, 1, "the prompt has 28 tokens, the context holds 20");
	script_stop(scene.script, 1, STOP_ERROR);
	assert_int_equal(run(&scene), 0);
	assert_string_equal(scene.notes,
						"task in line 1: the prompt has 28 tokens, the context holds 20");
	assert_int_equal(study_summarise(&scene.study, sums, NULL), 0);
	assert_int_equal(sums[0].n, 1);
	assert_int_equal(sums[0].right, 0);
	assert_int_equal(sums[0].failed, 1);
	close_scene(&scene);
}

static struct study_file *open_file(struct scene *scene, const char *path,
									const struct study_fact *with, struct error *err)
{
	*err = (struct error){0};
	return study_file_open(path, &scene->study, with, 2, err);
}

static void append(const char *path, const char *text)
{
	FILE *file = fopen(path, "a");
	assert_non_null(file);
	fputs(text, file);
	assert_int_equal(fclose(file), 0);
}

static void a_stopped_study_goes_on(void **state)
{
	struct scene scene;
	struct study_summary first[N_CELLS], sums[N_CELLS];
	struct error err;
	char path[] = "/tmp/study-XXXXXX";
	(void)state;
	close(mkstemp(path));
	open_scene(&scene);
	assert_non_null(scene.file = open_file(&scene, path, facts, &err));
	assert_null(open_file(&scene, path, facts, &err)); // in use
	assert_non_null(strstr(err.text, "another study"));
	scene.stop_after = 7;
	play_all(&scene);
	assert_int_equal(run(&scene), 1);
	assert_int_equal(scene.rows, 7);
	close_scene(&scene);

	append(path, "abcd,100,small,large,carry,0,3,12"); // torn
	open_scene(&scene);
	assert_non_null(scene.file = open_file(&scene, path, facts, &err));
	assert_int_equal(scene.study.n_had, 7);
	assert_true(study_row(&scene.study, 2, 0)->done);
	assert_false(study_row(&scene.study, 2, 1)->done);
	play_all(&scene);
	assert_int_equal(run(&scene), 0);
	assert_int_equal(scene.rows, 5);
	assert_int_equal(study_summarise(&scene.study, first, NULL), 0);
	close_scene(&scene);

	// everything is there: nothing runs, and the numbers are the same; answers survive quoting
	open_scene(&scene);
	assert_non_null(scene.file = open_file(&scene, path, facts, &err));
	assert_int_equal(run(&scene), 0);
	assert_int_equal(scene.rows, 0);
	assert_string_equal(study_row(&scene.study, 3, 1)->text, "\"4,\\\n");
	assert_int_equal(study_row(&scene.study, 3, 1)->seed, 104);
	assert_int_equal(study_summarise(&scene.study, sums, NULL), 0);
	for (int i = 0; i < N_CELLS; i++) {
		assert_int_equal(first[i].right, sums[i].right);
		assert_true(first[i].median_seconds == sums[i].median_seconds);
		assert_true(first[i].tps == sums[i].tps);
	}
	close_scene(&scene);
	unlink(path);
}

static void other_studies_are_refused(void **state)
{
	struct scene scene;
	struct error err;
	char path[] = "/tmp/study-XXXXXX";
	struct study_fact other[2] = {facts[0], facts[1]};
	(void)state;
	close(mkstemp(path));
	open_scene(&scene);
	assert_non_null(scene.file = open_file(&scene, path, facts, &err));
	play_all(&scene);
	assert_int_equal(run(&scene), 0);
	close_scene(&scene);

	open_scene(&scene);
	strcpy(other[0].value, "ffff");
	assert_null(open_file(&scene, path, other, &err));
	assert_non_null(strstr(err.text, "line 2: checkpoint is abcd there and ffff here"));
	strcpy(scene.tasks.items[0].hash, "0");
	assert_null(open_file(&scene, path, facts, &err));
	assert_non_null(strstr(err.text, "the task of line 1 is "));
	close_scene(&scene);

	open_scene(&scene);
	append(path, "abcd,100,x\n");
	assert_null(open_file(&scene, path, facts, &err));
	assert_non_null(strstr(err.text, "line 14: expected 27 columns, found 3"));
	assert_int_equal(truncate(path, 0), 0);
	append(path, "not a study\n");
	assert_null(open_file(&scene, path, facts, &err));
	assert_non_null(strstr(err.text, "line 1: not the head of a study"));
	assert_null(open_file(&scene, "/nowhere/rows.csv", facts, &err));
	assert_non_null(strstr(err.text, "/nowhere/rows.csv"));
	close_scene(&scene);
	unlink(path);
}

static void a_full_disk_stops_it(void **state)
{
	struct scene scene;
	struct error err;
	(void)state;
	open_scene(&scene);
	assert_null(scene.file = open_file(&scene, "/dev/full", facts, &err));
	assert_true(err.text[0] != '\0');
	close_scene(&scene);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(rows_and_what_comes_out),
		cmocka_unit_test(a_failed_turn_is_wrong_and_named),
		cmocka_unit_test(a_stopped_study_goes_on),
		cmocka_unit_test(other_studies_are_refused),
		cmocka_unit_test(a_full_disk_stops_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
