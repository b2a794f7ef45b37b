/*
 * What each budget keeps, layer by layer and axis by axis, what it costs, and whether each budget
 * lies inside the one before it. Units: channels, parameters, bytes. Origins are the budgets' own;
 * costs are derived from shapes and dtypes in the file.
 */
#ifndef INSPECT_NESTING_H
#define INSPECT_NESTING_H

#include "base/text.h"
#include "core/model.h"
#include "core/slice.h"
#include "inspect/modules.h"

struct nesting_row {
	enum axis axis;
	int layer;                // of the parent; -1 = hidden_size, one number for the model
	int parent;               // stored channels
	int width[MAX_BUDGETS];   // kept; 0 = the budget leaves the layer out
	bool runs[MAX_BUDGETS];   // kept by explicit runs that are not the plain leading part
	bool broken[MAX_BUDGETS]; // keeps what its container does not
};

struct nesting {
	int n_budgets;
	struct budget budgets[MAX_BUDGETS]; // copies, in the order given
	struct nesting_row *rows; // hidden_size, then layer by layer in the order of enum axis
	int n_rows;
	struct slice_cost cost[MAX_BUDGETS];
	struct precision_cost costs[MAX_BUDGETS][N_PRECISIONS];
	struct modules modules; // of the first budget
	/* Budget i against budget container[i]: the one before it (0 has none, -1); the extra one,
	 * which stands outside the nest, against the smallest of the model's that holds it. */
	int container[MAX_BUDGETS];
	bool contained[MAX_BUDGETS]; // on every axis and layer
	int n_violations;
	struct text violations;  // a line each, "" = the proof holds
	uint64_t file_bytes;     // tensors of this checkpoint
	uint64_t separate_bytes; // of one stand-alone checkpoint a budget: sum of cost[].bytes
};

/* The model's budgets and, where not NULL, one more (typed widths), last. */
int nesting_open(struct nesting *nesting, const struct model *model, const struct budget *extra,
				 struct error *err);
void nesting_close(struct nesting *nesting); // takes {0}

/* Appends the channels that a budget keeps, half-open: "0-64 66-128"; "-" if the layer is left out.
 */
int nesting_runs(const struct nesting *nesting, const struct config *config, int budget,
				 const struct nesting_row *row, struct text *out, struct error *err);

/* What a budget keeps of the parent's parameters: total and active, 0..1. */
double nesting_share(const struct nesting *nesting, int budget, bool active);

#endif
