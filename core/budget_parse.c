/* Budgets as text: the terms of budget.h, each applied to a copy that is checked at the end. */
#include "core/budget.h"

#include "base/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct parser {
	struct budget *budget;
	const struct config *config;
	const char *typed; // for errors
	struct error *err;
};

/* A whole number at *text, which moves behind it. -1 if there is none or it is silly. */
static int take_number(const char **text)
{
	if (**text < '0' || **text > '9')
		return -1;
	char *end;
	long value = strtol(*text, &end, 10);
	*text = end;
	return value > INT32_MAX ? -1 : (int)value;
}

/* ---- layers ---- */

static int parse_layers(struct parser *p, const char *key, const char *value, uint8_t bit)
{
	for (;; value++) {
		int layer = take_number(&value);
		if (layer < 0 || layer >= p->budget->n_layers) {
			return fail(p->err, "%s: %s expects layers 0 to %d with + between them", p->typed, key,
						p->budget->n_layers - 1);
		}
		if (budget_set_keep(p->budget, layer, bit, p->err) < 0)
			return -1;
		if (*value == '\0')
			return 0;
		if (*value != '+') {
			return fail(p->err, "%s: %s expects layers with + between them, found \"%s\"", p->typed,
						key, value);
		}
	}
}

/* ---- channels ---- */

/* Of one layer, or of all (-1). */
static int set_width(struct parser *p, enum axis axis, int layer, int width)
{
	if (layer >= 0)
		return budget_set_layer_width(p->budget, p->config, axis, layer, width, p->err);
	budget_set_width(p->budget, axis, width);
	return 0;
}

static bool same_spans(const struct span_list *a, const struct span_list *b)
{
	bool same = a->n == b->n;
	for (size_t i = 0; same && i < a->n; i++)
		same = a->spans[i].start == b->spans[i].start && a->spans[i].length == b->spans[i].length;
	return same;
}

/* Whether the channels are those of a plain width. */
static int is_prefix(struct parser *p, enum axis axis, int layer, const struct span_list *kept,
					 int width)
{
	struct budget plain = {.n_layers = p->budget->n_layers, .heads = p->budget->heads};
	struct span_list spans = {0};
	budget_set_width(&plain, axis, width);
	if (width % axis_groups(axis, p->config) != 0)
		return 0;
	int status = budget_spans(&plain, p->config, axis, layer < 0 ? 0 : layer, &spans, p->err);
	bool same = status == 0 && same_spans(kept, &spans);
	free(spans.spans);
	return status < 0 ? -1 : same;
}

/* Takes the spans over. */
static int set_runs(struct parser *p, enum axis axis, int layer, struct span_list *kept)
{
	int width = 0;
	for (size_t i = 0; i < kept->n; i++)
		width += kept->spans[i].length;
	int plain = is_prefix(p, axis, layer, kept, width);
	if (plain != 0) {
		free(kept->spans);
		return plain < 0 ? -1 : set_width(p, axis, layer, width);
	}
	return budget_set_runs(p->budget, axis, layer, kept, p->err);
}

/* Runs that are a plain width by now (heads=... came behind them). */
static int settle_runs(struct parser *p)
{
	for (int i = 0; i < p->budget->n_runs;) {
		struct budget_runs *runs = &p->budget->runs[i];
		struct span_list kept = {.spans = runs->spans, .n = (size_t)runs->n_spans};
		int width = 0;
		for (int s = 0; s < runs->n_spans; s++)
			width += runs->spans[s].length;
		int plain = is_prefix(p, runs->axis, runs->layer, &kept, width);
		if (plain < 0 || (plain && set_width(p, runs->axis, runs->layer, width) < 0))
			return -1;
		i = plain ? 0 : i + 1;
	}
	return 0;
}

/* "0-64+66-128", a number alone being one channel; ascending, inside the axis. */
static int parse_runs(struct parser *p, enum axis axis, const char *value, struct span_list *out)
{
	const char *text = value;
	int parent = axis_parent_width(axis, p->config), end = 0;
	for (;; text++) {
		int from = take_number(&text), to = from < INT32_MAX ? from + 1 : from;
		if (from >= 0 && *text == '-') {
			text++;
			to = take_number(&text);
		}
		if (from < 0 || to <= from || (*text && *text != '+')) {
			return fail(p->err,
						"%s: %s expects a width, or runs such as 0-%d+%d-%d, found \"%.60s\"",
						p->typed, axis_name(axis), parent / 2, parent / 2 + 1, parent, value);
		}
		if (from < end || to > parent) {
			return fail(p->err,
						"%s: run %d-%d of %s overlaps the one before it or leaves the parent's %d",
						p->typed, from, to, axis_name(axis), parent);
		}
		if (span_list_add(out, from, to - from, p->err) < 0)
			return -1;
		end = to;
		if (!*text)
			return 0;
	}
}

/* ---- drop= and add= ---- */

/* Marks of single channels: axes are thousands wide at most, and sets are simple with them. */
static void mark(uint8_t *marks, const struct span_list *list, uint8_t bit)
{
	for (size_t i = 0; i < list->n; i++)
		memset(marks + list->spans[i].start, bit, (size_t)list->spans[i].length);
}

static int change_channels(struct parser *p, enum axis axis, int layer,
						   const struct span_list *runs, uint8_t bit)
{
	struct span_list kept = {0};
	int parent = axis_parent_width(axis, p->config);
	uint8_t *marks = mem_new((size_t)parent + 1, 1, p->err);
	int status = marks ? 0 : -1;
	if (status == 0)
		status = budget_spans(p->budget, p->config, axis, layer < 0 ? 0 : layer, &kept, p->err);
	if (status == 0) {
		mark(marks, &kept, 1);
		mark(marks, runs, bit);
		kept.n = 0;
	}
	for (int i = 0; status == 0 && i < parent; i++)
		if (marks[i])
			status = span_list_add(&kept, i, 1, p->err);
	free(marks);
	if (status == 0 && kept.n == 0)
		status = fail(p->err, "%s: nothing of %s would be left", p->typed, axis_name(axis));
	if (status < 0) {
		free(kept.spans);
		return -1;
	}
	return set_runs(p, axis, layer, &kept);
}

/* "LAYER.AXIS", or "AXIS" for all layers (layer -1). */
static int parse_place(struct parser *p, const char *key, enum axis *axis, int *layer)
{
	const char *name = key;
	int found;
	*layer = -1;
	if (*key >= '0' && *key <= '9') {
		*layer = take_number(&name);
		if (*name != '.' || *layer < 0 || *layer >= p->config->n_layers) {
			return fail(p->err, "%s: \"%s\" is not LAYER.AXIS with a layer of 0 to %d", p->typed,
						key, p->config->n_layers - 1);
		}
		name++;
	}
	found = axis_find(name);
	if (found < 0 && budget_fixed_key(name))
		return fail(p->err, "%s: %s is not elastic in this family", p->typed, name);
	if (found < 0) {
		struct text names = {0};
		axis_names(&names);
		fail(p->err,
			 "%s: no axis \"%s\"; there are %s, num_experts_per_tok, skip, keep, "
			 "drop, add, force, norm and heads",
			 p->typed, name, text_chars(&names));
		text_free(&names);
		return -1;
	}
	*axis = (enum axis)found;
	if (!axis_in_model(*axis, p->config))
		return fail(p->err, "%s: no layer of this model has %s", p->typed, name);
	if (*axis == AXIS_HIDDEN && *layer >= 0)
		return fail(p->err, "%s: hidden_size is one for the whole model, found it for layer %d",
					p->typed, *layer);
	if (*layer >= 0 && !axis_on_layer(*axis, p->config->kinds[*layer]))
		return fail(p->err, "%s: layer %d has no %s", p->typed, *layer, name);
	return 0;
}

static int parse_change(struct parser *p, const char *key, char *value, uint8_t bit)
{
	char *colon = strchr(value, ':');
	struct span_list runs = {0};
	enum axis axis;
	int layer, status = 0;
	if (!colon && !strchr(value, '.'))
		return parse_layers(p, key, value, bit);
	if (!colon) {
		return fail(p->err, "%s: %s expects LAYER.AXIS:CHANNELS or layers, found \"%s\"", p->typed,
					key, value);
	}
	*colon = '\0';
	if (parse_place(p, value, &axis, &layer) < 0)
		return -1;
	status = parse_runs(p, axis, colon + 1, &runs);
	if (status == 0 && (layer >= 0 || axis == AXIS_HIDDEN))
		status = change_channels(p, axis, layer, &runs, bit);
	for (int i = 0; status == 0 && layer < 0 && axis != AXIS_HIDDEN && i < p->config->n_layers; i++)
		if (axis_on_layer(axis, p->config->kinds[i]))
			status = change_channels(p, axis, i, &runs, bit);
	free(runs.spans);
	return status;
}

/* ---- experts, conventions ---- */

static int parse_force(struct parser *p, int layer, const char *value)
{
	struct budget *budget = p->budget;
	int n = 0;
	for (int i = 0; i < budget->n_forced; i++)
		if (budget->forced[i].layer != layer)
			budget->forced[n++] = budget->forced[i];
	budget->n_forced = n;
	for (const char *text = value; strcmp(value, "none") != 0; text++) {
		size_t capacity = (size_t)budget->n_forced;
		int expert = take_number(&text);
		if (expert < 0 || (*text && *text != '+')) {
			return fail(p->err,
						"%s: force expects experts with + between them, or none, found \"%s\"",
						p->typed, value);
		}
		if (mem_grow(&budget->forced, &capacity, capacity + 1, sizeof *budget->forced, p->err) < 0)
			return -1;
		int at = budget->n_forced;
		while (at > 0 &&
			   (budget->forced[at - 1].layer > layer ||
				(budget->forced[at - 1].layer == layer && budget->forced[at - 1].expert > expert)))
			at--;
		if (at > 0 && budget->forced[at - 1].layer == layer &&
			budget->forced[at - 1].expert == expert)
			return fail(p->err, "%s: expert %d is forced twice", p->typed, expert);
		memmove(budget->forced + at + 1, budget->forced + at,
				(size_t)(budget->n_forced++ - at) * sizeof *budget->forced);
		budget->forced[at] = (struct budget_forced){layer, expert};
		if (!*text)
			break;
	}
	return 0;
}

static int parse_norm(struct parser *p, const char *value)
{
	for (int i = 0; i < N_NORM_RULES; i++)
		if (strcmp(value, norm_rule_name(i)) == 0)
			return p->budget->norm = (enum norm_rule)i, 0;
	return fail(p->err, "%s: norm expects slice, masked or uncorrected, found \"%s\"", p->typed,
				value);
}

static int parse_heads(struct parser *p, const char *value)
{
	for (int i = 0; i < N_HEADS_RULES; i++)
		if (strcmp(value, heads_rule_name(i)) == 0)
			return p->budget->heads = (enum heads_rule)i, 0;
	return fail(p->err, "%s: heads expects grouped or global, found \"%s\"", p->typed, value);
}

/* ---- terms ---- */

static int parse_top_k(struct parser *p, const char *value)
{
	const char *text = value;
	int width = take_number(&text);
	if (width <= 0 || *text) {
		return fail(p->err, "%s: num_experts_per_tok expects a number from 1, found \"%s\"",
					p->typed, value);
	}
	p->budget->top_k = width;
	return 0;
}

static int parse_axis(struct parser *p, const char *key, const char *value)
{
	enum axis axis;
	int layer, status = 0;
	const char *text = value;
	if (parse_place(p, key, &axis, &layer) < 0)
		return -1;
	int width = take_number(&text);
	bool runs = width >= 0 && (*text == '-' || *text == '+');
	if (!runs && (width <= 0 || *text)) {
		return fail(p->err, "%s: %s expects a number from 1, found \"%s\"", p->typed, key, value);
	}
	if (!runs)
		return set_width(p, axis, layer, width);
	bool all = layer < 0 && axis != AXIS_HIDDEN;
	for (int i = all ? 0 : layer; status == 0 && (i == layer || (all && i < p->config->n_layers));
		 i++) {
		struct span_list list = {0};
		if (all && !axis_on_layer(axis, p->config->kinds[i]))
			continue;
		if (parse_runs(p, axis, value, &list) < 0) {
			free(list.spans);
			return -1;
		}
		status = set_runs(p, axis, i, &list);
	}
	return status;
}

static int parse_term(struct parser *p, char *item)
{
	char *equals = strchr(item, '='), *dot = strchr(item, '.');
	if (!equals)
		return fail(p->err, "%s: \"%s\" is not AXIS=WIDTH", p->typed, item);
	*equals = '\0';
	char *value = equals + 1;
	if (strcmp(item, "skip") == 0)
		return parse_layers(p, item, value, 0);
	if (strcmp(item, "keep") == 0)
		return parse_layers(p, item, value, 1);
	if (strcmp(item, "drop") == 0)
		return parse_change(p, item, value, 0);
	if (strcmp(item, "add") == 0)
		return parse_change(p, item, value, 1);
	if (strcmp(item, "norm") == 0)
		return parse_norm(p, value);
	if (strcmp(item, "heads") == 0)
		return parse_heads(p, value);
	if (strcmp(item, "num_experts_per_tok") == 0)
		return parse_top_k(p, value);
	if (dot && strcmp(dot, ".force") == 0) {
		const char *number = item;
		int layer = take_number(&number);
		if (number != dot || layer < 0)
			return fail(p->err, "%s: \"%s\" is not LAYER.force", p->typed, item);
		return parse_force(p, layer, value);
	}
	return parse_axis(p, item, value);
}

bool budget_fixed_key(const char *key)
{
	static const char *const fixed[] = {"ssm_state_size", "head_dim", "num_key_value_heads",
										"n_groups"};
	for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
		if (strcmp(key, fixed[i]) == 0)
			return true;
	return false;
}

static int parse_terms(struct parser *p)
{
	char *copy = mem_string(p->typed, strlen(p->typed), p->err);
	if (!copy)
		return -1;
	int status = 0;
	for (char *next = copy; next && status == 0;) {
		char *item = next, *comma = strchr(item, ',');
		next = comma ? comma + 1 : NULL;
		if (comma)
			*comma = '\0';
		status = parse_term(p, item);
	}
	free(copy);
	if (status == 0)
		status = settle_runs(p);
	return status < 0 ? -1 : budget_check(p->budget, p->config, p->err);
}

int budget_edit(struct budget *budget, const struct config *config, const char *terms,
				struct error *err)
{
	struct budget changed;
	struct parser parser = {&changed, config, terms, err};
	if (budget_copy(&changed, budget, err) < 0)
		return -1;
	if (parse_terms(&parser) < 0) {
		budget_free(&changed);
		return -1;
	}
	budget_free(budget);
	*budget = changed;
	return 0;
}

int budget_parse(struct budget *budget, const struct config *config, const char *typed,
				 struct error *err)
{
	struct parser parser = {budget, config, typed, err};
	*budget = (struct budget){0};
	if (budget_init(budget, config, "typed", err) < 0 ||
		budget_name_of(budget->name, typed, err) < 0)
		return -1;
	budget->origin = ORIGIN_DERIVED;
	snprintf(budget->source, sizeof budget->source, "typed");
	if (parse_terms(&parser) < 0) {
		budget_free(budget);
		return -1;
	}
	return 0;
}
