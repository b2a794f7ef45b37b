#include "core/router.h"

#include "base/memory.h"
#include "core/slice.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *router_axis_name(const struct router_axis *axis)
{
	return axis->layers ? "layers" : axis_name(axis->axis);
}

/* ---- the network ---- */

static int find(const struct model *model, const struct router_axis *axis, int part, int64_t rows,
				int64_t columns, const struct tensor **out, struct error *err)
{
	char name[96];
	snprintf(name, sizeof name, "router.%s.%d.weight", router_axis_name(axis), part);
	const struct tensor *t = checkpoint_find(&model->router, name);
	if (!t)
		return fail(err, "%s: no tensor %s", model->elastic.router_file, name);
	if (t->dtype != DTYPE_F32 || t->n_dims != 2 || (rows && t->shape[0] != rows) ||
		t->shape[1] != columns) {
		char expected[32] = "d_router";
		if (rows)
			snprintf(expected, sizeof expected, "%lld", (long long)rows);
		return fail(err, "%s: %s is %s [%lld, %lld], expected F32 [%s, %lld]",
					model->elastic.router_file, name, dtype_name(t->dtype),
					(long long)(t->n_dims > 0 ? t->shape[0] : 0),
					(long long)(t->n_dims > 1 ? t->shape[1] : 0), expected, (long long)columns);
	}
	*out = t;
	return 0;
}

/* out (n_out): the raw logits of all layers for a mix of one-hots. */
static int evaluate(const struct tensor *w0, const struct tensor *w1, const float *mix, float *out,
					struct error *err)
{
	int64_t n_hidden = w0->shape[0], n_in = w0->shape[1], n_out = w1->shape[0];
	double *hidden = mem_new((size_t)n_hidden, sizeof *hidden, err);
	if (!hidden)
		return -1;
	const float *a = w0->data, *b = w1->data;
	for (int64_t j = 0; j < n_hidden; j++) {
		for (int64_t i = 0; i < n_in; i++)
			hidden[j] += (double)a[j * n_in + i] * (double)mix[i];
		hidden[j] = hidden[j] < 0 ? 0.1 * hidden[j] : hidden[j];
	}
	for (int64_t o = 0; o < n_out; o++) {
		double sum = 0;
		for (int64_t j = 0; j < n_hidden; j++)
			sum += (double)b[o * n_hidden + j] * hidden[j];
		out[o] = (float)sum;
	}
	free(hidden);
	return 0;
}

static void softmax(const float *logits, int n, double tau, float *out)
{
	double most = -INFINITY, sum = 0;
	for (int i = 0; i < n; i++)
		most = fmax(most, (double)logits[i]);
	for (int i = 0; i < n; i++)
		sum += exp(((double)logits[i] - most) / tau);
	for (int i = 0; i < n; i++)
		out[i] = (float)(exp(((double)logits[i] - most) / tau) / sum);
}

static void scale(float *logits, int n, bool normalize, float scaler)
{
	double mean = 0, square = 0, factor = (double)scaler;
	for (int i = 0; i < n; i++)
		mean += (double)logits[i] / n;
	for (int i = 0; i < n; i++)
		square += ((double)logits[i] - mean) * ((double)logits[i] - mean) / n;
	if (normalize && square > 0)
		factor /= sqrt(square);
	for (int i = 0; i < n; i++)
		logits[i] = (float)((double)logits[i] * factor);
}

/* ---- views ---- */

static void choose(struct router_row *row, const struct router_axis *axis)
{
	row->chosen = 0;
	for (int i = 1; i < axis->n_choices; i++)
		if (row->logits[i] > row->logits[row->chosen])
			row->chosen = i;
	row->runner_up = -1;
	for (int i = 0; i < axis->n_choices; i++)
		if (i != row->chosen &&
			(row->runner_up < 0 || row->logits[i] > row->logits[row->runner_up]))
			row->runner_up = i;
	row->width = axis->choices[row->chosen];
	row->margin = row->runner_up < 0
					  ? 0
					  : (double)row->logits[row->chosen] - (double)row->logits[row->runner_up];
}

static int width_of(const struct budget *budget, const struct router_axis *axis, int layer)
{
	if (!axis->layers) {
		return layer >= 0 && !budget_keeps_layer(budget, layer)
				   ? 0
				   : budget_width(budget, axis->axis, layer < 0 ? 0 : layer);
	}
	int kept = 0;
	for (int i = 0; i < budget->n_layers; i++)
		kept += budget_keeps_layer(budget, i);
	return kept;
}

/* The width of a whole-model axis that differs from layer to layer is not one number: then the
 * largest. */
static int plain_width(const struct budget *budget, const struct router_axis *axis)
{
	return axis->layers || axis->axis == AXIS_HIDDEN ? width_of(budget, axis, -1)
													 : budget->width[axis->axis];
}

/* The layers that carry the axis, ascending: one row each; not hetero: the single row -1. */
static int layers_of(const struct router_axis *axis, const struct config *config, int *layers)
{
	int n = 0;
	for (int i = 0; axis->hetero && i < config->n_layers; i++)
		if (axis_on_layer(axis->axis, config->kinds[i]))
			layers[n++] = i;
	if (!axis->hetero)
		layers[n++] = -1;
	return n;
}

/* What is evaluated: for each of n inputs a mix of the router's one-hots and the budget it stands
 * for. */
struct inputs {
	int n;
	int budget[MAX_BUDGETS]; // -1 = a mix
	float mix[MAX_BUDGETS][MAX_BUDGETS];
};

static int open_axis(struct router_view *view, const struct model *model,
					 const struct router_axis *axis, const struct inputs *in, int normalize,
					 struct error *err)
{
	int layers[CONFIG_MAX_LAYERS], n_layers = layers_of(axis, &model->config, layers);
	int n_choices = axis->n_choices, n_out = n_choices * n_layers;
	const struct tensor *w0, *w1;
	if (find(model, axis, 0, 0, model->elastic.n_router_budgets, &w0, err) < 0 ||
		find(model, axis, 1, n_out, w0->shape[0], &w1, err) < 0)
		return -1;
	struct router_axis_view *out = &view->axes[view->n_axes++];
	out->axis = axis;
	out->rows = mem_new((size_t)(in->n * n_layers), sizeof *out->rows, err);
	out->values = mem_new((size_t)(in->n * n_out), 3 * sizeof(float), err);
	if (!out->rows || !out->values)
		return -1;
	for (int b = 0; b < in->n; b++) {
		float *values = out->values + (size_t)b * (size_t)n_out * 3;
		if (evaluate(w0, w1, in->mix[b], values, err) < 0)
			return -1;
		for (int l = 0; l < n_layers; l++) {
			struct router_row *row = &out->rows[out->n_rows++];
			row->budget = in->budget[b];
			row->layer = layers[l];
			row->logits = values + l * n_choices;
			row->probabilities = row->logits + n_out;
			row->p_choice = row->probabilities + n_out;
			scale(row->logits, n_choices, normalize < 0 ? axis->normalize : normalize,
				  view->scaler);
			softmax(row->logits, n_choices, (double)view->tau, row->probabilities);
			softmax(row->logits, n_choices, 1, row->p_choice);
			choose(row, axis);
			if (row->budget >= 0) {
				const struct budget *budget = &model->elastic.budgets[row->budget];
				row->budget_width =
					row->layer < 0 ? plain_width(budget, axis) : width_of(budget, axis, row->layer);
				row->disagree = row->budget_width && row->budget_width != row->width;
				view->n_disagree += row->disagree;
			}
		}
	}
	return 0;
}

static void say_source(struct router_view *view, const struct model *model)
{
	const struct budget *first = &model->elastic.budgets[0];
	if (view->present) {
		text_format(&view->source, "router in %s", model->elastic.router_file);
		return;
	}
	text_add(&view->source, "no router in this checkpoint: widths come from ");
	for (int i = 0; i < model->elastic.n_budgets; i++) {
		const struct budget *budget = &model->elastic.budgets[i];
		if (i && strcmp(budget->source, first->source) == 0)
			continue;
		text_format(&view->source, "%s%s", i ? ", " : "", budget->source);
	}
}

static int open_view(struct router_view *view, const struct model *model, const struct inputs *in,
					 const struct router_options *options, struct error *err)
{
	const struct elastic *e = &model->elastic;
	*view = (struct router_view){0};
	view->present = model->router.n_tensors > 0 && e->n_router_axes > 0;
	view->tau = options && options->tau > 0 ? options->tau : e->router_tau;
	view->scaler = options && options->scaler > 0 ? options->scaler : e->router_scaler;
	say_source(view, model);
	int status = text_check(&view->source, err);
	for (int i = 0; view->present && i < e->n_router_axes && status == 0; i++) {
		status =
			open_axis(view, model, &e->router_axes[i], in, options ? options->normalize : -1, err);
	}
	if (status < 0)
		router_close(view);
	return status;
}

int router_open(struct router_view *view, const struct model *model,
				const struct router_options *options, struct error *err)
{
	struct inputs in = {.n = model->elastic.n_router_budgets};
	for (int i = 0; i < in.n; i++) {
		in.budget[i] = model->elastic.router_budgets[i];
		in.mix[i][i] = 1;
	}
	return open_view(view, model, &in, options, err);
}

void router_close(struct router_view *view)
{
	for (int i = 0; i < view->n_axes; i++) {
		free(view->axes[i].rows);
		free(view->axes[i].values);
	}
	text_free(&view->source);
	*view = (struct router_view){0};
}

/* ---- targets ---- */

static int target_of(const struct model *model, const struct budget *budget, const char *metric,
					 double *out, struct error *err)
{
	if (strcmp(budget->target_metric, metric) == 0) {
		*out = budget->target_value;
		return 0;
	}
	if (strcmp(metric, "ms") == 0)
		return fail(err, "budget %s has no target in ms", budget->name);
	struct slice_cost cost;
	if (slice_measure(&cost, &model->weights, &model->config, budget, err) < 0)
		return -1;
	*out = slice_cost_of(metric, &cost);
	return 0;
}

int router_open_target(struct router_view *view, const struct model *model, const char *metric,
					   double value, const struct router_options *options, struct error *err)
{
	struct inputs in = {.n = 1, .budget = {-1}};
	int n = model->elastic.n_router_budgets, above = -1, below = -1;
	double target[MAX_BUDGETS];
	*view = (struct router_view){0};
	if (model->router.n_tensors == 0)
		return fail(err, "no router in this checkpoint answers %s=%g", metric, value);
	for (int i = 0; i < n; i++) {
		const struct budget *budget = &model->elastic.budgets[model->elastic.router_budgets[i]];
		if (target_of(model, budget, metric, &target[i], err) < 0)
			return -1;
		if (target[i] >= value && (above < 0 || target[i] < target[above]))
			above = i;
		if (target[i] <= value && (below < 0 || target[i] > target[below]))
			below = i;
	}
	if (above < 0 || below < 0) {
		in.mix[0][above < 0 ? below : above] = 1;
	} else {
		double width = target[above] - target[below];
		double share = width > 0 ? (value - target[below]) / width : 1;
		in.mix[0][below] += (float)(1 - share);
		in.mix[0][above] += (float)share;
	}
	return open_view(view, model, &in, options, err);
}

/* The router says how many layers run; which ones go, importance.layers says. */
static int skip_layers(struct budget *budget, const struct model *model, int n_kept,
					   struct error *err)
{
	int n = budget->n_layers;
	const struct tensor *scores = checkpoint_find(&model->importance, "importance.layers");
	if (n_kept >= n)
		return 0;
	if (!scores || scores->dtype != DTYPE_F32 || scores->n_dims != 1 || scores->shape[0] != n)
		return fail(err,
					"the router keeps %d of %d layers, but importance.layers, which says which "
					"ones, is not there",
					n_kept, n);
	for (int left = n - n_kept; left > 0; left--) {
		const float *score = scores->data;
		int least = -1;
		for (int i = 0; i < n; i++)
			if (budget_keeps_layer(budget, i) && (least < 0 || score[i] < score[least]))
				least = i;
		if (budget_set_keep(budget, least, false, err) < 0)
			return -1;
	}
	return 0;
}

int router_budget(const struct router_view *view, const struct model *model, const char *name,
				  struct budget *budget, struct error *err)
{
	if (budget_init(budget, &model->config, name, err) < 0)
		return -1;
	budget->origin = ORIGIN_DERIVED;
	snprintf(budget->source, sizeof budget->source, "router");
	int status = 0;
	for (int a = 0; a < view->n_axes; a++) {
		const struct router_axis_view *view_axis = &view->axes[a];
		enum axis axis = view_axis->axis->axis;
		if (view_axis->axis->layers) {
			status |= skip_layers(budget, model, view_axis->rows[0].width, err);
			continue;
		}
		for (int r = 0; r < view_axis->n_rows && status == 0; r++) {
			const struct router_row *row = &view_axis->rows[r];
			if (row->layer < 0)
				budget_set_width(budget, axis, row->width);
			else
				status = budget_set_layer_width(budget, &model->config, axis, row->layer,
												row->width, err);
		}
	}
	if (status < 0 || budget_check(budget, &model->config, err) < 0) {
		budget_free(budget);
		return -1;
	}
	return 0;
}
