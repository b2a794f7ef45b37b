/*
 * Inside forward(): the lanes of a pass on their way through the layers. Only forward.c and
 * tapping.c include this.
 */
#ifndef CORE_PASS_H
#define CORE_PASS_H

#include "core/workspace.h"

/* A lane on its way through the layers. */
struct reader {
	struct lane *lane;
	int index; // in the batch
	const struct slice *slice;
	struct sequence *sequence;
	struct activations *a;
	int n; // tokens
};

/* The lanes of one model; `at` are those that run the current layer. */
struct pass {
	const struct backend *b;
	struct device *device;
	struct workspace *workspace;
	const struct config *config;
	struct reader readers[MAX_LANES];
	int n_readers;
	struct reader *at[MAX_LANES];
	int n;
	int layer;
};

#endif
