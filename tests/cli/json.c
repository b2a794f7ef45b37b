/*
 * json [-l|-e] [-r] [-n] FILE PATH...: values of a JSON document, for the scripts in this folder.
 * Read with the strict reader, so whatever we write is checked by it: exit 1 and a sentence when
 * FILE is not JSON or has no such PATH.
 *
 *   -l  FILE holds one document a line;  -e  FILE is an array: each element is a document
 *       (either: one line for each, values separated by tabs)
 *   -r  the source text of the values, strings with their quotes;  -n  no newline after them
 *
 * PATH is keys and indices joined by dots (budgets.0.name); "." is the document, a last "#" its
 * number of children, a last "?" its type. FILE - is standard input.
 */
#include "base/json.h"
#include "base/file.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_BYTES ((size_t)1 << 28)

static const char *const types[] = {"null",   "boolean", "boolean", "number",
									"string", "array",   "object"};

static const struct json_node *child(const struct json *json, const struct json_node *node,
									 const char *name)
{
	if (!json_is(node, JSON_ARRAY))
		return json_member(json, node, name);
	char *end;
	unsigned long index = strtoul(name, &end, 10);
	if (end == name || *end != '\0' || index >= node->n_children)
		return NULL;
	const struct json_node *at = json_first(json, node);
	while (index-- > 0)
		at = json_next(json, node, at);
	return at;
}

static int print(const struct json *json, const struct json_node *root, const char *path, bool raw,
				 struct error *err)
{
	char names[256];
	const struct json_node *node = root;
	snprintf(names, sizeof names, "%s", path);
	for (char *rest = names, *name; (name = strsep(&rest, ".")) != NULL;) {
		if (name[0] == '\0')
			continue;
		if (strcmp(name, "#") == 0) {
			printf("%u", node->n_children);
			return 0;
		}
		if (strcmp(name, "?") == 0) {
			fputs(types[node->type], stdout);
			return 0;
		}
		node = child(json, node, name);
		if (node == NULL)
			return fail(err, "no %s", path);
	}
	int quote = raw && json_is(node, JSON_STRING);
	struct text value = {0};
	if (raw)
		text_append(&value, json->source + node->start - quote,
					node->end - node->start + 2 * (size_t)quote);
	else
		json_string(json, node, &value);
	fwrite(text_chars(&value), 1, value.length, stdout);
	text_free(&value);
	return 0;
}

struct request {
	bool elements, lines, raw, newline;
	char **paths;
	int n_paths;
};

static int document(const struct request *request, const struct json *json,
					const struct json_node *root, struct error *err)
{
	char between = request->elements || request->lines ? '\t' : '\n';
	for (int i = 0; i < request->n_paths; i++) {
		if (i > 0)
			putchar(between);
		if (print(json, root, request->paths[i], request->raw, err) < 0)
			return -1;
	}
	if (request->newline && request->n_paths > 0)
		putchar('\n');
	return 0;
}

static int one(const struct request *request, const char *source, size_t length, struct error *err)
{
	struct json json = {0};
	int result = json_parse(&json, source, length, err);
	if (result == 0 && !request->elements) {
		result = document(request, &json, json.nodes, err);
	} else if (result == 0) {
		const struct json_node *root = json.nodes;
		for (const struct json_node *at = json_first(&json, root); at != NULL && result == 0;
			 at = json_next(&json, root, at))
			result = document(request, &json, at, err);
	}
	json_free(&json);
	return result;
}

static int lines(const struct request *request, const struct text *file, struct error *err)
{
	int number = 1;
	for (size_t at = 0; at < file->length; number++) {
		const char *line = text_chars(file) + at, *end = memchr(line, '\n', file->length - at);
		if (end == NULL)
			return fail(err, "line %d: no newline at its end", number);
		if (one(request, line, (size_t)(end - line), err) < 0)
			return fail_in(err, "line %d", number);
		at += (size_t)(end - line) + 1;
	}
	return 0;
}

int main(int argc, char **argv)
{
	struct request request = {.newline = true};
	for (int c; (c = getopt(argc, argv, "lern")) != -1;) {
		request.lines |= c == 'l';
		request.elements |= c == 'e';
		request.raw |= c == 'r';
		request.newline &= c != 'n';
		if (c == '?')
			return 2;
	}
	if (optind >= argc)
		return 2;
	const char *path = strcmp(argv[optind], "-") == 0 ? "/dev/stdin" : argv[optind];
	request.paths = argv + optind + 1;
	request.n_paths = argc - optind - 1;
	struct error err = {0};
	struct text file = {0};
	int result = file_read(path, MAX_BYTES, &file, &err);
	if (result == 0)
		result = request.lines ? lines(&request, &file, &err)
							   : one(&request, text_chars(&file), file.length, &err);
	if (result < 0)
		fprintf(stderr, "json: %s: %s\n", path, err.text);
	text_free(&file);
	return result < 0;
}
