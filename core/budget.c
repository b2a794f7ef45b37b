#include "core/budget.h"

#include "base/memory.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static bool applies(const struct budget *budget, const struct config *config, enum axis axis,
					int layer)
{
	return axis != AXIS_HIDDEN && axis_on_layer(axis, config->kinds[layer]) &&
		   budget_keeps_layer(budget, layer);
}

static void *duplicate(const void *from, size_t n, size_t size, struct error *err)
{
	void *to = mem_new(n, size, err);
	if (to && n)
		memcpy(to, from, n * size);
	return to;
}

int budget_init(struct budget *budget, const struct config *config, const char *name,
				struct error *err)
{
	*budget = (struct budget){.origin = ORIGIN_FILE,
							  .source = "config.json",
							  .n_layers = config->n_layers,
							  .top_k = config->num_experts_per_tok};
	size_t length = strlen(name);
	if (length == 0 || length >= sizeof budget->name) {
		return fail(err, "budget name \"%.80s\" has %zu bytes, expected 1 to %zu", name, length,
					sizeof budget->name - 1);
	}
	memcpy(budget->name, name, length + 1);
	for (int a = 0; a < N_AXES; a++)
		budget->width[a] = axis_parent_width(a, config);
	return 0;
}

int budget_copy(struct budget *to, const struct budget *from, struct error *err)
{
	struct budget copy = *from;
	memset(copy.layer_width, 0, sizeof copy.layer_width);
	copy.keep = NULL;
	copy.runs = NULL;
	copy.n_runs = 0;
	copy.forced = NULL;
	size_t n = (size_t)from->n_layers;
	for (int a = 0; a < N_AXES; a++)
		if (from->layer_width[a] &&
			!(copy.layer_width[a] = duplicate(from->layer_width[a], n, sizeof(int), err)))
			goto out;
	if (from->keep && !(copy.keep = duplicate(from->keep, n, 1, err)))
		goto out;
	if (from->n_forced &&
		!(copy.forced = duplicate(from->forced, (size_t)from->n_forced, sizeof *copy.forced, err)))
		goto out;
	if (from->n_runs) {
		copy.runs = mem_new((size_t)from->n_runs, sizeof *copy.runs, err);
		if (!copy.runs)
			goto out;
		for (; copy.n_runs < from->n_runs; copy.n_runs++) {
			struct budget_runs *runs = &copy.runs[copy.n_runs];
			*runs = from->runs[copy.n_runs];
			runs->spans = duplicate(runs->spans, (size_t)runs->n_spans, sizeof(struct span), err);
			if (!runs->spans)
				goto out;
		}
	}
	*to = copy;
	return 0;
out:
	budget_free(&copy);
	*to = (struct budget){0};
	return -1;
}

void budget_free(struct budget *budget)
{
	for (int a = 0; a < N_AXES; a++)
		free(budget->layer_width[a]);
	free(budget->keep);
	for (int i = 0; i < budget->n_runs; i++)
		free(budget->runs[i].spans);
	free(budget->runs);
	free(budget->forced);
	*budget = (struct budget){0};
}

const char *norm_rule_name(enum norm_rule rule)
{
	static const char *const names[] = {"slice", "masked", "uncorrected"};
	return names[rule];
}

const char *heads_rule_name(enum heads_rule rule)
{
	return rule == HEADS_GLOBAL ? "global" : "grouped";
}

const struct budget_runs *budget_runs_of(const struct budget *budget, enum axis axis, int layer)
{
	for (int i = 0; i < budget->n_runs; i++) {
		const struct budget_runs *runs = &budget->runs[i];
		if (runs->axis == axis && (axis == AXIS_HIDDEN || runs->layer == layer))
			return runs;
	}
	return NULL;
}

bool budget_has_runs(const struct budget *budget, enum axis axis)
{
	for (int i = 0; i < budget->n_runs; i++)
		if (budget->runs[i].axis == axis)
			return true;
	return false;
}

/* Of one layer, or of all (-1). */
static void remove_runs(struct budget *budget, enum axis axis, int layer)
{
	int kept = 0;
	for (int i = 0; i < budget->n_runs; i++) {
		struct budget_runs runs = budget->runs[i];
		if (runs.axis == axis && (layer < 0 || runs.layer == layer))
			free(runs.spans);
		else
			budget->runs[kept++] = runs;
	}
	budget->n_runs = kept;
}

/* Whether that place comes before those runs. */
static bool runs_before(enum axis axis, int layer, const struct budget_runs *runs)
{
	return runs->axis > axis || (runs->axis == axis && runs->layer > layer);
}

void budget_set_width(struct budget *budget, enum axis axis, int width)
{
	remove_runs(budget, axis, -1);
	free(budget->layer_width[axis]);
	budget->layer_width[axis] = NULL;
	budget->width[axis] = width;
}

int budget_set_layer_width(struct budget *budget, const struct config *config, enum axis axis,
						   int layer, int width, struct error *err)
{
	int *list = budget->layer_width[axis], largest = 0, smallest = INT32_MAX;
	if (!list && !(list = mem_new((size_t)budget->n_layers, sizeof *list, err)))
		return -1;
	for (int i = 0; i < budget->n_layers; i++) {
		if (!axis_on_layer(axis, config->kinds[i]))
			continue;
		if (!budget->layer_width[axis])
			list[i] = budget->width[axis];
		if (i == layer)
			list[i] = width;
		largest = list[i] > largest ? list[i] : largest;
		smallest = list[i] < smallest ? list[i] : smallest;
	}
	remove_runs(budget, axis, layer);
	budget->width[axis] = largest;
	budget->layer_width[axis] = largest == smallest ? NULL : list; // all the same: no list
	if (largest == smallest)
		free(list);
	return 0;
}

int budget_set_runs(struct budget *budget, enum axis axis, int layer, struct span_list *kept,
					struct error *err)
{
	remove_runs(budget, axis, layer);
	size_t capacity = (size_t)budget->n_runs;
	if (mem_grow(&budget->runs, &capacity, capacity + 1, sizeof *budget->runs, err) < 0) {
		free(kept->spans);
		return -1;
	}
	int at = budget->n_runs++;
	for (; at > 0 && runs_before(axis, layer, &budget->runs[at - 1]); at--)
		budget->runs[at] = budget->runs[at - 1];
	budget->runs[at] = (struct budget_runs){layer, axis, kept->spans, (int)kept->n};
	return 0;
}

int budget_set_keep(struct budget *budget, int layer, bool keep, struct error *err)
{
	if (!budget->keep) {
		budget->keep = mem_new((size_t)budget->n_layers, 1, err);
		if (!budget->keep)
			return -1;
		memset(budget->keep, 1, (size_t)budget->n_layers);
	}
	budget->keep[layer] = keep;
	return 0;
}

bool budget_keeps_layer(const struct budget *budget, int layer)
{
	return !budget->keep || budget->keep[layer];
}

int budget_width(const struct budget *budget, enum axis axis, int layer)
{
	const struct budget_runs *runs = budget_runs_of(budget, axis, layer);
	if (runs) {
		int width = 0;
		for (int i = 0; i < runs->n_spans; i++)
			width += runs->spans[i].length;
		return width;
	}
	return budget->layer_width[axis] && axis != AXIS_HIDDEN ? budget->layer_width[axis][layer]
															: budget->width[axis];
}

int span_list_add(struct span_list *list, int start, int length, struct error *err)
{
	if (length == 0)
		return 0;
	struct span *last = list->n ? &list->spans[list->n - 1] : NULL;
	if (last && last->start + last->length == start) {
		last->length += length;
		return 0;
	}
	if (mem_grow(&list->spans, &list->capacity, list->n + 1, sizeof *list->spans, err) < 0)
		return -1;
	list->spans[list->n++] = (struct span){start, length};
	return 0;
}

int budget_spans(const struct budget *budget, const struct config *config, enum axis axis,
				 int layer, struct span_list *out, struct error *err)
{
	const struct budget_runs *runs = budget_runs_of(budget, axis, layer);
	if (runs) {
		for (int i = 0; i < runs->n_spans; i++)
			if (span_list_add(out, runs->spans[i].start, runs->spans[i].length, err) < 0)
				return -1;
		return 0;
	}
	int groups = budget->heads == HEADS_GLOBAL ? 1 : axis_groups(axis, config);
	int stored = axis_parent_width(axis, config) / groups;
	int kept = budget_width(budget, axis, layer) / groups;
	for (int g = 0; g < groups; g++)
		if (span_list_add(out, g * stored, kept, err) < 0)
			return -1;
	return 0;
}

/* ---- checks ---- */

static int check_runs(const struct budget *budget, const struct config *config, struct error *err)
{
	for (int i = 0; i < budget->n_runs; i++) {
		const struct budget_runs *runs = &budget->runs[i];
		const char *name = axis_name(runs->axis);
		if (runs->axis != AXIS_HIDDEN && (runs->layer < 0 || runs->layer >= config->n_layers ||
										  !axis_on_layer(runs->axis, config->kinds[runs->layer]))) {
			return fail(err, "budget %s: runs of %s for layer %d, which has no such axis",
						budget->name, name, runs->layer);
		}
		int width = axis_parent_width(runs->axis, config), end = 0;
		for (int s = 0; s < runs->n_spans; s++) {
			struct span span = runs->spans[s];
			if (span.length <= 0 || span.start < end || span.start > width - span.length) {
				return fail(err,
							"budget %s: layer %d: run [%d, %d) of %s is empty, overlaps the one "
							"before it or leaves the parent's %d",
							budget->name, runs->layer, span.start, span.start + span.length, name,
							width);
			}
			end = span.start + span.length;
		}
		if (runs->n_spans == 0) {
			return fail(err, "budget %s: layer %d: the runs of %s keep nothing", budget->name,
						runs->layer, name);
		}
	}
	return 0;
}

static int check_width(const struct budget *budget, const struct config *config, enum axis axis,
					   int layer, struct error *err)
{
	if (budget_runs_of(budget, axis, layer))
		return 0;
	char where[32] = "";
	if (axis != AXIS_HIDDEN && budget->layer_width[axis])
		snprintf(where, sizeof where, "layer %d: ", layer);
	int width = budget_width(budget, axis, layer);
	int parent = axis_parent_width(axis, config), groups = axis_groups(axis, config);
	if (parent == 0 && width == 0)
		return 0; // a MoE model without a shared expert
	if (width <= 0 || width > parent) {
		return fail(err, "budget %s: %s%s is %d, expected 1 to the parent's %d", budget->name,
					where, axis_name(axis), width, parent);
	}
	if (width % groups) {
		return fail(err,
					"budget %s: %s%s is %d, expected a multiple of the %d groups that it is cut in",
					budget->name, where, axis_name(axis), width, groups);
	}
	return 0;
}

static bool keeps_channel(const struct budget *budget, const struct config *config, enum axis axis,
						  int layer, int channel)
{
	const struct budget_runs *runs = budget_runs_of(budget, axis, layer);
	bool kept = !runs && channel >= 0 && channel < axis_parent_width(axis, config) &&
				channel < budget_width(budget, axis, layer);
	for (int i = 0; runs && i < runs->n_spans; i++)
		kept |= channel >= runs->spans[i].start &&
				channel < runs->spans[i].start + runs->spans[i].length;
	return kept;
}

static int check_forced(const struct budget *budget, const struct config *config, struct error *err)
{
	for (int i = 0, same = 0; i < budget->n_forced; i++) {
		struct budget_forced forced = budget->forced[i];
		bool there = forced.layer >= 0 && forced.layer < config->n_layers &&
					 axis_on_layer(AXIS_EXPERTS, config->kinds[forced.layer]);
		if (!there) {
			return fail(err, "budget %s: layer %d has no experts to force", budget->name,
						forced.layer);
		}
		if (!keeps_channel(budget, config, AXIS_EXPERTS, forced.layer, forced.expert)) {
			return fail(err, "budget %s: layer %d: expert %d is forced, but it is not kept",
						budget->name, forced.layer, forced.expert);
		}
		same = i > 0 && budget->forced[i - 1].layer == forced.layer ? same + 1 : 1;
		if (same > budget->top_k) {
			return fail(err,
						"budget %s: layer %d forces more than the %d experts that a token uses",
						budget->name, forced.layer, budget->top_k);
		}
	}
	return 0;
}

/* What budget_set_*() keep: the width is the largest of its list, runs stand once and in order. */
static bool agrees(const struct budget *budget, const struct config *config)
{
	bool agrees = !budget->layer_width[AXIS_HIDDEN];
	for (int axis = AXIS_HIDDEN + 1; axis < N_AXES; axis++) {
		int largest = 0;
		for (int i = 0; budget->layer_width[axis] && i < budget->n_layers; i++)
			if (axis_on_layer(axis, config->kinds[i]) && budget->layer_width[axis][i] > largest)
				largest = budget->layer_width[axis][i];
		agrees &= !budget->layer_width[axis] || largest == budget->width[axis];
	}
	for (int i = 1; i < budget->n_runs; i++)
		agrees &=
			runs_before(budget->runs[i - 1].axis, budget->runs[i - 1].layer, &budget->runs[i]);
	return agrees;
}

int budget_check(const struct budget *budget, const struct config *config, struct error *err)
{
	if (budget->n_layers != config->n_layers) {
		return fail(err, "budget %s is for %d layers, the model has %d", budget->name,
					budget->n_layers, config->n_layers);
	}
	assert(agrees(budget, config));
	if (check_runs(budget, config, err) < 0 || check_width(budget, config, AXIS_HIDDEN, 0, err) < 0)
		return -1;
	int kept = 0;
	for (int layer = 0; layer < config->n_layers; layer++) {
		kept += budget_keeps_layer(budget, layer);
		for (int axis = 0; axis < N_AXES; axis++)
			if (applies(budget, config, axis, layer) &&
				check_width(budget, config, axis, layer, err) < 0)
				return -1;
		if (!applies(budget, config, AXIS_EXPERTS, layer))
			continue;
		int experts = budget_width(budget, AXIS_EXPERTS, layer);
		if (budget->top_k < 1 || budget->top_k > experts) {
			return fail(err, "budget %s: num_experts_per_tok is %d, layer %d keeps %d experts",
						budget->name, budget->top_k, layer, experts);
		}
	}
	if (kept == 0)
		return fail(err, "budget %s leaves out every layer", budget->name);
	return check_forced(budget, config, err);
}

/* The first channel of inner that outer does not keep, or -1. Both ascend and their neighbours are
 * joined, so a span of inner must lie inside one span of outer. */
static int outside(const struct span_list *outer, const struct span_list *inner)
{
	size_t o = 0;
	for (size_t i = 0; i < inner->n; i++) {
		struct span span = inner->spans[i];
		while (o < outer->n && outer->spans[o].start + outer->spans[o].length <= span.start)
			o++;
		if (o == outer->n || outer->spans[o].start > span.start)
			return span.start;
		int end = outer->spans[o].start + outer->spans[o].length;
		if (end < span.start + span.length)
			return end;
	}
	return -1;
}

static int violation_at(const struct budget *outer, const struct budget *inner,
						const struct config *config, enum axis axis, int layer,
						struct text *violations)
{
	struct span_list a = {0}, b = {0};
	struct error err;
	int channel = -1;
	if (budget_spans(outer, config, axis, layer, &a, &err) == 0 &&
		budget_spans(inner, config, axis, layer, &b, &err) == 0)
		channel = outside(&a, &b);
	free(a.spans);
	free(b.spans);
	if (channel >= 0 && violations) {
		if (axis != AXIS_HIDDEN)
			text_format(violations, "layer %d, ", layer);
		text_format(violations, "%s: %s (%d) keeps channel %d, %s (%d) does not\n", axis_name(axis),
					inner->name, budget_width(inner, axis, layer), channel, outer->name,
					budget_width(outer, axis, layer));
	}
	return channel >= 0;
}

bool budget_inside(const struct budget *outer, const struct budget *inner,
				   const struct config *config, enum axis axis, int layer)
{
	return violation_at(outer, inner, config, axis, layer, NULL) == 0;
}

int budget_violations(const struct budget *outer, const struct budget *inner,
					  const struct config *config, struct text *violations)
{
	int n = violation_at(outer, inner, config, AXIS_HIDDEN, 0, violations);
	for (int layer = 0; layer < config->n_layers && (violations || n == 0); layer++) {
		if (!budget_keeps_layer(inner, layer))
			continue;
		if (!budget_keeps_layer(outer, layer)) {
			n++;
			if (violations) {
				text_format(violations, "layer %d: %s keeps it, %s leaves it out\n", layer,
							inner->name, outer->name);
			}
			continue;
		}
		for (int axis = AXIS_HIDDEN + 1; axis < N_AXES; axis++)
			if (axis_on_layer(axis, config->kinds[layer]))
				n += violation_at(outer, inner, config, axis, layer, violations);
	}
	return n;
}
