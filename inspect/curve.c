#include "inspect/curve.h"
#include "base/memory.h"
#include "inspect/rank.h"
#include "kernels/pick.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- widths ---- */

/* Channels of an axis that are kept or cut together: of every group alike, whole blocks. */
static int unit_of(const struct model *model, enum axis axis)
{
	int groups = axis_groups(axis, &model->config);
	int block = weights_block(&model->weights, &model->config, axis, -1);

	return block > groups ? block : groups;
}

static int compare_widths(const void *a, const void *b)
{
	return *(const int *)a - *(const int *)b;
}

static void mark_trained(struct curve_axis *a, const struct model *model)
{
	for (int w = 0; w < a->n; w++)
		for (int b = 0; b < model->elastic.n_budgets; b++)
			for (int i = 0; i < model->config.n_layers; i++)
				if (axis_on_layer(a->axis, model->config.kinds[i]) &&
					budget_keeps_layer(&model->elastic.budgets[b], i) &&
					budget_width(&model->elastic.budgets[b], a->axis, i) == a->widths[w])
					a->trained[w] |= UINT32_C(1) << b;
}

/* Sorted, each once; the parent's own last, though nobody asked for it. */
static void put_in_order(struct curve_axis *a, const struct model *model)
{
	int n = 0;

	qsort(a->widths, (size_t)a->n, sizeof *a->widths, compare_widths);
	for (int i = 0; i < a->n; i++)
		if (a->widths[i] < a->parent && (n == 0 || a->widths[i] != a->widths[n - 1]))
			a->widths[n++] = a->widths[i];
	a->widths[n++] = a->parent;
	a->n = n;
	memset(a->trained, 0, sizeof a->trained);
	mark_trained(a, model);
}

static int least_width(const struct curve_axis *a, const struct model *model)
{
	int top_k = model->elastic.budgets[0].top_k;

	return a->axis == AXIS_EXPERTS && top_k > a->unit ? top_k : a->unit;
}

static int add_width(struct curve_axis *a, const struct model *model, int width, struct error *err)
{
	int least = least_width(a, model);

	if (width < least || width > a->parent || width % a->unit)
		return fail(err, "%s %d: expected %d to %d in steps of %d", axis_name(a->axis), width,
					least, a->parent, a->unit);
	if (a->n == CURVE_WIDTHS - 1)
		return fail(err, "%s: more than %d widths; a larger --step", axis_name(a->axis),
					CURVE_WIDTHS - 1);
	a->widths[a->n++] = width;
	return 0;
}

/* 16, or an eighth of a short axis, in whole units. */
static int default_step(const struct curve_axis *a)
{
	int step = a->parent / 8 < 16 ? a->parent / 8 : 16;

	step -= step % a->unit;
	return step > 0 ? step : a->unit;
}

static int add_trained(struct curve_axis *a, const struct model *model, struct error *err)
{
	for (int b = 0; b < model->elastic.n_budgets; b++)
		for (int i = 0; i < model->config.n_layers; i++) {
			const struct budget *budget = &model->elastic.budgets[b];
			int width = budget_width(budget, a->axis, i);
			bool there = false;
			if (!axis_on_layer(a->axis, model->config.kinds[i]) || !budget_keeps_layer(budget, i) ||
				width < least_width(a, model) || width % a->unit)
				continue;
			for (int w = 0; w < a->n && !there; w++)
				there = a->widths[w] == width;
			if (!there && add_width(a, model, width, err))
				return -1;
		}
	return 0;
}

int curve_axis_open(struct curve_axis *out, const struct model *model, enum axis axis, int step,
					const int *widths, int n, struct error *err)
{
	*out = (struct curve_axis){.axis = axis, .parent = axis_parent_width(axis, &model->config)};
	if (!axis_in_model(axis, &model->config))
		return fail(err, "%s: no layer of this model has that axis", axis_name(axis));
	out->unit = unit_of(model, axis);
	for (int i = 0; i < n; i++)
		if (add_width(out, model, widths[i], err))
			return -1;
	out->step = step > 0 ? step : default_step(out);
	if (n == 0 && out->step % out->unit)
		return fail(err, "--step %d: %s is cut in steps of %d", step, axis_name(axis), out->unit);
	for (int width = out->step; n == 0 && width < out->parent; width += out->step)
		if (width >= least_width(out, model) && add_width(out, model, width, err))
			return -1;
	if (n == 0 && add_trained(out, model, err))
		return -1;
	put_in_order(out, model);
	return out->n > 1 ? 0
					  : fail(err, "%s: no width below the parent's %d to try", axis_name(axis),
							 out->parent);
}

/* ---- budgets ---- */

struct choice {
	enum axis axis;
	int layer, groups, stored, kept, block; // stored and kept: of one group, in blocks
	enum curve_order order;
	uint64_t seed;
	int draw;
};

/* keep: (groups * stored) blocks. */
static int choose(const struct choice *c, uint8_t *keep, struct error *err)
{
	float *score = mem_new((size_t)c->stored, sizeof *score, err);
	int *rank = mem_new((size_t)c->stored, sizeof *rank, err);
	int result = score && rank ? 0 : -1;

	for (int g = 0; g < c->groups && !result; g++) {
		for (int i = 0; i < c->stored; i++)
			score[i] = c->order == CURVE_RANDOM
						   ? (float)pick_noise(c->seed + (uint64_t)c->draw,
											   (int64_t)c->layer * N_AXES + c->axis,
											   g * c->stored + i)
						   : (float)i; // the last ones win
		result = rank_order(score, c->stored, rank, err);
		for (int k = 0; k < c->kept && !result; k++)
			keep[g * c->stored + rank[k]] = 1;
	}
	free(score);
	free(rank);
	return result;
}

static int add_runs(struct budget *budget, const struct choice *c, struct error *err)
{
	size_t n = (size_t)c->groups * (size_t)c->stored;
	uint8_t *keep = mem_new(n, 1, err);
	struct span_list list = {0};
	int result = keep ? choose(c, keep, err) : -1;

	for (size_t i = 0; i < n && !result; i++)
		if (keep[i])
			result = span_list_add(&list, (int)i * c->block, c->block, err);
	free(keep);
	if (result) {
		free(list.spans);
		return -1;
	}
	return budget_set_runs(budget, c->axis, c->axis == AXIS_HIDDEN ? -1 : c->layer, &list, err);
}

/* Explicit runs of the axis on every layer that has it. */
static int cut_by_runs(struct budget *budget, const struct model *model, struct choice c, int width,
					   struct error *err)
{
	const struct config *config = &model->config;

	c.groups = axis_groups(c.axis, config);
	c.block = unit_of(model, c.axis) / c.groups;
	c.stored = axis_parent_width(c.axis, config) / c.groups / c.block;
	c.kept = width / c.groups / c.block;
	for (c.layer = 0; c.layer < config->n_layers; c.layer++)
		if (axis_on_layer(c.axis, config->kinds[c.layer])) {
			if (add_runs(budget, &c, err))
				return -1;
			if (c.axis == AXIS_HIDDEN) // one set for the whole model
				return 0;
		}
	return 0;
}

int curve_budget(struct budget *budget, const struct model *model, enum axis axis, int width,
				 enum curve_order order, uint64_t seed, int draw, struct error *err)
{
	static const char *const words[] = {"first", "last", "random"};
	struct choice choice = {.axis = axis, .order = order, .seed = seed, .draw = draw};

	if (budget_copy(budget, &model->elastic.budgets[0], err))
		return -1;
	snprintf(budget->name, sizeof budget->name, "%s=%d %s", axis_name(axis), width, words[order]);
	budget->origin = ORIGIN_DERIVED;
	budget_set_width(budget, axis, width);
	if ((order != CURVE_FIRST && cut_by_runs(budget, model, choice, width, err)) ||
		budget_check(budget, &model->config, err)) {
		budget_free(budget);
		return -1;
	}
	return 0;
}

static void free_budgets(struct budget *budgets, size_t n)
{
	for (size_t i = 0; budgets && i < n; i++)
		budget_free(&budgets[i]);
	free(budgets);
}

/* ---- one axis ---- */

/* Budgets of a point: first, last, draws. */
static int point_budgets(struct budget *out, const struct model *model, const struct curve *curve,
						 int width, struct error *err)
{
	enum axis axis = curve->axis.axis;

	if (curve_budget(&out[0], model, axis, width, CURVE_FIRST, 0, 0, err) ||
		curve_budget(&out[1], model, axis, width, CURVE_LAST, 0, 0, err))
		return -1;
	for (int d = 0; d < curve->draws; d++)
		if (curve_budget(&out[2 + d], model, axis, width, CURVE_RANDOM, curve->seed, d, err))
			return -1;
	return 0;
}

static void keep_point(struct curve_point *point, const struct trial *trials, int draws)
{
	double kl[CURVE_DRAWS];

	*point = (struct curve_point){.first = trials[0],
								  .last = trials[1],
								  .random_low = NAN,
								  .random_high = NAN,
								  .random_top = draws ? 0 : NAN,
								  .random_ppl = draws ? 0 : NAN};
	for (int d = 0; d < draws; d++) {
		const struct trial *t = &trials[2 + d];
		point->draws[d] = *t;
		kl[d] = t->kl.value;
		point->random_low = fmin(point->random_low, kl[d]);
		point->random_high = fmax(point->random_high, kl[d]);
		point->random_top += t->same_top / draws;
		point->random_ppl += t->ppl.value / draws;
	}
	point->random_kl = statistics_mean(kl, (size_t)draws);
}

int curve_run(struct curve *curve, const struct trials_plan *plan, const struct curve_axis *axis,
			  int draws, uint64_t seed, struct error *err)
{
	*curve = (struct curve){.axis = *axis, .draws = draws, .seed = seed};
	if (draws < 0 || draws > CURVE_DRAWS)
		return fail(err, "%d random draws: expected 0 to %d", draws, CURVE_DRAWS);
	size_t each = 2 + (size_t)draws, points = (size_t)axis->n - 1, n = points * each;
	struct budget *budgets = mem_new(n, sizeof *budgets, err);
	struct trial *trials = mem_new(n, sizeof *trials, err);
	curve->points = mem_new(points, sizeof *curve->points, err);
	int result = budgets && trials && curve->points ? 0 : -1;
	for (size_t i = 0; i < points && !result; i++)
		result = point_budgets(budgets + i * each, plan->model, curve, axis->widths[i], err);
	if (!result)
		result = trials_run(plan, budgets, (int)n, trials, &curve->parent, err);
	for (size_t i = 0; i < points && !result; i++)
		keep_point(&curve->points[i], trials + i * each, draws);
	free_budgets(budgets, n);
	free(trials);
	if (result)
		curve_free(curve);
	return result;
}

void curve_free(struct curve *curve)
{
	free(curve->points);
	*curve = (struct curve){0};
}

/* ---- two axes ---- */

int curve_map_run(struct curve_map *map, const struct trials_plan *plan,
				  const struct curve_axis axes[2], struct error *err)
{
	size_t n = (size_t)axes[0].n * (size_t)axes[1].n;

	*map = (struct curve_map){.axes = {axes[0], axes[1]}};
	if (axes[0].axis == axes[1].axis)
		return fail(err, "a map of %s against itself: expected two axes", axis_name(axes[0].axis));
	struct budget *budgets = mem_new(n, sizeof *budgets, err);
	map->cells = mem_new(n, sizeof *map->cells, err);
	int result = budgets && map->cells ? 0 : -1;
	for (size_t i = 0; i + 1 < n && !result; i++) { // the last one is the parent
		int widths[2] = {axes[0].widths[i / (size_t)axes[1].n],
						 axes[1].widths[i % (size_t)axes[1].n]};
		result =
			curve_budget(&budgets[i], plan->model, axes[0].axis, widths[0], CURVE_FIRST, 0, 0, err);
		if (result)
			break;
		budget_set_width(&budgets[i], axes[1].axis, widths[1]);
		snprintf(budgets[i].name, sizeof budgets[i].name, "%s=%d,%s=%d", axis_name(axes[0].axis),
				 widths[0], axis_name(axes[1].axis), widths[1]);
	}
	if (!result)
		result = trials_run(plan, budgets, (int)n - 1, map->cells, &map->parent, err);
	if (!result)
		map->cells[n - 1] = map->parent;
	free_budgets(budgets, n);
	if (result)
		curve_map_free(map);
	return result;
}

void curve_map_free(struct curve_map *map)
{
	free(map->cells);
	*map = (struct curve_map){0};
}
