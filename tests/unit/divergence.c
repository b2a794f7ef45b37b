/* Percentiles, standard errors and the summary of a comparison, against numbers made with numpy. */
#include "inspect/divergence.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void near(double found, double expected)
{
	if (!(fabs(found - expected) <= 1e-12 * (1 + fabs(expected))))
		fail_msg("found %.17g, expected %.17g", found, expected);
}

static void percentiles_lie_between_neighbours(void **state)
{
	double values[] = {4, 1, 3, 2, 5};
	(void)state;

	statistics_sort(values, 5);
	near(statistics_percentile(values, 5, 0), 1);
	near(statistics_percentile(values, 5, 1), 5);
	near(statistics_percentile(values, 5, .5), 3);
	near(statistics_percentile(values, 5, .9), 4.6);
	near(statistics_percentile(values, 5, .1), 1.4);
	near(statistics_percentile(values, 1, .99), 1);
	assert_true(isnan(statistics_percentile(values, 0, .5)));
}

static void means_have_errors(void **state)
{
	const double values[] = {2, 4, 4, 4, 5, 5, 7, 9}; // standard deviation 2 over n
	(void)state;

	near(statistics_mean(values, 8).value, 5);
	near(statistics_mean(values, 8).error, 2 / sqrt(7));
	near(statistics_mean(values, 1).value, 2);
	assert_true(isnan(statistics_mean(values, 1).error));
	assert_true(isnan(statistics_mean(values, 0).value));
}

static void correlations_survive_large_means(void **state)
{
	struct comoment c = {0}, flat = {0};
	const double x[] = {1, 2, 3, 4}, y[] = {2, 4, 5, 9};
	(void)state;

	assert_true(isnan(comoment_correlation(&c)));
	for (int i = 0; i < 4; i++) {
		comoment_add(&c, 1e9 + x[i], y[i]);
		comoment_add(&flat, 3, y[i]);
	}
	near(comoment_correlation(&c), 11 / sqrt(5 * 26));
	near(comoment_of_means(&c), 11 / 4.0 / 3.0);
	assert_true(isnan(comoment_correlation(&flat)));
}

/* Seven positions, the last one without a next token. */
static void summaries_are_numpys(void **state)
{
	const double kl[] = {.1, .7, .3, 2, 0, 1.1, .9};
	const double p[] = {.5, .2, .9, .4, .1, .3}, q[] = {.4, .3, .7, .35, .05, .6};
	const int32_t tops[] = {1, 2, 9, 4, 9, 6, 7};
	struct divergence_position base[7] = {{0}}, side[7] = {{0}};
	struct divergence_summary s;
	struct divergence_row row;
	int n = 0, sections = 0;
	(void)state;

	for (int i = 0; i < 7; i++) {
		base[i].top = i + 1;
		side[i].top = tops[i];
		side[i].kl = kl[i];
		base[i].logprob = i < 6 ? log(p[i]) : NAN;
		side[i].logprob = i < 6 ? log(q[i]) : NAN;
	}
	assert_int_equal(divergence_summarise(&s, base, side, 7, NULL), 0);
	assert_int_equal(s.n, 7);
	assert_int_equal(s.n_next, 6);
	assert_int_equal(s.first_divergence, 2);
	near(s.ppl.value, 3.229152601464136);
	near(s.ppl.error, 1.2519291151828469);
	near(s.ppl_base.value, 3.1219746626202602);
	near(s.ppl_base.error, 0.9700346866822318);
	near(s.ln_ppl_ratio.value, 0.033754044018579066);
	near(s.ln_ppl_ratio.error, 0.20406327351873313);
	near(s.ppl_ratio.value, 1.0343301757465007);
	near(s.ppl_ratio.error, 0.21106880156203747);
	near(s.ppl_difference.value, 0.10717793884387561);
	near(s.ppl_difference.error, 0.6629646863143531);
	near(s.kl.value, 0.7285714285714285);
	near(s.kl.error, 0.2625101229016708);
	near(s.dp.value, 0);
	near(s.dp.error, 0.07187952884282608);
	near(s.rms_dp.value, 0.16072751268321592);
	near(s.rms_dp.error, 0.04365677471475216);
	near(s.same_top.value, 0.7142857142857143);
	near(s.same_top.error, 0.18442777839082938);
	near(s.ln_ppl_correlation, 0.8517566872890234);
	near(s.kl_max, 2);
	near(s.kl_min, 0);
	near(s.dp_max, .3);
	near(s.dp_min, -.2);
	near(s.dp_percentile[PERCENTILE_90], .2);
	near(s.dp_percentile[PERCENTILE_1], -.195);
	near(s.kl_percentile[PERCENTILE_999], 1.9946);
	near(s.kl_percentile[PERCENTILE_99], 1.946);
	near(s.kl_percentile[PERCENTILE_95], 1.73);
	near(s.kl_percentile[PERCENTILE_90], 1.46);
	near(s.kl_percentile[PERCENTILE_75], 1);
	near(s.kl_percentile[PERCENTILE_50], 0.7);
	near(s.kl_percentile[PERCENTILE_25], 0.2);
	near(s.kl_percentile[PERCENTILE_10], 0.06);
	near(s.kl_percentile[PERCENTILE_5], 0.03);
	near(s.kl_percentile[PERCENTILE_1], 0.006);
	near(s.kl_percentile[PERCENTILE_01], 0.0006);
	for (; divergence_row(&s, n, &row); n++) {
		assert_non_null(row.name);
		sections += row.section != NULL;
		if (!strcmp(row.name, "Mean KLD"))
			near(row.value, s.kl.value);
		if (!strcmp(row.name, "99.0% KLD"))
			near(row.value, s.kl_percentile[PERCENTILE_99]);
		if (!strcmp(row.name, "Minimum Δp"))
			near(row.value, s.dp_min);
		if (!strcmp(row.name, "Same top p"))
			assert_true(row.percent && row.value == s.same_top.value);
	}
	assert_int_equal(n, 36);
	assert_int_equal(sections, 3);
	assert_false(divergence_row(&s, -1, &row));
}

static void one_position_has_no_errors(void **state)
{
	struct divergence_position base = {.logprob = NAN}, side = {.logprob = NAN, .kl = .5};
	struct divergence_summary s;
	(void)state;

	assert_int_equal(divergence_summarise(&s, &base, &side, 1, NULL), 0);
	near(s.kl.value, .5);
	near(s.kl_percentile[PERCENTILE_01], .5);
	assert_true(isnan(s.kl.error));
	assert_true(isnan(s.ppl.value));
	assert_true(isnan(s.dp_max));
	assert_true(isnan(s.rms_dp.value));
	assert_int_equal(s.first_divergence, -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(percentiles_lie_between_neighbours),
		cmocka_unit_test(means_have_errors),
		cmocka_unit_test(correlations_survive_large_means),
		cmocka_unit_test(summaries_are_numpys),
		cmocka_unit_test(one_position_has_no_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
