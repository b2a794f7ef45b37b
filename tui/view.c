/* What is on the screen: the frame around the panes, the prompt, one doupdate() a frame. */
#define NCURSES_WIDECHAR 1
#include "base/clock.h"
#include "tui/cells.h"
#include "tui/pane_compare.h"
#include "tui/state.h"
#include "tui/status.h"
#include <ncurses.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define TITLE_COLUMNS 88 // all labels with blanks around them

static struct canvas canvas_of(struct app *app, const struct rect *rect)
{
	return (struct canvas){app->screen.window, &app->theme, rect->row,
						   rect->column,       rect->rows,  rect->columns};
}

struct pane *view_pane(struct app *app)
{
	return app->panes[app->view];
}

int view_show(struct app *app, const char *name, struct error *err)
{
	int i = pane_find(name);
	if (i < 0)
		return fail(err, "there is no view '%s'; Tab completes them", name);
	app->view = i;
	app->dirty = true;
	return 0;
}

int view_split(struct app *app, const char *name, struct error *err)
{
	int i = strcmp(name, "off") == 0 ? -1 : pane_find(name);
	if (i < 0 && strcmp(name, "off") != 0)
		return fail(err, "there is no view '%s' to split with", name);
	if (i == 0)
		return fail(err, "the chat cannot stand beside itself");
	app->split = i;
	app->split_chosen = true;
	app->dirty = true;
	if (i >= 0 && app->screen.columns < LAYOUT_SPLIT_COLUMNS)
		return fail(err, "%s will show at %d columns; the terminal has %d", panes[i].name,
					LAYOUT_SPLIT_COLUMNS, app->screen.columns);
	return 0;
}

int view_theme(struct app *app, const char *name, struct error *err)
{
	if (theme_load(&app->theme, name, err))
		return -1;
	app->theme.ascii |= app->screen.ascii;
	app->dirty = true;
	return 0;
}

void view_overlay(struct app *app, const char *title, const char *text)
{
	if (app->overlay.length == 0)
		app->overlay_from = app->focus;
	text_clear(&app->overlay);
	text_add(&app->overlay, text);
	snprintf(app->overlay_title, sizeof app->overlay_title, "%s", title);
	app->overlay_top = 0;
	app->overlay_hit = -1;
	app->focus = FOCUS_VIEW;
	app->dirty = true;
}

void view_overlay_close(struct app *app)
{
	text_clear(&app->overlay);
	app->focus = app->overlay_from;
	app->dirty = true;
}

static void draw_title(struct app *app)
{
	struct canvas canvas = canvas_of(app, &app->layout.title);
	struct text right = {0};
	struct pane *pane = view_pane(app);
	int at = 0;
	canvas_blank(&canvas, ROLE_TITLE);
	for (int i = 0; i < n_panes; i++) {
		enum role role = i == app->view ? ROLE_TITLE_ON : ROLE_TITLE;
		if (canvas.columns >= TITLE_COLUMNS || (canvas.columns < 72 && i == app->view))
			at += canvas_print(&canvas, 0, at, role, " %c %s ", panes[i].key, panes[i].label);
		else if (canvas.columns >= 72)
			at += canvas_print(&canvas, 0, at, role, " %c %s", panes[i].key, panes[i].label);
		else
			at += canvas_print(&canvas, 0, at, role, " %c ", panes[i].key);
	}
	if (pane->table->title)
		pane->table->title(pane, &right);
	if (app->talk.model && canvas.columns >= 60)
		text_format(&right, "%s%s", right.length ? "  " : "", app->talk.model->name);
	text_add(&right, " ");
	int room = canvas.columns - at - 1, width;
	if (room > 4) {
		size_t fits = cells_fit(text_chars(&right), right.length, room, &width);
		canvas_bytes(&canvas, 0, canvas.columns - width, ROLE_TITLE, text_chars(&right), fits);
	}
	text_free(&right);
}

/* Where a wrapped row of a list goes on: under its last column, if that leaves room. */
static int hanging_indent(const char *line, size_t length, int columns)
{
	int indent = 0;
	for (size_t i = 2; i < length && (int)i <= columns / 2; i++)
		if (line[i] != ' ' && line[i - 1] == ' ' && line[i - 2] == ' ')
			indent = (int)i;
	return indent > 0 ? indent : columns > 8 ? 4 : 0;
}

struct overlay_line {
	const char *bytes;
	size_t length;
	int indent;
};

/* Calls take for every wrapped line; returns how many there are. */
static int walk_overlay(const struct app *app, int columns,
						void (*take)(void *user, int i, const struct overlay_line *line),
						void *user)
{
	const char *text = text_chars(&app->overlay);
	size_t end = app->overlay.length, at = 0, next;
	int n = 0;
	while (at < end) { // a paragraph
		size_t length = strcspn(text + at, "\n");
		int indent = text[at] == ' ' ? hanging_indent(text + at, length, columns) : 0;
		struct overlay_line line = {.bytes = text + at};
		do {
			line.length = cells_wrap(text + at, end - at, columns - line.indent, &next);
			line.bytes = text + at;
			if (take)
				take(user, n, &line);
			n++;
			at += next;
			line.indent = indent;
		} while (at < end && text[at - 1] != '\n');
	}
	return n;
}

static int overlay_columns(const struct app *app)
{
	return app->layout.main.columns > 2 ? app->layout.main.columns - 1 : 2;
}

struct overlay_drawing {
	const struct app *app;
	const struct canvas *canvas;
};

static void draw_overlay_line(void *user, int i, const struct overlay_line *line)
{
	const struct overlay_drawing *drawing = user;
	int row = 1 + i - drawing->app->overlay_top;
	if (row >= 1 && row < drawing->canvas->rows)
		canvas_bytes(drawing->canvas, row, 1 + line->indent,
					 i == drawing->app->overlay_hit ? ROLE_MARK : ROLE_TEXT, line->bytes,
					 line->length);
}

static void draw_overlay(struct app *app, struct canvas *canvas)
{
	canvas_blank(canvas, ROLE_TEXT);
	canvas_print(canvas, 0, 0, ROLE_HEADING, " %s   (q closes, j k PgUp PgDn scroll, / searches)",
				 app->overlay_title);
	app->overlay_lines = walk_overlay(app, overlay_columns(app), draw_overlay_line,
									  &(struct overlay_drawing){app, canvas});
}

struct overlay_find {
	const char *wanted;
	int from, direction;
	int best, other; // the nearest hit in that direction; the one from the other end; -1 = none
};

static void find_overlay_line(void *user, int i, const struct overlay_line *line)
{
	struct overlay_find *find = user;
	size_t n = strlen(find->wanted);
	bool hit = false;
	for (size_t at = 0; !hit && at + n <= line->length; at++)
		hit = strncasecmp(line->bytes + at, find->wanted, n) == 0;
	if (!hit)
		return;
	bool ahead = find->direction > 0 ? i > find->from : i < find->from;
	if (ahead && (find->best < 0 || find->direction < 0))
		find->best = i;
	if (find->other < 0 || find->direction < 0)
		find->other = i;
}

void view_overlay_search(struct app *app, int direction)
{
	struct overlay_find find = {app->overlay_search, app->overlay_hit, direction, -1, -1};
	if (find.from < 0)
		find.from = app->overlay_top - (direction > 0);
	if (*find.wanted)
		walk_overlay(app, overlay_columns(app), find_overlay_line, &find);
	int rows = app->layout.main.rows - 1, last = app->overlay_lines - rows;
	app->overlay_hit = find.best >= 0 ? find.best : find.other;
	app->dirty = true;
	if (app->overlay_hit < 0) {
		talk_say(&app->talk, "not found: %s", find.wanted);
		return;
	}
	int top = app->overlay_hit - rows / 2;
	top = top > last ? last : top;
	app->overlay_top = top < 0 ? 0 : top;
}

static void draw_pane(struct app *app, struct pane *pane, const struct rect *rect)
{
	struct canvas canvas = canvas_of(app, rect);
	if (!pane || rect->rows < 1 || rect->columns < 1 || !(pane->dirty || app->dirty))
		return;
	canvas_blank(&canvas, ROLE_TEXT);
	pane->dirty = false;
	pane->table->draw(pane, &canvas);
	app->wanted |= pane->dirty; // it has more to do
}

static void draw_side(struct app *app)
{
	const struct rect *side = &app->layout.side;
	if (side->rows < 2 || app->split < 0 || app->split >= n_panes)
		return;
	struct canvas rule = canvas_of(app, &app->layout.rule);
	canvas_column_rule(&rule, 0, 0, rule.rows, ROLE_FRAME);
	struct rect head = {side->row, side->column, 1, side->columns};
	struct rect body = {side->row + 1, side->column, side->rows - 1, side->columns};
	struct canvas canvas = canvas_of(app, &head);
	struct pane *pane = app->panes[app->split];
	struct text text = {0};
	canvas_blank(&canvas, ROLE_TEXT);
	text_format(&text, " %s  ", panes[app->split].label);
	if (pane->table->title)
		pane->table->title(pane, &text);
	canvas_text(&canvas, 0, 0, ROLE_HEADING, text_chars(&text));
	text_free(&text);
	draw_pane(app, pane, &body);
}

static void progress_line(const struct talk *talk, struct text *out)
{
	if (talk->progress.what[0]) {
		progress_text(&talk->progress, out);
	} else if (talk->running && talk->gauges.prefilling && talk->gauges.prefill_total > 0) {
		text_format(out, "reading the prompt: %d of %d tokens (%d%%)", talk->gauges.prefill_done,
					talk->gauges.prefill_total,
					(int)((int64_t)talk->gauges.prefill_done * 100 / talk->gauges.prefill_total));
	}
}

/* What the notice says now, and how. */
static enum role notice_text(const struct app *app, struct text *out)
{
	if (app->asking) {
		text_add(out, "Quit? y = yes, any other key = no");
		return ROLE_WARN;
	}
	if (*line_matches()) {
		text_add(out, line_matches());
		return ROLE_NOTICE;
	}
	progress_line(&app->talk, out);
	if (out->length == 0)
		text_append(out, text_chars(&app->talk.notice), app->talk.notice.length);
	return strncmp(text_chars(out), "error: ", 7) == 0 ? ROLE_ERROR : ROLE_NOTICE;
}

static int count_lines(const struct text *text, int columns)
{
	int n = 0;
	for (size_t at = 0, next; at < text->length; at += next, n++)
		cells_wrap(text->data + at, text->length - at, columns, &next);
	return n;
}

static int notice_rows(const struct app *app)
{
	struct text text = {0};
	enum role role = notice_text(app, &text);
	int n = count_lines(&text, app->screen.columns);
	text_free(&text);
	return app->screen.rows >= 14 || role == ROLE_ERROR || *line_matches() ? n : 1;
}

static void draw_notice(struct app *app)
{
	struct canvas canvas = canvas_of(app, &app->layout.notice);
	struct text text = {0};
	enum role role = notice_text(app, &text);
	int n = count_lines(&text, canvas.columns), pages = (n + canvas.rows - 1) / canvas.rows;
	int skip = *line_matches() && pages > 1 ? app->matches_page % pages * canvas.rows : 0, row = 0;
	canvas_blank(&canvas, ROLE_TEXT);
	for (size_t at = 0, next; at < text.length && row < skip + canvas.rows; at += next, row++) {
		size_t length = cells_wrap(text.data + at, text.length - at, canvas.columns, &next);
		if (row >= skip)
			canvas_bytes(&canvas, row - skip, 0, role, text.data + at, length);
	}
	if (n > skip + canvas.rows)
		canvas_text(&canvas, canvas.rows - 1, canvas.columns - 1, role,
					canvas_glyph(&canvas, GLYPH_ELLIPSIS));
	text_free(&text);
}

static void draw_status(struct app *app)
{
	struct canvas canvas = canvas_of(app, &app->layout.status);
	struct text line = {0};
	canvas_blank(&canvas, ROLE_STATUS);
	if (app->no_log)
		text_add(&line, "NOT RECORDED | ");
	struct text rest = {0};
	bool comparing = pane_compare_running(app->panes[pane_find("compare")]);
	status_line(&app->talk, comparing, canvas.columns - (int)line.length, &rest);
	text_append(&line, text_chars(&rest), rest.length);
	canvas_bytes(&canvas, 0, 0, ROLE_STATUS, text_chars(&line), line.length);
	text_free(&rest);
	text_free(&line);
}

static const char *prompt_mark(const struct app *app)
{
	if (*line_message())
		return line_message();
	return app->prompt_mode == PROMPT_SEARCH ? "/" : "> ";
}

/* Walks the prompt's text as it is laid out in `columns`; calls put for every character if canvas
 * is given. Returns the rows; *row, *column = where the cursor stands. */
static int walk_prompt(const struct app *app, int columns, const struct canvas *canvas, int skip,
					   int *row, int *column)
{
	const char *text = line_text();
	size_t length = strlen(text), cursor = (size_t)line_cursor();
	int indent = canvas_width(prompt_mark(app), strlen(prompt_mark(app))), r = 0, c = indent;
	*row = r;
	*column = c;
	if (indent >= columns)
		indent = c = 0;
	for (size_t at = 0, used = 0; at < length; at += used) {
		uint32_t code;
		int width = cells_next(text + at, length - at, &used, &code);
		if (text[at] != '\n' && c + width > columns) {
			r++;
			c = indent;
		}
		if (at == cursor) {
			*row = r;
			*column = c;
		}
		if (text[at] == '\n') {
			r++;
			c = indent;
			continue;
		}
		if (canvas && r >= skip)
			canvas_bytes(canvas, r - skip, c, ROLE_INPUT, text + at, used);
		c += width;
	}
	if (cursor >= length) {
		if (c >= columns) {
			r++;
			c = indent;
		}
		*row = r;
		*column = c;
	}
	return r + 1;
}

static void draw_prompt(struct app *app)
{
	struct canvas canvas = canvas_of(app, &app->layout.prompt);
	int row, column;
	canvas_blank(&canvas, ROLE_TEXT);
	int rows = walk_prompt(app, canvas.columns, NULL, 0, &row, &column);
	int skip = rows > canvas.rows ? rows - canvas.rows : 0;
	if (row < skip)
		skip = row;
	if (skip == 0)
		canvas_text(&canvas, 0, 0, ROLE_PROMPT, prompt_mark(app));
	if (app->focus == FOCUS_VIEW && line_is_empty())
		canvas_text(&canvas, 0, 2, ROLE_DIM, "i types, : commands, ? help, Tab next view, q back");
	else
		walk_prompt(app, canvas.columns, &canvas, skip, &row, &column);
	curs_set(app->focus == FOCUS_PROMPT && !app->asking ? 1 : 0);
	wmove(app->screen.window, canvas.top + row - skip, canvas.left + column);
}

static void make_layout(struct app *app)
{
	struct layout now;
	int row, column;
	int side = app->view == 0 ? app->split : -1;
	struct layout_wish wish = {
		.prompt_rows = walk_prompt(app, app->screen.columns, NULL, 0, &row, &column),
		.notice_rows = notice_rows(app),
		.chat = app->view == 0,
		.split = side > 0 && side < n_panes && app->overlay.length == 0 &&
				 (app->split_chosen || app->talk.transcript.n_entries > 0),
		.maximised = app->maximised,
	};
	layout_make(app->screen.rows, app->screen.columns, &wish, &now);
	if (memcmp(&now, &app->layout, sizeof now) != 0) {
		app->layout = now;
		app->dirty = true;
	}
}

static void draw_too_small(struct app *app)
{
	struct canvas canvas = canvas_of(app, &app->layout.main);
	canvas_blank(&canvas, ROLE_TEXT);
	canvas_print(&canvas, 0, 0, ROLE_TEXT, "needs %dx%d, has %dx%d", LAYOUT_MIN_COLUMNS,
				 LAYOUT_MIN_ROWS, app->screen.columns, app->screen.rows);
	if (app->talk.running)
		canvas_print(&canvas, 1, 0, ROLE_TEXT, "still writing: %d tokens",
					 app->talk.reply.completion_tokens);
}

static void take_messages(struct app *app)
{
	for (int i = 0; i < n_panes; i++)
		if (app->panes[i] && app->panes[i]->message[0]) {
			talk_say(&app->talk, "%s", app->panes[i]->message);
			app->panes[i]->message[0] = 0;
			app->wanted = true; // it may need more rows than the notice has in this frame
		}
}

static void draw_all(struct app *app)
{
	make_layout(app);
	if (app->layout.too_small) {
		draw_too_small(app);
		return;
	}
	draw_title(app);
	if (app->overlay.length > 0) {
		struct canvas canvas = canvas_of(app, &app->layout.main);
		draw_overlay(app, &canvas);
	} else {
		draw_pane(app, view_pane(app), &app->layout.main);
	}
	draw_side(app);
	take_messages(app);
	if (app->layout.strip.rows > 0) {
		struct canvas canvas = canvas_of(app, &app->layout.strip);
		canvas_blank(&canvas, ROLE_TEXT);
		status_strip(&app->talk, &canvas);
	}
	if (app->layout.gauges.rows > 0) {
		struct canvas canvas = canvas_of(app, &app->layout.gauges);
		canvas_blank(&canvas, ROLE_TEXT);
		status_gauges(&app->talk, &canvas);
	}
	draw_status(app);
	draw_notice(app);
	draw_prompt(app);
}

void view_draw(struct app *app)
{
	uint64_t before = clock_ns();
	if (app->talk.engine)
		talk_gauges(&app->talk);
	app->talk.beside = pane_compare_memory(app->panes[pane_find("compare")]);
	app->wanted = false;
	draw_all(app);
	app->dirty = app->urgent = false;
	wnoutrefresh(app->screen.window);
	doupdate();
	app->last_frame_ns = clock_ns();
	app->draw_ns += app->last_frame_ns - before;
	app->n_frames++;
	if (app->answered) {
		app->waited_ns[1] = app->last_frame_ns - app->entered_ns;
		if (!app->waited_ns[0])
			app->waited_ns[0] = app->waited_ns[1];
		app->entered_ns = 0;
		app->answered = false;
	}
}

void view_redraw(struct app *app)
{
	clearok(curscr, TRUE);
	app->dirty = app->urgent = true;
}

void view_resize(struct app *app, int rows, int columns)
{
	screen_resize(&app->screen, rows, columns);
	app->dirty = app->urgent = true;
}

void view_text(struct app *app, struct text *out)
{
	view_draw(app);
	screen_text(&app->screen, out);
}
