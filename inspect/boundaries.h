/*
 * Slice boundaries from the weights alone: channels that every budget trained have other norms than
 * those that only the larger ones trained, so a nested checkpoint shows a step where a budget ends.
 *
 * Every matrix that an axis runs along gives a profile, one norm a channel; its logarithm is
 * divided by its own noise (median absolute difference of neighbours) and added to the axis' sum,
 * over layers. (Heads: by place inside their group.) At every place a line is fitted to the
 * channels before it and one to those behind it, at most a quarter of the axis and 64 channels
 * long; where the lines miss each other by more than their scatter explains (t test on their gap),
 * there is a step. The largest is taken and bounds the lines of the next search. p is times the
 * number of places tried on all axes (Bonferroni).
 *
 * What it cannot see: widths of axes that are shorter than 2 * BOUNDARY_SIDE a group, which budget
 * takes which step on which axis, dropped layers and top-k.
 */
#ifndef INSPECT_BOUNDARIES_H
#define INSPECT_BOUNDARIES_H

#include "core/model.h"

#define BOUNDARY_SIDE 5     // channels on either side, at least
#define BOUNDARY_FOUND 0.01 // p of a boundary
#define BOUNDARY_WEAK 0.05  // p of one that is worth a look

struct boundary {
	enum axis axis;
	int at, low, high; // channels before the step; places that fit nearly as well
	int width;         // the roundest of these, times groups: as a budget has it
	double step;       // of the norm across it: -0.1 = 10 % smaller behind; mean over profiles
	double t, p;       // of the gap; p of any place on any axis
	bool found;        // p <= BOUNDARY_FOUND, else weak
};

struct boundary_axis {
	int n, groups;  // places (channels of one group); 0 = the model lacks the axis
	int profiles;   // how many were added
	double *pooled; // (n): sum of log norms over their noise
	double *mean;   // (n): sum of log norms
	bool too_short; // n < 2 * BOUNDARY_SIDE: nothing was tried
};

struct boundaries {
	struct boundary_axis axes[N_AXES];
	struct boundary *list; // by axis, then ascending
	int n;
	size_t capacity;
	int places; // tried in the first search of every axis
};

/* Reads the weights once, a matrix at a time. step: between matrices, with bytes in MiB; non-zero
 * stops with an error; may be NULL. On -1 nothing is left. */
int boundaries_find(struct boundaries *out, const struct model *model,
					int (*step)(void *user, int done, int total), void *user, struct error *err);
void boundaries_free(struct boundaries *out); // takes {0}

/* The search alone, on axes that the caller filled with boundaries_add(). */
int boundaries_open(struct boundaries *out, const struct config *config, struct error *err);
/* A profile: squares (n * groups) of one axis, summed as the caller likes. Profiles with a zero or
 * without noise say nothing and are left out. */
int boundaries_add(struct boundaries *out, enum axis axis, const double *squares,
				   struct error *err);
int boundaries_search(struct boundaries *out, struct error *err);

/* What was found as elastic.json: the parent, and budget k with the k-th boundary from above of
 * every axis that has as many (the last it has otherwise). Appends. */
int boundaries_elastic(const struct boundaries *found, const struct config *config,
					   struct text *out, struct error *err);

/* P(|T| >= |t|) of Student's t with df degrees of freedom. */
double student_two_sided(double t, double df);

#endif
