/*
 * Why a child is not the budget: what its tensors are instead, one sentence for tensors of a kind
 * (layers and experts are numbered by *). Rows and columns are known again by their bytes:
 * permuted, shifted, taken from the other end, heads cut over all groups instead of inside each,
 * experts in another order, numbers scaled, a width that is off.
 */
#ifndef EXPORT_EXPLAIN_H
#define EXPORT_EXPLAIN_H

#include "export/verify.h"

enum cause {
	CAUSE_CONFIG,
	CAUSE_MISSING,
	CAUSE_EXTRA,
	CAUSE_DTYPE,
	CAUSE_WIDTH,        // as wide as another number of channels
	CAUSE_OTHER_AXIS,   // cut along the other axis
	CAUSE_GLOBAL_HEADS, // the first heads of all, not of every group
	CAUSE_OTHER_END,    // the last channels, not the first
	CAUSE_EXPERT,       // another expert's
	CAUSE_SHIFTED,      // rows or columns from another place on
	CAUSE_PERMUTED,     // rows or columns in another order
	CAUSE_MIXED,        // the same numbers in another order
	CAUSE_SCALED,       // all numbers times one factor
	CAUSE_ROWS_SCALED,  // some rows times a factor
	CAUSE_NUMBERS,      // other numbers
	N_CAUSES
};
const char *cause_name(enum cause cause); // "permuted", ...

struct explanation {
	enum cause cause;
	char kind[160];     // of tensors: "backbone.layers.*.mixer.in_proj.weight"
	char sentence[320]; // about the first of them
	char first[160];
	size_t n; // tensors
};

struct explanations {
	struct explanation *list; // in order of the differences
	size_t n, capacity;
};

int explain(struct explanations *out, const struct verify *verify, struct error *err);
void explanations_free(struct explanations *explanations); // takes {0}

#endif
