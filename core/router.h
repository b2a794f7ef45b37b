/*
 * The trained budget router, evaluated: for every budget and axis (and layer, where the axis is
 * hetero) its logits, the probabilities at tau, the chosen width, and where that differs from the
 * budget's own width. logits = W1 . leaky_relu(W0 . onehot(budget), 0.1) * scaler; probabilities =
 * softmax(logits / tau); P(choice) = softmax(logits), which Gumbel noise samples from and which
 * does not depend on tau. normalize: logits are divided by their standard deviation (over the
 * choices of one row, divided by n) before the scaler. Weights are ORIGIN_FILE, everything else
 * ORIGIN_DERIVED from them.
 */
#ifndef CORE_ROUTER_H
#define CORE_ROUTER_H

#include "base/text.h"
#include "core/model.h"

struct router_row {
	int budget;                               // of elastic.budgets; -1 = a mix between two
	int layer;                                // of the parent, -1 = the whole model
	float *logits, *probabilities, *p_choice; // (n_choices)
	int chosen, runner_up;                    // indices into the axis' choices; runner_up -1 = none
	int width;                                // choices[chosen]
	double margin;                            // logits[chosen] - logits[runner_up], 0 without one
	int budget_width; // what the budget keeps there; 0 = the layer is left out, or a mix
	bool disagree;    // budget_width says otherwise (never for a mix or a layer left out)
};

struct router_axis_view {
	const struct router_axis *axis; // name: router_axis_name()
	struct router_row *rows;        // budget by budget, layer by layer
	int n_rows;
	float *values; // backing store
};

struct router_view {
	bool present;
	struct text source; // one sentence: where the widths come from
	float tau, scaler;  // in use
	struct router_axis_view axes[N_AXES + 1];
	int n_axes;
	int n_disagree;
};

/* tau and scaler 0 = the file's. normalize: -1 = as the file says, 0 or 1 for every axis. */
struct router_options {
	float tau, scaler;
	int normalize;
};

/* Without a router file: present false, and source says where widths come from. Wrong shapes are an
 * error that names the tensor and both shapes. options may be NULL. */
int router_open(struct router_view *view, const struct model *model,
				const struct router_options *options, struct error *err);

/* One row an axis and layer for a budget between trained ones: its target (metric as in
 * elastic.json) mixes the one-hots of its two neighbours linearly; beyond the ends the nearest one.
 * A budget whose file names no such target is placed by its own cost (active, total, bytes; not
 * ms). */
int router_open_target(struct router_view *view, const struct model *model, const char *metric,
					   double value, const struct router_options *options, struct error *err);
void router_close(struct router_view *view); // takes {0}

/* The widths that a target's view chose, as a budget (ORIGIN_DERIVED, "router"); the caller frees
 * it. Of a router that chooses the number of layers, importance.layers says which ones go. */
int router_budget(const struct router_view *view, const struct model *model, const char *name,
				  struct budget *budget, struct error *err);

const char *router_axis_name(const struct router_axis *axis); // "hidden_size", ..., "layers"

#endif
