/* inspect sensitivity LARGE SMALL: which of the differences between two budgets matter. */
#include "cli/inspect.h"
#include "cli/print.h"

#include "inspect/sensitivity.h"
#include <math.h>
#include <stdio.h>

struct names {
	const char *large, *small;
	int n_tokens;
};

static void add_trial(cJSON *to, const char *key, const struct trial *trial)
{
	cJSON *one = cJSON_AddObjectToObject(to, key);

	print_add_number(one, "kl", trial->kl.value);
	print_add_number(one, "kl_error", trial->kl.error);
	print_add_number(one, "top1", trial->same_top);
	print_add_number(one, "ppl", trial->ppl.value);
}

static int print_json(const struct sensitivity *s, const struct names *names, struct error *err)
{
	cJSON *root = cJSON_CreateObject();

	cJSON_AddStringToObject(root, "large", names->large);
	cJSON_AddStringToObject(root, "small", names->small);
	cJSON_AddNumberToObject(root, "tokens", names->n_tokens);
	add_trial(root, "joint", &s->joint);
	print_add_number(root, "sum_cut", s->sum_cut);
	print_add_number(root, "sum_regained", s->sum_regained);
	cJSON *rows = cJSON_AddArrayToObject(root, "rows");
	for (int i = 0; i < s->n; i++) {
		const struct sensitivity_row *row = &s->rows[i];
		cJSON *one = cJSON_CreateObject();
		inspect_add_layer(one, row->layer);
		cJSON_AddStringToObject(one, "axis", mask_kind_name(row->kind));
		cJSON_AddStringToObject(one, "change", row->change);
		add_trial(one, "cut", &row->cut);
		add_trial(one, "without", &row->without);
		print_add_number(one, "regained", row->regained);
		cJSON_AddItemToArray(rows, one);
	}
	return print_tree(root, err);
}

static void print_csv(const struct sensitivity *s)
{
	puts("layer,axis,change,cut_kl,cut_kl_error,cut_top1,regained_kl");
	for (int i = 0; i < s->n; i++) {
		const struct sensitivity_row *row = &s->rows[i];
		char layer[16];
		printf("%s,%s,%s", row->layer < 0 ? "" : inspect_layer(row->layer, layer),
			   mask_kind_name(row->kind), row->change);
		print_value(row->cut.kl.value);
		print_value(row->cut.kl.error);
		print_value(row->cut.same_top);
		print_value(row->regained);
		putchar('\n');
	}
}

static void print_cell(double value)
{
	if (isfinite(value))
		printf(" %10.4f", value);
	else
		printf(" %10s", "N/A");
}

static void print_table(const struct sensitivity *s, const struct names *names)
{
	double joint = s->joint.kl.value;

	printf("%s cut to %s on one axis of one layer at a time, %d tokens; KL in nats a token\n"
		   "KL(%s || %s) = %.4f +- %.4f, top-1 %.1f%%\n\n",
		   names->large, names->small, names->n_tokens, names->large, names->small, joint,
		   s->joint.kl.error, 100 * s->joint.same_top);
	printf("%5s %-36s %-16s %10s %10s %10s\n", "layer", "axis", "change", "only cut", "+-",
		   "regained");
	for (int i = 0; i < s->n; i++) {
		const struct sensitivity_row *row = &s->rows[i];
		char layer[16];
		printf("%5s %-36s %-16s", inspect_layer(row->layer, layer), mask_kind_name(row->kind),
			   row->change);
		print_cell(row->cut.kl.value);
		print_cell(row->cut.kl.error);
		print_cell(row->regained);
		putchar('\n');
	}
	printf("%5s %-53s", "", "sum");
	print_cell(s->sum_cut);
	printf(" %10s", "");
	print_cell(s->sum_regained);
	if (joint > 0)
		printf("\n%5s %-53s %9.0f%% %10s %9.0f%%\n", "", "of the joint KL",
			   100 * s->sum_cut / joint, "", 100 * s->sum_regained / joint);
	puts(
		"\nonly cut: the rest as in the larger; regained: KL that goes when only this is restored, "
		"the rest as in\nthe smaller. Independent cuts would add up to 100%.");
}

static int run(struct inspect_text *text, const struct model *model, const struct budget *large,
			   const struct budget *small, struct error *err)
{
	const struct cli *cli = text->cli;
	struct trials_plan plan = inspect_trials(text, model);
	struct names names = {large->name, small->name, text->n};
	struct sensitivity s;

	plan.base = large;
	if (sensitivity_run(&s, &plan, small, err))
		return -1;
	int result = 0;
	if (cli->json)
		result = print_json(&s, &names, err);
	else if (cli->csv)
		print_csv(&s);
	else
		print_table(&s, &names);
	sensitivity_free(&s);
	return result;
}

int inspect_sensitivity(const struct cli *cli, const struct model *model, struct error *err)
{
	struct budget large = {0}, small = {0};
	struct inspect_text text = {0};
	int result = model_budget(model, cli->arguments.items[1], &large, err);

	if (!result)
		result = model_budget(model, cli->arguments.items[2], &small, err);
	if (!result)
		result = inspect_text_open(&text, cli, model, err);
	if (!result)
		result = run(&text, model, &large, &small, err);
	inspect_text_close(&text);
	budget_free(&large);
	budget_free(&small);
	return result;
}
