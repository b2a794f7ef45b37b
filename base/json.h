/*
 * A strict JSON reader for everything that comes from outside (model files, requests). Nodes are a
 * type and a range of the source: numbers keep their spelling, strings their length (\u0000 is
 * data), duplicate keys and ill-formed UTF-8 are errors, and so is anything after the value. Our
 * own output is built with cJSON. The source is borrowed and must outlive the reader.
 *
 * Nodes lie in one array in document order: an object's children are key, value, key, value ...
 */
#ifndef BASE_JSON_H
#define BASE_JSON_H

#include "base/error.h"
#include "base/text.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum json_type {
	JSON_NULL,
	JSON_FALSE,
	JSON_TRUE,
	JSON_NUMBER,
	JSON_STRING,
	JSON_ARRAY,
	JSON_OBJECT
};

struct json_node {
	uint8_t type;        // enum json_type
	bool escaped;        // a string with backslashes in it
	uint32_t n_children; // elements of an array, members of an object
	uint32_t next;       // index of the node after this one's subtree
	size_t start, end;   // the value's range in the source; of a string without its quotes
};

struct json {
	const char *source;
	struct json_node *nodes; // nodes[0] is the root
	uint32_t n_nodes;
};

#define JSON_MAX_DEPTH 128

/* Errors say line, column and what was expected. */
int json_parse(struct json *json, const char *source, size_t length, struct error *err);
void json_free(struct json *json); // takes {0}

/* Walking: first child of an array, or first KEY of an object (json_value gives its value); the
 * next element or key; NULL at the end. parent is needed to know the end. */
const struct json_node *json_first(const struct json *json, const struct json_node *parent);
const struct json_node *json_next(const struct json *json, const struct json_node *parent,
								  const struct json_node *child);
const struct json_node *json_value(const struct json_node *key);

/* The value of a member, NULL if object is NULL, not an object, or has no such key. */
const struct json_node *json_member(const struct json *json, const struct json_node *object,
									const char *key);

bool json_is(const struct json_node *node, enum json_type type); // false for NULL
bool json_equals(const struct json *json, const struct json_node *string, const char *text);

/* Appends the unescaped bytes of a string (or, of any other node, its source text). */
void json_string(const struct json *json, const struct json_node *string, struct text *out);

/* Appends a string with its quotes, escaped; for the few files that are written without cJSON. */
void json_add_string(struct text *out, const char *string);

/* Numbers. -1 and a sentence naming `what` when the node is not a number, not whole (2.0 counts as
 * whole), or does not fit. */
int json_integer(const struct json *json, const struct json_node *node, const char *what,
				 int64_t *value, struct error *err);
int json_number(const struct json *json, const struct json_node *node, const char *what,
				double *value, struct error *err);

#endif
