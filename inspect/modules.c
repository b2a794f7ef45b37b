#include "inspect/modules.h"
#include "base/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
	const char *family, *part;
} kinds[N_MODULE_KINDS] = {
	[MODULE_EMBEDDINGS] = {"embeddings", ""},
	[MODULE_LM_HEAD] = {"lm_head", ""},
	[MODULE_IN_PROJ] = {"Mamba", "in_proj"},
	[MODULE_OUT_PROJ] = {"Mamba", "out_proj"},
	[MODULE_Q] = {"attention", "q"},
	[MODULE_K] = {"attention", "k"},
	[MODULE_V] = {"attention", "v"},
	[MODULE_O] = {"attention", "o"},
	[MODULE_GATE] = {"router", ""},
	[MODULE_UP] = {"routed experts", "up"},
	[MODULE_DOWN] = {"routed experts", "down"},
	[MODULE_SHARED_UP] = {"shared expert", "up"},
	[MODULE_SHARED_DOWN] = {"shared expert", "down"},
	[MODULE_MLP_UP] = {"MLP", "up"},
	[MODULE_MLP_DOWN] = {"MLP", "down"},
};

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
	group->bytes += module_bytes(m);
	group->scale_bytes += module_scale_bytes(m);
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
