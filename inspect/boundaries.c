#include "inspect/boundaries.h"
#include "base/memory.h"
#include "inspect/statistics.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LONGEST 64 // channels that a line is fitted to
#define NEARLY 6.0 // places where the lines' deviance is at most this much more may be meant
#define NEAR 4     // and this close by

/* ---- Student's t ---- */

/* The continued fraction of the incomplete beta function, even and odd steps in turn (modified
 * Lentz). */
static double beta_fraction(double x, double a, double b)
{
	double c = 1, d = 1 - (a + b) * x / (a + 1), f;

	d = 1 / (fabs(d) < 1e-300 ? 1e-300 : d);
	f = d;
	for (int i = 1; i < 300; i++) {
		double even = i * (b - i) * x / ((a + 2 * i - 1) * (a + 2 * i));
		double odd = -(a + i) * (a + b + i) * x / ((a + 2 * i) * (a + 2 * i + 1));
		for (int k = 0; k < 2; k++) {
			double step = k ? odd : even;
			d = 1 + step * d;
			c = 1 + step / c;
			d = 1 / (fabs(d) < 1e-300 ? 1e-300 : d);
			c = fabs(c) < 1e-300 ? 1e-300 : c;
			f *= c * d;
			if (k && fabs(c * d - 1) < 1e-15)
				return f;
		}
	}
	return f;
}

/* I_x(a, b) */
static double beta_share(double x, double a, double b)
{
	if (x <= 0)
		return 0;
	if (x >= 1)
		return 1;
	double front = exp(lgamma(a + b) - lgamma(a) - lgamma(b) + a * log(x) + b * log1p(-x));
	if (x < (a + 1) / (a + b + 2))
		return front * beta_fraction(x, a, b) / a;
	return 1 - front * beta_fraction(1 - x, b, a) / b;
}

double student_two_sided(double t, double df)
{
	return isinf(t) ? 0 : beta_share(df / (df + t * t), df / 2, 0.5);
}

/* ---- profiles ---- */

int boundaries_open(struct boundaries *out, const struct config *config, struct error *err)
{
	*out = (struct boundaries){0};
	for (int a = 0; a < N_AXES; a++) {
		struct boundary_axis *axis = &out->axes[a];
		if (!axis_in_model(a, config))
			continue;
		axis->groups = axis_groups(a, config);
		axis->n = axis_parent_width(a, config) / axis->groups;
		axis->too_short = axis->n < 2 * BOUNDARY_SIDE;
		axis->pooled = mem_new((size_t)axis->n, sizeof *axis->pooled, err);
		axis->mean = mem_new((size_t)axis->n, sizeof *axis->mean, err);
		if (!axis->pooled || !axis->mean) {
			boundaries_free(out);
			return -1;
		}
	}
	return 0;
}

void boundaries_free(struct boundaries *out)
{
	for (int a = 0; a < N_AXES; a++) {
		free(out->axes[a].pooled);
		free(out->axes[a].mean);
	}
	free(out->list);
	*out = (struct boundaries){0};
}

/* The scatter of neighbours, of which a step is one difference and a trend a small part. */
static double noise_of(const double *value, int n, double *room)
{
	for (int i = 0; i + 1 < n; i++)
		room[i] = fabs(value[i + 1] - value[i]);
	statistics_sort(room, (size_t)n - 1);
	return statistics_percentile(room, (size_t)n - 1, 0.5) * 1.4826 / sqrt(2);
}

int boundaries_add(struct boundaries *out, enum axis a, const double *squares, struct error *err)
{
	struct boundary_axis *axis = &out->axes[a];
	double *value = mem_new((size_t)axis->n * 2 + 1, sizeof *value, err);

	if (!value)
		return -1;
	for (int g = 0; g < axis->groups && axis->n > 1; g++) {
		bool zero = false;
		for (int i = 0; i < axis->n; i++) {
			double square = squares[g * axis->n + i];
			zero = zero || !(square > 0) || !isfinite(square);
			value[i] = zero ? 0 : 0.5 * log(square);
		}
		double noise = zero ? 0 : noise_of(value, axis->n, value + axis->n);
		if (!(noise > 0))
			continue;
		for (int i = 0; i < axis->n; i++) {
			axis->pooled[i] += value[i] / noise;
			axis->mean[i] += value[i];
		}
		axis->profiles++;
	}
	free(value);
	return 0;
}

/* ---- the search ---- */

struct fit {
	double gap, rss, variance; // at the border, in units of the residual variance
};

/* A line through n values that lie 1/2, 3/2, ... from the border; direction -1: before it. */
static struct fit fit_line(const double *border, int n, int direction)
{
	double mean_x = n / 2.0, mean = 0, xx = 0, xy = 0, rss = 0;

	for (int i = 0; i < n; i++)
		mean += border[direction < 0 ? -1 - i : i] / n;
	for (int i = 0; i < n; i++) {
		double x = i + 0.5 - mean_x;
		xx += x * x;
		xy += x * (border[direction < 0 ? -1 - i : i] - mean);
	}
	for (int i = 0; i < n; i++) {
		double x = i + 0.5 - mean_x;
		double rest = border[direction < 0 ? -1 - i : i] - mean - xy / xx * x;
		rss += rest * rest;
	}
	return (struct fit){mean - xy / xx * mean_x, rss, 1.0 / n + mean_x * mean_x / xx};
}

struct place {
	int before, behind; // channels that the lines may use
	double t, p;
};

static void try_place(const struct boundary_axis *axis, int at, struct place *place)
{
	struct fit left = fit_line(axis->pooled + at, place->before, -1);
	struct fit right = fit_line(axis->pooled + at, place->behind, 1);
	int df = place->before + place->behind - 4;
	double gap = right.gap - left.gap;
	double error = sqrt((left.rss + right.rss) / df * (left.variance + right.variance));

	place->t = gap == 0 ? 0 : gap / error;
	place->p = student_two_sided(place->t, df);
}

static int line_length(const struct boundary_axis *axis)
{
	int quarter = axis->n / 4;

	return quarter < BOUNDARY_SIDE ? BOUNDARY_SIDE : quarter > LONGEST ? LONGEST : quarter;
}

/* All places between the borders found so far; t NAN where lines would be too short. */
static int try_places(const struct boundary_axis *axis, const uint8_t *border, struct place *places)
{
	int longest = line_length(axis), best = -1, end = 0;

	for (int at = 0, start = 0; at < axis->n; at++) {
		struct place *place = &places[at];
		if (border[at])
			start = at;
		if (at >= end)
			for (end = at + 1; end < axis->n && !border[end]; end++)
				;
		place->before = at - start < longest ? at - start : longest;
		place->behind = end - at < longest ? end - at : longest;
		place->t = NAN;
		if (border[at] || place->before < BOUNDARY_SIDE || place->behind < BOUNDARY_SIDE)
			continue;
		try_place(axis, at, place);
		if (best < 0 || place->p < places[best].p ||
			(place->p == places[best].p && fabs(place->t) > fabs(places[best].t)))
			best = at;
	}
	return best;
}

/* How many places a search without borders tries. */
static int n_places(const struct boundary_axis *axis)
{
	return axis->profiles && !axis->too_short ? axis->n - 2 * BOUNDARY_SIDE + 1 : 0;
}

/* The one that the most halvings leave whole. */
static int roundest(int low, int high)
{
	int best = low;

	for (int i = low; i <= high; i++)
		if ((i & -i) > (best & -best))
			best = i;
	return best;
}

/* How much a step there explains: the fall of the deviance, n log(1 + t^2 / df). */
static double explained(const struct place *place)
{
	int n = place->before + place->behind;

	return isnan(place->t) ? 0 : n * log1p(place->t * place->t / (n - 4));
}

/* The last of up to NEAR places in one direction that fit nearly as well, in the same sense. */
static int as_good(const struct boundary_axis *axis, int at, const struct place *places, int way)
{
	int to = at;

	for (int i = at + way; i > 0 && i < axis->n && abs(i - at) <= NEAR; i += way) {
		if (!(places[i].t * places[at].t > 0) ||
			explained(&places[i]) < explained(&places[at]) - NEARLY)
			break;
		to = i;
	}
	return to;
}

static struct boundary boundary_of(const struct boundary_axis *axis, enum axis a, int at,
								   const struct place *places, int tried)
{
	const struct place *place = &places[at];
	struct fit left = fit_line(axis->mean + at, place->before, -1);
	struct fit right = fit_line(axis->mean + at, place->behind, 1);
	struct boundary b = {.axis = a, .at = at, .t = place->t};

	b.low = as_good(axis, at, places, -1);
	b.high = as_good(axis, at, places, 1);
	b.width = roundest(b.low, b.high) * axis->groups;
	b.step = exp((right.gap - left.gap) / axis->profiles) - 1;
	b.p = fmin(1, place->p * tried);
	b.found = b.p <= BOUNDARY_FOUND;
	return b;
}

static int by_place(const void *a, const void *b)
{
	const struct boundary *x = a, *y = b;

	return x->axis != y->axis ? (int)x->axis - (int)y->axis : x->at - y->at;
}

static int search_axis(struct boundaries *out, enum axis a, struct error *err)
{
	const struct boundary_axis *axis = &out->axes[a];
	struct place *places = mem_new((size_t)axis->n, sizeof *places, err);
	uint8_t *border = mem_new((size_t)axis->n, 1, err);
	int result = places && border ? 0 : -1;

	while (!result) {
		int best = try_places(axis, border, places);
		if (best < 0 || places[best].p * out->places > BOUNDARY_WEAK)
			break;
		result = mem_grow(&out->list, &out->capacity, (size_t)out->n + 1, sizeof *out->list, err);
		if (!result)
			out->list[out->n++] = boundary_of(axis, a, best, places, out->places);
		border[best] = 1;
	}
	free(places);
	free(border);
	return result;
}

int boundaries_search(struct boundaries *out, struct error *err)
{
	out->places = 0;
	for (int a = 0; a < N_AXES; a++)
		out->places += n_places(&out->axes[a]);
	for (int a = 0; a < N_AXES; a++)
		if (n_places(&out->axes[a]) && search_axis(out, a, err))
			return -1;
	if (out->n)
		qsort(out->list, (size_t)out->n, sizeof *out->list, by_place);
	return 0;
}

/* ---- elastic.json ---- */

static int count_found(const struct boundaries *found, enum axis axis)
{
	int n = 0;

	for (int i = 0; i < found->n; i++)
		n += found->list[i].axis == axis && found->list[i].found;
	return n;
}

/* The k-th boundary from above; the last where there are fewer, 0 where there is none. */
static int width_of(const struct boundaries *found, enum axis axis, int k)
{
	int width = 0;

	for (int i = found->n - 1; i >= 0 && k > 0; i--)
		if (found->list[i].axis == axis && found->list[i].found) {
			width = found->list[i].width;
			k--;
		}
	return width;
}

static void add_budget(const struct boundaries *found, const struct config *config, int k,
					   struct text *out)
{
	if (k > 0)
		text_format(out, ",\n  {\"name\": \"found-%d\"", k);
	else
		text_add(out, "  {\"name\": \"parent\"");
	for (int a = 0; a < N_AXES; a++) {
		int width = k > 0 ? width_of(found, a, k) : 0;
		if (axis_in_model(a, config))
			text_format(out, ", \"%s\": %d", axis_name(a),
						width ? width : axis_parent_width(a, config));
	}
	text_add(out, "}");
}

int boundaries_elastic(const struct boundaries *found, const struct config *config,
					   struct text *out, struct error *err)
{
	int most = 0;

	for (int a = 0; a < N_AXES; a++)
		most = count_found(found, a) > most ? count_found(found, a) : most;
	text_add(out, "{\n \"format\": \"elastic-1\",\n \"budgets\": [\n");
	for (int k = 0; k <= most; k++)
		add_budget(found, config, k, out);
	text_add(out,
			 "\n ],\n \"provenance\": \"found in the weights by inspect boundaries, as steps of "
			 "the channels' norms; which axes belong together is a guess\"\n}\n");
	return text_check(out, err);
}
