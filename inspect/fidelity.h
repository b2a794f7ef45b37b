/*
 * Teacher-forced comparison: two to FIDELITY_SIDES budgets read the same tokens side by side, and
 * at every position their predictions are held against the first one's (A, the base). Where the
 * difference comes from, layer by layer, when asked for.
 *
 * Budgets of one checkpoint are lanes of one pass, so that its weights are read once. Texts longer
 * than the window are read in windows, each from an empty state; what is kept of a position is a
 * few numbers, so memory is bounded by a chunk of logits a budget, however long the text is.
 *
 * For commands, panes and background jobs: no globals, nothing printed, cancelled through step().
 */
#ifndef INSPECT_FIDELITY_H
#define INSPECT_FIDELITY_H

#include "core/model.h"
#include "core/slice.h"
#include "inspect/divergence.h"

#define FIDELITY_SIDES 8 // beside the base, curves and sensitivities try seven budgets at once

struct fidelity_plan {
	/* Borrowed; all on one device, vocabularies of one size. [0] is A. They may belong to different
	 * checkpoints. */
	const struct slice *sides[FIDELITY_SIDES];
	int n_sides;
	const int32_t *ids;
	int n;
	int first, end; // positions [first, end) are compared; end 0 = n
	int window;     // tokens read from one empty state; 0 = all
	enum dtype kv_dtype;
	bool layers;    // where the difference comes from
	bool lens;      // and what the logit lens says of every layer
	int route_from; // every other side runs a second time with this one's experts; -1 = no
	bool unlike[FIDELITY_SIDES]; // a side of another shape: none of the three for it
	/* Called between chunks; non-zero stops with an error. May be NULL. */
	int (*step)(void *user, int done, int total);
	void *user;
};

/*
 * What is looked at before each layer i (n_layers = before norm_f), of one position:
 * distance        ||a - q|| / ||a|| of the residuals of A and Q on the channels that both keep
 * leak            share of A's residual energy (sum of squares) on channels that Q lacks
 * orphan_mass     share of the gate weights of A's chosen experts that belongs to experts Q lacks
 * expert_overlap  share of A's chosen experts that Q chose too
 * The last two are of MoE layers that A runs; a layer that Q leaves out counts as all experts
 * lacking.
 */
enum fidelity_metric {
	FIDELITY_DISTANCE,
	FIDELITY_LEAK,
	FIDELITY_ORPHAN_MASS,
	FIDELITY_OVERLAP,
	N_FIDELITY_METRICS
};
const char *fidelity_metric_key(enum fidelity_metric metric);

/* NAN where a number means nothing or was not asked for. Of A only lens_top and lens_kl. */
struct fidelity_layer {
	double mean[N_FIDELITY_METRICS];        // over the positions
	double correlation[N_FIDELITY_METRICS]; // with KL(A || Q) over the positions
	/* lm_head RMSNorm(h; norm_f) of the residual before this layer: */
	double lens_top;   // share of positions where its top-1 is the side's own final one
	double lens_kl;    // mean KL(final || lens) of the side
	double apart_same; // share of positions where A's lens here has the same top-1
	double apart_kl;   // mean KL(A's lens || the side's lens)
};

struct fidelity_side {
	struct divergence_position *positions; // (n)
	struct divergence_summary summary;     // against A; of A itself: against itself
	struct fidelity_layer *layers;         // (n_layers + 1), NULL = not asked for
	/* With route_from's experts; NAN without. share = 1 - KL(A || routed) / KL(A || Q): how much of
	 * the difference is routing; below 0 when other experts make it worse. dropped: share of
	 * choices that the side lacks, so they counted for nothing. */
	struct estimate routed_kl;
	double routed_share, routed_dropped;
};

struct fidelity {
	int first, n; // positions compared: [first, first + n)
	int n_sides, n_layers, vocab;
	struct fidelity_side sides[FIDELITY_SIDES];
};

/* On -1 nothing is left. Different vocabularies are refused with both sizes, layers of models of
 * different shape when layers, lens or route_from ask for them. */
int fidelity_run(struct fidelity *fidelity, const struct fidelity_plan *plan, struct error *err);
void fidelity_free(struct fidelity *fidelity); // takes {0}

/* 0 if ids mean the same in both: equally many, and, where both have a tokenizer, with equal bytes.
 * The error says what differs. */
int fidelity_same_vocabulary(const struct model *a, const struct model *b, struct error *err);

/* 0 if the layers of budget q of the second can be held against those of budget a of the first:
 * the same kinds of layers, stored channels and experts, whatever the files. */
int fidelity_same_shape(const struct config *x, const struct config *y, const char *a,
						const char *q, struct error *err);

/* Positions (indices 0..n-1) by falling KL of a side; the first `worst` of them into out. Returns
 * how many. */
int fidelity_worst(const struct fidelity *fidelity, int side, int worst, int *out,
				   struct error *err);

#endif
