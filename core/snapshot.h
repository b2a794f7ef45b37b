/*
 * A state that a sequence kept, to go back to: conv and SSM state of all its Mamba layers in one
 * block (48 MB for the 30B), how long the KV caches were, and who had read. KV rows stay in the
 * cache. The block lies on the device or, where the room that was set aside there is taken (cards),
 * in host memory: the newest stays on the device, the least recently used one makes room for it.
 */
#ifndef CORE_SNAPSHOT_H
#define CORE_SNAPSHOT_H

#include "base/error.h"
#include <stddef.h>
#include <stdint.h>

struct sequence;

struct snapshot {
	int n_tokens;              // 0 = free
	uint64_t used;             // for replacing the least recently used
	void *state;               // device: of each Mamba layer conv, then SSM; or NULL
	void *host;                // the same in host memory; or NULL
	int32_t *rows;             // (n_layers) KV lengths; rows below them are still in the cache
	struct sequence_run *runs; // (n_runs): who read what, up to n_tokens
	int n_runs;
};

/* What snapshots may take on a device, of all sequences that point here. */
struct snapshot_room {
	uint64_t limit_bytes, used_bytes;
};

/* Keeps the live state of the sequence or (from) a copy of another sequence's snapshot in `to`, one
 * of its own. On -1 `to` is free. */
int snapshot_take(struct sequence *sequence, struct snapshot *to, const struct snapshot *from,
				  struct error *err);

/* Puts conv and SSM state in place of the live one: nothing else. */
void snapshot_restore(struct sequence *sequence, const struct snapshot *from);

void snapshot_release(struct sequence *sequence, struct snapshot *snapshot);

#endif
