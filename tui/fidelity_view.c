#include "tui/fidelity_view.h"
#include "base/memory.h"
#include "core/tokenizer.h"
#include "tui/table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STRIP_ROWS 3 // of a side, at most
#define CONTEXT 6    // tokens before the one that is shown

/* ---- the job ---- */

int fidelity_view_ask(struct fidelity_view *view, const struct talk *talk,
					  const struct fidelity_side_plan *sides, int n_sides, const int32_t *ids,
					  int n, int first, struct error *err)
{
	static const struct device_options device = {
		.n_threads = 1, .math = MATH_EXACT, .kv_dtype = DTYPE_F32};
	if (!talk->jobs)
		return fail(err, "compare: nothing can be computed here");
	fidelity_view_forget(view, talk);
	struct fidelity_job *job = fidelity_job(sides, n_sides, ids, n, first, &device, err);
	return errand_send(&view->errand, talk->jobs, job ? &job->job : NULL);
}

bool fidelity_view_job(struct fidelity_view *view, struct job *job)
{
	if (!errand_returns(&view->errand, job))
		return false;
	view->side = -1;
	if (job->state == JOB_DONE)
		view->done = (struct fidelity_job *)job;
	else
		job->free(job);
	return true;
}

void fidelity_view_close(struct fidelity_view *view)
{
	if (view->done)
		view->done->job.free(&view->done->job);
	*view = (struct fidelity_view){.side = -1};
}

void fidelity_view_forget(struct fidelity_view *view, const struct talk *talk)
{
	errand_give_up(&view->errand, talk->jobs);
	fidelity_view_close(view);
}

/* ---- the list of the worst ---- */

static double drop_at(const struct fidelity *f, int side, int i)
{
	return exp(f->sides[0].positions[i].logprob) - exp(f->sides[side].positions[i].logprob);
}

static bool before(const struct fidelity_view *view, int side, int a, int b)
{
	const struct fidelity *f = &view->done->fidelity;
	if (view->order == BY_PLACE)
		return a < b;
	double x = view->order == BY_KL ? f->sides[side].positions[a].kl : drop_at(f, side, a);
	double y = view->order == BY_KL ? f->sides[side].positions[b].kl : drop_at(f, side, b);
	return x > y || (x >= y && a < b);
}

static void list_worst(struct fidelity_view *view, int side)
{
	const struct fidelity *f = &view->done->fidelity;
	view->side = side;
	view->n_worst = fidelity_worst(f, side, FIDELITY_WORST, view->worst, NULL);
	view->n_worst = view->n_worst < 0 ? 0 : view->n_worst;
	for (int i = 1; i < view->n_worst; i++) // insertion: few, and sorted by KL already
		for (int j = i; j > 0 && before(view, side, view->worst[j], view->worst[j - 1]); j--) {
			int kept = view->worst[j];
			view->worst[j] = view->worst[j - 1];
			view->worst[j - 1] = kept;
		}
}

/* ---- drawing ---- */

static bool ready(const struct fidelity_view *view, const struct talk *talk,
				  const struct canvas *canvas)
{
	if (view->done)
		return true;
	if (view->errand.waiting) {
		canvas_print(canvas, 0, 0, ROLE_NOTICE, "comparing token by token: %d%%",
					 errand_percent(&view->errand, talk->jobs));
	} else if (view->errand.failed[0]) {
		canvas_print(canvas, 0, 0, ROLE_ERROR, "compare: %s", view->errand.failed);
	} else {
		look_say(canvas, 0, ROLE_DIM,
				 "Nothing is compared yet: it begins when the columns have answered; "
				 ":compare text FILE reads a file.");
	}
	return false;
}

static int draw_summary(const struct fidelity_view *view, const struct canvas *canvas, int side)
{
	const struct fidelity *f = &view->done->fidelity;
	const struct fidelity_side *q = &f->sides[side];
	const struct divergence_summary *s = &q->summary;
	const char *plus_minus = canvas->theme->ascii ? "+-" : "\xc2\xb1";
	int row = 0;
	canvas_print(canvas, row++, 0, ROLE_HEADING, "%.20s against %.20s, %d tokens",
				 view->done->budgets[side], view->done->budgets[0], f->n);
	canvas_print(canvas, row++, 1, ROLE_TEXT, "KL mean %s%s%s median %s 99%% %s max %s",
				 number_fixed(s->kl.value, 4).text, plus_minus, number_fixed(s->kl.error, 4).text,
				 number_fixed(s->kl_percentile[PERCENTILE_50], 4).text,
				 number_fixed(s->kl_percentile[PERCENTILE_99], 3).text,
				 number_fixed(s->kl_max, 3).text);
	canvas_print(canvas, row++, 1, ROLE_TEXT, "same top %s%s%s  PPL %s and %s",
				 number_percent(s->same_top.value).text, plus_minus,
				 number_percent(s->same_top.error).text, number_fixed(s->ppl_base.value, 3).text,
				 number_fixed(s->ppl.value, 3).text);
	if (!isnan(q->routed_share) && canvas->rows > 12)
		canvas_print(canvas, row++, 1, ROLE_TEXT, "with %.12s's experts KL %s: %s of it is routing",
					 view->done->budgets[0], number_fixed(q->routed_kl.value, 4).text,
					 q->routed_share > 0 ? number_percent(q->routed_share).text : "none");
	return row;
}

/* KL over the positions, each cell the largest of those it stands for. */
static int draw_strip(const struct fidelity_view *view, const struct canvas *canvas, int row,
					  int side)
{
	const struct fidelity *f = &view->done->fidelity;
	const struct divergence_summary *s = &f->sides[side].summary;
	float values[LOOK_HEAT_COLUMNS];
	double high = s->kl_percentile[PERCENTILE_99] > 0 ? s->kl_percentile[PERCENTILE_99] : s->kl_max;
	int width = canvas->columns - 2, lines = canvas->rows > 16 ? STRIP_ROWS : 1;
	width = width > LOOK_HEAT_COLUMNS ? LOOK_HEAT_COLUMNS : width;
	if (width < 1 || f->n < 1 || !(high > 0))
		return row;
	int each = (f->n + width * lines - 1) / (width * lines);
	for (int line = 0, at = 0; line < lines && at < f->n; line++) {
		int n = 0;
		for (; n < width && at < f->n; n++) {
			double most = 0;
			for (int k = 0; k < each && at < f->n; k++, at++)
				most = fmax(most, f->sides[side].positions[at].kl);
			values[n] = (float)fmin(most / high, 1);
		}
		look_heat_line(canvas, row++, 1, values, n);
	}
	int at = 1 + canvas_print(canvas, row, 1, ROLE_DIM, "KL ");
	canvas_legend(canvas, row, at, RAMP_SEQUENTIAL, 0, (float)high);
	return row + 1;
}

static void token_text(const struct model *model, int32_t id, struct text *out)
{
	struct text text = {0};
	tokenizer_decode(model->tokenizer, id, &text);
	for (size_t i = 0; i < text.length; i++)
		text_add_char(out, text.data[i] == '\n' || text.data[i] == '\t' ? ' ' : text.data[i]);
	text_free(&text);
}

/* The tokens before position i's next token, and that one in brackets. */
static void context_of(const struct fidelity_view *view, int i, struct text *out)
{
	const struct fidelity_job *job = view->done;
	int next = job->fidelity.first + i + 1, from = next > CONTEXT ? next - CONTEXT : 0;
	for (int k = from; k < next; k++)
		token_text(job->models[0], job->ids[k], out);
	text_add(out, "[");
	if (next < job->plan.n)
		token_text(job->models[0], job->ids[next], out);
	text_add(out, "]");
}

static void draw_worst(struct fidelity_view *view, const struct canvas *canvas, int row, int side)
{
	static const int sorted[N_WORST_ORDERS] = {[BY_KL] = 1, [BY_PLACE] = 0, [BY_DROP] = 3};
	const struct fidelity_job *job = view->done;
	const struct fidelity *f = &job->fidelity;
	struct table table = {0};
	table_add(&table, "at", 5, 0);
	table_add(&table, "KL", 7, 0);
	table_add(&table, "pA", 6, 1);
	table_add(&table, "pB", 6, 1);
	table_add(&table, "B says", -10, 3);
	int at = 1 + table_lay(&table, 1, canvas->columns / 2);
	struct canvas blank = canvas_part(canvas, row, 0, canvas->rows - row, canvas->columns);
	canvas_blank(&blank, ROLE_TEXT);
	table_head(&table, canvas, row, sorted[view->order]);
	canvas_text(canvas, row++, at + 1, ROLE_HEADING, "context");
	view->list_rows = canvas->rows - row;
	list_show(&view->list, view->n_worst, view->list_rows);
	for (int k = view->list.top; k < view->n_worst && row < canvas->rows; k++, row++) {
		int i = view->worst[k];
		const struct divergence_position *a = &f->sides[0].positions[i];
		const struct divergence_position *q = &f->sides[side].positions[i];
		enum role role = k == view->list.cursor ? ROLE_MARK : ROLE_TEXT;
		struct text text = {0};
		text_format(&text, "%d", f->first + i + 1);
		if (k == view->list.cursor)
			canvas_text(canvas, row, 0, role, ">");
		table_cell(&table, canvas, row, 0, role, text_chars(&text));
		table_cell(&table, canvas, row, 1, role, number_fixed(q->kl, 3).text);
		table_cell(&table, canvas, row, 2, role, number_fixed(exp(a->logprob), 3).text);
		table_cell(&table, canvas, row, 3, role, number_fixed(exp(q->logprob), 3).text);
		text_clear(&text);
		token_text(job->models[0], q->top, &text);
		table_cell(&table, canvas, row, 4, role, text_chars(&text));
		text_clear(&text);
		context_of(view, i, &text);
		canvas_text(canvas, row, at + 1, role, text_chars(&text));
		text_free(&text);
	}
}

void fidelity_view_draw(struct fidelity_view *view, const struct talk *talk,
						const struct canvas *canvas, int side)
{
	if (!ready(view, talk, canvas))
		return;
	if (side < 1 || side >= view->done->plan.n_sides)
		side = 1;
	if (view->side != side)
		list_worst(view, side);
	int row = draw_summary(view, canvas, side);
	if (canvas->rows >= 8)
		row = draw_strip(view, canvas, row, side);
	else if (row > canvas->rows - 2)
		row = canvas->rows - 2; // room for the worst
	draw_worst(view, canvas, row, side);
}

void fidelity_view_draw_layers(struct fidelity_view *view, const struct talk *talk,
							   const struct canvas *canvas, int side)
{
	static const char *const kinds[] = {"Mamba", "attention", "MoE", "MLP"};
	if (!ready(view, talk, canvas))
		return;
	const struct fidelity_job *job = view->done;
	if (side < 1 || side >= job->plan.n_sides)
		side = 1;
	const struct fidelity_layer *layers = job->fidelity.sides[side].layers;
	const struct fidelity_layer *base = job->fidelity.sides[0].layers;
	const struct config *config = &job->models[0]->config;
	struct table table = {0};
	canvas_print(canvas, 0, 0, ROLE_HEADING, "Where %.20s differs from %.20s", job->budgets[side],
				 job->budgets[0]);
	if (!layers || !base) {
		look_say(canvas, 1, ROLE_DIM,
				 "Layers of checkpoints of different shapes are not held against each other.");
		return;
	}
	table_add(&table, "layer", 5, 0);
	table_add(&table, "", -9, 3);
	table_add(&table, "distance", 8, 0);
	table_add(&table, "leak", 6, 1);
	table_add(&table, "orphan", 6, 1);
	table_add(&table, "overlap", 7, 1);
	table_add(&table, "lens A", 6, 4);
	table_add(&table, "lens B", 6, 4);
	table_add(&table, "apart", 7, 5);
	table_add(&table, "r(dist)", 7, 6);
	table_add(&table, "r(leak)", 7, 7);
	table_add(&table, "r(orph)", 7, 8);
	table_lay(&table, 1, canvas->columns - 1);
	table_head(&table, canvas, 1, -1);
	if (canvas->columns >= 96)
		canvas_right(canvas, 0, canvas->columns, ROLE_DIM,
					 "lens: top-1 is the final one's; apart: KL(A's lens || B's); r: with KL");
	int n = job->fidelity.n_layers + 1;
	view->layer_rows = canvas->rows - 2;
	list_show(&view->layers, n, view->layer_rows);
	for (int i = view->layers.top, row = 2; i < n && row < canvas->rows; i++, row++) {
		const struct fidelity_layer *layer = &layers[i];
		enum role role = i == view->layers.cursor ? ROLE_MARK : ROLE_TEXT;
		char text[16];
		snprintf(text, sizeof text, i + 1 < n ? "%d" : "norm", i);
		if (i == view->layers.cursor)
			canvas_text(canvas, row, 0, role, ">");
		table_cell(&table, canvas, row, 0, role, text);
		table_cell(&table, canvas, row, 1, role, i + 1 < n ? kinds[config->kinds[i]] : "");
		table_cell(&table, canvas, row, 2, role,
				   number_fixed(layer->mean[FIDELITY_DISTANCE], 4).text);
		table_cell(&table, canvas, row, 3, role, number_percent(layer->mean[FIDELITY_LEAK]).text);
		table_cell(&table, canvas, row, 4, role,
				   number_percent(layer->mean[FIDELITY_ORPHAN_MASS]).text);
		table_cell(&table, canvas, row, 5, role,
				   number_percent(layer->mean[FIDELITY_OVERLAP]).text);
		table_cell(&table, canvas, row, 6, role, number_percent(base[i].lens_top).text);
		table_cell(&table, canvas, row, 7, role, number_percent(layer->lens_top).text);
		table_cell(&table, canvas, row, 8, role, number_fixed(layer->apart_kl, 3).text);
		for (int m = 0; m < 3; m++)
			table_cell(&table, canvas, row, 9 + m, role,
					   number_fixed(layer->correlation[m], 3).text);
	}
}

bool fidelity_view_action(struct fidelity_view *view, enum action action, bool layers)
{
	if (!view->done)
		return false;
	if (layers)
		return list_action(&view->layers, view->done->fidelity.n_layers + 1, view->layer_rows,
						   action);
	if (action == ACTION_SORT) {
		view->order = (enum worst_order)((view->order + 1) % N_WORST_ORDERS);
		view->side = -1;
		return true;
	}
	return list_action(&view->list, view->n_worst, view->list_rows, action);
}
