#include "inspect/masked.h"
#include "base/memory.h"
#include "core/distribution.h"
#include "core/reading.h"
#include "kernels/convert.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define NEVER (-1e30f) // the bias of an expert that can't be chosen

/* Which stored rows or columns stay; keep NULL = all of them. */
struct mask {
	uint8_t *keep;
	size_t n;
};

struct masker {
	struct masked *out;
	const struct config *config;
	const struct budget *budget;
	struct mask hidden, none;
	struct error *err;
};

static void *own_bytes(struct masker *m, size_t bytes)
{
	struct masked *out = m->out;

	if (mem_grow(&out->blocks, &out->capacity, out->n_blocks + 1, sizeof *out->blocks, m->err))
		return NULL;
	void *block = mem_new_aligned(bytes ? bytes : 1, 1, m->err);
	if (block)
		out->blocks[out->n_blocks++] = block;
	return block;
}

static int mask_new(struct masker *m, struct mask *mask, size_t n)
{
	mask->n = n;
	mask->keep = own_bytes(m, n);
	return mask->keep ? 0 : -1;
}

static int mask_axis(struct masker *m, enum axis axis, int layer, struct mask *mask)
{
	struct span_list list = {0};
	int result = mask_new(m, mask, (size_t)axis_parent_width(axis, m->config));

	if (!result)
		result = budget_spans(m->budget, m->config, axis, layer, &list, m->err);
	for (size_t i = 0; i < list.n && !result; i++)
		memset(mask->keep + list.spans[i].start, 1, (size_t)list.spans[i].length);
	free(list.spans);
	return result;
}

/* Every channel of `of` stands for `each` rows or columns. */
static int mask_units(struct masker *m, const struct mask *of, size_t each, struct mask *out)
{
	if (mask_new(m, out, of->n * each))
		return -1;
	for (size_t i = 0; i < out->n; i++)
		out->keep[i] = of->keep[i / each];
	return 0;
}

/* ---- zeros ---- */

static void zero_elements(char *row, enum dtype dtype, size_t from, size_t n)
{
	if (dtype == DTYPE_NVFP4)
		for (size_t i = from; i < from + n; i++) // two in a byte, the even one low
			row[i / 2] &= (char)(i % 2 ? 0x0f : 0xf0);
	else
		memset(row + from * dtype_bytes(dtype), 0, n * dtype_bytes(dtype));
}

/* *tensor becomes a copy with zeros; masks whose n differs from the tensor's shape are a mistake of
 * ours. A vector has rows only. */
static int zero(struct masker *m, struct tensor *tensor, const struct mask *rows,
				const struct mask *columns)
{
	if (!tensor->data || tensor->bytes == 0)
		return 0;
	char *copy = own_bytes(m, tensor->bytes);
	size_t n_rows = (size_t)tensor->shape[0], row_bytes = tensor->bytes / n_rows;
	if (!copy)
		return -1;
	memcpy(copy, tensor->data, tensor->bytes);
	tensor->data = copy;
	for (size_t r = 0; r < n_rows; r++) {
		char *row = copy + r * row_bytes;
		if (rows && rows->keep && !rows->keep[r])
			memset(row, 0, row_bytes);
		for (size_t c = 0; columns && columns->keep && c < columns->n; c++)
			if (!columns->keep[c])
				zero_elements(row, tensor->dtype, c, 1);
	}
	return 0;
}

/* ---- layers ---- */

/* in_proj: z | x | B | C | dt. */
static int mask_mamba(struct masker *m, int layer, struct layer_weights *w)
{
	const struct config *c = m->config;
	size_t inner = (size_t)config_inner(c), dim = (size_t)c->mamba_head_dim;
	size_t states = 2 * (size_t)c->n_groups * (size_t)c->ssm_state_size;
	struct mask heads, channels, x, in_rows, conv;

	if (mask_axis(m, AXIS_MAMBA_HEADS, layer, &heads) ||
		mask_axis(m, AXIS_MAMBA_CHANNELS, layer, &channels) || mask_new(m, &x, inner) ||
		mask_new(m, &in_rows, 2 * inner + states + heads.n) || mask_new(m, &conv, inner + states))
		return -1;
	for (size_t i = 0; i < inner; i++) {
		x.keep[i] = heads.keep[i / dim] && channels.keep[i % dim];
		in_rows.keep[i] = in_rows.keep[inner + i] = conv.keep[i] = x.keep[i];
	}
	memset(in_rows.keep + 2 * inner, 1, states);
	memset(conv.keep + inner, 1, states);
	memcpy(in_rows.keep + 2 * inner + states, heads.keep, heads.n);
	return zero(m, &w->in_proj, &in_rows, &m->hidden) || zero(m, &w->out_proj, &m->hidden, &x) ||
				   zero(m, &w->conv_weight, &conv, NULL) || zero(m, &w->conv_bias, &conv, NULL)
			   ? -1
			   : 0;
}

static int mask_attention(struct masker *m, int layer, struct layer_weights *w)
{
	struct mask heads, rows;

	if (mask_axis(m, AXIS_ATTENTION_HEADS, layer, &heads) ||
		mask_units(m, &heads, (size_t)m->config->head_dim, &rows))
		return -1;
	return zero(m, &w->q, &rows, &m->hidden) || zero(m, &w->k, NULL, &m->hidden) ||
				   zero(m, &w->v, NULL, &m->hidden) || zero(m, &w->o, &m->hidden, &rows)
			   ? -1
			   : 0;
}

static int mask_bias(struct masker *m, struct tensor *bias, const struct mask *experts)
{
	float *values = own_bytes(m, experts->n * sizeof *values);

	if (!values)
		return -1;
	if (bias->data && !convert_to_f32(bias->data, bias->dtype, experts->n, values))
		return fail(m->err, "e_score_correction_bias is %s, which cannot be widened",
					dtype_name(bias->dtype));
	for (size_t e = 0; e < experts->n; e++)
		if (!experts->keep[e])
			values[e] = NEVER;
	*bias = (struct tensor){.dtype = DTYPE_F32,
							.n_dims = 1,
							.shape = {(int64_t)experts->n},
							.data = values,
							.bytes = experts->n * sizeof *values};
	return 0;
}

static int mask_moe(struct masker *m, int layer, struct layer_weights *w)
{
	struct mask experts, ffn, shared;

	if (mask_axis(m, AXIS_EXPERTS, layer, &experts) || mask_axis(m, AXIS_EXPERT_FFN, layer, &ffn) ||
		mask_axis(m, AXIS_SHARED_FFN, layer, &shared) || zero(m, &w->gate, &experts, &m->hidden) ||
		mask_bias(m, &w->gate_bias, &experts) || zero(m, &w->shared_up, &shared, &m->hidden) ||
		zero(m, &w->shared_down, &m->hidden, &shared))
		return -1;
	for (size_t e = 0; e < experts.n; e++)
		if (zero(m, &w->up[e], experts.keep[e] ? &ffn : &m->none, &m->hidden) ||
			zero(m, &w->down[e], experts.keep[e] ? &m->hidden : &m->none, &ffn))
			return -1;
	return 0;
}

static int mask_mlp(struct masker *m, int layer, struct layer_weights *w)
{
	struct mask ffn;

	return mask_axis(m, AXIS_FFN, layer, &ffn) || zero(m, &w->mlp_up, &ffn, &m->hidden) ||
				   zero(m, &w->mlp_down, &m->hidden, &ffn)
			   ? -1
			   : 0;
}

/* What the layer would add to the residual. */
static int mask_outputs(struct masker *m, struct layer_weights *w)
{
	struct tensor *outputs[] = {&w->out_proj, &w->o, &w->shared_down, &w->mlp_down};

	for (size_t i = 0; i < sizeof outputs / sizeof *outputs; i++)
		if (zero(m, outputs[i], &m->none, NULL))
			return -1;
	for (int e = 0; w->down && e < m->config->n_routed_experts; e++)
		if (zero(m, &w->down[e], &m->none, NULL))
			return -1;
	return 0;
}

static int mask_layer(struct masker *m, int layer, struct layer_weights *w)
{
	if (!budget_keeps_layer(m->budget, layer))
		return mask_outputs(m, w);
	if (zero(m, &w->norm, &m->hidden, NULL))
		return -1;
	switch ((enum layer_kind)m->config->kinds[layer]) {
	case LAYER_MAMBA: return mask_mamba(m, layer, w);
	case LAYER_ATTENTION: return mask_attention(m, layer, w);
	case LAYER_MOE: return mask_moe(m, layer, w);
	case LAYER_MLP: return mask_mlp(m, layer, w);
	}
	return fail(m->err, "layer %d is of no known kind", layer);
}

/* ---- the copy ---- */

/* Places for the tensors; expert pointers go to the new ones. */
static int copy_places(struct masked *out, const struct model *model, struct error *err)
{
	size_t n = (size_t)model->config.n_layers, per = (size_t)model->config.n_routed_experts, at = 0;

	out->weights = model->weights;
	out->weights.layers = mem_new(n, sizeof *out->weights.layers, err);
	out->weights.experts = mem_new(2 * n * per + 1, sizeof(struct tensor), err);
	if (!out->weights.layers || !out->weights.experts)
		return -1;
	memcpy(out->weights.layers, model->weights.layers, n * sizeof *out->weights.layers);
	for (size_t i = 0; i < n; i++) {
		struct layer_weights *w = &out->weights.layers[i];
		struct tensor **lists[] = {&w->up, &w->down};
		for (size_t k = 0; k < 2 && w->up; k++, at += per) {
			struct tensor *to = out->weights.experts + at;
			memcpy(to, *lists[k], per * sizeof *to);
			*lists[k] = to;
		}
	}
	return 0;
}

static int mask_all(struct masker *m)
{
	struct weights *w = &m->out->weights;

	if (mask_axis(m, AXIS_HIDDEN, 0, &m->hidden) ||
		mask_new(m, &m->none,
				 (size_t)m->config->hidden_size + (size_t)m->config->moe_intermediate_size))
		return -1;
	for (int i = 0; i < m->config->n_layers; i++)
		if (mask_layer(m, i, &w->layers[i]))
			return -1;
	return zero(m, &w->embeddings, NULL, &m->hidden) || zero(m, &w->lm_head, NULL, &m->hidden) ||
				   zero(m, &w->norm_f, &m->hidden, NULL)
			   ? -1
			   : 0;
}

/* The parent's plan, dividing by what the budget keeps. */
static int build(struct masked *out, const struct model *model, const struct slice *child,
				 struct error *err)
{
	struct budget parent = {0};

	if (budget_copy(&parent, &model->elastic.budgets[0], err))
		return -1;
	parent.top_k = child->budget.top_k;
	int result = slice_build(&out->slice, &out->weights, &out->config, &parent, child->backend,
							 child->device, err);
	budget_free(&parent);
	if (result)
		return -1;
	out->slice.norm_f_count = child->norm_f_count;
	out->slice.norm_f_scale = child->norm_f_scale;
	for (int i = 0; i < model->config.n_layers; i++) {
		struct layer_slice *layer = &out->slice.layers[i];
		const struct layer_slice *of = &child->layers[i];
		if (!of->keep)
			continue;
		layer->norm_count = of->norm_count;
		layer->norm_scale = of->norm_scale;
		if (layer->kind == LAYER_MAMBA) {
			layer->mamba.norm_count = of->mamba.norm_count;
			layer->mamba.norm_scale = of->mamba.norm_scale;
		}
	}
	return 0;
}

int masked_open(struct masked *masked, const struct model *model, const struct slice *child,
				struct error *err)
{
	*masked = (struct masked){.config = model->config};
	struct masker m = {
		.out = masked, .config = &model->config, .budget = &child->budget, .err = err};
	if (model->checkpoint.tensor_bytes > MASKED_BYTES)
		return fail(err,
					"a masked copy of %s would take %.1f GiB of memory, at most %.0f GiB are "
					"copied",
					model->name, (double)model->checkpoint.tensor_bytes / (1 << 30),
					(double)MASKED_BYTES / (1 << 30));
	if (copy_places(masked, model, err) || mask_all(&m) || build(masked, model, child, err)) {
		masked_close(masked);
		return -1;
	}
	return 0;
}

void masked_close(struct masked *masked)
{
	slice_free(&masked->slice);
	for (size_t i = 0; i < masked->n_blocks; i++)
		free(masked->blocks[i]);
	free(masked->blocks);
	free(masked->weights.layers);
	free(masked->weights.experts);
	*masked = (struct masked){0};
}

/* ---- the comparison ---- */

struct sums {
	double absolute, magnitude;
};

static void compare(struct masked_result *out, struct sums *sums, const struct reading *a,
					const struct reading *b, int first)
{
	for (int t = 0; t < a->n; t++) {
		const float *x = a->logits + (size_t)t * (size_t)a->vocab;
		const float *y = b->logits + (size_t)t * (size_t)a->vocab;
		for (int k = 0; k < a->vocab; k++) {
			double difference = fabs((double)x[k] - (double)y[k]);
			sums->magnitude = fmax(sums->magnitude, fabs((double)x[k]));
			if (!(difference <= sums->absolute)) { // NAN counts as the largest
				sums->absolute = isnan(difference) ? INFINITY : difference;
				out->at = first + t;
			}
		}
		out->same_top += distribution_of(x, a->vocab).top == distribution_of(y, a->vocab).top;
	}
}

static int one_window(struct masked_result *out, struct sums *sums, const struct trials_plan *plan,
					  const struct slice *slices[2], int from, int n, struct error *err)
{
	struct reading readings[2] = {0};
	int result = 0;

	for (int i = 0; i < 2 && !result; i++) {
		struct reading_plan read = {
			.ids = plan->ids + from, .n = n, .slice = slices[i], .kv_dtype = plan->kv_dtype};
		result = reading_run(&readings[i], &read, err);
	}
	if (!result)
		compare(out, sums, &readings[0], &readings[1], from);
	reading_free(&readings[0]);
	reading_free(&readings[1]);
	if (!result && plan->step && plan->step(plan->user, from + n, plan->n))
		result = fail(err, "stopped after %d of %d tokens", from + n, plan->n);
	return result;
}

int masked_run(struct masked_result *out, const struct trials_plan *plan,
			   const struct budget *budget, struct error *err)
{
	struct slice child = {0};
	struct masked masked = {0};
	struct sums sums = {0};

	*out = (struct masked_result){.n = plan->n};
	int result = slice_build(&child, &plan->model->weights, &plan->model->config, budget,
							 plan->backend, plan->device, err);
	if (!result)
		result = masked_open(&masked, plan->model, &child, err);
	const struct slice *slices[2] = {&child, &masked.slice};
	for (int at = 0; at < plan->n && !result; at += MASKED_WINDOW) {
		int n = plan->n - at < MASKED_WINDOW ? plan->n - at : MASKED_WINDOW;
		result = one_window(out, &sums, plan, slices, at, n, err);
	}
	out->absolute = sums.absolute;
	out->relative = sums.magnitude > 0 ? sums.absolute / sums.magnitude : 0;
	masked_close(&masked);
	slice_free(&child);
	return result;
}
