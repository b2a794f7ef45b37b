/*
 * Everything read from disk, opened once and immutable afterwards, so that any thread may read it.
 * Counted: the engine, the screen and a job may each hold it.
 */
#ifndef CORE_MODEL_H
#define CORE_MODEL_H

#include "core/checkpoint.h"
#include "core/config.h"
#include "core/declared.h"
#include "core/elastic.h"
#include "core/weights.h"

struct tokenizer;
struct id_list;

struct model {
	char *directory;
	char *name; // last part of the directory, "demo" for the bundled one
	struct checkpoint checkpoint;
	struct config config;
	struct weights weights;
	struct declared declared; // of its quantisation
	struct elastic elastic;
	struct tokenizer *tokenizer;          // NULL: no tokenizer.json; tokens are ids then
	struct checkpoint router, importance; // n_tensors 0 = no such file
	char hash[17];
	struct text notices; // a line each for the status line: unknown template, unknown keys, ...
	int references;
};

struct model_options {
	const char *budgets_file; // NULL = the checkpoint's own
	bool lenient;
};

/* NULL and err on failure. Released with model_release. */
struct model *model_open(const char *directory, const struct model_options *options,
						 struct error *err);
struct model *model_retain(struct model *model);
void model_release(struct model *model); // takes NULL; the last one closes

/* Appends the ids of a text, without special tokens. Without a tokenizer the text is a line of ids
 * of the vocabulary ("1 2 3" or "1,2,3"); the error says so. */
int model_encode(const struct model *model, const char *text, size_t length, struct id_list *out,
				 struct error *err);

/* A budget by name, widths typed (budget_parse), a target ("active=2.8B", core/target.h), or a
 * mask: "BUDGET,TERMS", the terms applied to a budget of the file (budget_edit). Into a copy that
 * the caller frees; its name is the text (budget_name_of). The error lists the names that exist. */
int model_budget(const struct model *model, const char *text, struct budget *out,
				 struct error *err);

#endif
