/*
 * The only mutable inference state: the tokens read so far and what the layers remember of them, at
 * the parent's full width, so that a change of budget never reallocates. One sequence belongs to
 * one engine's worker; weights and slices are borrowed.
 *
 * Layer state: Mamba: conv (the last kernel-1 raw rows, oldest first) and SSM in F32; attention: K
 * and V in the device's kv_dtype, with a length per layer, because a budget that leaves the layer
 * out adds nothing.
 *
 * Invariant: n_tokens tokens have been read, token i by the slice of the run that covers i. State
 * rows that the running slice does not keep stay as they are (0 at the start).
 */
#ifndef CORE_SEQUENCE_H
#define CORE_SEQUENCE_H

#include "core/config.h"
#include "core/slice.h"
#include "core/snapshot.h"
#include "kernels/backend.h"

/* Snapshots 0..3 are taken where a later prompt will agree with this one; the three behind them
 * roll along while tokens are generated (sequence_roll). */
#define MAX_SNAPSHOTS 7
#define N_ROLLING 3

enum handoff { HANDOFF_REPREFILL, HANDOFF_CARRY, HANDOFF_REPAIR };

const char *handoff_name(enum handoff handoff); // "reprefill", "carry", "repair"
int handoff_find(const char *name);             // one without a number, or -1

/* "reprefill", "carry" or "repair:N" (1 <= N <= HANDOFF_MAX_REPAIR), and back. repair is 0 but for
 * HANDOFF_REPAIR. */
#define HANDOFF_MAX_REPAIR 65536
#define HANDOFF_TEXT_BYTES 32
int handoff_parse(const char *text, enum handoff *handoff, int *repair, struct error *err);
void handoff_write(enum handoff handoff, int repair, char out[HANDOFF_TEXT_BYTES]);

/* What a KV cache may be kept in: F32, BF16 or F8_E4M3, as users spell it: "f32", "bf16", "fp8". */
const char *kv_name(enum dtype dtype);
int kv_find(const char *name); // enum dtype, or -1

struct layer_state {
	float *conv, *ssm; // Mamba: (kernel-1, channels), (heads*head_dim, state_size)
	void *k, *v;       // attention: (capacity, n_kv_heads, head_dim)
	int32_t *length;   // attention: rows in the cache, device memory
	int32_t rows;      // the same number on the host
};

struct sequence_run {
	int from; // first position that this slice read
	const struct slice *slice;
};

struct sequence_bytes {
	uint64_t kv, conv, ssm, snapshots; // of the device
};

struct sequence {
	const struct config *config;
	const struct backend *backend;
	struct device *device;
	enum dtype kv_dtype;
	int capacity;    // tokens: the context
	int32_t *tokens; // (capacity)
	int n_tokens;
	struct layer_state *layers; // (n_layers)
	struct sequence_run *runs;  // ascending by from; the last one is the running slice
	int n_runs;
	size_t runs_capacity;
	struct snapshot snapshots[MAX_SNAPSHOTS];
	struct snapshot_room *snapshot_room; // NULL: as much as there is; set once it is open
	uint64_t clock;
	struct sequence_bytes bytes;
	int lane; // of the pass that is checked: forward() finds a sequence that is in it twice
};

/* kv_dtype is the device's. Nothing is allocated later but run entries and snapshots. */
int sequence_open(struct sequence *sequence, const struct config *config,
				  const struct backend *backend, struct device *device, enum dtype kv_dtype,
				  int capacity, struct error *err);
void sequence_close(struct sequence *sequence); // takes {0}

/* Forgets everything: no tokens, state 0, no slice (sequence_use comes before the next token).
 * Snapshots go too. Also what must come before a slice is freed that a run of this sequence names.
 */
void sequence_reset(struct sequence *sequence);

/* The slice that will read the next token; NULL before the first sequence_use. */
const struct slice *sequence_slice(const struct sequence *sequence);

/* Of the runs, those that read the first n_tokens: how many. */
int runs_below(const struct sequence_run *runs, int n_runs, int n_tokens);

/* From the next token on, this slice reads (carry: the state stays). */
int sequence_use(struct sequence *sequence, const struct slice *slice, struct error *err);

/* Called by forward() when a lane's tokens have been read: appends them and updates the KV lengths
 * of the layers that the slice keeps. */
void sequence_advance(struct sequence *sequence, const int32_t *tokens, int n);

/* Keeps the state after n_tokens in a snapshot (replacing the least recently used); nothing to
 * keep, and nothing done, at 0 tokens. */
int sequence_snapshot(struct sequence *sequence, struct error *err);

/* For repair:N. Called whenever tokens have been read: at every multiple of ceil(N/2) tokens the
 * state is kept in one of N_ROLLING places of its own, so that there is always one that is N to
 * N + ceil(N/2) - 1 tokens old. Costs a copy of all conv and SSM state each time (0.1 MB for
 * the demo, 48 MB for the 30B), and N_ROLLING times their memory. */
int sequence_roll(struct sequence *sequence, int repair, struct error *err);
int sequence_roll_step(int repair); // ceil(N/2)

/* How many of the n ids a sequence can keep: the longest common prefix that ends at the live
 * position or at a snapshot. With exact, only if every run below it is `slice` (re-prefill
 * semantics). */
int sequence_reusable(const struct sequence *sequence, const int32_t *ids, int n,
					  const struct slice *slice, bool exact);

/* Goes back to n_tokens, which sequence_reusable() returned (0 = empty). The running slice stays
 * the one that reads next; snapshots above n_tokens go, because their KV rows will be written
 * again. */
int sequence_rewind(struct sequence *sequence, int n_tokens, struct error *err);

/* Layers that `slice` keeps and whose state rows or KV length lag behind n_tokens, because an
 * earlier run did not keep them. layers has room for n_layers; returns how many. */
int sequence_stale(const struct sequence *sequence, const struct slice *slice, int *layers);

/* A copy of the state (for branches, columns, measurements) into `to`, opened with the same config,
 * device and kv_dtype and a context that holds the tokens. Snapshots are copied, rolling
 * ones are not. */
int sequence_fork(struct sequence *to, const struct sequence *from, struct error *err);

#endif
