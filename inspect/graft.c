#include "inspect/graft.h"

#include "base/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
	EMBEDDINGS,
	LAYER_NORM,
	IN_PROJ,
	CONV,
	DT_BIAS,
	A_LOG,
	SKIP_D,
	GATED_NORM,
	OUT_PROJ,
	Q_PROJ,
	K_PROJ,
	V_PROJ,
	O_PROJ,
	GATE,
	GATE_BIAS,
	EXPERT_UP,
	EXPERT_DOWN,
	SHARED_UP,
	SHARED_DOWN,
	MLP_UP,
	MLP_DOWN,
	NORM_F,
	LM_HEAD
};

static const char *const names[] = {"embeddings",
									"norm",
									"in_proj",
									"conv1d",
									"dt_bias",
									"A_log",
									"D",
									"mixer.norm",
									"out_proj",
									"q_proj",
									"k_proj",
									"v_proj",
									"o_proj",
									"gate",
									"gate bias",
									"up_proj",
									"down_proj",
									"shared up_proj",
									"shared down_proj",
									"up_proj",
									"down_proj",
									"norm_f",
									"lm_head"};

void graft_name(const struct graft_part *part, char out[64])
{
	const char *name = names[part->which];
	if (part->layer < 0)
		snprintf(out, 64, "%s", name);
	else if (part->which == EXPERT_UP || part->which == EXPERT_DOWN)
		snprintf(out, 64, "layer %d experts.%d.%s", part->layer, part->expert, name);
	else
		snprintf(out, 64, "layer %d %s", part->layer, name);
}

/* ---- where a part lies: a matrix, or one or two vectors ---- */

struct place {
	struct matrix *matrix;
	const float **vectors[2];
	int n; // of a vector
};

static struct place place_in(struct slice *slice, const struct graft_part *part)
{
	struct layer_slice *layer = part->layer >= 0 ? &slice->layers[part->layer] : NULL;
	struct mamba_slice *mamba = layer ? &layer->mamba : NULL;
	switch (part->which) {
	case EMBEDDINGS: return (struct place){.matrix = &slice->embeddings};
	case LM_HEAD: return (struct place){.matrix = &slice->lm_head};
	case NORM_F: return (struct place){.vectors = {&slice->norm_f}, .n = slice->hidden};
	case LAYER_NORM: return (struct place){.vectors = {&layer->norm}, .n = slice->hidden};
	case IN_PROJ: return (struct place){.matrix = &mamba->in_proj};
	case OUT_PROJ: return (struct place){.matrix = &mamba->out_proj};
	case CONV:
		return (struct place){.vectors = {&mamba->conv_weight, &mamba->conv_bias},
							  .n = mamba->channels};
	case DT_BIAS: return (struct place){.vectors = {&mamba->dt_bias}, .n = mamba->n_heads};
	case A_LOG: return (struct place){.vectors = {&mamba->a}, .n = mamba->n_heads};
	case SKIP_D: return (struct place){.vectors = {&mamba->d}, .n = mamba->n_heads};
	case GATED_NORM: return (struct place){.vectors = {&mamba->norm}, .n = mamba->inner};
	case Q_PROJ: return (struct place){.matrix = &layer->attention.q};
	case K_PROJ: return (struct place){.matrix = &layer->attention.k};
	case V_PROJ: return (struct place){.matrix = &layer->attention.v};
	case O_PROJ: return (struct place){.matrix = &layer->attention.o};
	case GATE: return (struct place){.matrix = &layer->moe.gate};
	case GATE_BIAS: return (struct place){.vectors = {&layer->moe.bias}, .n = layer->moe.n_experts};
	case EXPERT_UP: return (struct place){.matrix = (struct matrix *)&layer->moe.up[part->expert]};
	case EXPERT_DOWN:
		return (struct place){.matrix = (struct matrix *)&layer->moe.down[part->expert]};
	case SHARED_UP: return (struct place){.matrix = &layer->moe.shared_up};
	case SHARED_DOWN: return (struct place){.matrix = &layer->moe.shared_down};
	case MLP_UP: return (struct place){.matrix = &layer->mlp.up};
	default: return (struct place){.matrix = &layer->mlp.down};
	}
}

/* ---- opening ---- */

static int add(struct graft *g, int layer, int which, int expert, struct error *err)
{
	if (mem_grow(&g->parts, &g->capacity, (size_t)g->n_parts + 1, sizeof *g->parts, err) < 0)
		return -1;
	g->parts[g->n_parts++] = (struct graft_part){layer, which, expert};
	return 0;
}

static int add_range(struct graft *g, int layer, int from, int to, struct error *err)
{
	for (int which = from; which <= to; which++)
		if (add(g, layer, which, 0, err) < 0)
			return -1;
	return 0;
}

static int add_layer(struct graft *g, int i, struct error *err)
{
	const struct layer_slice *layer = &g->a->layers[i];
	if (add(g, i, LAYER_NORM, 0, err) < 0)
		return -1;
	switch (layer->kind) {
	case LAYER_MAMBA: return add_range(g, i, IN_PROJ, OUT_PROJ, err);
	case LAYER_ATTENTION: return add_range(g, i, Q_PROJ, O_PROJ, err);
	case LAYER_MLP: return add_range(g, i, MLP_UP, MLP_DOWN, err);
	case LAYER_MOE: break;
	}
	if (add_range(g, i, GATE, GATE_BIAS, err) < 0)
		return -1;
	for (int e = 0; e < layer->moe.n_experts; e++)
		if (add(g, i, EXPERT_UP, e, err) < 0 || add(g, i, EXPERT_DOWN, e, err) < 0)
			return -1;
	return layer->moe.shared_ffn ? add_range(g, i, SHARED_UP, SHARED_DOWN, err) : 0;
}

/* Layers of one kind, experts of one number: what place_in() relies on. */
static int same_layers(const struct slice *a, const struct slice *b, struct error *err)
{
	if (a->config->n_layers != b->config->n_layers)
		return fail(err, "%d layers here, %d there", a->config->n_layers, b->config->n_layers);
	for (int i = 0; i < a->config->n_layers; i++) {
		const struct layer_slice *x = &a->layers[i], *y = &b->layers[i];
		if (x->kind != y->kind || x->keep != y->keep) {
			return fail(err, "layer %d is %s%s here, %s%s there", i, x->keep ? "" : "left out, ",
						layer_name(x->kind), y->keep ? "" : "left out, ", layer_name(y->kind));
		}
		if (x->keep && x->kind == LAYER_MOE &&
			(x->moe.n_experts != y->moe.n_experts || !x->moe.shared_ffn != !y->moe.shared_ffn)) {
			return fail(err, "layer %d has %d experts here, %d there", i, x->moe.n_experts,
						y->moe.n_experts);
		}
	}
	return 0;
}

static int same_shapes(struct graft *g, struct error *err)
{
	struct slice b = *g->b;
	for (int i = 0; i < g->n_parts; i++) {
		struct place x = place_in(&g->slice, &g->parts[i]), y = place_in(&b, &g->parts[i]);
		char name[64];
		graft_name(&g->parts[i], name);
		if (x.matrix &&
			(x.matrix->n_rows != y.matrix->n_rows || x.matrix->n_columns != y.matrix->n_columns)) {
			return fail(err, "%s is [%d, %d] here, [%d, %d] there", name, x.matrix->n_rows,
						x.matrix->n_columns, y.matrix->n_rows, y.matrix->n_columns);
		}
		if (x.n != y.n)
			return fail(err, "%s has %d channels here, %d there", name, x.n, y.n);
	}
	return 0;
}

/* Experts' matrices stand in arrays of their plan: the hybrid needs its own. */
static int own_experts(struct graft *g, struct error *err)
{
	for (int i = 0; i < g->a->config->n_layers; i++) {
		struct layer_slice *layer = &g->slice.layers[i];
		if (layer->kind != LAYER_MOE || !layer->keep)
			continue;
		size_t n = (size_t)layer->moe.n_experts;
		layer->moe.up = mem_new(n, sizeof(struct matrix), err);
		layer->moe.down = mem_new(n, sizeof(struct matrix), err);
		if (!layer->moe.up || !layer->moe.down)
			return -1;
	}
	return 0;
}

int graft_open(struct graft *g, const struct slice *a, const struct slice *b, struct error *err)
{
	*g = (struct graft){.a = a, .b = b, .slice = *a};
	size_t n = (size_t)a->config->n_layers;
	g->slice.layers = mem_new(n, sizeof *g->slice.layers, err);
	int status = g->slice.layers ? same_layers(a, b, err) : -1;
	if (status == 0) {
		memcpy(g->slice.layers, a->layers, n * sizeof *a->layers);
		for (size_t i = 0; i < n; i++) // not a's: graft_close() frees them
			if (a->layers[i].kind == LAYER_MOE && a->layers[i].keep)
				g->slice.layers[i].moe.up = g->slice.layers[i].moe.down = NULL;
		status = own_experts(g, err);
	}
	if (status == 0)
		status = add(g, -1, EMBEDDINGS, 0, err);
	for (size_t i = 0; i < n && status == 0; i++)
		if (a->layers[i].keep)
			status = add_layer(g, (int)i, err);
	if (status == 0)
		status = add_range(g, -1, NORM_F, LM_HEAD, err);
	if (status == 0) {
		graft_take(g, NULL);
		status = same_shapes(g, err);
	}
	if (status < 0)
		graft_close(g);
	return status;
}

void graft_close(struct graft *g)
{
	for (int i = 0; g->slice.layers && i < g->a->config->n_layers; i++) {
		struct layer_slice *layer = &g->slice.layers[i];
		if (layer->kind == LAYER_MOE && layer->keep) {
			free((void *)layer->moe.up);
			free((void *)layer->moe.down);
		}
	}
	free(g->slice.layers);
	free(g->parts);
	*g = (struct graft){0};
}

void graft_take(struct graft *g, const uint8_t *take)
{
	struct slice a = *g->a, b = *g->b;
	for (int i = 0; i < g->n_parts; i++) {
		struct place to = place_in(&g->slice, &g->parts[i]);
		struct place from = place_in(take && take[i] ? &b : &a, &g->parts[i]);
		if (to.matrix)
			*to.matrix = *from.matrix;
		for (int v = 0; v < 2; v++)
			if (to.vectors[v])
				*to.vectors[v] = *from.vectors[v];
	}
}
