/*
 * A budget: a name and the channels it keeps on every axis and layer. Widths are leading parts
 * (grouped for Mamba and attention heads, spec elastic-files.md); runs are explicit. budget_spans()
 * is the one place that says which stored channels a budget keeps; slices, nesting checks and views
 * all ask it.
 */
#ifndef CORE_BUDGET_H
#define CORE_BUDGET_H

#include "base/error.h"
#include "base/origin.h"
#include "base/text.h"
#include "core/axis.h"
#include "core/config.h"
#include "kernels/tensor.h"

struct budget_runs {
	int layer; // -1 for AXIS_HIDDEN
	enum axis axis;
	struct span *spans; // ascending, disjoint, half-open runs as in the file
	int n_spans;
};

struct budget_forced {
	int layer, expert; // stored
};

struct span_list {      // grown with mem_grow()
	struct span *spans; // free()
	size_t n, capacity;
};

/* What slicers get wrong, as data. norm: RMSNorm over the kept channels; over all of the parent's,
 * the missing ones counted as zeros, with the output times sqrt(kept / parent) as in training
 * (masked: the same but for eps); or without that factor (uncorrected). The norms of the residual
 * and Mamba's gated norm alike. */
enum norm_rule { NORM_SLICE, NORM_MASKED, NORM_UNCORRECTED, N_NORM_RULES };

/* Which heads a width k keeps: the first of every group, or the first k of all, which then stand in
 * the groups by their place, as in a child that was cut like that. Mamba and attention heads. */
enum heads_rule { HEADS_GROUPED, HEADS_GLOBAL, N_HEADS_RULES };

const char *norm_rule_name(enum norm_rule rule);   // "slice", "masked", "uncorrected"
const char *heads_rule_name(enum heads_rule rule); // "grouped", "global"

#define BUDGET_NAME_BYTES 256 // room for widths typed on every axis

struct budget {
	char name[BUDGET_NAME_BYTES];
	enum origin origin;
	char source[64]; // "elastic.json", "typed", "published: Megatron-LM teacher_model_config_12b"
	/* Width, list and runs of an axis agree because only budget_set_*() write them. */
	int width[N_AXES];        // of the whole model; the largest where layers differ
	int *layer_width[N_AXES]; // (n_layers) or NULL = width everywhere; 0 where the axis is absent
	uint8_t *keep;            // (n_layers) 1 = the layer runs; NULL = all
	int n_layers;
	int top_k;                // num_experts_per_tok
	struct budget_runs *runs; // instead of a width; ascending by axis, then layer
	int n_runs;
	struct budget_forced *forced; // ascending: experts that every token of the layer uses
	int n_forced;
	enum norm_rule norm;
	enum heads_rule heads;
	char target_metric[16]; // "active", "total", "bytes", "ms"; "" = none
	double target_value;
};

/* The parent's own widths. */
int budget_init(struct budget *budget, const struct config *config, const char *name,
				struct error *err);
int budget_copy(struct budget *to, const struct budget *from, struct error *err);
void budget_free(struct budget *budget); // takes {0}

/*
 * A budget as text: terms with commas between, each of which changes what stands before it.
 *
 *   AXIS=64  LAYER.AXIS=64     a width, of all layers or of one
 *   LAYER.AXIS=0-64+66-128     the channels kept, half-open runs; hidden_size without a layer
 *   drop=LAYER.AXIS:3+8-16     less these channels, add= gives them back; drop=LAYER as skip
 *   skip=3+7  keep=3           layers left out, and run again
 *   num_experts_per_tok=4      top-k
 *   LAYER.force=3+9            experts that every token uses; LAYER.force=none
 *   norm=slice|masked|uncorrected   heads=grouped|global
 */
/* The terms applied to the parent; the name becomes the text (budget_name_of). */
int budget_parse(struct budget *budget, const struct config *config, const char *typed,
				 struct error *err);

/* The terms applied to a budget, whose name stays. On -1 it is as it was. */
int budget_edit(struct budget *budget, const struct config *config, const char *terms,
				struct error *err);

/* Appends the terms that make `budget` of `base`, shortest form, in order of axis and layer:
 * nothing where they keep the same. */
void budget_terms(const struct budget *budget, const struct budget *base,
				  const struct config *config, struct text *out);

/* One of them: AXIS=WHAT of a layer, of all layers (-1). */
void budget_term(const struct budget *budget, enum axis axis, int layer, struct text *out);
/* Whether two budgets keep the same there (left-out layers compared as if they ran). */
bool budget_same(const struct budget *a, const struct budget *b, enum axis axis, int layer);

/* The name of a budget that is known by its text: the text itself; one too long for that becomes
 * "BASE~1a2b3c4d", which stands for this text in the whole program (kept until it ends). */
int budget_name_of(char out[BUDGET_NAME_BYTES], const char *text, struct error *err);
const char *budget_name_text(const char *name); // the text it stands for, or the name itself

/* Whether a config key is one that budgets of this family never change: ssm_state_size, head_dim,
 * num_key_value_heads, n_groups. */
bool budget_fixed_key(const char *key);

/* Every width positive, at most the parent's, a multiple of its groups; top_k at most the experts
 * kept on every layer; runs inside the axis; at least one layer. Axes that no layer of the model
 * has, and lists' entries of layers that lack the axis or are left out, mean nothing and may hold
 * anything. */
int budget_check(const struct budget *budget, const struct config *config, struct error *err);

/* None of these checks a number, budget_check() does. One width for all layers: the axis' list and
 * runs go. */
void budget_set_width(struct budget *budget, enum axis axis, int width);

/* Of one layer, which has the axis: its runs go. */
int budget_set_layer_width(struct budget *budget, const struct config *config, enum axis axis,
						   int layer, int width, struct error *err);

/* Explicit runs (AXIS_HIDDEN: layer -1) instead of what there is. Takes the spans over, also on
 * failure. */
int budget_set_runs(struct budget *budget, enum axis axis, int layer, struct span_list *kept,
					struct error *err);
int budget_set_keep(struct budget *budget, int layer, bool keep, struct error *err);

/* The explicit runs of an axis on a layer (AXIS_HIDDEN: whatever the layer); NULL = a width. */
const struct budget_runs *budget_runs_of(const struct budget *budget, enum axis axis, int layer);
bool budget_has_runs(const struct budget *budget, enum axis axis); // on any layer

bool budget_keeps_layer(const struct budget *budget, int layer);
int budget_width(const struct budget *budget, enum axis axis, int layer); // channels kept there

/* The stored channels kept on an axis of a layer, ascending, neighbouring spans joined; appended to
 * *out. Channels are the axis' own units: heads, experts, channels of one head. */
int budget_spans(const struct budget *budget, const struct config *config, enum axis axis,
				 int layer, struct span_list *out, struct error *err);

/* Appends one span, joined to the last where they touch. */
int span_list_add(struct span_list *list, int start, int length, struct error *err);

/* Whether inner's channels are a subset of outer's, on one axis and layer. */
bool budget_inside(const struct budget *outer, const struct budget *inner,
				   const struct config *config, enum axis axis, int layer);

/* The same of every axis and layer: how many are not. Each is appended to `violations` as one line
 * naming axis, layer and both budgets (NULL: stop at the first). */
int budget_violations(const struct budget *outer, const struct budget *inner,
					  const struct config *config, struct text *violations);

#endif
