/*
 * Inside forward(): the activations of a pass, device memory at the widths of the widest slice.
 * Only pass.h (and with it forward.c, tapping.c and pass.c), workspace.c and routing.c include
 * this; everybody else sees an opaque `struct workspace` (core/forward.h).
 */
#ifndef CORE_WORKSPACE_H
#define CORE_WORKSPACE_H

#include "core/forward.h"

/* Values a token, of the widest slice that a workspace has room for. */
struct room {
	int64_t hidden;
	int64_t projected; // in_proj rows; q, k and v side by side; router logits
	int64_t channels;  // after the convolution
	int64_t mixed;     // input of out_proj, o_proj, down
	int64_t top_k;
	int64_t layers;
	int64_t activated; // top_k * ffn
	int64_t vocab;
};

/* Activations of lanes that read together (core/pass.h), device memory; T: their tokens. The pool
 * has those of all lanes of a pass, T = max_tokens: who reads borrows rows. */
struct activations {
	int32_t *ids;         // (T): the tokens; behind the asks
	float *residual;      // h (T, hidden)
	float *normed;        // u (T, hidden)
	float *projected;     // (T, projected)
	float *convolved;     // x | B | C (T, channels)
	float *mixed;         // (T, mixed)
	void *choices;        // what the routers chose in a pass: see chosen_at()
	float *norms;         // (T, top_k), for TAP_EXPERT_NORM
	float *activated;     // (T, top_k, ffn)
	float *logits;        // (T or lanes, vocab)
	struct pick_ask *ask; // the pool's only: (lanes of the pass)
	float *before;        // host: the residual before a mixer (T, hidden), for TAP_MIXER_OUTPUT
};

/* What a lane has for itself. */
struct lane_room {
	struct picked picked; // host
	/* Experts of a routing, packed, device and host: (n_layers, max_tokens, top_k). */
	int32_t *given, *given_rows;
	uint8_t *is_given; // host, (n_layers): the layer has any
	int given_layers;  // layers that these have room for
};

struct workspace {
	const struct backend *backend;
	struct device *device;
	int n_lanes, max_tokens; // of a pass, max_tokens of all lanes together
	bool all_logits;
	struct room room;
	struct activations pool;
	struct lane_room *lanes; // (n_lanes)
	struct pass *pass;       // what a pass needs, core/pass.h
	void *sent;              // host: asks and ids of a pass, for one upload
	uint64_t bytes;
	float *seen;        // host: what taps see
	void *seen_choices; // host: choices_bytes(max_tokens)
	int32_t *seen_ids;  // a layer's, stored indices
};

/* The experts that a pass of n tokens chose in a layer (n, top_k), and their weights behind those
 * of all layers: kept through the pass, so that who wants to see them need not interrupt it. */
int32_t *chosen_at(const struct workspace *w, void *choices, int layer, int n);
float *chosen_weights_at(const struct workspace *w, void *choices, int layer, int n);
size_t choices_bytes(const struct workspace *w, int n);

/* The pool's rows from `row` and lane on, in a pass of n_lanes. */
void workspace_rows(const struct workspace *w, int row, int lane, int n_lanes,
					struct activations *a);

int lane_logits(const struct lane *lane); // how many rows of logits it wants

/* Whether a slice's lane fits: device, widths, experts a token. */
int workspace_check(const struct workspace *w, const struct slice *slice, struct error *err);

/* Translates a lane's routing into its slice's packed experts and uploads it. A layer's rows are
 * min(routing->top_k, experts kept) wide: routing_top_k(). */
int routing_open(struct workspace *w, struct lane_room *room, const struct lane *lane,
				 struct error *err);
int routing_top_k(const struct routing *routing, const struct moe_slice *moe);

/* The layer's part of what routing_open() uploaded, or NULL: the lane routes by itself. */
const int32_t *routing_given(const struct workspace *w, const struct lane_room *room,
							 const struct lane *lane, int layer);

/* Host memory for what taps see: the widest thing that any may. Once; later calls do nothing. */
int workspace_open_taps(struct workspace *w, struct error *err);

#endif
