/*
 * inspect mask -b TEXT, inspect bisect GOOD BAD, inspect against FILE: what a mask does to a text,
 * which of its differences does it, and where another engine's numbers part from ours.
 */
#include "cli/inspect.h"
#include "cli/print.h"
#include "cli/source.h"

#include "base/file.h"
#include "base/memory.h"
#include "core/mask.h"
#include "inspect/against.h"
#include "inspect/bisect.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int open_probe(struct probe *probe, const struct cli *cli, const struct model *model,
					  struct error *err)
{
	struct device_options options;
	int32_t *ids = NULL;
	int n = 0;
	if (!cli->text == !cli->tokens)
		return fail(err, "inspect %s: expected one of --text FILE and --tokens",
					cli->arguments.items[0]);
	int status = cli_device_options(cli, &options, err);
	if (status == 0)
		status = source_ids(cli, model, &ids, &n, err);
	if (status == 0) // the count of references is all that changes in a model
		status = probe_open(probe, (struct model *)model, ids, n, &options, err);
	free(ids);
	if (status == 0 && cli->tolerance > 0)
		probe->tolerance = cli->tolerance;
	return status;
}

/* The budget of the file in front of the mask's terms, else the parent. */
static int base_budget(const struct model *model, const char *text, struct budget *out,
					   struct error *err)
{
	char *name = mem_string(text, strcspn(text, ","), err);
	int found = name ? elastic_find(&model->elastic, name) : -1;
	free(name);
	return budget_copy(out, &model->elastic.budgets[found < 0 ? 0 : found], err);
}

/* ---- mask ---- */

#define N_ATTEMPTS (1 + N_NORM_RULES + N_HEADS_RULES)

struct attempt { // the mask as it is, or under another convention
	char name[24];
	bool same; // that convention is the mask's own
	struct probe_result result;
};

struct mask_report {
	const struct model *model;
	struct budget base, mask;
	struct text terms;
	double tolerance;
	int n;
	struct attempt attempts[N_ATTEMPTS];
};

static int try_mask(struct mask_report *report, struct probe *probe, struct error *err)
{
	int status = probe_pin(probe, &report->base, err);
	for (int i = 0; i < N_ATTEMPTS && status == 0; i++) {
		struct attempt *attempt = &report->attempts[i];
		struct budget budget;
		int norm = i - 1, heads = i - 1 - N_NORM_RULES;
		if (budget_copy(&budget, &report->mask, err) < 0)
			return -1;
		if (i == 0) {
			snprintf(attempt->name, sizeof attempt->name, "the mask");
		} else if (heads < 0) {
			budget.norm = (enum norm_rule)norm;
			attempt->same = budget.norm == report->mask.norm;
			snprintf(attempt->name, sizeof attempt->name, "norm=%s", norm_rule_name(budget.norm));
		} else {
			budget.heads = (enum heads_rule)heads;
			attempt->same = budget.heads == report->mask.heads;
			snprintf(attempt->name, sizeof attempt->name, "heads=%s",
					 heads_rule_name(budget.heads));
		}
		if (attempt->same)
			attempt->result = report->attempts[0].result;
		else
			status = probe_read(probe, &budget, &attempt->result, err);
		budget_free(&budget);
	}
	return status;
}

static cJSON *attempt_json(const struct attempt *attempt)
{
	const struct probe_result *r = &attempt->result;
	cJSON *one = cJSON_CreateObject();
	cJSON_AddStringToObject(one, "name", attempt->name);
	cJSON_AddBoolToObject(one, "in_use", attempt->same);
	print_add_number(one, "kl", r->kl);
	print_add_number(one, "kl_max", r->kl_max);
	cJSON_AddNumberToObject(one, "kl_max_at", r->kl_max_at);
	print_add_number(one, "ppl", r->ppl);
	print_add_number(one, "ppl_base", r->ppl_base);
	print_add_number(one, "same_top", r->same_top);
	print_add_number(one, "first_layer", r->first_layer == PROBE_NO_LAYER ? NAN : r->first_layer);
	cJSON *list = cJSON_AddArrayToObject(one, "distance");
	for (int i = 0; i <= r->n_layers; i++)
		cJSON_AddItemToArray(list, isfinite(r->distance[i]) ? cJSON_CreateNumber(r->distance[i])
															: cJSON_CreateNull());
	return one;
}

static int mask_json(const struct mask_report *report, struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddStringToObject(root, "base", report->base.name);
	cJSON_AddStringToObject(root, "terms", text_chars(&report->terms));
	cJSON_AddNumberToObject(root, "tokens", report->n);
	cJSON_AddNumberToObject(root, "tolerance", report->tolerance);
	cJSON *list = cJSON_AddArrayToObject(root, "attempts");
	for (int i = 0; i < N_ATTEMPTS; i++)
		cJSON_AddItemToArray(list, attempt_json(&report->attempts[i]));
	return print_tree(root, err);
}

static void mask_csv(const struct mask_report *report)
{
	puts("trial,kl,kl_max,kl_max_at,ppl,ppl_base,same_top,first_layer");
	for (int i = 0; i < N_ATTEMPTS; i++) {
		const struct probe_result *r = &report->attempts[i].result;
		printf("%s,%.9g,%.9g,%d,%.9g,%.9g,%.9g,", report->attempts[i].name, r->kl, r->kl_max,
			   r->kl_max_at, r->ppl, r->ppl_base, r->same_top);
		if (r->first_layer != PROBE_NO_LAYER)
			printf("%d", r->first_layer);
		putchar('\n');
	}
}

static const char *mark_word(enum mask_mark mark)
{
	return mark == MASK_TRAINED ? "" : mark == MASK_BETWEEN ? "between trained ones" : "not nested";
}

static void mask_table(const struct mask_report *report, struct error *err)
{
	const struct config *config = &report->model->config;
	struct mask_units units;
	printf("%s: %s, %d tokens\n", report->base.name,
		   report->terms.length ? text_chars(&report->terms) : "as it is", report->n);
	if (mask_units(&report->base, &report->mask, config, &units, err) == 0) {
		for (int i = 0; i < units.n; i++) {
			const struct mask_unit *unit = &units.units[i];
			printf("  %-56s %s\n", unit->term,
				   unit->kind < N_AXES ? mark_word(mask_mark(&report->mask, &report->model->elastic,
															 config, (enum axis)unit->kind,
															 unit->layer < 0 ? 0 : unit->layer))
									   : "");
		}
		mask_units_free(&units);
	}
	for (int i = 0; i < N_ATTEMPTS; i++) {
		struct text line = {0};
		probe_line(&report->attempts[i].result, config, report->tolerance, &line);
		printf("%-18s %s%s\n", report->attempts[i].name, text_chars(&line),
			   report->attempts[i].same ? " (in use)" : "");
		text_free(&line);
	}
	printf("\n%8s %-10s %s\n", "residual", "written by", "distance from the base");
	const struct probe_result *r = &report->attempts[0].result;
	for (int i = 0; i <= r->n_layers; i++) {
		char name[24] = "embeddings";
		if (i > 0)
			snprintf(name, sizeof name, "%d %s", i - 1, layer_name(config->kinds[i - 1]));
		printf("%8d %-12s %10.4g%s\n", i, name, r->distance[i],
			   r->first_layer == i - 1 ? "  <- leaves first" : "");
	}
}

int inspect_mask(const struct cli *cli, const struct model *model, struct error *err)
{
	struct probe probe = {0};
	struct mask_report report = {.model = model};
	const char *text = cli_named_budget(cli);
	int status = cli_budget(cli, model, &report.mask, err);
	if (status == 0)
		status = base_budget(model, text ? budget_name_text(text) : "", &report.base, err);
	if (status == 0)
		status = open_probe(&probe, cli, model, err);
	if (status == 0) {
		report.n = probe.n;
		report.tolerance = probe.tolerance;
		budget_terms(&report.mask, &report.base, &model->config, &report.terms);
		status = try_mask(&report, &probe, err);
	}
	if (status == 0 && cli->json)
		status = mask_json(&report, err);
	else if (status == 0 && cli->csv)
		mask_csv(&report);
	else if (status == 0)
		mask_table(&report, err);
	probe_close(&probe);
	text_free(&report.terms);
	budget_free(&report.mask);
	budget_free(&report.base);
	return status;
}

/* ---- bisect ---- */

static int bisect_json(const struct bisect *b, struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddNumberToObject(root, "differences", b->n_units);
	cJSON_AddNumberToObject(root, "runs", b->runs);
	print_add_number(root, "found", b->found < 0 ? NAN : b->found);
	print_add_number(root, "layer", b->found < 0 || b->layer < 0 ? NAN : b->layer);
	cJSON_AddStringToObject(root, "what", b->what);
	print_add_number(root, "kl_bad", b->kl_bad);
	print_add_number(root, "kl_before", b->found < 0 ? NAN : b->kl_before);
	print_add_number(root, "kl_after", b->found < 0 ? NAN : b->kl_after);
	print_add_number(root, "kl_solo", b->found < 0 ? NAN : b->kl_solo);
	print_add_number(root, "kl_all_but", b->found < 0 ? NAN : b->kl_all_but);
	cJSON_AddStringToObject(root, "note", b->note);
	cJSON *list = cJSON_AddArrayToObject(root, "steps");
	for (int i = 0; i < b->n_steps; i++) {
		cJSON *step = cJSON_CreateObject();
		cJSON_AddNumberToObject(step, "first", b->steps[i].n);
		print_add_number(step, "kl", b->steps[i].kl);
		cJSON_AddItemToArray(list, step);
	}
	return print_tree(root, err);
}

static void bisect_csv(const struct bisect *b)
{
	puts("first,kl");
	for (int i = 0; i < b->n_steps; i++)
		printf("%d,%.9g\n", b->steps[i].n, b->steps[i].kl);
}

static void bisect_table(const struct bisect *b)
{
	struct text line = {0};
	if (b->n_steps)
		printf("%20s %10s\n", "first differences", "KL");
	for (int i = 0; i < b->n_steps; i++)
		printf("%10d of %6d %10.4g\n", b->steps[i].n, b->n_units, b->steps[i].kl);
	bisect_line(b, &line);
	printf("%s\n", text_chars(&line));
	text_free(&line);
}

/* DIR#BUDGET where DIR is a folder: NULL and no error if it is not one. */
static int open_child(const char *text, struct model **child, const char **budget,
					  struct error *err)
{
	const char *hash = strrchr(text, '#');
	char *directory = mem_string(text, hash ? (size_t)(hash - text) : strlen(text), err);
	*child = NULL;
	if (!directory)
		return -1;
	if (file_is_directory(directory)) {
		*child = model_open(directory, NULL, err);
		*budget = *child && hash ? hash + 1 : *child ? elastic_default(&(*child)->elastic) : NULL;
	}
	int status = file_is_directory(directory) && !*child ? -1 : 0;
	free(directory);
	return status;
}

int inspect_bisect(const struct cli *cli, const struct model *model, struct error *err)
{
	struct probe probe = {0};
	struct budget good = {0}, bad = {0};
	struct model *child = NULL;
	struct bisect bisect;
	const char *name = cli->arguments.items[2];
	int status = model_budget(model, cli->arguments.items[1], &good, err);
	if (status == 0)
		status = open_child(name, &child, &name, err);
	if (status == 0)
		status = model_budget(child ? child : model, name, &bad, err);
	if (status == 0)
		status = open_probe(&probe, cli, model, err);
	if (status == 0)
		status = child ? bisect_child(&bisect, &probe, &good, child, &bad, err)
					   : bisect_masks(&bisect, &probe, &good, &bad, err);
	if (status == 0 && cli->json)
		status = bisect_json(&bisect, err);
	else if (status == 0 && cli->csv)
		bisect_csv(&bisect);
	else if (status == 0)
		bisect_table(&bisect);
	probe_close(&probe);
	budget_free(&good);
	budget_free(&bad);
	model_release(child);
	return status;
}

/* ---- against ---- */

static int against_json(const struct against *a, struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddNumberToObject(root, "tokens", a->n);
	cJSON_AddNumberToObject(root, "residuals", a->n_residuals);
	cJSON_AddBoolToObject(root, "logits", a->has_logits);
	cJSON_AddNumberToObject(root, "tolerance", a->tolerance);
	print_add_number(root, "worst", a->worst);
	cJSON_AddBoolToObject(root, "differs", a->differs);
	bool residual = a->differs && a->residual <= a->n_layers;
	print_add_number(root, "residual", residual ? a->residual : NAN);
	print_add_number(root, "layer", residual && a->residual > 0 ? a->residual - 1 : NAN);
	print_add_number(root, "channel", a->differs ? a->channel : NAN);
	print_add_number(root, "position", a->differs ? a->position : NAN);
	print_add_number(root, "here", a->differs ? (double)a->here : NAN);
	print_add_number(root, "there", a->differs ? (double)a->there : NAN);
	print_add_number(root, "channels", a->differs ? a->n_channels : NAN);
	return print_tree(root, err);
}

static void against_csv(const struct against *a)
{
	puts("differs,residual,channel,position,here,there,channels,width,tolerance,worst");
	printf("%d,", a->differs);
	if (a->differs)
		printf("%s%d,%d,%d,%.9g,%.9g,%d,%d", a->residual > a->n_layers ? "logits " : "",
			   a->residual, a->channel, a->position, (double)a->here, (double)a->there,
			   a->n_channels, a->width);
	else
		printf(",,,,,,");
	printf(",%g,%.9g\n", a->tolerance, a->worst);
}

int inspect_against(const struct cli *cli, const struct model *model, struct error *err)
{
	struct probe probe = {0};
	struct budget budget = {0};
	struct against against;
	struct text line = {0};
	double tolerance = cli->tolerance > 0 ? cli->tolerance : AGAINST_TOLERANCE;
	int status = cli_budget(cli, model, &budget, err);
	if (status == 0)
		status = open_probe(&probe, cli, model, err);
	if (status == 0)
		status = against_run(&against, &probe, &budget, cli->arguments.items[1], tolerance, err);
	if (status == 0 && cli->json) {
		status = against_json(&against, err);
	} else if (status == 0 && cli->csv) {
		against_csv(&against);
	} else if (status == 0) {
		against_line(&against, &model->config, &line);
		puts(text_chars(&line));
	}
	if (status == 0 && against.differs) // as of verify: a script sees it
		status = fail(err, "inspect against: they differ");
	text_free(&line);
	probe_close(&probe);
	budget_free(&budget);
	return status;
}
