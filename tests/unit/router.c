#include "core/router.h"
#include "base/json.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/opened.h"

static void assert_numbers(const struct json *json, const struct json_node *list,
						   const float *values, int n)
{
	assert_int_equal(list->n_children, n);
	for (const struct json_node *node = json_first(json, list); node;
		 node = json_next(json, list, node)) {
		double expected;
		OK(json_number(json, node, "golden", &expected, &err));
		if (fabs((double)*values - expected) > 1e-5) {
			fail_msg("%.8f, expected %.8f", (double)*values, expected);
		}
		values++;
	}
}

static const struct json_node *at(const struct json *json, const struct json_node *list, int index)
{
	const struct json_node *node = json_first(json, list);
	while (index-- > 0) {
		node = json_next(json, list, node);
	}
	return node;
}

/* golden/router.json: axis: [{budget, logits, probabilities, chosen}], a list a layer where hetero.
 */
static void golden_values(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "golden/nest-tiny", NULL);
	char path[4096];
	opened_path(path, "golden/nest-tiny/golden", "router.json");
	struct text text = {0};
	OK(file_read(path, 1 << 20, &text, &err));
	struct json json;
	OK(json_parse(&json, text_chars(&text), text.length, &err));
	struct router_view view;
	OK(router_open(&view, &model, NULL, &err));
	assert_true(view.present);
	assert_string_equal(text_chars(&view.source), "router in router.safetensors");
	assert_int_equal(view.n_axes, 2);
	assert_int_equal(view.axes[0].n_rows, 3);
	assert_int_equal(view.axes[1].n_rows, 9);
	int n_disagree = 0;
	for (int a = 0; a < 2; a++) {
		const char *name = router_axis_name(view.axes[a].axis);
		const struct json_node *budgets = json_member(&json, json.nodes, name);
		for (int r = 0; r < view.axes[a].n_rows; r++) {
			const struct router_row *row = &view.axes[a].rows[r];
			int n_layers = a ? 3 : 1;
			const struct json_node *budget = at(&json, budgets, r / n_layers);
			assert_true(json_equals(&json, json_member(&json, budget, "budget"),
									model.elastic.budgets[row->budget].name));
			static const int moe[] = {1, 4, 7};
			assert_int_equal(row->layer, a ? moe[r % 3] : -1);
			assert_numbers(&json, at(&json, json_member(&json, budget, "logits"), r % n_layers),
						   row->logits, 3);
			assert_numbers(&json,
						   at(&json, json_member(&json, budget, "probabilities"), r % n_layers),
						   row->probabilities, 3);
			int64_t chosen;
			OK(json_integer(&json, at(&json, json_member(&json, budget, "chosen"), r % n_layers),
							"chosen", &chosen, &err));
			assert_int_equal(row->width, chosen);
			const struct budget *b = &model.elastic.budgets[row->budget];
			assert_int_equal(row->budget_width, b->width[view.axes[a].axis->axis]);
			assert_int_equal(row->disagree, chosen != row->budget_width);
			n_disagree += row->disagree;
			assert_true(row->margin > 0);
			double sum = 0, most = 0;
			for (int i = 0; i < 3; i++) {
				sum += (double)row->p_choice[i];
				most += exp((double)row->logits[i]);
			}
			assert_true(fabs(sum - 1) < 1e-6);
			assert_true(fabs((double)row->p_choice[row->chosen] -
							 exp((double)row->logits[row->chosen]) / most) < 1e-6);
		}
	}
	assert_int_equal(view.n_disagree, n_disagree);
	router_close(&view);
	json_free(&json);
	text_free(&text);
	opened_close(&model);
}

static void tau_scaler_and_normalize(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "golden/nest-tiny", NULL);
	struct router_view view, other;
	OK(router_open(&view, &model, NULL, &err));
	OK(router_open(&other, &model, &(struct router_options){1, 20, -1}, &err));
	const struct router_row *a = &view.axes[0].rows[1], *b = &other.axes[0].rows[1];
	for (int i = 0; i < 3; i++) {
		assert_true(fabsf(2 * a->logits[i] - b->logits[i]) < 1e-5f);
		assert_true(fabsf(b->probabilities[i] - b->p_choice[i]) < 1e-7f); // tau 1
	}
	router_close(&other);
	OK(router_open(&other, &model, &(struct router_options){0, 1, 1}, &err));
	for (int r = 0; r < other.axes[1].n_rows; r++) {
		double mean = 0, square = 0;
		for (int i = 0; i < 3; i++) {
			mean += (double)other.axes[1].rows[r].logits[i] / 3;
			square += pow((double)other.axes[1].rows[r].logits[i], 2) / 3;
		}
		assert_true(fabs(square - mean * mean - 1) < 1e-5); // one standard deviation
		assert_int_equal(other.axes[1].rows[r].width, view.axes[1].rows[r].width);
	}
	router_close(&other);
	router_close(&view);
	opened_close(&model);
}

/* demo/README: 128/96/16, 96/64/12, 64/32/8, and no disagreement. */
static void the_demo_agrees(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "../demo", NULL);
	struct router_view view;
	OK(router_open(&view, &model, NULL, &err));
	assert_int_equal(view.n_axes, 3);
	assert_int_equal(view.n_disagree, 0);
	static const int expected[3][3] = {{128, 96, 64}, {96, 64, 32}, {16, 12, 8}};
	for (int a = 0; a < 3; a++) {
		for (int b = 0; b < 3; b++) {
			assert_int_equal(view.axes[a].rows[b].width, expected[a][b]);
		}
	}
	router_close(&view);

	// A trained budget's own cost gives back its one-hot; a target between two lies between them.
	OK(router_open_target(&view, &model, "active", 630840, NULL, &err));
	struct budget budget;
	OK(router_budget(&view, &model, "active=630840", &budget, &err));
	assert_int_equal(budget.width[AXIS_HIDDEN], 96);
	assert_int_equal(budget.width[AXIS_EXPERT_FFN], 64);
	assert_int_equal(budget.width[AXIS_EXPERTS], 12);
	assert_int_equal(view.axes[0].rows[0].budget, -1);
	assert_false(view.axes[0].rows[0].disagree);
	budget_free(&budget);
	router_close(&view);
	OK(router_open_target(&view, &model, "active", 1e12, NULL,
						  &err)); // beyond the end: the largest
	assert_int_equal(view.axes[0].rows[0].width, 128);
	router_close(&view);
	struct error found = {0};
	assert_int_equal(router_open_target(&view, &model, "ms", 1, NULL, &found), -1);
	assert_string_equal(found.text, "budget large has no target in ms");
	opened_close(&model);
}

static void without_a_router(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "golden/nest-tiny", "elastic-skip.json");
	struct router_view view;
	OK(router_open(&view, &model, NULL, &err));
	assert_false(view.present);
	assert_int_equal(view.n_axes, 0);
	assert_string_equal(text_chars(&view.source),
						"no router in this checkpoint: widths come from elastic-skip.json");
	router_close(&view);
	opened_close(&model);
}

static void wrong_shapes_are_named(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "golden/nest-tiny", NULL);
	struct router_view view;
	struct error found = {0};
	model.elastic.router_axes[1].n_choices = 2;
	assert_int_equal(router_open(&view, &model, NULL, &found), -1);
	assert_string_equal(found.text, "router.safetensors: router.moe_intermediate_size.1.weight is "
									"F32 [9, 16], expected F32 [6, 16]");
	model.elastic.router_axes[1].n_choices = 3;
	model.elastic.n_router_budgets = 2;
	assert_int_equal(router_open(&view, &model, NULL, &found), -1);
	assert_string_equal(found.text, "router.safetensors: router.hidden_size.0.weight is F32 [16, "
									"3], expected F32 [d_router, 2]");
	model.elastic.n_router_budgets = 3;
	model.elastic.router_axes[0].axis = AXIS_EXPERTS;
	assert_int_equal(router_open(&view, &model, NULL, &found), -1);
	assert_string_equal(found.text,
						"router.safetensors: no tensor router.n_routed_experts.0.weight");
	opened_close(&model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(golden_values),          cmocka_unit_test(tau_scaler_and_normalize),
		cmocka_unit_test(the_demo_agrees),        cmocka_unit_test(without_a_router),
		cmocka_unit_test(wrong_shapes_are_named),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
