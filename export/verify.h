/*
 * The proof that a child is a budget of its parent: every tensor that the budget keeps is there,
 * under its name, of its dtype and shape, and equal bit for bit to the parent's slice; there are no
 * others; config.json says the budget's numbers. Streams through both mappings.
 */
#ifndef EXPORT_VERIFY_H
#define EXPORT_VERIFY_H

#include "export/cut.h"

enum difference_kind {
	DIFFERENCE_CONFIG,  // config.json says another number
	DIFFERENCE_MISSING, // no tensor of that name
	DIFFERENCE_EXTRA,   // a tensor that the budget does not have
	DIFFERENCE_DTYPE,
	DIFFERENCE_SHAPE,
	DIFFERENCE_VALUE
};

struct difference {
	enum difference_kind kind;
	char name[160];        // the tensor in the child, or the key
	const struct cut *cut; // what the tensor ought to be; NULL where there is none
	int64_t row, column;   // DIFFERENCE_VALUE: the first one, in the child
	double parent, child;  // both numbers there, as stored (scales not applied); of a key
	char sentence[400];    // says it all
};

struct verify {
	const struct model *parent;
	struct checkpoint child;
	struct config config; // the child's
	struct budget budget;
	bool named; // the budget was given or is one of the parent's; else its widths are the child's
	struct cuts cuts;
	size_t n_equal;
	uint64_t bytes;                 // compared
	struct difference *differences; // the first of every tensor, in the parent's order
	size_t n_differences, capacity;
};

/* budget: a name or widths; NULL = the one that the child's config.json describes. */
int verify_open(struct verify *verify, const struct model *parent, const char *child,
				const char *budget, struct error *err);

/* Fills `differences`; finding some is no error. step as in child_plan. */
int verify_run(struct verify *verify, int (*step)(void *user, uint64_t done, uint64_t total),
			   void *user, struct error *err);
void verify_close(struct verify *verify); // takes {0}

/* Element i of n stored bytes: a number as stored. NVFP4 codes are two in a byte. */
double stored_number(enum dtype dtype, bool codes, const void *bytes, int64_t i);

/* Whether a cut's bytes are pairs of E2M1 codes. */
bool cut_has_codes(const struct cut *cut);

#endif
