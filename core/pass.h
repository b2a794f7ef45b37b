/*
 * Inside forward(): who reads with whom, and the arguments of the operations. Lanes whose slice is
 * the same become one reader: their tokens are rows of the same products, one lane's behind the
 * other's, so that a weight is read once for all of them, whatever the device. What a lane keeps
 * for itself (convolution, SSM state, attention, the pick) is an operation a lane. A lane with taps
 * or a routing reads alone.
 *
 * Only forward.c, tapping.c, pass.c and workspace.c include this.
 */
#ifndef CORE_PASS_H
#define CORE_PASS_H

#include "core/workspace.h"

/* A lane in its reader. */
struct member {
	struct lane *lane;
	struct sequence *sequence;
	int index;            // in the batch
	int row, n;           // its first row of the reader's, its tokens
	struct pick_ask *ask; // device
};

/* Lanes of one slice on their way through the layers. lane, index and sequence are those of the
 * first one, which is the only one where it has taps or a routing. */
struct reader {
	const struct slice *slice;
	struct member *members;
	int n_members;
	int n; // tokens of all members
	struct activations *a;
	struct lane *lane;
	int index;
	struct sequence *sequence;
};

/* Of a layer's operations: an array for each that a layer may have, as long as a pass has lanes. */
struct arguments {
	struct embed_op *embed;
	struct norm_op *norm;
	struct linear_op *linear[4];
	struct conv_op *conv;
	struct ssm_op *ssm;
	struct gated_norm_op *gated_norm;
	struct attention_op *attention;
	struct route_op *route;
	struct experts_op *experts;
	struct pick_op *pick;
	struct reader **sharing; // who has a shared expert
};

struct pass {
	const struct backend *b;
	struct device *device;
	struct workspace *workspace;
	struct arguments args;
	struct reader *readers;          // all of them, in the order of their first lanes
	struct member *members;          // of all readers, one reader's behind the other's
	struct activations *activations; // of each reader
	int *reader_of;                  // (n_lanes)
	int n_readers, n_members;
	/* The model that runs: its readers, and of them those that keep the current layer. */
	const struct config *config;
	struct reader **model, **at;
	int n_model, n;
	int layer;
};

struct pass *pass_open(struct workspace *workspace, struct error *err); // its n_lanes
void pass_close(struct pass *pass);                                     // takes NULL

/* Forms the readers, gives each its rows of the pool and every lane its logits (lane->out). */
void pass_arrange(struct pass *pass, struct lane *lanes, int n_lanes);

#endif
