/*
 * One function per kind of layer names its tensors and the shapes that config.json asks for. Every
 * tensor found is ticked off, so that what is left over can be reported. How a quantised weight is
 * stored is quantised.c's.
 */
#include "core/weights.h"
#include "base/memory.h"
#include "base/text.h"
#include "core/quantised.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct binding {
	struct weights *weights;
	const struct checkpoint *checkpoint;
	const struct config *config;
	uint8_t *used; // (n_tensors)
	struct error *err;
};

#define MAX_NAME 128
static const char *const prefixes[] = {"backbone.", "model."};
enum { N_PREFIXES = 2 };

/* ---- one tensor ---- */

static const struct tensor *take(const struct binding *b, const char *name)
{
	return tensor_take(b->checkpoint, b->used, name);
}

/* Under either prefix. name is left holding what was found, or the hub's spelling. */
static const struct tensor *take_any(const struct binding *b, const char *suffix,
									 char name[MAX_NAME])
{
	for (int i = N_PREFIXES - 1; i >= 0; i--) {
		snprintf(name, MAX_NAME, "%s%s", prefixes[i], suffix);
		const struct tensor *found = take(b, name);
		if (found)
			return found;
	}
	return NULL;
}

static int check_dtype(const struct binding *b, const struct tensor *t, const char *name)
{
	if (t->dtype != DTYPE_F32 && t->dtype != DTYPE_BF16 && t->dtype != DTYPE_F16)
		return fail(b->err, "tensor \"%s\" has dtype %s, expected F32, BF16 or F16", name,
					dtype_name(t->dtype));
	return 0;
}

/* What config.json asks of a tensor. */
struct want {
	int n_dims;
	int64_t shape[3];
	bool product; // a weight of a matrix product, which may be quantised
};

static struct want vector(int64_t n)
{
	return (struct want){1, {n, 0, 0}, false};
}

static struct want matrix(int64_t rows, int64_t columns)
{
	return (struct want){2, {rows, columns, 0}, true};
}

static int check_shape(const struct binding *b, const struct tensor *t, const char *name,
					   const struct want *want)
{
	if (t->n_dims == want->n_dims &&
		memcmp(t->shape, want->shape, (size_t)want->n_dims * sizeof want->shape[0]) == 0)
		return 0;
	char found[96], expected[96];
	shape_text(found, sizeof found, t->shape, t->n_dims);
	shape_text(expected, sizeof expected, want->shape, want->n_dims);
	return fail(b->err, "tensor \"%s\" has shape %s, config.json asks for %s", name, found,
				expected);
}

/* *t is a copy of its own: a quantised one takes its scales. */
static int check(const struct binding *b, struct tensor *t, const char *name,
				 const struct want *want)
{
	if (want->product && quantised_bind(t, b->checkpoint, b->used, name, want->shape, b->err) != 0)
		return -1;
	if (t->dtype == DTYPE_NVFP4 || t->scale > 0)
		return 0; // shapes are checked
	return check_dtype(b, t, name) != 0 ? -1 : check_shape(b, t, name, want);
}

/* A tensor of layer `layer`: NAME is what follows "layers.I.". */
static int bind(const struct binding *b, int layer, const char *name, struct want want,
				struct tensor *out)
{
	char suffix[MAX_NAME - 16], full[MAX_NAME];
	snprintf(suffix, sizeof suffix, "layers.%d.%s", layer, name);
	const struct tensor *t = take_any(b, suffix, full);
	if (!t && want.product)
		for (int i = 0; i < N_PREFIXES; i++) {
			snprintf(full, MAX_NAME, "%s%s", prefixes[i], suffix);
			if (quantised_refused(b->checkpoint, full, b->err))
				return -1;
		}
	if (!t) // under the hub's spelling
		snprintf(full, MAX_NAME, "%s%s", prefixes[0], suffix);
	if (!t)
		return fail(b->err, "tensor \"%s\" is missing (layer %d is %s)", full, layer,
					layer_name((enum layer_kind)b->config->kinds[layer]));
	*out = *t;
	return check(b, out, full, &want);
}

/* ---- layers ---- */

static int bind_conv(const struct binding *b, int layer, struct layer_weights *w)
{
	const struct config *c = b->config;
	int64_t channels = config_conv_channels(c);
	struct want want = {3, {channels, 1, c->conv_kernel}, false};
	char suffix[MAX_NAME - 16], full[MAX_NAME];
	snprintf(suffix, sizeof suffix, "layers.%d.mixer.conv1d.weight", layer);
	const struct tensor *t = take_any(b, suffix, full);
	if (t && t->n_dims == 2) // the same numbers without the middle axis
		want = (struct want){2, {channels, c->conv_kernel, 0}, false};
	if (bind(b, layer, "mixer.conv1d.weight", want, &w->conv_weight) != 0)
		return -1;
	return c->use_conv_bias ? bind(b, layer, "mixer.conv1d.bias", vector(channels), &w->conv_bias)
							: 0;
}

static int bind_mamba(const struct binding *b, int layer, struct layer_weights *w)
{
	const struct config *c = b->config;
	int64_t inner = config_inner(c), heads = c->mamba_num_heads;
	int64_t rows = inner + config_conv_channels(c) + heads; // z | x B C | dt
	if (bind(b, layer, "mixer.in_proj.weight", matrix(rows, c->hidden_size), &w->in_proj) != 0 ||
		bind(b, layer, "mixer.out_proj.weight", matrix(c->hidden_size, inner), &w->out_proj) != 0 ||
		bind_conv(b, layer, w) != 0)
		return -1;
	if (bind(b, layer, "mixer.A_log", vector(heads), &w->a_log) != 0 ||
		bind(b, layer, "mixer.D", vector(heads), &w->d) != 0 ||
		bind(b, layer, "mixer.dt_bias", vector(heads), &w->dt_bias) != 0)
		return -1;
	return bind(b, layer, "mixer.norm.weight", vector(inner), &w->gated_norm);
}

/* Of a KV cache in FP8, if there are any. */
static int bind_kv_scales(const struct binding *b, int layer, struct layer_weights *w)
{
	static const char *const names[] = {"k_proj.k_scale", "v_proj.v_scale"};
	float *const scales[] = {&w->k_scale, &w->v_scale};
	w->k_scale = w->v_scale = 1;
	for (int i = 0; i < 2 * N_PREFIXES; i++) {
		char name[MAX_NAME];
		snprintf(name, sizeof name, "%slayers.%d.mixer.%s", prefixes[i / 2], layer, names[i % 2]);
		if (quantised_scalar(b->checkpoint, b->used, name, scales[i % 2], b->err) != 0)
			return -1;
		w->kv_scales = w->kv_scales || checkpoint_find(b->checkpoint, name);
	}
	return 0;
}

static int bind_attention(const struct binding *b, int layer, struct layer_weights *w)
{
	const struct config *c = b->config;
	int64_t q = (int64_t)c->num_attention_heads * c->head_dim;
	int64_t kv = (int64_t)c->num_key_value_heads * c->head_dim;
	if (bind(b, layer, "mixer.q_proj.weight", matrix(q, c->hidden_size), &w->q) != 0 ||
		bind(b, layer, "mixer.k_proj.weight", matrix(kv, c->hidden_size), &w->k) != 0 ||
		bind(b, layer, "mixer.v_proj.weight", matrix(kv, c->hidden_size), &w->v) != 0 ||
		bind_kv_scales(b, layer, w) != 0)
		return -1;
	return bind(b, layer, "mixer.o_proj.weight", matrix(c->hidden_size, q), &w->o);
}

/* transformers v5 in memory: one tensor (experts, rows, columns). 0 = there is none, 1 = bound. */
static int bind_fused(const struct binding *b, int layer, const char *which, struct want one,
					  struct tensor *out)
{
	static const char *const endings[] = {"", ".weight"};
	int experts = b->config->n_routed_experts;
	const struct tensor *t = NULL;
	char full[MAX_NAME];
	for (int i = 0; i < 2 && !t; i++) {
		char suffix[MAX_NAME - 16];
		snprintf(suffix, sizeof suffix, "layers.%d.mixer.experts.%s%s", layer, which, endings[i]);
		t = take_any(b, suffix, full);
	}
	if (!t)
		return 0;
	if (t->dtype == DTYPE_U8 || t->dtype == DTYPE_F8_E4M3)
		return fail(
			b->err,
			"tensor \"%s\" is %s: experts stacked into one tensor are read in F32, BF16 and "
			"F16; quantised ones are expected one by one, as the releases store them",
			full, dtype_name(t->dtype));
	struct want want = {3, {experts, one.shape[0], one.shape[1]}, false};
	struct tensor all = *t;
	if (check(b, &all, full, &want) != 0)
		return -1;
	uint64_t bytes = t->bytes / (uint64_t)experts;
	for (int e = 0; e < experts; e++)
		out[e] = (struct tensor){.dtype = t->dtype,
								 .n_dims = 2,
								 .shape = {one.shape[0], one.shape[1]},
								 .data = (const char *)t->data + (uint64_t)e * bytes,
								 .bytes = bytes};
	return 1;
}

static int bind_experts(const struct binding *b, int layer, const char *which, struct want one,
						struct tensor *out)
{
	int fused = bind_fused(b, layer, which, one, out);
	if (fused != 0)
		return fused < 0 ? -1 : 0;
	for (int e = 0; e < b->config->n_routed_experts; e++) {
		char name[64];
		snprintf(name, sizeof name, "mixer.experts.%d.%s.weight", e, which);
		if (bind(b, layer, name, one, &out[e]) != 0)
			return -1;
	}
	return 0;
}

static int bind_moe(const struct binding *b, int layer, struct layer_weights *w)
{
	const struct config *c = b->config;
	int64_t experts = c->n_routed_experts, ffn = c->moe_intermediate_size, hidden = c->hidden_size;
	int64_t shared = c->moe_shared_expert_intermediate_size;
	if (bind(b, layer, "mixer.gate.weight", matrix(experts, hidden), &w->gate) != 0 ||
		bind(b, layer, "mixer.gate.e_score_correction_bias", vector(experts), &w->gate_bias) != 0 ||
		bind_experts(b, layer, "up_proj", matrix(ffn, hidden), w->up) != 0 ||
		bind_experts(b, layer, "down_proj", matrix(hidden, ffn), w->down) != 0)
		return -1;
	if (!shared)
		return 0;
	if (bind(b, layer, "mixer.shared_experts.up_proj.weight", matrix(shared, hidden),
			 &w->shared_up) != 0)
		return -1;
	return bind(b, layer, "mixer.shared_experts.down_proj.weight", matrix(hidden, shared),
				&w->shared_down);
}

static int bind_mlp(const struct binding *b, int layer, struct layer_weights *w)
{
	int64_t hidden = b->config->hidden_size, ffn = b->config->intermediate_size;
	if (bind(b, layer, "mixer.up_proj.weight", matrix(ffn, hidden), &w->mlp_up) != 0)
		return -1;
	return bind(b, layer, "mixer.down_proj.weight", matrix(hidden, ffn), &w->mlp_down);
}

static int bind_layer(const struct binding *b, int layer, struct layer_weights *w)
{
	if (bind(b, layer, "norm.weight", vector(b->config->hidden_size), &w->norm) != 0)
		return -1;
	switch ((enum layer_kind)b->config->kinds[layer]) {
	case LAYER_MAMBA: return bind_mamba(b, layer, w);
	case LAYER_ATTENTION: return bind_attention(b, layer, w);
	case LAYER_MOE: return bind_moe(b, layer, w);
	case LAYER_MLP: return bind_mlp(b, layer, w);
	}
	return fail(b->err, "layer %d is of no known kind", layer);
}

/* ---- the ends ---- */

static int bind_ends(const struct binding *b)
{
	static const char *const tables[] = {"embeddings.weight", "embedding.weight",
										 "embed_tokens.weight"};
	struct weights *w = b->weights;
	struct want table = matrix(b->config->vocab_size, b->config->hidden_size);
	struct want norm = vector(b->config->hidden_size);
	const struct tensor *t = NULL;
	char name[MAX_NAME];
	for (int i = 0; i < 3 && !t; i++)
		t = take_any(b, tables[i], name);
	if (!t)
		return fail(b->err, "tensor \"%s%s\" is missing", prefixes[0], tables[0]);
	w->embeddings = *t;
	if (check(b, &w->embeddings, name, &table) != 0)
		return -1;
	t = take_any(b, "norm_f.weight", name);
	if (!t)
		return fail(b->err, "tensor \"%s\" is missing", name);
	w->norm_f = *t;
	if (check(b, &w->norm_f, name, &norm) != 0)
		return -1;
	if (b->config->tie_word_embeddings) {
		w->lm_head = w->embeddings;
		return 0;
	}
	t = take(b, "lm_head.weight");
	if (!t)
		return fail(b->err,
					"tensor \"lm_head.weight\" is missing, and tie_word_embeddings is false");
	w->lm_head = *t;
	return check(b, &w->lm_head, "lm_head.weight", &table);
}

/* The head for predicting several tokens (mtp.) is expected to be left over. */
static void count_unused(const struct binding *b)
{
	for (size_t i = 0; i < b->checkpoint->n_tensors; i++) {
		const char *name = b->checkpoint->tensors[i].name;
		if (b->used[i] || strncmp(name, "mtp.", 4) == 0)
			continue;
		if (b->weights->n_unused++ == 0)
			b->weights->first_unused = name;
	}
}

/* What the kernel maps around a page that is touched, when it is cached: the scales of 24,147
 * tensors would take 410 MB while a checkpoint opens, measured. */
#define AROUND_BYTES ((uint64_t)64 << 10)

static int bind_all(const struct binding *b)
{
	struct weights *w = b->weights;
	const struct config *c = b->config;
	size_t experts = (size_t)c->n_routed_experts;
	size_t n_moe = (size_t)config_layers_of(c, LAYER_MOE);
	if (bind_ends(b) != 0)
		return -1;
	w->layers = mem_new((size_t)c->n_layers, sizeof *w->layers, b->err);
	w->experts = w->layers ? mem_new(n_moe * 2 * experts, sizeof *w->experts, b->err) : NULL;
	if (!w->experts)
		return -1;
	struct tensor *next = w->experts;
	uint64_t since = 0;
	for (int i = 0; i < c->n_layers; i++) {
		if (c->kinds[i] == LAYER_MOE) {
			w->layers[i].up = next;
			w->layers[i].down = next + experts;
			next += 2 * experts;
		}
		if (bind_layer(b, i, &w->layers[i]) != 0)
			return -1;
		// an expert's scalars: two matrices, two scales each
		uint64_t read = 4 * (c->kinds[i] == LAYER_MOE ? experts : 2);
		checkpoint_forget(b->checkpoint, &since, read * AROUND_BYTES);
	}
	count_unused(b);
	return 0;
}

int weights_bind(struct weights *weights, const struct checkpoint *checkpoint,
				 const struct config *config, struct error *err)
{
	*weights = (struct weights){.checkpoint = checkpoint};
	uint8_t *used = mem_new(checkpoint->n_tensors, 1, err);
	if (!used)
		return -1;
	int result = bind_all(&(struct binding){weights, checkpoint, config, used, err});
	free(used);
	if (result != 0)
		weights_free(weights);
	return result;
}

void weights_free(struct weights *weights)
{
	free(weights->layers);
	free(weights->experts);
	*weights = (struct weights){0};
}

/* ---- widths that scales allow ---- */

static bool has_blocks(const struct tensor *tensors, int n)
{
	for (int i = 0; i < n; i++)
		if (tensors[i].data && tensors[i].dtype == DTYPE_NVFP4)
			return true;
	return false;
}

/* Whether a matrix of the layer whose columns lie along the axis is NVFP4. */
static bool layer_has_blocks(const struct layer_weights *w, const struct config *config,
							 enum axis axis, enum layer_kind kind)
{
	int experts = config->n_routed_experts;
	switch (axis) {
	case AXIS_HIDDEN:
		return has_blocks(&w->in_proj, 1) || has_blocks(&w->q, 1) || has_blocks(&w->k, 1) ||
			   has_blocks(&w->v, 1) || has_blocks(&w->gate, 1) || has_blocks(&w->shared_up, 1) ||
			   has_blocks(&w->mlp_up, 1) || (kind == LAYER_MOE && has_blocks(w->up, experts));
	case AXIS_EXPERT_FFN: return kind == LAYER_MOE && has_blocks(w->down, experts);
	case AXIS_SHARED_FFN: return has_blocks(&w->shared_down, 1);
	case AXIS_FFN: return has_blocks(&w->mlp_down, 1);
	case AXIS_MAMBA_HEADS:
	case AXIS_MAMBA_CHANNELS: return has_blocks(&w->out_proj, 1);
	case AXIS_ATTENTION_HEADS: return has_blocks(&w->o, 1);
	case AXIS_EXPERTS: // rows only
	case N_AXES: break;
	}
	return false;
}

/* Heads of `dim` channels, the same number of every group: as many as end on a block, if groups do.
 */
static int heads_of_blocks(enum axis axis, const struct config *config, int dim)
{
	int groups = axis_groups(axis, config), width = axis_parent_width(axis, config), block = 1;
	while (block * dim % NVFP4_BLOCK)
		block *= 2;
	return width / groups % block == 0 ? groups * block : width;
}

int weights_block(const struct weights *weights, const struct config *config, enum axis axis,
				  int layer)
{
	bool all = layer < 0 || axis == AXIS_HIDDEN, found = false;
	if (axis == AXIS_HIDDEN)
		found = has_blocks(&weights->embeddings, 1) || has_blocks(&weights->lm_head, 1);
	for (int i = all ? 0 : layer; !found && i < (all ? config->n_layers : layer + 1); i++)
		found =
			layer_has_blocks(&weights->layers[i], config, axis, (enum layer_kind)config->kinds[i]);
	if (!found)
		return 1;
	if (axis == AXIS_MAMBA_HEADS)
		return heads_of_blocks(axis, config, config->mamba_head_dim);
	if (axis == AXIS_ATTENTION_HEADS)
		return heads_of_blocks(axis, config, config->head_dim);
	int width = axis_parent_width(axis, config);
	return width % NVFP4_BLOCK ? width : NVFP4_BLOCK;
}
