/*
 * The mask debugger's hands: a list of edits over a budget of the file, with undo, redo and a flip
 * between before and after. A mask IS a budget's text (core/budget.h): what is edited here is
 * submitted, logged and compared under that text like any typed budget.
 *
 * Units are the smallest differences between two budgets: one axis of one layer, or a convention.
 * Solo, all-but and bisection are made of them.
 */
#ifndef CORE_MASK_H
#define CORE_MASK_H

#include "core/elastic.h"
#include "core/weights.h"

/* What a unit is about: an axis, or one of these. */
enum mask_kind { MASK_HEADS = N_AXES, MASK_NORM, MASK_TOP_K, MASK_LAYER, MASK_FORCED };

struct mask_unit {
	int layer;  // -1 = the whole model
	int kind;   // enum axis or enum mask_kind
	char *term; // what makes this difference, for budget_edit()
};

struct mask_units {
	struct mask_unit *units;
	int n;
	size_t capacity;
};

const char *mask_kind_name(int kind); // the axis' name; "heads", "norm", "num_experts_per_tok",
									  // "skip", "force"

/* What leads from one budget to another, in the order in which a token meets it: the whole model's
 * first, then layer by layer. */
int mask_units(const struct budget *from, const struct budget *to, const struct config *config,
			   struct mask_units *out, struct error *err);
void mask_units_free(struct mask_units *units); // takes {0}

struct mask {
	struct budget base; // of the file, untouched
	struct budget now;  // with the first n_done edits
	struct mask_edit {
		char *said;  // what the list shows: the terms, or "solo 4 n_routed_experts"
		char *terms; // applied to what stands before
		bool apart;  // taken apart: made against the parent
	} * edits;
	int n_edits, n_done; // those behind n_done can be redone
	size_t capacity;
	bool before; // flipped: the base is used, the edits wait
};

/* Edits over a copy of `base`. */
int mask_open(struct mask *mask, const struct budget *base, struct error *err);
void mask_close(struct mask *mask); // takes {0}

/* One edit more (budget.h's terms); what could be redone is forgotten. On -1 nothing changed: the
 * last good mask stays. Ends a flip. */
int mask_edit(struct mask *mask, const struct config *config, const char *terms, struct error *err);

/* Keeps of all that the mask cuts, against `parent`, only what concerns this layer and kind (solo),
 * or all but that. layer -1: the whole model's. */
int mask_solo(struct mask *mask, const struct config *config, const struct budget *parent,
			  int layer, int kind, struct error *err);
int mask_all_but(struct mask *mask, const struct config *config, const struct budget *parent,
				 int layer, int kind, struct error *err);

/* What a mask is held against: its base; the parent once it was taken apart, unless flipped. */
const struct budget *mask_baseline(const struct mask *mask, const struct budget *parent);

/* -1: there is nothing to undo or redo. */
int mask_undo(struct mask *mask, const struct config *config, struct error *err);
int mask_redo(struct mask *mask, const struct config *config, struct error *err);

/* "BASE" or "BASE,TERMS": what is in use now (flipped: the base). */
int mask_text(const struct mask *mask, const struct config *config, struct text *out,
			  struct error *err);

/* Where a budget stands to the trained ones, on an axis of a layer. */
enum mask_mark {
	MASK_TRAINED, // as one of them
	MASK_BETWEEN, // between two of them: still nested
	MASK_BROKEN   // neither inside nor around each of them, or the layer they keep is left out
};
enum mask_mark mask_mark(const struct budget *budget, const struct elastic *trained,
						 const struct config *config, enum axis axis, int layer);

/* Widths that cut a quantisation block (weights_block()) as terms that make them whole blocks,
 * downwards but for the first; appends nothing where all fit. Runs are left to slice_build(). */
void mask_round(const struct budget *budget, const struct weights *weights,
				const struct config *config, struct text *terms);

/* By how many channels a key makes an axis narrower: an eighth of it or so, in whole groups and
 * blocks (weights_block(), 1 = none). */
int mask_step(const struct config *config, enum axis axis, int block);

/*
 * Writes the budget under a name into an elastic.json, where it lies inside the budget before it
 * and around the one behind it; everything else in the file stays byte for byte. A file that is not
 * there is made, with the parent and this budget. Refused: a name that is taken (unless `replace`),
 * a place that does not nest, and what elastic.json has no words for (norm, heads, forced experts).
 */
int mask_save(const struct budget *budget, const char *name, const char *path,
			  const struct budget *parent, const struct config *config, bool replace,
			  struct error *err);

#endif
