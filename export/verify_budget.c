/* Which budget of the parent a child's config.json describes. */
#include "export/verify_budget.h"

#include "base/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int child_width(const struct config *child, const struct config *parent, enum axis axis)
{
	return axis_in_model(axis, child) ? axis_parent_width(axis, child)
									  : axis_parent_width(axis, parent);
}

/* Whether the child's norm of layer `to` is a leading part of the parent's of layer `from`. */
static bool same_norm(const struct model *parent, const struct checkpoint *child, int from, int to)
{
	static const char *const prefixes[] = {"backbone.", "model."};
	const struct tensor *a = &parent->weights.layers[from].norm, *b = NULL;
	char name[64];
	for (int i = 0; i < 2 && !b; i++) {
		snprintf(name, sizeof name, "%slayers.%d.norm.weight", prefixes[i], to);
		b = checkpoint_find(child, name);
	}
	return b && b->dtype == a->dtype && b->bytes <= a->bytes &&
		   memcmp(a->data, b->data, b->bytes) == 0;
}

/* Left-out layers are known by their norms, the first that fits. */
static int find_layers(struct budget *budget, const struct model *parent,
					   const struct checkpoint *child, const struct config *config,
					   struct error *err)
{
	const struct config *c = &parent->config;
	int to = 0;
	if (config->n_layers == c->n_layers &&
		memcmp(config->kinds, c->kinds, (size_t)c->n_layers) == 0)
		return 0;
	for (int from = 0; from < c->n_layers; from++) {
		bool there = to < config->n_layers && config->kinds[to] == c->kinds[from] &&
					 same_norm(parent, child, from, to);
		if (budget_set_keep(budget, from, there, err) < 0)
			return -1;
		to += there;
	}
	if (to == config->n_layers)
		return 0;
	return fail(err,
				"layer %d of the child (%s) has the norm of no layer of the parent that could "
				"stand there; --budget says which budget is meant",
				to, layer_name((enum layer_kind)config->kinds[to]));
}

int verify_find_budget(struct budget *budget, bool *named, const struct model *parent,
					   const struct checkpoint *child, const struct config *config,
					   struct error *err)
{
	struct text terms = {0}, text = {0};
	struct budget plain = {0};
	*named = false;
	if (budget_init(budget, &parent->config, "child", err) != 0 ||
		find_layers(budget, parent, child, config, err) != 0)
		return -1;
	for (int axis = 0; axis < N_AXES; axis++)
		budget_set_width(budget, axis, child_width(config, &parent->config, axis));
	if (config->n_routed_experts)
		budget->top_k = config->num_experts_per_tok;
	for (int i = 0; i < parent->elastic.n_budgets && !*named; i++) {
		text_clear(&terms);
		budget_terms(budget, &parent->elastic.budgets[i], &parent->config, &terms);
		*named = terms.length == 0;
		if (*named)
			memcpy(budget->name, parent->elastic.budgets[i].name, sizeof budget->name);
	}
	int result = 0;
	if (!*named) {
		result = budget_init(&plain, &parent->config, "parent", err);
		if (result == 0) {
			budget_terms(budget, &plain, &parent->config, &text);
			result = budget_name_of(budget->name, text.length ? text_chars(&text) : "parent", err);
		}
		budget_free(&plain);
	}
	text_free(&terms);
	text_free(&text);
	return result == 0 ? budget_check(budget, &parent->config, err) : -1;
}
