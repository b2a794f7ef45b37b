/*
 * How far orders of the same channels agree: as stored, by the norms of the weights, by the scores
 * of the checkpoint's file and of files that were measured; of experts by REAP and by count, which
 * are two orders of each source. Where two files were measured on different texts, their cell says
 * how much the order depends on the text.
 */
#ifndef INSPECT_AGREEMENT_H
#define INSPECT_AGREEMENT_H

#include "inspect/importance.h"

#define AGREEMENT_MAX (2 + 2 * (1 + SCORES_MAX))

struct agreement_plan {
	enum axis axis; // a layer's, or hidden_size of the model; not N_AXES
	int layer;
	int expert; // of moe_intermediate_size, -1 = the mean over experts
	const struct scores *const *measured;
	int n_measured;                       // at most SCORES_MAX
	bool weights;                         // norms too: these are read from all of the axis' weights
	const struct importance_curve *norms; // instead of reading them; NULL = there are none yet
	const struct norms_watch *watch;      // while norms are read; may be NULL
};

struct agreement {
	int n;
	char name[AGREEMENT_MAX][SCORES_NAME_BYTES + 8]; // "stored", "weights", "REAP", "chat.txt", ...
	double rho[AGREEMENT_MAX][AGREEMENT_MAX];        // Spearman, mean over groups; NAN = undefined
	double inverted[AGREEMENT_MAX]; // share of pairs stored against this order, 0..1
};

int agreement_of(struct agreement *out, const struct model *model,
				 const struct agreement_plan *plan, struct error *err);

/* The index of an order, or -1. */
int agreement_find(const struct agreement *agreement, const char *name);

#endif
