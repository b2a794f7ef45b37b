/*
 * Which difference makes it: between a good mask and a bad one, or between a budget and the child
 * that was cut from it, by halving. The differences are in the order in which a token meets them;
 * the first k of them are given to the good one, and the k where the KL passes half of the whole is
 * looked for. Then the one found is tried alone, and all but it.
 */
#ifndef INSPECT_BISECT_H
#define INSPECT_BISECT_H

#include "inspect/probe.h"

struct bisect {
	int n_units;                // differences between the two
	int found;                  // the one that makes the jump, -1 = none (see note)
	int layer;                  // of it, -1 = the whole model
	char what[128];             // "4.n_routed_experts=0-3+4-10", "layer 4 experts.3.up_proj"
	double kl_bad;              // KL(good || bad): of all of them
	double kl_before, kl_after; // with the first `found`, and with it too
	double kl_solo, kl_all_but; // with it alone; with all but it
	int runs;                   // readings of the probe, the good one's too
	char note[400];             // what else there is to say, "" = nothing
	struct bisect_step {
		int n; // units taken
		double kl;
	} steps[64];
	int n_steps;
};

/* Two masks of the probe's model. */
int bisect_masks(struct bisect *bisect, struct probe *probe, const struct budget *good,
				 const struct budget *bad, struct error *err);

/* A budget of the probe's model, and a checkpoint that should be cut from it (its budget `bad`):
 * weight by weight. */
int bisect_child(struct bisect *bisect, struct probe *probe, const struct budget *good,
				 const struct model *child, const struct budget *bad, struct error *err);

/* One sentence. */
void bisect_line(const struct bisect *bisect, struct text *out);

#endif
