/* Masks as text: every term, the shortest text of a budget, and that it makes the same budget
 * again; names of long ones. */
#include "core/budget.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/tiny.h"

/* The terms, applied to the parent, as the shortest text. */
static void becomes(const char *typed, const char *shortest)
{
	struct config config = tiny();
	struct budget parent, budget, again;
	struct error err = {0};
	struct text text = {0}, second = {0};
	assert_int_equal(budget_init(&parent, &config, "large", &err), 0);
	if (budget_parse(&budget, &config, typed, &err) < 0)
		fail_msg("%s", err.text);
	budget_terms(&budget, &parent, &config, &text);
	assert_string_equal(text_chars(&text), shortest);
	assert_int_equal(budget_copy(&again, &parent, &err), 0);
	if (text.length && budget_edit(&again, &config, text_chars(&text), &err) < 0)
		fail_msg("%s", err.text);
	budget_terms(&again, &budget, &config, &second);
	assert_string_equal(text_chars(&second), "");
	text_free(&text);
	text_free(&second);
	budget_free(&parent);
	budget_free(&budget);
	budget_free(&again);
}

static void terms_have_one_shortest_text(void **state)
{
	(void)state;
	becomes("hidden_size=64", "hidden_size=64");
	becomes("hidden_size=0-64", "hidden_size=64");
	becomes("hidden_size=0-64+66-80", "hidden_size=0-64+66-80");
	becomes("drop=hidden_size:64-66", "hidden_size=0-64+66-80");
	becomes("4.moe_intermediate_size=32", "4.moe_intermediate_size=32");
	becomes("1.moe_intermediate_size=32,4.moe_intermediate_size=32,7.moe_intermediate_size=32",
			"moe_intermediate_size=32");
	becomes("moe_intermediate_size=32,4.moe_intermediate_size=48",
			"1.moe_intermediate_size=32,7.moe_intermediate_size=32");
	becomes("drop=4.n_routed_experts:3", "4.n_routed_experts=0-3+4-10");
	becomes("drop=4.n_routed_experts:3,add=4.n_routed_experts:3", "");
	becomes("drop=4.n_routed_experts:8+9", "4.n_routed_experts=8");
	becomes("drop=n_routed_experts:0", "1.n_routed_experts=1-10,4.n_routed_experts=1-10,"
									   "7.n_routed_experts=1-10");
	becomes("n_routed_experts=0-3+4-10,4.n_routed_experts=8",
			"1.n_routed_experts=0-3+4-10,4.n_routed_experts=8,7.n_routed_experts=0-3+4-10");
	// heads are cut group by group: the last of each is a plain width, the last of all is not
	becomes("drop=0.mamba_num_heads:2+5", "0.mamba_num_heads=4");
	becomes("drop=0.mamba_num_heads:5", "0.mamba_num_heads=0-5");
	becomes("heads=global,0.mamba_num_heads=0-4", "heads=global,0.mamba_num_heads=4");
	becomes("skip=3+7", "skip=3+7");
	becomes("drop=3+7,keep=7", "skip=3");
	becomes("num_experts_per_tok=2,4.force=7+1", "num_experts_per_tok=2,4.force=1+7");
	becomes("4.force=1,4.force=none", "");
	becomes("norm=uncorrected,norm=slice", "");
	becomes("heads=global,norm=masked", "heads=global,norm=masked");
	becomes("0.mamba_num_heads=0-4,heads=global", "heads=global,0.mamba_num_heads=4");
	becomes("heads=global,0.mamba_num_heads=0-2+3-5", "heads=global,0.mamba_num_heads=0-2+3-5");
}

static void refuses(const char *typed, const char *sentence)
{
	struct config config = tiny();
	struct budget budget, parent, copy;
	struct error err = {0};
	struct text text = {0};
	if (budget_parse(&budget, &config, typed, &err) == 0)
		fail_msg("accepted: %s", typed);
	assert_string_equal(err.text, sentence);
	// and an edit that fails leaves its budget alone
	assert_int_equal(budget_init(&parent, &config, "large", &err), 0);
	assert_int_equal(budget_edit(&parent, &config, "4.force=2,skip=0", &err), 0);
	assert_int_equal(budget_copy(&copy, &parent, &err), 0);
	assert_int_equal(budget_edit(&parent, &config, typed, &err), -1);
	budget_terms(&parent, &copy, &config, &text);
	assert_string_equal(text_chars(&text), "");
	text_free(&text);
	budget_free(&parent);
	budget_free(&copy);
}

static void bad_terms_are_sentences(void **state)
{
	(void)state;
	refuses("9.moe_intermediate_size=1", "9.moe_intermediate_size=1: \"9.moe_intermediate_size\" "
										 "is not LAYER.AXIS with a layer of 0 to 7");
	refuses("3.moe_intermediate_size=16",
			"3.moe_intermediate_size=16: layer 3 has no moe_intermediate_size");
	refuses("2.hidden_size=16", "2.hidden_size=16: hidden_size is one for the whole model, found "
								"it for layer 2");
	refuses("hidden_size=64-66-80",
			"hidden_size=64-66-80: hidden_size expects a width, or runs such as 0-40+41-80, found "
			"\"64-66-80\"");
	refuses("hidden_size=4-4", "hidden_size=4-4: hidden_size expects a width, or runs such as "
							   "0-40+41-80, found \"4-4\"");
	refuses("hidden_size=0-64+60-80", "hidden_size=0-64+60-80: run 60-80 of hidden_size overlaps "
									  "the one before it or leaves the parent's 80");
	refuses("hidden_size=0-81", "hidden_size=0-81: run 0-81 of hidden_size overlaps the one before "
								"it or leaves the parent's 80");
	refuses("drop=4.n_routed_experts:0-10",
			"drop=4.n_routed_experts:0-10: nothing of n_routed_experts would be left");
	refuses("drop=4.n_routed_experts:0-8", "budget drop=4.n_routed_experts:0-8: "
										   "num_experts_per_tok is 3, layer 4 keeps 2 experts");
	refuses("drop=4.n_routed_experts", "drop=4.n_routed_experts: drop expects LAYER.AXIS:CHANNELS "
									   "or layers, found \"4.n_routed_experts\"");
	refuses("drop=9", "drop=9: drop expects layers 0 to 7 with + between them");
	refuses("3.force=1", "budget 3.force=1: layer 3 has no experts to force");
	refuses("4.force=10", "budget 4.force=10: layer 4: expert 10 is forced, but it is not kept");
	refuses("4.force=1+1", "4.force=1+1: expert 1 is forced twice");
	refuses("4.force=x",
			"4.force=x: force expects experts with + between them, or none, found \"x\"");
	refuses("4.force=0+1+2+3", "budget 4.force=0+1+2+3: layer 4 forces more than the 3 experts "
							   "that a token uses");
	refuses("norm=full", "norm=full: norm expects slice, masked or uncorrected, found \"full\"");
	refuses("heads=first", "heads=first: heads expects grouped or global, found \"first\"");
	refuses("skip=0+1+2+3+4+5+6+7", "budget skip=0+1+2+3+4+5+6+7 leaves out every layer");
}

/* Between any two of many budgets, the terms lead from one to the other. */
static void terms_lead_from_any_budget_to_any(void **state)
{
	(void)state;
	static const char *const many[] = {
		"hidden_size=64,moe_intermediate_size=32",
		"4.moe_intermediate_size=32,7.n_routed_experts=0-4+6-10,skip=3",
		"drop=hidden_size:3,drop=1.n_routed_experts:2,drop=0.mamba_num_heads:1,4.force=5+2",
		"n_routed_experts=8,num_experts_per_tok=2,1.n_routed_experts=10,norm=uncorrected",
		"mamba_num_heads=4,2.mamba_num_heads=2,heads=global,skip=0+1",
		"intermediate_size=1-96,num_attention_heads=2,mamba_head_dim=0-4+8-16,1.force=3",
	};
	enum { N = sizeof many / sizeof *many };
	struct config config = tiny();
	struct error err = {0};
	for (int i = 0; i < N; i++) {
		for (int j = 0; j < N; j++) {
			struct budget from, to;
			struct text terms = {0}, left = {0};
			assert_int_equal(budget_parse(&from, &config, many[i], &err), 0);
			assert_int_equal(budget_parse(&to, &config, many[j], &err), 0);
			budget_terms(&to, &from, &config, &terms);
			assert_true((i == j) == (terms.length == 0));
			if (terms.length && budget_edit(&from, &config, text_chars(&terms), &err) < 0)
				fail_msg("%s", err.text);
			budget_terms(&to, &from, &config, &left);
			assert_string_equal(text_chars(&left), "");
			for (int layer = 0; layer < config.n_layers; layer++)
				assert_int_equal(budget_keeps_layer(&from, layer), budget_keeps_layer(&to, layer));
			text_free(&terms);
			text_free(&left);
			budget_free(&from);
			budget_free(&to);
		}
	}
}

/* Pieces in any order: refused with a sentence, or a budget that its own terms make again. */
static void any_text_is_refused_or_means_something(void **state)
{
	(void)state;
	static const char *const pieces[] = {"skip=3+7",
										 "keep=3",
										 "drop=4.n_routed_experts:3+5-7",
										 "add=4.n_routed_experts:0-9",
										 "norm=masked",
										 "heads=global",
										 "heads=grouped",
										 "num_experts_per_tok=2",
										 "hidden_size=64",
										 "drop=hidden_size:8-16",
										 "n_routed_experts=0-3+4-10",
										 "0.mamba_num_heads=4",
										 "0.mamba_num_heads=1-3+4-6",
										 "drop=2.mamba_num_heads:5",
										 "5.intermediate_size=7",
										 "1.force=3",
										 "1.force=none",
										 "3.num_attention_heads=2",
										 "mamba_head_dim=12"};
	struct config config = tiny();
	struct error err;
	uint32_t random = 1;
	int taken = 0;
	for (int round = 0; round < 20000; round++) {
		struct text typed = {0}, terms = {0}, left = {0};
		struct budget budget, again;
		for (int n = 1 + round % 5; n > 0; n--) {
			random = random * 1664525u + 1013904223u;
			text_format(&typed, "%s%s", typed.length ? "," : "",
						pieces[(random >> 8) % (sizeof pieces / sizeof *pieces)]);
		}
		if (round % 3 == 0) // one byte of it is another
			typed.data[(random >> 10) % typed.length] = ",.=+-:09aks \xff"[(random >> 5) % 13];
		err.text[0] = '\0';
		if (budget_parse(&budget, &config, text_chars(&typed), &err) == 0) {
			taken++;
			assert_int_equal(budget_init(&again, &config, "large", &err), 0);
			budget_terms(&budget, &again, &config, &terms);
			if (terms.length && budget_edit(&again, &config, text_chars(&terms), &err) < 0)
				fail_msg("%s: %s", text_chars(&typed), err.text);
			budget_terms(&budget, &again, &config, &left);
			assert_string_equal(text_chars(&left), "");
			budget_free(&again);
			budget_free(&budget);
		} else {
			assert_true(err.text[0] != '\0');
		}
		text_free(&typed);
		text_free(&terms);
		text_free(&left);
	}
	assert_true(taken > 5000 && taken < 19000);
}

/* A list and runs of the axis would hide the width if they stayed; other axes' stay. */
static void a_width_for_all_layers_replaces_lists_and_runs(void **state)
{
	(void)state;
	struct config config = tiny();
	struct budget budget;
	struct error err;
	assert_int_equal(budget_parse(&budget, &config,
								  "1.moe_intermediate_size=32,4.moe_intermediate_size=8-24,"
								  "4.n_routed_experts=1-9",
								  &err),
					 0);
	assert_non_null(budget_runs_of(&budget, AXIS_EXPERT_FFN, 4));
	assert_null(budget_runs_of(&budget, AXIS_EXPERT_FFN, 1));
	budget_set_width(&budget, AXIS_EXPERT_FFN, 24);
	assert_false(budget_has_runs(&budget, AXIS_EXPERT_FFN));
	assert_int_equal(budget_width(&budget, AXIS_EXPERT_FFN, 1), 24);
	assert_int_equal(budget_width(&budget, AXIS_EXPERT_FFN, 4), 24);
	assert_int_equal(budget_width(&budget, AXIS_EXPERTS, 4), 8);
	assert_non_null(budget_runs_of(&budget, AXIS_EXPERTS, 4));
	budget_free(&budget);
}

static void long_texts_get_a_name(void **state)
{
	(void)state;
	struct text text = {0};
	struct error err = {0};
	char name[BUDGET_NAME_BYTES], other[BUDGET_NAME_BYTES];
	assert_int_equal(budget_name_of(name, "large,skip=3", &err), 0);
	assert_string_equal(name, "large,skip=3");
	assert_string_equal(budget_name_text(name), "large,skip=3");
	text_add(&text, "large");
	while (text.length < 300)
		text_add(&text, ",4.moe_intermediate_size=32");
	assert_int_equal(budget_name_of(name, text_chars(&text), &err), 0);
	assert_int_equal(strncmp(name, "large~", 6), 0);
	assert_int_equal(strlen(name), 14);
	assert_string_equal(budget_name_text(name), text_chars(&text));
	assert_int_equal(budget_name_of(other, text_chars(&text), &err), 0); // stable
	assert_string_equal(other, name);
	assert_string_equal(budget_name_text("large~00000000"), "large~00000000"); // unknown
	struct config config = tiny();
	struct budget budget;
	assert_int_equal(budget_parse(&budget, &config, text_chars(&text) + 6, &err), 0);
	assert_int_equal(budget.name[0], '~');
	assert_string_equal(budget_name_text(budget.name), text_chars(&text) + 6);
	budget_free(&budget);
	text_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(terms_have_one_shortest_text),
		cmocka_unit_test(bad_terms_are_sentences),
		cmocka_unit_test(terms_lead_from_any_budget_to_any),
		cmocka_unit_test(any_text_is_refused_or_means_something),
		cmocka_unit_test(a_width_for_all_layers_replaces_lists_and_runs),
		cmocka_unit_test(long_texts_get_a_name),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
