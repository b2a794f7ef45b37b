#include "inspect/nesting.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/opened.h"

static const struct nesting_row *row_of(const struct nesting *nesting, enum axis axis, int layer)
{
	for (int i = 0; i < nesting->n_rows; i++) {
		if (nesting->rows[i].axis == axis && nesting->rows[i].layer == layer) {
			return &nesting->rows[i];
		}
	}
	fail_msg("no row for %s of layer %d", axis_name(axis), layer);
	return NULL;
}

static void assert_row(const struct nesting *nesting, enum axis axis, int layer, int a, int b,
					   int c)
{
	const struct nesting_row *row = row_of(nesting, axis, layer);
	assert_int_equal(row->width[0], a);
	assert_int_equal(row->width[1], b);
	assert_int_equal(row->width[2], c);
	assert_int_equal(row->parent, a);
}

static void widths_of_all_axes(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "golden/nest-tiny", "elastic-allaxes.json");
	struct nesting nesting;
	OK(nesting_open(&nesting, &model, NULL, &err));
	assert_int_equal(nesting.n_budgets, 3);
	// hidden, 3 Mamba x 2, 3 MoE x 3, 1 attention, 1 MLP
	assert_int_equal(nesting.n_rows, 1 + 6 + 9 + 1 + 1);
	assert_row(&nesting, AXIS_HIDDEN, -1, 80, 64, 56);
	assert_row(&nesting, AXIS_MAMBA_HEADS, 0, 6, 4, 4);
	assert_row(&nesting, AXIS_MAMBA_HEADS, 2, 6, 0, 0);
	assert_row(&nesting, AXIS_MAMBA_HEADS, 6, 6, 4, 2);
	assert_row(&nesting, AXIS_MAMBA_CHANNELS, 6, 16, 16, 12);
	assert_row(&nesting, AXIS_EXPERTS, 4, 10, 7, 5);
	assert_row(&nesting, AXIS_EXPERT_FFN, 7, 48, 32, 16);
	assert_row(&nesting, AXIS_ATTENTION_HEADS, 3, 6, 4, 2);
	assert_row(&nesting, AXIS_FFN, 5, 96, 80, 72);
	assert_true(nesting.contained[1] && nesting.contained[2]);
	assert_string_equal(text_chars(&nesting.violations), "");
	assert_int_equal(nesting.cost[0].bytes, nesting.file_bytes);
	assert_int_equal(nesting.separate_bytes,
					 nesting.cost[0].bytes + nesting.cost[1].bytes + nesting.cost[2].bytes);
	assert_true(nesting_share(&nesting, 0, false) == 1);
	assert_true(nesting_share(&nesting, 2, true) < nesting_share(&nesting, 1, true));
	struct text shown = {0};
	OK(nesting_runs(&nesting, &model.config, 1, row_of(&nesting, AXIS_MAMBA_HEADS, 0), &shown,
					&err));
	assert_string_equal(text_chars(&shown), "0-2 3-5");
	text_clear(&shown);
	OK(nesting_runs(&nesting, &model.config, 1, row_of(&nesting, AXIS_MAMBA_HEADS, 2), &shown,
					&err));
	assert_string_equal(text_chars(&shown), "-");
	text_free(&shown);
	nesting_close(&nesting);
	opened_close(&model);
}

static void violations_are_listed(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "../demo", NULL);
	model.elastic.budgets[2].width[AXIS_HIDDEN] = 112; // what --lenient opens
	struct nesting nesting;
	OK(nesting_open(&nesting, &model, NULL, &err));
	assert_true(nesting.contained[1]);
	assert_false(nesting.contained[2]);
	assert_int_equal(nesting.n_violations, 1);
	assert_string_equal(text_chars(&nesting.violations),
						"hidden_size: small (112) keeps channel 96, medium (96) does not\n");
	nesting_close(&nesting);
	opened_close(&model);
}

static void typed_widths_stand_last(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "../demo", NULL);
	struct budget typed;
	OK(budget_parse(&typed, &model.config, "hidden_size=112,n_routed_experts=6", &err));
	struct span spans[] = {{0, 3}, {5, 3}};
	struct budget_runs runs = {1, AXIS_EXPERTS, spans, 2};
	typed.runs = &runs;
	typed.n_runs = 1;
	struct nesting nesting;
	OK(nesting_open(&nesting, &model, &typed, &err));
	typed.runs = NULL;
	typed.n_runs = 0;
	assert_int_equal(nesting.n_budgets, 4);
	assert_int_equal(nesting.cost[1].total, 1171512);
	assert_int_equal(nesting.separate_bytes - nesting.cost[3].bytes,
					 nesting.cost[0].bytes + nesting.cost[1].bytes + nesting.cost[2].bytes);
	const struct nesting_row *row = row_of(&nesting, AXIS_EXPERTS, 1);
	assert_int_equal(row->width[3], 6);
	assert_true(row->runs[3]);
	assert_false(row->runs[1]);
	assert_false(row_of(&nesting, AXIS_EXPERTS, 4)->runs[3]);
	// medium is narrower (96), so only the parent holds it; the nest itself is whole.
	assert_int_equal(nesting.container[2], 1);
	assert_int_equal(nesting.container[3], 0);
	assert_true(nesting.contained[3]);
	assert_int_equal(nesting.n_violations, 0);
	nesting_close(&nesting);
	budget_free(&typed);
	opened_close(&model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(widths_of_all_axes),
		cmocka_unit_test(violations_are_listed),
		cmocka_unit_test(typed_widths_stand_last),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
