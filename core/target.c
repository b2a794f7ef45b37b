#include "core/target.h"

#include "base/memory.h"
#include "base/size.h"
#include "core/router.h"
#include "core/slice.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const metrics[] = {"active", "total", "bytes"};

/* The number behind METRIC=, or NULL. */
static const char *value_of(const char *typed, const char **metric)
{
	for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
		size_t n = strlen(metrics[i]);
		*metric = metrics[i];
		if (strncmp(typed, metrics[i], n) == 0 && typed[n] == '=')
			return typed + n + 1;
	}
	return NULL;
}

bool target_is(const char *typed)
{
	const char *metric;
	return value_of(typed, &metric) != NULL;
}

int target_parse(struct target *target, const char *typed, struct error *err)
{
	const char *metric, *value = value_of(typed, &metric);
	uint64_t bytes = 0;
	*target = (struct target){0};
	if (!value)
		return fail(err, "%.100s: expected active=, total= or bytes= and a size", typed);
	snprintf(target->metric, sizeof target->metric, "%s", metric);
	int failed = strcmp(metric, "bytes") == 0 ? size_parse(value, &bytes, err)
											  : count_parse(value, &target->value, err);
	if (failed)
		return fail_in(err, "%s", metric);
	if (bytes > 0)
		target->value = (double)bytes;
	return 0;
}

/* ---- without a router: importance ---- */

/* Retained importance of an axis by width, as running sums: share[w] of the first w channels (of
 * the first w / groups of every group), mean over the layers that have scores. */
struct retained {
	enum axis axis;
	int parent, step; // widths tried: multiples of step
	int n_layers;     // that a cut reaches: hidden_size reaches all
	double *share;    // (parent + 1); NULL = no scores
};

static const struct tensor *scores_of(const struct model *model, enum axis axis, int layer)
{
	char name[128];
	if (axis == AXIS_HIDDEN)
		snprintf(name, sizeof name, "importance.hidden_size");
	else
		snprintf(name, sizeof name, "importance.%d.%s%s", layer, axis_name(axis),
				 axis == AXIS_EXPERTS ? ".reap" : "");
	return model->importance.n_tensors ? checkpoint_find(&model->importance, name) : NULL;
}

/* Adds a layer's share by width; rows (experts) count alike. 1 = added, 0 = no such scores. */
static int add_layer(struct retained *r, const struct tensor *scores, int groups, double *sum)
{
	int n = r->parent, per_group = n / groups;
	if (!scores || scores->dtype != DTYPE_F32 || scores->n_dims < 1 ||
		scores->shape[scores->n_dims - 1] != n)
		return 0;
	const float *score = scores->data;
	size_t rows = (size_t)(scores->bytes / sizeof(float)) / (size_t)n;
	double total = 0;
	memset(sum, 0, (size_t)n * sizeof *sum); // of the channels at the same place of their groups
	for (size_t row = 0; row < rows; row++)
		for (int i = 0; i < n; i++)
			sum[i % per_group] += (double)score[row * (size_t)n + (size_t)i];
	for (int i = 0; i < per_group; i++)
		total += sum[i];
	double kept = 0;
	for (int i = 0; i < per_group && total > 0; i++) {
		kept += sum[i];
		for (int g = 0; g < groups; g++)
			r->share[i * groups + g + 1] += kept / total;
	}
	return total > 0;
}

/* Channels that are cut together: whole groups, blocks of a quantised input, at least a 32nd. */
static int step_of(enum axis axis, const struct model *model)
{
	int parent = axis_parent_width(axis, &model->config), unit = axis_groups(axis, &model->config);
	bool channels = axis == AXIS_HIDDEN || axis == AXIS_EXPERT_FFN || axis == AXIS_SHARED_FFN ||
					axis == AXIS_FFN;
	if (channels && unit < NVFP4_BLOCK)
		unit = NVFP4_BLOCK;
	int coarse = parent / 32 / unit * unit;
	return coarse > unit ? coarse : unit;
}

static int open_retained(struct retained *r, enum axis axis, const struct model *model,
						 struct error *err)
{
	const struct config *config = &model->config;
	int groups = axis_groups(axis, config), n_layers = 0;
	*r = (struct retained){
		.axis = axis, .parent = axis_parent_width(axis, config), .step = step_of(axis, model)};
	if (!axis_in_model(axis, config))
		return 0;
	size_t n = (size_t)r->parent;
	r->share = mem_new(n + 1, sizeof *r->share, err);
	double *sum = mem_new(n, sizeof *sum, err);
	for (int i = 0; r->share && sum && i < config->n_layers; i++)
		if ((axis == AXIS_HIDDEN && i == 0) ||
			(axis != AXIS_HIDDEN && axis_on_layer(axis, config->kinds[i])))
			n_layers += add_layer(r, scores_of(model, axis, i), groups, sum);
	int failed = !r->share || !sum;
	free(sum);
	for (size_t i = 0; !failed && n_layers > 0 && i <= n; i++)
		r->share[i] /= n_layers;
	r->n_layers = axis == AXIS_HIDDEN ? config->n_layers : n_layers;
	if (failed || n_layers == 0) {
		free(r->share);
		r->share = NULL;
	}
	return failed ? -1 : 0;
}

/* The next smaller width of an axis; 0 = it stays as it is. */
static int narrower(const struct retained *r, int width, const struct budget *budget)
{
	int next = r->share ? (width - 1) / r->step * r->step : 0;
	bool lasts = next > 0 && (r->axis != AXIS_EXPERTS || next >= budget->top_k);
	return lasts && r->share[next] > 0 ? next : 0;
}

/* One step down: the axis that loses least, in log of what is retained summed over the layers that
 * it reaches, for what it saves of what is still to be saved. 1 = taken, 0 = nothing is left to
 * cut. */
static int descend(struct budget *budget, const struct model *model,
				   const struct retained axes[N_AXES], const struct target *target,
				   struct slice_cost *cost, struct error *err)
{
	double best = INFINITY, now = slice_cost_of(target->metric, cost);
	int best_axis = -1, best_width = 0;
	struct slice_cost best_cost = *cost;
	for (int a = 0; a < N_AXES; a++) {
		int width = budget->width[a], next = narrower(&axes[a], width, budget);
		struct slice_cost then;
		if (next == 0)
			continue;
		budget_set_width(budget, a, next);
		int failed = slice_measure(&then, &model->weights, &model->config, budget, err);
		budget_set_width(budget, a, width);
		if (failed)
			return -1;
		double saved = fmin(now - slice_cost_of(target->metric, &then), now - target->value);
		double lost = axes[a].n_layers * (log(axes[a].share[width]) - log(axes[a].share[next]));
		if (saved > 0 && lost / saved < best) {
			best = lost / saved;
			best_axis = a;
			best_width = next;
			best_cost = then;
		}
	}
	if (best_axis < 0)
		return 0;
	budget_set_width(budget, best_axis, best_width);
	*cost = best_cost;
	return 1;
}

/* Axes that may be cut: those of the file's budgets, which were trained for it; without budgets
 * those that the released family cuts. */
static bool may_cut(enum axis axis, const struct model *model)
{
	const struct elastic *elastic = &model->elastic;
	bool cut = false;
	for (int i = 1; i < elastic->n_budgets; i++)
		cut |= elastic->budgets[i].width[axis] != elastic->budgets[0].width[axis];
	return elastic->n_budgets > 1
			   ? cut
			   : axis == AXIS_HIDDEN || axis == AXIS_EXPERT_FFN || axis == AXIS_FFN;
}

static int by_importance(const struct model *model, const struct target *target, const char *name,
						 struct budget *out, struct error *err)
{
	struct retained axes[N_AXES] = {0};
	struct slice_cost cost = {0};
	int status = budget_init(out, &model->config, name, err), scored = 0;
	for (int a = 0; a < N_AXES && status == 0; a++) {
		if (!may_cut((enum axis)a, model))
			continue;
		status = open_retained(&axes[a], (enum axis)a, model, err);
		scored += axes[a].share != NULL;
	}
	if (status == 0 && scored == 0)
		status = fail(err,
					  "%s: there is no router and no measured importance to choose widths by; "
					  "type widths (hidden_size=96,...) or run calibrate",
					  name);
	if (status == 0)
		status = slice_measure(&cost, &model->weights, &model->config, out, err);
	int taken = 1;
	while (status == 0 && taken > 0 && slice_cost_of(target->metric, &cost) > target->value)
		status = (taken = descend(out, model, axes, target, &cost, err)) < 0 ? -1 : 0;
	if (status == 0 && taken == 0)
		status = fail(err, "%s: the least that importance can choose is %.0f", name,
					  slice_cost_of(target->metric, &cost));
	for (int a = 0; a < N_AXES; a++)
		free(axes[a].share);
	out->origin = ORIGIN_DERIVED;
	snprintf(out->source, sizeof out->source, "importance");
	if (status < 0)
		budget_free(out);
	return status;
}

/* ---- both ---- */

static int by_router(const struct model *model, const struct target *target, const char *name,
					 struct budget *out, struct error *err)
{
	struct router_view view;
	if (router_open_target(&view, model, target->metric, target->value, NULL, err) < 0)
		return -1;
	int status = router_budget(&view, model, name, out, err);
	router_close(&view);
	return status;
}

int target_budget(const struct model *model, const struct target *target, const char *name,
				  struct budget *out, struct error *err)
{
	*out = (struct budget){0};
	return model->router.n_tensors > 0 ? by_router(model, target, name, out, err)
									   : by_importance(model, target, name, out, err);
}

/* Axes on which the budget is not the parent: "hidden_size=96, moe_intermediate_size=32-64". */
static void add_widths(const struct budget *budget, const struct config *config, struct text *out)
{
	const char *comma = "";
	for (int a = 0; a < N_AXES; a++) {
		enum axis axis = (enum axis)a;
		int least = INT32_MAX, most = 0;
		for (int i = 0; i < config->n_layers; i++) {
			if (!axis_on_layer(axis, config->kinds[i]) || !budget_keeps_layer(budget, i))
				continue;
			int width = budget_width(budget, axis, i);
			least = width < least ? width : least;
			most = width > most ? width : most;
		}
		if (most == 0 || least == axis_parent_width(axis, config))
			continue;
		text_format(out, "%s%s=%d", comma, axis_name(axis), least);
		if (most != least)
			text_format(out, "-%d", most);
		comma = ", ";
	}
	int n_kept = 0;
	for (int i = 0; i < config->n_layers; i++)
		n_kept += budget_keeps_layer(budget, i);
	if (n_kept < config->n_layers) {
		text_format(out, "%s%d of %d layers", comma, n_kept, config->n_layers);
		comma = ", ";
	}
	if (!*comma)
		text_add(out, "the parent's widths");
}

int target_note(const struct model *model, const struct budget *budget, struct text *out,
				struct error *err)
{
	struct slice_cost cost;
	if (slice_measure(&cost, &model->weights, &model->config, budget, err) < 0)
		return -1;
	text_format(out, "%s: %s chose ", budget->name,
				strcmp(budget->source, "router") == 0 ? "the router" : "importance");
	add_widths(budget, &model->config, out);
	char active[32], total[32], bytes[32];
	text_format(out, "; %s active of %s parameters, %s", count_text((double)cost.active, active),
				count_text((double)cost.total, total), size_text(cost.bytes, bytes));
	struct target target;
	if (target_parse(&target, budget->name, NULL) == 0 &&
		slice_cost_of(target.metric, &cost) > target.value * 1.0001)
		text_add(out, ", above the target");
	return text_check(out, err);
}
