#include "inspect/agreement.h"

#include "base/memory.h"
#include "inspect/rank.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct orders {
	struct agreement *out;
	const struct model *model;
	const struct agreement_plan *plan;
	struct importance_curve curves[AGREEMENT_MAX]; // n 0 = as stored
};

static void add_inverted(struct orders *o)
{
	const struct importance_curve *curve = &o->curves[o->out->n];
	o->out->inverted[o->out->n++] =
		curve->pairs > 0 ? (double)curve->inversions / (double)curve->pairs : (double)NAN;
}

/* One more order, unless nobody knows its scores. */
static int add(struct orders *o, enum importance_metric metric, const struct scores *scores,
			   const char *what, struct error *err)
{
	const struct agreement_plan *plan = o->plan;
	struct agreement *out = o->out;
	struct importance_query query = {.axis = plan->axis,
									 .layer = plan->layer,
									 .expert = plan->expert,
									 .metric = metric,
									 .watch = plan->watch,
									 .scores = scores};
	struct importance_curve *curve = &o->curves[out->n];
	if (importance_open(curve, o->model, &query, err) < 0)
		return -1;
	if (curve->n == 0 || (metric != IMPORTANCE_WEIGHTS && curve->origin == ORIGIN_DERIVED)) {
		importance_close(curve);
		return 0;
	}
	snprintf(out->name[out->n], sizeof out->name[0], "%s%s%s", what, *what && scores ? " " : "",
			 scores  ? scores->text
			 : *what ? ""
					 : "file");
	add_inverted(o);
	return 0;
}

static int copy_norms(struct orders *o, struct error *err)
{
	struct importance_curve *curve = &o->curves[o->out->n];
	*curve = *o->plan->norms;
	curve->score = mem_new((size_t)curve->n, sizeof *curve->score, err);
	if (!curve->score)
		return -1;
	memcpy(curve->score, o->plan->norms->score, (size_t)curve->n * sizeof *curve->score);
	snprintf(o->out->name[o->out->n], sizeof o->out->name[0], "weights");
	add_inverted(o);
	return 0;
}

static int add_source(struct orders *o, const struct scores *scores, struct error *err)
{
	if (o->plan->axis != AXIS_EXPERTS)
		return add(o, IMPORTANCE_DEFAULT, scores, "", err);
	return add(o, IMPORTANCE_DEFAULT, scores, "REAP", err) < 0
			   ? -1
			   : add(o, IMPORTANCE_COUNT, scores, "count", err);
}

static int open_orders(struct orders *o, struct error *err)
{
	snprintf(o->out->name[o->out->n++], sizeof o->out->name[0], "stored");
	if (o->plan->norms && copy_norms(o, err) < 0)
		return -1;
	if (!o->plan->norms && o->plan->weights && add(o, IMPORTANCE_WEIGHTS, NULL, "weights", err) < 0)
		return -1;
	if (o->model->importance.n_tensors > 0 && add_source(o, NULL, err) < 0)
		return -1;
	for (int i = 0; i < o->plan->n_measured; i++)
		if (add_source(o, o->plan->measured[i], err) < 0)
			return -1;
	return 0;
}

/* Inside groups, whose mean counts. */
static int correlate(const struct importance_curve *a, const struct importance_curve *b,
					 double *rho, struct error *err)
{
	int each = b->n / b->n_groups, defined = 0;
	double sum = 0, one = 0;
	for (int g = 0; g < b->n_groups; g++) {
		const float *of_b = b->score + g * each;
		int status = a->n == 0 ? rank_stored(of_b, each, &one, err)
							   : rank_spearman(a->score + g * each, of_b, each, &one, err);
		if (status < 0)
			return -1;
		sum += isnan(one) ? 0 : one;
		defined += !isnan(one);
	}
	*rho = defined ? sum / defined : (double)NAN;
	return 0;
}

int agreement_of(struct agreement *out, const struct model *model,
				 const struct agreement_plan *plan, struct error *err)
{
	*out = (struct agreement){0};
	struct orders *o = mem_new(1, sizeof *o, err);
	if (!o)
		return -1;
	*o = (struct orders){.out = out, .model = model, .plan = plan};
	int status = open_orders(o, err);
	for (int a = 0; a < out->n && status == 0; a++) {
		out->rho[a][a] = 1;
		for (int b = a + 1; b < out->n && status == 0; b++) {
			status = correlate(&o->curves[a], &o->curves[b], &out->rho[a][b], err);
			out->rho[b][a] = out->rho[a][b];
		}
	}
	for (int i = 0; i < AGREEMENT_MAX; i++)
		importance_close(&o->curves[i]);
	free(o);
	return status;
}

int agreement_find(const struct agreement *agreement, const char *name)
{
	for (int i = 0; i < agreement->n; i++)
		if (strcmp(agreement->name[i], name) == 0)
			return i;
	return -1;
}
