/*
 * Experts: where the tokens of this session went, layer by layer, live; what the budget leaves out;
 * beside it what the calibration saw. Counts are read when the pane is drawn and the engine's have
 * changed.
 */
#include "base/memory.h"
#include "inspect/experts.h"
#include "tui/look.h"
#include "tui/table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LABEL_COLUMNS 8

static const struct filter {
	const char *name;
	unsigned phases;
	char key;
} filters[] = {
	{"all", EXPERTS_ALL, 'L'},           {"prefill", 1u << PHASE_PREFILL, 'P'},
	{"decode", EXPERTS_DECODE, 'D'},     {"think", 1u << PHASE_THINK, 'T'},
	{"answer", 1u << PHASE_ANSWER, 'A'},
};
#define N_FILTERS ((int)(sizeof filters / sizeof *filters))

enum experts_sort { BY_EXPERT, BY_COUNT, BY_REAP, BY_FREQUENCY, N_EXPERTS_SORTS };
static const char *const sort_names[] = {"expert", "count", "REAP", "frequency"};

struct pane_experts {
	struct pane pane;
	struct expert_counts counts;
	struct experts_view view;
	bool ready;
	uint64_t version;               // of the counts in view
	char budget[BUDGET_NAME_BYTES]; // whose experts are inside
	struct error error;
	int filter;
	enum experts_sort sort;
	struct list layers, experts; // the heat-map's lines; the table of the selected layer
	int *order;                  // (n_experts) lines of the table
	int map_rows, table_rows;
};

static void forget(struct pane_experts *x)
{
	experts_close(&x->view);
	x->view = (struct experts_view){0};
	free(x->order);
	x->order = NULL;
	x->ready = false;
}

static int load(struct pane_experts *x, struct error *err)
{
	const struct talk *talk = x->pane.talk;
	const struct config *config = &talk->model->config;
	struct budget budget = {0};
	bool counted =
		x->counts.n_layers == config->n_layers && x->counts.n_experts == config->n_routed_experts;
	int result = x->budget[0] ? model_budget(talk->model, x->budget, &budget, err)
							  : budget_copy(&budget, &talk->model->elastic.budgets[0], err);
	if (result == 0)
		result = experts_open(&x->view, talk->model, counted ? &x->counts : NULL,
							  filters[x->filter].phases, &budget, err);
	budget_free(&budget);
	if (result)
		return -1;
	x->order = mem_new((size_t)x->view.n_experts, sizeof *x->order, err);
	return x->order ? 0 : -1;
}

/* Counts anew if the engine has others, or another budget runs. */
static void refresh(struct pane_experts *x)
{
	const struct talk *talk = x->pane.talk;
	const char *running = talk_budget_name(talk);
	if (talk->engine && talk->engine->table->experts(talk->engine, &x->counts, &x->error))
		return;
	if (x->ready && x->counts.version == x->version && strcmp(running, x->budget) == 0)
		return;
	forget(x);
	x->error = (struct error){0};
	x->version = x->counts.version;
	snprintf(x->budget, sizeof x->budget, "%s", running);
	if (load(x, &x->error))
		forget(x);
	x->ready = true;
}

static const struct experts_row *selected(const struct pane_experts *x)
{
	return &x->view.rows[x->layers.cursor];
}

static double sort_value(const struct pane_experts *x, const struct experts_row *row, int e)
{
	switch (x->sort) {
	case BY_COUNT: return (double)row->counts[e];
	case BY_REAP: return row->reap ? (double)row->reap[e] : 0;
	case BY_FREQUENCY: return row->frequency ? (double)row->frequency[e] : 0;
	default: return 0;
	}
}

static void sort(struct pane_experts *x, const struct experts_row *row)
{
	for (int e = 0; e < x->view.n_experts; e++) {
		int at = e;
		for (; at > 0 && sort_value(x, row, e) > sort_value(x, row, x->order[at - 1]); at--)
			x->order[at] = x->order[at - 1];
		x->order[at] = e;
	}
}

static int draw_head(const struct pane_experts *x, const struct canvas *canvas)
{
	uint64_t routed = 0;
	int at = 0;
	for (int i = 0; i < x->view.n_rows; i++)
		routed += x->view.rows[i].routed;
	for (int i = 0; i < N_FILTERS; i++) {
		bool on = i == x->filter;
		if (canvas->columns >= 60 || on) // [think] is on, T key
			at += canvas_print(canvas, 0, at, on ? ROLE_MARK : ROLE_DIM, on ? "[%c %s]" : " %c %s ",
							   filters[i].key, filters[i].name);
	}
	char text[96];
	snprintf(text, sizeof text, "  %s choices", number_count((double)routed).text);
	at += canvas_text(canvas, 0, at, ROLE_TEXT, text);
	canvas_text(canvas, 0, at, ROLE_DIM, routed > 0 ? " (measured)" : ": no token yet");
	return 1;
}

static float heat_value(const struct experts_row *row, int from, int to, uint64_t most)
{
	uint64_t sum = 0;
	int kept = 0;
	for (int e = from; e < to; e++) {
		kept += row->kept[e];
		sum += row->kept[e] ? row->counts[e] : 0;
	}
	if (kept == 0)
		return INFINITY;
	return most > 0 ? (float)sum / (float)kept / (float)most : NAN;
}

static void draw_layer(const struct pane_experts *x, const struct canvas *canvas, int row, int line,
					   int columns)
{
	const struct experts_row *it = &x->view.rows[line];
	float values[LOOK_HEAT_COLUMNS];
	bool on = line == x->layers.cursor;
	int n = look_heat_columns(x->view.n_experts, columns);
	uint64_t most = it->n_top > 0 ? it->counts[it->top[0]] : 0;
	canvas_print(canvas, row, 0, on ? ROLE_MARK : ROLE_TEXT, "%s%4d E",
				 on ? canvas_glyph(canvas, GLYPH_FOLDED) : " ", it->layer);
	for (int c = 0; c < n; c++) {
		int from = (int)((int64_t)c * x->view.n_experts / n);
		int to = (int)((int64_t)(c + 1) * x->view.n_experts / n);
		values[c] = heat_value(it, from, to > from ? to : from + 1, most);
	}
	look_heat_line(canvas, row, LABEL_COLUMNS, values, n);
	int at = LABEL_COLUMNS + n + 1, used = 0;
	for (int e = 0; e < x->view.n_experts; e++)
		used += it->counts[e] > 0;
	if (it->n_kept == 0) {
		canvas_text(canvas, row, at, ROLE_DIM, "left out");
		return;
	}
	if (it->routed == 0) {
		canvas_print(canvas, row, at, ROLE_DIM, "  N/A  N/A %3d/%-3d", 0, it->n_kept);
		return;
	}
	at += canvas_print(canvas, row, at, ROLE_TEXT, "%5.2f %3.0f%% %3d/%-3d ", it->entropy,
					   100 * it->normalised, used, it->n_kept);
	if (it->outside > 0)
		canvas_print(canvas, row, at, ROLE_WARN, "%s", number_percent(it->outside).text);
	else
		canvas_text(canvas, row, at, ROLE_DIM, "0");
}

/* Layers x experts; beside each layer entropy (bits, of the most possible), used/kept, outside. */
static void draw_map(struct pane_experts *x, const struct canvas *canvas)
{
	int columns = canvas->columns - LABEL_COLUMNS - 28;
	columns = columns < 4 ? 4 : columns;
	int n = look_heat_columns(x->view.n_experts, columns);
	canvas_print(canvas, 0, 0, ROLE_HEADING, " layer");
	if (n < x->view.n_experts && n >= 16)
		canvas_print(canvas, 0, LABEL_COLUMNS, ROLE_HEADING, "%d experts, %.3g each",
					 x->view.n_experts, (double)x->view.n_experts / n);
	else
		canvas_text(canvas, 0, LABEL_COLUMNS, ROLE_HEADING, n >= 7 ? "experts" : "ex");
	canvas_text(canvas, 0, LABEL_COLUMNS + n + 1, ROLE_HEADING, " bits   of used   outside");
	x->map_rows = canvas->rows > 2 ? canvas->rows - 1 : 1;
	list_show(&x->layers, x->view.n_rows, x->map_rows);
	for (int i = 0; i < x->map_rows && x->layers.top + i < x->view.n_rows; i++)
		draw_layer(x, canvas, 1 + i, x->layers.top + i, columns);
}

static void draw_legend(const struct pane_experts *x, const struct canvas *canvas, int row)
{
	int at = LABEL_COLUMNS;
	at += canvas_legend(canvas, row, at, RAMP_SEQUENTIAL, 0, 1);
	if (at + 24 <= canvas->columns)
		canvas_print(canvas, row, at + 1, ROLE_DIM, "of the layer's most  %s = outside %.20s",
					 canvas->theme->n_colors >= 256 && !canvas->theme->ascii ? "·" : "x",
					 x->budget);
}

static void draw_expert(const struct pane_experts *x, const struct table *table,
						const struct canvas *canvas, int row, int line)
{
	const struct experts_row *it = selected(x);
	int e = x->order[line];
	double share = it->routed ? (double)it->counts[e] / (double)it->routed : (double)NAN;
	uint64_t most = it->n_top > 0 ? it->counts[it->top[0]] : 0;
	char text[64];
	if (line == x->experts.cursor)
		canvas_text(canvas, row, 0, ROLE_MARK, canvas_glyph(canvas, GLYPH_FOLDED));
	snprintf(text, sizeof text, "%d", e);
	table_cell(table, canvas, row, 0, ROLE_TEXT, text);
	snprintf(text, sizeof text, "%llu", (unsigned long long)it->counts[e]);
	table_cell(table, canvas, row, 1, ROLE_TEXT, it->routed ? text : "N/A");
	table_cell(table, canvas, row, 2, ROLE_TEXT, number_percent(share).text);
	if (most > 0)
		table_bar(table, canvas, row, 3, ROLE_BAR, (double)it->counts[e] / (double)most);
	table_cell(table, canvas, row, 4, ROLE_TEXT,
			   number_percent(it->frequency ? (double)it->frequency[e] : (double)NAN).text);
	table_cell(table, canvas, row, 5, ROLE_TEXT,
			   number_fixed(it->reap ? (double)it->reap[e] : (double)NAN, 4).text);
	bool stray = !it->kept[e] && it->counts[e] > 0; // used by another budget
	table_cell(table, canvas, row, 6, stray ? ROLE_WARN : ROLE_DIM,
			   it->kept[e] ? "inside"
			   : stray     ? "OUTSIDE, used"
						   : "outside");
}

static void draw_table(struct pane_experts *x, const struct canvas *canvas)
{
	const struct experts_row *it = selected(x);
	struct table table = {0};
	static const int sorted[] = {0, 1, 5, 4};
	table_add(&table, "expert", 8, 0);
	table_add(&table, "count", 8, 3);
	table_add(&table, "share", 7, 0);
	table_add(&table, "", canvas->columns >= 90 ? -20 : -10, 4);
	table_add(&table, "freq(file)", 11, 2);
	table_add(&table, "REAP(file)", 11, 1);
	table_add(&table, "", -13, 5);
	table_lay(&table, 0, canvas->columns);
	canvas_rule(canvas, 0, 0, canvas->columns, ROLE_FRAME);
	int at = canvas_print(canvas, 0, 1, ROLE_HEADING, " layer %d ", it->layer) + 1;
	canvas_text(canvas, 0, at, ROLE_DIM, " top");
	at += 4;
	for (int i = 0; i < it->n_top && i < 5 && at + 12 < canvas->columns; i++)
		at += canvas_print(canvas, 0, at, ROLE_TEXT, " e%d %.0f%%", it->top[i],
						   100 * (double)it->counts[it->top[i]] / (double)it->routed);
	canvas_text(canvas, 0, at, ROLE_DIM, it->n_top ? " " : " N/A ");
	table_head(&table, canvas, 1, sorted[x->sort]);
	sort(x, it);
	x->table_rows = canvas->rows > 3 ? canvas->rows - 2 : 1;
	list_show(&x->experts, x->view.n_experts, x->table_rows);
	for (int i = 0; i < x->table_rows && x->experts.top + i < x->view.n_experts; i++)
		draw_expert(x, &table, canvas, 2 + i, x->experts.top + i);
}

static void experts_draw(struct pane *pane, struct canvas *canvas)
{
	struct pane_experts *x = (struct pane_experts *)pane;
	if (!look_ready(pane, canvas))
		return;
	refresh(x);
	if (x->error.text[0]) {
		look_say(canvas, 0, ROLE_ERROR, x->error.text);
		return;
	}
	if (x->view.n_rows == 0) {
		look_say(canvas, 0, ROLE_DIM, "No MoE layer in this model.");
		return;
	}
	int row = draw_head(x, canvas), n = x->view.n_rows;
	int room = canvas->rows - row - 1 - (canvas->rows >= 9); // heading and legend
	int lines = canvas->rows >= 14 && n > room / 2 ? room / 2 : n < room ? n : room;
	struct canvas map = canvas_part(canvas, row, 0, 1 + lines, canvas->columns);
	draw_map(x, &map);
	row += 1 + lines;
	if (canvas->rows >= 9)
		draw_legend(x, canvas, row++);
	struct canvas rest = canvas_part(canvas, row, 0, canvas->rows - row, canvas->columns);
	if (rest.rows >= 4)
		draw_table(x, &rest);
}

static void line_of(const void *user, int i, struct text *out)
{
	const struct pane_experts *x = user;
	text_format(out, "layer %d", x->view.rows[i].layer);
}

static bool choose_filter(struct pane_experts *x, int filter)
{
	x->filter = filter;
	x->ready = false;
	return true;
}

static bool experts_action(struct pane *pane, enum action action, int key)
{
	struct pane_experts *x = (struct pane_experts *)pane;
	if (!pane->talk->model || x->view.n_rows == 0)
		return false;
	const struct list_lines lines = {x->view.n_rows, line_of, x};
	pane->dirty = true;
	if (action == ACTION_NONE && key == 'f')
		return choose_filter(x, (x->filter + 1) % N_FILTERS);
	for (int i = 0; action == ACTION_NONE && i < N_FILTERS; i++)
		if (key == filters[i].key)
			return choose_filter(x, i);
	if (action == ACTION_NONE && (key == 'J' || key == 'K'))
		return list_action(&x->experts, x->view.n_experts, x->table_rows,
						   key == 'J' ? ACTION_DOWN : ACTION_UP);
	if (action == ACTION_SORT) {
		x->sort = (enum experts_sort)((x->sort + 1) % N_EXPERTS_SORTS);
		snprintf(pane->message, sizeof pane->message, "experts sorted by %s", sort_names[x->sort]);
		return true;
	}
	return list_search_action(&x->layers, &lines, pane, action) ||
		   list_action(&x->layers, x->view.n_rows, x->map_rows, action);
}

static void experts_event(struct pane *pane, const struct event *event)
{
	struct pane_experts *x = (struct pane_experts *)pane;
	if (event->type == EV_OPENED) {
		forget(x); // it borrows from the model that was open
		x->layers = x->experts = (struct list){0};
		x->error = (struct error){0};
	}
	pane->dirty = true;
}

static void experts_title(const struct pane *pane, struct text *out)
{
	const struct pane_experts *x = (const struct pane_experts *)pane;
	const char *now = talk_budget_name(pane->talk);
	text_format(out, "%s, inside %s", filters[x->filter].name, *now ? now : "N/A");
}

static void experts_close_pane(struct pane *pane)
{
	struct pane_experts *x = (struct pane_experts *)pane;
	forget(x);
	free(x->counts.counts);
	free(x);
}

static const struct pane_table table = {experts_event, experts_draw, experts_action, experts_title,
										experts_close_pane};

struct pane *pane_experts_open(const struct talk *talk, struct error *err)
{
	struct pane_experts *x = mem_new(1, sizeof *x, err);
	if (!x)
		return NULL;
	x->pane = (struct pane){.table = &table, .talk = talk, .dirty = true};
	x->sort = BY_COUNT;
	return &x->pane;
}
