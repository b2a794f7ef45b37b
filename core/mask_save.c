/* A mask as a budget of elastic.json: text that goes in between the budgets that are there. */
#include "core/mask.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

#define MAX_ELASTIC_BYTES ((size_t)16 << 20)

/* ---- the budget ---- */

static int check_words(const struct budget *budget, const char *name, struct error *err)
{
	const char *what = budget->norm != NORM_SLICE       ? "norm="
					   : budget->heads != HEADS_GROUPED ? "heads="
					   : budget->n_forced               ? "force="
														: NULL;
	if (what)
		return fail(err, "%s: elastic.json has no word for %s, undo it first", name, what);
	if (!*name)
		return fail(err, "a budget needs a name");
	for (const char *p = name; *p; p++) {
		unsigned char byte = (unsigned char)*p;
		if (byte <= ' ' || byte == 127 || strchr("=,:#+~\"\\", byte)) {
			return fail(err,
						"the name \"%.60s\" has a space, a control character or one of "
						"= , : # + ~ \" \\ in it",
						name);
		}
	}
	return strlen(name) < 64 ? 0
							 : fail(err, "the name %.20s... has %zu bytes, expected at most 63",
									name, strlen(name));
}

static void add_list(const struct budget *budget, const struct config *config, enum axis axis,
					 struct text *out)
{
	text_format(out, "\"%s\": [", axis_name(axis));
	for (int i = 0; i < config->n_layers; i++) {
		bool there = axis_on_layer(axis, config->kinds[i]);
		text_format(out, "%s%d", i ? ", " : "", there ? budget->layer_width[axis][i] : 0);
	}
	text_add(out, "]");
}

static void add_runs(const struct budget_runs *runs, struct text *out)
{
	text_add(out, "\"");
	if (runs->axis != AXIS_HIDDEN)
		text_format(out, "%d.", runs->layer);
	text_format(out, "%s\": [", axis_name(runs->axis));
	for (int i = 0; i < runs->n_spans; i++) {
		text_format(out, "%s[%d, %d]", i ? ", " : "", runs->spans[i].start,
					runs->spans[i].start + runs->spans[i].length);
	}
	text_add(out, "]");
}

static void budget_object(const struct budget *budget, const char *name,
						  const struct config *config, struct text *out)
{
	int lists = 0;
	text_format(out, "{\n   \"name\": \"%s\"", name);
	for (int axis = 0; axis < N_AXES; axis++)
		if (axis_in_model(axis, config) && budget->width[axis] > 0)
			text_format(out, ",\n   \"%s\": %d", axis_name(axis), budget->width[axis]);
	if (budget->top_k != config->num_experts_per_tok)
		text_format(out, ",\n   \"num_experts_per_tok\": %d", budget->top_k);
	if (budget->keep) {
		text_add(out, ",\n   \"layers\": [");
		for (int i = 0; i < budget->n_layers; i++)
			text_format(out, "%s%d", i ? ", " : "", budget->keep[i]);
		text_add(out, "]");
	}
	for (int axis = 0; axis < N_AXES; axis++) {
		if (!budget->layer_width[axis])
			continue;
		text_add(out, lists++ ? ",\n    " : ",\n   \"per_layer\": {\n    ");
		add_list(budget, config, axis, out);
	}
	text_add(out, lists ? "}" : "");
	for (int i = 0; i < budget->n_runs; i++) {
		text_add(out, i ? ",\n    " : ",\n   \"runs\": {\n    ");
		add_runs(&budget->runs[i], out);
	}
	text_add(out, budget->n_runs ? "}" : "");
	text_add(out, "\n  }");
}

/* ---- the file ---- */

struct change { // where the file is cut and what goes in; in order of `from`
	size_t from, to;
	struct text text;
};

/* Behind which budget it nests, or -1; the smallest possible place. */
static int place_of(const struct elastic *elastic, const struct budget *budget, int without,
					const struct config *config)
{
	for (int i = elastic->n_budgets - 1; i >= 0; i--) {
		if (i == without)
			continue;
		int next = i + 1 == without ? i + 2 : i + 1;
		if (without >= 0 && next != without + 1) // a replaced one stays where it is
			continue;
		if (budget_violations(&elastic->budgets[i], budget, config, NULL) == 0 &&
			(next >= elastic->n_budgets ||
			 budget_violations(budget, &elastic->budgets[next], config, NULL) == 0))
			return i;
	}
	return -1;
}

static const struct json_node *nth(const struct json *json, const struct json_node *list, int n)
{
	const struct json_node *node = json_first(json, list);
	while (node && n-- > 0)
		node = json_next(json, list, node);
	return node;
}

/* A router without a list of budgets means all of the file: it must go on meaning those. */
static void router_change(const struct json *json, const struct elastic *elastic,
						  struct change *change)
{
	const struct json_node *router = json_member(json, &json->nodes[0], "router");
	if (!router || json_member(json, router, "budgets") || router->n_children == 0)
		return;
	change->from = change->to = router->start + 1;
	text_add(&change->text, "\n  \"budgets\": [");
	for (int i = 0; i < elastic->n_budgets; i++)
		text_format(&change->text, "%s\"%s\"", i ? ", " : "", elastic->budgets[i].name);
	text_add(&change->text, "],");
}

static void splice(const struct text *file, struct change changes[2], struct text *out)
{
	size_t at = 0;
	int first = changes[1].text.length && changes[1].from < changes[0].from;
	for (int i = 0; i < 2; i++) {
		const struct change *change = &changes[i ^ first];
		if (!change->text.length)
			continue;
		text_append(out, file->data + at, change->from - at);
		text_append(out, change->text.data, change->text.length);
		at = change->to;
	}
	text_append(out, file->data + at, file->length - at);
}

struct saving {
	const struct budget *budget;
	const char *name, *path;
	const struct config *config;
	bool replace;
};

static int put_in(const struct saving *s, const struct text *file, const struct elastic *elastic,
				  const struct json *json, struct text *out, struct error *err)
{
	const struct json_node *list = json_member(json, &json->nodes[0], "budgets");
	struct change changes[2] = {{0}, {0}};
	int same = elastic_find(elastic, s->name), place;
	if (same == 0)
		return fail(err, "%s: %s is the parent, which stays", s->path, elastic->budgets[0].name);
	if (same > 0 && !s->replace)
		return fail(err, "%s has a budget %s already", s->path, elastic->budgets[same].name);
	if (same < 0 && elastic->n_budgets == MAX_BUDGETS)
		return fail(err, "%s has %d budgets, more are not read", s->path, MAX_BUDGETS);
	place = place_of(elastic, s->budget, same, s->config);
	if (place < 0) {
		return fail(err,
					"%s: the mask does not lie between two of its budgets (all are nested); "
					"another file can hold the parent and it",
					s->path);
	}
	if (same > 0) {
		const struct json_node *node = nth(json, list, same);
		changes[0].from = node->start;
		changes[0].to = node->end;
	} else {
		changes[0].from = changes[0].to = nth(json, list, place)->end;
		text_add(&changes[0].text, ",\n  ");
		router_change(json, elastic, &changes[1]);
	}
	budget_object(s->budget, s->name, s->config, &changes[0].text);
	splice(file, changes, out);
	int status =
		text_check(&changes[0].text, err) < 0 || text_check(&changes[1].text, err) < 0 ? -1 : 0;
	text_free(&changes[0].text);
	text_free(&changes[1].text);
	return status;
}

/* What is about to be written must open again. */
static int write_checked(const struct saving *s, struct text *out, struct error *err)
{
	struct elastic check;
	if (text_check(out, err) < 0 || elastic_parse(&check, s->config, out, s->path, false, err) < 0)
		return -1;
	elastic_free(&check);
	return file_write(s->path, out, err);
}

static int add_to_file(const struct saving *s, struct error *err)
{
	struct text file = {0}, out = {0};
	struct elastic elastic = {0};
	struct json json = {0};
	int status = file_read(s->path, MAX_ELASTIC_BYTES, &file, err);
	if (status == 0)
		status = elastic_parse(&elastic, s->config, &file, s->path, false, err);
	if (status == 0)
		status = json_parse(&json, text_chars(&file), file.length, err);
	if (status == 0)
		status = put_in(s, &file, &elastic, &json, &out, err);
	if (status == 0)
		status = write_checked(s, &out, err);
	json_free(&json);
	elastic_free(&elastic);
	text_free(&file);
	text_free(&out);
	return status;
}

int mask_save(const struct budget *budget, const char *name, const char *path,
			  const struct budget *parent, const struct config *config, bool replace,
			  struct error *err)
{
	struct saving saving = {budget, name, path, config, replace};
	if (check_words(budget, name, err) < 0)
		return -1;
	if (file_exists(path))
		return add_to_file(&saving, err);
	struct text out = {0};
	text_add(&out, "{\n \"format\": \"elastic-1\",\n \"budgets\": [\n  ");
	budget_object(parent, parent->name, config, &out);
	text_add(&out, ",\n  ");
	budget_object(budget, name, config, &out);
	text_add(&out, "\n ],\n \"provenance\": \"a mask saved by hand\"\n}\n");
	int status = write_checked(&saving, &out, err);
	text_free(&out);
	return status;
}
