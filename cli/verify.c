/* verify: whether a child is a budget of its parent, bit for bit, and if not, what it is instead.
 */
#include "base/size.h"
#include "cli/export.h"
#include "cli/print.h"
#include "cli/run.h"
#include "export/explain.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

static void add_difference(cJSON *root, const struct difference *d)
{
	cJSON *one = cJSON_AddObjectToObject(root, "first_difference");
	cJSON_AddStringToObject(one, d->kind == DIFFERENCE_CONFIG ? "key" : "tensor", d->name);
	cJSON_AddStringToObject(one, "sentence", d->sentence);
	if (d->kind == DIFFERENCE_VALUE) {
		cJSON_AddNumberToObject(one, "row", (double)d->row);
		cJSON_AddNumberToObject(one, "column", (double)d->column);
	}
	if (d->kind == DIFFERENCE_VALUE || d->kind == DIFFERENCE_CONFIG) {
		print_add_number(one, "parent", d->parent);
		print_add_number(one, "child", d->child);
	}
}

static int print_json(const struct verify *v, const struct explanations *why, const char *child,
					  struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddStringToObject(root, "parent", v->parent->directory);
	cJSON_AddStringToObject(root, "child", child);
	cJSON_AddStringToObject(root, "budget", v->budget.name);
	cJSON_AddBoolToObject(root, "named", v->named);
	cJSON_AddBoolToObject(root, "equal", v->n_differences == 0);
	cJSON_AddNumberToObject(root, "tensors", (double)v->cuts.n);
	cJSON_AddNumberToObject(root, "tensors_equal", (double)v->n_equal);
	cJSON_AddNumberToObject(root, "differences", (double)v->n_differences);
	cJSON_AddNumberToObject(root, "bytes", (double)v->bytes);
	if (v->n_differences)
		add_difference(root, &v->differences[0]);
	else
		cJSON_AddNullToObject(root, "first_difference");
	cJSON *list = why ? cJSON_AddArrayToObject(root, "explanations") : NULL;
	for (size_t i = 0; list && i < why->n; i++) {
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "cause", cause_name(why->list[i].cause));
		cJSON_AddStringToObject(one, "kind", why->list[i].kind);
		cJSON_AddNumberToObject(one, "tensors", (double)why->list[i].n);
		cJSON_AddStringToObject(one, "first", why->list[i].first);
		cJSON_AddStringToObject(one, "sentence", why->list[i].sentence);
		cJSON_AddItemToArray(list, one);
	}
	return print_line(root, err);
}

static void print_row(const char *name, const struct difference *d)
{
	print_field(name);
	printf(",%d,", d == NULL);
	print_field(d ? d->sentence : "");
	putchar('\n');
}

/* A row a tensor of the slice; behind them what else differs. */
static void print_csv(const struct verify *v)
{
	puts("tensor,equal,difference");
	for (size_t i = 0; i < v->cuts.n; i++) {
		const struct difference *d = v->differences, *end = d + v->n_differences;
		while (d < end && d->cut != &v->cuts.list[i])
			d++;
		print_row(v->cuts.list[i].to.name, d < end ? d : NULL);
	}
	for (size_t i = 0; i < v->n_differences; i++)
		if (!v->differences[i].cut)
			print_row(v->differences[i].name, &v->differences[i]);
}

static void print_explanations(const struct explanations *why)
{
	for (size_t i = 0; i < why->n; i++) {
		const struct explanation *e = &why->list[i];
		printf("%-12s  %s: %s", cause_name(e->cause), e->n > 1 ? e->kind : e->first, e->sentence);
		if (e->n > 1)
			printf(" (%s; %zu such)", e->first, e->n);
		printf("\n");
	}
}

static int print(const struct cli *cli, const struct verify *v, struct error *err)
{
	const char *child = cli->arguments.items[1];
	struct explanations why = {0};
	char bytes[32];
	int result = cli->explain ? explain(&why, v, err) : 0;
	if (result == 0 && cli->json)
		result = print_json(v, cli->explain ? &why : NULL, child, err);
	else if (result == 0 && cli->csv)
		print_csv(v);
	else if (result == 0 && v->n_differences == 0)
		printf("%s is %s%s of %s: %zu tensors, %s, equal bit for bit\n", child,
			   v->named ? "budget " : "a slice, no named budget, ", v->budget.name,
			   v->parent->directory, v->n_equal, size_text(v->bytes, bytes));
	else if (result == 0)
		print_explanations(&why);
	explanations_free(&why);
	return result;
}

static int run(const struct cli *cli, const struct model *parent, struct verify *v,
			   struct error *err)
{
	struct export_progress progress = {.cli = cli};
	run_catch_interrupt();
	if (verify_open(v, parent, cli->arguments.items[1], cli->budget, err) != 0 ||
		verify_run(v, export_step, &progress, err) != 0)
		return fail_in(err, "verify");
	export_done(&progress, v->bytes);
	if (print(cli, v, err) != 0)
		return -1;
	if (v->n_differences == 0)
		return 0;
	return fail(err, "verify: %s (%zu differences in %zu tensors%s)", v->differences[0].sentence,
				v->n_differences, v->cuts.n, cli->explain ? "" : "; --explain says why");
}

int cli_verify(const struct cli *cli)
{
	struct error err = {0};
	struct verify v = {0};
	struct model_options options = {.budgets_file = cli->budgets_file};
	if (cli->json && cli->csv) {
		fail(&err, "verify: expected one of --json and --csv");
		return cli_usage(&err);
	}
	struct model *parent = model_open(cli->arguments.items[0], &options, &err);
	int result = parent ? run(cli, parent, &v, &err) : -1;
	verify_close(&v);
	model_release(parent);
	if (run_interrupted())
		return EXIT_INTERRUPTED;
	return result == 0 ? EXIT_DONE : cli_fail(&err);
}
