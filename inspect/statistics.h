/*
 * The few statistics that a comparison needs, in doubles: means with their standard errors,
 * percentiles, correlations collected one pair at a time. Errors take positions as independent,
 * which neighbouring tokens are not: they are the lower bound that llama-perplexity prints too.
 */
#ifndef INSPECT_STATISTICS_H
#define INSPECT_STATISTICS_H

#include <stddef.h>

struct estimate {
	double value, error; // standard error of the mean; NAN = cannot be said
};

/* value NAN with n = 0, error NAN with n < 2. error = sqrt((mean of squares - mean^2) / (n - 1)).
 */
struct estimate statistics_mean(const double *values, size_t n);

void statistics_sort(double *values, size_t n); // ascending; no NAN among them

/* fraction 0..1 of ascending values, linear between neighbours (numpy's default); NAN with n = 0.
 */
double statistics_percentile(const double *sorted, size_t n, double fraction);

/* Pairs (x, y) so far: Welford's update, so that large means cost no digits. Starts as {0}. */
struct comoment {
	size_t n;
	double mean_x, mean_y, xx, yy, xy; // sums of products of deviations
};

void comoment_add(struct comoment *c, double x, double y);
double comoment_correlation(const struct comoment *c); // Pearson; NAN where x or y never varies
double comoment_of_means(const struct comoment *c); // covariance of the two means, xy / n / (n-1)

#endif
