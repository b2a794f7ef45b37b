/*
 * How important each channel is, in the stored order, and what a budget's cut keeps of it.
 *
 * Scores come from importance.safetensors (ORIGIN_FILE; what each one means: docs/files.md), from a
 * file that was measured (ORIGIN_MEASURED, inspect/scores.h), or, without either, from the L2 norms
 * of the weights on that axis (ORIGIN_DERIVED, unit "L2 norm of weights"):
 *
 *   hidden_size, a layer's     columns of its input matrices: in_proj; q, k, v; gate and shared
 *                              up_proj, not the experts; up_proj
 *   hidden_size, the model's   columns of embeddings and lm_head
 *   FFN axes                   row of up_proj and column of down_proj
 *   n_routed_experts           the expert's up_proj and down_proj
 *   mamba_num_heads            x rows of in_proj, all of the head
 *   mamba_head_dim             x rows of in_proj, over heads
 *   num_attention_heads        rows of q_proj and columns of o_proj
 *
 * There is no norm that stands for a layer. Read lazily, one axis of one layer at a time: at full
 * size one MoE layer's experts are 2.5 GB, so callers run it in a job.
 */
#ifndef INSPECT_IMPORTANCE_H
#define INSPECT_IMPORTANCE_H

#include "base/origin.h"
#include "core/model.h"
#include "inspect/norms.h"
#include "inspect/scores.h"

enum importance_metric {
	IMPORTANCE_DEFAULT, // the file's, reap for experts; else the weights' norms
	IMPORTANCE_COUNT,   // experts only: share of the tokens routed to it
	IMPORTANCE_WEIGHTS, // norms, also where there is a file
};

struct importance_query {
	enum axis axis; // N_AXES = whole layers (depth): logit MSE when one is skipped
	int layer;      // of the parent; -1 for hidden_size of the model, and for N_AXES
	int expert;     // moe_intermediate_size: one expert, or -1 = the mean over experts
	enum importance_metric metric;
	const struct norms_watch *watch; // told while norms are read; NULL = nobody
	const struct scores *scores; // measured elsewhere, instead of the checkpoint's; NULL = its own
};

struct importance_curve {
	struct importance_query query;
	enum origin origin;        // ORIGIN_UNKNOWN: nobody knows, n = 0; MEASURED: query.scores
	const char *unit;          // what a score is: "mean abs", "REAP", "share of tokens", ...
	int n, n_groups;           // channels; groups that are ranked apart (Mamba and attention heads)
	float *score;              // (n), stored order
	double total;              // sum of scores
	bool descending;           // inside every group
	int64_t inversions, pairs; // pairs stored the wrong way round, and all pairs, inside groups
	double spearman; // stored order against score order, mean over groups; NAN if undefined
	int n_budgets;
	double retained[MAX_BUDGETS]; // share of the total that a budget keeps, 0..1; 0 if the layer is
								  // left out; the model's budgets in their order
	double best[MAX_BUDGETS];     // what as many channels, the best ones, would keep; >= retained
	int width[MAX_BUDGETS];       // channels kept: the cut line
};

/* place[i] = 1 for the channel with the largest score of its group, 2 for the next ...; (n). */
int importance_places(const struct importance_curve *curve, int *place, struct error *err);

/* Wrong shapes in the file, or a layer that lacks the axis, are an error that names them. */
int importance_open(struct importance_curve *curve, const struct model *model,
					const struct importance_query *query, struct error *err);
void importance_close(struct importance_curve *curve); // takes {0}

/* cumulative[i] = share of the total in the first i + 1 channels of the stored order; (n). */
void importance_cumulative(const struct importance_curve *curve, double *cumulative);

/* The file's scores of one tensor of importance.safetensors as they lie in the mapping, checked to
 * be F32 [n]; NULL if there is no such tensor or it has another shape. name without "importance.".
 */
const float *importance_scores(const struct model *model, const char *name, int64_t n);

#endif
