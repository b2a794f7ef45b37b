/* slice: a budget as a checkpoint of its own. The flags are those of NVIDIA's slicing script. */
#include "base/size.h"
#include "cli/export.h"
#include "cli/run.h"
#include "export/hull.h"

#include <stdio.h>
#include <string.h>

static void note(const struct cli *cli, const struct child_plan *plan,
				 const struct child_report *report)
{
	char bytes[32];
	if (cli->quiet)
		return;
	if (report->n_left_out)
		fprintf(stderr,
				"elastiscope: %zu tensors that no budget reads were left out, the first is %s\n",
				report->n_left_out, report->first_left_out);
	if (plan->quantisation)
		fprintf(stderr, "elastiscope: quantised on the way with the parent's scales, without "
						"input_scale: for weights only (quantize --text measures inputs)\n");
	if (report->elastic)
		fprintf(stderr,
				"elastiscope: layers of %s differ in width: stored at the widest, with an "
				"elastic.json that only elastiscope reads; it opens as -b %s\n",
				plan->budget->name, hull_name(plan->budget));
	fprintf(stderr, "%s: budget %s, %zu tensors, %s in %d file%s, %d others\n", plan->target,
			plan->budget->name, report->n_tensors, size_text(report->bytes, bytes),
			report->n_shards, report->n_shards == 1 ? "" : "s", report->n_files);
}

/* A BF16 parent may be quantised on the way; what is quantised already stays as it is. */
static int check_precision(const struct cli *cli, const struct model *model, bool *quantise,
						   struct error *err)
{
	const char *stored = export_stored(model);
	*quantise = false;
	if (cli->exclude.n && strcmp(stored, "bf16") != 0)
		return fail(err, "--exclude: %s is stored as %s already", model->directory, stored);
	if (!cli->precision || strcmp(cli->precision, stored) == 0)
		return 0;
	*quantise = strcmp(stored, "bf16") == 0;
	return *quantise ? 0
					 : fail(err, "--precision %s: %s is stored as %s, expected a BF16 parent",
							cli->precision, model->directory, stored);
}

static int run(const struct cli *cli, struct model *model, struct error *err)
{
	struct export_progress progress = {.cli = cli};
	struct budget budget = {0};
	struct child_plan plan = {
		.model = model, .budget = &budget, .step = export_step, .user = &progress};
	struct child_report report;
	struct quantisation quantisation = {0};
	bool quantise;
	if (export_options(cli, &plan, err) != 0 || check_precision(cli, model, &quantise, err) != 0 ||
		model_budget(model, cli->budget, &budget, err) != 0)
		return -1;
	int result = quantise ? export_quantisation(&quantisation, cli, model, &progress, err) : 0;
	progress.began_ns = 0;
	plan.quantisation = quantise ? &quantisation : NULL;
	if (result == 0)
		result = child_write(&plan, &report, err);
	if (result == 0) {
		export_done(&progress, report.bytes);
		note(cli, &plan, &report);
	}
	quantisation_close(&quantisation);
	budget_free(&budget);
	return result;
}

int cli_slice(const struct cli *cli)
{
	struct error err = {0};
	bool wrong = true;
	struct model *model = NULL;
	if (!cli->budget)
		fail(&err, "slice: expected --size with a budget's name or widths");
	else if (cli->exclude.n && export_precision(cli) == DTYPE_BF16)
		fail(&err, "slice: --exclude says what is not quantised, expected --precision fp8 or nvfp4 "
				   "with it");
	else
		model = export_source(cli, &wrong, &err);
	int result = model ? run(cli, model, &err) : -1;
	model_release(model);
	if (run_interrupted())
		return EXIT_INTERRUPTED;
	return result == 0 ? EXIT_DONE : wrong && !model ? cli_usage(&err) : cli_fail(&err);
}
