/*
 * elastic.json as a whole: what every reader shares, then the members of the file. The list of
 * budgets is elastic_budgets.c.
 */
#include "core/elastic_reader.h"

#include "base/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- small pieces ---- */

static void unknown_key(struct reader *r, const char *where, const char *key)
{
	struct error line; // shows control characters, cuts at a character
	fail(&line, "%s: unknown key \"%s\" in %s", r->source, key, where);
	text_format(&r->elastic->notices, "%s\n", line.text);
}

int reader_string(struct reader *r, const struct json_node *node, const char *what,
				  struct text *out, struct error *err)
{
	text_clear(out);
	if (!json_is(node, JSON_STRING))
		return fail(err, "%s is not a string", what);
	json_string(r->json, node, out);
	if (text_check(out, err) < 0)
		return -1;
	if (strlen(text_chars(out)) != out->length)
		return fail(err, "%s has a NUL byte in it", what);
	return 0;
}

int reader_expect(const struct json_node *node, enum json_type type, const char *what,
				  struct error *err)
{
	static const char *const names[] = {"null",     "false",  "true",     "a number",
										"a string", "a list", "an object"};
	if (json_is(node, type))
		return 0;
	return fail(err, "%s is %s, expected %s", what, node ? names[node->type] : "missing",
				names[type]);
}

int reader_int(struct reader *r, const struct json_node *node, const char *what, int *out,
			   struct error *err)
{
	int64_t value;
	if (json_integer(r->json, node, what, &value, err) < 0)
		return -1;
	if (value < 0 || value > INT32_MAX) {
		return fail(err, "%s is %lld, expected a number from 0 to 2147483647", what,
					(long long)value);
	}
	*out = (int)value;
	return 0;
}

static int read_bool(const struct json_node *node, const char *what, bool *out, struct error *err)
{
	if (!json_is(node, JSON_TRUE) && !json_is(node, JSON_FALSE))
		return fail(err, "%s is neither true nor false", what);
	*out = json_is(node, JSON_TRUE);
	return 0;
}

static int read_float(struct reader *r, const struct json_node *node, const char *what, float *out,
					  struct error *err)
{
	double value;
	if (json_number(r->json, node, what, &value, err) < 0)
		return -1;
	*out = (float)value;
	return 0;
}

int reader_members(struct reader *r, const struct json_node *object, const char *what,
				   member_reader *read, void *into, struct error *err)
{
	if (reader_expect(object, JSON_OBJECT, what, err) < 0)
		return -1;
	struct text key = {0};
	int status = 0;
	for (const struct json_node *k = json_first(r->json, object); k && status >= 0;
		 k = json_next(r->json, object, k)) {
		status = reader_string(r, k, "a key", &key, err);
		if (status < 0)
			break;
		status = read(r, text_chars(&key), json_value(k), into, err);
		if (status == 0)
			unknown_key(r, what, text_chars(&key));
	}
	text_free(&key);
	return status < 0 ? -1 : 0;
}

/* ---- the rest of the file ---- */

/* A budget's name to its index. */
static int read_index(struct reader *r, const struct json_node *node, const char *what, int *out,
					  struct error *err)
{
	struct text name = {0};
	if (reader_string(r, node, what, &name, err) < 0) {
		text_free(&name);
		return -1;
	}
	struct elastic *e = r->elastic;
	for (*out = 0; *out < e->n_budgets; (*out)++) {
		if (strcmp(e->budgets[*out].name, text_chars(&name)) == 0) {
			text_free(&name);
			return 0;
		}
	}
	struct text names = {0};
	for (int i = 0; i < e->n_budgets; i++)
		text_format(&names, "%s%s", i ? ", " : "", e->budgets[i].name);
	fail(err, "%s names budget \"%.60s\"; there are %.200s", what, text_chars(&name),
		 text_chars(&names));
	text_free(&names);
	text_free(&name);
	return -1;
}

static int read_policy(struct reader *r, const char *key, const struct json_node *value, void *into,
					   struct error *err)
{
	struct elastic *e = into;
	if (strcmp(key, "think") == 0)
		return read_index(r, value, "policy.think", &e->think, err) < 0 ? -1 : 1;
	if (strcmp(key, "answer") == 0)
		return read_index(r, value, "policy.answer", &e->answer, err) < 0 ? -1 : 1;
	if (strcmp(key, "handoff") != 0)
		return 0;
	e->has_handoff = true;
	e->carry = json_equals(r->json, value, "carry");
	if (!e->carry && !json_equals(r->json, value, "reprefill"))
		return fail(err, "policy.handoff is neither \"carry\" nor \"reprefill\"");
	return 1;
}

static int read_router_axis(struct reader *r, const char *key, const struct json_node *value,
							void *into, struct error *err)
{
	struct router_axis *axis = into;
	if (strcmp(key, "hetero") == 0)
		return read_bool(value, "hetero", &axis->hetero, err) < 0 ? -1 : 1;
	if (strcmp(key, "normalize") == 0)
		return read_bool(value, "normalize", &axis->normalize, err) < 0 ? -1 : 1;
	if (strcmp(key, "choices") != 0)
		return 0;
	if (reader_expect(value, JSON_ARRAY, "choices", err) < 0)
		return -1;
	axis->choices = mem_new(value->n_children, sizeof(int), err);
	if (!axis->choices)
		return -1;
	int parent = axis->layers ? r->config->n_layers : axis_parent_width(axis->axis, r->config);
	for (const struct json_node *n = json_first(r->json, value); n;
		 n = json_next(r->json, value, n)) {
		int *choice = &axis->choices[axis->n_choices++];
		if (reader_int(r, n, "choices", choice, err) < 0)
			return -1;
		if (*choice < 1 || *choice > parent)
			return fail(err, "choices holds %d, expected 1 to the parent's %d", *choice, parent);
	}
	return 1;
}

static int read_router_axes(struct reader *r, const char *key, const struct json_node *value,
							void *into, struct error *err)
{
	struct elastic *e = into;
	int axis = axis_find(key);
	bool layers = strcmp(key, "layers") == 0;
	if (axis < 0 && !layers)
		return 0;
	struct router_axis *out = &e->router_axes[e->n_router_axes++];
	*out = (struct router_axis){.axis = layers ? N_AXES : (enum axis)axis, .layers = layers};
	char where[80];
	snprintf(where, sizeof where, "router.axes.%s", key);
	if (reader_members(r, value, where, read_router_axis, out, err) < 0)
		return fail_in(err, "%s", where);
	if (out->n_choices == 0)
		return fail(err, "%s has no choices", where);
	if (out->hetero && (layers || axis == AXIS_HIDDEN))
		return fail(err, "%s is hetero, but is one number for the whole model", where);
	return 1;
}

static int read_router(struct reader *r, const char *key, const struct json_node *value, void *into,
					   struct error *err)
{
	struct elastic *e = into;
	int status = 0;
	if (strcmp(key, "file") == 0) {
		struct text name = {0};
		status = reader_string(r, value, "router.file", &name, err);
		e->router_file = status < 0 ? NULL : mem_string(text_chars(&name), name.length, err);
		text_free(&name);
		return e->router_file ? 1 : -1;
	} else if (strcmp(key, "tau") == 0) {
		status = read_float(r, value, "router.tau", &e->router_tau, err);
	} else if (strcmp(key, "scaler") == 0) {
		status = read_float(r, value, "router.scaler", &e->router_scaler, err);
	} else if (strcmp(key, "axes") == 0) {
		status = reader_members(r, value, "router.axes", read_router_axes, e, err);
	} else if (strcmp(key, "budgets") == 0) {
		status = reader_expect(value, JSON_ARRAY, "router.budgets", err);
		e->n_router_budgets = 0;
		for (const struct json_node *n = status < 0 ? NULL : json_first(r->json, value); n;
			 n = json_next(r->json, value, n)) {
			if (e->n_router_budgets == MAX_BUDGETS)
				return fail(err, "router.budgets has more than %d names", MAX_BUDGETS);
			if (read_index(r, n, "router.budgets", &e->router_budgets[e->n_router_budgets++], err) <
				0)
				return -1;
		}
	} else {
		return 0;
	}
	return status < 0 ? -1 : 1;
}

static int read_importance(struct reader *r, const char *key, const struct json_node *value,
						   void *into, struct error *err)
{
	struct elastic *e = into;
	if (strcmp(key, "samples") == 0) {
		return json_integer(r->json, value, "importance.samples", &e->importance_samples, err) < 0
				   ? -1
				   : 1;
	}
	if (strcmp(key, "tokens") == 0) {
		return json_integer(r->json, value, "importance.tokens", &e->importance_tokens, err) < 0
				   ? -1
				   : 1;
	}
	if (strcmp(key, "sorted") == 0) {
		bool sorted = false;
		if (read_bool(value, "importance.sorted", &sorted, err) < 0)
			return -1;
		e->importance_sorted = sorted;
		return 1;
	}
	if (strcmp(key, "file") != 0)
		return 0;
	struct text name = {0};
	if (reader_string(r, value, "importance.file", &name, err) == 0)
		e->importance_file = mem_string(text_chars(&name), name.length, err);
	text_free(&name);
	return e->importance_file ? 1 : -1;
}

static int read_sampling(struct reader *r, const char *key, const struct json_node *value,
						 void *into, struct error *err)
{
	struct elastic *e = into;
	bool temperature = strcmp(key, "temperature") == 0;
	if (!temperature && strcmp(key, "top_p") != 0)
		return 0;
	float *out = temperature ? &e->temperature : &e->top_p;
	if (read_float(r, value, temperature ? "sampling.temperature" : "sampling.top_p", out, err) < 0)
		return -1;
	if (*out < 0 || (!temperature && *out > 1))
		return fail(err, "sampling.%s is %g", key, (double)*out);
	return 1;
}

/* Everything but `budgets`, which has been read before: policy and router name them. */
static int read_top(struct reader *r, const char *key, const struct json_node *value, void *into,
					struct error *err)
{
	struct elastic *e = into;
	int status = 0;
	if (strcmp(key, "format") == 0) {
		if (!json_equals(r->json, value, "elastic-1"))
			return fail(err, "format is not \"elastic-1\"");
	} else if (strcmp(key, "policy") == 0) {
		status = reader_members(r, value, "policy", read_policy, e, err);
	} else if (strcmp(key, "router") == 0) {
		status = reader_members(r, value, "router", read_router, e, err);
	} else if (strcmp(key, "importance") == 0) {
		status = reader_members(r, value, "importance", read_importance, e, err);
	} else if (strcmp(key, "sampling") == 0) {
		status = reader_members(r, value, "sampling", read_sampling, e, err);
	} else if (strcmp(key, "provenance") == 0) {
		struct text free_text = {0};
		status = reader_string(r, value, "provenance", &free_text, err);
		if (status == 0) {
			e->provenance = mem_string(text_chars(&free_text), free_text.length, err);
			status = e->provenance ? 0 : -1;
		}
		text_free(&free_text);
	} else {
		return strcmp(key, "budgets") == 0;
	}
	return status < 0 ? -1 : 1;
}

int elastic_parse(struct elastic *e, const struct config *config, const struct text *text,
				  const char *source, bool lenient, struct error *err)
{
	elastic_init(e);
	struct json json = {0};
	struct reader r = {&json, config, e, source, lenient};
	if (json_parse(&json, text_chars(text), text->length, err) < 0)
		goto out;
	const struct json_node *root = &json.nodes[0];
	if (reader_expect(root, JSON_OBJECT, "the file", err) < 0)
		goto out;
	if (!json_member(&json, root, "format")) {
		fail(err, "format is missing, expected \"elastic-1\"");
		goto out;
	}
	if (reader_budgets(&r, json_member(&json, root, "budgets"), err) < 0 ||
		reader_members(&r, root, "the file", read_top, e, err) < 0)
		goto out;
	if (e->router_file && (!(e->router_tau > 0) || !(e->router_scaler > 0))) {
		fail(err, "router.tau is %g and router.scaler %g, expected positive numbers",
			 (double)e->router_tau, (double)e->router_scaler);
		goto out;
	}
	if (e->n_router_budgets == 0)
		for (; e->n_router_budgets < e->n_budgets; e->n_router_budgets++)
			e->router_budgets[e->n_router_budgets] = e->n_router_budgets;
	if (text_check(&e->notices, err) < 0)
		goto out;
	json_free(&json);
	return 0;
out:
	json_free(&json);
	elastic_free(e);
	return fail_in(err, "%s", source);
}
