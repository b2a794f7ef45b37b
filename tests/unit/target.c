#include "core/target.h"
#include "base/size.h"
#include "core/router.h"
#include "inspect/staircase.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/opened.h"

static void sizes(void **state)
{
	(void)state;
	static const struct {
		const char *typed;
		uint64_t bytes;
	} good[] = {{"24GiB", 24ull << 30},
				{"8 GB", 8000000000},
				{"500M", 500ull << 20},
				{"12", 12},
				{"7 B", 7},
				{"1.5k", 1536}};
	for (size_t i = 0; i < sizeof good / sizeof *good; i++) {
		uint64_t bytes = 0;
		OK(size_parse(good[i].typed, &bytes, &err));
		assert_int_equal(bytes, good[i].bytes);
	}
	static const char *const bad[] = {"",    "GiB",   "-1",   "0",    "1GG",
									  "inf", "1e400", "9e18", "12 x", "0.5"};
	for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
		uint64_t bytes;
		assert_int_equal(size_parse(bad[i], &bytes, NULL), -1);
	}
	double count;
	OK(count_parse("2.8B", &count, &err));
	assert_float_equal(count, 2.8e9, 1);
	OK(count_parse("630k", &count, &err));
	assert_float_equal(count, 630e3, 1e-6);
	assert_int_equal(count_parse("2.8GB", &count, NULL), -1);
	assert_int_equal(count_parse("1e308T", &count, NULL), -1); // no number any more
	char out[32];
	assert_string_equal(count_text(2.788e9, out), "2.79B");
	assert_string_equal(count_text(630840, out), "630.8K");
	assert_string_equal(size_text(63166000000, out), "58.83 GiB");
}

static void take(const struct model *model, const char *typed, struct budget *budget,
				 struct slice_cost *cost)
{
	OK(model_budget(model, typed, budget, &err));
	OK(slice_measure(cost, &model->weights, &model->config, budget, &err));
}

/* A trained budget's own cost gives its widths; the note says who chose. */
static void the_router_answers(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "../demo", NULL);
	for (int i = 0; i < model.elastic.n_budgets; i++) {
		const struct budget *own = &model.elastic.budgets[i];
		struct slice_cost cost, found;
		struct budget budget;
		char typed[64];
		OK(slice_measure(&cost, &model.weights, &model.config, own, &err));
		snprintf(typed, sizeof typed, "active=%llu", (unsigned long long)cost.active);
		take(&model, typed, &budget, &found);
		assert_string_equal(budget.source, "router");
		assert_string_equal(budget.name, typed);
		assert_int_equal(found.active, cost.active);
		for (int a = 0; a < N_AXES; a++)
			if (axis_in_model((enum axis)a, &model.config))
				assert_int_equal(budget.width[a], own->width[a]);
		struct text note = {0};
		OK(target_note(&model, &budget, &note, &err));
		assert_non_null(strstr(text_chars(&note), "the router chose"));
		text_free(&note);
		budget_free(&budget);
	}
	opened_close(&model);
}

static void without_router(struct model *model)
{
	opened_open(model, "../demo", NULL);
	checkpoint_close(&model->router);
	model->router = (struct checkpoint){0};
}

/* Never above the target; a larger target never gets less. */
static void importance_answers(void **state)
{
	(void)state;
	static const char *const targets[] = {"bytes=256KiB", "bytes=1MiB", "bytes=2MiB", "bytes=1GiB"};
	struct model model;
	without_router(&model);
	uint64_t before = 0;
	for (size_t i = 0; i < sizeof targets / sizeof *targets; i++) {
		struct target target;
		struct budget budget;
		struct slice_cost cost;
		OK(target_parse(&target, targets[i], &err));
		take(&model, targets[i], &budget, &cost);
		assert_string_equal(budget.source, "importance");
		assert_true((double)cost.bytes <= target.value || i == 3);
		assert_true(cost.bytes > before);
		before = cost.bytes;
		assert_int_equal(budget_violations(&model.elastic.budgets[0], &budget, &model.config, NULL),
						 0);
		budget_free(&budget);
	}
	assert_int_equal(before, 4711824); // more than the parent: the parent
	opened_close(&model);
}

static void refusals(void **state)
{
	(void)state;
	static const struct {
		const char *typed, *sentence;
	} cases[] = {
		{"bytes=1", "the least that importance can choose is"},
		{"active=big", "'big': expected a number such as 2.8B"},
		{"bytes=-3", "expected a size such as 24GiB"},
	};
	struct model model;
	struct budget budget;
	without_router(&model);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct error err = {0};
		assert_int_equal(model_budget(&model, cases[i].typed, &budget, &err), -1);
		if (!strstr(err.text, cases[i].sentence))
			fail_msg("%s", err.text);
	}
	checkpoint_close(&model.importance);
	model.importance = (struct checkpoint){0};
	struct error err = {0};
	assert_int_equal(model_budget(&model, "active=500K", &budget, &err), -1);
	assert_non_null(strstr(err.text, "no router and no measured importance"));
	opened_close(&model);
}

static void stairs(void **state)
{
	(void)state;
	struct model model;
	opened_open(&model, "../demo", NULL);
	struct staircase s;
	OK(staircase_open(&s, &model, "active", 21, &err));
	assert_true(s.by_router);
	assert_int_equal(s.steps[0].cost.active, 389608);
	assert_int_equal(s.steps[20].cost.active, 905864);
	assert_float_equal(s.steps[10].target, (389608 + 905864) / 2.0, 1e-6);
	assert_true(s.changes[AXIS_HIDDEN] && s.changes[AXIS_EXPERTS] && !s.changes[AXIS_MAMBA_HEADS]);
	for (int i = 1; i < s.n; i++)
		assert_true(s.steps[i].width[AXIS_HIDDEN] >= s.steps[i - 1].width[AXIS_HIDDEN]);
	staircase_close(&s);
	opened_close(&model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(sizes),    cmocka_unit_test(the_router_answers),
		cmocka_unit_test(refusals), cmocka_unit_test(importance_answers),
		cmocka_unit_test(stairs),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
