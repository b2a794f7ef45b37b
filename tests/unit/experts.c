#include "inspect/experts.h"
#include "inspect/memory.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/opened.h"

static void counts_by_phase_and_budget(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "../demo", NULL);
	struct expert_counts counts = {.n_layers = 9, .n_experts = 16};
	counts.counts = calloc(N_PHASES * 9 * 16, sizeof *counts.counts);
	uint32_t *layer4 = counts.counts + (PHASE_THINK * 9 + 4) * 16;
	layer4[2] = 4;
	layer4[7] = 2;
	layer4[12] = 1;
	layer4[15] = 1;
	counts.counts[(PHASE_PREFILL * 9 + 4) * 16 + 3] = 100;
	counts.counts[(PHASE_ANSWER * 9 + 4) * 16 + 2] = 8;
	struct experts_view view;
	OK(experts_open(&view, &model, &counts, 1u << PHASE_THINK, &model.elastic.budgets[1], &err));
	assert_int_equal(view.n_rows, 4);
	const struct experts_row *row = &view.rows[1];
	assert_int_equal(row->layer, 4);
	assert_int_equal(row->routed, 8);
	assert_true(fabs(row->entropy - 1.75) < 1e-12);
	assert_int_equal(row->n_kept, 12);
	assert_true(fabs(row->normalised - 1.75 / log2(12)) < 1e-12);
	assert_true(row->outside == 0.25); // 12 and 15 are not in medium
	assert_int_equal(row->n_top, 4);
	assert_int_equal(row->top[0], 2);
	assert_int_equal(row->top[1], 7);
	assert_int_equal(row->top[2], 12);
	assert_int_equal(row->top[3], 15);
	assert_true(row->kept[11] && !row->kept[12]);
	assert_true(row->reap[0] > row->reap[15]);
	assert_non_null(row->frequency);
	assert_int_equal(view.rows[0].routed, 0);
	assert_true(view.rows[0].entropy == 0 && view.rows[0].n_top == 0);
	experts_close(&view);

	OK(experts_open(&view, &model, &counts, EXPERTS_DECODE, &model.elastic.budgets[2], &err));
	assert_int_equal(view.rows[1].counts[2], 12);
	assert_int_equal(view.rows[1].routed, 16);
	experts_close(&view);
	OK(experts_open(&view, &model, &counts, EXPERTS_ALL, &model.elastic.budgets[0], &err));
	assert_int_equal(view.rows[1].routed, 116);
	assert_int_equal(view.rows[1].top[0], 3);
	assert_true(view.rows[1].outside == 0);
	experts_close(&view);
	OK(experts_open(&view, &model, NULL, EXPERTS_ALL, &model.elastic.budgets[0], &err));
	assert_int_equal(view.rows[1].routed, 0);
	experts_close(&view);
	free(counts.counts);
	opened_close(&model);
}

static void many_experts_keep_the_best(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "golden/nest-tiny", "elastic-allaxes.json");
	struct expert_counts counts = {.n_layers = 8, .n_experts = 10};
	counts.counts = calloc(N_PHASES * 8 * 10, sizeof *counts.counts);
	for (int e = 0; e < 10; e++) {
		counts.counts[10 + e] =
			(uint32_t)(1 + (e * 7) % 10); // prefill, layer 1: 1 8 5 2 9 6 3 10 7 4
	}
	struct experts_view view;
	OK(experts_open(&view, &model, &counts, EXPERTS_ALL, &model.elastic.budgets[2], &err));
	static const int best[EXPERTS_TOP] = {7, 4, 1, 8, 5, 2, 9, 6};
	assert_int_equal(view.rows[0].n_top, EXPERTS_TOP);
	for (int i = 0; i < EXPERTS_TOP; i++) {
		assert_int_equal(view.rows[0].top[i], best[i]);
	}
	assert_true(fabs(view.rows[0].outside - 21.0 / 55) < 1e-12); // experts 7, 8 and 9 of 10
	assert_null(view.rows[0].reap);
	experts_close(&view);
	free(counts.counts);
	opened_close(&model);
}

static void memory(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "golden/nest-tiny", NULL);
	struct memory_facts facts;
	memory_measure(&facts, &model);
	assert_true(facts.mapped > model.checkpoint.tensor_bytes);
	assert_true(facts.resident <= facts.mapped + 2 * 65536);
	assert_true(facts.rss_known && facts.rss >= facts.shared && facts.rss > 0);
	memory_measure(&facts, NULL);
	assert_true(facts.mapped == 0 && facts.resident == 0);
	opened_close(&model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_by_phase_and_budget),
		cmocka_unit_test(many_experts_keep_the_best),
		cmocka_unit_test(memory),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
