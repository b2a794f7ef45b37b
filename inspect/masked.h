/*
 * The second step of the nesting proof: the parent, run at full width with everything outside a
 * budget set to zero, says what the budget's slice says. The masked copy does not know spans or
 * packing: zeros go into a copy of the stored tensors, row by row and column by column, and the
 * parent's own plan runs it; only the counts that norms divide by are the budget's (RMSNorm over
 * kept channels, gated norm over the kept heads of a group). A dropped expert can't be chosen, a
 * dropped layer adds zeros.
 *
 * Sums run over more (zero) terms in another order, so the two agree to rounding, not bit for bit.
 */
#ifndef INSPECT_MASKED_H
#define INSPECT_MASKED_H

#include "inspect/trials.h"

#define MASKED_BYTES ((uint64_t)4 << 30) // the largest checkpoint that is copied

struct masked {
	struct config config;   // a copy: lanes of one config share their weights, these must not
	struct weights weights; // tensors of the copy
	struct slice slice;     // the parent's widths over them
	void **blocks;
	size_t n_blocks, capacity;
};

/* child: the budget's slice, which the masked one borrows the gated norms' counts of, and its
 * device. */
int masked_open(struct masked *masked, const struct model *model, const struct slice *child,
				struct error *err);
void masked_close(struct masked *masked); // takes {0}

struct masked_result {
	int n;           // tokens
	double absolute; // largest difference of a logit
	double relative; // that over the largest magnitude of a logit
	int at;          // its position
	int same_top;    // positions with the same most probable id
};

/* plan->base is not looked at. The text is read in windows of MASKED_WINDOW tokens at most. */
#define MASKED_WINDOW 256
int masked_run(struct masked_result *out, const struct trials_plan *plan,
			   const struct budget *budget, struct error *err);

#endif
