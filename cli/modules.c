#include "cli/modules.h"
#include "cli/print.h"

#include "base/size.h"

#include <cjson/cJSON.h>
#include <stdio.h>
#include <string.h>

void print_precisions_head(void)
{
	printf("\n%-10s %-14s %12s %12s %12s %7s  %s\n", "precision", "budget", "bytes", "bytes/token",
		   "scales", "%", "weights are");
}

void print_precisions(const char *budget, const struct precision_cost costs[N_PRECISIONS])
{
	char a[32], b[32], c[32];
	for (int p = 0; p < N_PRECISIONS; p++) {
		if (!precision_says(costs, (enum precision)p))
			continue;
		const struct precision_cost *cost = &costs[p];
		double share = cost->bytes ? 100.0 * (double)cost->scale_bytes / (double)cost->bytes : 0;
		printf("%-10s %-14s %12s %12s %12s %7.2f  %s\n", precision_name((enum precision)p), budget,
			   size_text(cost->bytes, a), size_text(cost->bytes_per_token, b),
			   size_text(cost->scale_bytes, c), share,
			   origin_name(precision_origin((enum precision)p)));
	}
}

void print_modules(const char *budget, const struct modules *modules)
{
	char a[32], b[32];
	char title[64];
	snprintf(title, sizeof title, "modules of %.40s", budget);
	printf("\n%-32s %-8s %6s %12s %12s  %s\n", title, "format", "number", "bytes", "scales",
		   "why; where");
	for (int i = 0; i < modules->n; i++) {
		const struct module_group *g = &modules->groups[i];
		struct text layers = {0};
		module_group_layers(g, &layers);
		printf("%-32s %-8s %6d %12s %12s  %s%s%s\n", g->what, dtype_name(g->dtype), g->n,
			   size_text(g->bytes, a), size_text(g->scale_bytes, b), g->why,
			   layers.length ? "; " : "", text_chars(&layers));
		text_free(&layers);
	}
}

void add_precisions(cJSON *object, const struct precision_cost costs[N_PRECISIONS])
{
	cJSON *list = cJSON_AddArrayToObject(object, "precisions");
	for (int p = 0; p < N_PRECISIONS; p++) {
		if (!precision_says(costs, (enum precision)p))
			continue;
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "precision", precision_name((enum precision)p));
		cJSON_AddNumberToObject(one, "bytes", (double)costs[p].bytes);
		cJSON_AddNumberToObject(one, "bytes_per_token", (double)costs[p].bytes_per_token);
		cJSON_AddNumberToObject(one, "scale_bytes", (double)costs[p].scale_bytes);
		cJSON_AddStringToObject(one, "origin", origin_name(precision_origin((enum precision)p)));
		cJSON_AddItemToArray(list, one);
	}
}

void add_modules(cJSON *object, const struct modules *modules)
{
	cJSON *list = cJSON_AddArrayToObject(object, "modules");
	for (int i = 0; i < modules->n; i++) {
		const struct module_group *g = &modules->groups[i];
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "what", g->what);
		cJSON_AddStringToObject(one, "format", dtype_name(g->dtype));
		cJSON_AddStringToObject(one, "why", g->why);
		cJSON_AddNumberToObject(one, "modules", g->n);
		cJSON_AddNumberToObject(one, "parameters", (double)g->parameters);
		cJSON_AddNumberToObject(one, "bytes", (double)g->bytes);
		cJSON_AddNumberToObject(one, "scale_bytes", (double)g->scale_bytes);
		cJSON_AddItemToObject(one, "layers", cJSON_CreateIntArray(g->layers, g->n_layers));
		cJSON_AddItemToArray(list, one);
	}
}
