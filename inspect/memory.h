/*
 * Where memory goes, in bytes, measured: the process (Linux /proc/self/statm) and the pages of the
 * checkpoint that are in memory (mincore). What a sequence's state takes is arithmetic:
 * inspect/info.h; what it took: sequence_bytes, in the engine's gauges.
 */
#ifndef INSPECT_MEMORY_H
#define INSPECT_MEMORY_H

#include "core/model.h"

struct memory_facts {
	uint64_t rss, shared; // of the process; shared: of it, mapped files
	bool rss_known;
	uint64_t mapped;         // all shards, headers too
	uint64_t resident;       // of them, in memory now (whoever read them)
	bool resident_estimated; // sampled
};

/* model may be NULL: the process only. */
void memory_measure(struct memory_facts *facts, const struct model *model);

#endif
