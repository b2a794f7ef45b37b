#include "inspect/experts.h"

#include "base/memory.h"
#include "inspect/importance.h"
#include "inspect/rank.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static void add_counts(struct experts_row *row, const struct expert_counts *counts, unsigned phases,
					   int n_experts)
{
	for (int phase = 0; phase < N_PHASES; phase++) {
		if (!(phases & 1u << phase))
			continue;
		size_t at = ((size_t)phase * (size_t)counts->n_layers + (size_t)row->layer) *
					(size_t)counts->n_experts;
		for (int e = 0; e < n_experts; e++) {
			row->counts[e] += counts->counts[at + (size_t)e];
			row->routed += counts->counts[at + (size_t)e];
		}
	}
}

static void find_top(struct experts_row *row, int n_experts)
{
	for (int e = 0; e < n_experts; e++) {
		if (row->counts[e] == 0)
			continue;
		int at = row->n_top < EXPERTS_TOP ? row->n_top : EXPERTS_TOP;
		while (at > 0 && row->counts[row->top[at - 1]] < row->counts[e])
			at--;
		if (at == EXPERTS_TOP)
			continue;
		row->n_top += row->n_top < EXPERTS_TOP;
		for (int i = row->n_top - 1; i > at; i--)
			row->top[i] = row->top[i - 1];
		row->top[at] = e;
	}
}

static int mark_kept(struct experts_row *row, const struct config *config,
					 const struct budget *budget, struct error *err)
{
	struct span_list list = {0};
	if (!budget_keeps_layer(budget, row->layer))
		return 0;
	int status = budget_spans(budget, config, AXIS_EXPERTS, row->layer, &list, err);
	for (size_t s = 0; s < list.n && status == 0; s++) {
		for (int i = 0; i < list.spans[s].length; i++) {
			row->kept[list.spans[s].start + i] = true;
			row->n_kept++;
		}
	}
	free(list.spans);
	return status;
}

static int open_row(struct experts_row *row, const struct model *model,
					const struct expert_counts *counts, unsigned phases,
					const struct budget *budget, struct error *err)
{
	int n = model->config.n_routed_experts;
	row->counts = mem_new((size_t)n, sizeof *row->counts, err);
	row->kept = mem_new((size_t)n, sizeof *row->kept, err);
	if (!row->counts || !row->kept || mark_kept(row, &model->config, budget, err) < 0)
		return -1;
	if (counts && counts->counts && counts->n_experts >= n && counts->n_layers > row->layer)
		add_counts(row, counts, phases, n);
	find_top(row, n);
	uint64_t outside = 0;
	for (int e = 0; e < n; e++)
		outside += row->kept[e] ? 0 : row->counts[e];
	row->outside = row->routed ? (double)outside / (double)row->routed : 0;
	row->entropy = rank_entropy(row->counts, n);
	row->normalised = row->n_kept > 1 ? fmin(1, row->entropy / log2(row->n_kept)) : 0;
	char name[64];
	snprintf(name, sizeof name, "%d.n_routed_experts.reap", row->layer);
	row->reap = importance_scores(model, name, n);
	snprintf(name, sizeof name, "%d.n_routed_experts.count", row->layer);
	row->frequency = importance_scores(model, name, n);
	return 0;
}

int experts_open(struct experts_view *view, const struct model *model,
				 const struct expert_counts *counts, unsigned phases, const struct budget *budget,
				 struct error *err)
{
	*view = (struct experts_view){.n_experts = model->config.n_routed_experts};
	int n = config_layers_of(&model->config, LAYER_MOE);
	view->rows = mem_new((size_t)n, sizeof *view->rows, err);
	if (!view->rows)
		return -1;
	for (int i = 0; i < model->config.n_layers; i++) {
		if (model->config.kinds[i] != LAYER_MOE)
			continue;
		struct experts_row *row = &view->rows[view->n_rows++];
		row->layer = i;
		if (open_row(row, model, counts, phases, budget, err) < 0) {
			experts_close(view);
			return -1;
		}
	}
	return 0;
}

void experts_close(struct experts_view *view)
{
	for (int i = 0; i < view->n_rows; i++) {
		free(view->rows[i].counts);
		free(view->rows[i].kept);
	}
	free(view->rows);
	*view = (struct experts_view){0};
}
