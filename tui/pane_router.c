/*
 * Router: what the trained router says for every budget, axis and layer, at a temperature and a
 * scaler that the user may turn, and where that is not what the budget keeps. For a target between
 * the budgets: what it mixes, the staircase of widths, and the target taken as a budget.
 */
#include "tui/pane_router.h"
#include "base/memory.h"
#include "core/router.h"
#include "tui/look.h"
#include "tui/stairs_view.h"
#include "tui/table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum router_sort { BY_AXIS, BY_BUDGET, BY_MARGIN, BY_DISAGREE, N_ROUTER_SORTS };
static const char *const sort_names[] = {"axis", "budget", "smallest margin", "disagreement"};

struct item { // a line of the table
	int axis, row;
};

struct pane_router {
	struct pane pane;
	struct router_view view;
	struct router_options options;
	bool ready;
	struct error error;
	struct item *items;
	int n_items;
	enum router_sort sort;
	struct list list;
	int body_rows;
	bool stairs_shown;
	struct stairs_view stairs;
	struct text note; // what the target chose
};

static void forget(struct pane_router *r)
{
	router_close(&r->view);
	r->view = (struct router_view){0};
	free(r->items);
	r->items = NULL;
	r->n_items = 0;
	r->ready = false;
	r->error = (struct error){0};
	text_clear(&r->note);
}

static const struct router_row *row_of(const struct pane_router *r, const struct item *item)
{
	return &r->view.axes[item->axis].rows[item->row];
}

static bool before(const struct pane_router *r, const struct item *a, const struct item *b)
{
	const struct router_row *x = row_of(r, a), *y = row_of(r, b);
	if (r->sort == BY_BUDGET && x->budget != y->budget)
		return x->budget < y->budget;
	if (r->sort == BY_MARGIN && (x->margin < y->margin || x->margin > y->margin))
		return x->margin < y->margin;
	if (r->sort == BY_DISAGREE && x->disagree != y->disagree)
		return x->disagree;
	return a->axis != b->axis ? a->axis < b->axis : a->row < b->row;
}

static void sort(struct pane_router *r)
{
	for (int i = 1; i < r->n_items; i++) {
		struct item item = r->items[i];
		int at = i;
		for (; at > 0 && before(r, &item, &r->items[at - 1]); at--)
			r->items[at] = r->items[at - 1];
		r->items[at] = item;
	}
}

/* What the target chose, as a line. */
static int note_target(struct pane_router *r, struct error *err)
{
	const struct model *model = r->pane.talk->model;
	const struct target *target = &r->stairs.target;
	struct budget budget = {0};
	char name[64];
	snprintf(name, sizeof name, "%s=%.10g", target->metric, target->value);
	if (target_budget(model, target, name, &budget, err))
		return -1;
	int status = target_note(model, &budget, &r->note, err);
	budget_free(&budget);
	return status;
}

static int open_view(struct pane_router *r, struct error *err)
{
	const struct model *model = r->pane.talk->model;
	const struct target *target = &r->stairs.target;
	if (!*target->metric)
		return router_open(&r->view, model, &r->options, err);
	if (note_target(r, err))
		return -1;
	return model->router.n_tensors > 0 ? router_open_target(&r->view, model, target->metric,
															target->value, &r->options, err)
									   : router_open(&r->view, model, &r->options, err);
}

static int load(struct pane_router *r, struct error *err)
{
	if (open_view(r, err))
		return -1;
	size_t n = 0;
	for (int a = 0; a < r->view.n_axes; a++)
		n += (size_t)r->view.axes[a].n_rows;
	r->items = mem_new(n, sizeof *r->items, err);
	if (!r->items)
		return -1;
	for (int a = 0; a < r->view.n_axes; a++)
		for (int i = 0; i < r->view.axes[a].n_rows; i++)
			r->items[r->n_items++] = (struct item){a, i};
	sort(r);
	return 0;
}

static void refresh(struct pane_router *r)
{
	if (r->ready)
		return;
	forget(r);
	if (load(r, &r->error)) {
		struct error error = r->error;
		forget(r);
		r->error = error;
	}
	r->ready = true;
}

static const char *axis_label(const struct router_axis *axis)
{
	return axis_short(axis->layers ? N_AXES : axis->axis);
}

static struct number budget_of(const struct pane_router *r, const struct router_row *row,
							   int columns)
{
	const struct elastic *elastic = &r->pane.talk->model->elastic;
	return budget_label(elastic, row->budget,
						row->budget < 0 ? "mix" : elastic->budgets[row->budget].name, columns);
}

static int draw_head(const struct pane_router *r, const struct canvas *canvas)
{
	const struct elastic *elastic = &r->pane.talk->model->elastic;
	int at = canvas_print(canvas, 0, 0, ROLE_TEXT, "tau %.3g%s  scaler %.3g%s", (double)r->view.tau,
						  r->options.tau > 0 ? "*" : "", (double)r->view.scaler,
						  r->options.scaler > 0 ? "*" : "");
	if (*r->stairs.target.metric)
		at += canvas_print(canvas, 0, at, ROLE_TEXT, "  a mix of its neighbours");
	else if (r->view.n_disagree > 0)
		at += canvas_print(canvas, 0, at, ROLE_WARN, "  %s %d DISAGREE",
						   canvas_glyph(canvas, GLYPH_CROSS), r->view.n_disagree);
	else
		at += canvas_print(canvas, 0, at, ROLE_GOOD, "  %s %s", canvas_glyph(canvas, GLYPH_CHECK),
						   canvas->columns >= 50 ? "agrees with all budgets" : "agrees");
	char from[128];
	snprintf(from, sizeof from, "  file %s, rest derived", elastic->router_file);
	if (at + canvas_width(from, strlen(from)) <= canvas->columns)
		canvas_text(canvas, 0, at, ROLE_DIM, from);
	else
		canvas_text(canvas, 0, at, ROLE_DIM, at + 6 <= canvas->columns ? "  file" : "");
	return 1;
}

static void draw_line(const struct pane_router *r, const struct table *table,
					  const struct canvas *canvas, int row, int line)
{
	const struct item *item = &r->items[line];
	const struct router_axis *axis = r->view.axes[item->axis].axis;
	const struct router_row *it = row_of(r, item);
	bool on = line == r->list.cursor;
	char text[64];
	if (on)
		canvas_text(canvas, row, 0, ROLE_MARK, canvas_glyph(canvas, GLYPH_FOLDED));
	table_cell(table, canvas, row, 0, on ? ROLE_MARK : ROLE_TEXT, axis_label(axis));
	if (it->layer < 0)
		snprintf(text, sizeof text, "all");
	else
		snprintf(text, sizeof text, "%d", it->layer);
	table_cell(table, canvas, row, 1, ROLE_TEXT, text);
	table_cell(table, canvas, row, 2, role_of_budget(it->budget), budget_of(r, it, 10).text);
	snprintf(text, sizeof text, "%d", it->width);
	table_cell(table, canvas, row, 3, ROLE_TEXT, text);
	snprintf(text, sizeof text, "%d", it->budget_width);
	table_cell(table, canvas, row, 4, ROLE_TEXT, it->budget_width > 0 ? text : "-");
	table_cell(table, canvas, row, 5, ROLE_TEXT,
			   it->runner_up < 0 ? "N/A" : number_fixed(it->margin, 2).text);
	table_cell(table, canvas, row, 6, ROLE_TEXT,
			   number_fixed((double)it->probabilities[it->chosen], 3).text);
	table_cell(table, canvas, row, 7, ROLE_TEXT,
			   number_fixed((double)it->p_choice[it->chosen], 3).text);
	if (it->disagree)
		table_cell(table, canvas, row, 8, ROLE_WARN, "DISAGREE");
	else
		table_cell(table, canvas, row, 8, ROLE_DIM,
				   it->budget < 0         ? ""
				   : it->budget_width > 0 ? "agrees"
										  : "left out");
}

static void draw_table(struct pane_router *r, const struct canvas *canvas)
{
	struct table table = {0};
	table_add(&table, "axis", -11, 0);
	table_add(&table, "layer", 5, 4);
	table_add(&table, "budget", -10, 0);
	table_add(&table, "router", 6, 0);
	table_add(&table, "keeps", 6, 1);
	table_add(&table, "margin", 7, 2);
	table_add(&table, "p(tau)", 6, 5);
	table_add(&table, "P(choice)", 9, 3);
	table_add(&table, "", canvas->columns < 40 ? -1 : -8, 0);
	static const int sorted[] = {0, 2, 5, 8};
	table_lay(&table, 1, canvas->columns - 1);
	table_head(&table, canvas, 0, sorted[r->sort]);
	r->body_rows = canvas->rows > 1 ? canvas->rows - 1 : 1;
	list_show(&r->list, r->n_items, r->body_rows);
	for (int row = 1; row < canvas->rows && r->list.top + row - 1 < r->n_items; row++)
		draw_line(r, &table, canvas, row, r->list.top + row - 1);
}

/* One choice: logit, probability at tau, P(choice). */
static void draw_choice(const struct pane_router *r, const struct table *table,
						const struct canvas *canvas, int row, int choice)
{
	const struct item *item = &r->items[r->list.cursor];
	const struct router_axis *axis = r->view.axes[item->axis].axis;
	const struct router_row *it = row_of(r, item);
	bool chosen = choice == it->chosen, own = axis->choices[choice] == it->budget_width;
	enum role role = chosen ? role_of_budget(it->budget) : ROLE_TEXT;
	char text[64];
	snprintf(text, sizeof text, "%d", axis->choices[choice]);
	table_cell(table, canvas, row, 0, role, text);
	table_cell(table, canvas, row, 1, ROLE_TEXT, number_fixed((double)it->logits[choice], 2).text);
	table_cell(table, canvas, row, 2, ROLE_TEXT,
			   number_fixed((double)it->probabilities[choice], 3).text);
	table_bar(table, canvas, row, 3, role, (double)it->probabilities[choice]);
	table_cell(table, canvas, row, 4, ROLE_TEXT,
			   number_fixed((double)it->p_choice[choice], 3).text);
	table_bar(table, canvas, row, 5, role, (double)it->p_choice[choice]);
	table_cell(table, canvas, row, 6, chosen && !own && it->disagree ? ROLE_WARN : ROLE_TEXT,
			   chosen && own                    ? "chosen, budget's"
			   : chosen                         ? "chosen"
			   : choice == it->runner_up && own ? "runner-up, budget's"
			   : choice == it->runner_up        ? "runner-up"
			   : own                            ? "budget's"
												: "");
}

/* The channels that the chosen width keeps, '#' or a block each, '.' for the others. */
static void draw_mask(const struct pane_router *r, const struct canvas *canvas, int row)
{
	const struct config *config = &r->pane.talk->model->config;
	const struct item *item = &r->items[r->list.cursor];
	const struct router_axis *axis = r->view.axes[item->axis].axis;
	const struct router_row *it = row_of(r, item);
	if (axis->layers) {
		canvas_print(canvas, row, 0, ROLE_TEXT, " mask: the %d most important of %d layers",
					 it->width, config->n_layers);
		return;
	}
	int parent = axis_parent_width(axis->axis, config), groups = axis_groups(axis->axis, config);
	int at = canvas_print(canvas, row, 0, ROLE_TEXT, " mask %4d/%-4d ", it->width, parent);
	int columns = canvas->columns - at < parent ? canvas->columns - at : parent;
	int per_group = parent / groups, kept = it->width / groups;
	for (int c = 0; c < columns; c++) {
		int channel = (int)(((int64_t)c * 2 + 1) * parent / (2 * columns));
		bool on = channel % per_group < kept;
		canvas_text(canvas, row, at + c, on ? role_of_budget(it->budget) : ROLE_DIM,
					!on                    ? canvas_glyph(canvas, GLYPH_DOT)
					: canvas->theme->ascii ? "#"
										   : "█");
	}
}

static void draw_detail(const struct pane_router *r, const struct canvas *canvas)
{
	const struct item *item = &r->items[r->list.cursor];
	const struct router_axis *axis = r->view.axes[item->axis].axis;
	const struct router_row *it = row_of(r, item);
	struct table table = {0};
	int bar = canvas->columns >= 100 ? -20 : -8;
	canvas_rule(canvas, 0, 0, canvas->columns, ROLE_FRAME);
	int at = canvas_print(canvas, 1, 0, ROLE_HEADING, "%s, %s", router_axis_name(axis),
						  it->budget < 0 ? "mix"
										 : r->pane.talk->model->elastic.budgets[it->budget].name);
	if (it->layer >= 0)
		at += canvas_print(canvas, 1, at, ROLE_HEADING, ", layer %d", it->layer);
	if (axis->normalize)
		canvas_text(canvas, 1, at, ROLE_DIM, "  (logits normalised)");
	table_add(&table, "choice", 7, 0);
	table_add(&table, "logit", 8, 0);
	table_add(&table, "p(tau)", 6, 2);
	table_add(&table, "", bar, 4);
	table_add(&table, "P(choice)", 9, 1);
	table_add(&table, "", bar, 5);
	table_add(&table, "", -19, 3);
	table_lay(&table, 0, canvas->columns);
	table_head(&table, canvas, 2, -1);
	int rows = canvas->rows - 4, first = it->chosen - rows / 2;
	if (first > axis->n_choices - rows)
		first = axis->n_choices - rows;
	first = first < 0 ? 0 : first;
	for (int i = 0; i < rows && first + i < axis->n_choices; i++)
		draw_choice(r, &table, canvas, 3 + i, first + i);
	draw_mask(r, canvas, canvas->rows - 1);
}

static int most_choices(const struct pane_router *r)
{
	int most = 1;
	for (int a = 0; a < r->view.n_axes; a++)
		if (r->view.axes[a].axis->n_choices > most)
			most = r->view.axes[a].axis->n_choices;
	return most;
}

/* The note, wrapped at most over two lines. */
static int draw_note(const struct pane_router *r, const struct canvas *canvas, int row)
{
	const char *note = text_chars(&r->note), *rest = strchr(note, ';');
	if (canvas_width(note, strlen(note)) <= canvas->columns || !rest) {
		canvas_text(canvas, row, 0, ROLE_MARK, note);
		return 1;
	}
	canvas_bytes(canvas, row, 0, ROLE_MARK, note, (size_t)(rest - note));
	canvas_text(canvas, row + 1, 0, ROLE_MARK, rest + 2);
	return 2;
}

/* The staircase or the choices of the line below the cursor, at most half of it. */
static int foot_rows(const struct pane_router *r, const struct canvas *canvas)
{
	if (!r->view.present)
		return r->stairs_shown ? canvas->rows : 0;
	int choices = most_choices(r);
	int wanted = r->stairs_shown ? stairs_view_rows(&r->stairs) : 4 + (choices < 8 ? choices : 8);
	if (canvas->rows < 12)
		return 0;
	return wanted < canvas->rows / 2 ? wanted : canvas->rows / 2;
}

static void router_draw(struct pane *pane, struct canvas *canvas)
{
	struct pane_router *r = (struct pane_router *)pane;
	if (!look_ready(pane, canvas))
		return;
	refresh(r);
	if (r->error.text[0]) {
		look_say(canvas, 0, ROLE_ERROR, r->error.text);
		return;
	}
	int row = 0;
	if (r->view.present)
		row = draw_head(r, canvas);
	else
		look_say(canvas, row++, ROLE_TEXT, text_chars(&r->view.source));
	if (!r->view.present && !r->stairs_shown)
		look_say(canvas, row++, ROLE_DIM,
				 "t: the widths that importance chooses for a target (:target active=2.8B)");
	if (r->note.length > 0)
		row += draw_note(r, canvas, row);
	struct canvas rest = canvas_part(canvas, row, 0, canvas->rows - row, canvas->columns);
	int foot = foot_rows(r, &rest), body = rest.rows - foot;
	if (r->view.present && r->n_items + 1 < body)
		body = r->n_items + 1;
	if (!r->view.present)
		body = 0;
	struct canvas upper = canvas_part(&rest, 0, 0, body, rest.columns);
	struct canvas lower = canvas_part(&rest, body, 0, foot, rest.columns);
	if (body > 0)
		draw_table(r, &upper);
	if (foot > 0 && r->stairs_shown)
		stairs_view_draw(&r->stairs, r->pane.talk, &lower);
	else if (foot > 0 && r->n_items > 0)
		draw_detail(r, &lower);
	if (r->stairs.errand.waiting)
		pane->dirty = true;
}

static void line_of(const void *user, int i, struct text *out)
{
	const struct pane_router *r = user;
	const struct router_axis *axis = r->view.axes[r->items[i].axis].axis;
	const struct router_row *row = row_of(r, &r->items[i]);
	text_format(out, "%s %s %s", router_axis_name(axis), axis_label(axis),
				budget_of(r, row, 30).text);
	if (row->layer >= 0)
		text_format(out, " layer %d", row->layer);
	text_add(out, row->disagree ? " DISAGREE" : "");
}

/* The target's keys: show the staircase, a step down or up on it, take it as the budget. */
static bool turn_target(struct pane_router *r, int key)
{
	struct pane *pane = &r->pane;
	struct error err = {0};
	const struct target *target = &r->stairs.target;
	if (key == 't') {
		r->stairs_shown = !r->stairs_shown;
		if (r->stairs_shown && stairs_view_ask(&r->stairs, pane->talk, &err))
			snprintf(pane->message, sizeof pane->message, "%.150s", err.text);
		return true;
	}
	if (key == '(' || key == ')') {
		if (stairs_view_move(&r->stairs, key == '(' ? -1 : 1))
			r->ready = false;
		else
			snprintf(pane->message, sizeof pane->message, "t shows the staircase first");
		refresh(r);
		return true;
	}
	if (key == 'a' && *target->metric)
		snprintf(pane->command, sizeof pane->command, "budget %s=%.10g", target->metric,
				 target->value);
	else if (key == 'a')
		snprintf(pane->message, sizeof pane->message, "no target: :target active=2.8B, or t ( )");
	return key == 'a';
}

/* A dial: from the value in use, or back to the file's. */
static bool turn(struct pane_router *r, int key)
{
	const float step = 1.41421356f;
	switch (key) {
	case '<': r->options.tau = r->view.tau / step; break;
	case '>': r->options.tau = r->view.tau * step; break;
	case '{': r->options.scaler = r->view.scaler / step; break;
	case '}': r->options.scaler = r->view.scaler * step; break;
	case '=':
		r->options = (struct router_options){0, 0, -1};
		r->stairs.target = (struct target){0};
		break;
	default: return turn_target(r, key);
	}
	if (r->options.tau < 0.001f && r->options.tau > 0)
		r->options.tau = 0.001f;
	if (r->options.tau > 1000)
		r->options.tau = 1000;
	if (r->options.scaler < 0.001f && r->options.scaler > 0)
		r->options.scaler = 0.001f;
	if (r->options.scaler > 1e6f)
		r->options.scaler = 1e6f;
	r->ready = false;
	refresh(r);
	return true;
}

static bool router_action(struct pane *pane, enum action action, int key)
{
	struct pane_router *r = (struct pane_router *)pane;
	if (!pane->talk->model || !r->ready)
		return false;
	if (!r->view.present)
		return action == ACTION_NONE && (pane->dirty = turn(r, key));
	const struct list_lines lines = {r->n_items, line_of, r};
	pane->dirty = true;
	if (action == ACTION_NONE)
		return turn(r, key);
	if (action == ACTION_SORT) {
		r->sort = (enum router_sort)((r->sort + 1) % N_ROUTER_SORTS);
		sort(r);
		snprintf(pane->message, sizeof pane->message, "sorted by %s", sort_names[r->sort]);
		return true;
	}
	return list_search_action(&r->list, &lines, pane, action) ||
		   list_action(&r->list, r->n_items, r->body_rows, action);
}

static void router_event(struct pane *pane, const struct event *event)
{
	struct pane_router *r = (struct pane_router *)pane;
	if (event->type == EV_OPENED) {
		forget(r);
		r->options = (struct router_options){0, 0, -1};
		r->list = (struct list){0};
		errand_give_up(&r->stairs.errand, pane->talk->jobs);
		stairs_view_close(&r->stairs);
		r->stairs_shown = false;
	}
	if (event->type == EV_OPENED || event->type == EV_ERROR)
		pane->dirty = true;
}

static void router_title(const struct pane *pane, struct text *out)
{
	const struct pane_router *r = (const struct pane_router *)pane;
	if (r->view.present)
		text_format(out, "by %s", sort_names[r->sort]);
}

static void router_close_pane(struct pane *pane)
{
	struct pane_router *r = (struct pane_router *)pane;
	forget(r);
	stairs_view_close(&r->stairs);
	text_free(&r->note);
	free(r);
}

static bool router_stop(struct pane *pane)
{
	struct pane_router *r = (struct pane_router *)pane;
	return errand_give_up(&r->stairs.errand, pane->talk->jobs);
}

static bool router_busy(const struct pane *pane)
{
	return ((const struct pane_router *)pane)->stairs.errand.waiting != NULL;
}

static bool router_job(struct pane *pane, struct job *job)
{
	struct pane_router *r = (struct pane_router *)pane;
	bool mine = stairs_view_job(&r->stairs, job);
	pane->dirty |= mine;
	return mine;
}

static const struct pane_table table = {router_event, router_draw, router_action, router_title,
										router_close_pane};
static const struct pane_more more = {.stop = router_stop, .busy = router_busy, .job = router_job};

int pane_router_target(struct pane *pane, const char *typed, struct error *err)
{
	struct pane_router *r = (struct pane_router *)pane;
	struct target target = {0}, before = r->stairs.target;
	if (!pane->talk->model)
		return fail(err, "target: no model is open");
	if (*typed && target_parse(&target, typed, err))
		return -1;
	r->stairs.target = target;
	r->ready = false;
	refresh(r);
	if (r->error.text[0]) {
		*err = r->error;
		r->stairs.target = before;
		r->ready = false;
		return -1;
	}
	r->stairs_shown = *typed != '\0';
	pane->dirty = true;
	return *typed ? stairs_view_ask(&r->stairs, pane->talk, err) : 0;
}

struct pane *pane_router_open(const struct talk *talk, struct error *err)
{
	struct pane_router *r = mem_new(1, sizeof *r, err);
	if (!r)
		return NULL;
	r->pane = (struct pane){.table = &table, .more = &more, .talk = talk, .dirty = true};
	r->options.normalize = -1;
	return &r->pane;
}
