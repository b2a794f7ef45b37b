/*
 * Every pane that looks into a model, drawn without a terminal at several sizes and compared with
 * tests/tui/screens/. Events, counts and memory come from the scripted engine, so all numbers are
 * exact. ELASTISCOPE_SAVE_SCREENS=1 writes the screens anew (look at the difference before it is
 * committed).
 */
#include "base/file.h"
#include "core/model.h"
#include "tests/engine/script.h"
#include "tui/pane.h"
#include "tui/screen.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
// cmocka needs those above
#include <cmocka.h>

struct fixture {
	struct script *script;
	struct talk talk;
	struct screen screen;
	struct theme theme;
	uint32_t *counts;
};

#define OK(call)                                                                                   \
	do {                                                                                           \
		struct error err = {0};                                                                    \
		if ((call) < 0)                                                                            \
			fail_msg("%s", err.text);                                                              \
	} while (0)

static void place(char out[4096], const char *below)
{
	const char *tests = getenv("ELASTISCOPE_TESTS");
	assert_non_null(tests);
	snprintf(out, 4096, "%s/%s", tests, below);
}

static void drain(struct fixture *f)
{
	for (const struct event *event; (event = engine_next(f->talk.engine));)
		talk_event(&f->talk, event);
}

/* folder below tests/; budgets: a file of that folder or NULL. */
static void open_model(struct fixture *f, const char *folder, const char *budgets, bool lenient)
{
	char path[4096], file[8192];
	struct error err = {0};
	place(path, folder);
	snprintf(file, sizeof file, "%s/%s", path, budgets ? budgets : "");
	struct model_options options = {budgets ? file : NULL, lenient};
	struct model *model = model_open(path, &options, &err);
	if (!model)
		fail_msg("%s", err.text);
	memset(f, 0, sizeof *f);
	f->script = script_open(&err);
	assert_non_null(f->script);
	talk_init(&f->talk, &f->script->engine);
	script_opened(f->script, 0, model, 2048);
	drain(f);
	model_release(model); // the talk holds it
}

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

static void close_model(struct fixture *f)
{
	struct engine *engine = f->talk.engine;
	talk_free(&f->talk);
	engine_close(engine);
	free(f->counts);
}

static void open_screen(struct fixture *f, int rows, int columns, const char *theme)
{
	struct screen_options options = {.rows = rows, .columns = columns};
	options.no_color = strcmp(theme, "default") != 0;
	OK(screen_open(&f->screen, &options, &err));
	theme_init(&f->theme);
	f->theme.n_colors = f->screen.n_colors;
	f->theme.ascii = strcmp(theme, "ascii") == 0;
}

static struct canvas canvas_of(struct fixture *f)
{
	return (struct canvas){f->screen.window, &f->theme, 0, 0, f->screen.rows, f->screen.columns};
}

static void draw(struct fixture *f, struct pane *pane)
{
	struct canvas canvas = canvas_of(f);
	canvas_blank(&canvas, ROLE_TEXT);
	pane->table->draw(pane, &canvas);
}

/* Keys as a person types them, through the key table; `/word;` searches. */
static void press(struct pane *pane, const char *keys)
{
	struct keymap map;
	keymap_init(&map);
	for (; *keys; keys++) {
		if (*keys == '/') {
			size_t length = strcspn(++keys, ";");
			snprintf(pane->search, sizeof pane->search, "%.*s", (int)length, keys);
			keys += length;
			pane->table->action(pane, ACTION_SEARCH, '/');
			continue;
		}
		enum action action = keymap_find(&map, *keys, IN_VIEW);
		pane->table->action(pane, action, *keys);
	}
}

static void compare(const struct text *got, const char *name)
{
	char below[256], path[4096];
	struct text wanted = {0};
	snprintf(below, sizeof below, "tui/screens/%s.txt", name);
	place(path, below);
	if (getenv("ELASTISCOPE_SAVE_SCREENS")) {
		FILE *file = fopen(path, "w");
		assert_non_null(file);
		fwrite(got->data, 1, got->length, file);
		fclose(file);
		return;
	}
	OK(file_read(path, 1 << 20, &wanted, &err));
	if (strcmp(text_chars(got), text_chars(&wanted)) != 0)
		fail_msg("%s: wanted\n%s\ngot\n%s", name, text_chars(&wanted), text_chars(got));
	text_free(&wanted);
}

struct look { // one screen
	const char *name;
	int rows, columns;
	const char *theme, *keys;
};

typedef struct pane *open_function(const struct talk *, struct error *);

static void expect(struct fixture *f, open_function *open, const struct look *looks, int n)
{
	for (int i = 0; i < n; i++) {
		struct error err = {0};
		struct text text = {0};
		struct pane *pane = open(&f->talk, &err);
		assert_non_null(pane);
		open_screen(f, looks[i].rows, looks[i].columns, looks[i].theme);
		draw(f, pane);
		press(pane, looks[i].keys);
		draw(f, pane);
		if (pane->table->title)
			pane->table->title(pane, &text);
		text_add(&text, "\n");
		screen_text(&f->screen, &text);
		compare(&text, looks[i].name);
		screen_close(&f->screen);
		theme_free(&f->theme);
		pane->table->close(pane);
		text_free(&text);
	}
}

#define EXPECT(f, open, looks) expect(f, open, looks, (int)(sizeof looks / sizeof *looks))

static void test_nesting(void **state)
{
	(void)state;
	static const struct look demo[] = {
		{"nesting-80x20", 20, 80, "default", "jjjj"},
		{"nesting-120x36", 36, 120, "default", ""},
		{"nesting-50x20", 20, 50, "default", "s/shared;"},
		{"nesting-40x6", 6, 40, "ascii", "G"},
	};
	static const struct look tiny[] = {{"nesting-hetero", 30, 100, "default", "/layer 2;"}};
	static const struct look broken[] = {
		{"nesting-broken", 20, 80, "ascii", "/n_routed;"},
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_nesting),
		cmocka_unit_test(test_importance),
		cmocka_unit_test(test_router),
		cmocka_unit_test(test_experts),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
