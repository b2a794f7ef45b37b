/*
 * quantize: a BF16 parent as FP8 or NVFP4, nested: every budget stays a slice of it. With --text,
 * inputs are calibrated on it and every budget is held against its BF16 self.
 */
#include "base/size.h"
#include "cli/export.h"
#include "cli/print.h"
#include "cli/run.h"
#include "export/inputs.h"
#include "inspect/fidelity.h"

#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

struct row {
	const char *name;
	uint64_t bytes, bytes_before;
	bool measured;
	struct divergence_summary summary; // of the quantised budget against itself in BF16
};

struct work {
	const struct cli *cli;
	struct model *model;
	struct export_progress progress;
	struct quantisation quantisation;
	struct calibrate_texts texts;
	struct child_report report;
	size_t n_unseen;
	struct row rows[MAX_BUDGETS];
};

/* Every budget of the parent must be cut outside of the blocks. */
static int check_budgets(const struct work *w, struct error *err)
{
	int result = 0;
	for (int i = 0; i < w->model->elastic.n_budgets && result == 0; i++) {
		struct cuts cuts;
		result = cuts_plan(&cuts, w->model, &w->model->elastic.budgets[i], err);
		if (result != 0)
			return -1;
		result = quantisation_check(&w->quantisation, &cuts, err);
		cuts_free(&cuts);
	}
	return result;
}

static int calibrate(struct work *w, struct error *err)
{
	struct inputs_plan plan = {.texts = &w->texts,
							   .device = {.math = MATH_EXACT, .kv_dtype = DTYPE_F32},
							   .step = export_tokens,
							   .user = &w->progress};
	if (!w->cli->text)
		return 0;
	w->progress.began_ns = 0;
	return inputs_measure(&w->quantisation, &plan, &w->n_unseen, err);
}

/* ---- what it cost ---- */

/* The budget's own text, all windows of all texts as one list. */
static int compare(struct work *w, const struct model *target, int budget, struct row *row,
				   struct device *device, struct error *err)
{
	struct slice slices[2] = {0};
	const struct model *models[2] = {w->model, target};
	struct fidelity_plan plan = {.n_sides = 2, .kv_dtype = DTYPE_F32, .route_from = -1};
	struct fidelity fidelity = {0};
	int result = 0;
	for (int i = 0; i < 2 && result == 0; i++) {
		plan.sides[i] = &slices[i];
		result = slice_build(&slices[i], &models[i]->weights, &models[i]->config,
							 &models[i]->elastic.budgets[budget], &backend_cpu, device, err);
	}
	row->name = w->model->elastic.budgets[budget].name;
	row->bytes_before = slices[0].cost.bytes;
	row->bytes = slices[1].cost.bytes;
	if (result == 0 && w->texts.n) {
		const struct calibrate_text *text = &w->texts.items[0];
		plan.ids = text->ids;
		plan.n = text->n;
		plan.window = w->model->config.max_position_embeddings;
		if (plan.window < 1 || plan.window > CALIBRATE_WINDOW)
			plan.window = CALIBRATE_WINDOW;
		result = fidelity_run(&fidelity, &plan, err);
		row->measured = result == 0;
		if (result == 0)
			row->summary = fidelity.sides[1].summary;
		fidelity_free(&fidelity);
	}
	slice_free(&slices[0]);
	slice_free(&slices[1]);
	return result;
}

static int compare_all(struct work *w, struct error *err)
{
	struct device_options options = {.math = MATH_EXACT, .kv_dtype = DTYPE_F32};
	struct model *target = model_open(w->cli->target, NULL, err); // with the budgets it was given
	struct device *device = target ? backend_cpu.open(&options, err) : NULL;
	int result = device ? 0 : -1;
	for (int i = 0; i < w->model->elastic.n_budgets && result == 0; i++)
		result = compare(w, target, i, &w->rows[i], device, err);
	backend_cpu.close(device);
	model_release(target);
	return result;
}

/* ---- what is said ---- */

static int print_json(const struct work *w, struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddStringToObject(root, "source", w->model->directory);
	cJSON_AddStringToObject(root, "target", w->cli->target);
	cJSON_AddStringToObject(root, "precision", w->cli->precision);
	cJSON_AddNumberToObject(root, "tensors", (double)w->report.n_tensors);
	cJSON_AddNumberToObject(root, "bytes", (double)w->report.bytes);
	cJSON_AddNumberToObject(root, "modules", (double)w->quantisation.n_modules);
	cJSON_AddNumberToObject(root, "excluded", (double)w->quantisation.n_excluded);
	cJSON_AddBoolToObject(root, "input_scales", w->cli->text != NULL);
	cJSON_AddNumberToObject(root, "inputs_unseen", (double)w->n_unseen);
	cJSON *list = cJSON_AddArrayToObject(root, "budgets");
	for (int i = 0; i < w->model->elastic.n_budgets; i++) {
		const struct row *row = &w->rows[i];
		const struct divergence_summary *s = &row->summary;
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "name", row->name);
		cJSON_AddNumberToObject(one, "bytes", (double)row->bytes);
		cJSON_AddNumberToObject(one, "bytes_source", (double)row->bytes_before);
		print_add_number(one, "kl_mean", row->measured ? s->kl.value : NAN);
		print_add_number(one, "kl_error", row->measured ? s->kl.error : NAN);
		print_add_number(one, "kl_max", row->measured ? s->kl_max : NAN);
		print_add_number(one, "top1", row->measured ? s->same_top.value : NAN);
		print_add_number(one, "ppl_source", row->measured ? s->ppl_base.value : NAN);
		print_add_number(one, "ppl", row->measured ? s->ppl.value : NAN);
		cJSON_AddItemToArray(list, one);
	}
	return print_line(root, err);
}

static int print_table(const struct work *w)
{
	char a[32], b[32];
	printf("%s: %s, %zu modules", w->cli->target, w->cli->precision, w->quantisation.n_modules);
	if (w->quantisation.n_excluded)
		printf(" (%zu more excluded)", w->quantisation.n_excluded);
	printf(", %zu tensors, %s\n", w->report.n_tensors, size_text(w->report.bytes, a));
	if (!w->cli->text)
		puts("no --text: without input_scale, for weights only; nothing was compared");
	else if (w->n_unseen)
		printf("%zu inputs of experts that no token chose have their layer's largest scale\n",
			   w->n_unseen);
	printf("\n%-16s %12s %12s", "budget", "source", "bytes");
	if (w->cli->text)
		printf("  %20s %9s %7s %10s %10s", "KL(source || this)", "max", "top-1", "PPL source",
			   "PPL");
	printf("\n");
	for (int i = 0; i < w->model->elastic.n_budgets; i++) {
		const struct row *row = &w->rows[i];
		const struct divergence_summary *s = &row->summary;
		printf("%-16s %12s %12s", row->name, size_text(row->bytes_before, a),
			   size_text(row->bytes, b));
		if (row->measured)
			printf("  %9.6f ± %.6f %9.4f %6.2f%% %10.4f %10.4f", s->kl.value, s->kl.error,
				   s->kl_max, 100 * s->same_top.value, s->ppl_base.value, s->ppl.value);
		printf("\n");
	}
	return 0;
}

/* ---- all of it ---- */

static int write_parent(struct work *w, struct error *err)
{
	struct budget parent = {0};
	struct child_plan plan = {.model = w->model,
							  .budget = &parent,
							  .nested = true,
							  .budgets_file = w->cli->budgets_file,
							  .quantisation = &w->quantisation,
							  .step = export_step,
							  .user = &w->progress};
	if (export_options(w->cli, &plan, err) != 0 ||
		budget_init(&parent, &w->model->config, "parent", err) != 0)
		return -1;
	w->progress.began_ns = 0;
	int result = child_write(&plan, &w->report, err);
	if (result == 0)
		export_done(&w->progress, w->report.bytes);
	budget_free(&parent);
	return result;
}

static int run(struct work *w, struct error *err)
{
	run_catch_interrupt();
	if (w->cli->text && calibrate_add_file(&w->texts, w->cli->text, true, w->model, err) != 0)
		return fail_in(err, "--text");
	if (export_quantisation(&w->quantisation, w->cli, w->model, &w->progress, err) != 0 ||
		check_budgets(w, err) != 0 || calibrate(w, err) != 0 || write_parent(w, err) != 0 ||
		compare_all(w, err) != 0)
		return -1;
	return w->cli->json ? print_json(w, err) : print_table(w);
}

int cli_quantize(const struct cli *cli)
{
	struct error err = {0};
	bool wrong = true;
	struct work w = {.cli = cli, .progress.cli = cli};
	if (export_precision(cli) == DTYPE_BF16)
		fail(&err, "quantize: expected --precision fp8 or nvfp4");
	else
		w.model = export_source(cli, &wrong, &err);
	int result = w.model ? run(&w, &err) : -1;
	wrong = wrong && !w.model;
	quantisation_close(&w.quantisation);
	calibrate_texts_free(&w.texts);
	model_release(w.model);
	if (run_interrupted())
		return EXIT_INTERRUPTED;
	return result == 0 ? EXIT_DONE : wrong ? cli_usage(&err) : cli_fail(&err);
}
