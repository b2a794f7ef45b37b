/*
 * Which differences between two budgets matter: every unit in which SMALL differs from LARGE (one
 * axis of one layer, a layer left out, top-k, hidden_size as a whole) is cut alone, LARGE
 * otherwise, and restored alone, SMALL otherwise; each against LARGE on one text. The sums against
 * the joint KL(LARGE || SMALL) say how far from additive the cuts are.
 */
#ifndef INSPECT_SENSITIVITY_H
#define INSPECT_SENSITIVITY_H

#include "core/mask.h"
#include "inspect/trials.h"

struct sensitivity_row {
	int layer, kind;      // as in struct mask_unit
	char change[48];      // "96 -> 64", "runs -> left out"
	struct trial cut;     // LARGE with only this cut; kl NAN: it cannot stand alone
	struct trial without; // SMALL with this restored
	double regained;      // KL(LARGE || SMALL) less that of `without`
};

struct sensitivity {
	struct trial large, joint;    // joint: SMALL against LARGE
	struct sensitivity_row *rows; // falling by the cut's KL
	int n;
	double sum_cut, sum_regained; // over the rows that have one
};

/* plan->base is LARGE. Budgets that are the same are an error. On -1 nothing is left. */
int sensitivity_run(struct sensitivity *out, const struct trials_plan *plan,
					const struct budget *small, struct error *err);
void sensitivity_free(struct sensitivity *out); // takes {0}

#endif
