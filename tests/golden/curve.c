/*
 * Curves and the masked parent on nest-tiny: a point of a curve is what fidelity says of the typed
 * budget; channels that are no prefix go through the slice as the masked parent, which knows no
 * spans, says they must; a tampered slice is found out.
 */
#include "inspect/curve.h"
#include "golden.h"
#include "inspect/masked.h"
#include "inspect/sensitivity.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define N 24
#define LIMIT 1e-5 // of the largest logit

static struct trials_plan plan_of(struct golden *g, const int32_t *ids)
{
	return (struct trials_plan){.model = g->model,
								.base = &g->model->elastic.budgets[0],
								.backend = &backend_cpu,
								.device = g->device,
								.kv_dtype = g->kv_dtype,
								.ids = ids,
								.n = N};
}

static void some_ids(int32_t *ids)
{
	for (int i = 0; i < N; i++)
		ids[i] = (i * 37 + 11) % 224;
}

static void points_equal_typed_budgets(void)
{
	struct golden g;
	struct error err = {0};
	struct curve curve;
	struct curve_axis axis;
	int32_t ids[N];
	const int widths[] = {64, 32};

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	some_ids(ids);
	struct trials_plan plan = plan_of(&g, ids);
	golden_must(curve_axis_open(&axis, g.model, AXIS_HIDDEN, 0, widths, 2, &err), &err);
	assert_int_equal(axis.n, 3);
	assert_int_equal(axis.widths[0], 32);
	assert_int_equal(axis.widths[2], 80);
	assert_int_equal(axis.trained[1], 2); // medium
	golden_must(curve_run(&curve, &plan, &axis, 2, 5, &err), &err);
	assert_true(curve.parent.kl.value == 0);
	for (int w = 0; w < 2; w++) {
		char typed[40];
		struct fidelity f;
		snprintf(typed, sizeof typed, "hidden_size=%d", axis.widths[w]);
		struct fidelity_plan pair = {.sides = {golden_slice(&g, "large"), golden_slice(&g, typed)},
									 .n_sides = 2,
									 .ids = ids,
									 .n = N,
									 .kv_dtype = g.kv_dtype,
									 .route_from = -1};
		golden_must(fidelity_run(&f, &pair, &err), &err);
		const struct curve_point *point = &curve.points[w];
		assert_true(point->first.kl.value == f.sides[1].summary.kl.value);
		assert_true(point->first.same_top == f.sides[1].summary.same_top.value);
		assert_true(point->first.ppl.value == f.sides[1].summary.ppl.value);
		assert_true(curve.parent.ppl.value == f.sides[0].summary.ppl.value);
		assert_true(point->draws[0].kl.value != point->draws[1].kl.value);
		assert_true(point->random_low <= point->random_kl.value &&
					point->random_kl.value <= point->random_high);
		fidelity_free(&f);
	}
	curve_free(&curve);
	golden_leave(&g, "curve");
	golden_close(&g);
}

/* Each unit is what a typed budget would be; the joint KL is fidelity's. */
static void sensitivity_equals_typed_budgets(void)
{
	struct golden g;
	struct error err = {0};
	struct sensitivity s;
	struct budget small, typed[2];
	struct trial trials[2], base;
	int32_t ids[N];
	int found = 0;
	double cuts = 0;

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	some_ids(ids);
	struct trials_plan plan = plan_of(&g, ids);
	golden_must(model_budget(g.model, "small", &small, &err), &err);
	golden_must(model_budget(g.model, "4.moe_intermediate_size=16", &typed[0], &err), &err);
	golden_must(model_budget(g.model,
							 "hidden_size=48,1.moe_intermediate_size=16,7.moe_intermediate_size=16",
							 &typed[1], &err),
				&err);
	golden_must(trials_run(&plan, typed, 2, trials, &base, &err), &err);
	golden_must(sensitivity_run(&s, &plan, &small, &err), &err);
	assert_int_equal(s.n, 4); // hidden_size, three MoE layers
	for (int i = 0; i < s.n; i++) {
		const struct sensitivity_row *row = &s.rows[i];
		assert_true(i == 0 || row->cut.kl.value <= row[-1].cut.kl.value);
		cuts += row->cut.kl.value;
		if (row->layer != 4)
			continue;
		found++;
		assert_int_equal(row->kind, AXIS_EXPERT_FFN);
		assert_string_equal(row->change, "48 -> 16");
		assert_true(row->cut.kl.value == trials[0].kl.value);
		assert_true(row->without.kl.value == trials[1].kl.value);
		assert_true(row->regained == s.joint.kl.value - trials[1].kl.value);
	}
	assert_int_equal(found, 1);
	assert_true(fabs(cuts - s.sum_cut) < 1e-12);
	sensitivity_free(&s);
	for (int i = 0; i < 2; i++)
		budget_free(&typed[i]);
	budget_free(&small);
	golden_close(&g);
}

/* Last and random channels of every axis: the slice of explicit runs is the masked parent. */
static void runs_equal_the_masked_parent(void)
{
	static const struct {
		enum axis axis;
		int width;
	} cuts[] = {{AXIS_HIDDEN, 48},        {AXIS_EXPERT_FFN, 20},    {AXIS_EXPERTS, 6},
				{AXIS_SHARED_FFN, 24},    {AXIS_FFN, 40},           {AXIS_MAMBA_HEADS, 4},
				{AXIS_MAMBA_CHANNELS, 9}, {AXIS_ATTENTION_HEADS, 4}};
	struct golden g;
	struct error err = {0};
	int32_t ids[N];
	double worst = 0;

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	some_ids(ids);
	struct trials_plan plan = plan_of(&g, ids);
	for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++)
		for (int order = CURVE_LAST; order <= CURVE_RANDOM; order++) {
			struct budget budget;
			struct masked_result result;
			golden_must(curve_budget(&budget, g.model, cuts[i].axis, cuts[i].width,
									 (enum curve_order)order, 1, 0, &err),
						&err);
			assert_true(budget.n_runs > 0);
			golden_must(masked_run(&result, &plan, &budget, &err), &err);
			if (result.relative > LIMIT)
				golden_fail("%s: %.3g", budget.name, result.relative);
			assert_int_equal(result.n, N);
			worst = fmax(worst, result.relative);
			budget_free(&budget);
		}
	golden_note("runs on every axis: at most %.2g relative", worst);
	golden_close(&g);
}

/* All axes at once, dropped layers, lists per layer, quantised weights. */
static void budgets_equal_the_masked_parent(void)
{
	static const struct {
		const char *folder, *budgets, *budget;
	} cases[] = {{"nest-tiny", NULL, "small"},
				 {"nest-tiny", "elastic-allaxes.json", "hetero"},
				 {"nest-tiny", NULL, "num_experts_per_tok=2,n_routed_experts=5,skip=3+7"},
				 {"quantised/nest-tiny-fp8", NULL, "small"},
				 {"quantised/nest-tiny-nvfp4", NULL, "small"}};
	struct error err = {0};
	int32_t ids[N];

	some_ids(ids);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct golden g;
		struct budget budget;
		struct masked_result result;
		golden_open(&g, cases[i].folder, cases[i].budgets, MATH_EXACT);
		struct trials_plan plan = plan_of(&g, ids);
		golden_must(model_budget(g.model, cases[i].budget, &budget, &err), &err);
		golden_must(masked_run(&result, &plan, &budget, &err), &err);
		if (result.relative > LIMIT)
			golden_fail("%s %s: %.3g", cases[i].folder, cases[i].budget, result.relative);
		golden_note("%s %s: %.2g", cases[i].folder, cases[i].budget, result.relative);
		budget_free(&budget);
		golden_close(&g);
	}
}

/* A norm over all channels instead of the kept ones is another model. */
static void a_wrong_norm_is_seen(void)
{
	struct golden g;
	struct error err = {0};
	struct masked masked;
	struct reading readings[2];
	int32_t ids[N];

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	some_ids(ids);
	golden_must(masked_open(&masked, g.model, golden_slice(&g, "small"), &err), &err);
	for (int i = 0; i < 2; i++) {
		struct reading_plan plan = {
			.ids = ids, .n = N, .slice = &masked.slice, .kv_dtype = g.kv_dtype};
		golden_must(reading_run(&readings[i], &plan, &err), &err);
		masked.slice.layers[1].norm_count = 80;
	}
	double error = golden_error(readings[1].logits, readings[0].logits, (size_t)N * 224);
	if (!(error > 1e-2))
		golden_fail("a norm over 80 channels instead of 48 moves the logits by %.3g only", error);
	reading_free(&readings[0]);
	reading_free(&readings[1]);
	masked_close(&masked);
	golden_close(&g);
}

static void bad_widths_are_refused(void)
{
	static const struct {
		enum axis axis;
		int step, width;
		const char *says;
	} bad[] = {{AXIS_HIDDEN, 0, 81, "hidden_size 81: expected 1 to 80 in steps of 1"},
			   {AXIS_MAMBA_HEADS, 0, 3, "mamba_num_heads 3: expected 2 to 6 in steps of 2"},
			   {AXIS_EXPERTS, 0, 2, "n_routed_experts 2: expected 3 to 10 in steps of 1"},
			   {AXIS_ATTENTION_HEADS, 3, 0, "--step 3: num_attention_heads is cut in steps of 2"},
			   {AXIS_HIDDEN, 0, 80, "hidden_size: no width below the parent's 80 to try"}};
	struct golden g;

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		struct curve_axis axis;
		struct error err = {0};
		assert_int_equal(curve_axis_open(&axis, g.model, bad[i].axis, bad[i].step, &bad[i].width,
										 bad[i].width > 0, &err),
						 -1);
		assert_string_equal(err.text, bad[i].says);
	}
	golden_close(&g);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"points equal typed budgets", points_equal_typed_budgets},
		{"sensitivity equals typed budgets", sensitivity_equals_typed_budgets},
		{"runs equal the masked parent", runs_equal_the_masked_parent},
		{"budgets equal the masked parent", budgets_equal_the_masked_parent},
		{"a wrong norm is seen", a_wrong_norm_is_seen},
		{"bad widths are refused", bad_widths_are_refused},
	};

	return golden_main(tests, sizeof tests / sizeof *tests);
}
