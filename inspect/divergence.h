/*
 * How far one budget's predictions (Q) are from another's (the base): what is kept of every
 * position, and what it adds up to under the names of llama-perplexity --kl-divergence.
 *
 * The position `at` is where token `at` was read; its distribution is about token at + 1, which is
 * the actual next token where there is one.
 */
#ifndef INSPECT_DIVERGENCE_H
#define INSPECT_DIVERGENCE_H

#include "base/error.h"
#include "inspect/statistics.h"
#include <stdbool.h>
#include <stdint.h>

/* What one budget says at one position. */
struct divergence_position {
	int32_t top;      // the most probable id (ties: the lower)
	double logprob;   // natural log of the actual next token's probability; NAN = there is none
	double entropy;   // nats
	double kl;        // KL(base || this) in nats, 0 for the base itself
	double routed_kl; // the same when it runs with another budget's experts; NAN = not asked for
};

/* Fractions that percentiles are kept of. Names are llama-perplexity's. */
enum divergence_percentile {
	PERCENTILE_999,
	PERCENTILE_99,
	PERCENTILE_95,
	PERCENTILE_90,
	PERCENTILE_75,
	PERCENTILE_50,
	PERCENTILE_25,
	PERCENTILE_10,
	PERCENTILE_5,
	PERCENTILE_1,
	PERCENTILE_01,
	N_PERCENTILES
};
double divergence_fraction(enum divergence_percentile percentile); // 0.999, ...

struct divergence_summary {
	int n;      // positions
	int n_next; // of them, with an actual next token
	struct estimate ppl, ppl_base;
	double ln_ppl_correlation;
	struct estimate ln_ppl_ratio, ppl_ratio, ppl_difference;
	struct estimate kl; // mean
	double kl_max, kl_min, kl_percentile[N_PERCENTILES];
	struct estimate dp; // mean of p_Q - p_base of the actual next token, 0..1
	double dp_max, dp_min, dp_percentile[N_PERCENTILES];
	struct estimate rms_dp, same_top; // same_top: share of positions
	int first_divergence;             // first index whose top ids differ, -1 = none
};

/* n positions of both. Fails without memory only. */
int divergence_summarise(struct divergence_summary *summary, const struct divergence_position *base,
						 const struct divergence_position *q, int n, struct error *err);

/* The summary as rows for tables and JSON, in llama-perplexity's order and words. Row i of many,
 * false behind the last one. */
struct divergence_row {
	const char *section; // NULL unless a new one begins
	const char *name;    // "Mean PPL(Q)", "99.9% KLD", ...
	double value, error; // error NAN = the row has none
	bool percent;        // value and error are shares; times 100 and a % sign to print
};
bool divergence_row(const struct divergence_summary *summary, int i, struct divergence_row *row);

#endif
