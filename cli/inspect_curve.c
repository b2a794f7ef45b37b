/* inspect curve: what every width of an axis costs in predictions; two axes make a map. */
#include "cli/inspect.h"
#include "cli/print.h"

#include "base/memory.h"
#include "inspect/curve.h"
#include "inspect/scatter.h"
#include <langinfo.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DRAWS 3

/* "medium small": whose trained width this is; "" = nobody's. */
static const char *trained(const struct curve_axis *axis, const struct model *model, int w,
						   char out[256])
{
	size_t used = 0;

	out[0] = '\0';
	for (int b = 0; b < model->elastic.n_budgets && used < 255; b++)
		if (axis->trained[w] >> b & 1)
			used += (size_t)snprintf(out + used, 256 - used, "%s%s", used ? " " : "",
									 model->elastic.budgets[b].name);
	return out;
}

static cJSON *trained_json(const struct curve_axis *axis, const struct model *model, int w)
{
	cJSON *list = cJSON_CreateArray();

	for (int b = 0; b < model->elastic.n_budgets; b++)
		if (axis->trained[w] >> b & 1)
			cJSON_AddItemToArray(list, cJSON_CreateString(model->elastic.budgets[b].name));
	return list;
}

static void add_trial(cJSON *to, const struct trial *trial)
{
	print_add_number(to, "kl", trial->kl.value);
	print_add_number(to, "kl_error", trial->kl.error);
	print_add_number(to, "top1", trial->same_top);
	print_add_number(to, "ppl", trial->ppl.value);
}

static void add_random(cJSON *to, const struct curve *curve, const struct curve_point *point)
{
	cJSON *random = cJSON_AddObjectToObject(to, "random");
	cJSON *draws = cJSON_AddArrayToObject(random, "draws");

	for (int d = 0; d < curve->draws; d++) {
		cJSON *one = cJSON_CreateObject();
		add_trial(one, &point->draws[d]);
		cJSON_AddItemToArray(draws, one);
	}
	print_add_number(random, "kl", point->random_kl.value);
	print_add_number(random, "kl_error", point->random_kl.error);
	print_add_number(random, "kl_low", point->random_low);
	print_add_number(random, "kl_high", point->random_high);
	print_add_number(random, "top1", point->random_top);
	print_add_number(random, "ppl", point->random_ppl);
}

static int curve_json(const struct curve *curve, const struct model *model, int n_tokens,
					  struct error *err)
{
	const struct curve_axis *axis = &curve->axis;
	cJSON *root = cJSON_CreateObject();

	cJSON_AddStringToObject(root, "axis", axis_name(axis->axis));
	cJSON_AddNumberToObject(root, "parent", axis->parent);
	cJSON_AddNumberToObject(root, "unit", axis->unit);
	cJSON_AddNumberToObject(root, "tokens", n_tokens);
	cJSON_AddNumberToObject(root, "draws", curve->draws);
	cJSON_AddNumberToObject(root, "seed", (double)curve->seed);
	print_add_number(root, "ppl", curve->parent.ppl.value);
	cJSON *points = cJSON_AddArrayToObject(root, "widths");
	for (int w = 0; w < axis->n; w++) {
		cJSON *one = cJSON_CreateObject();
		const struct curve_point *point = w < axis->n - 1 ? &curve->points[w] : NULL;
		cJSON_AddNumberToObject(one, "width", axis->widths[w]);
		cJSON_AddItemToObject(one, "trained", trained_json(axis, model, w));
		add_trial(one, point ? &point->first : &curve->parent);
		if (point) {
			add_random(one, curve, point);
			add_trial(cJSON_AddObjectToObject(one, "last"), &point->last);
		}
		cJSON_AddItemToArray(points, one);
	}
	return print_tree(root, err);
}

static void csv_trial(const struct curve_axis *axis, int w, const char *kept, int draw,
					  const struct trial *trial, const char *names)
{
	printf("%s,%d,%s,%d", axis_name(axis->axis), axis->widths[w], kept, draw);
	print_value(trial->kl.value);
	print_value(trial->same_top);
	print_value(trial->ppl.value);
	putchar(',');
	print_field(names);
	putchar('\n');
}

static void curve_csv(const struct curve *curve, const struct model *model)
{
	const struct curve_axis *axis = &curve->axis;
	char names[256];

	puts("axis,width,kept,draw,kl,top1,ppl,trained");
	for (int w = 0; w < axis->n; w++) {
		trained(axis, model, w, names);
		if (w == axis->n - 1) {
			csv_trial(axis, w, "first", 0, &curve->parent, names);
			return;
		}
		csv_trial(axis, w, "first", 0, &curve->points[w].first, names);
		csv_trial(axis, w, "last", 0, &curve->points[w].last, names);
		for (int d = 0; d < curve->draws; d++)
			csv_trial(axis, w, "random", d, &curve->points[w].draws[d], names);
	}
}

static double log_of(double kl)
{
	return kl > 0 ? log10(kl) : NAN;
}

static int draw(const struct curve *curve, bool ascii, struct error *err)
{
	struct scatter_point *points = mem_new((size_t)curve->axis.n * 3, sizeof *points, err);
	struct text out = {0};
	size_t n = 0;

	if (!points)
		return -1;
	for (int w = 0; w < curve->axis.n - 1; w++) {
		const struct curve_point *p = &curve->points[w];
		double x = curve->axis.widths[w];
		char own = curve->axis.trained[w] ? 'T' : 'o';
		points[n++] = (struct scatter_point){x, log_of(p->first.kl.value), own, true};
		points[n++] = (struct scatter_point){x, log_of(p->random_kl.value), 'r', false};
		points[n++] = (struct scatter_point){x, log_of(p->last.kl.value), 'w', false};
	}
	struct scatter plot = {.points = points,
						   .n = n,
						   .width = 72,
						   .height = 16,
						   .x_label = axis_name(curve->axis.axis),
						   .y_label = "log10 KL(parent || cut)",
						   .plain = true,
						   .ascii = ascii};
	scatter_draw(&plot, &out);
	int result = text_check(&out, err);
	if (!result)
		printf("\n%s%9s T trained width, o first channels, r random ones, w worst first\n",
			   text_chars(&out), "");
	text_free(&out);
	free(points);
	return result;
}

/* One token has no error and no next one. */
static void print_known(int width, int decimals, double value)
{
	if (isfinite(value))
		printf(" %*.*f", width, decimals, value);
	else
		printf(" %*s", width, "N/A");
}

static int curve_table(const struct curve *curve, const struct model *model, int n_tokens,
					   struct error *err)
{
	const struct curve_axis *axis = &curve->axis;
	char names[256];

	printf("%s, %d tokens: the parent against itself with only this axis cut; KL in nats a token\n"
		   "random: %d draws of seed %llu; worst first: the last channels kept\n\n",
		   axis_name(axis->axis), n_tokens, curve->draws, (unsigned long long)curve->seed);
	printf("%6s %9s %8s %7s %9s  %9s %19s %7s  %9s %7s  %s\n", "width", "KL", "+-", "top-1", "PPL",
		   "random KL", "of the draws", "top-1", "worst KL", "top-1", "trained");
	for (int w = 0; w < axis->n; w++) {
		const struct curve_point *p = w < axis->n - 1 ? &curve->points[w] : NULL;
		const struct trial *t = p ? &p->first : &curve->parent;
		printf("%6d %9.4f", axis->widths[w], t->kl.value);
		print_known(8, 4, t->kl.error);
		printf(" %6.1f%%", 100 * t->same_top);
		print_known(9, 3, t->ppl.value);
		if (p && curve->draws)
			printf("  %9.4f %8.4f - %8.4f %6.1f%%", p->random_kl.value, p->random_low,
				   p->random_high, 100 * p->random_top);
		else
			printf("  %9s %19s %7s", "", "", "");
		if (p)
			printf("  %9.4f %6.1f%%", p->last.kl.value, 100 * p->last.same_top);
		else
			printf("  %9s %7s", "", "");
		trained(axis, model, w, names);
		printf("%s%s\n", names[0] ? "  " : "", names);
	}
	return draw(curve, strcmp(nl_langinfo(CODESET), "UTF-8") != 0, err);
}

/* ---- a map ---- */

static int map_json(const struct curve_map *map, const struct model *model, int n_tokens,
					struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	cJSON *axes = cJSON_AddArrayToObject(root, "axes");

	for (int a = 0; a < 2; a++) {
		cJSON *axis = cJSON_CreateObject();
		cJSON_AddStringToObject(axis, "axis", axis_name(map->axes[a].axis));
		cJSON_AddItemToObject(axis, "widths",
							  cJSON_CreateIntArray(map->axes[a].widths, map->axes[a].n));
		cJSON *names = cJSON_AddArrayToObject(axis, "trained");
		for (int w = 0; w < map->axes[a].n; w++)
			cJSON_AddItemToArray(names, trained_json(&map->axes[a], model, w));
		cJSON_AddItemToArray(axes, axis);
	}
	cJSON_AddNumberToObject(root, "tokens", n_tokens);
	print_add_number(root, "ppl", map->parent.ppl.value);
	cJSON *rows = cJSON_AddArrayToObject(root, "cells");
	for (int i = 0; i < map->axes[0].n; i++) {
		cJSON *row = cJSON_CreateArray();
		for (int j = 0; j < map->axes[1].n; j++) {
			cJSON *cell = cJSON_CreateObject();
			add_trial(cell, &map->cells[i * map->axes[1].n + j]);
			cJSON_AddItemToArray(row, cell);
		}
		cJSON_AddItemToArray(rows, row);
	}
	return print_tree(root, err);
}

static void map_csv(const struct curve_map *map)
{
	const struct curve_axis *a = &map->axes[0], *b = &map->axes[1];

	printf("%s,%s,kl,top1,ppl\n", axis_name(a->axis), axis_name(b->axis));
	for (int i = 0; i < a->n * b->n; i++) {
		printf("%d,%d", a->widths[i / b->n], b->widths[i % b->n]);
		print_value(map->cells[i].kl.value);
		print_value(map->cells[i].same_top);
		print_value(map->cells[i].ppl.value);
		putchar('\n');
	}
}

static void map_table(const struct curve_map *map, int n_tokens)
{
	const struct curve_axis *a = &map->axes[0], *b = &map->axes[1];

	printf("KL(parent || cut), nats a token over %d tokens; down: %s, across: %s\n"
		   "* both widths are trained ones of one budget\n\n%6s",
		   n_tokens, axis_name(a->axis), axis_name(b->axis), "");
	for (int j = 0; j < b->n; j++)
		printf(" %8d ", b->widths[j]);
	putchar('\n');
	for (int i = 0; i < a->n; i++) {
		printf("%6d", a->widths[i]);
		for (int j = 0; j < b->n; j++)
			printf(" %8.4f%c", map->cells[i * b->n + j].kl.value,
				   a->trained[i] & b->trained[j] ? '*' : ' ');
		putchar('\n');
	}
}

/* ---- the command ---- */

static int open_axis(struct curve_axis *out, const struct cli *cli, const struct model *model,
					 size_t i, struct error *err)
{
	int axis = axis_find(cli->axes.items[i]), n = 0;
	struct text names = {0};
	int32_t *widths = NULL;

	if (axis < 0) {
		axis_names(&names);
		fail(err, "--axis: no axis \"%s\"; there are %s", cli->axes.items[i], text_chars(&names));
		text_free(&names);
		return -1;
	}
	if (i < cli->widths.n && cli_token_list(cli->widths.items[i], &widths, &n, err))
		return fail(err, "--widths: '%s': expected widths with commas between",
					cli->widths.items[i]);
	int result = curve_axis_open(out, model, axis, cli->step > 0 ? (int)cli->step : 0,
								 (const int *)widths, n, err);
	free(widths);
	return result;
}

static int one_axis(struct inspect_text *text, const struct model *model,
					const struct curve_axis *axis, struct error *err)
{
	const struct cli *cli = text->cli;
	struct trials_plan plan = inspect_trials(text, model);
	struct curve curve;
	int draws = cli->draws >= 0 ? (int)cli->draws : DRAWS;

	if (curve_run(&curve, &plan, axis, draws, cli->seed >= 0 ? (uint64_t)cli->seed : 0, err))
		return -1;
	int result = 0;
	if (cli->json)
		result = curve_json(&curve, model, text->n, err);
	else if (cli->csv)
		curve_csv(&curve, model);
	else
		result = curve_table(&curve, model, text->n, err);
	curve_free(&curve);
	return result;
}

static int two_axes(struct inspect_text *text, const struct model *model,
					const struct curve_axis axes[2], struct error *err)
{
	struct trials_plan plan = inspect_trials(text, model);
	struct curve_map map;

	if (curve_map_run(&map, &plan, axes, err))
		return -1;
	int result = 0;
	if (text->cli->json)
		result = map_json(&map, model, text->n, err);
	else if (text->cli->csv)
		map_csv(&map);
	else
		map_table(&map, text->n);
	curve_map_free(&map);
	return result;
}

int inspect_curve(const struct cli *cli, const struct model *model, struct error *err)
{
	struct curve_axis axes[2];
	struct inspect_text text = {0};

	if (cli->axes.n < 1 || cli->axes.n > 2 || cli->widths.n > cli->axes.n)
		return fail(err, "inspect curve: expected one --axis or two, and a --widths for each");
	for (size_t i = 0; i < cli->axes.n; i++)
		if (open_axis(&axes[i], cli, model, i, err))
			return -1;
	int result = inspect_text_open(&text, cli, model, err);
	if (!result)
		result = cli->axes.n == 2 ? two_axes(&text, model, axes, err)
								  : one_axis(&text, model, &axes[0], err);
	inspect_text_close(&text);
	return result;
}
