#include "core/prefill.h"
#include "base/clock.h"

static int smaller(int a, int b)
{
	return a < b ? a : b;
}

/* What prefill_extend picks from the last token's logits; all NULL when only the state is wanted.
 */
struct wish {
	enum logit_rows logits;
	const struct pick_params *params;
	struct picked *picked;
};

/* Where the chunk that starts at `at` ends: at a snapshot, those of sequence_roll() included where
 * the end of the text is near enough that they will be needed. */
static int chunk_end(const struct prefill *prefill, int at, int n)
{
	int end = smaller(n, at + workspace_chunk(prefill->workspace));
	if (prefill->snapshot_at > at)
		end = smaller(end, prefill->snapshot_at);
	if (prefill->repair > 0) {
		int step = sequence_roll_step(prefill->repair);
		int next = (at / step + 1) * step, last = n / step - N_ROLLING + 1;
		end = smaller(end, next >= last * step ? next : last * step);
	}
	return end;
}

/* How many of the n ids the sequence begins with. */
static int agreed(const struct sequence *sequence, const int32_t *ids, int n)
{
	int same = 0;
	while (same < n && same < sequence->n_tokens && sequence->tokens[same] == ids[same])
		same++;
	return same;
}

/* How many of the n ids may be kept: see prefill_switch(). */
static int keepable(const struct prefill *prefill, const struct sequence *sequence,
					const int32_t *ids, int n, const struct slice *slice)
{
	int own = sequence_reusable(sequence, ids, n, slice, true), any = 0;
	int held = agreed(sequence, ids, n);
	if (prefill->handoff != HANDOFF_REPREFILL && held > prefill->repair)
		any = sequence_reusable(sequence, ids, held - prefill->repair, slice, false);
	return own > any ? own : any;
}

/* Reads ids[n_tokens..n) in chunks; one ends at snapshot_at. ids may be the sequence's own tokens.
 */
static int read_chunks(struct prefill *prefill, struct sequence *sequence, const int32_t *ids,
					   int n, const struct wish *wish, struct error *err)
{
	int total = n - sequence->n_tokens;

	prefill->read = 0;
	prefill->stopped = false;
	while (sequence->n_tokens < n) {
		int at = sequence->n_tokens, end = chunk_end(prefill, at, n);
		struct lane lane = {.sequence = sequence,
							.tokens = ids + at,
							.n_tokens = end - at,
							.logits = end == n ? wish->logits : LOGITS_NONE,
							.taps = prefill->taps};
		if (forward(prefill->workspace, &lane, 1, end == n ? wish->params : NULL, wish->picked,
					err))
			return -1;
		prefill->read += end - at;
		if ((end == prefill->snapshot_at && sequence_snapshot(sequence, err)) ||
			sequence_roll(sequence, prefill->repair, err))
			return -1;
		if (end < n && prefill->step && prefill->step(prefill->user, prefill->read, total)) {
			prefill->stopped = true;
			return 0;
		}
	}
	return 0;
}

int prefill_extend(struct prefill *prefill, struct sequence *sequence, const int32_t *ids, int n,
				   const struct pick_params *params, struct picked *picked, struct error *err)
{
	const struct slice *slice = sequence_slice(sequence);
	struct wish wish = {.logits = LOGITS_LAST, .params = picked ? params : NULL, .picked = picked};
	uint64_t began = clock_ns();
	int result;

	prefill->cached = prefill->read = prefill->again = 0;
	prefill->stopped = false;
	if (!slice)
		return fail(err, "prefill: no budget was chosen for the sequence");
	if (n < 1)
		return fail(err, "prefill: nothing to read");
	if (n > sequence->capacity)
		return fail(err, "prefill: %d tokens do not fit a context of %d", n, sequence->capacity);
	prefill->cached = keepable(prefill, sequence, ids, n - 1, slice);
	prefill->again = agreed(sequence, ids, n - 1) - prefill->cached;
	result = sequence_rewind(sequence, prefill->cached, err);
	if (!result && prefill->cached && prefill->cached == prefill->snapshot_at)
		result = sequence_snapshot(sequence, err);
	if (!result)
		result = read_chunks(prefill, sequence, ids, n, &wish, err);
	prefill->took_ns = clock_ns() - began;
	return result;
}

int prefill_switch(struct prefill *prefill, struct sequence *sequence, const struct slice *slice,
				   struct error *err)
{
	struct wish state_only = {.logits = LOGITS_NONE};
	uint64_t began = clock_ns();
	int n = sequence->n_tokens;

	prefill->cached = n;
	prefill->read = 0;
	prefill->stopped = false;
	if (prefill->handoff != HANDOFF_CARRY)
		prefill->cached = keepable(prefill, sequence, sequence->tokens, n, slice);
	// The slice first: where it does not fit, nothing has been forgotten. The tokens above stay in
	// their place while the sequence goes back and reads them again.
	if (sequence_use(sequence, slice, err) || sequence_rewind(sequence, prefill->cached, err) ||
		read_chunks(prefill, sequence, sequence->tokens, n, &state_only, err))
		return -1;
	prefill->took_ns = clock_ns() - began;
	return 0;
}
