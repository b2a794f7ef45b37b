#include "inspect/rank.h"

#include "base/memory.h"
#include <math.h>
#include <stdlib.h>

struct entry {
	float score;
	int index;
};

static int by_score(const void *a, const void *b)
{
	const struct entry *x = a, *y = b;
	if (x->score != y->score)
		return x->score > y->score ? -1 : 1;
	return x->index < y->index ? -1 : x->index > y->index;
}

static struct entry *sorted(const float *score, int n, struct error *err)
{
	struct entry *entries = mem_new((size_t)n, sizeof *entries, err);
	for (int i = 0; entries && i < n; i++)
		entries[i] = (struct entry){isnan(score[i]) ? -INFINITY : score[i], i};
	if (entries)
		qsort(entries, (size_t)n, sizeof *entries, by_score);
	return entries;
}

int rank_order(const float *score, int n, int *order, struct error *err)
{
	struct entry *entries = sorted(score, n, err);
	for (int i = 0; entries && i < n; i++)
		order[i] = entries[i].index;
	free(entries);
	return entries ? 0 : -1;
}

int rank_average(const float *score, int n, double *rank, struct error *err)
{
	struct entry *entries = sorted(score, n, err);
	if (!entries)
		return -1;
	for (int i = 0, j; i < n; i = j) {
		for (j = i + 1; j < n && entries[j].score == entries[i].score; j++) {
		}
		for (int k = i; k < j; k++) // ranks i + 1 .. j
			rank[entries[k].index] = (i + 1 + j) / 2.0;
	}
	free(entries);
	return 0;
}

/* Pearson's r of two lists of ranks. */
static double correlation(const double *x, const double *y, int n)
{
	double mean = (n + 1) / 2.0, xy = 0, xx = 0, yy = 0;
	for (int i = 0; i < n; i++) {
		xy += (x[i] - mean) * (y[i] - mean);
		xx += (x[i] - mean) * (x[i] - mean);
		yy += (y[i] - mean) * (y[i] - mean);
	}
	return n < 2 || xx == 0 || yy == 0 ? NAN : xy / sqrt(xx * yy);
}

static int spearman(const float *a, const float *b, int n, double *rho, struct error *err)
{
	double *x = mem_new((size_t)n, 2 * sizeof *x, err);
	if (!x)
		return -1;
	double *y = x + n;
	int status = rank_average(a, n, x, err);
	for (int i = 0; i < n; i++)
		y[i] = i + 1;
	if (b && status == 0)
		status = rank_average(b, n, y, err);
	*rho = status < 0 ? NAN : correlation(x, y, n);
	free(x);
	return status;
}

int rank_spearman(const float *a, const float *b, int n, double *rho, struct error *err)
{
	return spearman(a, b, n, rho, err);
}

int rank_stored(const float *score, int n, double *rho, struct error *err)
{
	return spearman(score, NULL, n, rho, err);
}

int64_t rank_inversions(const float *score, int n)
{
	int64_t count = 0;
	for (int i = 0; i < n; i++)
		for (int j = i + 1; j < n; j++)
			count += score[i] < score[j];
	return count;
}

double rank_entropy(const uint64_t *counts, int n)
{
	uint64_t total = 0;
	for (int i = 0; i < n; i++)
		total += counts[i];
	double bits = 0;
	for (int i = 0; i < n; i++) {
		if (counts[i]) {
			double share = (double)counts[i] / (double)total;
			bits -= share * log2(share);
		}
	}
	return bits;
}
