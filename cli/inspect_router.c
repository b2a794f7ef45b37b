/* inspect router: the trained router's choices beside the budgets' widths. */
#include "cli/inspect.h"
#include "cli/print.h"

#include "inspect/router.h"
#include <stdio.h>
#include <stdlib.h>

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

int inspect_router(const struct cli *cli, const struct model *model, struct error *err)
{
	struct router_view view;
	if (router_open(&view, model, NULL, err) < 0)
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
