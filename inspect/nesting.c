#include "inspect/nesting.h"

#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

/* Whether the spans differ from those that the width alone would give. */
static int by_runs(const struct budget *budget, const struct config *config, enum axis axis,
				   int layer, bool *out, struct error *err)
{
	struct span_list kept = {0}, plain = {0};
	struct budget prefix = {.n_layers = budget->n_layers};
	budget_set_width(&prefix, axis, budget_width(budget, axis, layer));
	int status = budget_spans(budget, config, axis, layer, &kept, err);
	if (status == 0)
		status = budget_spans(&prefix, config, axis, layer, &plain, err);
	*out = kept.n != plain.n ||
		   (kept.n && memcmp(kept.spans, plain.spans, kept.n * sizeof *kept.spans) != 0);
	free(kept.spans);
	free(plain.spans);
	return status;
}

static int add_row(struct nesting *nesting, const struct config *config, enum axis axis, int layer,
				   struct error *err)
{
	struct nesting_row *row = &nesting->rows[nesting->n_rows++];
	*row = (struct nesting_row){
		.axis = axis, .layer = layer, .parent = axis_parent_width(axis, config)};
	int at = layer < 0 ? 0 : layer;
	for (int i = 0; i < nesting->n_budgets; i++) {
		const struct budget *budget = &nesting->budgets[i];
		if (layer >= 0 && !budget_keeps_layer(budget, layer))
			continue;
		row->width[i] = budget_width(budget, axis, at);
		if (budget->n_runs && by_runs(budget, config, axis, at, &row->runs[i], err) < 0)
			return -1;
	}
	return 0;
}

static int add_rows(struct nesting *nesting, const struct config *config, struct error *err)
{
	size_t most = 1 + (size_t)config->n_layers * N_AXES;
	nesting->rows = mem_new(most, sizeof *nesting->rows, err);
	if (!nesting->rows || add_row(nesting, config, AXIS_HIDDEN, -1, err) < 0)
		return -1;
	for (int layer = 0; layer < config->n_layers; layer++) {
		for (int axis = AXIS_HIDDEN + 1; axis < N_AXES; axis++)
			if (axis_on_layer(axis, config->kinds[layer]) && axis_parent_width(axis, config) > 0 &&
				add_row(nesting, config, axis, layer, err) < 0)
				return -1;
	}
	return 0;
}

static int container_of(const struct nesting *nesting, const struct model *model, int budget)
{
	int container = budget - 1;
	while (budget == model->elastic.n_budgets && container > 0 &&
		   budget_violations(&nesting->budgets[container], &nesting->budgets[budget],
							 &model->config, NULL) > 0)
		container--;
	return container;
}

static int add_cost(struct nesting *nesting, const struct model *model, int i, struct error *err)
{
	struct slice slice;
	if (slice_build(&slice, &model->weights, &model->config, &nesting->budgets[i], NULL, NULL,
					err) < 0)
		return -1;
	nesting->cost[i] = slice.cost;
	precision_costs(&slice, nesting->costs[i]);
	int status = i ? 0 : modules_open(&nesting->modules, model, &slice, err);
	slice_free(&slice);
	return status;
}

/* Channels as a row of flags; a layer that is left out keeps none. */
static int flag_channels(const struct budget *budget, const struct config *config,
						 const struct nesting_row *row, uint8_t *keep, struct error *err)
{
	struct span_list list = {0};
	int layer = row->layer < 0 ? 0 : row->layer, result = 0;
	memset(keep, 0, (size_t)row->parent);
	if (row->layer < 0 || budget_keeps_layer(budget, layer))
		result = budget_spans(budget, config, row->axis, layer, &list, err);
	for (size_t i = 0; i < list.n && !result; i++)
		memset(keep + list.spans[i].start, 1, (size_t)list.spans[i].length);
	free(list.spans);
	return result;
}

/* Which rows of budgets that do not nest are to blame. */
static int mark_broken(struct nesting *nesting, const struct config *config,
					   struct nesting_row *row, struct error *err)
{
	size_t n = (size_t)row->parent;
	uint8_t *keep = mem_new(2 * n, 1, err);
	int result = keep ? 0 : -1;
	for (int b = 1; b < nesting->n_budgets && !result; b++) {
		if (nesting->contained[b])
			continue;
		const struct budget *outer = &nesting->budgets[nesting->container[b]];
		result = flag_channels(outer, config, row, keep, err) ||
						 flag_channels(&nesting->budgets[b], config, row, keep + n, err)
					 ? -1
					 : 0;
		for (size_t i = 0; i < n && !result; i++)
			row->broken[b] = row->broken[b] || (keep[n + i] && !keep[i]);
	}
	free(keep);
	return result;
}

static int add_costs(struct nesting *nesting, const struct model *model, struct error *err)
{
	for (int i = 0; i < nesting->n_budgets; i++) {
		if (add_cost(nesting, model, i, err) < 0)
			return -1;
		nesting->separate_bytes += nesting->cost[i].bytes;
		nesting->container[i] = container_of(nesting, model, i);
		int n = i == 0
					? 0
					: budget_violations(&nesting->budgets[nesting->container[i]],
										&nesting->budgets[i], &model->config, &nesting->violations);
		nesting->contained[i] = n == 0;
		nesting->n_violations += n;
	}
	for (int r = 0; r < nesting->n_rows && nesting->n_violations > 0; r++)
		if (mark_broken(nesting, &model->config, &nesting->rows[r], err) < 0)
			return -1;
	nesting->file_bytes = model->checkpoint.tensor_bytes;
	return text_check(&nesting->violations, err);
}

int nesting_open(struct nesting *nesting, const struct model *model, const struct budget *extra,
				 struct error *err)
{
	*nesting = (struct nesting){0};
	int n = model->elastic.n_budgets;
	for (int i = 0; i < n + (extra && n < MAX_BUDGETS); i++) {
		const struct budget *from = i < n ? &model->elastic.budgets[i] : extra;
		if (budget_copy(&nesting->budgets[i], from, err) < 0) {
			nesting_close(nesting);
			return -1;
		}
		nesting->n_budgets++;
	}
	if (add_rows(nesting, &model->config, err) < 0 || add_costs(nesting, model, err) < 0) {
		nesting_close(nesting);
		return -1;
	}
	return 0;
}

void nesting_close(struct nesting *nesting)
{
	for (int i = 0; i < nesting->n_budgets; i++)
		budget_free(&nesting->budgets[i]);
	free(nesting->rows);
	text_free(&nesting->violations);
	modules_close(&nesting->modules);
	*nesting = (struct nesting){0};
}

int nesting_runs(const struct nesting *nesting, const struct config *config, int budget,
				 const struct nesting_row *row, struct text *out, struct error *err)
{
	if (row->width[budget] == 0) {
		text_add(out, "-");
		return text_check(out, err);
	}
	struct span_list list = {0};
	int status = budget_spans(&nesting->budgets[budget], config, row->axis,
							  row->layer < 0 ? 0 : row->layer, &list, err);
	for (size_t i = 0; i < list.n && status == 0; i++) {
		text_format(out, "%s%d-%d", i ? " " : "", list.spans[i].start,
					list.spans[i].start + list.spans[i].length);
	}
	free(list.spans);
	return status < 0 ? -1 : text_check(out, err);
}

double nesting_share(const struct nesting *nesting, int budget, bool active)
{
	const struct slice_cost *all = &nesting->cost[0], *part = &nesting->cost[budget];
	uint64_t whole = active ? all->active : all->total;
	return whole ? (double)(active ? part->active : part->total) / (double)whole : 0;
}
