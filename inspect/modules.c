#include "inspect/modules.h"
#include "base/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *family, *part, *module;
} kinds[N_MODULE_KINDS] = {
	[MODULE_EMBEDDINGS] = {"embeddings", "", "backbone.embeddings"},
	[MODULE_LM_HEAD] = {"lm_head", "", "lm_head"},
	[MODULE_IN_PROJ] = {"Mamba", "in_proj", "in_proj"},
	[MODULE_OUT_PROJ] = {"Mamba", "out_proj", "out_proj"},
	[MODULE_Q] = {"attention", "q", "q_proj"},
	[MODULE_K] = {"attention", "k", "k_proj"},
	[MODULE_V] = {"attention", "v", "v_proj"},
	[MODULE_O] = {"attention", "o", "o_proj"},
	[MODULE_GATE] = {"router", "", "gate"},
	[MODULE_UP] = {"routed experts", "up", "up_proj"},
	[MODULE_DOWN] = {"routed experts", "down", "down_proj"},
	[MODULE_SHARED_UP] = {"shared expert", "up", "shared_experts.up_proj"},
	[MODULE_SHARED_DOWN] = {"shared expert", "down", "shared_experts.down_proj"},
	[MODULE_MLP_UP] = {"MLP", "up", "up_proj"},
	[MODULE_MLP_DOWN] = {"MLP", "down", "down_proj"},
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
	return kinds[kind].module;
}

void module_name(const struct module *module, char out[MODULE_NAME])
{
	const char *name = kinds[module->kind].module;
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

/* ---- groups ---- */

struct grouping {
	struct modules *modules;
	const struct declared *declared;
	const struct config *config;
	bool failed;
	struct error *err;
};

/* "Mamba in_proj": the kind's own; groups of a family may be joined later. */
static void write_why(const struct grouping *g, const struct module *m, char out[96])
{
	char name[MODULE_NAME];
	bool excluded = false, quantised = m->matrix->dtype == DTYPE_F8_E4M3;
	const char *found = quantised ? "FP8" : m->matrix->dtype == DTYPE_NVFP4 ? "NVFP4" : "";
	const char *file = g->declared->file;
	module_name(m, name);
	const char *said = declared_algorithm(g->declared, name, &excluded);
	if (!file)
		snprintf(out, 96, "%s", *found ? "its scales say so" : "as stored");
	else if (*found)
		snprintf(out, 96, strcmp(said, found) == 0 ? "%s" : "its scales say so, %s otherwise",
				 file);
	else if (excluded)
		snprintf(out, 96, "excluded in %s", file);
	else if (m->kind == MODULE_EMBEDDINGS || m->kind == MODULE_GATE || !*said)
		snprintf(out, 96, "never quantised");
	else
		snprintf(out, 96, "without scales, though %s does not exclude it", file);
}

/* The group that module belongs to, a new one if need be; NULL without memory. */
static struct module_group *group_of(struct grouping *g, const struct module *m)
{
	struct modules *all = g->modules;
	const char *family = kinds[m->kind].family, *part = kinds[m->kind].part;
	char what[sizeof all->groups->what], why[sizeof all->groups->why];
	snprintf(what, sizeof what, "%s%s%s", family, *part ? " " : "", part);
	write_why(g, m, why);
	for (int i = all->n - 1; i >= 0; i--) {
		struct module_group *group = &all->groups[i];
		if (group->dtype == m->matrix->dtype && strcmp(group->what, what) == 0 &&
			strcmp(group->why, why) == 0)
			return group;
	}
	if (mem_grow(&all->groups, &all->capacity, (size_t)all->n + 1, sizeof *all->groups, g->err) < 0)
		return NULL;
	struct module_group *group = &all->groups[all->n];
	*group = (struct module_group){.kind = m->kind, .dtype = m->matrix->dtype};
	group->layers = mem_new((size_t)g->config->n_layers, sizeof *group->layers, g->err);
	if (!group->layers)
		return NULL;
	memcpy(group->what, what, sizeof what);
	memcpy(group->why, why, sizeof why);
	all->n++;
	return group;
}

static void add_module(void *user, const struct module *m)
{
	struct grouping *g = user;
	struct module_group *group = g->failed ? NULL : group_of(g, m);
	if (!group) {
		g->failed = true;
		return;
	}
	group->n++;
	group->parameters += (uint64_t)m->matrix->n_rows * (uint64_t)m->matrix->n_columns;
	group->bytes += stored_bytes(m->matrix);
	group->scale_bytes += scale_bytes(m->matrix);
	if (m->layer >= 0 && (!group->n_layers || group->layers[group->n_layers - 1] != m->layer))
		group->layers[group->n_layers++] = m->layer;
}

/* "Mamba in_proj" and "Mamba out_proj" that agree in all else become "Mamba in_proj/out_proj". */
static bool join(struct module_group *a, const struct module_group *b)
{
	const char *part_a = strrchr(a->what, ' '), *part_b = strrchr(b->what, ' ');
	size_t family = part_b ? (size_t)(part_b - b->what) : 0, n = strlen(a->what);
	if (!part_a || (size_t)(part_a - a->what) != family || strncmp(a->what, b->what, family) != 0 ||
		a->dtype != b->dtype || strcmp(a->why, b->why) != 0 || a->n_layers != b->n_layers ||
		memcmp(a->layers, b->layers, (size_t)a->n_layers * sizeof *a->layers) != 0)
		return false;
	snprintf(a->what + n, sizeof a->what - n, "/%s", part_b + 1);
	a->n += b->n;
	a->parameters += b->parameters;
	a->bytes += b->bytes;
	a->scale_bytes += b->scale_bytes;
	return true;
}

static void join_all(struct modules *modules)
{
	for (int i = 1; i < modules->n; i++) {
		struct module_group *group = &modules->groups[i];
		int into = 0;
		while (into < i && !join(&modules->groups[into], group))
			into++;
		if (into == i)
			continue;
		free(group->layers);
		modules->n--;
		memmove(group, group + 1, (size_t)(modules->n - i) * sizeof *group);
		i--;
	}
}

static int by_kind(const void *a, const void *b)
{
	const struct module_group *x = a, *y = b;
	return x->kind != y->kind ? (int)x->kind - (int)y->kind : x->layers[0] - y->layers[0];
}

/* Whether the group's layers are all of their kind. */
static bool has_all_layers(const struct module_group *group, const struct config *config)
{
	return group->n_layers > 1 &&
		   group->n_layers ==
			   config_layers_of(config, (enum layer_kind)config->kinds[group->layers[0]]);
}

int modules_open(struct modules *modules, const struct model *model, const struct slice *slice,
				 struct error *err)
{
	struct grouping g = {modules, &model->declared, &model->config, false, err};
	*modules = (struct modules){0};
	modules_each(slice, add_module, &g);
	if (g.failed) {
		modules_close(modules);
		return -1;
	}
	join_all(modules);
	qsort(modules->groups, (size_t)modules->n, sizeof *modules->groups, by_kind);
	for (int i = 0; i < modules->n; i++)
		modules->groups[i].all_layers = has_all_layers(&modules->groups[i], &model->config);
	return 0;
}

void modules_close(struct modules *modules)
{
	for (int i = 0; i < modules->n; i++)
		free(modules->groups[i].layers);
	free(modules->groups);
	*modules = (struct modules){0};
}

void module_group_layers(const struct module_group *group, struct text *out)
{
	if (group->all_layers) {
		text_format(out, "all %d layers", group->n_layers);
		return;
	}
	for (int i = 0; i < group->n_layers; i++)
		text_format(out, "%s%d",
					i                      ? ", "
					: group->n_layers == 1 ? "layer "
										   : "layers ",
					group->layers[i]);
}

/* ---- costs ---- */

const char *precision_name(enum precision precision)
{
	static const char *const names[] = {"stored", "bf16", "fp8", "nvfp4"};
	return names[precision];
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
