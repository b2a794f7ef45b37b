#include "inspect/statistics.h"
#include <math.h>
#include <stdlib.h>

struct estimate statistics_mean(const double *values, size_t n)
{
	struct estimate e = {NAN, NAN};
	double sum = 0, squares = 0;

	if (!n)
		return e;
	for (size_t i = 0; i < n; i++)
		sum += values[i];
	e.value = sum / (double)n;
	for (size_t i = 0; i < n; i++)
		squares += (values[i] - e.value) * (values[i] - e.value);
	if (n > 1)
		e.error = sqrt(squares / (double)n / (double)(n - 1));
	return e;
}

static int ascending(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;
	return (x > y) - (x < y);
}

void statistics_sort(double *values, size_t n)
{
	qsort(values, n, sizeof *values, ascending);
}

double statistics_percentile(const double *sorted, size_t n, double fraction)
{
	if (!n)
		return NAN;
	double at = fraction * (double)(n - 1);
	size_t below = (size_t)at, above = below + 1 < n ? below + 1 : below;
	double part = at - (double)below;
	return part > 0 ? sorted[below] + part * (sorted[above] - sorted[below]) : sorted[below];
}

void comoment_add(struct comoment *c, double x, double y)
{
	double dx = x - c->mean_x, dy = y - c->mean_y, n = (double)++c->n;

	c->mean_x += dx / n;
	c->mean_y += dy / n;
	c->xx += dx * (x - c->mean_x);
	c->yy += dy * (y - c->mean_y);
	c->xy += dx * (y - c->mean_y);
}

double comoment_correlation(const struct comoment *c)
{
	return c->n > 1 && c->xx > 0 && c->yy > 0 ? c->xy / sqrt(c->xx * c->yy) : NAN;
}

double comoment_of_means(const struct comoment *c)
{
	return c->n > 1 ? c->xy / (double)c->n / (double)(c->n - 1) : NAN;
}
