/* inspect importance, inspect experts: the scores behind the order of the channels. */
#include "cli/inspect.h"
#include "cli/print.h"

#include "inspect/experts.h"
#include "inspect/importance.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SLOW_BYTES (4ull << 30) // norms of all weights take a while

/* One curve is shown as soon as it is there: norms of a large checkpoint take a while. */
typedef int curve_function(const struct importance_curve *curve, const struct model *model,
						   void *into, struct error *err);

static int each_curve(const struct cli *cli, const struct model *model, const struct scores *scores,
					  curve_function *show, void *into, struct error *err)
{
	const struct config *config = &model->config;
	bool slow =
		!scores && model->importance.n_tensors == 0 && model->checkpoint.tensor_bytes > SLOW_BYTES;
	for (int layer = -1; layer < config->n_layers; layer++) {
		if (slow && !cli->quiet)
			fprintf(stderr, "weight norms: layer %d of %d\n", layer + 1, config->n_layers);
		for (int axis = 0; axis <= N_AXES; axis++) {
			bool there = layer < 0 ? axis == AXIS_HIDDEN || axis == N_AXES
								   : axis < N_AXES && axis_on_layer(axis, config->kinds[layer]) &&
										 axis_parent_width(axis, config) > 0;
			if (!there)
				continue;
			struct importance_query query = {
				.axis = axis, .layer = layer, .expert = -1, .scores = scores};
			struct importance_curve curve;
			if (importance_open(&curve, model, &query, err) < 0)
				return -1;
			int status = show(&curve, model, into, err);
			importance_close(&curve);
			if (status < 0)
				return -1;
		}
	}
	return 0;
}

static const char *curve_name(const struct importance_curve *curve)
{
	return curve->query.axis == N_AXES ? "layers" : axis_name(curve->query.axis);
}

static int curve_json(const struct importance_curve *curve, const struct model *model, void *into,
					  struct error *err)
{
	(void)err;
	cJSON *one = cJSON_CreateObject();
	cJSON_AddStringToObject(one, "axis", curve_name(curve));
	inspect_add_layer(one, curve->query.layer);
	cJSON_AddStringToObject(one, "origin", origin_name(curve->origin));
	cJSON_AddStringToObject(one, "unit", curve->unit);
	cJSON_AddNumberToObject(one, "n", curve->n);
	cJSON_AddNumberToObject(one, "groups", curve->n_groups);
	cJSON_AddBoolToObject(one, "descending", curve->descending);
	cJSON_AddNumberToObject(one, "inversions", (double)curve->inversions);
	cJSON_AddNumberToObject(one, "pairs", (double)curve->pairs);
	print_add_number(one, "spearman", curve->spearman);
	cJSON *widths = cJSON_AddObjectToObject(one, "widths");
	cJSON *retained = cJSON_AddObjectToObject(one, "retained");
	cJSON *best = cJSON_AddObjectToObject(one, "best");
	for (int b = 0; b < curve->n_budgets; b++) {
		const char *name = model->elastic.budgets[b].name;
		cJSON_AddNumberToObject(widths, name, curve->width[b]);
		cJSON_AddNumberToObject(retained, name, curve->retained[b]);
		cJSON_AddNumberToObject(best, name, curve->best[b]);
	}
	cJSON_AddItemToObject(one, "scores", inspect_numbers(curve->score, curve->n));
	cJSON_AddItemToArray(into, one);
	return 0;
}

static int curve_csv(const struct importance_curve *curve, const struct model *model, void *into,
					 struct error *err)
{
	(void)model;
	(void)into;
	(void)err;
	for (int i = 0; i < curve->n; i++) {
		char layer[16];
		printf("%s,%s,%d,%.9g,%s,%s\n",
			   curve->query.layer < 0 ? "" : inspect_layer(curve->query.layer, layer),
			   curve_name(curve), i, (double)curve->score[i], curve->unit,
			   origin_name(curve->origin));
	}
	return 0;
}

static int curve_row(const struct importance_curve *curve, const struct model *model, void *into,
					 struct error *err)
{
	(void)into;
	(void)err;
	(void)model;
	char layer[16], rho[16];
	snprintf(rho, sizeof rho, isnan(curve->spearman) ? "N/A" : "%.3f", curve->spearman);
	printf("%5s %-36s %6d %-20s %-9s", inspect_layer(curve->query.layer, layer), curve_name(curve),
		   curve->n, curve->n ? curve->unit : "N/A", origin_name(curve->origin));
	if (curve->n == 0) {
		putchar('\n');
		return 0;
	}
	printf(" %7s %8.2f%%", rho,
		   curve->pairs ? 100.0 * (double)curve->inversions / (double)curve->pairs : 0);
	for (int b = 0; b < curve->n_budgets; b++)
		printf(" %10.4f", curve->retained[b]);
	putchar('\n');
	return 0;
}

int inspect_scores_open(struct inspect_scores *all, const struct cli *cli,
						const struct model *model, struct error *err)
{
	*all = (struct inspect_scores){0};
	if (cli->scores.n > SCORES_MAX)
		return fail(err, "--scores: %zu files, expected at most %d", cli->scores.n, SCORES_MAX);
	for (size_t i = 0; i < cli->scores.n; i++) {
		if (scores_open_named(&all->files[all->n], cli->scores.items[i], model, err) < 0) {
			inspect_scores_close(all);
			return fail_in(err, "--scores");
		}
		const char *damaged = all->files[all->n].passed_over.text;
		if (damaged[0] && !cli->quiet)
			fprintf(stderr, "%s: passed over, the next of the cache is read\n", damaged);
		all->list[all->n] = &all->files[all->n];
		all->n++;
	}
	return 0;
}

void inspect_scores_close(struct inspect_scores *all)
{
	for (int i = 0; i < all->n; i++)
		scores_close(&all->files[i]);
	all->n = 0;
}

static int importance_json(const struct cli *cli, const struct model *model,
						   const struct inspect_scores *scores, struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddItemToObject(root, "scores", inspect_scores_json(scores));
	cJSON *curves = cJSON_AddArrayToObject(root, "curves");
	cJSON *agreement = cJSON_AddArrayToObject(root, "agreement");
	if (each_curve(cli, model, scores->list[0], curve_json, curves, err) < 0 ||
		inspect_agreement_json(agreement, model, scores, err) < 0) {
		cJSON_Delete(root);
		return -1;
	}
	return print_tree(root, err);
}

static int importance_table(const struct cli *cli, const struct model *model,
							const struct scores *scores, struct error *err)
{
	if (scores && scores->tokens && scores->samples)
		printf("measured on %s, %lld tokens in %lld windows\n", scores->text,
			   (long long)scores->tokens, (long long)scores->samples);
	else if (scores)
		printf("measured on %s, how many tokens is unknown\n", scores->text);
	printf("%5s %-36s %6s %-20s %-9s %7s %9s", "layer", "axis", "n", "score", "origin", "rho",
		   "inverted");
	for (int b = 0; b < model->elastic.n_budgets; b++)
		printf(" %10.10s", model->elastic.budgets[b].name);
	putchar('\n');
	if (each_curve(cli, model, scores, curve_row, NULL, err) < 0)
		return -1;
	puts("rho: Spearman of the stored order against the scores; the last columns: share of the "
		 "scores that a budget keeps");
	return 0;
}

int inspect_importance(const struct cli *cli, const struct model *model, struct error *err)
{
	struct inspect_scores scores;
	if (cli->scores.n > 1)
		return fail(err,
					"importance: %zu --scores, expected one; inspect agreement holds two "
					"against each other",
					cli->scores.n);
	int status = inspect_scores_open(&scores, cli, model, err);
	if (status == 0 && cli->json) {
		status = importance_json(cli, model, &scores, err);
	} else if (status == 0 && cli->csv) {
		puts("layer,axis,channel,score,unit,origin");
		status = each_curve(cli, model, scores.list[0], curve_csv, NULL, err);
	} else if (status == 0) {
		status = importance_table(cli, model, scores.list[0], err);
	}
	inspect_scores_close(&scores);
	return status;
}

/* ---- experts ---- */

/* The smallest budget that keeps the expert, NULL if none does. */
static const char *smallest(const struct experts_view *views, const struct model *model, int row,
							int expert)
{
	for (int b = model->elastic.n_budgets - 1; b >= 0; b--)
		if (views[b].rows[row].kept[expert])
			return model->elastic.budgets[b].name;
	return NULL;
}

static cJSON *layer_json(const struct experts_view *views, const struct model *model, int r)
{
	const struct experts_row *row = &views[0].rows[r];
	int n = views[0].n_experts;
	cJSON *one = cJSON_CreateObject();
	inspect_add_layer(one, row->layer);
	cJSON_AddItemToObject(one, "reap", inspect_numbers(row->reap, n));
	cJSON_AddItemToObject(one, "frequency", inspect_numbers(row->frequency, n));
	cJSON *kept = cJSON_AddObjectToObject(one, "kept");
	cJSON *outside = cJSON_AddObjectToObject(one, "frequency_outside");
	for (int b = 0; b < model->elastic.n_budgets; b++) {
		const struct experts_row *mine = &views[b].rows[r];
		const char *name = model->elastic.budgets[b].name;
		double all = 0, out = 0;
		for (int e = 0; row->frequency && e < n; e++) {
			all += (double)row->frequency[e];
			out += mine->kept[e] ? 0 : (double)row->frequency[e];
		}
		cJSON_AddNumberToObject(kept, name, mine->n_kept);
		print_add_number(outside, name, all > 0 ? out / all : NAN);
	}
	return one;
}

static void layer_rows(const struct experts_view *views, const struct model *model, int r, bool csv)
{
	const struct experts_row *row = &views[0].rows[r];
	for (int e = 0; e < views[0].n_experts; e++) {
		const char *budget = smallest(views, model, r, e);
		char reap[32] = "", frequency[32] = "";
		if (row->reap)
			snprintf(reap, sizeof reap, csv ? "%.9g" : "%.4f", (double)row->reap[e]);
		if (row->frequency)
			snprintf(frequency, sizeof frequency, csv ? "%.9g" : "%.4f", (double)row->frequency[e]);
		if (csv) {
			printf("%d,%d,%s,%s,", row->layer, e, reap, frequency);
			print_field(budget ? budget : "");
			putchar('\n');
		} else {
			printf("%5d %6d %10s %10s  %s\n", row->layer, e, row->reap ? reap : "N/A",
				   row->frequency ? frequency : "N/A", budget ? budget : "none");
		}
	}
}

static int show_experts(const struct cli *cli, const struct model *model,
						const struct experts_view *views, struct error *err)
{
	if (cli->json) {
		cJSON *root = cJSON_CreateObject();
		bool file = model->importance.n_tensors > 0;
		cJSON_AddStringToObject(root, "origin", origin_name(file ? ORIGIN_FILE : ORIGIN_UNKNOWN));
		cJSON *layers = cJSON_AddArrayToObject(root, "layers");
		for (int r = 0; r < views[0].n_rows; r++)
			cJSON_AddItemToArray(layers, layer_json(views, model, r));
		return print_tree(root, err);
	}
	if (cli->csv) {
		puts("layer,expert,reap,frequency,smallest_budget");
	} else {
		printf("%5s %6s %10s %10s  %s\n", "layer", "expert", "REAP", "frequency",
			   "smallest budget with it");
	}
	for (int r = 0; r < views[0].n_rows; r++)
		layer_rows(views, model, r, cli->csv);
	if (!cli->csv && model->importance.n_tensors == 0) {
		puts("no importance file: REAP and frequency are not known; live counts are in the "
			 "workbench");
	}
	return 0;
}

int inspect_experts(const struct cli *cli, const struct model *model, struct error *err)
{
	struct experts_view views[MAX_BUDGETS];
	int n = 0, status = 0;
	for (; n < model->elastic.n_budgets && status == 0; n++)
		status = experts_open(&views[n], model, NULL, EXPERTS_ALL, &model->elastic.budgets[n], err);
	if (status == 0)
		status = show_experts(cli, model, views, err);
	while (n-- > 0)
		experts_close(&views[n]);
	return status;
}
