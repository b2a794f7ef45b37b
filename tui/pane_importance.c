/*
 * Importance: the scores of one axis of one layer in the order in which the channels are stored,
 * with every budget's cut through them. Scores of files are read at once; norms of weights one axis
 * of one layer at a time, in a job where that reads much (tui/importance_work.h).
 */
#include "tui/pane_importance.h"
#include "base/memory.h"
#include "tui/table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const mode_names[] = {"curve", "map", "table", "agreement"};
static const char *const metric_names[] = {"default", "share of tokens", "weights"};

static int axes_of(const struct config *config, int layer, enum axis axes[N_AXES + 1])
{
	int n = 0;
	if (layer < 0) {
		axes[0] = AXIS_HIDDEN;
		axes[1] = N_AXES;
		return 2;
	}
	for (int axis = AXIS_HIDDEN + 1; axis < N_AXES; axis++)
		if (axis_on_layer((enum axis)axis, (enum layer_kind)config->kinds[layer]) &&
			axis_in_model((enum axis)axis, config))
			axes[n++] = (enum axis)axis;
	axes[n++] = AXIS_HIDDEN;
	return n;
}

static struct importance_query selected_query(const struct pane_importance *p)
{
	enum axis axes[N_AXES + 1];
	const struct config *config = &p->pane.talk->model->config;
	int n = axes_of(config, p->layer, axes), at = p->axis < n ? p->axis : n - 1;
	struct importance_query query = {
		.axis = axes[at], .layer = p->layer, .expert = -1, .metric = p->metric};
	if (query.axis == AXIS_EXPERT_FFN && p->expert < config->n_routed_experts)
		query.expert = p->expert;
	if (query.metric == IMPORTANCE_COUNT && query.axis != AXIS_EXPERTS)
		query.metric = IMPORTANCE_DEFAULT;
	if (query.metric != IMPORTANCE_WEIGHTS)
		query.scores = importance_source(&p->work);
	return query;
}

static void forget(struct pane_importance *p)
{
	importance_close(&p->curve);
	p->curve = (struct importance_curve){0};
	free(p->kept);
	free(p->order);
	free(p->place);
	free(p->cumulative);
	p->kept = NULL;
	p->order = NULL;
	p->place = NULL;
	p->cumulative = NULL;
	p->loaded = p->pending = p->has_matrix = false;
	p->error = (struct error){0};
}

static void keep(struct pane_importance *p, int budget, int start, int length)
{
	for (int i = start; i < start + length && i < p->curve.n; i++)
		p->kept[i] |= 1u << budget;
}

/* Which budgets keep each channel: a bit a budget. */
static int load_kept(struct pane_importance *p, struct error *err)
{
	const struct model *model = p->pane.talk->model;
	const struct importance_query *query = &p->curve.query;
	for (int b = 0; b < model->elastic.n_budgets; b++) {
		const struct budget *budget = &model->elastic.budgets[b];
		struct span_list list = {0};
		if (query->axis == N_AXES) {
			for (int i = 0; i < p->curve.n; i++)
				if (budget_keeps_layer(budget, i))
					keep(p, b, i, 1);
			continue;
		}
		if (query->layer >= 0 && !budget_keeps_layer(budget, query->layer))
			continue;
		int result = budget_spans(budget, &model->config, query->axis, query->layer, &list, err);
		for (size_t i = 0; i < list.n && result == 0; i++)
			keep(p, b, list.spans[i].start, list.spans[i].length);
		free(list.spans);
		if (result)
			return -1;
	}
	return 0;
}

static void sort(struct pane_importance *p)
{
	const float *score = p->curve.score;
	if (!p->order)
		return;
	if (p->sort == SORT_STORED || rank_order(score, p->curve.n, p->order, NULL))
		for (int i = 0; i < p->curve.n; i++)
			p->order[i] = i;
	if (p->sort == SORT_LEAST)
		for (int i = 0, j = p->curve.n - 1; i < j; i++, j--) {
			int first = p->order[i];
			p->order[i] = p->order[j];
			p->order[j] = first;
		}
}

/* What is shown besides the curve, which is there. */
static int load(struct pane_importance *p, const struct importance_query *query, struct error *err)
{
	size_t n = (size_t)p->curve.n;
	p->kept = mem_new(n, sizeof *p->kept, err);
	p->order = mem_new(n, sizeof *p->order, err);
	p->cumulative = mem_new(n, sizeof *p->cumulative, err);
	p->place = mem_new(n, sizeof *p->place, err);
	if (!p->kept || !p->order || !p->cumulative || !p->place ||
		importance_places(&p->curve, p->place, err) < 0)
		return -1;
	if (n > 0)
		importance_cumulative(&p->curve, p->cumulative);
	sort(p);
	const struct scores *measured[] = {query->scores};
	struct agreement_plan plan = {.axis = query->axis,
								  .layer = query->layer,
								  .expert = -1,
								  .measured = measured,
								  .n_measured = query->scores != NULL};
	p->has_agreement = query->axis == AXIS_EXPERTS &&
					   agreement_of(&p->agreement, p->pane.talk->model, &plan, NULL) == 0 &&
					   p->agreement.n >= 3;
	return load_kept(p, err);
}

/* What the selection asks for, once it is there. */
static void refresh(struct pane_importance *p)
{
	struct importance_query query = selected_query(p);
	if (p->loaded && importance_same(&query, &p->query))
		return;
	forget(p);
	p->query = query;
	int ready = importance_want(&p->work, &query, &p->curve, &p->error);
	p->pending = ready == 0;
	if (ready < 0 || (ready > 0 && load(p, &query, &p->error))) {
		struct error error = p->error;
		forget(p);
		p->error = error;
	}
	p->loaded = !p->pending;
}

/* Whether the stored order is the order of the scores. */
static void draw_order(const struct pane_importance *p, const struct canvas *canvas, int row)
{
	const struct importance_curve *curve = &p->curve;
	if (p->query.axis == N_AXES) {
		canvas_print(canvas, row, 0, ROLE_TEXT, "%d layers, in the order in which they run",
					 curve->n);
		return;
	}
	int at = canvas_print(canvas, row, 0, ROLE_TEXT, "%d stored, ", curve->n);
	at += canvas_text(canvas, row, at, curve->descending ? ROLE_GOOD : ROLE_WARN,
					  curve->descending ? "in order" : "NOT in order");
	if (canvas->columns >= 72)
		at += canvas_print(canvas, row, at, ROLE_TEXT, ": %s of %s pairs inverted",
						   number_count((double)curve->inversions).text,
						   number_count((double)curve->pairs).text);
	at += canvas_print(canvas, row, at, ROLE_TEXT, ", Spearman %s",
					   number_fixed(curve->spearman, 3).text);
	if (curve->n_groups > 1)
		canvas_print(canvas, row, at, ROLE_DIM, ", %d groups", curve->n_groups);
}

static int draw_head(const struct pane_importance *p, const struct canvas *canvas)
{
	const struct config *config = &p->pane.talk->model->config;
	enum axis axes[N_AXES + 1];
	const struct importance_curve *curve = &p->curve;
	char where[32] = "model", expert[24] = "", text[200];
	if (p->layer >= 0)
		snprintf(where, sizeof where, "layer %d %s", p->layer, layer_name(config->kinds[p->layer]));
	if (p->query.axis == AXIS_EXPERT_FFN && p->query.expert >= 0)
		snprintf(expert, sizeof expert, ", expert %d", p->query.expert);
	else if (p->query.axis == AXIS_EXPERT_FFN)
		snprintf(expert, sizeof expert, ", mean of experts");
	snprintf(text, sizeof text, "%s: %s%s [%d/%d]", where,
			 p->query.axis == N_AXES ? "layers" : axis_name(p->query.axis), expert, p->axis + 1,
			 axes_of(config, p->layer, axes));
	int at = canvas_text(canvas, 0, 0, ROLE_HEADING, text);
	const struct scores *source = p->query.scores;
	snprintf(text, sizeof text, "  %s (%s%s%.40s)", curve->unit ? curve->unit : "no score",
			 origin_name(curve->origin), source ? ": " : "", source ? source->text : "");
	bool fits = at + canvas_width(text, strlen(text)) <= canvas->columns;
	int row = fits ? 0 : 1;
	canvas_text(canvas, row, fits ? at : 0, ROLE_DIM, text + (fits ? 0 : 2));
	if (curve->n == 0)
		return row + 1;
	draw_order(p, canvas, ++row);
	return row + 1;
}

/* The last two are of the scores that are shown: REAP and count. */
static void draw_agreement(const struct pane_importance *p, const struct canvas *canvas, int row)
{
	int count = p->agreement.n - 1, reap = count - 1;
	canvas_print(canvas, row, 0, ROLE_TEXT,
				 "Spearman: REAP~count %s  REAP~stored %s  count~stored %s",
				 number_fixed(p->agreement.rho[reap][count], 3).text,
				 number_fixed(p->agreement.rho[reap][0], 3).text,
				 number_fixed(p->agreement.rho[count][0], 3).text);
}

static void marks_of(const struct pane_importance *p, int channel, char out[MAX_BUDGETS + 1])
{
	const struct elastic *elastic = &p->pane.talk->model->elastic;
	int n = 0;
	for (int b = 0; b < elastic->n_budgets; b++)
		out[n++] = p->kept[channel] >> b & 1 ? elastic_mark(elastic, b) : '.';
	out[n] = 0;
}

static void draw_table(struct pane_importance *p, const struct canvas *canvas)
{
	struct table table = {0};
	int channel = table_add(&table, "channel", 9, 0), score = table_add(&table, "score", 11, 0);
	int place = table_add(&table, "place", 7, 1), share = table_add(&table, "share", 8, 2),
		sum = table_add(&table, "up to here", 11, 3);
	int group = table_add(&table, "group", 7, 4), kept = table_add(&table, "kept by", -12, 1);
	if (p->query.axis == N_AXES)
		table.columns[channel].name = "layer";
	table_lay(&table, 0, canvas->columns);
	table_head(&table, canvas, 0, p->sort == SORT_STORED ? channel : score);
	p->body_rows = canvas->rows > 1 ? canvas->rows - 1 : 1;
	list_show(&p->list, p->curve.n, p->body_rows);
	for (int row = 1; row < canvas->rows && p->list.top + row - 1 < p->curve.n; row++) {
		int line = p->list.top + row - 1, i = p->order[line];
		enum role role = line == p->list.cursor ? ROLE_MARK : ROLE_TEXT;
		char text[MAX_BUDGETS + 1];
		if (line == p->list.cursor)
			canvas_text(canvas, row, 0, role, canvas_glyph(canvas, GLYPH_FOLDED));
		snprintf(text, sizeof text, "%d", i);
		table_cell(&table, canvas, row, channel, role, text);
		snprintf(text, sizeof text, "%.5g", (double)p->curve.score[i]);
		table_cell(&table, canvas, row, score, role, text);
		snprintf(text, sizeof text, "%d", p->place[i]);
		table_cell(&table, canvas, row, place, role, text);
		double part = p->curve.total > 0 ? (double)p->curve.score[i] / p->curve.total : (double)NAN;
		table_cell(&table, canvas, row, share, role, number_percent(part).text);
		table_cell(&table, canvas, row, sum, role, number_percent(p->cumulative[i]).text);
		snprintf(text, sizeof text, "%d", i / (p->curve.n / p->curve.n_groups));
		table_cell(&table, canvas, row, group, ROLE_DIM, p->curve.n_groups > 1 ? text : "");
		marks_of(p, i, text);
		table_cell(&table, canvas, row, kept, ROLE_TEXT, text);
	}
}

static void draw_absent(const struct pane_importance *p, const struct canvas *canvas, int row)
{
	if (p->error.text[0])
		look_say(canvas, row, ROLE_ERROR, p->error.text);
	else if (p->pending && importance_work_busy(&p->work))
		look_say(canvas, row, ROLE_TEXT, "Norms of the weights are being computed.");
	else if (p->pending)
		look_say(canvas, row, ROLE_DIM,
				 "Stopped. h l: another axis; j k: another layer; Enter: again.");
	else
		look_say(
			canvas, row, ROLE_DIM,
			"N/A: the checkpoint has no such score, and nothing can be derived for it. m: another "
			"metric; h l: another axis; j k: another layer.");
}

static void importance_draw(struct pane *pane, struct canvas *canvas)
{
	struct pane_importance *p = (struct pane_importance *)pane;
	if (!look_ready(pane, canvas))
		return;
	refresh(p);
	int row = draw_head(p, canvas);
	importance_progress(&p->work, p->progress, sizeof p->progress);
	if (p->progress[0])
		canvas_text(canvas, row++, 0, ROLE_NOTICE, p->progress);
	if (p->curve.n == 0 && p->mode != MODE_MAP && p->mode != MODE_AGREEMENT) {
		draw_absent(p, canvas, row);
		return;
	}
	int n_budgets = pane->talk->model->elastic.n_budgets;
	int below = canvas->rows >= 12 ? 1 + (n_budgets < 6 ? n_budgets : 6) : 0;
	if (p->curve.n == 0 || p->mode == MODE_AGREEMENT)
		below = 0;
	if (p->has_agreement && p->mode != MODE_AGREEMENT && p->curve.n > 0 &&
		canvas->rows - row - below > 6)
		draw_agreement(p, canvas, row++);
	struct canvas body = canvas_part(canvas, row, 0, canvas->rows - row - below, canvas->columns);
	switch (p->mode) {
	case MODE_CURVE: importance_curve_draw(p, &body); break;
	case MODE_MAP: importance_map_draw(p, &body); break;
	case MODE_AGREEMENT: importance_agreement_draw(p, &body); break;
	default: draw_table(p, &body); break;
	}
	struct canvas foot = canvas_part(canvas, canvas->rows - below, 0, below, canvas->columns);
	if (below > 0)
		importance_budgets_draw(p, &foot);
}

static void layer_text(const void *user, int i, struct text *out)
{
	const struct pane_importance *p = user;
	const struct config *config = &p->pane.talk->model->config;
	enum axis axes[N_AXES + 1];
	int n = axes_of(config, i - 1, axes);
	text_add(out, i == 0 ? "model layers " : "");
	if (i > 0)
		text_format(out, "layer %d %s ", i - 1, layer_name(config->kinds[i - 1]));
	for (int k = 0; k < n; k++)
		if (axes[k] != AXIS_HIDDEN && axes[k] != N_AXES)
			text_format(out, "%s %s ", axis_name(axes[k]), axis_short(axes[k]));
}

/* Stays on the axis where the next layer has it too. */
static void go_to_layer(struct pane_importance *p, int layer)
{
	enum axis axes[N_AXES + 1], was = p->query.axis;
	const struct config *config = &p->pane.talk->model->config;
	layer = layer < -1 ? -1 : layer >= config->n_layers ? config->n_layers - 1 : layer;
	bool from_model = p->layer < 0;
	p->layer = layer;
	p->axis = 0;
	int n = axes_of(config, layer, axes);
	for (int i = 0; i < n; i++)
		if (axes[i] == was && !from_model)
			p->axis = i;
}

static void next_source(struct pane_importance *p)
{
	p->work.source = (p->work.source + 1) % (p->work.n_sources + 1);
	const struct scores *source = importance_source(&p->work);
	snprintf(p->pane.message, sizeof p->pane.message, "scores: %s%s",
			 source ? source->text : "the checkpoint's own",
			 p->work.n_sources ? "" : "; :scores FILE and :calibrate FILE give others");
}

static bool letter(struct pane_importance *p, int key)
{
	const struct config *config = &p->pane.talk->model->config;
	switch (key) {
	case 'v': p->mode = (enum importance_mode)((p->mode + 1) % N_MODES); return true;
	case 'c': p->cumulated = !p->cumulated; return true;
	case 'm':
		p->metric = (enum importance_metric)((p->metric + 1) % 3);
		snprintf(p->pane.message, sizeof p->pane.message, "metric: %s", metric_names[p->metric]);
		return true;
	case 'e':
		p->expert = p->expert + 1 < config->n_routed_experts ? p->expert + 1 : -1;
		return true;
	case 'E':
		p->expert = p->expert >= 0 ? p->expert - 1 : config->n_routed_experts - 1;
		return true;
	case 'a': p->mode = p->mode == MODE_AGREEMENT ? MODE_CURVE : MODE_AGREEMENT; return true;
	case 'o': next_source(p); return true;
	case 'J': go_to_layer(p, p->layer + 1); return true;
	case 'K': go_to_layer(p, p->layer - 1); return true;
	default: return false;
	}
}

static bool importance_action(struct pane *pane, enum action action, int key)
{
	struct pane_importance *p = (struct pane_importance *)pane;
	enum axis axes[N_AXES + 1];
	if (!pane->talk->model)
		return false;
	const struct config *config = &pane->talk->model->config;
	const struct list_lines lines = {config->n_layers + 1, layer_text, p};
	struct list layers = {p->layer + 1, 0};
	pane->dirty = true;
	if (action == ACTION_NONE)
		return letter(p, key);
	if (action == ACTION_LEFT || action == ACTION_RIGHT) {
		int n = axes_of(config, p->layer, axes);
		p->axis = (p->axis + (action == ACTION_LEFT ? n - 1 : 1)) % n;
		return true;
	}
	if (action == ACTION_ENTER && p->work.is_stopped) {
		p->work.is_stopped = false;
		return true;
	}
	if (action == ACTION_SORT) {
		if (p->mode == MODE_TABLE)
			p->sort = (enum importance_sort)((p->sort + 1) % N_SORTS);
		p->mode = MODE_TABLE;
		sort(p);
		return true;
	}
	if (p->mode == MODE_TABLE && list_action(&p->list, p->curve.n, p->body_rows, action))
		return true;
	if (list_search_action(&layers, &lines, pane, action) ||
		list_action(&layers, config->n_layers + 1, 1, action)) {
		go_to_layer(p, layers.cursor - 1);
		return true;
	}
	return false;
}

static void importance_event(struct pane *pane, const struct event *event)
{
	struct pane_importance *p = (struct pane_importance *)pane;
	if (event->type != EV_OPENED && event->type != EV_ERROR)
		return;
	pane->dirty = true;
	if (event->type == EV_ERROR)
		return;
	forget(p);
	importance_map_forget(&p->map);
	importance_work_close(&p->work);
	p->layer = -1;
	p->axis = 0;
	p->expert = -1;
	p->list = (struct list){0};
}

static void importance_title(const struct pane *pane, struct text *out)
{
	const struct pane_importance *p = (const struct pane_importance *)pane;
	text_add(out, mode_names[p->mode]);
	if (p->loaded)
		text_format(out, ", %s%s%s", origin_name(p->curve.origin), p->query.scores ? ": " : "",
					p->query.scores ? p->query.scores->text : "");
}

static void importance_close_pane(struct pane *pane)
{
	struct pane_importance *p = (struct pane_importance *)pane;
	forget(p);
	importance_map_forget(&p->map);
	importance_work_close(&p->work);
	free(p);
}

/* ---- jobs ---- */

static void sources_changed(struct pane_importance *p)
{
	forget(p);
	importance_map_forget(&p->map);
	p->pane.dirty = true;
}

static bool importance_job(struct pane *pane, struct job *job)
{
	struct pane_importance *p = (struct pane_importance *)pane;
	bool calibrated = p->work.calibrating && job == &p->work.calibrating->job;
	bool mine = importance_work_job(&p->work, job, pane->message, sizeof pane->message);
	if (mine)
		pane->dirty = true;
	if (mine && calibrated)
		sources_changed(p);
	return mine;
}

static bool importance_stop(struct pane *pane)
{
	struct pane_importance *p = (struct pane_importance *)pane;
	pane->dirty = true;
	return importance_work_stop(&p->work);
}

static bool importance_busy(const struct pane *pane)
{
	return importance_work_busy(&((const struct pane_importance *)pane)->work);
}

/* A frame whenever the progress says something new. */
static void importance_wake(struct pane *pane)
{
	struct pane_importance *p = (struct pane_importance *)pane;
	char progress[sizeof p->progress];
	if (!importance_work_busy(&p->work))
		return;
	importance_progress(&p->work, progress, sizeof progress);
	pane->dirty |= strcmp(progress, p->progress) != 0;
}

int pane_importance_scores(struct pane *pane, const char *arguments, struct error *err)
{
	struct pane_importance *p = (struct pane_importance *)pane;
	if (importance_load(&p->work, arguments, err) < 0)
		return -1;
	sources_changed(p);
	return 0;
}

int pane_importance_calibrate(struct pane *pane, const char *arguments, struct error *err)
{
	struct pane_importance *p = (struct pane_importance *)pane;
	pane->dirty = true;
	return importance_calibrate(&p->work, arguments, err);
}

void pane_importance_agreement(struct pane *pane)
{
	((struct pane_importance *)pane)->mode = MODE_AGREEMENT;
	pane->dirty = true;
}

static const struct pane_more more = {.stop = importance_stop,
									  .busy = importance_busy,
									  .job = importance_job,
									  .wake = importance_wake};
static const struct pane_table table = {importance_event, importance_draw, importance_action,
										importance_title, importance_close_pane};

struct pane *pane_importance_open(const struct talk *talk, struct error *err)
{
	struct pane_importance *p = mem_new(1, sizeof *p, err);
	if (!p)
		return NULL;
	p->pane = (struct pane){.table = &table, .more = &more, .talk = talk, .dirty = true};
	p->work.talk = talk;
	p->work.at_once_bytes = IMPORTANCE_AT_ONCE_BYTES;
	p->layer = p->expert = -1;
	return &p->pane;
}
