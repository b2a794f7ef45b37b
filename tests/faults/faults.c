#include "faults.h"

#include "base/file.h"
#include "base/memory.h"
#include "core/slice.h"
#include "kernels/convert.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[] = {"none",  "norm",   "heads",   "experts",
									"width", "scaled", "permuted"};

const char *fault_name(enum fault fault)
{
	return names[fault];
}

int fault_find(const char *name)
{
	for (int i = 0; i < N_FAULTS; i++)
		if (strcmp(name, names[i]) == 0)
			return i;
	return -1;
}

int fault_moe_layer(const struct config *config)
{
	int last = -1, before = -1;
	for (int i = 0; i < config->n_layers; i++) {
		if (config->kinds[i] != LAYER_MOE)
			continue;
		before = last;
		last = i;
	}
	return before >= 0 ? before : last;
}

int fault_scaled_layer(const struct config *config)
{
	for (int i = 2; i < config->n_layers; i++)
		if (config->kinds[i] == LAYER_MAMBA || config->kinds[i] == LAYER_ATTENTION)
			return i;
	return -1;
}

/* ---- tensors of the child ---- */

struct child {
	const struct model *parent;
	struct slice slice;
	enum fault fault;
	struct named_tensor *tensors;
	size_t n, capacity;
	struct error *err;
};

/* A tensor of the child that is `rows` x `each` elements of the parent's dtype. Its bytes, or NULL.
 */
static void *add(struct child *c, const struct tensor *of, int layer, const char *name, int rows,
				 int columns)
{
	char full[160], where[40] = "";
	size_t bytes = (size_t)rows * (size_t)(columns ? columns : 1) * dtype_bytes(of->dtype);
	if (mem_grow(&c->tensors, &c->capacity, c->n + 1, sizeof *c->tensors, c->err) < 0)
		return NULL;
	if (layer >= 0)
		snprintf(where, sizeof where, "backbone.layers.%d.", layer);
	snprintf(full, sizeof full, "%s%s", where, name);
	struct named_tensor *to = &c->tensors[c->n++];
	void *data = mem_new(bytes, 1, c->err);
	to->name = mem_string(full, strlen(full), c->err);
	to->tensor = (struct tensor){.dtype = of->dtype,
								 .n_dims = columns ? 2 : 1,
								 .shape = {rows, columns},
								 .data = data,
								 .bytes = bytes};
	return to->name ? data : NULL;
}

static int add_matrix(struct child *c, const struct tensor *of, const struct matrix *m, int layer,
					  const char *name)
{
	size_t size = dtype_bytes(of->dtype);
	char *to = add(c, of, layer, name, m->n_rows, m->n_columns);
	if (!to)
		return -1;
	for (int r = 0; r < m->n_row_spans; r++) {
		for (int i = 0; i < m->rows[r].length; i++) {
			const char *row = (const char *)of->data +
							  (size_t)(m->rows[r].start + i) * (size_t)of->shape[1] * size;
			for (int s = 0; s < m->n_column_spans; s++) {
				size_t length = (size_t)m->columns[s].length * size;
				memcpy(to, row + (size_t)m->columns[s].start * size, length);
				to += length;
			}
		}
	}
	return 0;
}

/* Elements `index` (n) of a vector, or rows of `each`. */
static int add_vector(struct child *c, const struct tensor *of, const int32_t *index, int n,
					  int each, int layer, const char *name)
{
	if (!of->data)
		return 0;
	size_t size = dtype_bytes(of->dtype) * (size_t)each;
	char *to = add(c, of, layer, name, n, each > 1 ? each : 0);
	if (!to)
		return -1;
	for (int i = 0; i < n; i++)
		memcpy(to + (size_t)i * size, (const char *)of->data + (size_t)index[i] * size, size);
	if (each > 1) { // conv1d.weight is [channels, 1, kernel]
		struct tensor *tensor = &c->tensors[c->n - 1].tensor;
		tensor->n_dims = 3;
		tensor->shape[1] = 1;
		tensor->shape[2] = each;
	}
	return 0;
}

/* Kept stored channels one by one; free(). */
static int32_t *indices(struct child *c, enum axis axis, int layer, int *n)
{
	struct span_list spans = {0};
	int32_t *list =
		mem_new((size_t)axis_parent_width(axis, &c->parent->config), sizeof *list, c->err);
	*n = 0;
	if (list &&
		budget_spans(&c->slice.budget, &c->parent->config, axis, layer, &spans, c->err) == 0)
		for (size_t s = 0; s < spans.n; s++)
			for (int i = 0; i < spans.spans[s].length; i++)
				list[(*n)++] = spans.spans[s].start + i;
	free(spans.spans);
	return list;
}

static int add_mamba(struct child *c, int i)
{
	const struct layer_weights *w = &c->parent->weights.layers[i];
	const struct mamba_slice *m = &c->slice.layers[i].mamba;
	int n, kernel = c->parent->config.conv_kernel;
	int32_t *heads = indices(c, AXIS_MAMBA_HEADS, i, &n);
	int status =
		!heads || add_matrix(c, &w->in_proj, &m->in_proj, i, "mixer.in_proj.weight") < 0 ||
				add_matrix(c, &w->out_proj, &m->out_proj, i, "mixer.out_proj.weight") < 0 ||
				add_vector(c, &w->conv_weight, m->channel, m->channels, kernel, i,
						   "mixer.conv1d.weight") < 0 ||
				add_vector(c, &w->conv_bias, m->channel, m->channels, 1, i, "mixer.conv1d.bias") <
					0 ||
				add_vector(c, &w->a_log, heads, n, 1, i, "mixer.A_log") < 0 ||
				add_vector(c, &w->d, heads, n, 1, i, "mixer.D") < 0 ||
				add_vector(c, &w->dt_bias, heads, n, 1, i, "mixer.dt_bias") < 0 ||
				add_vector(c, &w->gated_norm, m->channel, m->inner, 1, i, "mixer.norm.weight") < 0
			? -1
			: 0;
	free(heads);
	return status;
}

static int add_moe(struct child *c, int i)
{
	const struct layer_weights *w = &c->parent->weights.layers[i];
	const struct moe_slice *m = &c->slice.layers[i].moe;
	if (add_matrix(c, &w->gate, &m->gate, i, "mixer.gate.weight") < 0 ||
		add_vector(c, &w->gate_bias, m->expert, m->n_experts, 1, i,
				   "mixer.gate.e_score_correction_bias") < 0)
		return -1;
	for (int e = 0; e < m->n_experts; e++) {
		char name[64];
		int from = c->fault == FAULT_EXPERTS && i == fault_moe_layer(&c->parent->config) &&
						   (e == 1 || e == 2)
					   ? 3 - e
					   : e;
		snprintf(name, sizeof name, "mixer.experts.%d.up_proj.weight", e);
		if (add_matrix(c, &w->up[m->expert[from]], &m->up[from], i, name) < 0)
			return -1;
		snprintf(name, sizeof name, "mixer.experts.%d.down_proj.weight", e);
		if (add_matrix(c, &w->down[m->expert[from]], &m->down[from], i, name) < 0)
			return -1;
	}
	if (!m->shared_ffn)
		return 0;
	return add_matrix(c, &w->shared_up, &m->shared_up, i, "mixer.shared_experts.up_proj.weight") <
					   0 ||
				   add_matrix(c, &w->shared_down, &m->shared_down, i,
							  "mixer.shared_experts.down_proj.weight") < 0
			   ? -1
			   : 0;
}

static int add_layer(struct child *c, int i, const int32_t *hidden)
{
	const struct layer_weights *w = &c->parent->weights.layers[i];
	const struct layer_slice *s = &c->slice.layers[i];
	const struct attention_slice *a = &s->attention;
	if (add_vector(c, &w->norm, hidden, c->slice.hidden, 1, i, "norm.weight") < 0)
		return -1;
	switch (s->kind) {
	case LAYER_MAMBA: return add_mamba(c, i);
	case LAYER_MOE: return add_moe(c, i);
	case LAYER_ATTENTION:
		return add_matrix(c, &w->q, &a->q, i, "mixer.q_proj.weight") < 0 ||
					   add_matrix(c, &w->k, &a->k, i, "mixer.k_proj.weight") < 0 ||
					   add_matrix(c, &w->v, &a->v, i, "mixer.v_proj.weight") < 0 ||
					   add_matrix(c, &w->o, &a->o, i, "mixer.o_proj.weight") < 0
				   ? -1
				   : 0;
	case LAYER_MLP:
		return add_matrix(c, &w->mlp_up, &s->mlp.up, i, "mixer.up_proj.weight") < 0 ||
					   add_matrix(c, &w->mlp_down, &s->mlp.down, i, "mixer.down_proj.weight") < 0
				   ? -1
				   : 0;
	}
	return -1;
}

static int add_all(struct child *c)
{
	const struct weights *w = &c->parent->weights;
	int n;
	int32_t *hidden = indices(c, AXIS_HIDDEN, 0, &n);
	int status = !hidden ? -1
						 : add_matrix(c, &w->embeddings, &c->slice.embeddings, -1,
									  "backbone.embeddings.weight");
	for (int i = 0; status == 0 && i < c->parent->config.n_layers; i++)
		status = add_layer(c, i, hidden);
	if (status == 0)
		status = add_vector(c, &w->norm_f, hidden, n, 1, -1, "backbone.norm_f.weight");
	if (status == 0 && w->lm_head.data != w->embeddings.data)
		status = add_matrix(c, &w->lm_head, &c->slice.lm_head, -1, "lm_head.weight");
	free(hidden);
	return status;
}

/* ---- faults in the child's bytes ---- */

static struct tensor *find(struct child *c, int layer, const char *name)
{
	char full[160];
	snprintf(full, sizeof full, "backbone.layers.%d.%s", layer, name);
	for (size_t i = 0; i < c->n; i++)
		if (strcmp(c->tensors[i].name, full) == 0)
			return &c->tensors[i].tensor;
	return NULL;
}

static void scale(struct tensor *tensor, float by)
{
	size_t n = tensor->bytes / dtype_bytes(tensor->dtype);
	uint16_t *half = (uint16_t *)tensor->data;
	float *full = (float *)tensor->data;
	for (size_t i = 0; i < n; i++) {
		if (tensor->dtype == DTYPE_BF16)
			half[i] = f32_to_bf16(bf16_to_f32(half[i]) * by);
		else if (tensor->dtype == DTYPE_F16)
			half[i] = f32_to_f16(f16_to_f32(half[i]) * by);
		else
			full[i] *= by;
	}
}

static void move_rows(struct tensor *tensor)
{
	size_t row = tensor->bytes / (size_t)tensor->shape[0];
	char *data = (char *)tensor->data, *last = malloc(row);
	if (!last)
		abort();
	memcpy(last, data + tensor->bytes - row, row);
	memmove(data + row, data, tensor->bytes - row);
	memcpy(data, last, row);
	free(last);
}

static int spoil(struct child *c)
{
	const struct config *config = &c->parent->config;
	struct tensor *of = NULL;
	int layer = fault_scaled_layer(config);
	switch (c->fault) {
	case FAULT_NORM: {
		float by = sqrtf((float)config->hidden_size / (float)c->slice.hidden);
		if (c->slice.hidden == config->hidden_size)
			return fail(c->err, "norm: the budget keeps the whole residual");
		for (size_t i = 0; i < c->n; i++) {
			const char *name = c->tensors[i].name, *end = name + strlen(name);
			bool norm = (strstr(name, ".norm.weight") && !strstr(name, ".mixer.")) ||
						strcmp(end - 13, "norm_f.weight") == 0;
			if (norm)
				scale(&c->tensors[i].tensor, by);
		}
		return 0;
	}
	case FAULT_SCALED:
		of = find(c, layer,
				  layer >= 0 && config->kinds[layer] == LAYER_MAMBA ? "mixer.out_proj.weight"
																	: "mixer.o_proj.weight");
		if (of)
			scale(of, 2);
		break;
	case FAULT_PERMUTED:
		of = find(c, fault_moe_layer(config), "mixer.experts.0.up_proj.weight");
		if (of)
			move_rows(of);
		break;
	default: return 0;
	}
	return of ? 0 : fail(c->err, "%s: the model has no such layer", fault_name(c->fault));
}

/* ---- config.json ---- */

static void replace_number(struct text *text, const char *key, int value)
{
	char quoted[80];
	struct text out = {0};
	snprintf(quoted, sizeof quoted, "\"%s\":", key);
	char *at = text->data ? strstr(text->data, quoted) : NULL;
	if (!at)
		return;
	at += strlen(quoted);
	at += strspn(at, " ");
	text_append(&out, text->data, (size_t)(at - text->data));
	text_format(&out, "%d", value);
	text_add(&out, at + strspn(at, "0123456789"));
	text_free(text);
	*text = out;
}

static int copy_file(const struct child *c, const char *directory, const char *name, bool config)
{
	struct text text = {0};
	char *from = file_join(c->parent->directory, name, c->err);
	char *to = file_join(directory, name, c->err);
	int status = from && to ? 0 : -1;
	if (status == 0 && (config || file_exists(from))) {
		status = file_read(from, 64u << 20, &text, c->err);
		for (int axis = 0; axis < N_AXES && config; axis++)
			if (axis_in_model(axis, &c->parent->config))
				replace_number(&text, axis_name(axis), c->slice.budget.width[axis]);
		if (config)
			replace_number(&text, "num_experts_per_tok", c->slice.budget.top_k);
		if (status == 0)
			status = file_write(to, &text, c->err);
	}
	text_free(&text);
	free(from);
	free(to);
	return status;
}

/* The budget with the fault that is one of a mask. */
static int plan(struct child *c, const char *name)
{
	struct budget budget;
	char term[128] = "";
	int layer = fault_moe_layer(&c->parent->config);
	if (model_budget(c->parent, name, &budget, c->err) < 0)
		return -1;
	int width = budget.width[AXIS_EXPERT_FFN];
	if (c->fault == FAULT_HEADS)
		snprintf(term, sizeof term, "heads=global");
	if (c->fault == FAULT_WIDTH)
		snprintf(term, sizeof term, "%d.moe_intermediate_size=16-%d", layer, 16 + width);
	int status = *term ? budget_edit(&budget, &c->parent->config, term, c->err) : 0;
	if (status == 0)
		status = slice_build(&c->slice, &c->parent->weights, &c->parent->config, &budget, NULL,
							 NULL, c->err);
	budget_free(&budget);
	return status;
}

int fault_write(const struct model *parent, const char *budget, enum fault fault,
				const char *directory, struct error *err)
{
	struct child c = {.parent = parent, .fault = fault, .err = err};
	char *path = file_join(directory, "model.safetensors", err);
	int status = path ? plan(&c, budget) : -1;
	if (status == 0 && (add_all(&c) < 0 || spoil(&c) < 0))
		status = -1;
	if (status == 0)
		status = checkpoint_write(path, c.tensors, c.n, err);
	if (status == 0 && (copy_file(&c, directory, "config.json", true) < 0 ||
						copy_file(&c, directory, "tokenizer.json", false) < 0))
		status = -1;
	for (size_t i = 0; i < c.n; i++) {
		free((void *)c.tensors[i].tensor.data);
		free((char *)c.tensors[i].name);
	}
	free(c.tensors);
	slice_free(&c.slice);
	free(path);
	return status;
}
