#include "export/hull.h"

#include "base/json.h"
#include "export/child_config.h"
#include <stdlib.h>
#include <string.h>

static int widest(const struct model *model, const struct budget *budget, enum axis axis)
{
	int width = 0;
	if (budget_has_runs(budget, axis))
		return axis_parent_width(axis, &model->config);
	for (int i = 0; i < model->config.n_layers; i++)
		if (budget_keeps_layer(budget, i) && axis_on_layer(axis, model->config.kinds[i]) &&
			budget_width(budget, axis, i) > width)
			width = budget_width(budget, axis, i);
	return width;
}

int hull_make(const struct model *model, const struct budget *budget, struct budget *hull,
			  struct error *err)
{
	if (budget_copy(hull, budget, err) != 0)
		return -1;
	for (int axis = 0; axis < N_AXES; axis++) {
		if (child_config_width(model, budget, axis) >= 0)
			continue;
		budget_set_width(hull, axis, widest(model, budget, axis));
	}
	return 0;
}

/* ---- elastic.json ---- */

static void add_per_layer(const struct cuts *cuts, const struct budget *budget, enum axis axis,
						  const char **comma, struct text *out)
{
	text_format(out, "%s\n        \"%s\": [", *comma, axis_name(axis));
	const char *between = "";
	for (int i = 0; i < cuts->n_layers; i++) {
		if (cuts->layer[i] < 0)
			continue;
		bool here = axis_on_layer(axis, cuts->model->config.kinds[i]);
		text_format(out, "%s%d", between, here ? budget_width(budget, axis, i) : 0);
		between = ", ";
	}
	text_add(out, "]");
	*comma = ",";
}

static void add_runs(const struct cuts *cuts, const struct budget *budget, struct text *out)
{
	const char *comma = ",\n      \"runs\": {";
	bool any = false;
	for (int i = 0; i < budget->n_runs; i++, comma = any ? "," : comma) {
		const struct budget_runs *runs = &budget->runs[i];
		// the others are stored packed
		if (child_config_width(cuts->model, budget, runs->axis) >= 0 ||
			!budget_keeps_layer(budget, runs->layer))
			continue;
		text_format(out, "%s\n        \"%d.%s\": [", comma, cuts->layer[runs->layer],
					axis_name(runs->axis));
		for (int s = 0; s < runs->n_spans; s++)
			text_format(out, "%s[%d, %d]", s ? ", " : "", runs->spans[s].start,
						runs->spans[s].start + runs->spans[s].length);
		text_add(out, "]");
		any = true;
	}
	text_add(out, any ? "\n      }" : "");
}

static void add_name(const char *name, struct text *out)
{
	text_add(out, "    {\n      \"name\": ");
	json_add_string(out, name);
}

/* Typed widths are no name for a file. */
const char *hull_name(const struct budget *budget)
{
	return strpbrk(budget->name, " =,:#+") ? "child" : budget->name;
}

int hull_elastic(const struct cuts *cuts, const struct budget *budget, struct text *out,
				 struct error *err)
{
	text_add(out, "{\n  \"format\": \"elastic-1\",\n  \"budgets\": [\n");
	add_name(strcmp(budget->name, "hull") == 0 ? "whole" : "hull", out);
	text_add(out, "\n    },\n");
	add_name(hull_name(budget), out);
	text_add(out, ",\n      \"per_layer\": {");
	const char *comma = "";
	for (int axis = 0; axis < N_AXES; axis++)
		if (child_config_width(cuts->model, budget, axis) < 0 && axis != AXIS_HIDDEN)
			add_per_layer(cuts, budget, axis, &comma, out);
	text_add(out, "\n      }");
	add_runs(cuts, budget, out);
	text_add(out, "\n    }\n  ],\n  \"policy\": {\"think\": ");
	json_add_string(out, hull_name(budget));
	text_add(out, ", \"answer\": ");
	json_add_string(out, hull_name(budget));
	text_add(out, "},\n  \"provenance\": \"written by elastiscope slice: only elastiscope "
				  "reads the smaller budget\"\n}\n");
	return text_check(out, err);
}
