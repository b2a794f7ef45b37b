/*
 * elastic.json: budgets, policy, where router and importance are (spec elastic-files.md). Without
 * one, a parent with the dimensions of a known family gets the built-in table, published (12b) or
 * estimated (23b); any other parent has itself as its only budget, and the user types widths.
 */
#ifndef CORE_ELASTIC_H
#define CORE_ELASTIC_H

#include "base/text.h"
#include "core/budget.h"

#define MAX_BUDGETS 32

struct router_axis {
	enum axis axis;
	bool layers; // the axis "layers" (depth) instead of `axis`
	int *choices;
	int n_choices;
	bool hetero, normalize;
};

struct elastic {
	struct budget budgets[MAX_BUDGETS]; // largest first; the first is the parent
	int n_budgets;
	int think, answer;        // policy: indices, -1 = none
	bool carry;               // default handoff; else reprefill
	bool has_handoff;         // the file named it
	float temperature, top_p; // sampling; -1 = not given
	char *router_file;        // NULL = none
	float router_tau, router_scaler;
	int router_budgets[MAX_BUDGETS], n_router_budgets; // order of the one-hot, indices into budgets
	struct router_axis router_axes[N_AXES + 1];
	int n_router_axes;
	char *importance_file; // NULL = none
	int64_t importance_samples, importance_tokens;
	int importance_sorted; // 1, 0, -1 = not said
	char *provenance;      // NULL = none
	struct text notices;   // a line each: unknown keys, violations opened with --lenient
};

/* From DIR/elastic.json, or from `budgets_file` when not NULL, or built in. lenient: budgets that
 * are not nested become notices instead of an error. */
int elastic_read(struct elastic *elastic, const struct config *config, const char *directory,
				 const char *budgets_file, bool lenient, struct error *err);
void elastic_init(struct elastic *elastic);
void elastic_free(struct elastic *elastic); // takes {0}

/* elastic_read from text, for tests. source: the name that errors and budgets carry. */
int elastic_parse(struct elastic *elastic, const struct config *config, const struct text *text,
				  const char *source, bool lenient, struct error *err);

/* Index of the budget of that name (exact, then unique case-blind), or -1. */
int elastic_find(const struct elastic *elastic, const char *name);

/* The name of the budget that runs where none was asked for: the policy's where the same one thinks
 * and answers, else the parent. */
const char *elastic_default(const struct elastic *elastic);

/* The mark of a budget in strips and tables: the first letter of its name, or its rank (1 =
 * largest) when names start with a digit or collide. */
char elastic_mark(const struct elastic *elastic, int budget);

#endif
