#include "inspect/importance.h"

#include "base/memory.h"
#include "core/quantised.h"
#include "inspect/norms.h"
#include "inspect/rank.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct tensor *lookup(const struct checkpoint *file, const char *name)
{
	char full[128];
	snprintf(full, sizeof full, "importance.%s", name);
	return file->n_tensors ? checkpoint_find(file, full) : NULL;
}

const float *importance_scores(const struct model *model, const char *name, int64_t n)
{
	const struct tensor *t = lookup(&model->importance, name);
	return t && t->dtype == DTYPE_F32 && t->n_dims == 1 && t->shape[0] == n ? t->data : NULL;
}

/* Finds a tensor and checks it to be F32 [rows, n] (rows 0: [n]). *out NULL if there is none. */
static int find(const struct checkpoint *file, const char *name, int64_t rows, int64_t n,
				const float **out, struct error *err)
{
	const struct tensor *t = lookup(file, name);
	char full[128];
	*out = NULL;
	if (!t)
		return 0;
	int dims = rows ? 2 : 1;
	if (t->dtype != DTYPE_F32 || t->n_dims != dims || t->shape[dims - 1] != n ||
		(rows && t->shape[0] != rows)) {
		char found[80], expected[48];
		shape_text(found, sizeof found, t->shape, t->n_dims);
		shape_text(expected, sizeof expected, rows ? (int64_t[]){rows, n} : &n, dims);
		return fail(err, "importance.%s is %s %s, expected F32 %s", name, dtype_name(t->dtype),
					found, expected);
	}
	snprintf(full, sizeof full, "importance.%s", name);
	*out = t->data;
	return scores_check(full, t, err);
}

/* A column-wise mean over rows (experts) of equal weight. */
static void mean_rows(const float *from, int rows, int n, float *out)
{
	for (int r = 0; r < rows; r++)
		for (int i = 0; i < n; i++)
			out[i] += from[(size_t)r * (size_t)n + (size_t)i] / (float)rows;
}

/* Copies the file's scores into curve->score. 1 = found, 0 = there are none, -1 = wrong shape. */
static int from_file(struct importance_curve *curve, const struct model *model, struct error *err)
{
	const struct importance_query *q = &curve->query;
	char name[96];
	const float *from;
	int64_t rows = 0;
	int row = 0;
	curve->unit = "mean abs";
	if (q->axis == N_AXES) {
		snprintf(name, sizeof name, "layers");
		curve->unit = "normalised logit MSE";
	} else if (q->axis == AXIS_HIDDEN) {
		snprintf(name, sizeof name, q->layer < 0 ? "hidden_size" : "hidden_size.layers");
		rows = q->layer < 0 ? 0 : model->config.n_layers;
		row = q->layer;
	} else if (q->axis == AXIS_EXPERTS) {
		bool count = q->metric == IMPORTANCE_COUNT;
		snprintf(name, sizeof name, "%d.n_routed_experts.%s", q->layer, count ? "count" : "reap");
		curve->unit = count ? "share of tokens" : "REAP";
	} else {
		snprintf(name, sizeof name, "%d.%s", q->layer, axis_name(q->axis));
		rows = q->axis == AXIS_EXPERT_FFN ? model->config.n_routed_experts : 0;
		row = q->expert;
		if (q->axis == AXIS_MAMBA_HEADS || q->axis == AXIS_MAMBA_CHANNELS)
			curve->unit = "L2 of x";
		else if (q->axis == AXIS_ATTENTION_HEADS)
			curve->unit = "mean L2";
	}
	if (find(q->scores ? &q->scores->file : &model->importance, name, rows, curve->n, &from, err) <
		0)
		return -1;
	if (!from)
		return 0;
	if (rows && row < 0) {
		mean_rows(from, (int)rows, curve->n, curve->score);
	} else {
		memcpy(curve->score, from + (rows ? (size_t)row * (size_t)curve->n : 0),
			   (size_t)curve->n * sizeof *from);
	}
	curve->origin = q->scores ? ORIGIN_MEASURED : ORIGIN_FILE;
	return 1;
}

static int check(const struct importance_query *q, const struct config *c, struct error *err)
{
	const char *name = q->axis == N_AXES ? "layers" : axis_name(q->axis);
	if ((q->axis == N_AXES && q->layer >= 0) || q->layer >= c->n_layers ||
		(q->layer < 0 && q->axis != N_AXES && q->axis != AXIS_HIDDEN) ||
		(q->layer >= 0 && !axis_on_layer(q->axis, c->kinds[q->layer])))
		return fail(err, "importance of %s: layer %d has no such axis", name, q->layer);
	if (q->expert >= 0 && (q->axis != AXIS_EXPERT_FFN || q->expert >= c->n_routed_experts))
		return fail(err, "importance of %s: no expert %d", name, q->expert);
	if (q->metric == IMPORTANCE_COUNT && q->axis != AXIS_EXPERTS)
		return fail(err, "importance of %s: token counts are of experts only", name);
	return 0;
}

/* Order inside each group: descending, inversions, Spearman averaged over the groups where it
 * exists. */
static int rank(struct importance_curve *curve, struct error *err)
{
	int each = curve->n / curve->n_groups, defined = 0;
	double sum = 0;
	for (int i = 0; i < curve->n; i++)
		curve->total += (double)curve->score[i];
	curve->spearman = NAN;
	if (curve->query.axis == N_AXES)
		return 0; // layers are not stored by importance
	for (int g = 0; g < curve->n_groups; g++) {
		double rho;
		const float *score = curve->score + g * each;
		if (rank_stored(score, each, &rho, err) < 0)
			return -1;
		if (!isnan(rho)) {
			sum += rho;
			defined++;
		}
		curve->inversions += rank_inversions(score, each);
		curve->pairs += (int64_t)each * (each - 1) / 2;
	}
	curve->spearman = defined ? sum / defined : NAN;
	curve->descending = curve->inversions == 0;
	return 0;
}

/* Which channels a budget keeps: 1 each, into kept (n), zeroed. */
static int mark_kept(const struct importance_curve *curve, const struct config *config,
					 const struct budget *budget, uint8_t *kept, struct error *err)
{
	const struct importance_query *q = &curve->query;
	struct span_list list = {0};
	int status = 0;
	if (q->axis == N_AXES) {
		for (int i = 0; i < curve->n; i++)
			kept[i] = budget_keeps_layer(budget, i);
		return 0;
	}
	if (q->layer < 0 || budget_keeps_layer(budget, q->layer))
		status = budget_spans(budget, config, q->axis, q->layer < 0 ? 0 : q->layer, &list, err);
	for (size_t s = 0; s < list.n && status == 0; s++)
		for (int i = 0; i < list.spans[s].length && list.spans[s].start + i < curve->n; i++)
			kept[list.spans[s].start + i] = 1;
	free(list.spans);
	return status;
}

/* The shares that budget i keeps, and that as many of the best channels of each group would. */
static int shares(struct importance_curve *curve, const struct config *config,
				  const struct budget *budget, int i, struct error *err)
{
	int each = curve->n / curve->n_groups;
	uint8_t *kept = mem_new((size_t)curve->n, sizeof *kept, err);
	int *order = kept ? mem_new((size_t)each, sizeof *order, err) : NULL;
	int status = order ? mark_kept(curve, config, budget, kept, err) : -1;
	double sum = 0, best = 0;
	for (int g = 0; g < curve->n_groups && status == 0; g++) {
		const float *score = curve->score + g * each;
		int n = 0;
		for (int k = 0; k < each; k++) {
			sum += kept[g * each + k] ? (double)score[k] : 0;
			n += kept[g * each + k];
		}
		status = rank_order(score, each, order, err);
		for (int k = 0; k < n && status == 0; k++)
			best += (double)score[order[k]];
	}
	curve->retained[i] = curve->total > 0 ? sum / curve->total : 0;
	curve->best[i] = curve->total > 0 ? best / curve->total : 0;
	free(order);
	free(kept);
	return status;
}

static int cut(struct importance_curve *curve, const struct model *model, struct error *err)
{
	const struct importance_query *q = &curve->query;
	curve->n_budgets = model->elastic.n_budgets;
	for (int i = 0; i < curve->n_budgets; i++) {
		const struct budget *budget = &model->elastic.budgets[i];
		if (shares(curve, &model->config, budget, i, err) < 0)
			return -1;
		if (q->axis == N_AXES)
			for (int l = 0; l < curve->n; l++)
				curve->width[i] += budget_keeps_layer(budget, l);
		else if (q->layer < 0 || budget_keeps_layer(budget, q->layer))
			curve->width[i] = budget_width(budget, q->axis, q->layer < 0 ? 0 : q->layer);
	}
	return 0;
}

static int fill(struct importance_curve *curve, const struct model *model, struct error *err)
{
	const struct importance_query *q = &curve->query;
	int found = q->metric == IMPORTANCE_WEIGHTS ? 0 : from_file(curve, model, err);
	if (found < 0)
		return -1;
	if (!found && (q->axis == N_AXES || q->metric == IMPORTANCE_COUNT)) {
		curve->n = 0; // nobody knows
		curve->spearman = NAN;
		return 0;
	}
	if (!found) {
		curve->origin = ORIGIN_DERIVED;
		curve->unit = "L2 norm of weights";
		if (norms_of(model, q->axis, q->layer, q->expert, q->watch, curve->score, err) < 0)
			return -1;
	}
	return rank(curve, err) < 0 ? -1 : cut(curve, model, err);
}

int importance_open(struct importance_curve *curve, const struct model *model,
					const struct importance_query *query, struct error *err)
{
	*curve = (struct importance_curve){.query = *query, .n_groups = 1, .unit = ""};
	if (check(query, &model->config, err) < 0)
		return -1;
	curve->n = model->config.n_layers;
	if (query->axis != N_AXES) {
		curve->n = axis_parent_width(query->axis, &model->config);
		curve->n_groups = axis_groups(query->axis, &model->config);
	}
	curve->score = mem_new((size_t)curve->n, sizeof *curve->score, err);
	if (!curve->score || fill(curve, model, err) < 0) {
		importance_close(curve);
		return -1;
	}
	return 0;
}

void importance_close(struct importance_curve *curve)
{
	free(curve->score);
	*curve = (struct importance_curve){0};
}

void importance_cumulative(const struct importance_curve *curve, double *cumulative)
{
	double sum = 0;
	for (int i = 0; i < curve->n; i++) {
		sum += (double)curve->score[i];
		cumulative[i] = curve->total > 0 ? sum / curve->total : 0;
	}
}

int importance_places(const struct importance_curve *curve, int *place, struct error *err)
{
	int each = curve->n_groups > 0 ? curve->n / curve->n_groups : 0;
	int *order = mem_new((size_t)each, sizeof *order, err);
	int status = order ? 0 : -1;
	for (int g = 0; g < curve->n_groups && status == 0; g++) {
		status = rank_order(curve->score + g * each, each, order, err);
		for (int k = 0; k < each && status == 0; k++)
			place[g * each + order[k]] = k + 1;
	}
	free(order);
	return status;
}
