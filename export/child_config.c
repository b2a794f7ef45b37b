#include "export/child_config.h"

#include "base/file.h"
#include "export/edit.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what config.json can say ---- */

/* Channels kept in every group of the axis on a layer, -1 if groups differ. */
static int layer_width(const struct model *model, const struct budget *budget, enum axis axis,
					   int layer)
{
	const struct config *c = &model->config;
	// heads of a global cut stand in the groups by their place
	int groups = budget->heads == HEADS_GLOBAL ? 1 : axis_groups(axis, c);
	int stored = axis_parent_width(axis, c) / groups;
	struct span_list list = {0};
	int width = -1;
	if (budget_spans(budget, c, axis, layer, &list, NULL) == 0) {
		width = 0;
		for (int g = 0, before = -1; g < groups && width >= 0; g++) {
			int kept = 0;
			for (size_t i = 0; i < list.n; i++) {
				int from = list.spans[i].start, to = from + list.spans[i].length;
				from = from > g * stored ? from : g * stored;
				to = to < (g + 1) * stored ? to : (g + 1) * stored;
				kept += to > from ? to - from : 0;
			}
			width = before >= 0 && kept != before ? -1 : width + kept;
			before = kept;
		}
	}
	free(list.spans);
	return width;
}

static bool on_layer(const struct model *model, const struct budget *budget, enum axis axis,
					 int layer)
{
	return budget_keeps_layer(budget, layer) && axis_on_layer(axis, model->config.kinds[layer]);
}

int child_config_width(const struct model *model, const struct budget *budget, enum axis axis)
{
	int width = -1;
	for (int i = 0; i < model->config.n_layers; i++) {
		if (!on_layer(model, budget, axis, i))
			continue;
		int here = layer_width(model, budget, axis, i);
		if (here < 0 || (width >= 0 && here != width))
			return -1;
		width = here;
	}
	return width < 0 ? axis_parent_width(axis, &model->config) : width;
}

static int refuse(const struct model *model, const struct budget *budget, enum axis axis,
				  struct error *err)
{
	int first = -1;
	for (int i = 0; i < model->config.n_layers; i++) {
		if (!on_layer(model, budget, axis, i))
			continue;
		int here = layer_width(model, budget, axis, i);
		if (here < 0)
			return fail(err,
						"budget %s: layer %d keeps other numbers of %s in its groups; Hugging "
						"Face's config.json has one number for all (--elastic writes it for "
						"elastiscope only)",
						budget->name, i, axis_name(axis));
		if (first < 0)
			first = i;
		else if (here != layer_width(model, budget, axis, first))
			return fail(err,
						"budget %s: %s is %d on layer %d and %d on layer %d; Hugging Face's "
						"config.json has one number for all layers (--elastic writes it for "
						"elastiscope only)",
						budget->name, axis_name(axis), layer_width(model, budget, axis, first),
						first, here, i);
	}
	return 0;
}

int child_config_check(const struct model *model, const struct budget *budget, struct error *err)
{
	if (budget->norm != NORM_SLICE || budget->n_forced)
		return fail(err, "budget %s: has %s, an experiment that no file of a checkpoint can say",
					budget->name, budget->n_forced ? "forced experts" : "norms of its own");
	for (int axis = 0; axis < N_AXES; axis++)
		if (child_config_width(model, budget, axis) < 0)
			return refuse(model, budget, axis, err);
	return 0;
}

/* ---- config.json ---- */

static int set_number(struct edits *edits, const char *key, int value, int before,
					  struct error *err)
{
	char text[16];
	snprintf(text, sizeof text, "%d", value);
	return value == before ? 0 : edits_set(edits, key, text, err);
}

static int set_widths(struct edits *edits, const struct cuts *cuts, struct error *err)
{
	const struct model *model = cuts->model;
	const struct config *c = &model->config;
	const struct budget *budget = &cuts->slice.budget;
	for (int axis = 0; axis < N_AXES; axis++) {
		int width = child_config_width(model, budget, axis);
		int before = axis_parent_width(axis, c);
		// without dense layers the key repeats the experts' width (the released parent)
		if (axis == AXIS_FFN && !axis_in_model(axis, c) &&
			c->intermediate_size == c->moe_intermediate_size) {
			width = child_config_width(model, budget, AXIS_EXPERT_FFN);
			before = c->intermediate_size;
		}
		if (set_number(edits, axis_name(axis), width, before, err) != 0)
			return -1;
		if (axis == AXIS_EXPERTS && set_number(edits, "num_local_experts", width, before, err) != 0)
			return -1;
	}
	return set_number(edits, "num_experts_per_tok", budget->top_k, c->num_experts_per_tok, err);
}

static bool keep_layer(void *user, int i, const char *string, struct text *text)
{
	const struct cuts *cuts = user;
	(void)string;
	(void)text;
	return i < cuts->n_layers && cuts->layer[i] >= 0;
}

static int set_layers(struct edits *edits, struct cuts *cuts, struct error *err)
{
	static const char *const lists[] = {"layers_block_type", "layer_types"};
	char pattern[CONFIG_MAX_LAYERS + 3] = "\"";
	int n = 0;
	for (int i = 0; i < cuts->n_layers; i++)
		if (cuts->layer[i] >= 0)
			pattern[++n] = layer_letter(cuts->model->config.kinds[i]);
	pattern[n + 1] = '"';
	if (n == cuts->n_layers)
		return 0;
	if (edits_set(edits, "hybrid_override_pattern", pattern, err) != 0 ||
		set_number(edits, "num_hidden_layers", n, cuts->n_layers, err) != 0)
		return -1;
	for (int i = 0; i < 2; i++) {
		const struct json_node *list = json_member(&edits->json, edits->json.nodes, lists[i]);
		if (json_is(list, JSON_ARRAY) && edits_filter(edits, list, keep_layer, cuts, err) != 0)
			return -1;
	}
	return 0;
}

/* ---- names of modules ---- */

static bool keep_module(void *user, int i, const char *string, struct text *text)
{
	(void)i;
	return cuts_rename(user, string, text);
}

static int set_modules(struct edits *edits, struct cuts *cuts, const char *member,
					   struct error *err)
{
	static const char *const lists[] = {"exclude_modules", "ignore", "quantized_layers"};
	const struct json *json = &edits->json;
	const struct json_node *said = json_member(json, json->nodes, member);
	for (size_t i = 0; i < sizeof lists / sizeof *lists; i++) {
		const struct json_node *list = json_member(json, said, lists[i]);
		if ((json_is(list, JSON_ARRAY) || json_is(list, JSON_OBJECT)) && list->n_children &&
			edits_filter(edits, list, keep_module, cuts, err) != 0)
			return -1;
	}
	return 0;
}

/* The head that predicts several tokens is not cut, so a child has none. */
static int drop_mtp(struct edits *edits, const struct cuts *cuts, struct error *err)
{
	const struct checkpoint *checkpoint = &cuts->model->checkpoint;
	for (size_t i = 0; i < checkpoint->n_tensors; i++)
		if (strncmp(checkpoint->tensors[i].name, "mtp.", 4) == 0)
			return edits_set(edits, "num_nextn_predict_layers", "0", err);
	return 0;
}

int child_config_text(const struct cuts *cuts, struct text *out, struct error *err)
{
	struct edits edits = {0};
	struct cuts *own = (struct cuts *)(uintptr_t)cuts; // a user pointer, not written to
	char *path = file_join(cuts->model->directory, "config.json", err);
	int result = path ? edits_open(&edits, path, err) : -1;
	if (result == 0 && (set_widths(&edits, cuts, err) != 0 || set_layers(&edits, own, err) != 0 ||
						set_modules(&edits, own, "quantization_config", err) != 0 ||
						drop_mtp(&edits, cuts, err) != 0))
		result = -1;
	if (result == 0)
		result = edits_apply(&edits, out, err);
	edits_free(&edits);
	free(path);
	return result;
}

int child_config_quantisation(const struct cuts *cuts, struct text *out, struct error *err)
{
	struct edits edits = {0};
	char *path = file_join(cuts->model->directory, "hf_quant_config.json", err);
	if (!path)
		return -1;
	int result = 0;
	if (file_exists(path)) {
		result = edits_open(&edits, path, err);
		if (result == 0)
			result = set_modules(&edits, (struct cuts *)(uintptr_t)cuts, "quantization", err);
		if (result == 0)
			result = edits_apply(&edits, out, err);
		edits_free(&edits);
	}
	free(path);
	return result;
}
