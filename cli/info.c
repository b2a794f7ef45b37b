/* info: what the checkpoint is, what each budget costs, what fits into a memory. */
#include "cli/command.h"
#include "cli/modules.h"
#include "cli/print.h"

#include "base/size.h"
#include "core/finite.h"
#include "core/sequence.h"
#include "inspect/info.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static cJSON *widths_json(const struct budget *budget)
{
	cJSON *widths = cJSON_CreateObject();
	for (int axis = 0; axis < N_AXES; axis++)
		if (budget->width[axis] > 0)
			cJSON_AddNumberToObject(widths, axis_name((enum axis)axis), budget->width[axis]);
	cJSON_AddNumberToObject(widths, "num_experts_per_tok", budget->top_k);
	return widths;
}

static cJSON *budgets_json(const struct info *info)
{
	cJSON *list = cJSON_CreateArray();
	for (int i = 0; i < info->n_budgets; i++) {
		const struct info_budget *row = &info->budgets[i];
		cJSON *budget = cJSON_CreateObject();
		cJSON_AddStringToObject(budget, "name", row->budget->name);
		cJSON_AddItemToObject(budget, "widths", widths_json(row->budget));
		cJSON_AddNumberToObject(budget, "layers", row->n_layers);
		cJSON_AddNumberToObject(budget, "total", (double)row->cost.total);
		cJSON_AddNumberToObject(budget, "active", (double)row->cost.active);
		cJSON_AddNumberToObject(budget, "bytes", (double)row->cost.bytes);
		cJSON_AddNumberToObject(budget, "bytes_per_token", (double)row->cost.bytes_per_token);
		cJSON_AddStringToObject(budget, "origin", origin_name(row->budget->origin));
		cJSON_AddStringToObject(budget, "source", row->budget->source);
		add_precisions(budget, row->costs);
		cJSON_AddItemToArray(list, budget);
	}
	return list;
}

static void add_kv(cJSON *state, const struct info *info, enum dtype kv_dtype)
{
	const char *declared = info->model->declared.kv_algorithm;
	cJSON_AddStringToObject(state, "kv", kv_name(kv_dtype));
	cJSON_AddNumberToObject(state, "kv_bytes_per_token",
							(double)(info->state.size.kv_per_token * dtype_bytes(kv_dtype)));
	if (declared[0])
		cJSON_AddStringToObject(state, "kv_declared", declared);
	else
		cJSON_AddNullToObject(state, "kv_declared");
	cJSON_AddNumberToObject(state, "kv_layers", info->state.n_kv_layers);
	cJSON_AddNumberToObject(state, "kv_layers_with_scales", info->state.n_kv_scales);
}

static cJSON *info_json(const struct info *info, enum dtype kv_dtype)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddStringToObject(root, "model", info->model->name);
	cJSON_AddStringToObject(root, "directory", info->model->directory);
	cJSON_AddStringToObject(root, "hash", info->model->hash);
	cJSON *layers = cJSON_AddObjectToObject(root, "layers");
	for (int kind = LAYER_MAMBA; kind <= LAYER_MLP; kind++)
		cJSON_AddNumberToObject(layers, layer_name((enum layer_kind)kind), info->layers_of[kind]);
	cJSON *dims = cJSON_AddObjectToObject(root, "dims");
	for (int i = 0; i < info->n_dims; i++)
		cJSON_AddNumberToObject(dims, info->dims[i].name, (double)info->dims[i].value);
	cJSON *dtypes = cJSON_AddArrayToObject(root, "dtypes");
	for (int i = 0; i < info->n_dtypes; i++) {
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "dtype", dtype_name(info->dtypes[i].dtype));
		cJSON_AddNumberToObject(one, "tensors", (double)info->dtypes[i].n_tensors);
		cJSON_AddNumberToObject(one, "bytes", (double)info->dtypes[i].bytes);
		cJSON_AddItemToArray(dtypes, one);
	}
	cJSON_AddItemToObject(root, "budgets", budgets_json(info));
	add_modules(root, &info->modules);
	cJSON_AddNumberToObject(root, "file_bytes", (double)info->file_bytes);
	cJSON_AddNumberToObject(root, "children_bytes", (double)info->children_bytes);
	cJSON *state = cJSON_AddObjectToObject(root, "state");
	cJSON_AddNumberToObject(state, "ssm_bytes", (double)info->state.size.ssm_bytes);
	cJSON_AddNumberToObject(state, "conv_bytes", (double)info->state.size.conv_bytes);
	cJSON_AddNumberToObject(state, "kv_values_per_token", (double)info->state.size.kv_per_token);
	add_kv(state, info, kv_dtype);
	cJSON_AddNumberToObject(root, "resident_bytes", (double)info->resident_bytes);
	cJSON_AddStringToObject(root, "resident_origin", origin_name(info->resident_origin));
	return root;
}

static void fit_json(cJSON *root, const struct info_fit *rows, int n)
{
	cJSON *list = cJSON_AddArrayToObject(root, "fit");
	for (int i = 0; i < n; i++) {
		const struct info_fit *row = &rows[i];
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "precision", precision_name(row->precision));
		cJSON_AddStringToObject(one, "budget", row->budget->budget->name);
		cJSON_AddNumberToObject(one, "weight_bytes", (double)row->weight_bytes);
		cJSON_AddNumberToObject(one, "state_bytes", (double)row->state_bytes);
		cJSON_AddNumberToObject(one, "work_bytes", (double)row->work_bytes);
		if (row->longest_context == INT64_MAX)
			cJSON_AddNullToObject(one, "longest_context");
		else
			cJSON_AddNumberToObject(one, "longest_context", (double)row->longest_context);
		cJSON_AddNumberToObject(one, "sequences", (double)row->sequences);
		cJSON_AddStringToObject(one, "origin", origin_name(precision_origin(row->precision)));
		cJSON_AddItemToArray(list, one);
	}
}

/* What the checkpoint says of its KV cache, and what runs here. */
static void print_kv(const struct info *info, enum dtype kv_dtype)
{
	const struct info_state *state = &info->state;
	const struct declared *declared = &info->model->declared;
	if (!state->n_kv_layers)
		return;
	printf("KV cache  %s here (%llu bytes a token); ", dtype_name(kv_dtype),
		   (unsigned long long)(state->size.kv_per_token * dtype_bytes(kv_dtype)));
	if (declared->kv_algorithm[0])
		printf("%s says %s, ", declared->file, declared->kv_algorithm);
	else
		printf("the checkpoint says nothing of it, ");
	printf("%d of %d attention layers have scales for FP8\n", state->n_kv_scales,
		   state->n_kv_layers);
}

static void print_info(const struct info *info, enum dtype kv_dtype)
{
	char a[32], b[32];
	printf("model     %s (%s), hash %s\n", info->model->name, info->model->directory,
		   info->model->hash);
	printf("layers   ");
	for (int kind = LAYER_MAMBA; kind <= LAYER_MLP; kind++)
		if (info->layers_of[kind] > 0)
			printf(" %d %s", info->layers_of[kind], layer_name((enum layer_kind)kind));
	printf("\nweights   %s in %zu tensors:", size_text(info->tensor_bytes, a),
		   info->model->checkpoint.n_tensors);
	for (int i = 0; i < info->n_dtypes; i++)
		printf(" %s %s", dtype_name(info->dtypes[i].dtype), size_text(info->dtypes[i].bytes, b));
	printf("\nresident  %s (%s)\n", size_text(info->resident_bytes, a),
		   origin_name(info->resident_origin));
	printf("state     SSM %s, conv %s a sequence (F32), KV %llu values a token (derived)\n",
		   size_text(info->state.size.ssm_bytes, a), size_text(info->state.size.conv_bytes, b),
		   (unsigned long long)info->state.size.kv_per_token);
	print_kv(info, kv_dtype);
	puts("\ndims, file:");
	for (int i = 0; i < info->n_dims; i++)
		printf("  %-38s %lld\n", info->dims[i].name, (long long)info->dims[i].value);
	printf("\n%-14s %6s %15s %15s %12s %12s  %s\n", "budget", "layers", "total", "active", "bytes",
		   "bytes/token", "widths from");
	for (int i = 0; i < info->n_budgets; i++) {
		const struct info_budget *row = &info->budgets[i];
		printf("%-14s %6d %15llu %15llu %12s %12s  %s: %s\n", row->budget->name, row->n_layers,
			   (unsigned long long)row->cost.total, (unsigned long long)row->cost.active,
			   size_text(row->cost.bytes, a), size_text(row->cost.bytes_per_token, b),
			   origin_name(row->budget->origin), row->budget->source);
	}
	print_precisions_head();
	for (int i = 0; i < info->n_budgets; i++)
		print_precisions(info->budgets[i].budget->name, info->budgets[i].costs);
	print_modules(info->budgets[0].budget->name, &info->modules);
	printf("\nseparate children %s, this file %s (derived)\n", size_text(info->children_bytes, a),
		   size_text(info->file_bytes, b));
}

static void print_fit(const struct info_fit *rows, int n, const struct fit_request *request)
{
	char a[32], b[32], c[32], context[32];
	printf("\non a card of %s, context %d, KV %s:\n%-10s %-14s %12s %12s %12s %14s %10s  %s\n",
		   size_text(request->memory_bytes, a), request->context, dtype_name(request->kv_dtype),
		   "precision", "budget", "weights", "state", "work", "longest ctx", "sequences",
		   "weights are");
	for (int i = 0; i < n; i++) {
		const struct info_fit *row = &rows[i];
		if (row->longest_context == INT64_MAX)
			snprintf(context, sizeof context, "any");
		else if (row->longest_context < 0)
			snprintf(context, sizeof context, "does not fit");
		else
			snprintf(context, sizeof context, "%lld", (long long)row->longest_context);
		printf("%-10s %-14s %12s %12s %12s %14s %10lld  %s\n", precision_name(row->precision),
			   row->budget->budget->name, size_text(row->weight_bytes, a),
			   size_text(row->state_bytes, b), size_text(row->work_bytes, c), context,
			   (long long)row->sequences, origin_name(precision_origin(row->precision)));
	}
}

static int show(const struct cli *cli, const struct info *info, const struct fit_request *request,
				struct error *err)
{
	struct info_fit rows[N_PRECISIONS * INFO_MAX_BUDGETS];
	int n_rows = cli->fit ? info_fit(info, request, rows) : 0;
	if (!cli->json) {
		print_info(info, request->kv_dtype);
		if (cli->check)
			puts("every stored number is finite, no block scale negative (all read)");
		if (cli->fit)
			print_fit(rows, n_rows, request);
		return 0;
	}
	cJSON *root = info_json(info, request->kv_dtype);
	if (cli->check)
		cJSON_AddTrueToObject(root, "finite");
	if (cli->fit)
		fit_json(root, rows, n_rows);
	return print_tree(root, err);
}

static int run(const struct cli *cli, const struct model *model, uint64_t memory_bytes,
			   struct error *err)
{
	struct info info;
	struct device_options options;
	struct fit_request request = {.context = model->config.max_position_embeddings,
								  .memory_bytes = memory_bytes};
	if (cli_device_options(cli, &options, err) < 0 || info_read(&info, model, NULL, err) < 0)
		return -1;
	request.kv_dtype = options.kv_dtype;
	request.math = options.math;
	request.snapshot_bytes = options.snapshot_bytes;
	if (cli->context > 0)
		request.context = (int)cli->context;
	int status = cli->check ? finite_check(&model->checkpoint, NULL, NULL, err) : 0;
	status = status < 0 ? -1 : show(cli, &info, &request, err);
	info_free(&info);
	return status;
}

int cli_info(const struct cli *cli)
{
	struct error err = {0};
	uint64_t memory_bytes = 0;
	if (cli->fit && size_parse(cli->fit, &memory_bytes, &err) < 0) {
		fail_in(&err, "--fit");
		return cli_usage(&err);
	}
	struct model *model = cli_open_model(cli, &err);
	if (!model)
		return cli_fail(&err);
	int result = run(cli, model, memory_bytes, &err);
	model_release(model);
	return result < 0 ? cli_fail(&err) : EXIT_DONE;
}
