#include "core/module.h"
#include <stdio.h>

static const char *const names[N_MODULE_KINDS] = {
	[MODULE_EMBEDDINGS] = "backbone.embeddings",
	[MODULE_LM_HEAD] = "lm_head",
	[MODULE_IN_PROJ] = "in_proj",
	[MODULE_OUT_PROJ] = "out_proj",
	[MODULE_Q] = "q_proj",
	[MODULE_K] = "k_proj",
	[MODULE_V] = "v_proj",
	[MODULE_O] = "o_proj",
	[MODULE_GATE] = "gate",
	[MODULE_UP] = "up_proj",
	[MODULE_DOWN] = "down_proj",
	[MODULE_SHARED_UP] = "shared_experts.up_proj",
	[MODULE_SHARED_DOWN] = "shared_experts.down_proj",
	[MODULE_MLP_UP] = "up_proj",
	[MODULE_MLP_DOWN] = "down_proj",
};

/* ---- every matrix ---- */

static void see(module_seen *seen, void *user, enum module_kind kind, int layer,
				const struct matrix *matrix)
{
	if (matrix->n_rows && matrix->n_columns)
		seen(user, &(struct module){kind, layer, -1, matrix, kind != MODULE_EMBEDDINGS});
}

static void see_moe(const struct moe_slice *moe, int layer, module_seen *seen, void *user)
{
	see(seen, user, MODULE_GATE, layer, &moe->gate);
	for (int e = 0; e < moe->n_experts; e++) {
		bool active = e < moe->top_k;
		seen(user, &(struct module){MODULE_UP, layer, moe->expert[e], &moe->up[e], active});
		seen(user, &(struct module){MODULE_DOWN, layer, moe->expert[e], &moe->down[e], active});
	}
	see(seen, user, MODULE_SHARED_UP, layer, &moe->shared_up);
	see(seen, user, MODULE_SHARED_DOWN, layer, &moe->shared_down);
}

void modules_each(const struct slice *slice, module_seen *seen, void *user)
{
	bool tied = slice->lm_head.data == slice->embeddings.data;
	if (!tied)
		see(seen, user, MODULE_EMBEDDINGS, -1, &slice->embeddings);
	see(seen, user, MODULE_LM_HEAD, -1, &slice->lm_head);
	for (int i = 0; i < slice->config->n_layers; i++) {
		const struct layer_slice *l = &slice->layers[i];
		if (!l->keep)
			continue;
		switch (l->kind) {
		case LAYER_MAMBA:
			see(seen, user, MODULE_IN_PROJ, i, &l->mamba.in_proj);
			see(seen, user, MODULE_OUT_PROJ, i, &l->mamba.out_proj);
			break;
		case LAYER_ATTENTION:
			see(seen, user, MODULE_Q, i, &l->attention.q);
			see(seen, user, MODULE_K, i, &l->attention.k);
			see(seen, user, MODULE_V, i, &l->attention.v);
			see(seen, user, MODULE_O, i, &l->attention.o);
			break;
		case LAYER_MOE: see_moe(&l->moe, i, seen, user); break;
		case LAYER_MLP:
			see(seen, user, MODULE_MLP_UP, i, &l->mlp.up);
			see(seen, user, MODULE_MLP_DOWN, i, &l->mlp.down);
			break;
		}
	}
}

const char *module_kind_name(enum module_kind kind)
{
	if (kind == MODULE_UP || kind == MODULE_DOWN)
		return kind == MODULE_UP ? "experts.*.up_proj" : "experts.*.down_proj";
	return names[kind];
}

void module_name(const struct module *module, char out[MODULE_NAME])
{
	const char *name = names[module->kind];
	if (module->layer < 0)
		snprintf(out, MODULE_NAME, "%s", name);
	else if (module->expert < 0)
		snprintf(out, MODULE_NAME, "backbone.layers.%d.mixer.%s", module->layer, name);
	else
		snprintf(out, MODULE_NAME, "backbone.layers.%d.mixer.experts.%d.%s", module->layer,
				 module->expert, name);
}

static uint64_t scale_bytes(const struct matrix *m)
{
	uint64_t n = (uint64_t)m->n_rows * (uint64_t)m->n_columns;
	if (m->dtype == DTYPE_NVFP4)
		return n / NVFP4_BLOCK + sizeof(float);
	return m->dtype == DTYPE_F8_E4M3 ? sizeof(float) : 0;
}

static uint64_t stored_bytes(const struct matrix *m)
{
	return dtype_matrix_bytes(m->dtype, (uint64_t)m->n_rows * (uint64_t)m->n_columns);
}

uint64_t module_bytes(const struct module *module)
{
	return stored_bytes(module->matrix);
}

uint64_t module_scale_bytes(const struct module *module)
{
	return scale_bytes(module->matrix);
}

/* ---- costs ---- */

const char *precision_name(enum precision precision)
{
	static const char *const precisions[] = {"stored", "bf16", "fp8", "nvfp4"};
	return precisions[precision];
}

enum origin precision_origin(enum precision precision)
{
	return precision == PRECISION_STORED ? ORIGIN_DERIVED : ORIGIN_ESTIMATED;
}

/* Whether this stands right in front of an attention layer (4, 11, 18 .. of the 30B). */
static bool feeds_attention(const struct config *c, int layer)
{
	return layer + 1 < c->n_layers && c->kinds[layer + 1] == LAYER_ATTENTION;
}

bool module_quantises(const struct module *m, const struct config *config)
{
	switch (m->kind) {
	case MODULE_IN_PROJ:
	case MODULE_OUT_PROJ: return !feeds_attention(config, m->layer);
	case MODULE_UP:
	case MODULE_DOWN:
	case MODULE_SHARED_UP:
	case MODULE_SHARED_DOWN:
	case MODULE_MLP_UP:
	case MODULE_MLP_DOWN: return true;
	default: return false;
	}
}

bool precision_says(const struct precision_cost costs[N_PRECISIONS], enum precision precision)
{
	return precision != PRECISION_BF16 ||
		   costs[PRECISION_BF16].bytes != costs[PRECISION_STORED].bytes;
}

struct costing {
	struct precision_cost *out;
	const struct config *config;
};

/* A matrix in another format: FP8 one byte a weight, NVFP4 half a byte and a scale byte per 16
 * (rows that are no multiple of 16 long stay as stored); both add two F32 scales. */
static void add_cost(void *user, const struct module *module)
{
	const struct costing *c = user;
	const struct matrix *m = module->matrix;
	uint64_t n = (uint64_t)m->n_rows * (uint64_t)m->n_columns, stored = stored_bytes(m);
	bool scaled = m->dtype == DTYPE_F8_E4M3 || m->dtype == DTYPE_NVFP4;
	bool target = module_quantises(module, c->config);
	for (int p = 0; p < N_PRECISIONS; p++) {
		struct precision_cost *cost = &c->out[p];
		uint64_t bytes = stored, scales = scale_bytes(m);
		if (p == PRECISION_BF16 && scaled)
			bytes = 2 * n, scales = 0;
		else if (p == PRECISION_FP8 && target && m->dtype != DTYPE_F8_E4M3)
			bytes = n + 8, scales = 8;
		else if (p == PRECISION_NVFP4 && target && m->dtype != DTYPE_NVFP4 &&
				 m->n_columns % NVFP4_BLOCK == 0)
			bytes = n / 2 + n / NVFP4_BLOCK + 8, scales = n / NVFP4_BLOCK + 8;
		cost->bytes += bytes - stored; // wraps below 0 and back: the sum is right
		cost->bytes_per_token += module->active ? bytes - stored : 0;
		cost->scale_bytes += scales;
	}
}

void precision_costs(const struct slice *slice, struct precision_cost out[N_PRECISIONS])
{
	for (int p = 0; p < N_PRECISIONS; p++)
		out[p] = (struct precision_cost){slice->cost.bytes, slice->cost.bytes_per_token, 0};
	struct costing costing = {out, slice->config};
	modules_each(slice, add_cost, &costing);
}
