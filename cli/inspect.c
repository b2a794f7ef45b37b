/* inspect: the views of the workbench as tables. A view is a row. */
#include "cli/inspect.h"
#include "cli/print.h"
#include "cli/run.h"
#include "cli/source.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const struct {
	const char *name;
	size_t arguments;  // behind the name
	const char *named; // what they are
	int (*run)(const struct cli *cli, const struct model *model, struct error *err);
} views[] = {
	{"nesting", 0, "", inspect_nesting},
	{"importance", 0, "", inspect_importance},
	{"masks", 0, "", inspect_masks},
	{"router", 0, "", inspect_router},
	{"experts", 0, "", inspect_experts},
	{"curve", 0, "", inspect_curve},
	{"sensitivity", 2, "LARGE SMALL, two budgets", inspect_sensitivity},
	{"boundaries", 0, "", inspect_boundaries},
	{"mask", 0, "", inspect_mask},
	{"bisect", 2, "GOOD BAD, two budgets or GOOD DIR#BUDGET", inspect_bisect},
	{"against", 1, "FILE of residuals or logits", inspect_against},
	{"agreement", 0, "", inspect_agreement},
	{"scales", 0, "", inspect_scales},
};

#define N_VIEWS (sizeof views / sizeof *views)
#define WINDOW 4096 // tokens a window, when --ctx says nothing else

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

/* ---- texts ---- */

int inspect_text_open(struct inspect_text *text, const struct cli *cli, const struct model *model,
					  struct error *err)
{
	struct device_options options;

	*text = (struct inspect_text){.cli = cli, .window = model->config.max_position_embeddings};
	if (!cli->text == !cli->tokens)
		return fail(err, "inspect %s: expected one of --text FILE and --tokens",
					cli->arguments.items[0]);
	if (text->window < 1 || text->window > WINDOW)
		text->window = WINDOW;
	if (cli->context > 0)
		text->window = (int)cli->context;
	if (cli_device_options(cli, &options, err) < 0 ||
		source_ids(cli, model, &text->ids, &text->n, err) < 0)
		return -1;
	text->kv_dtype = options.kv_dtype;
	text->device = backend_cpu.open(&options, err);
	return text->device ? 0 : -1;
}

void inspect_text_close(struct inspect_text *text)
{
	backend_cpu.close(text->device);
	free(text->ids);
	*text = (struct inspect_text){0};
}

struct trials_plan inspect_trials(struct inspect_text *text, const struct model *model)
{
	return (struct trials_plan){.model = model,
								.base = &model->elastic.budgets[0],
								.backend = &backend_cpu,
								.device = text->device,
								.kv_dtype = text->kv_dtype,
								.ids = text->ids,
								.n = text->n,
								.window = text->window,
								.step = inspect_progress,
								.user = text};
}

int inspect_progress(void *user, int done, int total)
{
	struct inspect_text *text = user;
	int percent = (int)((int64_t)done * 100 / total);

	if (!text->cli->quiet && isatty(STDERR_FILENO) && percent > text->shown)
		fprintf(stderr, "\r%s: %d %%%s", text->cli->arguments.items[0], percent,
				percent == 100 ? "\n" : "");
	text->shown = percent;
	return run_interrupted();
}

/* ---- the command ---- */

/* Behind a view's own arguments stands the model. */
static int place_model(struct cli *cli, size_t own, const char *named, struct error *err)
{
	size_t n = cli->arguments.n - 1;

	if (n == own + 1 && !cli->model)
		cli->model = cli->arguments.items[n--];
	if (n > own)
		return fail(err, "inspect: unexpected argument '%s'", cli->arguments.items[own + 1]);
	if (n < own)
		return fail(err, "inspect %s: expected %s", cli->arguments.items[0], named);
	return 0;
}

static void list_views(struct error *err, const char *name)
{
	char names[200] = "";
	for (size_t i = 0; i < N_VIEWS; i++)
		snprintf(names + strlen(names), sizeof names - strlen(names), "%s%s", i ? ", " : "",
				 views[i].name);
	fail(err, "inspect: no view '%s'; there are %s", name, names);
}

int cli_inspect(const struct cli *all)
{
	struct error err = {0};
	struct cli cli = *all;
	const char *name = cli.arguments.items[0];
	for (size_t i = 0; i < N_VIEWS; i++) {
		if (strcmp(views[i].name, name) != 0)
			continue;
		if (place_model(&cli, views[i].arguments, views[i].named, &err))
			return cli_usage(&err);
		run_catch_interrupt();
		struct model *model = cli_open_model(&cli, &err);
		int status = model ? views[i].run(&cli, model, &err) : -1;
		model_release(model);
		if (run_interrupted())
			return EXIT_INTERRUPTED;
		return status < 0 ? cli_fail(&err) : EXIT_DONE;
	}
	list_views(&err, name);
	return cli_usage(&err);
}
