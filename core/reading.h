/*
 * A text read once, with everything kept that was asked for: logits at every position, the residual
 * before every layer, chosen experts, and what the model would say if it stopped at a layer (the
 * logit lens). The budget may change on the way. Host memory; for files and comparisons, not for
 * chat.
 */
#ifndef CORE_READING_H
#define CORE_READING_H

#include "core/forward.h"

/* From position `at` on, `slice` reads. Re-prefilled tokens are not kept a second time. */
struct reading_switch {
	int at;
	const struct slice *slice;
	enum handoff handoff;
};

struct reading_plan {
	const int32_t *ids;
	int n;
	const struct slice *slice;             // reads from the start
	const struct reading_switch *switches; // ascending by `at`, 0 <= at < n
	int n_switches;
	enum dtype kv_dtype;
	bool hidden, experts, lens;
	/* Called between chunks; non-zero stops with an error. May be NULL. */
	int (*step)(void *user, int done, int total);
	void *user;
};

struct reading {
	int n, vocab, n_layers;
	float *logits; // (n, vocab)

	/* The residual before layer i, the last before norm_f; NULL = not asked for. width is the
	 * widest budget's, narrower ones leave 0 behind their last channel. */
	float *hidden; // (n_layers + 1, n, width)
	int width;

	/* Stored experts, ascending, and their final weights; NULL = not asked for. -1 and 0 where the
	 * layer is no MoE layer, is left out, or where a budget takes fewer. */
	int32_t *expert_ids;   // (n_layers, n, top_k)
	float *expert_weights; // (n_layers, n, top_k)
	int top_k;

	/* The most probable id of lm_head(RMSNorm(residual; norm_f)) and the natural log of its
	 * probability; NULL = not asked for. Entry n_layers is the model's own choice. */
	int32_t *lens_ids;    // (n_layers + 1, n)
	float *lens_logprobs; // (n_layers + 1, n)
};

int reading_run(struct reading *reading, const struct reading_plan *plan, struct error *err);
void reading_free(struct reading *reading); // takes {0}

/* The most probable id of a row of logits (ties: the lower) and the natural log of its probability.
 */
int32_t logits_top(const float *logits, int vocab, float *logprob);

/* KL(softmax p || softmax q) in nats, in doubles. */
double logits_kl(const float *p, const float *q, int vocab);

#endif
