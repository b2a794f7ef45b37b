/* The state machine of a turn, with scripted picks and no model. */
#include "core/turn.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

enum { OPEN = 12, CLOSE = 13, END = 11, NEWLINE = 30, A = 100 };

static const struct turn_rules rules = {
	.think_open = OPEN,
	.think_close = CLOSE,
	.stop_ids = {2, END},
	.n_stop_ids = 2,
	.forced = {60, NEWLINE, CLOSE},
	.n_forced = 3,
};

static const int32_t think_prompt[] = {10, 77, OPEN, NEWLINE}, plain_prompt[] = {10, OPEN, CLOSE};

static struct turn_settings settings_of(bool policy)
{
	struct turn_settings settings = {.policy = policy, .thinking = true, .max_tokens = 0};
	strcpy(settings.budget, "medium");
	strcpy(settings.think, "small");
	strcpy(settings.answer, "large");
	return settings;
}

static struct turn start(const struct turn_settings *settings)
{
	struct turn turn;
	turn_begin(&turn, &rules, settings, true);
	turn_prompt(&turn, think_prompt, 4);
	return turn;
}

static void the_prompt_decides_the_phase(void **state)
{
	struct turn_settings settings = settings_of(true);
	struct turn turn;
	(void)state;
	turn_begin(&turn, &rules, &settings, true);
	assert_int_equal(turn.phase, PHASE_ANSWER); // a completion has no prompt to look at
	turn_prompt(&turn, think_prompt, 4);
	assert_int_equal(turn.phase, PHASE_THINK);
	turn_prompt(&turn, think_prompt, 3);
	assert_int_equal(turn.phase, PHASE_THINK);
	turn_prompt(&turn, plain_prompt, 3);
	assert_int_equal(turn.phase, PHASE_ANSWER);
	turn_prompt(&turn, NULL, 0);
	assert_int_equal(turn.phase, PHASE_ANSWER);
}

static void the_policy_changes_reader_behind_the_thoughts(void **state)
{
	struct turn_settings settings = settings_of(true);
	struct turn turn = start(&settings);
	(void)state;
	assert_string_equal(turn_reader(&turn), "small");
	struct turn_step step = turn_take(&turn, A, false, 9);
	assert_int_equal(step.phase, PHASE_THINK);
	assert_false(step.over || step.hidden || step.thinking_ends);
	assert_string_equal(turn_reader(&turn), "small");
	step = turn_take(&turn, CLOSE, false, 9);
	assert_int_equal(step.phase, PHASE_THINK); // sampled by the old budget
	assert_true(step.thinking_ends && step.hidden);
	assert_false(step.over);
	assert_string_equal(turn_reader(&turn), "large"); // read by the new one
	assert_int_equal(turn.reason, SWITCH_PHASE);
	assert_int_equal(turn_pick(&turn).forced, -1);
	step = turn_take(&turn, CLOSE, false, 9); // in an answer it is a token like others
	assert_int_equal(step.phase, PHASE_ANSWER);
	assert_false(step.thinking_ends || step.over);
	step = turn_take(&turn, END, false, 9);
	assert_true(step.over && step.hidden);
	assert_int_equal(step.reason, STOP_EOS);
}

static void a_manual_choice_turns_the_policy_off(void **state)
{
	struct turn_settings settings = settings_of(true);
	struct turn turn = start(&settings);
	(void)state;
	settings.policy = false;
	settings.thinking = false; // what the prompt says stays
	turn_set(&turn, &settings);
	assert_string_equal(turn_reader(&turn), "medium");
	assert_int_equal(turn.reason, SWITCH_USER);
	assert_true(turn.settings.thinking);
	turn_take(&turn, CLOSE, false, 9);
	assert_string_equal(turn_reader(&turn), "medium");
	settings.policy = true;
	turn_set(&turn, &settings);
	assert_string_equal(turn_reader(&turn), "large");
	assert_int_equal(turn.reason, SWITCH_POLICY);
}

/* Takes what is asked for, or `id` while the model may choose; returns how many until the thoughts
 * end. */
static int count_thoughts(struct turn *turn, int newline_at)
{
	for (int n = 1; n < 1000; n++) {
		int32_t forced = turn_pick(turn).forced;
		int32_t id = forced >= 0 ? forced : A;
		if (turn_take(turn, id, n == newline_at || id == NEWLINE, 9).thinking_ends)
			return n;
	}
	return -1;
}

static void the_limit_waits_for_a_newline_a_tenth_at_most(void **state)
{
	struct turn_settings settings = settings_of(false);
	struct turn turn;
	(void)state;
	settings.think_limit = 50;
	turn = start(&settings);
	assert_int_equal(count_thoughts(&turn, 53), 53 + 3);
	turn = start(&settings);
	assert_int_equal(count_thoughts(&turn, 50), 50 + 3);
	turn = start(&settings);
	assert_int_equal(count_thoughts(&turn, 49), 55 + 3);
	assert_int_equal(turn.phase, PHASE_ANSWER);
	assert_int_equal(turn_pick(&turn).forced, -1);
	settings.think_limit = 0;
	turn = start(&settings);
	assert_int_equal(count_thoughts(&turn, 5), -1);
}

static void thoughts_end_now(void **state)
{
	struct turn_settings settings = settings_of(false);
	struct turn turn = start(&settings);
	struct turn_rules bare = {.think_open = OPEN, .think_close = CLOSE};
	(void)state;
	turn_take(&turn, A, false, 9);
	assert_true(turn_end_thinking(&turn));
	assert_false(turn_end_thinking(&turn)); // it is ending
	assert_int_equal(turn_pick(&turn).forced, 60);
	assert_int_equal(count_thoughts(&turn, 0), 3);
	assert_false(turn_end_thinking(&turn)); // it is answering
	turn_begin(&turn, &bare, &settings, true);
	turn_prompt(&turn, think_prompt, 4);
	assert_false(turn_end_thinking(&turn)); // nothing to end it with
}

static void the_model_may_end_its_thoughts_while_forced(void **state)
{
	struct turn_settings settings = settings_of(false);
	struct turn turn = start(&settings);
	(void)state;
	assert_true(turn_end_thinking(&turn));
	assert_true(turn_take(&turn, CLOSE, false, 9).thinking_ends);
	assert_int_equal(turn_pick(&turn).forced, -1);
}

static void it_ends_by_length_and_by_a_full_context(void **state)
{
	struct turn_settings settings = settings_of(false);
	struct turn_step step;
	(void)state;
	settings.max_tokens = 2;
	struct turn turn = start(&settings);
	assert_false(turn_take(&turn, A, false, 9).over);
	step = turn_take(&turn, A, false, 0);
	assert_true(step.over && !step.full);
	assert_int_equal(step.reason, STOP_LENGTH);
	settings.max_tokens = 0;
	turn = start(&settings);
	assert_false(turn_take(&turn, A, false, 1).over);
	step = turn_take(&turn, A, false, 0);
	assert_true(step.over && step.full);
	assert_int_equal(step.reason, STOP_LENGTH);
	assert_int_equal(turn.phase, PHASE_THINK);
}

static void stop_ids_count_only_where_asked(void **state)
{
	struct turn_settings settings = settings_of(false);
	struct turn turn = start(&settings);
	struct turn_step step = turn_take(&turn, 2, false, 9);
	(void)state;
	assert_true(step.over && step.hidden); // inside its thoughts
	assert_int_equal(step.phase, PHASE_THINK);
	turn_begin(&turn, &rules, &settings, false);
	step = turn_take(&turn, 2, false, 9);
	assert_false(step.over || step.hidden);
	settings.sampling.forced = 0; // a zeroed request forces nothing
	turn_set(&turn, &settings);
	assert_int_equal(turn_pick(&turn).forced, -1);
}

static void a_rule_chooses_after_every_token(void **state)
{
	struct turn_settings settings = settings_of(true);
	struct turn turn;
	struct picked sure = {.entropy = .5f}, unsure = {.entropy = 3};
	(void)state;
	strcpy(settings.read, "medium");
	strcpy(settings.rule, "think: entropy>2 big else tiny");
	turn_begin(&turn, &rules, &settings, true);
	assert_int_equal(rule_parse(&turn.rule, settings.rule, NULL), 0);
	turn_prompt(&turn, think_prompt, 4);
	turn_judge(&turn, NULL);
	assert_string_equal(turn_prompt_reader(&turn), "medium");
	assert_string_equal(turn_reader(&turn), "tiny");
	assert_int_equal(turn.reason, SWITCH_PHASE); // from reading to writing
	turn_take(&turn, A, false, 9);
	turn_judge(&turn, &sure);
	assert_string_equal(turn_reader(&turn), "tiny");
	assert_int_equal(turn.reason, SWITCH_PHASE);
	turn_take(&turn, A, false, 9);
	turn_judge(&turn, &unsure);
	assert_string_equal(turn_reader(&turn), "big");
	assert_int_equal(turn.reason, SWITCH_POLICY);
	assert_string_equal(turn.why, "entropy 3 > 2");
	turn_take(&turn, CLOSE, false, 9);
	turn_judge(&turn, &unsure);
	assert_string_equal(turn_reader(&turn), "large"); // no rule for the answer: the settings
	assert_int_equal(turn.reason, SWITCH_PHASE);
	assert_string_equal(turn.why, "");
	settings = settings_of(false);
	turn_set(&turn, &settings);
	turn_judge(&turn, &unsure);
	assert_string_equal(turn_reader(&turn), "medium");
	assert_int_equal(turn.reason, SWITCH_USER);
}

static void given_ids_decide_the_phase(void **state)
{
	static const int32_t answer[] = {10, 77, OPEN, NEWLINE, A, A, CLOSE, NEWLINE, A};
	struct turn_settings settings = settings_of(true);
	struct turn turn;
	(void)state;
	for (size_t n = 0; n <= sizeof answer / sizeof *answer; n++) {
		turn_begin(&turn, &rules, &settings, true);
		turn_resume(&turn, answer, n);
		assert_int_equal(turn.phase, n >= 3 && n < 7 ? PHASE_THINK : PHASE_ANSWER);
		assert_int_equal(turn.n_thoughts, n >= 5 && n < 7 ? n - 4 : 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_prompt_decides_the_phase),
		cmocka_unit_test(the_policy_changes_reader_behind_the_thoughts),
		cmocka_unit_test(a_manual_choice_turns_the_policy_off),
		cmocka_unit_test(the_limit_waits_for_a_newline_a_tenth_at_most),
		cmocka_unit_test(thoughts_end_now),
		cmocka_unit_test(the_model_may_end_its_thoughts_while_forced),
		cmocka_unit_test(it_ends_by_length_and_by_a_full_context),
		cmocka_unit_test(stop_ids_count_only_where_asked),
		cmocka_unit_test(a_rule_chooses_after_every_token),
		cmocka_unit_test(given_ids_decide_the_phase),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
