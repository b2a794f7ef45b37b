/* inspect boundaries: where budgets end, from steps of the weights' norms alone. */
#include "cli/inspect.h"
#include "cli/print.h"

#include "base/file.h"
#include "inspect/boundaries.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* The file's budgets that end there, "" = none: what the weights are held against, not where the
 * answer comes from. */
static const char *trained_there(const struct model *model, enum axis axis, int width,
								 char out[256])
{
	size_t used = 0;

	out[0] = '\0';
	for (int b = 1; b < model->elastic.n_budgets && used < 255; b++)
		if (model->elastic.budgets[b].width[axis] == width)
			used += (size_t)snprintf(out + used, 256 - used, "%s%s", used ? " " : "",
									 model->elastic.budgets[b].name);
	return out;
}

static bool was_found(const struct boundaries *found, enum axis axis, int width)
{
	for (int i = 0; i < found->n; i++)
		if (found->list[i].axis == axis && found->list[i].width == width)
			return true;
	return false;
}

/* The cut widths of the file's budgets that no step shows. */
static void print_missed(const struct boundaries *found, const struct model *model)
{
	for (int a = 0; a < N_AXES; a++)
		for (int b = 1; b < model->elastic.n_budgets; b++) {
			int width = model->elastic.budgets[b].width[a];
			if (!axis_in_model(a, &model->config) ||
				width == axis_parent_width(a, &model->config) || was_found(found, a, width))
				continue;
			printf("not seen: %s of %s at %d%s\n", axis_name(a), model->elastic.budgets[b].name,
				   width, found->axes[a].too_short ? " (the axis is too short to tell)" : "");
		}
}

static void print_table(const struct boundaries *found, const struct model *model)
{
	char names[256], near[32];

	printf("%d places tried on all axes; p is for any of them (t test, Bonferroni): found up to "
		   "%.2g, weak up to %.2g\n\n",
		   found->places, BOUNDARY_FOUND, BOUNDARY_WEAK);
	printf("%-36s %6s %9s %8s %7s %9s  %-6s %s\n", "axis", "width", "step at", "norms", "t", "p",
		   "", "elastic.json");
	for (int i = 0; i < found->n; i++) {
		const struct boundary *b = &found->list[i];
		int groups = found->axes[b->axis].groups;
		snprintf(near, sizeof near, b->low == b->high ? "%d" : "%d-%d", b->low * groups,
				 b->high * groups);
		trained_there(model, b->axis, b->width, names);
		printf("%-36s %6d %9s %+7.1f%% %7.1f %9.2g  %-6s %s\n", axis_name(b->axis), b->width, near,
			   100 * b->step, b->t, b->p, b->found ? "found" : "weak", names);
	}
	if (found->n == 0)
		puts("no step: one budget, or none that the norms show");
	putchar('\n');
	print_missed(found, model);
	for (int a = 0; a < N_AXES; a++)
		if (found->axes[a].n && found->axes[a].too_short)
			printf("not tried: %s has %d channels%s, %d are needed\n", axis_name(a),
				   found->axes[a].n, found->axes[a].groups > 1 ? " a group" : "",
				   2 * BOUNDARY_SIDE);
}

static void print_csv(const struct boundaries *found, const struct model *model)
{
	char names[256];

	puts("axis,width,at,low,high,step,t,p,found,trained");
	for (int i = 0; i < found->n; i++) {
		const struct boundary *b = &found->list[i];
		int groups = found->axes[b->axis].groups;
		printf("%s,%d,%d,%d,%d,%.9g,%.9g,%.9g,%d,", axis_name(b->axis), b->width, b->at * groups,
			   b->low * groups, b->high * groups, b->step, b->t, b->p, b->found);
		print_field(trained_there(model, b->axis, b->width, names));
		putchar('\n');
	}
}

static int print_json(const struct boundaries *found, const struct model *model, struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	char names[256];

	cJSON_AddNumberToObject(root, "places", found->places);
	cJSON *axes = cJSON_AddArrayToObject(root, "axes");
	for (int a = 0; a < N_AXES; a++) {
		const struct boundary_axis *axis = &found->axes[a];
		if (axis->n == 0)
			continue;
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "axis", axis_name(a));
		cJSON_AddNumberToObject(one, "channels", axis->n);
		cJSON_AddNumberToObject(one, "groups", axis->groups);
		cJSON_AddNumberToObject(one, "profiles", axis->profiles);
		cJSON_AddBoolToObject(one, "tried", !axis->too_short);
		cJSON_AddItemToArray(axes, one);
	}
	cJSON *list = cJSON_AddArrayToObject(root, "boundaries");
	for (int i = 0; i < found->n; i++) {
		const struct boundary *b = &found->list[i];
		int groups = found->axes[b->axis].groups;
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "axis", axis_name(b->axis));
		cJSON_AddNumberToObject(one, "width", b->width);
		cJSON_AddNumberToObject(one, "at", b->at * groups);
		cJSON_AddNumberToObject(one, "low", b->low * groups);
		cJSON_AddNumberToObject(one, "high", b->high * groups);
		print_add_number(one, "step", b->step);
		print_add_number(one, "t", b->t);
		print_add_number(one, "p", b->p);
		cJSON_AddBoolToObject(one, "found", b->found);
		cJSON_AddStringToObject(one, "trained", trained_there(model, b->axis, b->width, names));
		cJSON_AddItemToArray(list, one);
	}
	return print_tree(root, err);
}

static int write_file(const struct boundaries *found, const struct model *model, const char *path,
					  bool quiet, struct error *err)
{
	struct text text = {0};
	int result = boundaries_elastic(found, &model->config, &text, err);
	FILE *file = result ? NULL : fopen(path, "wx");

	if (!result && !file)
		result = fail(err, "--write: %s: it exists, or its folder can't be written", path);
	if (file && (fwrite(text.data, 1, text.length, file) != text.length) | (fclose(file) != 0))
		result = fail(err, "--write: %s: can't be written", path);
	if (!result && !quiet)
		fprintf(stderr, "%s: for --budgets\n", path);
	text_free(&text);
	return result;
}

int inspect_boundaries(const struct cli *cli, const struct model *model, struct error *err)
{
	struct inspect_text progress = {.cli = cli};
	struct boundaries found;

	if (boundaries_find(&found, model, inspect_progress, &progress, err))
		return -1;
	int result = cli->write ? write_file(&found, model, cli->write, cli->quiet, err) : 0;
	if (!result && cli->json)
		result = print_json(&found, model, err);
	else if (!result && cli->csv)
		print_csv(&found, model);
	else if (!result)
		print_table(&found, model);
	boundaries_free(&found);
	return result;
}
