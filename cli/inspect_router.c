/* inspect router: the trained router's choices beside the budgets' widths, or what it mixes for a
 * target (-b active=2.8B); inspect router --sweep: the widths chosen for many targets. */
#include "cli/inspect.h"
#include "cli/print.h"

#include "core/router.h"
#include "core/target.h"
#include "inspect/staircase.h"
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *budget_name(const struct model *model, const struct router_row *row)
{
	return row->budget < 0 ? "mix" : model->elastic.budgets[row->budget].name;
}

static int print_json(const struct router_view *view, const struct model *model, struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddBoolToObject(root, "present", view->present);
	cJSON_AddStringToObject(root, "source", text_chars(&view->source));
	print_add_number(root, "tau", (double)view->tau);
	print_add_number(root, "scaler", (double)view->scaler);
	cJSON *choices = cJSON_AddObjectToObject(root, "choices");
	cJSON *axes = cJSON_AddObjectToObject(root, "axes");
	for (int a = 0; a < view->n_axes; a++) {
		const struct router_axis_view *axis = &view->axes[a];
		const char *name = router_axis_name(axis->axis);
		int n = axis->axis->n_choices;
		cJSON_AddItemToObject(choices, name, cJSON_CreateIntArray(axis->axis->choices, n));
		cJSON *rows = cJSON_AddArrayToObject(axes, name);
		for (int r = 0; r < axis->n_rows; r++) {
			const struct router_row *row = &axis->rows[r];
			cJSON *one = cJSON_CreateObject();
			cJSON_AddStringToObject(one, "budget", budget_name(model, row));
			inspect_add_layer(one, row->layer);
			cJSON_AddItemToObject(one, "logits", inspect_numbers(row->logits, n));
			cJSON_AddItemToObject(one, "probabilities", inspect_numbers(row->probabilities, n));
			cJSON_AddItemToObject(one, "p_choice", inspect_numbers(row->p_choice, n));
			cJSON_AddNumberToObject(one, "width", row->width);
			cJSON_AddNumberToObject(one, "margin", row->margin);
			cJSON_AddNumberToObject(one, "budget_width", row->budget_width);
			cJSON_AddBoolToObject(one, "disagree", row->disagree);
			cJSON_AddItemToArray(rows, one);
		}
	}
	return print_tree(root, err);
}

static void print_csv(const struct router_view *view, const struct model *model)
{
	puts("axis,budget,layer,choice,logit,probability,p_choice,chosen,margin,budget_width,disagree");
	for (int a = 0; a < view->n_axes; a++) {
		const struct router_axis_view *axis = &view->axes[a];
		for (int r = 0; r < axis->n_rows; r++) {
			const struct router_row *row = &axis->rows[r];
			for (int i = 0; i < axis->axis->n_choices; i++) {
				char layer[16];
				printf("%s,", router_axis_name(axis->axis));
				print_field(budget_name(model, row));
				printf(",%s,%d,%.9g,%.9g,%.9g,%d,%.9g,%d,%d\n",
					   row->layer < 0 ? "" : inspect_layer(row->layer, layer),
					   axis->axis->choices[i], (double)row->logits[i],
					   (double)row->probabilities[i], (double)row->p_choice[i], i == row->chosen,
					   row->margin, row->budget_width, row->disagree);
			}
		}
	}
}

static void print_axis(const struct router_axis_view *axis, const struct model *model)
{
	printf("\n%s, choices", router_axis_name(axis->axis));
	for (int i = 0; i < axis->axis->n_choices; i++)
		printf(" %d", axis->axis->choices[i]);
	printf("\n%-12s %5s %7s %7s %8s  %s\n", "budget", "layer", "width", "budget", "margin",
		   "logit / probability / P(choice), choice by choice");
	for (int r = 0; r < axis->n_rows; r++) {
		const struct router_row *row = &axis->rows[r];
		char layer[16];
		printf("%-12s %5s %7d %7d %8.3f ", budget_name(model, row),
			   inspect_layer(row->layer, layer), row->width, row->budget_width, row->margin);
		for (int i = 0; i < axis->axis->n_choices; i++) {
			printf(" %s%.2f/%.3f/%.3f", i == row->chosen ? ">" : "", (double)row->logits[i],
				   (double)row->probabilities[i], (double)row->p_choice[i]);
		}
		puts(row->disagree ? "  DISAGREE" : "");
	}
}

static int sweep_json(const struct staircase *staircase, struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddStringToObject(root, "metric", staircase->metric);
	cJSON_AddStringToObject(root, "chosen_by", staircase->by_router ? "router" : "importance");
	cJSON *steps = cJSON_AddArrayToObject(root, "steps");
	for (int i = 0; i < staircase->n; i++) {
		const struct staircase_step *step = &staircase->steps[i];
		cJSON *one = cJSON_CreateObject(), *widths = cJSON_AddObjectToObject(one, "widths");
		cJSON_AddNumberToObject(one, "target", step->target);
		cJSON_AddNumberToObject(one, "active", (double)step->cost.active);
		cJSON_AddNumberToObject(one, "total", (double)step->cost.total);
		cJSON_AddNumberToObject(one, "bytes", (double)step->cost.bytes);
		cJSON_AddNumberToObject(one, "layers", step->n_layers);
		for (int a = 0; a < N_AXES; a++)
			if (step->width[a] > 0)
				cJSON_AddNumberToObject(widths, axis_name((enum axis)a), step->width[a]);
		cJSON_AddItemToArray(steps, one);
	}
	return print_tree(root, err);
}

/* Columns: the target, its cost, and the axes that have more than one width (CSV: all). */
static void sweep_table(const struct staircase *staircase, bool csv)
{
	if (!csv)
		printf("widths chosen by %s\n",
			   staircase->by_router ? "the router" : "importance (no router in this checkpoint)");
	printf(csv ? "%s,active,total,bytes,layers" : "%14s %14s %14s %16s %6s",
		   csv ? "target" : staircase->metric, "active", "total", "bytes", "layers");
	for (int a = 0; a < N_AXES; a++)
		if (csv || staircase->changes[a])
			printf(csv ? ",%s" : " %s", axis_name((enum axis)a));
	puts("");
	for (int i = 0; i < staircase->n; i++) {
		const struct staircase_step *step = &staircase->steps[i];
		printf(csv ? "%.0f,%" PRIu64 ",%" PRIu64 ",%" PRIu64 ",%d"
				   : "%14.0f %14" PRIu64 " %14" PRIu64 " %16" PRIu64 " %6d",
			   step->target, step->cost.active, step->cost.total, step->cost.bytes, step->n_layers);
		for (int a = 0; a < N_AXES; a++)
			if (csv)
				printf(",%d", step->width[a]);
			else if (staircase->changes[a])
				printf(" %*d", (int)strlen(axis_name((enum axis)a)), step->width[a]);
		puts("");
	}
}

static int sweep(const struct cli *cli, const struct model *model, struct error *err)
{
	struct staircase staircase;
	if (staircase_open(&staircase, model, cli->metric ? cli->metric : "active", (int)cli->sweep,
					   err) < 0)
		return -1;
	int status = 0;
	if (cli->json)
		status = sweep_json(&staircase, err);
	else
		sweep_table(&staircase, cli->csv);
	staircase_close(&staircase);
	return status;
}

/* The file's budgets, or the mix that -b asks for. */
static int open_view(struct router_view *view, const struct cli *cli, const struct model *model,
					 struct error *err)
{
	struct router_options options = {.tau = cli->tau > 0 ? (float)cli->tau : 0,
									 .scaler = cli->scaler > 0 ? (float)cli->scaler : 0,
									 .normalize = -1};
	const char *name = cli_named_budget(cli);
	struct target target;
	if (!name || !target_is(name))
		return router_open(view, model, &options, err);
	struct budget budget = {0};
	if (target_parse(&target, name, err) < 0 || cli_find_budget(cli, model, name, &budget, err) < 0)
		return -1;
	budget_free(&budget);
	return model->router.n_tensors > 0
			   ? router_open_target(view, model, target.metric, target.value, &options, err)
			   : router_open(view, model, &options, err);
}

int inspect_router(const struct cli *cli, const struct model *model, struct error *err)
{
	struct router_view view;
	if (cli->sweep > 0)
		return sweep(cli, model, err);
	if (open_view(&view, cli, model, err) < 0)
		return -1;
	int status = 0;
	if (cli->json) {
		status = print_json(&view, model, err);
	} else if (cli->csv) {
		print_csv(&view, model);
	} else {
		puts(text_chars(&view.source));
		if (view.present) {
			printf("tau %g, scaler %g; P(choice) under Gumbel noise does not depend on tau; "
				   "%d disagree with the budget's width\n",
				   (double)view.tau, (double)view.scaler, view.n_disagree);
		}
		for (int a = 0; a < view.n_axes; a++)
			print_axis(&view.axes[a], model);
	}
	router_close(&view);
	return status;
}
