/*
 * Inside core/elastic*.c: reading elastic.json. A reader is what the functions share; each adds the
 * place to the sentence, elastic_parse() the file's name.
 */
#ifndef CORE_ELASTIC_READER_H
#define CORE_ELASTIC_READER_H

#include "base/json.h"
#include "core/elastic.h"

struct reader {
	const struct json *json;
	const struct config *config;
	struct elastic *elastic;
	const char *source; // name of the file, without its folder
	bool lenient;
};

/* The unescaped bytes of a string; -1 for other types and for NUL bytes inside. */
int reader_string(struct reader *r, const struct json_node *node, const char *what,
				  struct text *out, struct error *err);
int reader_expect(const struct json_node *node, enum json_type type, const char *what,
				  struct error *err);
int reader_int(struct reader *r, const struct json_node *node, const char *what, int *out,
			   struct error *err); // 0 and up

/* Every member of an object is handed to one function: its key, its value. 1 = known, 0 = unknown
 * (becomes a notice), -1 = error. */
typedef int member_reader(struct reader *r, const char *key, const struct json_node *value,
						  void *into, struct error *err);
int reader_members(struct reader *r, const struct json_node *object, const char *what,
				   member_reader *read, void *into, struct error *err);

/* The list `budgets`: each checked, the first against the parent, each against the one before it.
 */
int reader_budgets(struct reader *r, const struct json_node *list, struct error *err);

#endif
