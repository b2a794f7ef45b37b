/* Policies as the user types them: what they choose, why, and what is refused. */
#include "core/rule.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

static struct rule parsed(const char *text)
{
	struct rule rule;
	struct error err = {0};
	if (rule_parse(&rule, text, &err)) {
		print_error("%s: %s\n", text, err.text);
		assert_true(false);
	}
	return rule;
}

static const char *chosen(const struct rule *rule, enum phase phase, int n, float entropy,
						  double top1, const char *why)
{
	struct picked picked = {.entropy = entropy};
	struct rule_facts facts = {phase, n, &picked};
	char reason[RULE_REASON_BYTES];
	picked.top[0].logprob = (float)log(top1);
	const char *name = rule_choose(rule, &facts, reason);
	assert_string_equal(reason, why);
	return name;
}

static void entropy_and_top1(void **state)
{
	struct rule rule = parsed("entropy>2.0 large else small");
	struct rule_facts nothing = {PHASE_THINK, 0, NULL};
	char reason[RULE_REASON_BYTES];
	(void)state;
	for (enum phase phase = PHASE_THINK; phase <= PHASE_ANSWER; phase++) {
		assert_string_equal(chosen(&rule, phase, 3, 2.3125f, .5, "entropy 2.31 > 2"), "large");
		assert_string_equal(chosen(&rule, phase, 3, 2, .5, "entropy 2 = 2"), "small");
		assert_string_equal(chosen(&rule, phase, 3, .125f, .5, "entropy 0.125 < 2"), "small");
	}
	assert_string_equal(rule_choose(&rule, &nothing, reason), "small");
	assert_string_equal(reason, "");
	rule = parsed("  top1 < 0.6 large else hidden_size=96,skip=3+7 ");
	assert_string_equal(chosen(&rule, PHASE_THINK, 1, 0, .25, "top1 0.25 < 0.6"), "large");
	assert_string_equal(chosen(&rule, PHASE_ANSWER, 1, 0, .75, "top1 0.75 > 0.6"),
						"hidden_size=96,skip=3+7");
	rule = parsed("entropy<1 small else large");
	assert_string_equal(chosen(&rule, PHASE_THINK, 1, .5, 1, "entropy 0.5 < 1"), "small");
}

static void every_alternates(void **state)
{
	struct rule rule = parsed("every 3 large else small");
	char why[32];
	(void)state;
	for (int n = 0; n < 13; n++) {
		snprintf(why, sizeof why, "every 3: token %d", n);
		assert_string_equal(chosen(&rule, PHASE_THINK, n, 0, 1, why),
							n / 3 % 2 ? "small" : "large");
	}
}

static void a_phase_has_its_own_rule(void **state)
{
	struct rule rule = parsed("think: entropy>2 large else small; answer: large");
	(void)state;
	assert_string_equal(chosen(&rule, PHASE_THINK, 1, 3, 1, "entropy 3 > 2"), "large");
	assert_string_equal(chosen(&rule, PHASE_THINK, 1, 1, 1, "entropy 1 < 2"), "small");
	assert_string_equal(chosen(&rule, PHASE_ANSWER, 1, 1, 1, ""), "large");
	rule = parsed("answer:small");
	assert_null(chosen(&rule, PHASE_THINK, 1, 3, 1, ""));
	assert_string_equal(chosen(&rule, PHASE_ANSWER, 1, 3, 1, ""), "small");
	rule = parsed(" ; ");
	assert_null(chosen(&rule, PHASE_ANSWER, 1, 3, 1, ""));
}

#define EXPECTED                                                                                   \
	"expected RULE such as 'entropy>2.0 large else small', 'top1<0.6 large else small', "          \
	"'every 8 large else small', or a budget alone"

static void nonsense_is_refused(void **state)
{
	static const char *const cases[][2] = {
		{"entropy large else small", "policy: 'entropy' needs > or < and a number behind it"},
		{"entropy>x large else small", "policy: 'x large else small' does not begin with a number"},
		{"entropy>2", "policy: no budget is named; " EXPECTED},
		{"every x large else small", "policy: 'every x large else small': every needs a number of "
									 "tokens behind it, as in 'every 8 large else small'"},
		{"entropy>2 large", "policy: '' where `else` is expected"},
		{"entropy>2 large or small", "policy: 'or' where `else` is expected"},
		{"entropy>2 large else", "policy: no budget is named behind `else`"},
		{"top1<1.5 large else small", "policy: 1.5 is out of range, 0 to 1 is expected"},
		{"entropy>nan large else small", "policy: nan is out of range, 0 to 100 is expected"},
		{"every 0 large else small", "policy: 0 is out of range, 1 to 1e+06 is expected"},
		{"every 2.5 large else small", "policy: every 2.5: a whole number of tokens is expected"},
		{"think: large; think: small", "policy: 'small' is a second rule for the same phase"},
		{"large; small", "policy: 'small' is for both phases, but one has its own rule"},
		{"large small", "policy: 'small' is too much; " EXPECTED},
		{"think:", "policy: no budget is named; " EXPECTED},
	};
	struct error err;
	struct rule rule;
	char longest[RULE_BYTES + 1];
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		err.text[0] = '\0';
		assert_int_equal(rule_parse(&rule, cases[i][0], &err), -1);
		assert_string_equal(err.text, cases[i][1]);
	}
	memset(longest, 'x', RULE_BYTES);
	longest[RULE_BYTES] = '\0';
	assert_int_equal(rule_parse(&rule, longest, &err), -1);
	assert_string_equal(err.text, "policy: 640 characters, at most 639");
	longest[BUDGET_NAME_BYTES] = '\0';
	assert_int_equal(rule_parse(&rule, longest, &err), -1);
	assert_string_equal(err.text,
						"policy: 'xxxxxxxxxxxxxxxxxxxx...' is longer than 255 characters");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(entropy_and_top1),
		cmocka_unit_test(every_alternates),
		cmocka_unit_test(a_phase_has_its_own_rule),
		cmocka_unit_test(nonsense_is_refused),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
