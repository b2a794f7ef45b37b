/* Tokens per second and inter-token latency from a scripted engine with exact times. */
#include "core/metrics.h"
#include "tests/engine/script.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

static void drain(struct script *script, struct metrics *metrics)
{
	const struct event *event;
	while ((event = engine_next(&script->engine)))
		metrics_event(metrics, event);
}

static void steps_count_and_the_prefills_token_does_not(void **state)
{
	struct script *script = script_open(NULL);
	struct turn_settings settings = {.thinking = true};
	struct metrics metrics = {0};
	(void)state;
	script_turn(script, 100, &settings);
	script_prefill(script, 120, 30, 10, "large", 15000000);
	script_token(script, 125, "large", PHASE_THINK, "4", 0);
	script_token(script, 130, "large", PHASE_THINK, "8", 2000000);
	script_token(script, 139, "large", PHASE_THINK, "</think>", 3000000);
	script_switch(script, 140, "large", "small", HANDOFF_REPREFILL, SWITCH_PHASE, 900000000);
	script_token(script, 141, "small", PHASE_ANSWER, "x", 1000000);
	script_stop(script, 142, STOP_EOS);
	drain(script, &metrics);
	const struct metrics_row *row = metrics_find(&metrics, "large", PHASE_THINK);
	assert_non_null(row);
	assert_int_equal(row->tokens, 3);
	assert_int_equal(row->steps, 2);
	assert_float_equal(metrics_row_tps(row), 2 / 0.005, 1e-6);
	row = metrics_find(&metrics, "small", PHASE_ANSWER);
	assert_non_null(row);
	assert_float_equal(metrics_row_tps(row), 1000, 1e-6);
	row = metrics_find(&metrics, "large", PHASE_PREFILL);
	assert_non_null(row);
	assert_int_equal(row->tokens, 30);
	assert_float_equal(metrics_row_tps(row), 30 / 0.015, 1e-6);
	assert_null(metrics_find(&metrics, "small", PHASE_THINK));
	assert_int_equal(metrics.switches, 1);
	assert_int_equal(metrics.first_ns, 25000000);
	assert_float_equal(metrics_recent_tps(&metrics, 2), 2 / 0.004, 1e-3);
	assert_float_equal(metrics_recent_tps(&metrics, 100), 3 / 0.006, 1e-3);
	assert_int_equal(metrics.n_arrivals, 3);
	assert_int_equal(metrics_itl(&metrics, 50), 5000000);
	assert_int_equal(metrics_itl(&metrics, 99), 9000000);
	assert_int_equal(metrics_itl(&metrics, 0), 2000000);
	engine_close(&script->engine);
}

static void the_first_token_of_the_next_turn_is_no_latency(void **state)
{
	struct script *script = script_open(NULL);
	struct turn_settings settings = {0};
	struct metrics metrics = {0};
	(void)state;
	for (int turn = 0; turn < 2; turn++) {
		script_turn(script, 1000 * turn, &settings);
		script_token(script, 1000 * turn + 7, "large", PHASE_ANSWER, "a", 0);
		script_token(script, 1000 * turn + 9, "large", PHASE_ANSWER, "b", 1000000);
		script_stop(script, 1000 * turn + 10, STOP_EOS);
	}
	drain(script, &metrics);
	assert_int_equal(metrics.n_arrivals, 2);
	assert_int_equal(metrics_itl(&metrics, 100), 2000000);
	assert_int_equal(metrics.first_ns, 7000000);
	assert_float_equal(metrics_recent_tps(&(struct metrics){0}, 8), 0, 0);
	assert_int_equal(metrics_itl(&(struct metrics){0}, 50), 0);
	engine_close(&script->engine);
}

static void windows_turn_over_and_rows_run_out(void **state)
{
	struct metrics metrics = {0};
	struct event event = {.type = EV_TOKEN};
	(void)state;
	for (int i = 0; i < 3 * METRICS_WINDOW; i++) {
		snprintf(event.token.budget, sizeof event.token.budget, "b%d", i);
		event.at_ns += 1000000;
		event.token.took_ns = i < METRICS_WINDOW ? 1000000 : 500000;
		metrics_event(&metrics, &event);
	}
	assert_int_equal(metrics.n_speed, METRICS_WINDOW);
	assert_float_equal(metrics_recent_tps(&metrics, METRICS_WINDOW), 2000, 1e-3);
	assert_int_equal(metrics.n_rows, METRICS_MAX_BUDGETS * N_PHASES);
	assert_non_null(strstr(metrics_formula, "tok/s"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(steps_count_and_the_prefills_token_does_not),
		cmocka_unit_test(the_first_token_of_the_next_turn_is_no_latency),
		cmocka_unit_test(windows_turn_over_and_rows_run_out),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
