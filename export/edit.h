/*
 * Changes of a JSON file by ranges of its text: what is not changed keeps its order, its spelling
 * and its white space (cJSON would turn 1e-05 into 0.00001 and 2.0 into 2).
 */
#ifndef EXPORT_EDIT_H
#define EXPORT_EDIT_H

#include "base/json.h"

struct edit {
	size_t start, end; // of the source; ascending, disjoint
	char *text;
};

struct edits {
	struct text source, parsed; // parsed: as long, numbers that JSON lacks spelled otherwise
	struct json json;           // of `parsed`
	struct edit *list;
	size_t n, capacity;
};

int edits_open(struct edits *edits, const char *path, struct error *err);
void edits_free(struct edits *edits); // takes {0}

/* The value of a member of the root becomes this JSON text; false where there is no such member. */
int edits_set(struct edits *edits, const char *key, const char *json, struct error *err);

/* A list or an object keeps the members for which keep() is true. keep() is called with every
 * element, of an object with every key; what it appends to `text` stands instead of the element or
 * key (nothing appended: unchanged). */
int edits_filter(struct edits *edits, const struct json_node *list,
				 bool (*keep)(void *user, int i, const char *string, struct text *text), void *user,
				 struct error *err);

/* The text with all changes made. */
int edits_apply(struct edits *edits, struct text *out, struct error *err);

#endif
