/*
 * L2 norms of the weights per channel of an axis: what importance is derived from where nothing was
 * measured. inspect/importance.h says which matrices stand for which axis.
 */
#ifndef INSPECT_NORMS_H
#define INSPECT_NORMS_H

#include "core/model.h"

/* Who wants to know how far it is: called every few thousand rows; non-zero stops. */
struct norms_watch {
	int (*step)(void *user, int64_t done, int64_t total); // rows of matrices
	void *user;
};

/* out: (channels of the axis), zeroed by the caller. layer -1: hidden_size of the whole model.
 * expert: of moe_intermediate_size, -1 = mean over experts. watch may be NULL. An error names a
 * dtype that can't be widened. */
int norms_of(const struct model *model, enum axis axis, int layer, int expert,
			 const struct norms_watch *watch, float *out, struct error *err);

/* Adds the squares of a (rows, columns) tensor's elements, of rows [from, to), up by row and by
 * column; either may be NULL. */
int norms_squares(const struct tensor *t, int64_t from, int64_t to, double *by_row,
				  double *by_column, struct error *err);

#endif
