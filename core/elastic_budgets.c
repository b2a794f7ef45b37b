/*
 * The list `budgets` of elastic.json: widths, lists per layer, keep bits and runs; each budget
 * checked against the model, then against the larger one before it.
 */
#include "core/elastic_reader.h"

#include "base/memory.h"
#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int read_layer_list(struct reader *r, const struct json_node *node, const char *what,
						   int *out, struct error *err)
{
	if (reader_expect(node, JSON_ARRAY, what, err) < 0)
		return -1;
	if (node->n_children != (uint32_t)r->config->n_layers) {
		return fail(err, "%s has %u entries, the model has %d layers", what, node->n_children,
					r->config->n_layers);
	}
	int i = 0;
	for (const struct json_node *n = json_first(r->json, node); n; n = json_next(r->json, node, n))
		if (reader_int(r, n, what, &out[i++], err) < 0)
			return -1;
	return 0;
}

static int read_keep(struct reader *r, const struct json_node *node, struct budget *budget,
					 struct error *err)
{
	int bits[CONFIG_MAX_LAYERS];
	if (read_layer_list(r, node, "layers", bits, err) < 0)
		return -1;
	for (int i = 0; i < budget->n_layers; i++) {
		if (bits[i] > 1)
			return fail(err, "layers: entry %d is %d, expected 0 or 1", i, bits[i]);
		if (budget_set_keep(budget, i, bits[i], err) < 0)
			return -1;
	}
	return 0;
}

static int read_layer_width(struct reader *r, const char *key, const struct json_node *value,
							void *into, struct error *err)
{
	struct budget *budget = into;
	int axis = axis_find(key);
	if (axis == AXIS_HIDDEN)
		return fail(err, "per_layer holds hidden_size, which is one number for the whole model");
	if (axis < 0)
		return budget_fixed_key(key) ? fail(err, "%s is not elastic in this family", key) : 0;
	int widths[CONFIG_MAX_LAYERS];
	if (read_layer_list(r, value, key, widths, err) < 0)
		return -1;
	for (int i = 0; i < budget->n_layers; i++)
		if (axis_on_layer(axis, r->config->kinds[i]) &&
			budget_set_layer_width(budget, r->config, axis, i, widths[i], err) < 0)
			return -1;
	return 1;
}

static int read_run(struct reader *r, const struct json_node *pair, const char *key,
					struct span *out, struct error *err)
{
	int from, to;
	const struct json_node *first = json_first(r->json, pair);
	if (!json_is(pair, JSON_ARRAY) || pair->n_children != 2)
		return fail(err, "runs of %s: expected [from, to]", key);
	if (reader_int(r, first, key, &from, err) < 0 ||
		reader_int(r, json_next(r->json, pair, first), key, &to, err) < 0)
		return -1;
	if (to <= from)
		return fail(err, "runs of %s: [%d, %d) is empty", key, from, to);
	*out = (struct span){from, to - from};
	return 0;
}

/* "17.n_routed_experts", or "hidden_size" alone. */
static int read_runs(struct reader *r, const char *key, const struct json_node *value, void *into,
					 struct error *err)
{
	struct budget *budget = into;
	char *end = NULL;
	long layer = isdigit((unsigned char)key[0]) ? strtol(key, &end, 10) : -1;
	int axis = axis_find(end && *end == '.' ? end + 1 : key);
	if (axis < 0 || (axis == AXIS_HIDDEN) != (layer < 0) || layer >= budget->n_layers)
		return fail(err, "runs: key \"%.60s\" is neither LAYER.AXIS nor hidden_size", key);
	if (reader_expect(value, JSON_ARRAY, key, err) < 0)
		return -1;
	struct span_list kept = {.spans = mem_new(value->n_children, sizeof *kept.spans, err)};
	int status = kept.spans ? 0 : -1;
	for (const struct json_node *n = json_first(r->json, value); n && status == 0;
		 n = json_next(r->json, value, n))
		status = read_run(r, n, key, &kept.spans[kept.n++], err);
	if (status < 0) {
		free(kept.spans);
		return -1;
	}
	return budget_set_runs(budget, axis, (int)layer, &kept, err) < 0 ? -1 : 1;
}

static int read_target(struct reader *r, const char *key, const struct json_node *value, void *into,
					   struct error *err)
{
	struct budget *budget = into;
	if (strcmp(key, "value") == 0)
		return json_number(r->json, value, "target.value", &budget->target_value, err) < 0 ? -1 : 1;
	if (strcmp(key, "metric") != 0)
		return 0;
	static const char *const metrics[] = {"active", "total", "bytes", "ms"};
	for (size_t i = 0; i < sizeof metrics / sizeof *metrics; i++) {
		if (json_equals(r->json, value, metrics[i])) {
			snprintf(budget->target_metric, sizeof budget->target_metric, "%s", metrics[i]);
			return 1;
		}
	}
	return fail(err, "target.metric is not one of active, total, bytes, ms");
}

static int read_budget_member(struct reader *r, const char *key, const struct json_node *value,
							  void *into, struct error *err)
{
	struct budget *budget = into;
	int axis = axis_find(key), status = 0;
	if (axis >= 0 || strcmp(key, "per_layer") == 0 || strcmp(key, "runs") == 0)
		return 1; // read_channels()
	if (strcmp(key, "num_experts_per_tok") == 0) {
		status = reader_int(r, value, key, &budget->top_k, err);
	} else if (budget_fixed_key(key)) {
		const struct config *c = r->config;
		int found, parent = key[0] == 's'   ? c->ssm_state_size
							: key[0] == 'h' ? c->head_dim
							: key[1] == 'u' ? c->num_key_value_heads
											: c->n_groups;
		status = reader_int(r, value, key, &found, err);
		if (status == 0 && found != parent) {
			return fail(err, "%s is %d, the parent has %d: it is not elastic in this family", key,
						found, parent);
		}
	} else if (strcmp(key, "layers") == 0) {
		status = read_keep(r, value, budget, err);
	} else if (strcmp(key, "target") == 0) {
		status = reader_members(r, value, "target", read_target, budget, err);
	} else {
		return strcmp(key, "name") == 0;
	}
	return status < 0 ? -1 : 1;
}

/* Widths, then lists over them, then runs over both, in whatever order the file has them. */
static int read_channels(struct reader *r, const struct json_node *node, struct budget *budget,
						 struct error *err)
{
	int plain[N_AXES] = {0};
	const struct json_node *value;
	for (int axis = 0; axis < N_AXES; axis++) {
		if (!(value = json_member(r->json, node, axis_name(axis))))
			continue;
		if (reader_int(r, value, axis_name(axis), &plain[axis], err) < 0)
			return -1;
		budget_set_width(budget, axis, plain[axis]);
	}
	if ((value = json_member(r->json, node, "per_layer")) &&
		reader_members(r, value, "per_layer", read_layer_width, budget, err) < 0)
		return -1;
	for (int axis = 0; axis < N_AXES; axis++)
		if (json_member(r->json, node, axis_name(axis)) && budget->width[axis] > plain[axis])
			return fail(err, "per_layer %s goes up to %d, %s itself is %d", axis_name(axis),
						budget->width[axis], axis_name(axis), plain[axis]);
	value = json_member(r->json, node, "runs");
	return value ? reader_members(r, value, "runs", read_runs, budget, err) : 0;
}

static int read_name(struct reader *r, const struct json_node *node, int index, struct text *name,
					 struct error *err)
{
	char what[32];
	snprintf(what, sizeof what, "budgets[%d]", index);
	if (reader_expect(node, JSON_OBJECT, what, err) < 0)
		return -1;
	const struct json_node *value = json_member(r->json, node, "name");
	if (!value)
		return fail(err, "%s has no name", what);
	snprintf(what, sizeof what, "budgets[%d].name", index);
	if (reader_string(r, value, what, name, err) < 0)
		return -1;
	for (size_t i = 0; i < name->length; i++) {
		unsigned char byte = (unsigned char)name->data[i];
		if (byte <= ' ' || byte == 127 || strchr("=,:#+", byte)) {
			return fail(err,
						"%s \"%.60s\" has a space, a control character or one of = , : # + in it",
						what, name->data);
		}
	}
	for (int i = 0; i < r->elastic->n_budgets; i++) {
		if (strcmp(r->elastic->budgets[i].name, text_chars(name)) == 0) {
			return fail(err, "budgets[%d] and budgets[%d] are both named \"%s\"", i, index,
						text_chars(name));
		}
	}
	return 0;
}

static int read_budget(struct reader *r, const struct json_node *node, struct error *err)
{
	int index = r->elastic->n_budgets;
	if (index == MAX_BUDGETS)
		return fail(err, "more than %d budgets", MAX_BUDGETS);
	struct budget *budget = &r->elastic->budgets[index];
	struct text name = {0};
	if (read_name(r, node, index, &name, err) < 0 ||
		budget_init(budget, r->config, text_chars(&name), err) < 0) {
		text_free(&name);
		return -1;
	}
	text_free(&name);
	r->elastic->n_budgets++; // from here on elastic_free frees it
	snprintf(budget->source, sizeof budget->source, "%s", r->source);
	char where[96];
	snprintf(where, sizeof where, "budget %s", budget->name);
	if (reader_members(r, node, where, read_budget_member, budget, err) < 0 ||
		read_channels(r, node, budget, err) < 0)
		return fail_in(err, "%s", where);
	return budget_check(budget, r->config, err);
}

static int check_parent(const struct budget *first, const struct config *config, struct error *err)
{
	for (int axis = 0; axis < N_AXES; axis++) {
		int parent = axis_parent_width(axis, config);
		for (int layer = 0; layer < config->n_layers; layer++) {
			int width = budget_width(first, axis, layer);
			if (axis_on_layer(axis, config->kinds[layer]) && width != parent) {
				return fail(err,
							"the first budget, %s, must be the parent: its %s is %d, config.json "
							"says %d",
							first->name, axis_name(axis), width, parent);
			}
		}
	}
	if (first->top_k != config->num_experts_per_tok && config_layers_of(config, LAYER_MOE)) {
		return fail(err,
					"the first budget, %s, must be the parent: its num_experts_per_tok is %d, "
					"config.json says %d",
					first->name, first->top_k, config->num_experts_per_tok);
	}
	for (int layer = 0; layer < config->n_layers; layer++) {
		if (!budget_keeps_layer(first, layer)) {
			return fail(err, "the first budget, %s, must be the parent: it leaves out layer %d",
						first->name, layer);
		}
	}
	return 0;
}

static int check_nesting(struct reader *r, struct error *err)
{
	struct elastic *e = r->elastic;
	for (int i = 1; i < e->n_budgets; i++) {
		struct text lines = {0};
		int n = budget_violations(&e->budgets[i - 1], &e->budgets[i], r->config, &lines);
		if (n == 0)
			continue;
		if (!r->lenient) {
			int first = (int)strcspn(text_chars(&lines), "\n");
			fail(err, "budgets are not nested: %.*s (%d violation%s; --lenient opens it to look)",
				 first, text_chars(&lines), n, n == 1 ? "" : "s");
			text_free(&lines);
			return -1;
		}
		for (const char *line = text_chars(&lines); *line;) {
			int length = (int)strcspn(line, "\n");
			text_format(&e->notices, "not nested: %.*s\n", length, line);
			line += length + (line[length] != '\0');
		}
		text_free(&lines);
	}
	return 0;
}

int reader_budgets(struct reader *r, const struct json_node *list, struct error *err)
{
	if (reader_expect(list, JSON_ARRAY, "budgets", err) < 0)
		return -1;
	if (list->n_children == 0)
		return fail(err, "budgets is empty, expected at least the parent");
	for (const struct json_node *n = json_first(r->json, list); n; n = json_next(r->json, list, n))
		if (read_budget(r, n, err) < 0)
			return -1;
	if (check_parent(&r->elastic->budgets[0], r->config, err) < 0)
		return -1;
	return check_nesting(r, err);
}
