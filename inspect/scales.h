/*
 * What one scale for all budgets costs the small ones: in a nested checkpoint a matrix' scale comes
 * from the parent's largest number (nested), a child quantised by itself would take its own slice's
 * (own). For every matrix that the releases quantise and every budget: how much smaller the slice's
 * largest number is, and the relative root-mean-square error of both scales, in FP8 and NVFP4.
 *
 * FP8 loses little: its grid is finer near zero until numbers become subnormal. NVFP4's E4M3 block
 * scales lose when they become subnormal.
 */
#ifndef INSPECT_SCALES_H
#define INSPECT_SCALES_H

#include "core/model.h"
#include "inspect/modules.h"

enum scales_format { SCALES_FP8, SCALES_NVFP4, N_SCALES_FORMATS };

struct scales_error {
	double nested, own; // ||w - q(w)|| / ||w||; NAN = not known (the parent is quantised already)
};

struct scales_row {
	enum module_kind kind;
	int layer, expert; // stored; -1 = none
	int budget;
	float parent, slice; // largest magnitudes
	struct scales_error error[N_SCALES_FORMATS];
	double subnormal_nested, subnormal_own; // NVFP4 blocks whose scale is below 2^-6 (share); NAN
};

struct scales {
	struct scales_row *rows; // by budget, then in the model's order
	size_t n, capacity;
	bool stored; // numbers are decoded from a quantised checkpoint: no errors
};

#define SCALES_ROWS 256 // of a matrix that errors are taken from, evenly spread

/* Budgets: the model's, then `extra` (NULL = none), whose `budget` is n_budgets. step: matrices
 * looked at; non-zero stops. May be NULL. */
int scales_open(struct scales *scales, const struct model *model, const struct budget *extra,
				int (*step)(void *user, int done, int total), void *user, struct error *err);
void scales_close(struct scales *scales); // takes {0}

/* Rows of one kind and budget added up. */
struct scales_sum {
	size_t n;
	double ratio, least_ratio;                   // slice / parent: mean, least
	struct scales_error error[N_SCALES_FORMATS]; // root mean square over the matrices
	double subnormal_nested, subnormal_own;      // means
};
bool scales_sum(const struct scales *scales, enum module_kind kind, int budget,
				struct scales_sum *out); // false: there are none

#endif
