#include "export/nested.h"

#include "base/file.h"
#include "base/json.h"
#include <stdlib.h>
#include <string.h>

#define MAX_ELASTIC_BYTES ((size_t)16 << 20)

/* The members of `object` but "file", whose value is a string: with one comma less. */
static void add_without_file(const struct json *json, const struct json_node *object,
							 struct text *out)
{
	const struct json_node *before = NULL, *key = json_first(json, object);
	while (!json_equals(json, key, "file")) {
		before = json_value(key);
		key = json_next(json, object, key);
	}
	const struct json_node *next = json_next(json, object, key);
	size_t from = key->start - 1, to = json_value(key)->end + 1; // quotes are outside of a node
	if (next)
		to = next->start - 1;
	else if (before)
		from = before->end + (size_t)json_is(before, JSON_STRING);
	text_append(out, json->source, from);
	text_add(out, json->source + to);
}

static int forget_file(struct text *elastic, const char *section, struct error *err)
{
	struct json json = {0};
	struct text out = {0};
	if (json_parse(&json, text_chars(elastic), elastic->length, err) != 0)
		return -1;
	const struct json_node *object = json_member(&json, &json.nodes[0], section);
	if (json_member(&json, object, "file"))
		add_without_file(&json, object, &out);
	else
		text_add(&out, text_chars(elastic));
	json_free(&json);
	text_free(elastic);
	*elastic = out;
	return text_check(elastic, err);
}

/* Only from the directory itself: a path leads elsewhere in the target. */
static int copy_named(const struct staging *staging, const char *directory, const char *name,
					  bool *copied, struct error *err)
{
	*copied = false;
	if (strchr(name, '/'))
		return 0;
	char *path = file_join(directory, name, err);
	if (!path)
		return -1;
	int result = 0;
	if (file_exists(path)) {
		result = staging_copy(staging, directory, name, err);
		*copied = result == 0;
	}
	free(path);
	return result;
}

static int write_named(const struct staging *staging, const struct model *model,
					   struct text *elastic, int *n_files, struct error *err)
{
	const char *names[] = {model->elastic.router_file, model->elastic.importance_file};
	const char *sections[] = {"router", "importance"};
	for (size_t i = 0; i < 2; i++) {
		bool copied;
		if (!names[i])
			continue;
		if (copy_named(staging, model->directory, names[i], &copied, err) != 0 ||
			(!copied && forget_file(elastic, sections[i], err) != 0))
			return -1;
		*n_files += copied;
	}
	*n_files += 1;
	return staging_write(staging, "elastic.json", text_chars(elastic), elastic->length, err);
}

int nested_write(const struct staging *staging, const struct model *model, const char *budgets_file,
				 int *n_files, struct error *err)
{
	struct text elastic = {0};
	char *own = budgets_file ? NULL : file_join(model->directory, "elastic.json", err);
	const char *path = budgets_file ? budgets_file : own;
	int result = path ? 0 : -1;
	if (path && (budgets_file || file_exists(path))) {
		result = file_read(path, MAX_ELASTIC_BYTES, &elastic, err);
		if (result == 0)
			result = write_named(staging, model, &elastic, n_files, err);
	}
	text_free(&elastic);
	free(own);
	return result;
}
