/*
 * Is the checkpoint really sorted? The stored order of an axis against scores, over all layers (and
 * experts) that have it. Heads count inside their groups.
 */
#ifndef INSPECT_SORTED_H
#define INSPECT_SORTED_H

#include "inspect/importance.h"

struct sorted {
	enum axis axis;
	enum origin origin;
	int n_orders;              // layers, or experts of layers; 0 = nobody knows
	int n_descending;          // without an inversion
	double mean, least;        // of Spearman, where it is defined; else NAN
	int least_layer;           // where it is least
	int64_t inversions, pairs; // added up
};

/* hidden_size: the model's one order. scores NULL = the checkpoint's own. Reads weight norms where
 * there are neither. */
int sorted_axis(struct sorted *out, const struct model *model, enum axis axis,
				const struct scores *scores, struct error *err);

#endif
