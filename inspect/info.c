#include "inspect/info.h"
#include "base/memory.h"
#include "core/engine.h"
#include <stdlib.h>
#include <string.h>

/* ---- what config.json says ---- */

static void read_dims(struct info *info, const struct config *c)
{
	const struct info_dim dims[] = {
		{"num_hidden_layers", c->n_layers},
		{"hidden_size", c->hidden_size},
		{"vocab_size", c->vocab_size},
		{"max_position_embeddings", c->max_position_embeddings},
		{"mamba_num_heads", c->mamba_num_heads},
		{"mamba_head_dim", c->mamba_head_dim},
		{"ssm_state_size", c->ssm_state_size},
		{"n_groups", c->n_groups},
		{"conv_kernel", c->conv_kernel},
		{"num_attention_heads", c->num_attention_heads},
		{"num_key_value_heads", c->num_key_value_heads},
		{"head_dim", c->head_dim},
		{"n_routed_experts", c->n_routed_experts},
		{"num_experts_per_tok", c->num_experts_per_tok},
		{"moe_intermediate_size", c->moe_intermediate_size},
		{"moe_shared_expert_intermediate_size", c->moe_shared_expert_intermediate_size},
		{"intermediate_size", c->intermediate_size},
	};
	_Static_assert(sizeof dims <= sizeof info->dims, "room for every dim");
	memcpy(info->dims, dims, sizeof dims);
	info->n_dims = sizeof dims / sizeof dims[0];
	for (int kind = LAYER_MAMBA; kind <= LAYER_MLP; kind++)
		info->layers_of[kind] = config_layers_of(c, (enum layer_kind)kind);
}

static void read_state(struct info_state *state, const struct model *model)
{
	const struct config *c = &model->config;
	state->size = state_size_of(c);
	state->n_kv_layers = config_layers_of(c, LAYER_ATTENTION);
	for (int i = 0; i < c->n_layers; i++)
		state->n_kv_scales += model->weights.layers[i].kv_scales;
}

/* ---- what the file holds ---- */

static int by_bytes(const void *a, const void *b)
{
	const struct info_dtype *x = a, *y = b;
	if (x->bytes != y->bytes)
		return x->bytes > y->bytes ? -1 : 1;
	return (int)x->dtype - (int)y->dtype;
}

static void read_file(struct info *info, const struct checkpoint *checkpoint)
{
	struct info_dtype all[N_DTYPES] = {0};
	for (size_t i = 0; i < checkpoint->n_tensors; i++) {
		const struct tensor *t = &checkpoint->tensors[i].tensor;
		all[t->dtype].n_tensors++;
		all[t->dtype].bytes += t->bytes;
	}
	for (int i = 0; i < N_DTYPES; i++) {
		all[i].dtype = (enum dtype)i;
		if (all[i].n_tensors)
			info->dtypes[info->n_dtypes++] = all[i];
	}
	if (info->n_dtypes)
		qsort(info->dtypes, (size_t)info->n_dtypes, sizeof info->dtypes[0], by_bytes);
	for (int i = 0; i < checkpoint->n_shards; i++)
		info->file_bytes += checkpoint->shards[i].bytes;
	info->tensor_bytes = checkpoint->tensor_bytes;
	int estimated = 0;
	info->resident_bytes = checkpoint_resident(checkpoint, &estimated);
	info->resident_origin = estimated ? ORIGIN_ESTIMATED : ORIGIN_MEASURED;
}

/* ---- budgets ---- */

static int read_budget(struct info *info, const struct budget *budget, struct error *err)
{
	const struct model *model = info->model;
	struct info_budget *out = &info->budgets[info->n_budgets];
	struct slice slice;
	if (slice_build(&slice, &model->weights, &model->config, budget, NULL, NULL, err) != 0)
		return fail_in(err, "budget \"%s\"", budget->name);
	*out = (struct info_budget){.budget = budget, .cost = slice.cost};
	precision_costs(&slice, out->costs);
	for (int i = 0; i < model->config.n_layers; i++)
		out->n_layers += slice.layers[i].keep;
	int status = info->n_budgets++ ? 0 : modules_open(&info->modules, model, &slice, err);
	slice_free(&slice);
	return status;
}

static int read_budgets(struct info *info, const struct budget *typed, struct error *err)
{
	const struct elastic *elastic = &info->model->elastic;
	for (int i = 0; i < elastic->n_budgets; i++) {
		if (read_budget(info, &elastic->budgets[i], err) != 0)
			return -1;
		info->children_bytes += info->budgets[i].cost.bytes;
	}
	return typed ? read_budget(info, typed, err) : 0;
}

int info_read(struct info *info, const struct model *model, const struct budget *typed,
			  struct error *err)
{
	*info = (struct info){.model = model};
	read_dims(info, &model->config);
	read_state(&info->state, model);
	read_file(info, &model->checkpoint);
	if (read_budgets(info, typed, err) == 0)
		return 0;
	info_free(info);
	return -1;
}

void info_free(struct info *info)
{
	modules_close(&info->modules);
}

/* ---- what fits ---- */

uint64_t info_state_bytes(const struct info_state *state, int64_t tokens, enum dtype kv_dtype)
{
	size_t kv;
	if (!mem_multiply((size_t)state->size.kv_per_token * dtype_bytes(kv_dtype), (size_t)tokens,
					  &kv) ||
		kv > UINT64_MAX / 2)
		return UINT64_MAX;
	return state->size.ssm_bytes + state->size.conv_bytes + kv;
}

/* Without sequences, lanes and slices. */
static struct footprint_plan plan_of(const struct fit_request *request)
{
	return (struct footprint_plan){.kv_dtype = request->kv_dtype,
								   .n_tokens = card_chunk(INT16_MAX, request->memory_bytes),
								   .math = request->math,
								   .scratch_bytes = card_scratch_bytes};
}

/* As a chat opens a model, without its sequence: in passes as a card of this size reads them. */
static uint64_t work_bytes(const struct info *info, const struct fit_request *request)
{
	struct footprint footprint;
	struct footprint_plan plan = plan_of(request);
	plan.snapshot_bytes = request->snapshot_bytes;
	footprint_plan_chat(&plan);
	plan.n_sequences = 0;
	footprint_of(&footprint, &info->model->config, &plan);
	return footprint_bytes(&footprint) + CARD_DRIVER_BYTES;
}

int info_fit(const struct info *info, const struct fit_request *request,
			 struct info_fit rows[N_PRECISIONS * INFO_MAX_BUDGETS])
{
	const struct info_state *state = &info->state;
	uint64_t fixed = state->size.ssm_bytes + state->size.conv_bytes;
	uint64_t work = work_bytes(info, request);
	uint64_t per_token = state->size.kv_per_token * dtype_bytes(request->kv_dtype);
	int n = 0;
	for (int p = 0; p < N_PRECISIONS; p++) {
		for (int i = 0; i < info->n_budgets; i++) {
			if (!precision_says(info->budgets[i].costs, (enum precision)p))
				continue;
			struct info_fit *row = &rows[n++];
			*row = (struct info_fit){.precision = (enum precision)p, .budget = &info->budgets[i]};
			row->weight_bytes = info->budgets[i].costs[p].bytes;
			row->state_bytes = info_state_bytes(state, request->context, request->kv_dtype);
			row->work_bytes = work;
			row->longest_context = -1;
			if (row->weight_bytes > request->memory_bytes ||
				work > request->memory_bytes - row->weight_bytes)
				continue;
			uint64_t room = request->memory_bytes - row->weight_bytes - work;
			if (room >= fixed)
				row->longest_context =
					per_token ? (int64_t)((room - fixed) / per_token) : INT64_MAX;
			else
				row->longest_context = 0;
			struct footprint_plan batch = plan_of(request);
			batch.context = request->context;
			batch.n_slices = 1;
			row->sequences =
				footprint_sequences(&info->model->config, &batch,
									request->memory_bytes - row->weight_bytes - CARD_DRIVER_BYTES);
		}
	}
	return n;
}
