/*
 * Nesting: what every budget keeps of every axis and layer, what that costs, and the proof that
 * each budget lies inside the one before it. Widths that the user typed stand beside the file's
 * budgets.
 */
#include "tui/pane_nesting.h"
#include "base/memory.h"
#include "inspect/nesting.h"
#include "tui/look.h"
#include "tui/mask_view.h"
#include "tui/nesting_formats.h"
#include "tui/nesting_summary.h"
#include "tui/table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_COLUMNS 20 // cursor, layer, kind, axis
#define CELL_COLUMNS 6   // the least a budget takes: three of them at 40 columns

enum order { BY_LAYER, BY_AXIS, BY_SHARE, N_ORDERS };
static const char *const order_names[N_ORDERS] = {"layer", "axis", "share kept"};

struct pane_nesting {
	struct pane pane;
	struct nesting nesting;
	bool ready;
	struct error error;
	char typed[BUDGET_NAME_BYTES]; // the budget beside the file's, "" = none
	int *rows_order;               // (n_rows) indices into nesting.rows
	enum order order;
	struct list list;
	int first;    // leftmost budget column
	bool proof;   // the violations instead of the table
	bool formats; // what formats cost instead of it
	int body_rows, proof_top, formats_top;
	struct mask_view mask;
};

static void forget(struct pane_nesting *n)
{
	nesting_close(&n->nesting);
	n->nesting = (struct nesting){0};
	free(n->rows_order);
	n->rows_order = NULL;
	n->ready = false;
	n->error = (struct error){0};
}

static double smallest_share(const struct nesting *nesting, const struct nesting_row *row)
{
	return (double)row->width[nesting->n_budgets - 1] / row->parent;
}

static bool before(const struct pane_nesting *n, int a, int b)
{
	const struct nesting_row *x = &n->nesting.rows[a], *y = &n->nesting.rows[b];
	if (n->order == BY_AXIS && x->axis != y->axis)
		return x->axis < y->axis;
	if (n->order == BY_SHARE) {
		double p = smallest_share(&n->nesting, x), q = smallest_share(&n->nesting, y);
		if (p < q || p > q)
			return p < q;
	}
	return a < b;
}

static void sort(struct pane_nesting *n)
{
	for (int i = 0; i < n->nesting.n_rows; i++) { // some hundred rows at most
		int at = i;
		for (; at > 0 && before(n, i, n->rows_order[at - 1]); at--)
			n->rows_order[at] = n->rows_order[at - 1];
		n->rows_order[at] = i;
	}
}

static int open_nesting(struct pane_nesting *n, struct error *err)
{
	const struct model *model = n->pane.talk->model;
	struct budget typed = {0};
	if (n->typed[0] && model_budget(model, n->typed, &typed, err))
		return -1;
	int result = nesting_open(&n->nesting, model, n->typed[0] ? &typed : NULL, err);
	budget_free(&typed);
	if (result)
		return -1;
	n->rows_order = mem_new((size_t)n->nesting.n_rows, sizeof *n->rows_order, err);
	return n->rows_order ? 0 : -1;
}

/* Reads the model anew if another one is open, or other widths were typed. */
static void refresh(struct pane_nesting *n)
{
	const char *running = talk_budget_name(n->pane.talk);
	char typed[sizeof n->typed] = "";
	if (look_budget(n->pane.talk) < 0 && strlen(running) < sizeof typed)
		strcpy(typed, running);
	if (n->ready && strcmp(typed, n->typed) == 0)
		return;
	forget(n);
	strcpy(n->typed, typed);
	if (open_nesting(n, &n->error)) {
		struct error error = n->error;
		forget(n);
		n->error = error;
	} else {
		sort(n);
	}
	n->ready = true;
}

static int index_of(const struct pane_nesting *n, int budget)
{
	return nesting_index(n->pane.talk->model, budget);
}

static struct number label_of(const struct pane_nesting *n, int budget, int columns)
{
	return nesting_label(&n->nesting, n->pane.talk->model, budget, columns);
}

static enum mask_mark mark_of(const struct pane_nesting *n, const struct nesting_row *row, int b)
{
	return nesting_mark(&n->nesting, n->pane.talk->model, row, b);
}

static int visible_budgets(const struct canvas *canvas, int n_budgets)
{
	int fits = (canvas->columns - LABEL_COLUMNS) / CELL_COLUMNS;
	fits = fits < 1 ? 1 : fits;
	return fits < n_budgets ? fits : n_budgets;
}

static void draw_label(const struct pane_nesting *n, const struct canvas *canvas, int row,
					   const struct nesting_row *item, bool on)
{
	const struct config *config = &n->pane.talk->model->config;
	enum role role = on ? ROLE_MARK : ROLE_TEXT;
	canvas_text(canvas, row, 0, role, on ? canvas_glyph(canvas, GLYPH_FOLDED) : " ");
	if (item->layer < 0)
		canvas_print(canvas, row, 1, role, "all    %-11s", axis_short(item->axis));
	else
		canvas_print(canvas, row, 1, role, "%4d %c %-11s", item->layer,
					 layer_letter(config->kinds[item->layer]), axis_short(item->axis));
}

/* "~" runs; of a mask's column also "!" not nested, "*" between trained widths. */
static const char *sign_of(const struct pane_nesting *n, const struct nesting_row *item, int b)
{
	enum mask_mark mark = mark_of(n, item, b);
	return item->broken[b] || mark == MASK_BROKEN ? "!"
		   : item->runs[b]                        ? "~"
		   : mark == MASK_BETWEEN                 ? "*"
												  : " ";
}

static void draw_row(const struct pane_nesting *n, const struct canvas *canvas, int row,
					 const struct nesting_row *item)
{
	int shown = visible_budgets(canvas, n->nesting.n_budgets);
	int width = (canvas->columns - LABEL_COLUMNS) / shown;
	for (int k = 0; k < shown && n->first + k < n->nesting.n_budgets; k++) {
		int b = n->first + k, at = LABEL_COLUMNS + k * width;
		enum role role = item->broken[b] ? ROLE_ERROR : role_of_budget(index_of(n, b));
		if (item->width[b] == 0) {
			canvas_print(canvas, row, at, ROLE_DIM, "%5s%s", "-", width > 13 ? " left out" : "");
			continue;
		}
		canvas_print(canvas, row, at, role, "%5d%s", item->width[b], sign_of(n, item, b));
		if (width >= 12)
			canvas_bar(canvas, row, at + 7, width - 8, (float)item->width[b] / (float)item->parent,
					   role);
	}
}

static void draw_body(struct pane_nesting *n, const struct canvas *canvas)
{
	int shown = visible_budgets(canvas, n->nesting.n_budgets);
	int width = (canvas->columns - LABEL_COLUMNS) / shown;
	n->body_rows = canvas->rows - 1 > 0 ? canvas->rows - 1 : 1;
	list_show(&n->list, n->nesting.n_rows, n->body_rows);
	canvas_print(canvas, 0, 0, ROLE_HEADING, " layer  axis");
	for (int k = 0; k < shown && n->first + k < n->nesting.n_budgets; k++)
		canvas_text(canvas, 0, LABEL_COLUMNS + k * width + (width > 11 ? 3 : 0),
					role_of_budget(index_of(n, n->first + k)),
					label_of(n, n->first + k, width - (width > 11 ? 4 : 1)).text);
	for (int i = 0; i < n->body_rows && n->list.top + i < n->nesting.n_rows; i++) {
		int line = n->list.top + i;
		const struct nesting_row *item = &n->nesting.rows[n->rows_order[line]];
		draw_label(n, canvas, i + 1, item, line == n->list.cursor);
		draw_row(n, canvas, i + 1, item);
	}
}

/* What the selected line means, a line a budget. */
static void draw_detail(const struct pane_nesting *n, const struct canvas *canvas)
{
	const struct config *config = &n->pane.talk->model->config;
	const struct nesting_row *row = &n->nesting.rows[n->rows_order[n->list.cursor]];
	char where[64] = "whole model";
	if (row->layer >= 0)
		snprintf(where, sizeof where, "layer %d, %s", row->layer,
				 layer_name(config->kinds[row->layer]));
	canvas_rule(canvas, 0, 0, canvas->columns, ROLE_FRAME);
	canvas_print(canvas, 1, 0, ROLE_HEADING, "%s: %s, %d stored", where, axis_name(row->axis),
				 row->parent);
	int groups = axis_groups(row->axis, config);
	for (int k = 0; 2 + k < canvas->rows && n->first + k < n->nesting.n_budgets; k++) {
		int b = n->first + k;
		struct text runs = {0};
		struct error err = {0};
		if (nesting_runs(&n->nesting, config, b, row, &runs, &err)) {
			text_clear(&runs);
			text_add(&runs, err.text);
		}
		int at =
			canvas_text(canvas, 2 + k, 1, role_of_budget(index_of(n, b)), label_of(n, b, 12).text);
		at = at < 10 ? 10 : at + 1;
		if (row->width[b] == 0)
			canvas_text(canvas, 2 + k, at + 1, ROLE_DIM, "leaves this layer out");
		else
			canvas_print(canvas, 2 + k, at + 1, ROLE_TEXT, "keeps %d (%s): %s%s", row->width[b],
						 number_percent((double)row->width[b] / row->parent).text,
						 text_chars(&runs),
						 row->runs[b]                                ? ", hand-made runs"
						 : groups > 1 && row->width[b] < row->parent ? ", the first of every group"
																	 : "");
		text_free(&runs);
	}
}

static void draw_violations(struct pane_nesting *n, const struct canvas *canvas)
{
	const char *line = text_chars(&n->nesting.violations);
	canvas_print(canvas, 0, 0, ROLE_HEADING, "violations: %d (v goes back)",
				 n->nesting.n_violations);
	n->body_rows = canvas->rows - 1 > 0 ? canvas->rows - 1 : 1;
	if (!*line)
		canvas_text(canvas, 1, 0, ROLE_GOOD, "none");
	for (int i = 0, row = 1; *line && row < canvas->rows; i++) {
		size_t length = strcspn(line, "\n");
		if (i >= n->proof_top)
			canvas_bytes(canvas, row++, 0, ROLE_ERROR, line, length);
		line += length + (line[length] == '\n');
	}
}

static void nesting_draw(struct pane *pane, struct canvas *canvas)
{
	struct pane_nesting *n = (struct pane_nesting *)pane;
	if (!look_ready(pane, canvas))
		return;
	refresh(n);
	if (n->nesting.n_rows == 0) {
		look_say(canvas, 0, ROLE_ERROR, n->error.text);
		return;
	}
	if (n->formats) {
		int most = nesting_formats_lines(&n->nesting) - canvas->rows;
		n->body_rows = canvas->rows;
		if (n->formats_top > most)
			n->formats_top = most > 0 ? most : 0;
		nesting_formats_draw(&n->nesting, canvas, n->formats_top,
							 pane->talk->model->elastic.n_budgets);
		return;
	}
	int row = nesting_summary_draw(&n->nesting, pane->talk->model, canvas);
	int n_budgets = n->nesting.n_budgets;
	int mask = mask_view_rows(&n->mask, pane->talk, canvas->columns);
	mask = canvas->rows - row - mask >= 3 ? mask : 0; // it comes before the detail
	int detail = canvas->rows - mask >= 16 ? 2 + (n_budgets < 4 ? n_budgets : 4) : 0;
	detail = canvas->rows - row - mask - detail >= 3 || mask == 0 ? detail : 0;
	int left = canvas->rows - row - detail - mask;
	int wanted = n->nesting.n_rows + 1;
	struct canvas body =
		canvas_part(canvas, row, 0, left < wanted || n->proof ? left : wanted, canvas->columns);
	if (n->proof)
		draw_violations(n, &body);
	else
		draw_body(n, &body);
	if (detail > 0) {
		struct canvas part = canvas_part(canvas, row + body.rows, 0, detail, canvas->columns);
		draw_detail(n, &part);
	}
	if (mask > 0) {
		struct canvas part = canvas_part(canvas, canvas->rows - mask, 0, mask, canvas->columns);
		mask_view_draw(&n->mask, pane->talk, &part);
	}
}

static void line_text_of(const void *user, int i, struct text *out)
{
	const struct pane_nesting *n = user;
	const struct config *config = &n->pane.talk->model->config;
	const struct nesting_row *row = &n->nesting.rows[n->rows_order[i]];
	if (row->layer >= 0)
		text_format(out, "layer %d %c %s ", row->layer, layer_letter(config->kinds[row->layer]),
					layer_name(config->kinds[row->layer]));
	text_format(out, "%s %s", axis_name(row->axis), axis_short(row->axis));
}

/* The budget whose column has a "!" on this row, -1 = none. */
static int broken_budget(const struct pane_nesting *n, const struct nesting_row *row)
{
	for (int b = n->nesting.n_budgets - 1; b >= 0; b--)
		if (row->broken[b] || mark_of(n, row, b) == MASK_BROKEN)
			return b;
	return -1;
}

static void say_broken(struct pane_nesting *n, const struct nesting_row *row, int b)
{
	const struct nesting *nesting = &n->nesting;
	char *message = n->pane.message;
	size_t size = sizeof n->pane.message;
	if (!row->broken[b]) {
		snprintf(message, size, "the mask does not nest here: it keeps %d of %d", row->width[b],
				 row->parent);
		return;
	}
	int inside = nesting->container[b], kept = row->width[b], most = row->width[inside];
	snprintf(message, size, "violation: %.40s keeps %s %.40s (%d against %d)",
			 nesting->budgets[b].name, kept > most ? "more than" : "others than",
			 nesting->budgets[inside].name, kept, most);
}

/* n, N: the next and previous line with a "!", around the ends. */
static void jump(struct pane_nesting *n, int direction)
{
	int rows = n->nesting.n_rows, at = n->list.cursor;
	for (int i = 0; i < rows; i++) {
		at = (at + direction + rows) % rows;
		const struct nesting_row *row = &n->nesting.rows[n->rows_order[at]];
		int b = broken_budget(n, row);
		if (b < 0)
			continue;
		n->list.cursor = at;
		say_broken(n, row, b);
		return;
	}
	snprintf(n->pane.message, sizeof n->pane.message, "everything nests; / searches");
}

/* The selected line under a mask's keys. */
static bool edit_key(struct pane_nesting *n, int key)
{
	const struct nesting_row *row = &n->nesting.rows[n->rows_order[n->list.cursor]];
	int last = n->nesting.n_budgets - 1;
	if (key == 'd' && row->layer < 0) {
		snprintf(n->pane.message, sizeof n->pane.message,
				 "d leaves a layer out, %s is the whole model's: move to a layer",
				 axis_name(row->axis));
		return true;
	}
	int shown = index_of(n, last) < 0 ? last : look_budget(n->pane.talk);
	return mask_view_key(n->pane.talk, shown < 0 ? NULL : &n->nesting.budgets[shown], row->axis,
						 row->layer, key, n->pane.command, sizeof n->pane.command);
}

static bool nesting_action(struct pane *pane, enum action action, int key)
{
	struct pane_nesting *n = (struct pane_nesting *)pane;
	if (!n->ready || n->nesting.n_rows == 0)
		return false;
	refresh(n); // a key before may have changed what is kept
	if (n->nesting.n_rows == 0)
		return false;
	const struct list_lines lines = {n->nesting.n_rows, line_text_of, n};
	pane->dirty = true;
	if (action == ACTION_NONE && key == 'v') {
		n->proof = !n->proof;
		n->proof_top = 0;
		return true;
	}
	if (action == ACTION_NONE && key == 'f') {
		n->formats = !n->formats;
		n->formats_top = 0;
		return true;
	}
	if (action == ACTION_NONE && !n->formats && !n->proof && edit_key(n, key))
		return true;
	if (n->formats)
		return pane_scroll(&n->formats_top, nesting_formats_lines(&n->nesting), n->body_rows,
						   action);
	switch (action) {
	case ACTION_SORT:
		n->order = (enum order)((n->order + 1) % N_ORDERS);
		sort(n);
		snprintf(pane->message, sizeof pane->message, "sorted by %s", order_names[n->order]);
		return true;
	case ACTION_LEFT: n->first -= n->first > 0; return true;
	case ACTION_RIGHT: n->first += n->first + 1 < n->nesting.n_budgets; return true;
	default: break;
	}
	if (!n->proof && !pane->search[0] &&
		(action == ACTION_SEARCH_NEXT || action == ACTION_SEARCH_PREVIOUS)) {
		jump(n, action == ACTION_SEARCH_NEXT ? 1 : -1);
		return true;
	}
	if (n->proof)
		return pane_scroll(&n->proof_top, n->nesting.n_violations, n->body_rows, action);
	return list_search_action(&n->list, &lines, pane, action) ||
		   list_action(&n->list, n->nesting.n_rows, n->body_rows, action);
}

static void nesting_event(struct pane *pane, const struct event *event)
{
	struct pane_nesting *n = (struct pane_nesting *)pane;
	if (event->type == EV_OPENED) {
		forget(n);
		mask_view_forget(&n->mask, pane->talk);
		n->list = (struct list){0};
		n->first = 0;
	}
	if (event->type == EV_OPENED || event->type == EV_SWITCH || event->type == EV_TURN ||
		event->type == EV_ERROR)
		pane->dirty = true;
}

static void nesting_title(const struct pane *pane, struct text *out)
{
	const struct pane_nesting *n = (const struct pane_nesting *)pane;
	if (n->formats)
		text_add(out, "formats (f goes back)");
	else if (n->nesting.n_rows > 0)
		text_format(out, "by %s", order_names[n->order]);
}

static void nesting_close_pane(struct pane *pane)
{
	struct pane_nesting *n = (struct pane_nesting *)pane;
	forget(n);
	mask_view_close(&n->mask);
	free(n);
}

static const struct pane_table table = {nesting_event, nesting_draw, nesting_action, nesting_title,
										nesting_close_pane};

static bool nesting_stop(struct pane *pane)
{
	struct pane_nesting *n = (struct pane_nesting *)pane;
	return mask_view_stop(&n->mask, pane->talk);
}

static bool nesting_busy(const struct pane *pane)
{
	const struct mask_view *mask = &((const struct pane_nesting *)pane)->mask;
	return mask->waiting || mask->asked;
}

static bool nesting_job(struct pane *pane, struct job *job)
{
	struct pane_nesting *n = (struct pane_nesting *)pane;
	bool ours = mask_view_job(&n->mask, pane->talk, job);
	pane->dirty |= ours;
	return ours;
}

static const struct pane_more more = {
	.stop = nesting_stop, .busy = nesting_busy, .job = nesting_job};

struct mask_view *pane_nesting_mask(struct pane *pane)
{
	return &((struct pane_nesting *)pane)->mask;
}

struct pane *pane_nesting_open(const struct talk *talk, struct error *err)
{
	struct pane_nesting *n = mem_new(1, sizeof *n, err);
	if (!n)
		return NULL;
	n->pane = (struct pane){.table = &table, .more = &more, .talk = talk, .dirty = true};
	return &n->pane;
}
