/*
 * Where memory goes, in bytes. Measured: the process (Linux /proc/self/statm), pages of the
 * checkpoint that are in memory (mincore). Derived: what a sequence's state takes, from the
 * dimensions.
 */
#ifndef INSPECT_MEMORY_H
#define INSPECT_MEMORY_H

#include "core/model.h"

struct memory_state { // of one sequence, at the parent's full width: the same for every budget
	uint64_t kv_per_token, kv, conv, ssm;
};

struct memory_facts {
	uint64_t rss, shared; // of the process; shared: of it, mapped files
	bool rss_known;
	uint64_t mapped;         // all shards, headers too
	uint64_t resident;       // of them, in memory now (whoever read them)
	bool resident_estimated; // sampled
};

/* model may be NULL: the process only. */
void memory_measure(struct memory_facts *facts, const struct model *model);

/* tokens: the context. kv_bytes: of one value in the cache, 4 or 2. Snapshots cost conv + ssm each.
 */
void memory_state_of(struct memory_state *state, const struct config *config, uint64_t tokens,
					 int kv_bytes);

#endif
