/* What a child's tensor of the right shape is instead of the parent's slice. */
#ifndef EXPORT_EXPLAIN_VALUE_H
#define EXPORT_EXPLAIN_VALUE_H

#include "export/explain.h"

/* Other ways to cut the same budget, that a tensor may turn out to be. */
struct suspects {
	const struct verify *verify;
	struct cuts global; // heads cut over all groups; n 0 = the budget cuts no heads
	struct cuts wide;   // all experts
	uint64_t *hashes;   // (wide.n) of their bytes, 0 = not known yet
};

int suspects_open(struct suspects *suspects, const struct verify *verify, struct error *err);
void suspects_close(struct suspects *suspects); // takes {0}

/* Fills cause and sentence. */
int explain_value(struct explanation *out, struct suspects *suspects, const struct difference *d,
				  struct error *err);

#endif
