#include "export/edit.h"

#include "base/file.h"
#include "base/memory.h"
#include "core/config.h"
#include <stdlib.h>
#include <string.h>

#define MAX_BYTES ((size_t)64 << 20)

int edits_open(struct edits *edits, const char *path, struct error *err)
{
	*edits = (struct edits){0};
	if (file_read(path, MAX_BYTES, &edits->source, err) != 0)
		return -1;
	text_append(&edits->parsed, text_chars(&edits->source), edits->source.length);
	int result = text_check(&edits->parsed, err);
	if (result == 0)
		config_spell_infinity(edits->parsed.data, edits->parsed.length);
	if (result == 0)
		result = json_parse(&edits->json, edits->parsed.data, edits->parsed.length, err);
	if (result == 0)
		return 0;
	edits_free(edits);
	return fail_in(err, "%s", path);
}

void edits_free(struct edits *edits)
{
	for (size_t i = 0; i < edits->n; i++)
		free(edits->list[i].text);
	free(edits->list);
	json_free(&edits->json);
	text_free(&edits->source);
	text_free(&edits->parsed);
	*edits = (struct edits){0};
}

/* Where the value's text begins and ends, a string's quotes included. */
static size_t from_of(const struct json_node *node)
{
	return node->start - json_is(node, JSON_STRING);
}

static size_t to_of(const struct json_node *node)
{
	return node->end + json_is(node, JSON_STRING);
}

/* Takes over the text. */
static int add(struct edits *edits, size_t start, size_t end, struct text *text, struct error *err)
{
	if (text_check(text, err) != 0 ||
		mem_grow(&edits->list, &edits->capacity, edits->n + 1, sizeof *edits->list, err) != 0) {
		text_free(text);
		return -1;
	}
	text_append(text, "", 0);
	edits->list[edits->n++] = (struct edit){start, end, text_take(text)};
	return 0;
}

int edits_set(struct edits *edits, const char *key, const char *json, struct error *err)
{
	const struct json_node *node = json_member(&edits->json, edits->json.nodes, key);
	struct text text = {0};
	if (!node)
		return 0;
	text_add(&text, json);
	return add(edits, from_of(node), to_of(node), &text, err);
}

int edits_filter(struct edits *edits, const struct json_node *list,
				 bool (*keep)(void *user, int i, const char *string, struct text *text), void *user,
				 struct error *err)
{
	const struct json *json = &edits->json;
	const char *source = text_chars(&edits->source);
	bool object = json_is(list, JSON_OBJECT);
	struct text out = {0}, string = {0}, changed = {0};
	const struct json_node *first = json_first(json, list), *last = NULL;
	size_t gap = 0, gap_length = 0, at_end = list->start + 1; // between the first two members
	int i = 0, n = 0;
	for (const struct json_node *node = first; node; node = json_next(json, list, node), i++) {
		const struct json_node *value = object ? json_value(node) : node;
		if (i == 1) {
			gap = at_end;
			gap_length = from_of(node) - at_end;
		}
		at_end = to_of(value);
		text_clear(&string);
		text_clear(&changed);
		json_string(json, node, &string);
		last = value;
		if (!keep(user, i, text_chars(&string), &changed))
			continue;
		if (n++ == 0)
			text_append(&out, source + list->start, from_of(first) - list->start);
		else if (gap_length)
			text_append(&out, source + gap, gap_length);
		if (changed.length)
			json_add_string(&out, text_chars(&changed));
		else
			text_append(&out, source + from_of(node), to_of(node) - from_of(node));
		if (object)
			text_append(&out, source + to_of(node), to_of(value) - to_of(node));
	}
	if (n == 0)
		text_add(&out, object ? "{}" : "[]");
	else
		text_append(&out, source + to_of(last), list->end - to_of(last));
	text_free(&string);
	text_free(&changed);
	return add(edits, list->start, list->end, &out, err);
}

static int by_start(const void *a, const void *b)
{
	const struct edit *x = a, *y = b;
	return x->start < y->start ? -1 : x->start > y->start;
}

int edits_apply(struct edits *edits, struct text *out, struct error *err)
{
	const char *source = text_chars(&edits->source);
	size_t at = 0;
	if (edits->n)
		qsort(edits->list, edits->n, sizeof *edits->list, by_start);
	for (size_t i = 0; i < edits->n; i++) {
		text_append(out, source + at, edits->list[i].start - at);
		text_add(out, edits->list[i].text);
		at = edits->list[i].end;
	}
	text_append(out, source + at, edits->source.length - at);
	return text_check(out, err);
}
