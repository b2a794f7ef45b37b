#include "core/slice.h"

#include "base/memory.h"
#include "core/kept.h"
#include "core/pack.h"
#include "kernels/convert.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- weights ---- */

static int wrong(struct builder *b, const char *what, const struct tensor *tensor, int64_t rows,
				 int64_t columns)
{
	char where[32] = "";
	if (b->layer >= 0)
		snprintf(where, sizeof where, "layer %d ", b->layer);
	return fail(b->err,
				"budget %s: %s%s is %s [%lld, %lld], the budget reads up to [%lld, %lld] of it",
				b->slice->budget.name, where, what, dtype_name(tensor->dtype),
				(long long)(tensor->n_dims > 0 ? tensor->shape[0] : 0),
				(long long)(tensor->n_dims > 1 ? tensor->shape[1] : 1), (long long)rows,
				(long long)columns);
}

/* n numbers that take `bytes`; times / active_times: how many of them the model has and a token
 * uses. */
static void charge(struct builder *b, uint64_t n, uint64_t bytes, uint64_t times,
				   uint64_t active_times)
{
	struct slice_cost *cost = &b->slice->cost;
	cost->total += n * times;
	cost->active += n * active_times;
	cost->bytes += bytes * times;
	cost->bytes_per_token += bytes * active_times;
}

/* A scale serves NVFP4_BLOCK stored columns: no span may begin or end inside a block. */
static int check_blocks(struct builder *b, const char *what, const struct tensor *tensor,
						struct kept columns)
{
	for (int s = 0; tensor->dtype == DTYPE_NVFP4 && s < columns.n; s++) {
		int from = columns.spans[s].start, to = from + columns.spans[s].length;
		char where[32] = "";
		if (from % NVFP4_BLOCK == 0 && to % NVFP4_BLOCK == 0)
			continue;
		if (b->layer >= 0)
			snprintf(where, sizeof where, "layer %d ", b->layer);
		return fail(b->err,
					"budget %s: %s%s is NVFP4 with a scale per %d columns, the budget keeps "
					"columns %d to %d of it, expected multiples of %d",
					b->slice->budget.name, where, what, NVFP4_BLOCK, from, to, NVFP4_BLOCK);
	}
	return 0;
}

/* For the CPU the address itself; scales (NVFP4) like weights. */
static const void *adopt(struct builder *b, const void *data, uint64_t bytes)
{
	const struct slice *slice = b->slice;
	return slice->backend ? slice->backend->adopt(slice->device, data, bytes, b->err) : data;
}

/* Where kept channels stand among those that were packed. */
static int among(struct builder *b, const struct span *base, int n, struct kept *kept)
{
	struct span_list list = {0};
	if (!spans_within(base, n, kept->spans, kept->n, &list)) {
		free(list.spans);
		return fail(b->err, "budget %s is not part of %s, which is alone on the device",
					b->slice->budget.name, b->pack->plan.budget.name);
	}
	return keep_list(b, &list, kept);
}

/* m views a stored matrix; from here on what was packed of it. */
static int see_packed(struct builder *b, struct kept rows, struct kept columns, struct matrix *m)
{
	const struct packed *packed = pack_find(b->pack, m->data);
	struct packed none = {0};
	packed = packed ? packed : &none;
	if (among(b, packed->rows, packed->n_row_spans, &rows) < 0 ||
		among(b, packed->columns, packed->n_column_spans, &columns) < 0)
		return -1;
	m->data = packed->data;
	m->scales = packed->scales;
	m->stride = packed->stride;
	m->n_stored = 0;
	m->rows = rows.spans;
	m->columns = columns.spans;
	m->device_rows = rows.on_device;
	m->device_columns = columns.on_device;
	m->n_row_spans = rows.n;
	m->n_column_spans = columns.n;
	return 0;
}

/* A view of a stored matrix. */
static int view(struct builder *b, const char *what, const struct tensor *tensor, struct kept rows,
				struct kept columns, struct matrix *out)
{
	bool plain =
		tensor->dtype == DTYPE_F32 || tensor->dtype == DTYPE_BF16 || tensor->dtype == DTYPE_F16;
	bool scaled = tensor->dtype == DTYPE_F8_E4M3 || tensor->dtype == DTYPE_NVFP4;
	if (!tensor->data || !(plain || scaled) || tensor->n_dims != 2 ||
		kept_end(rows) > tensor->shape[0] || kept_end(columns) > tensor->shape[1])
		return wrong(b, what, tensor, kept_end(rows), kept_end(columns));
	if (check_blocks(b, what, tensor, columns) < 0)
		return -1;
	*out = (struct matrix){.data = tensor->data,
						   .dtype = tensor->dtype,
						   .stride = tensor->shape[1],
						   .n_stored = tensor->shape[0],
						   .rows = rows.spans,
						   .columns = columns.spans,
						   .device_rows = rows.on_device,
						   .device_columns = columns.on_device,
						   .n_row_spans = rows.n,
						   .n_column_spans = columns.n,
						   .n_rows = rows.total,
						   .n_columns = columns.total,
						   .scale = tensor->scale,
						   .input_scale = tensor->input_scale};
	if (b->pack)
		return see_packed(b, rows, columns, out);
	out->data = adopt(b, tensor->data, tensor->bytes);
	if (out->data && tensor->scales)
		out->scales =
			adopt(b, tensor->scales, (uint64_t)(tensor->shape[0] * tensor->shape[1] / NVFP4_BLOCK));
	return out->data && (out->scales || !tensor->scales) ? 0 : -1;
}

static uint64_t numbers_of(const struct matrix *m)
{
	return (uint64_t)m->n_rows * (uint64_t)m->n_columns;
}

static void charge_matrix(struct builder *b, const struct matrix *m, uint64_t times,
						  uint64_t active_times)
{
	uint64_t n = numbers_of(m);
	charge(b, n, dtype_matrix_bytes(m->dtype, n), times, active_times);
}

static int matrix(struct builder *b, const char *what, const struct tensor *tensor,
				  struct kept rows, struct kept columns, struct matrix *out)
{
	if (view(b, what, tensor, rows, columns, out) < 0)
		return -1;
	charge_matrix(b, out, 1, 1);
	return 0;
}

/* Kept channels of a vector, each `each` elements, widened into staging; a tensor without data is
 * zeros. */
static int gather(struct builder *b, const char *what, const struct tensor *tensor,
				  struct kept kept, int each)
{
	size_t n = (size_t)kept.total * (size_t)each;
	if (mem_grow(&b->staging, &b->staging_capacity, n, sizeof(float), b->err) < 0)
		return -1;
	if (!tensor->data) {
		memset(b->staging, 0, n * sizeof(float));
		return 0;
	}
	int64_t elements = 1;
	for (int d = 0; d < tensor->n_dims; d++)
		elements *= tensor->shape[d];
	if (kept_end(kept) * each > elements)
		return wrong(b, what, tensor, kept_end(kept), each);
	float *to = b->staging;
	for (int s = 0; s < kept.n; s++) {
		size_t length = (size_t)kept.spans[s].length * (size_t)each;
		const char *from = (const char *)tensor->data +
						   (size_t)kept.spans[s].start * (size_t)each * dtype_bytes(tensor->dtype);
		if (!convert_to_f32(from, tensor->dtype, length, to))
			return wrong(b, what, tensor, kept_end(kept), each);
		to += length;
	}
	charge(b, n, n * dtype_bytes(tensor->dtype), 1, 1);
	return 0;
}

static int vector(struct builder *b, const char *what, const struct tensor *tensor,
				  struct kept kept, int each, const float **out)
{
	if (gather(b, what, tensor, kept, each) < 0)
		return -1;
	*out = plan_put(b, b->staging, (size_t)kept.total * (size_t)each * sizeof(float));
	return *out ? 0 : -1;
}

/* ---- conventions ---- */

/* How many channels an RMSNorm divides by, and what its output is multiplied with. */
static void norm_rule(const struct builder *b, int kept, int stored, float *count, float *scale)
{
	enum norm_rule rule = b->slice->budget.norm;
	*count = (float)(rule == NORM_SLICE ? kept : stored);
	*scale = rule == NORM_MASKED ? sqrtf((float)kept / (float)stored) : 1;
}

/* Which group a kept head (its `place` among `n`, stored as `head` of `stored`) belongs to. */
static int group_of(const struct builder *b, int head, int stored, int place, int n, int n_groups)
{
	bool by_place = b->slice->budget.heads == HEADS_GLOBAL && n % n_groups == 0;
	return by_place ? place / (n / n_groups) : head / (stored / n_groups);
}

/* ---- layers ---- */

/* Group lists of a Mamba layer: head_group, group_start, norm_count. */
static int mamba_groups(struct builder *b, struct kept heads, struct mamba_slice *out)
{
	int n_groups = b->config->n_groups, stored = b->config->mamba_num_heads;
	int32_t *group = kept_indices(b, heads);
	int32_t *start = mem_new((size_t)n_groups + 1, sizeof *start, b->err);
	float *count = mem_new((size_t)n_groups, sizeof *count, b->err);
	int status = -1;
	if (group && start && count) {
		for (int h = 0; h < heads.total; h++) {
			group[h] = group_of(b, group[h], stored, h, heads.total, n_groups);
			count[group[h]] += (float)out->head_dim;
		}
		for (int g = 0; g < n_groups; g++)
			start[g + 1] = start[g] + (int32_t)count[g];
		for (int g = 0; g < n_groups && b->slice->budget.norm != NORM_SLICE; g++)
			count[g] = (float)(config_inner(b->config) / n_groups);
		out->head_group = plan_put(b, group, (size_t)heads.total * sizeof *group);
		out->group_start = plan_put(b, start, ((size_t)n_groups + 1) * sizeof *start);
		out->norm_count = plan_put(b, count, (size_t)n_groups * sizeof *count);
		status = out->head_group && out->group_start && out->norm_count ? 0 : -1;
	}
	free(group);
	free(start);
	free(count);
	return status;
}

/* Rows of in_proj: z | x | B | C | dt. The conv's channels are x | B | C; inner is x's. */
static int mamba_spans(struct builder *b, struct kept heads, struct kept head_channels,
					   struct kept *in_rows, struct kept *conv, struct kept *inner)
{
	const struct config *c = b->config;
	int width = config_inner(c), states = 2 * c->n_groups * c->ssm_state_size;
	int dim = c->mamba_head_dim;
	struct span_list rows = {0}, channels = {0}, x = {0};
	struct span one = {0, 1};
	struct kept unit = {.spans = &one, .n = 1, .total = 1};
	if (keep_nested(b, &rows, 0, heads, head_channels, dim) < 0 ||
		keep_nested(b, &rows, width, heads, head_channels, dim) < 0 ||
		span_list_add(&rows, 2 * width, states, b->err) < 0 ||
		keep_nested(b, &rows, 2 * width + states, heads, unit, 1) < 0 ||
		keep_nested(b, &channels, 0, heads, head_channels, dim) < 0 ||
		span_list_add(&channels, width, states, b->err) < 0 ||
		keep_nested(b, &x, 0, heads, head_channels, dim) < 0) {
		free(rows.spans);
		free(channels.spans);
		free(x.spans);
		return -1;
	}
	int status = keep_list(b, &rows, in_rows);
	status |= keep_list(b, &channels, conv);
	return status | keep_list(b, &x, inner);
}

static int build_mamba(struct builder *b, const struct layer_weights *w, struct mamba_slice *out)
{
	struct kept heads, head_channels, in_rows, conv, inner;
	if (keep_axis(b, AXIS_MAMBA_HEADS, &heads) < 0 ||
		keep_axis(b, AXIS_MAMBA_CHANNELS, &head_channels) < 0 ||
		mamba_spans(b, heads, head_channels, &in_rows, &conv, &inner) < 0)
		return -1;
	out->n_heads = heads.total;
	out->head_dim = head_channels.total;
	out->inner = inner.total;
	out->channels = conv.total;
	float count; // a group's: in mamba_groups()
	norm_rule(b, inner.total, config_inner(b->config), &count, &out->norm_scale);
	if (mamba_groups(b, heads, out) < 0 ||
		matrix(b, "in_proj", &w->in_proj, in_rows, b->hidden, &out->in_proj) < 0 ||
		matrix(b, "out_proj", &w->out_proj, b->hidden, inner, &out->out_proj) < 0 ||
		vector(b, "conv1d.weight", &w->conv_weight, conv, b->config->conv_kernel,
			   &out->conv_weight) < 0 ||
		vector(b, "conv1d.bias", &w->conv_bias, conv, 1, &out->conv_bias) < 0 ||
		vector(b, "D", &w->d, heads, 1, &out->d) < 0 ||
		vector(b, "dt_bias", &w->dt_bias, heads, 1, &out->dt_bias) < 0 ||
		vector(b, "norm", &w->gated_norm, inner, 1, &out->norm) < 0 ||
		gather(b, "A_log", &w->a_log, heads, 1) < 0)
		return -1;
	for (int h = 0; h < heads.total; h++)
		b->staging[h] = -expf(b->staging[h]);
	out->a = plan_put(b, b->staging, (size_t)heads.total * sizeof(float));
	out->channel = kept_put(b, conv, true);
	out->host_channel = kept_put(b, conv, false);
	return out->a && out->channel && out->host_channel ? 0 : -1;
}

static int build_attention(struct builder *b, const struct layer_weights *w,
						   struct attention_slice *out)
{
	const struct config *c = b->config;
	struct kept heads, q_rows, kv_rows;
	if (keep_axis(b, AXIS_ATTENTION_HEADS, &heads) < 0 ||
		keep_units(b, heads, c->head_dim, &q_rows) < 0 ||
		keep_all(b, c->num_key_value_heads * c->head_dim, &kv_rows) < 0 ||
		matrix(b, "q_proj", &w->q, q_rows, b->hidden, &out->q) < 0 ||
		matrix(b, "k_proj", &w->k, kv_rows, b->hidden, &out->k) < 0 ||
		matrix(b, "v_proj", &w->v, kv_rows, b->hidden, &out->v) < 0 ||
		matrix(b, "o_proj", &w->o, b->hidden, q_rows, &out->o) < 0)
		return -1;
	out->k_scale = w->k_scale;
	out->v_scale = w->v_scale;
	out->n_heads = heads.total;
	out->head = kept_put(b, heads, false);
	int32_t *kv_head = kept_indices(b, heads);
	for (int h = 0; kv_head && h < heads.total; h++)
		kv_head[h] =
			group_of(b, kv_head[h], c->num_attention_heads, h, heads.total, c->num_key_value_heads);
	out->kv_head = kv_head ? plan_put(b, kv_head, (size_t)heads.total * sizeof *kv_head) : NULL;
	free(kv_head);
	return out->head && out->kv_head ? 0 : -1;
}

static const struct placed *put_placed(struct builder *b, const struct matrix *m, int n)
{
	struct placed *list = mem_new((size_t)n, sizeof *list, b->err);
	for (int i = 0; list && i < n; i++)
		list[i] = matrix_placed(&m[i]);
	const void *out = list ? plan_put(b, list, (size_t)n * sizeof *list) : NULL;
	free(list);
	return out;
}

static int build_experts(struct builder *b, const struct layer_weights *w, struct kept ffn,
						 struct moe_slice *out)
{
	size_t bytes = (size_t)out->n_experts * sizeof(struct matrix);
	struct matrix *up = plan_take(b, false, bytes), *down = plan_take(b, false, bytes);
	if (!up || !down)
		return -1;
	for (int e = 0; e < out->n_experts; e++) {
		const struct tensor *u = &w->up[out->expert[e]], *d = &w->down[out->expert[e]];
		char what[48];
		snprintf(what, sizeof what, "experts.%d.up_proj", out->expert[e]);
		if (view(b, what, u, ffn, b->hidden, &up[e]) < 0)
			return -1;
		snprintf(what, sizeof what, "experts.%d.down_proj", out->expert[e]);
		if (view(b, what, d, b->hidden, ffn, &down[e]) < 0)
			return -1;
		// A token uses top_k of them; which ones is not known, their sizes are the same.
		charge_matrix(b, &up[e], 1, e < out->top_k);
		charge_matrix(b, &down[e], 1, e < out->top_k);
	}
	out->up = up;
	out->down = down;
	out->placed_up = put_placed(b, up, out->n_experts);
	out->placed_down = put_placed(b, down, out->n_experts);
	return out->placed_up && out->placed_down ? 0 : -1;
}

/* A bias of infinity: chosen whatever the router says; the weights are the router's all the same.
 */
static void force_experts(struct builder *b, const struct moe_slice *moe)
{
	const struct budget *budget = &b->slice->budget;
	for (int i = 0; i < budget->n_forced; i++)
		for (int e = 0; budget->forced[i].layer == b->layer && e < moe->n_experts; e++)
			if (moe->expert[e] == budget->forced[i].expert)
				b->staging[e] = INFINITY;
}

static int build_moe(struct builder *b, const struct layer_weights *w, struct moe_slice *out)
{
	struct kept experts, ffn, shared;
	if (keep_axis(b, AXIS_EXPERTS, &experts) < 0 || keep_axis(b, AXIS_EXPERT_FFN, &ffn) < 0 ||
		keep_axis(b, AXIS_SHARED_FFN, &shared) < 0)
		return -1;
	out->n_experts = experts.total;
	out->ffn = ffn.total;
	out->top_k = b->slice->budget.top_k;
	out->expert = kept_put(b, experts, false);
	if (!out->expert || build_experts(b, w, ffn, out) < 0 ||
		matrix(b, "gate", &w->gate, experts, b->hidden, &out->gate) < 0 ||
		gather(b, "gate.e_score_correction_bias", &w->gate_bias, experts, 1) < 0)
		return -1;
	force_experts(b, out);
	out->bias = plan_put(b, b->staging, (size_t)experts.total * sizeof(float));
	if (!out->bias)
		return -1;
	if (!w->shared_up.data)
		return 0;
	out->shared_ffn = shared.total;
	return matrix(b, "shared_experts.up_proj", &w->shared_up, shared, b->hidden, &out->shared_up) |
		   matrix(b, "shared_experts.down_proj", &w->shared_down, b->hidden, shared,
				  &out->shared_down);
}

static int build_mlp(struct builder *b, const struct layer_weights *w, struct mlp_slice *out)
{
	struct kept ffn;
	if (keep_axis(b, AXIS_FFN, &ffn) < 0)
		return -1;
	out->ffn = ffn.total;
	return matrix(b, "up_proj", &w->mlp_up, ffn, b->hidden, &out->up) |
		   matrix(b, "down_proj", &w->mlp_down, b->hidden, ffn, &out->down);
}

static int build_layer(struct builder *b, struct layer_slice *out)
{
	const struct layer_weights *w = &b->weights->layers[b->layer];
	out->kind = b->config->kinds[b->layer];
	out->keep = budget_keeps_layer(&b->slice->budget, b->layer);
	if (!out->keep)
		return 0;
	norm_rule(b, b->hidden.total, b->config->hidden_size, &out->norm_count, &out->norm_scale);
	if (vector(b, "norm", &w->norm, b->hidden, 1, &out->norm) < 0)
		return -1;
	switch (out->kind) {
	case LAYER_MAMBA: return build_mamba(b, w, &out->mamba);
	case LAYER_ATTENTION: return build_attention(b, w, &out->attention);
	case LAYER_MOE: return build_moe(b, w, &out->moe);
	case LAYER_MLP: return build_mlp(b, w, &out->mlp);
	}
	return fail(b->err, "layer %d is of no known kind", b->layer);
}

static int build_ends(struct builder *b)
{
	struct slice *slice = b->slice;
	const struct weights *w = b->weights;
	struct kept vocab;
	if (keep_all(b, b->config->vocab_size, &vocab) < 0 ||
		view(b, "embeddings", &w->embeddings, vocab, b->hidden, &slice->embeddings) < 0 ||
		matrix(b, "lm_head", &w->lm_head, vocab, b->hidden, &slice->lm_head) < 0 ||
		vector(b, "norm_f", &w->norm_f, b->hidden, 1, &slice->norm_f) < 0)
		return -1;
	norm_rule(b, b->hidden.total, b->config->hidden_size, &slice->norm_f_count,
			  &slice->norm_f_scale);
	if (w->lm_head.data != w->embeddings.data)
		charge_matrix(b, &slice->embeddings, 1, 0);
	slice->cost.bytes_per_token +=
		dtype_matrix_bytes(w->embeddings.dtype, (uint64_t)b->hidden.total);
	return 0;
}

/* The slice knows what it reads and where it runs. */
static int build(struct slice *slice, const struct budget *budget, const struct pack *pack,
				 struct error *err)
{
	const struct config *config = slice->config;
	struct builder b = {.slice = slice,
						.config = config,
						.weights = slice->weights,
						.pack = pack,
						.layer = -1,
						.err = err};
	if (budget_check(budget, config, err) < 0 || budget_copy(&slice->budget, budget, err) < 0)
		return -1;
	size_t n_layers = (size_t)config->n_layers;
	slice->layers = mem_new(n_layers, sizeof *slice->layers, err);
	int status = slice->layers ? keep_axis(&b, AXIS_HIDDEN, &b.hidden) : -1;
	slice->hidden = b.hidden.total;
	status = status == 0 ? build_ends(&b) : -1;
	for (b.layer = 0; b.layer < config->n_layers && status == 0; b.layer++)
		status = build_layer(&b, &slice->layers[b.layer]);
	free(b.staging);
	if (status < 0)
		slice_free(slice);
	return status;
}

int slice_build(struct slice *slice, const struct weights *weights, const struct config *config,
				const struct budget *budget, const struct backend *backend, struct device *device,
				struct error *err)
{
	*slice =
		(struct slice){.config = config, .weights = weights, .backend = backend, .device = device};
	return build(slice, budget, NULL, err);
}

int slice_build_packed(struct slice *slice, const struct pack *pack, const struct budget *budget,
					   struct error *err)
{
	*slice = (struct slice){.config = pack->plan.config,
							.weights = pack->plan.weights,
							.backend = pack->backend,
							.device = pack->device};
	return build(slice, budget, pack, err);
}

static void release(struct slice *slice, struct slice_memory *memory, bool on_device)
{
	for (size_t i = 0; i < memory->n_blocks; i++)
		if (on_device)
			slice->backend->release(slice->device, memory->blocks[i]);
		else
			free(memory->blocks[i]);
	free(memory->blocks);
}

/* The device's memory goes first: a device that still reads the matrices of a pass that it records
 * has done so when release() returns. */
void slice_free(struct slice *slice)
{
	release(slice, &slice->lists, true);
	release(slice, &slice->host, false);
	free(slice->layers);
	budget_free(&slice->budget);
	*slice = (struct slice){0};
}

double slice_cost_of(const char *metric, const struct slice_cost *cost)
{
	return (double)(strcmp(metric, "active") == 0  ? cost->active
					: strcmp(metric, "total") == 0 ? cost->total
												   : cost->bytes);
}

int slice_measure(struct slice_cost *cost, const struct weights *weights,
				  const struct config *config, const struct budget *budget, struct error *err)
{
	struct slice slice;
	if (slice_build(&slice, weights, config, budget, NULL, NULL, err) < 0)
		return -1;
	*cost = slice.cost;
	slice_free(&slice);
	return 0;
}
