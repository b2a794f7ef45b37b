/*
 * A row of logits as a distribution, and two of them held against each other. Sums are doubles, so
 * that a divergence of 1e-9 is a number and not rounding.
 */
#ifndef CORE_DISTRIBUTION_H
#define CORE_DISTRIBUTION_H

#include <stdint.h>

struct distribution {
	int32_t top;    // the most probable id (ties: the lower)
	double log_sum; // ln sum exp(logits): ln p(id) = logits[id] - log_sum
	double entropy; // nats
};

struct distribution distribution_of(const float *logits, int vocab);

/* KL(p || q) in nats of two rows and what distribution_of() says of them. Never below 0; infinite
 * where q forbids (logit -inf) what p allows. */
double distribution_kl(const float *p, const struct distribution *of_p, const float *q,
					   const struct distribution *of_q, int vocab);

#endif
