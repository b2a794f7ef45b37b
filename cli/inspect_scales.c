/* inspect scales: what one scale for all budgets costs the small ones. */
#include "cli/inspect.h"
#include "cli/print.h"
#include "cli/run.h"

#include "inspect/scales.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const formats[N_SCALES_FORMATS] = {"fp8", "nvfp4"};

static const char *budget_name(const struct model *model, const struct budget *extra, int budget)
{
	return budget < model->elastic.n_budgets ? model->elastic.budgets[budget].name : extra->name;
}

static const char *row_name(const struct scales_row *row, char out[MODULE_NAME])
{
	module_name(&(struct module){.kind = row->kind, .layer = row->layer, .expert = row->expert},
				out);
	return out;
}

static double ratio_of(const struct scales_row *row)
{
	return row->parent > 0 ? (double)row->slice / (double)row->parent : NAN;
}

static void add_error(cJSON *object, const char *format, const struct scales_error *error)
{
	cJSON *one = cJSON_AddObjectToObject(object, format);
	print_add_number(one, "error_nested", error->nested);
	print_add_number(one, "error_own", error->own);
}

static int print_json(const struct scales *scales, const struct model *model,
					  const struct budget *extra, struct error *err)
{
	cJSON *root = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(root, "tensors");
	for (size_t i = 0; i < scales->n; i++) {
		const struct scales_row *row = &scales->rows[i];
		char name[MODULE_NAME];
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "module", row_name(row, name));
		cJSON_AddStringToObject(one, "budget", budget_name(model, extra, row->budget));
		cJSON_AddNumberToObject(one, "amax_parent", (double)row->parent);
		cJSON_AddNumberToObject(one, "amax_slice", (double)row->slice);
		print_add_number(one, "ratio", ratio_of(row));
		for (int f = 0; f < N_SCALES_FORMATS; f++)
			add_error(one, formats[f], &row->error[f]);
		print_add_number(one, "subnormal_nested", row->subnormal_nested);
		print_add_number(one, "subnormal_own", row->subnormal_own);
		cJSON_AddItemToArray(list, one);
	}
	return print_tree(root, err);
}

static void print_csv_number(double value)
{
	if (isfinite(value))
		printf(",%.9g", value);
	else
		printf(",");
}

static void print_csv(const struct scales *scales, const struct model *model,
					  const struct budget *extra)
{
	puts("module,budget,amax_parent,amax_slice,ratio,fp8_nested,fp8_own,nvfp4_nested,nvfp4_own,"
		 "subnormal_nested,subnormal_own");
	for (size_t i = 0; i < scales->n; i++) {
		const struct scales_row *row = &scales->rows[i];
		char name[MODULE_NAME];
		printf("%s,", row_name(row, name));
		print_field(budget_name(model, extra, row->budget));
		print_csv_number((double)row->parent);
		print_csv_number((double)row->slice);
		print_csv_number(ratio_of(row));
		for (int f = 0; f < N_SCALES_FORMATS; f++) {
			print_csv_number(row->error[f].nested);
			print_csv_number(row->error[f].own);
		}
		print_csv_number(row->subnormal_nested);
		print_csv_number(row->subnormal_own);
		puts("");
	}
}

static void print_error(const struct scales_error *error)
{
	if (isfinite(error->nested))
		printf("  %7.3f%% %7.3f%%", 100 * error->nested, 100 * error->own);
	else
		printf("  %8s %8s", "N/A", "N/A");
}

static void print_table(const struct scales *scales, const struct model *model,
						const struct budget *extra)
{
	int n = model->elastic.n_budgets + (extra != NULL);
	printf(
		"amax(slice) / amax(parent), and the relative error of weights: the parent's scale | the "
		"slice's own\n\n%-24s %-12s %5s %6s %6s  %17s  %17s  %s\n",
		"modules", "budget", "n", "ratio", "least", "FP8", "NVFP4", "subnormal block scales");
	for (int kind = 0; kind < N_MODULE_KINDS; kind++)
		for (int budget = 0; budget < n; budget++) {
			struct scales_sum sum;
			if (!scales_sum(scales, kind, budget, &sum))
				continue;
			printf("%-24s %-12.12s %5zu %6.3f %6.3f", module_kind_name(kind),
				   budget_name(model, extra, budget), sum.n, sum.ratio, sum.least_ratio);
			for (int f = 0; f < N_SCALES_FORMATS; f++)
				print_error(&sum.error[f]);
			if (isfinite(sum.subnormal_nested))
				printf("  %.2f%% | %.2f%%\n", 100 * sum.subnormal_nested, 100 * sum.subnormal_own);
			else
				puts("  N/A");
		}
	if (scales->stored)
		puts("\nN/A: the checkpoint is quantised already, and what its weights were is not in it; "
			 "look at the BF16 parent");
}

static int stop_asked(void *user, int done, int total)
{
	(void)user;
	(void)done;
	(void)total;
	return run_interrupted();
}

int inspect_scales(const struct cli *cli, const struct model *model, struct error *err)
{
	struct budget extra;
	struct scales scales;
	bool has;
	if (inspect_extra_budget(cli, model, &extra, &has, err) < 0)
		return -1;
	run_catch_interrupt();
	int result = scales_open(&scales, model, has ? &extra : NULL, stop_asked, NULL, err);
	if (result == 0 && cli->json)
		result = print_json(&scales, model, &extra, err);
	else if (result == 0 && cli->csv)
		print_csv(&scales, model, &extra);
	else if (result == 0)
		print_table(&scales, model, has ? &extra : NULL);
	if (has)
		budget_free(&extra);
	scales_close(&scales);
	return result;
}
