/* inspect nesting, inspect masks: what each budget keeps. */
#include "cli/inspect.h"
#include "cli/modules.h"
#include "cli/print.h"

#include "base/file.h"
#include "inspect/masked.h"
#include "inspect/nesting.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int open(const struct cli *cli, const struct model *model, struct nesting *nesting,
				struct error *err)
{
	struct budget extra;
	bool has;
	if (inspect_extra_budget(cli, model, &extra, &has, err) < 0)
		return -1;
	int status = nesting_open(nesting, model, has ? &extra : NULL, err);
	if (has)
		budget_free(&extra);
	return status;
}

static void add_budgets(cJSON *root, const struct nesting *nesting)
{
	cJSON *list = cJSON_AddArrayToObject(root, "budgets");
	for (int i = 0; i < nesting->n_budgets; i++) {
		const struct budget *budget = &nesting->budgets[i];
		const struct slice_cost *cost = &nesting->cost[i];
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "name", budget->name);
		cJSON_AddStringToObject(one, "origin", origin_name(budget->origin));
		cJSON_AddStringToObject(one, "source", budget->source);
		cJSON_AddNumberToObject(one, "total", (double)cost->total);
		cJSON_AddNumberToObject(one, "active", (double)cost->active);
		cJSON_AddNumberToObject(one, "bytes", (double)cost->bytes);
		cJSON_AddNumberToObject(one, "bytes_per_token", (double)cost->bytes_per_token);
		add_precisions(one, nesting->costs[i]);
		cJSON_AddNumberToObject(one, "num_experts_per_tok", budget->top_k);
		cJSON_AddBoolToObject(one, "contained", nesting->contained[i]);
		int container = nesting->container[i];
		cJSON_AddStringToObject(one, "inside",
								container < 0 ? "" : nesting->budgets[container].name);
		cJSON_AddItemToArray(list, one);
	}
}

static cJSON *runs_json(const struct nesting *nesting, const struct config *config, int budget,
						const struct nesting_row *row, struct error *err)
{
	cJSON *list = cJSON_CreateArray();
	struct span_list spans = {0};
	if (row->width[budget] > 0 && budget_spans(&nesting->budgets[budget], config, row->axis,
											   row->layer < 0 ? 0 : row->layer, &spans, err) < 0) {
		cJSON_Delete(list);
		list = NULL;
	}
	for (size_t i = 0; list && i < spans.n; i++) {
		const int run[2] = {spans.spans[i].start, spans.spans[i].start + spans.spans[i].length};
		cJSON_AddItemToArray(list, cJSON_CreateIntArray(run, 2));
	}
	free(spans.spans);
	return list;
}

static void add_violations(cJSON *root, const struct nesting *nesting)
{
	cJSON *list = cJSON_AddArrayToObject(root, "violations");
	for (const char *line = text_chars(&nesting->violations); *line;) {
		int length = (int)strcspn(line, "\n");
		char one[512];
		snprintf(one, sizeof one, "%.*s", length, line);
		cJSON_AddItemToArray(list, cJSON_CreateString(one));
		line += length + (line[length] != '\0');
	}
}

/* ---- the proof, where a text is named: masked parent equals sliced child ---- */

struct proof {
	int n; // budgets, the parent first; 0 = no text
	struct masked_result of[MAX_BUDGETS];
};

static int prove(struct proof *proof, const struct cli *cli, const struct model *model,
				 const struct nesting *nesting, struct error *err)
{
	struct inspect_text text = {0};

	*proof = (struct proof){0};
	if (!cli->text && !cli->tokens)
		return 0;
	int result = inspect_text_open(&text, cli, model, err);
	struct trials_plan plan = inspect_trials(&text, model);
	for (int b = 1; b < nesting->n_budgets && !result; b++)
		result = masked_run(&proof->of[b], &plan, &nesting->budgets[b], err);
	proof->n = nesting->n_budgets;
	inspect_text_close(&text);
	return result;
}

static void add_proof(cJSON *root, const struct proof *proof, const struct nesting *nesting)
{
	cJSON *list = proof->n ? cJSON_AddArrayToObject(root, "masked") : NULL;

	for (int b = 1; b < proof->n; b++) {
		const struct masked_result *result = &proof->of[b];
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "budget", nesting->budgets[b].name);
		cJSON_AddNumberToObject(one, "tokens", result->n);
		print_add_number(one, "absolute", result->absolute);
		print_add_number(one, "relative", result->relative);
		cJSON_AddNumberToObject(one, "at", result->at);
		cJSON_AddNumberToObject(one, "same_top", result->same_top);
		cJSON_AddItemToArray(list, one);
	}
}

static bool plain_view(const struct nesting *nesting, int budget)
{
	for (int r = 0; r < nesting->n_rows; r++)
		if (nesting->rows[r].runs[budget])
			return false;
	return true;
}

static void print_proof(const struct proof *proof, const struct nesting *nesting)
{
	puts("\nproof");
	for (int b = 1; b < nesting->n_budgets; b++)
		printf("  by construction: %s is %s of the parent's own bytes\n", nesting->budgets[b].name,
			   plain_view(nesting, b) ? "a view of the leading channels"
									  : "a view by runs (*), no plain leading part,");
	for (int b = 1; b < proof->n; b++) {
		const struct masked_result *r = &proof->of[b];
		printf("  measured: masked parent against sliced %s over %d tokens: largest error of a "
			   "logit %.3g (%.2g of the largest), top-1 equal at %d\n",
			   nesting->budgets[b].name, r->n, r->absolute, r->relative, r->same_top);
	}
	if (!proof->n)
		puts("  not measured: --text FILE holds the masked parent against every slice");
}

static int nesting_json(const struct nesting *nesting, const struct proof *proof, struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	add_budgets(root, nesting);
	cJSON *axes = cJSON_AddArrayToObject(root, "axes");
	for (int r = 0; r < nesting->n_rows; r++) {
		const struct nesting_row *row = &nesting->rows[r];
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "axis", axis_name(row->axis));
		inspect_add_layer(one, row->layer);
		cJSON_AddNumberToObject(one, "parent", row->parent);
		cJSON *widths = cJSON_AddObjectToObject(one, "widths");
		for (int b = 0; b < nesting->n_budgets; b++)
			cJSON_AddNumberToObject(widths, nesting->budgets[b].name, row->width[b]);
		cJSON_AddItemToArray(axes, one);
	}
	add_violations(root, nesting);
	add_proof(root, proof, nesting);
	add_modules(root, &nesting->modules);
	cJSON_AddNumberToObject(root, "file_bytes", (double)nesting->file_bytes);
	cJSON_AddNumberToObject(root, "separate_bytes", (double)nesting->separate_bytes);
	return print_tree(root, err);
}

/* Rows of the table's form: no layer, nothing of the parent. */
static void proof_csv(const struct proof *proof)
{
	static const char *const names[] = {"masked_absolute", "masked_relative", "masked_same_top",
										"masked_tokens"};
	for (int i = 0; i < 4 && proof->n; i++) {
		printf(",%s,,", names[i]);
		for (int b = 1; b < proof->n; b++) {
			const struct masked_result *r = &proof->of[b];
			const double values[] = {r->absolute, r->relative, r->same_top, r->n};
			print_value(values[i]);
		}
		putchar('\n');
	}
}

static void nesting_csv(const struct nesting *nesting, const struct proof *proof)
{
	printf("layer,axis,parent");
	for (int b = 0; b < nesting->n_budgets; b++) {
		putchar(',');
		print_field(nesting->budgets[b].name);
	}
	putchar('\n');
	for (int r = 0; r < nesting->n_rows; r++) {
		const struct nesting_row *row = &nesting->rows[r];
		char layer[16];
		printf("%s,%s,%d", row->layer < 0 ? "" : inspect_layer(row->layer, layer),
			   axis_name(row->axis), row->parent);
		for (int b = 0; b < nesting->n_budgets; b++)
			printf(",%d", row->width[b]);
		putchar('\n');
	}
	proof_csv(proof);
}

static void print_costs(const struct nesting *nesting)
{
	char a[32], b[32], c[32], d[32];
	printf("\n%-24s %18s %18s %18s %18s  %s\n", "budget", "parameters", "active", "bytes",
		   "bytes a token", "widths from");
	for (int i = 0; i < nesting->n_budgets; i++) {
		const struct slice_cost *cost = &nesting->cost[i];
		printf("%-24s %18s %18s %18s %18s  %s (%s)\n", nesting->budgets[i].name,
			   print_grouped(cost->total, a), print_grouped(cost->active, b),
			   print_grouped(cost->bytes, c), print_grouped(cost->bytes_per_token, d),
			   nesting->budgets[i].source, origin_name(nesting->budgets[i].origin));
	}
	print_precisions_head();
	for (int i = 0; i < nesting->n_budgets; i++)
		print_precisions(nesting->budgets[i].name, nesting->costs[i]);
	print_modules(nesting->budgets[0].name, &nesting->modules);
	printf("\nthis file %s bytes; %d separate checkpoints %s bytes, %.2f times as many\n",
		   print_grouped(nesting->file_bytes, a), nesting->n_budgets,
		   print_grouped(nesting->separate_bytes, b),
		   nesting->file_bytes ? (double)nesting->separate_bytes / (double)nesting->file_bytes : 0);
	for (int i = 1; i < nesting->n_budgets; i++) {
		printf("%s %s %s on every axis and layer\n", nesting->budgets[i].name,
			   nesting->contained[i] ? "lies inside" : "does NOT lie inside",
			   nesting->budgets[nesting->container[i]].name);
	}
	fputs(text_chars(&nesting->violations), stdout);
}

static void nesting_table(const struct nesting *nesting, const struct config *config,
						  const struct proof *proof)
{
	printf("%5s %-9s %-36s", "layer", "kind", "axis");
	for (int b = 0; b < nesting->n_budgets; b++)
		printf(" %10.10s", nesting->budgets[b].name);
	putchar('\n');
	for (int r = 0; r < nesting->n_rows; r++) {
		const struct nesting_row *row = &nesting->rows[r];
		char layer[16];
		printf("%5s %-9s %-36s", inspect_layer(row->layer, layer),
			   row->layer < 0 ? "all" : layer_name(config->kinds[row->layer]),
			   axis_name(row->axis));
		for (int b = 0; b < nesting->n_budgets; b++) {
			char width[16];
			snprintf(width, sizeof width, row->width[b] ? "%d%s" : "left out", row->width[b],
					 row->runs[b] ? "*" : "");
			printf(" %10s", width);
		}
		putchar('\n');
	}
	for (int r = 0; r < nesting->n_rows; r++) {
		if (memchr(nesting->rows[r].runs, true, sizeof nesting->rows[r].runs)) {
			puts("* no plain leading part: inspect masks shows its runs");
			break;
		}
	}
	print_costs(nesting);
	print_proof(proof, nesting);
}

int inspect_nesting(const struct cli *cli, const struct model *model, struct error *err)
{
	struct nesting nesting;
	struct proof proof;
	int status = open(cli, model, &nesting, err);
	if (status < 0)
		return -1;
	status = prove(&proof, cli, model, &nesting, err);
	if (status == 0 && cli->json)
		status = nesting_json(&nesting, &proof, err);
	else if (status == 0 && cli->csv)
		nesting_csv(&nesting, &proof);
	else if (status == 0)
		nesting_table(&nesting, &model->config, &proof);
	nesting_close(&nesting);
	return status;
}

/* ---- masks: the kept channels themselves ---- */

static int mask_text(const struct nesting *nesting, const struct config *config, int budget,
					 const struct nesting_row *row, bool csv, struct error *err)
{
	struct text runs = {0};
	char layer[16];
	int status = nesting_runs(nesting, config, budget, row, &runs, err);
	const char *name = nesting->budgets[budget].name;
	if (status == 0 && csv) {
		printf("%s,%s,", row->layer < 0 ? "" : inspect_layer(row->layer, layer),
			   axis_name(row->axis));
		print_field(name);
		printf(",%d,%d,%s\n", row->width[budget], row->parent, text_chars(&runs));
	} else if (status == 0) {
		printf("%5s %-36s %-12s %5d of %5d  %s\n", inspect_layer(row->layer, layer),
			   axis_name(row->axis), name, row->width[budget], row->parent, text_chars(&runs));
	}
	text_free(&runs);
	return status;
}

static int masks_json(const struct nesting *nesting, const struct config *config, int only,
					  struct error *err)
{
	cJSON *root = cJSON_CreateObject(), *list = cJSON_AddArrayToObject(root, "masks");
	for (int r = 0; r < nesting->n_rows; r++) {
		const struct nesting_row *row = &nesting->rows[r];
		for (int b = 0; b < nesting->n_budgets; b++) {
			cJSON *runs = only >= 0 && b != only ? NULL : runs_json(nesting, config, b, row, err);
			if (!runs)
				continue;
			cJSON *one = cJSON_CreateObject();
			cJSON_AddStringToObject(one, "axis", axis_name(row->axis));
			inspect_add_layer(one, row->layer);
			cJSON_AddStringToObject(one, "budget", nesting->budgets[b].name);
			cJSON_AddNumberToObject(one, "kept", row->width[b]);
			cJSON_AddNumberToObject(one, "parent", row->parent);
			cJSON_AddBoolToObject(one, "prefix", !row->runs[b]);
			cJSON_AddItemToObject(one, "runs", runs);
			cJSON_AddItemToArray(list, one);
		}
	}
	return print_tree(root, err);
}

/* The budget that the command line names, -1 = none, so all of them are shown; typed widths stand
 * last. */
static int only_budget(const struct cli *cli, const struct model *model,
					   const struct nesting *nesting)
{
	bool named =
		cli->budget || (cli->model && strchr(cli->model, '#') && !file_is_directory(cli->model));
	struct budget budget = {0};
	struct error err;
	if (!named || cli_budget(cli, model, &budget, &err) < 0)
		return -1;
	int found = elastic_find(&model->elastic, budget.name);
	budget_free(&budget);
	return found >= 0 ? found : nesting->n_budgets - 1;
}

int inspect_masks(const struct cli *cli, const struct model *model, struct error *err)
{
	struct nesting nesting;
	int status = open(cli, model, &nesting, err);
	if (status < 0)
		return -1;
	int only = only_budget(cli, model, &nesting);
	if (cli->json) {
		status = masks_json(&nesting, &model->config, only, err);
	} else if (cli->csv) {
		puts("layer,axis,budget,kept,parent,runs");
	} else {
		printf("%5s %-36s %-12s %14s  %s\n", "layer", "axis", "budget", "kept",
			   "channels, half-open");
	}
	for (int r = 0; r < nesting.n_rows && !cli->json; r++) {
		for (int b = 0; b < nesting.n_budgets && status == 0; b++)
			if (only < 0 || b == only)
				status = mask_text(&nesting, &model->config, b, &nesting.rows[r], cli->csv, err);
	}
	nesting_close(&nesting);
	return status;
}
