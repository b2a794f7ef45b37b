/*
 * Every pane that looks into a model, drawn without a terminal at several sizes and compared with
 * tests/tui/screens/. Events, counts and memory come from the scripted engine, so all numbers are
 * exact. ELASTISCOPE_SAVE_SCREENS=1 writes the screens anew (look at the difference before it is
 * committed).
 */
#include "tests/tui/fixture.h"

/* Counts that any reader can check: (expert + layer) % 5 in the prefill, expert when thinking, 1 in
 * answers, none beyond the first `n` experts. */
static void count_experts(struct fixture *f, int n)
{
	const struct config *config = &f->talk.model->config;
	struct expert_counts *experts = &f->script->experts;
	experts->n_layers = config->n_layers;
	experts->n_experts = config->n_routed_experts;
	size_t size = (size_t)N_PHASES * (size_t)experts->n_layers * (size_t)experts->n_experts;
	free(f->counts);
	experts->counts = f->counts = calloc(size, sizeof *f->counts);
	assert_non_null(f->counts);
	experts->version++;
	for (int phase = 0; phase < N_PHASES; phase++)
		for (int layer = 0; layer < experts->n_layers; layer++)
			for (int e = 0; e < n && config->kinds[layer] == LAYER_MOE; e++)
				f->counts[(phase * experts->n_layers + layer) * experts->n_experts + e] =
					phase == PHASE_PREFILL ? (uint32_t)((e + layer) % 5)
					: phase == PHASE_THINK ? (uint32_t)e
										   : 1;
}

static void test_nesting(void **state)
{
	(void)state;
	static const struct look demo[] = {
		{"nesting-80x20", 20, 80, "default", "jjjj"},
		{"nesting-120x36", 36, 120, "default", ""},
		{"nesting-50x20", 20, 50, "default", "s/shared;"},
		{"nesting-40x9", 9, 40, "default", "j"},
		{"nesting-40x6", 6, 40, "ascii", "G"},
	};
	static const struct look tiny[] = {{"nesting-hetero", 30, 100, "default", "/layer 2;"}};
	static const struct look broken[] = {
		{"nesting-broken", 20, 80, "ascii", "/n_routed;"},
		{"nesting-broken-next", 16, 80, "ascii", "n"},
		{"nesting-violations", 20, 80, "default", "v"},
	};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	EXPECT(&f, pane_nesting_open, demo);
	close_model(&f);
	open_model(&f, "golden/nest-tiny", "elastic-allaxes.json", false);
	EXPECT(&f, pane_nesting_open, tiny);
	close_model(&f);
	open_model(&f, "golden/nest-tiny", "../../tui/broken.json", true);
	EXPECT(&f, pane_nesting_open, broken);
	close_model(&f);
	static const struct look formats[] = {
		{"nesting-formats", 24, 80, "default", "f"},
		{"nesting-formats-end", 12, 120, "default", "fG"},
	};
	open_model(&f, "golden/quantised/nest-tiny-nvfp4", NULL, false);
	EXPECT(&f, pane_nesting_open, formats);
	close_model(&f);
}

static void test_importance(void **state)
{
	(void)state;
	static const struct look demo[] = {
		{"importance-80x20", 20, 80, "default", "jj"},
		{"importance-120x36", 36, 120, "default", "/layer 4;c"},
		{"importance-50x20", 20, 50, "mono", ""},
		{"importance-map", 20, 80, "ascii", "jjv"},
		{"importance-table", 20, 80, "default", "jjlss"},
		{"importance-heads", 20, 80, "default", "j"},
		{"importance-layers", 20, 80, "default", "l"},
		{"importance-40x6", 6, 40, "ascii", "j"},
	};
	static const struct look tiny[] = {
		{"importance-derived", 20, 80, "default", "/layer 4;llm"},
		{"importance-unknown", 20, 80, "default", "l"},
	};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	EXPECT(&f, pane_importance_open, demo);
	close_model(&f);
	open_model(&f, "golden/nest-tiny", "elastic-allaxes.json", false);
	EXPECT(&f, pane_importance_open, tiny);
	close_model(&f);
}

static void test_router(void **state)
{
	(void)state;
	static const struct look demo[] = {
		{"router-80x20", 20, 80, "default", "j"},
		{"router-120x36", 36, 120, "default", "s/medium;>>>>{{"},
		{"router-50x20", 20, 50, "mono", "G"},
		{"router-40x6", 6, 40, "ascii", "jj"},
	};
	static const struct look tiny[] = {{"router-hetero", 30, 80, "default", "sssj"}};
	static const struct look none[] = {{"router-none", 6, 80, "default", "j<"}};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	EXPECT(&f, pane_router_open, demo);
	close_model(&f);
	open_model(&f, "golden/nest-tiny", NULL, false);
	EXPECT(&f, pane_router_open, tiny);
	close_model(&f);
	open_model(&f, "golden/nest-tiny", "elastic-allaxes.json", false);
	EXPECT(&f, pane_router_open, none);
	close_model(&f);
}

static void choose(struct fixture *f, const char *budget)
{
	strcpy(f->talk.settings.budget, budget);
	f->talk.settings.policy = false;
}

static void test_experts(void **state)
{
	(void)state;
	static const struct look demo[] = {
		{"experts-80x20", 20, 80, "default", "j"},
		{"experts-120x36", 36, 120, "default", "Tss"},
		{"experts-50x20", 20, 50, "mono", "PG"},
		{"experts-40x6", 6, 40, "ascii", "A"},
	};
	static const struct look fresh[] = {{"experts-fresh", 20, 80, "default", ""}};
	static const struct look tiny[] = {{"experts-hetero", 20, 80, "ascii", "j"}};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	choose(&f, "small");
	EXPECT(&f, pane_experts_open, fresh);
	count_experts(&f, 10); // two of them outside small
	EXPECT(&f, pane_experts_open, demo);
	close_model(&f);
	open_model(&f, "golden/nest-tiny", "elastic-allaxes.json", false);
	choose(&f, "hetero");
	count_experts(&f, 7);
	EXPECT(&f, pane_experts_open, tiny);
	close_model(&f);
}

/* A turn: 28 tokens read, 8 thoughts of small at 2 ms, 12 of an answer of large at 4 ms; large
 * loses half its speed on the way. */
static void play_turn(struct fixture *f)
{
	struct turn_settings settings = f->talk.settings;
	double at = 100;
	script_turn(f->script, at, &settings);
	script_prefill(f->script, at += 5, 28, 0, "small", 5000000);
	script_token(f->script, at += 1, "small", PHASE_THINK, "a", 0);
	for (int i = 0; i < 7; i++)
		script_token(f->script, at += 125, "small", PHASE_THINK, "b", 2000000);
	script_switch(f->script, at += 1, "small", "large", HANDOFF_CARRY, SWITCH_PHASE, 1000);
	for (int i = 0; i < 12; i++)
		script_token(f->script, at += 125, "large", PHASE_ANSWER, "c", i < 6 ? 4000000 : 8000000);
	struct event event = {.type = EV_MEMORY, .at_ns = (uint64_t)(at * 1e6)};
	event.memory = (struct memory_use){4700000, 4700000, 1048576,  36864, 131072,
									   524288,  3000000, 40000000, 0,     1828000};
	script_event(f->script, &event);
	script_stop(f->script, at + 1, STOP_EOS);
	f->script->gauges.context_used = 48;
	f->script->gauges.context_size = 2048;
	drain(f);
	talk_gauges(&f->talk);
}

static void test_metrics(void **state)
{
	(void)state;
	static const struct look demo[] = {
		{"metrics-80x20", 20, 80, "default", ""},
		{"metrics-80x20-end", 20, 80, "default", "G"},
		{"metrics-120x36", 36, 120, "default", "ss"},
		{"metrics-50x20", 20, 50, "mono", "jjjjjjjjjjjjj"},
		{"metrics-40x6", 6, 40, "ascii", ""},
	};
	static const struct look fresh[] = {{"metrics-fresh", 11, 80, "default", ""}};
	struct fixture f;
	open_model(&f, "../demo", NULL, false);
	choose(&f, "large");
	EXPECT(&f, pane_metrics_open, fresh);
	f.talk.pace = 8;
	play_turn(&f);
	EXPECT(&f, pane_metrics_open, demo);
	close_model(&f);
}

/* Whatever the size and the key, a pane draws inside its canvas and finds its way. */
static void test_any_size(void **state)
{
	(void)state;
	static open_function *const opens[] = {
		pane_nesting_open, pane_importance_open, pane_router_open, pane_experts_open,
		pane_metrics_open, pane_compare_open,    pane_tokens_open};
	static const int sizes[][2] = {{1, 1},  {1, 80},  {2, 3},   {3, 20},  {5, 9},
								   {7, 44}, {13, 31}, {24, 12}, {40, 39}, {60, 250}};
	static const char *const models[][2] = {{"../demo", NULL},
											{"golden/nest-tiny", NULL},
											{"golden/nest-tiny", "elastic-allaxes.json"},
											{"golden/nest-tiny", "../../tui/broken.json"}};
	for (size_t k = 0; k < sizeof models / sizeof *models; k++) {
		struct fixture f;
		open_model(&f, models[k][0], models[k][1], true);
		count_experts(&f, 5);
		play_turn(&f);
		for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
			open_screen(&f, 62, 252, i % 2 ? "default" : "ascii");
			for (size_t j = 0; j < sizeof opens / sizeof *opens; j++) {
				struct error err = {0};
				struct pane *pane = opens[j](&f.talk, &err);
				assert_non_null(pane);
				struct canvas whole = canvas_of(&f);
				struct canvas canvas = canvas_part(&whole, 1, 1, sizes[i][0], sizes[i][1]);
				canvas_blank(&whole, ROLE_TEXT);
				for (const char *key = "jjkGgllhhvjGvsjssslvmmceEeJJK<>{}=fTPDALG/e;n"; *key;
					 key++) {
					char one[2] = {*key};
					press(pane, *key == '/' ? "/e;" : one);
					canvas_blank(&canvas, ROLE_TEXT);
					pane->table->draw(pane, &canvas);
				}
				struct text text = {0};
				screen_text(&f.screen, &text);
				const char *line = text_chars(&text);
				for (int row = 0; row < sizes[i][0] + 2; row++, line += strcspn(line, "\n") + 1) {
					bool inside = row > 0 && row <= sizes[i][0];
					int width = canvas_width(line, strcspn(line, "\n"));
					assert_true(width <= (inside ? sizes[i][1] + 1 : 0));
					assert_true(width == 0 || line[0] == ' ');
				}
				text_free(&text);
				pane->table->close(pane);
			}
			screen_close(&f.screen);
			theme_free(&f.theme);
		}
		close_model(&f);
	}
}

/* Without a model every pane says so, and takes no key amiss. */
static void test_no_model(void **state)
{
	(void)state;
	static open_function *const opens[] = {
		pane_nesting_open, pane_importance_open, pane_router_open, pane_experts_open,
		pane_metrics_open, pane_compare_open,    pane_tokens_open};
	struct error err = {0};
	struct fixture f = {.script = script_open(&err)};
	assert_non_null(f.script);
	talk_init(&f.talk, &f.script->engine);
	open_screen(&f, 10, 60, "default");
	for (size_t j = 0; j < sizeof opens / sizeof *opens; j++) {
		struct pane *pane = opens[j](&f.talk, &err);
		struct text text = {0};
		assert_non_null(pane);
		press(pane, "jGlsvmf<Je");
		draw(&f, pane);
		pane->table->title(pane, &text);
		screen_text(&f.screen, &text);
		assert_non_null(strstr(text_chars(&text), "No model is open"));
		text_free(&text);
		pane->table->close(pane);
	}
	screen_close(&f.screen);
	theme_free(&f.theme);
	close_model(&f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nesting),  cmocka_unit_test(test_importance),
		cmocka_unit_test(test_router),   cmocka_unit_test(test_experts),
		cmocka_unit_test(test_metrics),  cmocka_unit_test(test_any_size),
		cmocka_unit_test(test_no_model),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
