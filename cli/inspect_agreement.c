/*
 * inspect agreement: how far the orders of an axis agree: stored, weight norms, scores of the file
 * and measured ones. Text: a matrix an axis, the mean over its layers; CSV and JSON: every layer.
 */
#include "cli/inspect.h"
#include "cli/print.h"

#include "inspect/agreement.h"
#include <math.h>
#include <stdio.h>

#define NORMS_BYTES (4ull << 30) // weights that are read for their norms without being asked

typedef int agreement_function(const struct agreement *agreement, enum axis axis, int layer,
							   void *into);

/* Every layer that has the axis; hidden_size: the model's. */
static int each_agreement(const struct model *model, enum axis axis,
						  const struct inspect_scores *scores, agreement_function *show, void *into,
						  struct error *err)
{
	const struct config *config = &model->config;
	for (int layer = axis == AXIS_HIDDEN ? -1 : 0; layer < config->n_layers; layer++) {
		if (layer >= 0 && (axis == AXIS_HIDDEN || !axis_on_layer(axis, config->kinds[layer])))
			continue;
		struct agreement_plan plan = {.axis = axis,
									  .layer = layer,
									  .expert = -1,
									  .measured = scores->list,
									  .n_measured = scores->n,
									  .weights = model->checkpoint.tensor_bytes <= NORMS_BYTES};
		struct agreement agreement;
		if (agreement_of(&agreement, model, &plan, err) < 0 ||
			show(&agreement, axis, layer, into) < 0)
			return -1;
	}
	return 0;
}

static int each_axis(const struct model *model, const struct inspect_scores *scores,
					 agreement_function *show, void *into, struct error *err)
{
	for (int axis = 0; axis < N_AXES; axis++)
		if (axis_in_model((enum axis)axis, &model->config) &&
			each_agreement(model, (enum axis)axis, scores, show, into, err) < 0)
			return -1;
	return 0;
}

/* ---- JSON and CSV ---- */

static void add_count(cJSON *to, const char *key, int64_t n)
{
	print_add_number(to, key, n > 0 ? (double)n : (double)NAN); // 0: the file does not say
}

cJSON *inspect_scores_json(const struct inspect_scores *all)
{
	cJSON *list = cJSON_CreateArray();
	for (int i = 0; i < all->n; i++) {
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "text", all->files[i].text);
		add_count(one, "tokens", all->files[i].tokens);
		add_count(one, "samples", all->files[i].samples);
		cJSON_AddStringToObject(one, "math", all->files[i].math);
		cJSON_AddItemToArray(list, one);
	}
	return list;
}

static int add_json(const struct agreement *agreement, enum axis axis, int layer, void *into)
{
	cJSON *one = cJSON_CreateObject();
	cJSON_AddStringToObject(one, "axis", axis_name(axis));
	inspect_add_layer(one, layer);
	cJSON *orders = cJSON_AddArrayToObject(one, "orders");
	cJSON *matrix = cJSON_AddArrayToObject(one, "spearman");
	cJSON *inverted = cJSON_AddArrayToObject(one, "inverted");
	for (int a = 0; a < agreement->n; a++) {
		cJSON *row = cJSON_CreateArray();
		cJSON_AddItemToArray(orders, cJSON_CreateString(agreement->name[a]));
		for (int b = 0; b < agreement->n; b++)
			cJSON_AddItemToArray(row, isnan(agreement->rho[a][b])
										  ? cJSON_CreateNull()
										  : cJSON_CreateNumber(agreement->rho[a][b]));
		cJSON_AddItemToArray(matrix, row);
		cJSON_AddItemToArray(inverted, isnan(agreement->inverted[a])
										   ? cJSON_CreateNull()
										   : cJSON_CreateNumber(agreement->inverted[a]));
	}
	cJSON_AddItemToArray(into, one);
	return 0;
}

int inspect_agreement_json(cJSON *array, const struct model *model,
						   const struct inspect_scores *scores, struct error *err)
{
	return each_axis(model, scores, add_json, array, err);
}

static int print_csv(const struct agreement *agreement, enum axis axis, int layer, void *into)
{
	char number[16];
	(void)into;
	for (int a = 0; a < agreement->n; a++)
		for (int b = a + 1; b < agreement->n; b++) {
			printf("%s,%s,", axis_name(axis), layer < 0 ? "" : inspect_layer(layer, number));
			print_field(agreement->name[a]);
			putchar(',');
			print_field(agreement->name[b]);
			if (isnan(agreement->rho[a][b]))
				puts(",");
			else
				printf(",%.9g\n", agreement->rho[a][b]);
		}
	return 0;
}

/* ---- text ---- */

struct mean {
	struct agreement sum; // names of the first layer
	int layers, defined[AGREEMENT_MAX][AGREEMENT_MAX];
};

static int add_mean(const struct agreement *agreement, enum axis axis, int layer, void *into)
{
	struct mean *mean = into;
	(void)axis;
	(void)layer;
	if (mean->layers++ == 0) {
		mean->sum.n = agreement->n;
		for (int a = 0; a < agreement->n; a++)
			snprintf(mean->sum.name[a], sizeof mean->sum.name[a], "%s", agreement->name[a]);
	}
	for (int a = 0; a < agreement->n && a < mean->sum.n; a++)
		for (int b = 0; b < agreement->n && b < mean->sum.n; b++)
			if (!isnan(agreement->rho[a][b])) {
				mean->sum.rho[a][b] += agreement->rho[a][b];
				mean->defined[a][b]++;
			}
	return 0;
}

static void print_mean(const struct mean *mean, enum axis axis)
{
	printf("%s, ", axis_name(axis));
	printf(axis == AXIS_HIDDEN ? "of the model\n" : "mean of %d layers\n", mean->layers);
	for (int a = 0; a < mean->sum.n; a++) {
		printf("  %-28.28s", mean->sum.name[a]);
		for (int b = 0; b <= a; b++)
			if (mean->defined[a][b])
				printf(" %7.3f", mean->sum.rho[a][b] / mean->defined[a][b]);
			else
				printf(" %7s", "N/A");
		putchar('\n');
	}
}

static int print_text(const struct model *model, const struct inspect_scores *scores,
					  struct error *err)
{
	for (int axis = 0; axis < N_AXES; axis++) {
		struct mean mean = {0};
		if (!axis_in_model((enum axis)axis, &model->config))
			continue;
		if (each_agreement(model, (enum axis)axis, scores, add_mean, &mean, err) < 0)
			return -1;
		print_mean(&mean, (enum axis)axis);
	}
	puts("Spearman of each order against those above it; a layer each: --csv, --json");
	return 0;
}

int inspect_agreement(const struct cli *cli, const struct model *model, struct error *err)
{
	struct inspect_scores scores;
	int status = inspect_scores_open(&scores, cli, model, err);
	if (status == 0 && cli->json) {
		cJSON *root = cJSON_CreateObject();
		cJSON_AddItemToObject(root, "scores", inspect_scores_json(&scores));
		cJSON *list = cJSON_AddArrayToObject(root, "agreement");
		status = inspect_agreement_json(list, model, &scores, err);
		if (status == 0)
			status = print_tree(root, err);
		else
			cJSON_Delete(root);
	} else if (status == 0 && cli->csv) {
		puts("axis,layer,a,b,spearman");
		status = each_axis(model, &scores, print_csv, NULL, err);
	} else if (status == 0) {
		status = print_text(model, &scores, err);
	}
	inspect_scores_close(&scores);
	return status;
}
