#include "core/budget.h"
#include "core/elastic.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/tiny.h"

static void assert_spans(const struct budget *budget, const struct config *config, enum axis axis,
						 int layer, const char *expected)
{
	struct span_list list = {0};
	struct text shown = {0};
	struct error err;
	assert_int_equal(budget_spans(budget, config, axis, layer, &list, &err), 0);
	for (size_t i = 0; i < list.n; i++) {
		text_format(&shown, "[%d,%d)", list.spans[i].start,
					list.spans[i].start + list.spans[i].length);
	}
	assert_string_equal(text_chars(&shown), expected);
	text_free(&shown);
	free(list.spans);
}

/* Reads a file, or a text whose quotes are single for legibility. On failure the sentence is in
 * err. */
static int read_text(struct elastic *elastic, const char *quoted, bool lenient, struct error *err)
{
	struct config config = tiny();
	struct text text = {0};
	text_add(&text, quoted);
	for (size_t i = 0; i < text.length; i++) {
		if (text.data[i] == '\'') {
			text.data[i] = '"';
		}
	}
	int status = elastic_parse(elastic, &config, &text, "elastic.json", lenient, err);
	text_free(&text);
	return status;
}

static void refuses(const char *quoted, const char *sentence)
{
	struct elastic elastic;
	struct error err = {0};
	if (read_text(&elastic, quoted, false, &err) == 0) {
		fail_msg("accepted: %s", quoted);
	}
	assert_string_equal(err.text, sentence);
	assert_int_equal(elastic.n_budgets, 0);
}

static void refuses_typed(const char *typed, const char *sentence)
{
	struct config config = tiny();
	struct budget budget;
	struct error err = {0};
	if (budget_parse(&budget, &config, typed, &err) == 0) {
		fail_msg("accepted: %s", typed);
	}
	assert_string_equal(err.text, sentence);
}

static void groups_are_cut_alike(void **state)
{
	(void)state;
	struct config config = tiny();
	struct budget budget;
	struct error err = {0};
	assert_int_equal(budget_parse(&budget, &config,
								  "hidden_size=64,mamba_num_heads=4,mamba_head_dim=12,"
								  "num_attention_heads=2,n_routed_experts=7,"
								  "num_experts_per_tok=2,skip=2+7",
								  &err),
					 0);
	assert_spans(&budget, &config, AXIS_HIDDEN, 0, "[0,64)");
	assert_spans(&budget, &config, AXIS_MAMBA_HEADS, 0, "[0,2)[3,5)");
	assert_spans(&budget, &config, AXIS_MAMBA_CHANNELS, 0, "[0,12)");
	assert_spans(&budget, &config, AXIS_ATTENTION_HEADS, 3, "[0,1)[3,4)");
	assert_spans(&budget, &config, AXIS_EXPERTS, 1, "[0,7)");
	assert_spans(&budget, &config, AXIS_EXPERT_FFN, 1, "[0,48)");
	assert_int_equal(budget.top_k, 2);
	assert_int_equal(budget.origin, ORIGIN_DERIVED);
	assert_string_equal(budget.source, "typed");
	for (int i = 0; i < 8; i++) {
		assert_int_equal(budget_keeps_layer(&budget, i), i != 2 && i != 7);
	}
	struct budget parent, copy;
	assert_int_equal(budget_init(&parent, &config, "large", &err), 0);
	assert_spans(&parent, &config, AXIS_MAMBA_HEADS, 0, "[0,6)");
	assert_int_equal(budget_violations(&parent, &budget, &config, NULL), 0);
	struct text lines = {0};
	// hidden; heads on the Mamba layers that both keep (0, 6), their channels; experts on 1 and 4;
	// query heads on 3; and layers 2 and 7, that only one keeps.
	assert_int_equal(budget_violations(&budget, &parent, &config, &lines), 10);
	assert_non_null(strstr(lines.data, "layer 2: large keeps it, hidden_size=64"));
	text_free(&lines);
	assert_int_equal(budget_copy(&copy, &budget, &err), 0);
	assert_int_equal(budget_violations(&budget, &copy, &config, NULL), 0);
	assert_int_equal(budget_violations(&copy, &budget, &config, NULL), 0);
	copy.keep[2] = 1; // its own list
	assert_false(budget_keeps_layer(&budget, 2));
	budget_free(&copy);
	budget_free(&budget);
	budget_free(&parent);
}

static void typed_widths_are_checked(void **state)
{
	(void)state;
	refuses_typed("hidden=64", "hidden=64: no axis \"hidden\"; there are hidden_size, "
							   "moe_intermediate_size, n_routed_experts, "
							   "moe_shared_expert_intermediate_size, intermediate_size, "
							   "mamba_num_heads, mamba_head_dim, num_attention_heads, "
							   "num_experts_per_tok, skip, keep, drop, add, force, norm and heads");
	refuses_typed("", ": \"\" is not AXIS=WIDTH");
	refuses_typed("hidden_size=64,", "hidden_size=64,: \"\" is not AXIS=WIDTH");
	refuses_typed("hidden_size", "hidden_size: \"hidden_size\" is not AXIS=WIDTH");
	refuses_typed("hidden_size=", "hidden_size=: hidden_size expects a number from 1, found \"\"");
	refuses_typed("hidden_size=-1",
				  "hidden_size=-1: hidden_size expects a number from 1, found \"-1\"");
	refuses_typed("hidden_size=6x",
				  "hidden_size=6x: hidden_size expects a number from 1, found \"6x\"");
	refuses_typed("hidden_size=99999999999999999999",
				  "hidden_size=99999999999999999999: hidden_size expects a number from 1, found "
				  "\"99999999999999999999\"");
	refuses_typed("hidden_size=81",
				  "budget hidden_size=81: hidden_size is 81, expected 1 to the parent's 80");
	refuses_typed("mamba_num_heads=3", "budget mamba_num_heads=3: mamba_num_heads is 3, expected a "
									   "multiple of the 2 groups that it is cut in");
	refuses_typed("n_routed_experts=2", "budget n_routed_experts=2: num_experts_per_tok is 3, "
										"layer 1 keeps 2 experts");
	refuses_typed("head_dim=10", "head_dim=10: head_dim is not elastic in this family");
	refuses_typed("skip=8", "skip=8: skip expects layers 0 to 7 with + between them");
	refuses_typed("skip=1+", "skip=1+: skip expects layers 0 to 7 with + between them");
	refuses_typed("skip=1-2", "skip=1-2: skip expects layers with + between them, found \"-2\"");
	refuses_typed("skip=0+1+2+3+4+5+6+7", "budget skip=0+1+2+3+4+5+6+7 leaves out every layer");
}

static void fixtures_open(void **state)
{
	(void)state;
	struct config config = tiny();
	struct elastic e;
	struct error err = {0};
	char path[4096];
	const char *folder = getenv("ELASTISCOPE_TESTS");
	assert_non_null(folder);
	snprintf(path, sizeof path, "%s/golden/nest-tiny", folder);
	if (elastic_read(&e, &config, path, NULL, false, &err) < 0) {
		fail_msg("%s", err.text);
	}
	assert_int_equal(e.n_budgets, 3);
	assert_int_equal(e.think, 2);
	assert_int_equal(e.answer, 0);
	assert_false(e.has_handoff);
	assert_string_equal(e.router_file, "router.safetensors");
	assert_int_equal(e.n_router_axes, 2);
	assert_true(e.router_axes[1].hetero);
	assert_int_equal(e.router_axes[1].choices[2], 16);
	assert_int_equal(e.n_router_budgets, 3);
	assert_int_equal(e.budgets[1].width[AXIS_EXPERTS], 10);
	assert_string_equal(text_chars(&e.notices), "");
	assert_int_equal(elastic_find(&e, "medium"), 1);
	assert_int_equal(elastic_find(&e, "SMALL"), 2);
	assert_int_equal(elastic_find(&e, "tiny"), -1);
	assert_int_equal(elastic_mark(&e, 1), 'm');
	elastic_free(&e);

	snprintf(path, sizeof path, "%s/golden/nest-tiny/elastic-allaxes.json", folder);
	assert_int_equal(elastic_read(&e, &config, NULL, path, false, &err), 0);
	const struct budget *hetero = &e.budgets[2];
	assert_string_equal(hetero->source, "elastic-allaxes.json");
	assert_spans(hetero, &config, AXIS_MAMBA_HEADS, 0, "[0,2)[3,5)");
	assert_spans(hetero, &config, AXIS_MAMBA_HEADS, 6, "[0,1)[3,4)");
	assert_spans(hetero, &config, AXIS_MAMBA_CHANNELS, 6, "[0,12)");
	assert_spans(hetero, &config, AXIS_EXPERTS, 4, "[0,5)");
	assert_spans(hetero, &config, AXIS_EXPERT_FFN, 7, "[0,16)");
	assert_false(budget_keeps_layer(hetero, 2));
	elastic_free(&e);
}

static void built_in_tables(void **state)
{
	(void)state;
	struct config config = tiny();
	struct elastic e;
	struct error err = {0};
	assert_int_equal(elastic_read(&e, &config, "/nonexistent", NULL, false, &err), 0);
	assert_int_equal(e.n_budgets, 1);
	assert_string_equal(e.budgets[0].name, "parent");
	assert_int_equal(elastic_mark(&e, 0), 'p');
	elastic_free(&e);

	const char *pattern = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME";
	config = (struct config){.n_layers = 52, .hidden_size = 2688, .vocab_size = 131072};
	for (int i = 0; i < 52; i++) {
		config.kinds[i] = pattern[i] == 'M'   ? LAYER_MAMBA
						  : pattern[i] == 'E' ? LAYER_MOE
											  : LAYER_ATTENTION;
	}
	config.mamba_num_heads = config.mamba_head_dim = 64;
	config.ssm_state_size = config.n_routed_experts = config.head_dim = 128;
	config.n_groups = 8;
	config.conv_kernel = 4;
	config.num_attention_heads = 32;
	config.num_key_value_heads = 2;
	config.num_experts_per_tok = 6;
	config.moe_intermediate_size = config.intermediate_size = 1856;
	config.moe_shared_expert_intermediate_size = 3712;
	assert_int_equal(elastic_read(&e, &config, "/nonexistent", NULL, false, &err), 0);
	assert_int_equal(e.n_budgets, 3);
	assert_int_equal(e.budgets[0].origin, ORIGIN_FILE);
	assert_int_equal(e.budgets[1].origin, ORIGIN_ESTIMATED);
	assert_int_equal(e.budgets[2].origin, ORIGIN_PUBLISHED);
	assert_int_equal(e.budgets[1].width[AXIS_HIDDEN], 2304);
	assert_int_equal(e.budgets[1].width[AXIS_EXPERT_FFN], 1600);
	assert_int_equal(e.budgets[2].width[AXIS_HIDDEN], 1920);
	assert_int_equal(e.budgets[2].width[AXIS_EXPERT_FFN], 960);
	assert_int_equal(e.budgets[2].width[AXIS_SHARED_FFN], 3712);
	assert_int_equal(elastic_mark(&e, 2), '3');
	for (int i = 1; i < 3; i++) {
		assert_int_equal(budget_check(&e.budgets[i], &config, &err), 0);
		assert_int_equal(budget_violations(&e.budgets[i - 1], &e.budgets[i], &config, NULL), 0);
	}
	elastic_free(&e);
}

#define LARGE "{'format':'elastic-1','budgets':[{'name':'large'}"

static void wrong_files_are_refused(void **state)
{
	(void)state;
	refuses("[]", "elastic.json: the file is a list, expected an object");
	refuses("{'budgets':[{'name':'a'}]}",
			"elastic.json: format is missing, expected \"elastic-1\"");
	refuses("{'format':'elastic-2','budgets':[{'name':'a'}]}",
			"elastic.json: format is not \"elastic-1\"");
	refuses("{'format':'elastic-1'}", "elastic.json: budgets is missing, expected a list");
	refuses("{'format':'elastic-1','budgets':{}}",
			"elastic.json: budgets is an object, expected a list");
	refuses("{'format':'elastic-1','budgets':[]}",
			"elastic.json: budgets is empty, expected at least the parent");
	refuses("{'format':'elastic-1','budgets':[{}]}", "elastic.json: budgets[0] has no name");
	refuses("{'format':'elastic-1','budgets':[{'name':1}]}",
			"elastic.json: budgets[0].name is not a string");
	refuses("{'format':'elastic-1','budgets':[{'name':'a b'}]}",
			"elastic.json: budgets[0].name \"a b\" has a space, a control character or one of = , "
			": # + in it");
	refuses("{'format':'elastic-1','budgets':[{'name':''}]}",
			"elastic.json: budget name \"\" has 0 bytes, expected 1 to 255");
	refuses(LARGE ",{'name':'large'}]}",
			"elastic.json: budgets[0] and budgets[1] are both named \"large\"");
	refuses("{'format':'elastic-1','budgets':[{'name':'a','hidden_size':64}]}",
			"elastic.json: the first budget, a, must be the parent: its hidden_size is 64, "
			"config.json says 80");
	refuses("{'format':'elastic-1','budgets':[{'name':'a','num_experts_per_tok':2}]}",
			"elastic.json: the first budget, a, must be the parent: its num_experts_per_tok is 2, "
			"config.json says 3");
	refuses("{'format':'elastic-1','budgets':[{'name':'a','layers':[1,1,1,1,1,1,1,0]}]}",
			"elastic.json: the first budget, a, must be the parent: it leaves out layer 7");
	refuses(LARGE ",{'name':'s','hidden_size':'64'}]}",
			"elastic.json: budget s: hidden_size is \"64\", expected a whole number");
	refuses(LARGE ",{'name':'s','hidden_size':0}]}",
			"elastic.json: budget s: hidden_size is 0, expected 1 to the parent's 80");
	refuses(LARGE ",{'name':'s','hidden_size':-5}]}", "elastic.json: budget s: hidden_size is -5, "
													  "expected a number from 0 to 2147483647");
	refuses(LARGE ",{'name':'s','ssm_state_size':12}]}",
			"elastic.json: budget s: ssm_state_size is 12, the parent has 24: it is not elastic in "
			"this family");
	refuses(LARGE ",{'name':'s','num_key_value_heads':1}]}",
			"elastic.json: budget s: num_key_value_heads is 1, the parent has 2: it is not elastic "
			"in this family");
	refuses(LARGE ",{'name':'s','n_groups':1}]}",
			"elastic.json: budget s: n_groups is 1, the parent has 2: it is not elastic in this "
			"family");
	refuses(LARGE ",{'name':'s','head_dim':10}]}",
			"elastic.json: budget s: head_dim is 10, the parent has 20: it is not elastic in this "
			"family");
	refuses(LARGE ",{'name':'s','layers':[1,1]}]}",
			"elastic.json: budget s: layers has 2 entries, the model has 8 layers");
	refuses(LARGE ",{'name':'s','layers':[1,1,1,1,1,1,1,2]}]}",
			"elastic.json: budget s: layers: entry 7 is 2, expected 0 or 1");
	refuses(LARGE ",{'name':'s','per_layer':{'hidden_size':[1,1,1,1,1,1,1,1]}}]}",
			"elastic.json: budget s: per_layer holds hidden_size, which is one number for the "
			"whole model");
	refuses(LARGE ",{'name':'s','per_layer':{'n_routed_experts':[0,11,0,0,5,0,0,4]}}]}",
			"elastic.json: budget s: layer 1: n_routed_experts is 11, expected 1 to the parent's "
			"10");
	refuses(LARGE ",{'name':'s','n_routed_experts':5,"
				  "'per_layer':{'n_routed_experts':[0,7,0,0,5,0,0,4]}}]}",
			"elastic.json: budget s: per_layer n_routed_experts goes up to 7, n_routed_experts "
			"itself is 5");
	refuses(LARGE ",{'name':'s','per_layer':{'n_routed_experts':[0,7,0,0,0,0,0,4]}}]}",
			"elastic.json: budget s: layer 4: n_routed_experts is 0, expected 1 to the parent's "
			"10");
	refuses(LARGE ",{'name':'s','runs':{'1.n_routed_experts':[[0,4],[3,8]]}}]}",
			"elastic.json: budget s: layer 1: run [3, 8) of n_routed_experts is empty, overlaps "
			"the one before it or leaves the parent's 10");
	refuses(LARGE ",{'name':'s','runs':{'1.n_routed_experts':[[4,4]]}}]}",
			"elastic.json: budget s: runs of 1.n_routed_experts: [4, 4) is empty");
	refuses(LARGE ",{'name':'s','runs':{'n_routed_experts':[[0,4]]}}]}",
			"elastic.json: budget s: runs: key \"n_routed_experts\" is neither LAYER.AXIS nor "
			"hidden_size");
	refuses(LARGE ",{'name':'s','runs':{'0.n_routed_experts':[[0,4]]}}]}",
			"elastic.json: budget s: runs of n_routed_experts for layer 0, which has no such axis");
	refuses(LARGE "],'policy':{'think':'tiny'}}",
			"elastic.json: policy.think names budget \"tiny\"; there are large");
	refuses(LARGE "],'policy':{'handoff':'magic'}}",
			"elastic.json: policy.handoff is neither \"carry\" nor \"reprefill\"");
	refuses(LARGE "],'router':{'file':'r','tau':0}}",
			"elastic.json: router.tau is 0 and router.scaler 10, expected positive numbers");
	refuses(LARGE "],'router':{'axes':{'hidden_size':{'choices':[81]}}}}",
			"elastic.json: router.axes.hidden_size: choices holds 81, expected 1 to the parent's "
			"80");
}

/* Runs stand over lists, lists over widths, in whatever order the file has them; what a list says
 * of layers without the axis means nothing. */
static void order_of_keys_means_nothing(void **state)
{
	(void)state;
	struct config config = tiny();
	struct elastic e;
	struct error err = {0};
	const char *runs = "'runs':{'4.n_routed_experts':[[0,1],[4,6]]}";
	const char *list = "'per_layer':{'n_routed_experts':[77,7,0,0,5,0,0,4]}";
	const char *plain = "'n_routed_experts':8";
	const char *orders[][3] = {{runs, list, plain}, {plain, runs, list}, {list, plain, runs}};
	for (int i = 0; i < 3; i++) {
		char text[512];
		snprintf(text, sizeof text, LARGE ",{'name':'s',%s,%s,%s}]}", orders[i][0], orders[i][1],
				 orders[i][2]);
		assert_int_equal(read_text(&e, text, false, &err), 0);
		assert_int_equal(e.budgets[1].width[AXIS_EXPERTS], 7);
		assert_spans(&e.budgets[1], &config, AXIS_EXPERTS, 1, "[0,7)");
		assert_spans(&e.budgets[1], &config, AXIS_EXPERTS, 4, "[0,1)[4,6)");
		assert_spans(&e.budgets[1], &config, AXIS_EXPERTS, 7, "[0,4)");
		elastic_free(&e);
	}
}

static void too_many_budgets(void **state)
{
	(void)state;
	struct text text = {0};
	text_add(&text, "{'format':'elastic-1','budgets':[");
	for (int i = 0; i <= MAX_BUDGETS; i++) {
		text_format(&text, "%s{'name':'b%d'}", i ? "," : "", i);
	}
	text_add(&text, "]}");
	refuses(text_chars(&text), "elastic.json: more than 32 budgets");
	text_free(&text);
}

static void nesting_is_checked(void **state)
{
	(void)state;
	const char *crossed = LARGE ",{'name':'m','hidden_size':64,'n_routed_experts':5},"
								"{'name':'s','hidden_size':72,"
								"'runs':{'1.n_routed_experts':[[0,4],[5,6]]}}]}";
	refuses(crossed, "elastic.json: budgets are not nested: hidden_size: s (72) keeps channel 64, "
					 "m (64) does not (4 violations; --lenient opens it to look)");
	struct elastic e;
	struct error err = {0};
	assert_int_equal(read_text(&e, crossed, true, &err), 0);
	assert_string_equal(
		text_chars(&e.notices),
		"not nested: hidden_size: s (72) keeps channel 64, m (64) does not\n"
		"not nested: layer 1, n_routed_experts: s (5) keeps channel 5, m (5) does not\n"
		"not nested: layer 4, n_routed_experts: s (10) keeps channel 5, m (5) does not\n"
		"not nested: layer 7, n_routed_experts: s (10) keeps channel 5, m (5) does not\n");
	struct config config = tiny();
	assert_spans(&e.budgets[2], &config, AXIS_EXPERTS, 1, "[0,4)[5,6)");
	assert_int_equal(budget_width(&e.budgets[2], AXIS_EXPERTS, 1), 5);
	elastic_free(&e);
}

static void unknown_keys_are_reported(void **state)
{
	(void)state;
	struct elastic e;
	struct error err = {0};
	const char *text = "{'format':'elastic-1','col\\nour':1,'budgets':[{'name':'large','speed':9},"
					   "{'name':'s','runs':{'hidden_size':[[0,16],[16,32],[40,48]]},"
					   "'target':{'metric':'active','value':3.6e9,'unit':'x'}}],"
					   "'policy':{'think':'s','when':'x'},'router':{'file':'r','axes':{'depth':{},"
					   "'layers':{'choices':[8,7]}}},"
					   "'importance':{'file':'i','sorted':true,'tokens':65536},"
					   "'sampling':{'temperature':0.5}}";
	assert_int_equal(read_text(&e, text, false, &err), 0);
	assert_string_equal(text_chars(&e.notices),
						"elastic.json: unknown key \"speed\" in budget large\n"
						"elastic.json: unknown key \"unit\" in target\n"
						"elastic.json: unknown key \"col\\x0aour\" in the file\n"
						"elastic.json: unknown key \"when\" in policy\n"
						"elastic.json: unknown key \"depth\" in router.axes\n");
	struct config config = tiny();
	assert_spans(&e.budgets[1], &config, AXIS_HIDDEN, 0, "[0,32)[40,48)");
	assert_int_equal(budget_width(&e.budgets[1], AXIS_HIDDEN, 3), 40);
	assert_string_equal(e.budgets[1].target_metric, "active");
	assert_true(e.budgets[1].target_value == 3.6e9);
	assert_int_equal(e.think, 1);
	assert_int_equal(e.answer, -1);
	assert_true(e.router_axes[0].layers);
	assert_int_equal(e.importance_sorted, 1);
	assert_int_equal(e.importance_tokens, 65536);
	assert_true(e.temperature == 0.5f && e.top_p == -1);
	elastic_free(&e);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(groups_are_cut_alike),
		cmocka_unit_test(typed_widths_are_checked),
		cmocka_unit_test(fixtures_open),
		cmocka_unit_test(built_in_tables),
		cmocka_unit_test(wrong_files_are_refused),
		cmocka_unit_test(too_many_budgets),
		cmocka_unit_test(order_of_keys_means_nothing),
		cmocka_unit_test(nesting_is_checked),
		cmocka_unit_test(unknown_keys_are_reported),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
