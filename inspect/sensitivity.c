#include "inspect/sensitivity.h"
#include "base/memory.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- units ---- */

static void describe(const struct budget *budget, const struct mask_unit *unit, char out[20])
{
	int layer = unit->layer < 0 ? 0 : unit->layer;

	if (unit->kind < N_AXES)
		snprintf(out, 20, "%d", budget_width(budget, (enum axis)unit->kind, layer));
	else if (unit->kind == MASK_TOP_K)
		snprintf(out, 20, "%d", budget->top_k);
	else if (unit->kind == MASK_LAYER)
		snprintf(out, 20, "%s", budget_keeps_layer(budget, layer) ? "kept" : "left out");
	else if (unit->kind == MASK_NORM)
		snprintf(out, 20, "%s", norm_rule_name(budget->norm));
	else if (unit->kind == MASK_HEADS)
		snprintf(out, 20, "%s", heads_rule_name(budget->heads));
	else
		snprintf(out, 20, "%d forced", budget->n_forced);
}

static const struct mask_unit *same_unit(const struct mask_units *units,
										 const struct mask_unit *unit)
{
	for (int i = 0; i < units->n; i++)
		if (units->units[i].layer == unit->layer && units->units[i].kind == unit->kind)
			return &units->units[i];
	return NULL;
}

/* ---- what is tried ---- */

struct tries {
	struct budget *budgets; // [0] is SMALL
	struct trial *trials;
	int n;
	int *cut, *without; // index of each unit's, -1 = it cannot stand
};

/* A copy with one term more; not an error where that leaves no budget (more experts a token than
 * are kept). Returns its index, -1 without one, -2 without memory. */
static int add_try(struct tries *tries, const struct config *config, const struct budget *from,
				   const struct mask_unit *unit, struct error *err)
{
	struct budget *to = &tries->budgets[tries->n];
	struct error refused;

	if (!unit)
		return -1;
	if (budget_copy(to, from, err))
		return -2;
	if (budget_edit(to, config, unit->term, &refused)) {
		budget_free(to);
		return -1;
	}
	return tries->n++;
}

static int open_tries(struct tries *tries, const struct trials_plan *plan,
					  const struct budget *small, const struct mask_units *down,
					  const struct mask_units *up, struct error *err)
{
	const struct config *config = &plan->model->config;
	size_t n = (size_t)down->n;

	tries->budgets = mem_new(1 + 2 * n, sizeof *tries->budgets, err);
	tries->trials = mem_new(1 + 2 * n, sizeof *tries->trials, err);
	tries->cut = mem_new(n, sizeof *tries->cut, err);
	tries->without = mem_new(n, sizeof *tries->without, err);
	if (!tries->budgets || !tries->trials || !tries->cut || !tries->without ||
		budget_copy(&tries->budgets[0], small, err))
		return -1;
	tries->n = 1;
	for (int i = 0; i < down->n; i++) {
		const struct mask_unit *unit = &down->units[i];
		tries->cut[i] = add_try(tries, config, plan->base, unit, err);
		tries->without[i] = add_try(tries, config, small, same_unit(up, unit), err);
		if (tries->cut[i] == -2 || tries->without[i] == -2)
			return -1;
	}
	return 0;
}

static void close_tries(struct tries *tries)
{
	for (int i = 0; i < tries->n; i++)
		budget_free(&tries->budgets[i]);
	free(tries->budgets);
	free(tries->trials);
	free(tries->cut);
	free(tries->without);
}

/* ---- what comes out ---- */

static int falling(const void *a, const void *b)
{
	const struct sensitivity_row *x = a, *y = b;
	double p = isnan(x->cut.kl.value) ? -1 : x->cut.kl.value;
	double q = isnan(y->cut.kl.value) ? -1 : y->cut.kl.value;

	if (p != q)
		return (p < q) - (p > q);
	return x->layer != y->layer ? (x->layer > y->layer) - (x->layer < y->layer)
								: (x->kind > y->kind) - (x->kind < y->kind);
}

static const struct trial unknown = {{NAN, NAN}, {NAN, NAN}, NAN};

static void add_row(struct sensitivity *out, const struct mask_unit *unit,
					const struct tries *tries, int i, const char *change)
{
	struct sensitivity_row *row = &out->rows[out->n++];

	*row = (struct sensitivity_row){.layer = unit->layer, .kind = unit->kind};
	snprintf(row->change, sizeof row->change, "%s", change);
	row->cut = tries->cut[i] < 0 ? unknown : tries->trials[tries->cut[i]];
	row->without = tries->without[i] < 0 ? unknown : tries->trials[tries->without[i]];
	row->regained = out->joint.kl.value - row->without.kl.value;
	out->sum_cut += tries->cut[i] < 0 ? 0 : row->cut.kl.value;
	out->sum_regained += tries->without[i] < 0 ? 0 : row->regained;
}

static int results(struct sensitivity *out, const struct trials_plan *plan,
				   const struct budget *small, const struct mask_units *units,
				   const struct tries *tries, struct error *err)
{
	out->rows = mem_new((size_t)units->n, sizeof *out->rows, err);
	if (!out->rows)
		return -1;
	out->joint = tries->trials[0];
	for (int i = 0; i < units->n; i++) {
		char before[20], after[20], change[48];
		describe(plan->base, &units->units[i], before);
		describe(small, &units->units[i], after);
		snprintf(change, sizeof change, "%s -> %s", before, after);
		add_row(out, &units->units[i], tries, i, change);
	}
	qsort(out->rows, (size_t)out->n, sizeof *out->rows, falling);
	return 0;
}

int sensitivity_run(struct sensitivity *out, const struct trials_plan *plan,
					const struct budget *small, struct error *err)
{
	const struct config *config = &plan->model->config;
	struct mask_units down = {0}, up = {0};
	struct tries tries = {0};

	*out = (struct sensitivity){0};
	int result = mask_units(plan->base, small, config, &down, err);
	if (!result)
		result = mask_units(small, plan->base, config, &up, err);
	if (!result && down.n == 0)
		result = fail(err, "%s and %s keep the same: nothing to tell apart", plan->base->name,
					  small->name);
	if (!result)
		result = open_tries(&tries, plan, small, &down, &up, err);
	if (!result)
		result = trials_run(plan, tries.budgets, tries.n, tries.trials, &out->large, err);
	if (!result)
		result = results(out, plan, small, &down, &tries, err);
	close_tries(&tries);
	mask_units_free(&down);
	mask_units_free(&up);
	if (result)
		sensitivity_free(out);
	return result;
}

void sensitivity_free(struct sensitivity *out)
{
	free(out->rows);
	*out = (struct sensitivity){0};
}
