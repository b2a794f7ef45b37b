/*
 * How good every width of an axis is: the parent's predictions against those of the same model with
 * only this axis cut, on one text. Two controls say what the stored order is worth:
 *
 *   first   the leading channels, what a budget keeps
 *   last    as many, but from the other end (worst first)
 *   random  as many, drawn with a seed: a draw is one random order of the channels of each layer,
 *           of which a width keeps the first, so draws are nested too
 *
 * Heads are cut alike in every group (axis_groups). Where the file has NVFP4 weights, channels go
 * in whole blocks. Two axes make a map, of the leading channels only.
 */
#ifndef INSPECT_CURVE_H
#define INSPECT_CURVE_H

#include "inspect/trials.h"

#define CURVE_DRAWS 16   // at most
#define CURVE_WIDTHS 256 // of an axis at most

enum curve_order { CURVE_FIRST, CURVE_LAST, CURVE_RANDOM };

struct curve_axis {
	enum axis axis;
	int parent, step; // stored channels; the widths' default distance
	int unit;         // channels that are kept or cut together: groups times blocks
	int n;
	int widths[CURVE_WIDTHS];       // ascending, the parent's last
	uint32_t trained[CURVE_WIDTHS]; // bit b: the file's budget b has this width on some layer
};

/* The widths to try: `widths` (n) as typed; or, n 0, every `step` channels (0: 16, or less on a
 * short axis) and those of the file's budgets. Errors name the width and what was expected. */
int curve_axis_open(struct curve_axis *out, const struct model *model, enum axis axis, int step,
					const int *widths, int n, struct error *err);

/* The parent with one axis cut on all its layers, by runs unless it is CURVE_FIRST. */
int curve_budget(struct budget *budget, const struct model *model, enum axis axis, int width,
				 enum curve_order order, uint64_t seed, int draw, struct error *err);

struct curve_point {
	struct trial first, last;
	struct trial draws[CURVE_DRAWS];
	struct estimate random_kl; // mean over draws, and its standard error
	double random_low, random_high, random_top, random_ppl; // KL's range; means over draws
};

struct curve {
	struct curve_axis axis;
	int draws;
	uint64_t seed;
	struct trial parent;
	struct curve_point *points; // (axis.n - 1): all but the parent's width
};

/* plan->base is the parent. draws 0..CURVE_DRAWS. On -1 nothing is left. */
int curve_run(struct curve *curve, const struct trials_plan *plan, const struct curve_axis *axis,
			  int draws, uint64_t seed, struct error *err);
void curve_free(struct curve *curve); // takes {0}

struct curve_map {
	struct curve_axis axes[2];
	struct trial parent;
	struct trial *cells; // (axes[0].n, axes[1].n); the parent's cell is the parent
};

int curve_map_run(struct curve_map *map, const struct trials_plan *plan,
				  const struct curve_axis axes[2], struct error *err);
void curve_map_free(struct curve_map *map); // takes {0}

#endif
