/* Expected values: recomputed with numpy from the same files; the shares of hidden_size also stand
 * in the demo's recipe (.78, .54). */
#include "inspect/importance.h"
#include "inspect/agreement.h"
#include "inspect/rank.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/opened.h"

#define NEAR(a, b, within)                                                                         \
	do {                                                                                           \
		if (!(fabs((double)(a) - (double)(b)) <= (within))) {                                      \
			fail_msg("line %d: %.9g, expected %.9g", __LINE__, (double)(a), (double)(b));          \
		}                                                                                          \
	} while (0)

static struct importance_curve open(const struct model *model, enum axis axis, int layer,
									int expert, enum importance_metric metric)
{
	struct importance_curve curve;
	struct importance_query query = {axis, layer, expert, metric};
	OK(importance_open(&curve, model, &query, &err));
	return curve;
}

static void orders(void **state)
{
	(void)state;
	const float a[] = {5, 3, 3, 1}, b[] = {1, 2, 3, 4}, flat[] = {2, 2, 2, 2};
	double rank[4], rho;
	int order[4];
	OK(rank_average(a, 4, rank, &err));
	assert_true(rank[0] == 1 && rank[1] == 2.5 && rank[2] == 2.5 && rank[3] == 4);
	OK(rank_order(a, 4, order, &err));
	assert_true(order[0] == 0 && order[1] == 1 && order[2] == 2 && order[3] == 3);
	OK(rank_spearman(a, b, 4, &rho, &err));
	NEAR(rho, -4.5 / sqrt(4.5 * 5), 1e-12); // covariance of ranks over their deviations
	OK(rank_stored(b, 4, &rho, &err));
	NEAR(rho, -1, 1e-12);
	OK(rank_stored(flat, 4, &rho, &err));
	assert_true(isnan(rho));
	OK(rank_stored(a, 1, &rho, &err));
	assert_true(isnan(rho));
	assert_int_equal(rank_inversions(a, 4), 0);
	assert_int_equal(rank_inversions(b, 4), 6);
	NEAR(rank_entropy((uint64_t[]){4, 2, 1, 1, 0}, 5), 1.75, 1e-12);
	NEAR(rank_entropy((uint64_t[]){0, 0}, 2), 0, 0);
}

static void the_demo_is_sorted(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "../demo", NULL);
	struct importance_curve c = open(&model, AXIS_HIDDEN, -1, -1, IMPORTANCE_DEFAULT);
	assert_int_equal(c.origin, ORIGIN_FILE);
	assert_int_equal(c.n, 128);
	assert_true(c.descending);
	NEAR(c.spearman, 1, 1e-12);
	NEAR(c.retained[0], 1, 1e-9);
	NEAR(c.retained[1], 0.7795077, 1e-6);
	NEAR(c.retained[2], 0.5384039, 1e-6);
	assert_int_equal(c.width[1], 96);
	double cumulative[128];
	importance_cumulative(&c, cumulative);
	NEAR(cumulative[95], c.retained[1], 1e-9);
	NEAR(cumulative[127], 1, 1e-9);
	importance_close(&c);

	c = open(&model, AXIS_HIDDEN, 3, -1, IMPORTANCE_DEFAULT); // one layer has an order of its own
	assert_false(c.descending);
	assert_int_equal(c.inversions, 2580);
	assert_int_equal(c.pairs, 128 * 127 / 2);
	NEAR(c.spearman, 0.5291727705548435, 1e-9);
	NEAR(c.retained[2], 0.5318813, 1e-6);
	importance_close(&c);

	c = open(&model, AXIS_EXPERTS, 1, -1, IMPORTANCE_DEFAULT);
	assert_string_equal(c.unit, "REAP");
	assert_true(c.descending);
	NEAR(c.retained[1], 0.9450909, 1e-6);
	NEAR(c.retained[2], 0.84890383, 1e-6);
	importance_close(&c);
	c = open(&model, AXIS_EXPERTS, 1, -1, IMPORTANCE_COUNT);
	assert_int_equal(c.inversions, 46);
	NEAR(c.total, 2, 1e-5); // top-2: shares of tokens add up to 2
	importance_close(&c);

	c = open(&model, AXIS_EXPERT_FFN, 1, -1, IMPORTANCE_DEFAULT);
	NEAR(c.retained[1], 0.9516917, 1e-6);
	importance_close(&c);
	c = open(&model, AXIS_EXPERT_FFN, 1, 3, IMPORTANCE_DEFAULT);
	NEAR(c.retained[2], 0.99989325, 1e-6);
	assert_true(c.descending);
	importance_close(&c);
	c = open(&model, AXIS_MAMBA_HEADS, 0, -1,
			 IMPORTANCE_DEFAULT); // sorted inside each group of two
	assert_int_equal(c.n_groups, 4);
	assert_true(c.descending);
	NEAR(c.spearman, 1, 1e-12);
	assert_true(c.score[2] > c.score[0]);
	importance_close(&c);
	// the demo's order is the file's: the best channels are those that it keeps; by norms it is not
	c = open(&model, AXIS_HIDDEN, -1, -1, IMPORTANCE_DEFAULT);
	NEAR(c.best[2], c.retained[2], 1e-12);
	int place[128];
	OK(importance_places(&c, place, &err));
	for (int i = 0; i < 128; i++)
		assert_int_equal(place[i], i + 1);
	importance_close(&c);
	c = open(&model, AXIS_HIDDEN, -1, -1, IMPORTANCE_WEIGHTS);
	double kept = 0, all = 0;
	OK(importance_places(&c, place, &err));
	for (int i = 0; i < 128; i++) {
		all += (double)c.score[i];
		kept += place[i] <= 64 ? (double)c.score[i] : 0;
	}
	NEAR(c.best[2], kept / all, 1e-9);
	assert_true(c.best[2] > c.retained[2]);
	importance_close(&c);
	c = open(&model, N_AXES, -1, -1, IMPORTANCE_DEFAULT);
	assert_int_equal(c.n, 9);
	NEAR(c.score[0], 0.82290536, 1e-6);
	assert_int_equal(c.width[2], 9);
	importance_close(&c);

	struct agreement agree;
	struct agreement_plan plan = {.axis = AXIS_EXPERTS, .layer = 1, .expert = -1};
	OK(agreement_of(&agree, &model, &plan, &err));
	assert_int_equal(agree.n, 3);
	assert_string_equal(agree.name[0], "stored");
	int reap = agreement_find(&agree, "REAP"), count = agreement_find(&agree, "count");
	assert_true(reap > 0 && count > 0);
	NEAR(agree.rho[reap][count], 0.3029411764705882, 1e-9);
	NEAR(agree.rho[reap][0], 1, 1e-9);
	NEAR(agree.rho[0][count], 0.3029411764705882, 1e-9);
	NEAR(agree.inverted[reap], 0, 0);
	plan.layer = 4;
	plan.weights = true;
	OK(agreement_of(&agree, &model, &plan, &err));
	assert_int_equal(agree.n, 4);
	assert_string_equal(agree.name[1], "weights");
	reap = agreement_find(&agree, "REAP"), count = agreement_find(&agree, "count");
	NEAR(agree.rho[reap][count], 0.044117647058823525, 1e-9);
	opened_close(&model);
}

static void norms_without_a_file(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "golden/nest-tiny", NULL);
	static const struct {
		enum axis axis;
		int layer, expert;
		double score[3];
	} expected[] = {
		{AXIS_MAMBA_HEADS, 0, -1, {3.98705083, 4.14410422, 4.06187226}},
		{AXIS_MAMBA_CHANNELS, 0, -1, {2.51521727, 2.59105615, 2.47232436}},
		{AXIS_HIDDEN, 0, -1, {2.45516261, 2.42035669, 2.42121567}},
		{AXIS_HIDDEN, -1, -1, {15.07917109, 15.96682493, 15.20636755}},
		{AXIS_HIDDEN, 5, -1, {0.982486, 1.11440287, 1.02122921}},
		{AXIS_EXPERT_FFN, 1, 3, {1.03339197, 1.06885193, 1.07906771}},
		{AXIS_EXPERT_FFN, 1, -1, {1.07670736, 1.04531791, 1.05712947}},
		{AXIS_ATTENTION_HEADS, 3, -1, {8.18704338, 8.17556889, 8.09156959}},
		{AXIS_FFN, 5, -1, {1.18450228, 1.38576854, 1.33540524}},
	};
	for (size_t i = 0; i < sizeof expected / sizeof *expected; i++) {
		struct importance_curve c = open(&model, expected[i].axis, expected[i].layer,
										 expected[i].expert, IMPORTANCE_DEFAULT);
		assert_int_equal(c.origin, ORIGIN_DERIVED);
		assert_string_equal(c.unit, "L2 norm of weights");
		for (int k = 0; k < 3; k++) {
			NEAR(c.score[k], expected[i].score[k], 1e-5);
		}
		assert_true(c.retained[0] == 1);
		importance_close(&c);
	}
	struct importance_curve c = open(&model, AXIS_EXPERTS, 1, -1, IMPORTANCE_WEIGHTS);
	NEAR(c.score[3], 7.356517387196084, 1e-5);
	importance_close(&c);
	c = open(&model, N_AXES, -1, -1, IMPORTANCE_DEFAULT); // nobody knows
	assert_int_equal(c.origin, ORIGIN_UNKNOWN);
	assert_int_equal(c.n, 0);
	importance_close(&c);
	struct agreement agree;
	struct agreement_plan plan = {.axis = AXIS_EXPERTS, .layer = 1, .expert = -1};
	OK(agreement_of(&agree, &model, &plan, &err));
	assert_int_equal(agree.n, 1); // as stored, and nothing to hold against it
	opened_close(&model);
}

static void wrong_questions_and_shapes(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "../demo", NULL);
	struct importance_curve c;
	struct error found = {0};
	assert_int_equal(
		importance_open(&c, &model, &(struct importance_query){AXIS_EXPERTS, 0, -1, 0}, &found),
		-1);
	assert_string_equal(found.text, "importance of n_routed_experts: layer 0 has no such axis");
	assert_int_equal(
		importance_open(&c, &model, &(struct importance_query){AXIS_EXPERT_FFN, 1, 16, 0}, &found),
		-1);
	assert_string_equal(found.text, "importance of moe_intermediate_size: no expert 16");
	model.config.n_routed_experts = 15; // now the file is wrong
	assert_int_equal(
		importance_open(&c, &model, &(struct importance_query){AXIS_EXPERTS, 1, -1, 0}, &found),
		-1);
	assert_string_equal(found.text,
						"importance.1.n_routed_experts.reap is F32 [16], expected F32 [15]");
	assert_null(importance_scores(&model, "1.n_routed_experts.reap", 15));
	opened_close(&model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(orders),
		cmocka_unit_test(the_demo_is_sorted),
		cmocka_unit_test(norms_without_a_file),
		cmocka_unit_test(wrong_questions_and_shapes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
