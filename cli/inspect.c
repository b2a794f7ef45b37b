/* inspect: the views of the workbench as tables. A view is a row. */
#include "cli/inspect.h"
#include "cli/print.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	int (*run)(const struct cli *cli, const struct model *model, struct error *err);
} views[] = {
	{"nesting", inspect_nesting}, {"importance", inspect_importance}, {"masks", inspect_masks},
	{"router", inspect_router},   {"experts", inspect_experts},
};

int inspect_extra_budget(const struct cli *cli, const struct model *model, struct budget *extra,
						 bool *has, struct error *err)
{
	*extra = (struct budget){0};
	if (cli_budget(cli, model, extra, err) < 0)
		return -1;
	*has = elastic_find(&model->elastic, extra->name) < 0;
	if (!*has)
		budget_free(extra);
	return 0;
}

cJSON *inspect_numbers(const float *values, int n)
{
	return values ? cJSON_CreateFloatArray(values, n) : cJSON_CreateNull();
}

void inspect_add_layer(cJSON *object, int layer)
{
	print_add_number(object, "layer", layer < 0 ? NAN : layer);
}

const char *inspect_layer(int layer, char out[16])
{
	snprintf(out, 16, layer < 0 ? "-" : "%d", layer);
	return out;
}

int cli_inspect(const struct cli *cli)
{
	struct error err = {0};
	const char *name = cli->arguments.items[0];
	for (size_t i = 0; i < sizeof views / sizeof *views; i++) {
		if (strcmp(views[i].name, name) != 0)
			continue;
		struct model *model = cli_open_model(cli, &err);
		int status = model ? views[i].run(cli, model, &err) : -1;
		model_release(model);
		return status < 0 ? cli_fail(&err) : EXIT_DONE;
	}
	fail(&err, "inspect: no view '%s'; there are nesting, importance, masks, router, experts",
		 name);
	return cli_usage(&err);
}
