/*
 * Reading many tokens: in chunks, with progress and a way to stop, and what follows from it:
 * extending a sequence to a given list of tokens, and changing budget between any two tokens.
 */
#ifndef CORE_PREFILL_H
#define CORE_PREFILL_H

#include "core/forward.h"

struct prefill {
	struct workspace *workspace;
	/* Called between chunks with tokens read and to read; non-zero stops. May be NULL. */
	int (*step)(void *user, int done, int total);
	void *user;
	const struct taps *taps; // NULL = none
	/* A snapshot is taken when the sequence reaches this many tokens; 0 = none. */
	int snapshot_at;
	/* What may be kept of a state that another slice wrote: see the functions. */
	enum handoff handoff;
	int repair; // HANDOFF_REPAIR: its N, and rolling snapshots are taken; else 0
	/* Set on return: tokens kept from before, tokens read, of them those that the sequence held
	 * already, nanoseconds. */
	int cached, read, again;
	uint64_t took_ns;
	bool stopped;
};

/* Makes the sequence hold ids[0..n) read by its running slice (or kept, see sequence_reusable), and
 * leaves the logits of the last one for picking: at least the last token is always read. picked may
 * be NULL. reprefill: nothing that another slice read is kept. carry: all. repair: at least the
 * last N that the sequence holds of these ids are read again, as prefill_switch() does; where no
 * snapshot is that old, all, as with reprefill. */
int prefill_extend(struct prefill *prefill, struct sequence *sequence, const int32_t *ids, int n,
				   const struct pick_params *params, struct picked *picked, struct error *err);

/* From the next token on `slice` reads. carry: at once. reprefill: reads all tokens so far again;
 * when stopped midway the sequence is as long as what was read. repair, N = prefill->repair: goes
 * back to the newest snapshot that is at least N tokens old, whoever wrote it, and reads the tokens
 * from there again: N to N + ceil(N/2) - 1 of them where sequence_roll() was called all along, more
 * where the last snapshot is older; none left, or N >= tokens so far: all, as with reprefill.
 * Where `slice` itself wrote the state below a younger snapshot, that one serves as well. */
int prefill_switch(struct prefill *prefill, struct sequence *sequence, const struct slice *slice,
				   struct error *err);

#endif
