/* Largest numbers of slices against the tensors themselves, and errors against the definition. */
#include "inspect/scales.h"
#include "kernels/convert.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/opened.h"

static float leading_amax(const struct tensor *t, int64_t rows, int64_t columns)
{
	const uint16_t *bits = t->data;
	float amax = 0;
	for (int64_t r = 0; r < rows; r++)
		for (int64_t c = 0; c < columns; c++)
			amax = fmaxf(amax, fabsf(bf16_to_f32(bits[r * t->shape[1] + c])));
	return amax;
}

static void slices_are_measured(void **state)
{
	static const int hidden[] = {80, 64, 48}, ffn[] = {48, 32, 16};
	struct model model;
	struct scales scales;
	size_t n = 0;
	(void)state;
	opened_open(&model, "golden/nest-tiny", NULL);
	OK(scales_open(&scales, &model, NULL, NULL, NULL, &err));
	assert_int_equal(scales.n, 3 * 72);
	assert_false(scales.stored);
	for (size_t i = 0; i < scales.n; i++) {
		const struct scales_row *row = &scales.rows[i];
		assert_true(row->slice > 0 && row->slice <= row->parent);
		for (int f = 0; f < N_SCALES_FORMATS; f++) {
			double low = f == SCALES_FP8 ? 0.015 : 0.06, high = f == SCALES_FP8 ? 0.04 : 0.15;
			assert_true(row->error[f].own > low && row->error[f].own < high);
			assert_true(row->error[f].nested > low && row->error[f].nested < high);
			// the same scale makes the same error
			assert_true(row->slice != row->parent || row->error[f].own == row->error[f].nested);
		}
		if (row->kind != MODULE_UP)
			continue;
		const struct tensor *up = &model.weights.layers[row->layer].up[row->expert];
		assert_true(row->parent == leading_amax(up, 48, 80));
		assert_true(row->slice == leading_amax(up, ffn[row->budget], hidden[row->budget]));
		n++;
	}
	assert_int_equal(n, 3 * 30);
	struct scales_sum sum;
	assert_true(scales_sum(&scales, MODULE_UP, 0, &sum));
	assert_int_equal(sum.n, 30);
	assert_true(sum.ratio == 1 && sum.least_ratio == 1);
	assert_true(scales_sum(&scales, MODULE_UP, 2, &sum));
	assert_true(sum.ratio < 1 && sum.least_ratio < sum.ratio);
	assert_false(scales_sum(&scales, MODULE_GATE, 0, &sum));
	scales_close(&scales);
	opened_close(&model);
}

/* One number a hundred thousand times the others, outside the slice: with the parent's scale the
 * slice's block scales are subnormal. */
static void an_outlier_costs_the_slice(void **state)
{
	struct model model;
	struct scales scales;
	(void)state;
	opened_open(&model, "golden/nest-tiny", NULL);
	struct tensor *up = &model.weights.layers[1].up[0];
	uint16_t *bits = malloc(up->bytes);
	assert_non_null(bits);
	memcpy(bits, up->data, up->bytes);
	bits[up->bytes / 2 - 1] = f32_to_bf16(1e5f * leading_amax(up, 48, 80));
	up->data = bits;
	OK(scales_open(&scales, &model, NULL, NULL, NULL, &err));
	for (size_t i = 0; i < scales.n; i++) {
		const struct scales_row *row = &scales.rows[i];
		if (row->kind != MODULE_UP || row->layer != 1 || row->expert != 0 || row->budget != 2)
			continue;
		assert_true(row->slice / row->parent < 2e-5f);
		assert_true(row->subnormal_nested == 1 && row->subnormal_own < 0.01);
		assert_true(row->error[SCALES_NVFP4].nested > 1.2 * row->error[SCALES_NVFP4].own);
		assert_true(row->error[SCALES_FP8].nested > 2 * row->error[SCALES_FP8].own);
	}
	scales_close(&scales);
	free(bits);
	opened_close(&model);
}

static void quantised_parents_have_no_error(void **state)
{
	struct model model;
	struct scales scales;
	(void)state;
	opened_open(&model, "golden/quantised/nest-tiny-nvfp4", NULL);
	OK(scales_open(&scales, &model, NULL, NULL, NULL, &err));
	assert_true(scales.stored);
	assert_int_equal(scales.n, 3 * 72);
	for (size_t i = 0; i < scales.n; i++) {
		assert_true(isnan(scales.rows[i].error[SCALES_FP8].own));
		assert_true(isnan(scales.rows[i].subnormal_nested));
		assert_true(scales.rows[i].slice <= scales.rows[i].parent);
	}
	scales_close(&scales);
	opened_close(&model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(slices_are_measured),
		cmocka_unit_test(an_outlier_costs_the_slice),
		cmocka_unit_test(quantised_parents_have_no_error),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
