/*
 * calibrate (inspect/calibrate.h) against importance.py, an own forward pass in float64: every
 * score of nest-tiny, the cache, a run that was stopped and goes on, and files that are not its
 * checkpoint's.
 */
#include "inspect/importance.h"
#include "golden.h"
#include "inspect/calibrate.h"
#include "tests/unit/folder.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define LIMIT 1e-5
#define WINDOW 64 // of importance.py
#define GROUPS 3  // 8 layers, three a pass

struct scene {
	struct golden g;
	struct folder cache;
	struct checkpoint tokens, expected;
	struct calibrate_texts texts;
	struct calibrate_plan plan;
	int calls, stop_at; // 0 = never
	int64_t first;      // tokens that the first call told
};

static int step(void *user, int64_t done, int64_t total)
{
	struct scene *s = user;
	assert_int_equal(total, 157 * GROUPS);
	assert_true(done > 0 && done <= total);
	if (s->calls++ == 0)
		s->first = done;
	return s->calls == s->stop_at;
}

static void open_file(struct checkpoint *file, const char *name)
{
	struct error err = {0};
	char *path = golden_path(name);
	golden_must(checkpoint_open_file(file, path, &err), &err);
	free(path);
}

static void add_text(struct scene *s, const char *name, size_t n)
{
	struct error err = {0};
	int32_t *ids = malloc(n * sizeof *ids);
	assert_non_null(ids);
	memcpy(ids, golden_ids(&s->tokens, name, n), n * sizeof *ids);
	golden_must(calibrate_add_ids(&s->texts, name, ids, n, &err), &err);
}

static void open_scene(struct scene *s)
{
	*s = (struct scene){0};
	golden_open(&s->g, "nest-tiny", NULL, MATH_EXACT);
	folder_make(&s->cache);
	setenv("XDG_CACHE_HOME", s->cache.path, 1);
	open_file(&s->tokens, "nest-tiny/golden/large.safetensors");
	open_file(&s->expected, "nest-tiny/golden/importance.safetensors");
	add_text(s, "tokens.150", 150);
	add_text(s, "tokens.7", 7);
	s->plan = (struct calibrate_plan){
		.model = s->g.model,
		.texts = &s->texts,
		.window = WINDOW,
		.device = {.n_threads = golden_run.threads, .math = MATH_EXACT, .kv_dtype = DTYPE_F32},
		.step = step,
		.user = s};
}

static void close_scene(struct scene *s)
{
	calibrate_texts_free(&s->texts);
	checkpoint_close(&s->tokens);
	checkpoint_close(&s->expected);
	struct folder inside = s->cache;
	strncat(inside.path, "/elastiscope/importance", sizeof inside.path - strlen(inside.path) - 1);
	folder_remove(&inside);
	*strrchr(inside.path, '/') = '\0';
	folder_remove(&inside);
	folder_remove(&s->cache);
	golden_close(&s->g);
}

static void check_scores(struct scene *s, const char *path)
{
	struct scores scores;
	struct error err = {0};
	golden_must(scores_open(&scores, path, s->g.model, &err), &err);
	assert_int_equal(scores.file.n_tensors, s->expected.n_tensors);
	for (size_t i = 0; i < s->expected.n_tensors; i++) {
		const char *name = s->expected.tensors[i].name;
		size_t n = s->expected.tensors[i].tensor.bytes / sizeof(float);
		golden_close_to(&s->g, name, golden_floats(&scores.file, name, n),
						golden_floats(&s->expected, name, n), n, LIMIT);
	}
	assert_string_equal(scores.text, "tokens.150, tokens.7");
	assert_int_equal(scores.tokens, 157);
	assert_int_equal(scores.samples, 4); // 64, 64, 22 and 7 tokens
	assert_string_equal(scores.math, "exact");
	scores_close(&scores);
}

/* Scores of the cache as the source of a curve. */
static void check_source(struct scene *s)
{
	struct scores scores;
	struct importance_curve curve;
	struct error err = {0};
	golden_must(scores_open_named(&scores, "cache", s->g.model, &err), &err);
	struct importance_query query = {
		.axis = AXIS_MAMBA_HEADS, .layer = 0, .expert = -1, .scores = &scores};
	golden_must(importance_open(&curve, s->g.model, &query, &err), &err);
	assert_int_equal(curve.origin, ORIGIN_MEASURED);
	assert_int_equal(curve.n, 6);
	golden_close_to(&s->g, "heads", curve.score,
					golden_floats(&s->expected, "importance.0.mamba_num_heads", 6), 6, LIMIT);
	importance_close(&curve);
	scores_close(&scores);
}

/* By the recorded hash, and by shapes where none is recorded; both are named. */
static void check_foreign(struct scene *s, const char *measured)
{
	struct golden demo;
	struct scores scores;
	struct error err = {0};
	char *path = golden_path("nest-tiny/golden/importance.safetensors");
	golden_open(&demo, "demo", NULL, MATH_EXACT);
	assert_int_equal(scores_open(&scores, measured, demo.model, &err), -1);
	assert_non_null(strstr(err.text, s->g.model->hash));
	assert_non_null(strstr(err.text, demo.model->hash));
	assert_int_equal(scores_open(&scores, path, demo.model, &err), -1);
	assert_non_null(strstr(err.text, "importance.hidden_size is F32 [80], this checkpoint's is F32 "
									 "[128]"));
	free(path);
	golden_close(&demo);
}

static void every_score_is_right(void)
{
	struct scene s;
	struct calibration c;
	struct scores none;
	struct error err = {0};
	open_scene(&s);
	assert_int_equal(scores_open_named(&none, "cache", s.g.model, &err), -1);
	assert_non_null(strstr(err.text, "nothing was measured on nest-tiny"));
	golden_must(calibrate_run(&c, &s.plan, &err), &err);
	assert_false(c.from_cache);
	assert_int_equal(c.tokens, 157);
	assert_int_equal(s.calls, 4 * GROUPS);
	check_scores(&s, c.path);
	check_source(&s);
	check_foreign(&s, c.path);
	calibration_free(&c);
	s.calls = 0;
	golden_must(calibrate_run(&c, &s.plan, &err), &err);
	assert_true(c.from_cache);
	assert_int_equal(s.calls, 0);
	calibration_free(&c);
	golden_leave(&s.g, "importance");
	close_scene(&s);
}

/* In the middle of the second group; the seventh window is read again, what came before is not. */
static void a_stopped_run_goes_on(void)
{
	struct scene s;
	struct calibration c;
	struct error err = {0};
	open_scene(&s);
	s.stop_at = 7;
	assert_int_equal(calibrate_run(&c, &s.plan, &err), -1);
	assert_string_equal(err.text,
						"stopped after 307 of 471 tokens, 3 times 157; what was read is kept, "
						"the same command goes on");
	s.calls = s.stop_at = 0;
	golden_must(calibrate_run(&c, &s.plan, &err), &err);
	assert_int_equal(s.first, 157 + 64 + 64 + 22);
	assert_int_equal(s.calls, 6);
	check_scores(&s, c.path);
	calibration_free(&c);
	golden_leave(&s.g, "resumed");
	close_scene(&s);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"every_score_is_right", every_score_is_right},
		{"a_stopped_run_goes_on", a_stopped_run_goes_on},
	};
	return golden_main(tests, sizeof tests / sizeof *tests);
}
