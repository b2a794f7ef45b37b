/*
 * How sure a share of right answers is, and whether two of them on the same tasks differ.
 */
#ifndef INSPECT_ACCURACY_H
#define INSPECT_ACCURACY_H

#include <stddef.h>

struct interval {
	double low, high;
};

/* Wilson's score interval of `right` of n, 95 % (Wilson 1927). n = 0: 0 to 1. */
struct interval accuracy_interval(size_t right, size_t n);

/* McNemar's test of paired outcomes, two-sided: `lost` pairs that only the first got right, `won`
 * pairs that only the second did. Exact (binomial, conservative) and mid-p (Fagerland, Lydersen,
 * Laake 2013). */
struct mcnemar {
	double exact, mid;
};
struct mcnemar accuracy_mcnemar(size_t lost, size_t won);

#endif
