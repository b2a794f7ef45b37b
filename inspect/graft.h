/*
 * Two plans of one shape, a budget of the parent and a child that should be its copy, and a third
 * that takes each weight from one or the other: which of the child's weights make the difference.
 */
#ifndef INSPECT_GRAFT_H
#define INSPECT_GRAFT_H

#include "core/slice.h"

struct graft_part {
	int layer; // -1 = embeddings, norm_f, lm_head
	int which; // enum in graft.c
	int expert;
};

struct graft {
	const struct slice *a, *b; // borrowed, on one device
	struct slice slice;        // a with the parts that were taken; borrows from both
	struct graft_part *parts;  // in the order in which a token meets them
	int n_parts;
	size_t capacity;
};

/* Fails with a sentence naming the first weight whose shape differs. */
int graft_open(struct graft *graft, const struct slice *a, const struct slice *b,
			   struct error *err);
void graft_close(struct graft *graft); // takes {0}

/* take (n_parts): 1 = from b. */
void graft_take(struct graft *graft, const uint8_t *take);

/* "layer 4 experts.3.up_proj" */
void graft_name(const struct graft_part *part, char out[64]);

#endif
