#include "tests/tui/fixture.h"

static void place(char out[4096], const char *below)
{
	const char *tests = getenv("ELASTISCOPE_TESTS");
	assert_non_null(tests);
	snprintf(out, 4096, "%s/%s", tests, below);
}

void drain(struct fixture *f)
{
	for (const struct event *event; (event = engine_next(f->talk.engine));)
		talk_event(&f->talk, event);
}

/* folder below tests/; budgets: a file of that folder or NULL. */
void open_model(struct fixture *f, const char *folder, const char *budgets, bool lenient)
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

void close_model(struct fixture *f)
{
	struct engine *engine = f->talk.engine;
	talk_free(&f->talk);
	engine_close(engine);
	free(f->counts);
}

void open_screen(struct fixture *f, int rows, int columns, const char *theme)
{
	struct screen_options options = {.rows = rows, .columns = columns};
	options.no_color = strcmp(theme, "default") != 0;
	OK(screen_open(&f->screen, &options, &err));
	theme_init(&f->theme);
	f->theme.n_colors = f->screen.n_colors;
	f->theme.ascii = strcmp(theme, "ascii") == 0;
}

struct canvas canvas_of(struct fixture *f)
{
	return (struct canvas){f->screen.window, &f->theme, 0, 0, f->screen.rows, f->screen.columns};
}

void draw(struct fixture *f, struct pane *pane)
{
	struct canvas canvas = canvas_of(f);
	canvas_blank(&canvas, ROLE_TEXT);
	pane->table->draw(pane, &canvas);
}

/* Keys as a person types them, through the key table; `/word;` searches. */
void press(struct pane *pane, const char *keys)
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

void expect_pane(struct fixture *f, struct pane *pane, const struct look *look)
{
	struct text text = {0};
	open_screen(f, look->rows, look->columns, look->theme);
	draw(f, pane);
	press(pane, look->keys);
	draw(f, pane);
	if (pane->table->title)
		pane->table->title(pane, &text);
	text_add(&text, "\n");
	screen_text(&f->screen, &text);
	compare(&text, look->name);
	screen_close(&f->screen);
	theme_free(&f->theme);
	text_free(&text);
}

void expect(struct fixture *f, open_function *open, const struct look *looks, int n)
{
	for (int i = 0; i < n; i++) {
		struct error err = {0};
		struct pane *pane = open(&f->talk, &err);
		assert_non_null(pane);
		expect_pane(f, pane, &looks[i]);
		pane->table->close(pane);
	}
}
