/* Masks by hand: edits, undo, redo, flip, taking apart, what deviates from the trained budgets, and
 * saving. On the dimensions of tests/golden/nest-tiny: MEM*E-ME. */
#include "core/mask.h"

#include "base/file.h"
#include "folder.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct config config;
static struct elastic trained;
static struct text file; // the fixture's elastic.json

static int open_budgets(void **state)
{
	(void)state;
	static const uint8_t kinds[] = {LAYER_MAMBA, LAYER_MOE, LAYER_MAMBA, LAYER_ATTENTION,
									LAYER_MOE,   LAYER_MLP, LAYER_MAMBA, LAYER_MOE};
	config = (struct config){.n_layers = 8, .hidden_size = 80, .vocab_size = 224};
	memcpy(config.kinds, kinds, sizeof kinds);
	config.mamba_num_heads = 6;
	config.mamba_head_dim = 16;
	config.ssm_state_size = 24;
	config.n_groups = 2;
	config.conv_kernel = 4;
	config.num_attention_heads = 6;
	config.num_key_value_heads = 2;
	config.head_dim = 20;
	config.n_routed_experts = 10;
	config.num_experts_per_tok = 3;
	config.moe_intermediate_size = 48;
	config.moe_shared_expert_intermediate_size = 48;
	config.intermediate_size = 96;
	char path[512];
	struct error err = {0};
	snprintf(path, sizeof path, "%s/golden/nest-tiny/elastic.json", getenv("ELASTISCOPE_TESTS"));
	if (file_read(path, 1 << 20, &file, &err) < 0 ||
		elastic_parse(&trained, &config, &file, "elastic.json", false, &err) < 0) {
		print_error("%s\n", err.text);
		return -1;
	}
	return 0;
}

static int close_budgets(void **state)
{
	(void)state;
	elastic_free(&trained);
	text_free(&file);
	return 0;
}

static void assert_mask(const struct mask *mask, const char *expected)
{
	struct text text = {0};
	struct error err = {0};
	assert_int_equal(mask_text(mask, &config, &text, &err), 0);
	assert_string_equal(text_chars(&text), expected);
	text_free(&text);
}

static void good(int status, const struct error *err)
{
	if (status < 0)
		fail_msg("%s", err->text);
}

static void edits_are_undone_redone_and_flipped(void **state)
{
	(void)state;
	struct mask mask;
	struct error err = {0};
	good(mask_open(&mask, &trained.budgets[1], &err), &err);
	assert_mask(&mask, "medium");
	good(mask_edit(&mask, &config, "4.moe_intermediate_size=48", &err), &err);
	good(mask_edit(&mask, &config, "drop=4.n_routed_experts:3", &err), &err);
	good(mask_edit(&mask, &config, "skip=2", &err), &err);
	const char *all = "medium,4.moe_intermediate_size=48,4.n_routed_experts=0-3+4-10,skip=2";
	assert_mask(&mask, all);
	mask.before = true;
	assert_mask(&mask, "medium");
	mask.before = false;
	good(mask_undo(&mask, &config, &err), &err);
	assert_mask(&mask, "medium,4.moe_intermediate_size=48,4.n_routed_experts=0-3+4-10");
	good(mask_undo(&mask, &config, &err), &err);
	good(mask_redo(&mask, &config, &err), &err);
	good(mask_redo(&mask, &config, &err), &err);
	assert_mask(&mask, all);
	assert_int_equal(mask_redo(&mask, &config, &err), -1);
	assert_string_equal(err.text, "there is no edit to redo");
	// an edit that fails changes nothing, an edit after undo forgets what could be redone
	assert_int_equal(mask_edit(&mask, &config, "4.n_routed_experts=2", &err), -1);
	assert_string_equal(err.text,
						"budget medium: num_experts_per_tok is 3, layer 4 keeps 2 experts");
	assert_mask(&mask, all);
	good(mask_undo(&mask, &config, &err), &err);
	good(mask_edit(&mask, &config, "norm=masked", &err), &err);
	assert_int_equal(mask.n_edits, 3);
	assert_int_equal(mask_redo(&mask, &config, &err), -1);
	while (mask.n_done)
		good(mask_undo(&mask, &config, &err), &err);
	assert_int_equal(mask_undo(&mask, &config, &err), -1);
	assert_string_equal(err.text, "there is no edit to undo");
	assert_mask(&mask, "medium");
	mask_close(&mask);
}

/* A base that goes by a short name: the whole text again, so that it can be read. */
static void a_mask_lies_over_a_long_one(void **state)
{
	(void)state;
	struct text text = {0};
	struct budget base, whole;
	struct mask mask;
	struct error err = {0};
	text_add(&text, "hidden_size=64");
	while (text.length < 300)
		text_add(&text, ",4.n_routed_experts=0-3+4-10");
	good(budget_parse(&base, &config, text_chars(&text), &err), &err);
	assert_int_equal(base.name[0], '~');
	good(mask_open(&mask, &base, &err), &err);
	good(mask_edit(&mask, &config, "skip=2", &err), &err);
	text_add(&text, ",skip=2");
	assert_mask(&mask, text_chars(&text));
	good(budget_parse(&whole, &config, text_chars(&text), &err), &err);
	text_clear(&text);
	budget_terms(&whole, &mask.now, &config, &text);
	assert_string_equal(text_chars(&text), "");
	budget_free(&whole);
	budget_free(&base);
	mask_close(&mask);
	text_free(&text);
}

static void a_mask_is_taken_apart(void **state)
{
	(void)state;
	struct mask mask;
	struct error err = {0};
	good(mask_open(&mask, &trained.budgets[1], &err), &err);
	good(mask_edit(&mask, &config, "4.n_routed_experts=8", &err), &err);
	assert_ptr_equal(mask_baseline(&mask, &trained.budgets[0]), &mask.base);
	good(mask_solo(&mask, &config, &trained.budgets[0], 4, AXIS_EXPERTS, &err), &err);
	assert_ptr_equal(mask_baseline(&mask, &trained.budgets[0]), &trained.budgets[0]);
	assert_mask(&mask, "medium,hidden_size=80,moe_intermediate_size=48,4.n_routed_experts=8");
	good(mask_undo(&mask, &config, &err), &err);
	assert_mask(&mask, "medium,4.n_routed_experts=8");
	good(mask_all_but(&mask, &config, &trained.budgets[0], 4, AXIS_EXPERTS, &err), &err);
	assert_mask(&mask, "medium");
	good(mask_all_but(&mask, &config, &trained.budgets[0], -1, AXIS_HIDDEN, &err), &err);
	assert_mask(&mask, "medium,hidden_size=80");
	assert_string_equal(mask.edits[1].said, "all-but 4 n_routed_experts");
	assert_int_equal(mask_solo(&mask, &config, &trained.budgets[0], 3, AXIS_ATTENTION_HEADS, &err),
					 -1);
	assert_string_equal(err.text, "solo 3 num_attention_heads: the mask keeps all of that, there "
								  "is nothing to take apart");
	mask_close(&mask);
}

static void units_are_the_smallest_differences(void **state)
{
	(void)state;
	struct budget to;
	struct mask_units units;
	struct text shown = {0};
	struct error err = {0};
	good(budget_parse(&to, &config,
					  "n_routed_experts=8,hidden_size=64,norm=masked,skip=3,4.force=2,"
					  "num_experts_per_tok=2",
					  &err),
		 &err);
	good(mask_units(&trained.budgets[0], &to, &config, &units, &err), &err);
	for (int i = 0; i < units.n; i++)
		text_format(&shown, "%d %s %s\n", units.units[i].layer, mask_kind_name(units.units[i].kind),
					units.units[i].term);
	assert_string_equal(text_chars(&shown), "-1 norm norm=masked\n"
											"-1 hidden_size hidden_size=64\n"
											"-1 num_experts_per_tok num_experts_per_tok=2\n"
											"1 n_routed_experts 1.n_routed_experts=8\n"
											"3 skip skip=3\n"
											"4 n_routed_experts 4.n_routed_experts=8\n"
											"4 force 4.force=2\n"
											"7 n_routed_experts 7.n_routed_experts=8\n");
	text_free(&shown);
	mask_units_free(&units);
	budget_free(&to);
}

static enum mask_mark marked(const char *typed, enum axis axis, int layer)
{
	struct budget budget;
	struct error err = {0};
	good(budget_parse(&budget, &config, typed, &err), &err);
	enum mask_mark mark = mask_mark(&budget, &trained, &config, axis, layer);
	budget_free(&budget);
	return mark;
}

static void deviations_from_the_trained_budgets(void **state)
{
	(void)state;
	assert_int_equal(marked("hidden_size=64", AXIS_HIDDEN, 0), MASK_TRAINED);
	assert_int_equal(marked("hidden_size=56", AXIS_HIDDEN, 0), MASK_BETWEEN);
	assert_int_equal(marked("hidden_size=40", AXIS_HIDDEN, 0), MASK_BETWEEN);
	assert_int_equal(marked("hidden_size=1-65", AXIS_HIDDEN, 0), MASK_BROKEN);
	assert_int_equal(marked("hidden_size=0-64+66-68", AXIS_HIDDEN, 0), MASK_BETWEEN);
	assert_int_equal(marked("drop=4.moe_intermediate_size:2", AXIS_EXPERT_FFN, 4), MASK_BROKEN);
	assert_int_equal(marked("drop=4.moe_intermediate_size:2", AXIS_EXPERT_FFN, 7), MASK_TRAINED);
	assert_int_equal(marked("skip=3", AXIS_ATTENTION_HEADS, 3), MASK_BROKEN);
	assert_int_equal(marked("heads=global,mamba_num_heads=4", AXIS_MAMBA_HEADS, 0), MASK_BETWEEN);
}

static void saves(const char *path, const char *typed, const char *name, bool replace,
				  const char *sentence)
{
	struct budget budget;
	struct error err = {0};
	good(budget_parse(&budget, &config, typed, &err), &err);
	int status = mask_save(&budget, name, path, &trained.budgets[0], &config, replace, &err);
	assert_string_equal(err.text, sentence);
	assert_int_equal(status, *sentence ? -1 : 0);
	budget_free(&budget);
}

static void opens(const char *path, struct elastic *out, struct text *text)
{
	struct error err = {0};
	text_clear(text);
	good(file_read(path, 1 << 20, text, &err), &err);
	good(elastic_parse(out, &config, text, "saved", false, &err), &err);
}

static void masks_are_saved_between_the_budgets(void **state)
{
	(void)state;
	struct folder folder;
	char path[600];
	struct text text = {0};
	struct elastic saved;
	struct error err = {0};
	folder_make(&folder);
	snprintf(path, sizeof path, "%s", folder_file(&folder, "elastic.json"));
	good(file_write(path, &file, &err), &err);
	// between medium and small
	saves(path,
		  "hidden_size=64,moe_intermediate_size=32,4.moe_intermediate_size=0-16+20-32,"
		  "7.moe_intermediate_size=16",
		  "mine", false, "");
	opens(path, &saved, &text);
	assert_int_equal(saved.n_budgets, 4);
	assert_string_equal(saved.budgets[2].name, "mine");
	assert_int_equal(budget_width(&saved.budgets[2], AXIS_EXPERT_FFN, 1), 32);
	assert_int_equal(budget_width(&saved.budgets[2], AXIS_EXPERT_FFN, 4), 28);
	assert_int_equal(budget_width(&saved.budgets[2], AXIS_EXPERT_FFN, 7), 16);
	// the router means the budgets that it was trained with; the rest stays byte for byte
	assert_int_equal(saved.n_router_budgets, 3);
	assert_int_equal(saved.router_budgets[2], 3);
	const char *put = strstr(text_chars(&text), ",\n  {\n   \"name\": \"mine\"");
	assert_non_null(put);
	size_t same = (size_t)(put - text_chars(&text));
	assert_memory_equal(text_chars(&text), text_chars(&file), same);
	const char *behind = strstr(put, "]]}\n  }");
	assert_non_null(behind);
	assert_memory_equal(behind + 7, file.data + same, 100);
	elastic_free(&saved);
	// taken: refused, then replaced where it stands, with what only lists and bits can say
	char taken[700], nowhere[900];
	snprintf(taken, sizeof taken, "%s has a budget mine already", path);
	saves(path, "hidden_size=56,moe_intermediate_size=16", "mine", false, taken);
	saves(path, "hidden_size=0-48+50-64,moe_intermediate_size=16", "mine", true, "");
	opens(path, &saved, &text);
	assert_int_equal(saved.n_budgets, 4);
	assert_int_equal(budget_width(&saved.budgets[2], AXIS_HIDDEN, 0), 62);
	assert_int_equal(saved.n_router_budgets, 3);
	elastic_free(&saved);
	snprintf(nowhere, sizeof nowhere,
			 "%s: the mask does not lie between two of its budgets (all are nested); another file "
			 "can hold the parent and it",
			 path);
	saves(path, "drop=hidden_size:3", "holes", false, nowhere);
	folder_remove(&folder);
	text_free(&text);
}

static void a_file_is_made_for_a_mask(void **state)
{
	(void)state;
	struct folder folder;
	char path[600];
	struct text text = {0};
	struct elastic saved;
	folder_make(&folder);
	snprintf(path, sizeof path, "%s", folder_file(&folder, "mine.json"));
	saves(path, "drop=hidden_size:3,skip=5,num_experts_per_tok=2,0.mamba_num_heads=4", "holes",
		  false, "");
	opens(path, &saved, &text);
	assert_int_equal(saved.n_budgets, 2);
	assert_string_equal(saved.budgets[0].name, "large");
	assert_int_equal(budget_width(&saved.budgets[1], AXIS_HIDDEN, 0), 79);
	assert_int_equal(budget_width(&saved.budgets[1], AXIS_MAMBA_HEADS, 0), 4);
	assert_int_equal(budget_width(&saved.budgets[1], AXIS_MAMBA_HEADS, 2), 6);
	assert_int_equal(saved.budgets[1].top_k, 2);
	assert_false(budget_keeps_layer(&saved.budgets[1], 5));
	elastic_free(&saved);
	saves(path, "norm=masked", "x", false, "x: elastic.json has no word for norm=, undo it first");
	saves(path, "heads=global", "x", false,
		  "x: elastic.json has no word for heads=, undo it first");
	saves(path, "4.force=1", "x", false, "x: elastic.json has no word for force=, undo it first");
	saves(path, "skip=1", "a b", false,
		  "the name \"a b\" has a space, a control character or one of = , : # + ~ \" \\ in it");
	saves(path, "skip=1", "", false, "a budget needs a name");
	folder_remove(&folder);
	text_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(edits_are_undone_redone_and_flipped),
		cmocka_unit_test(a_mask_lies_over_a_long_one),
		cmocka_unit_test(a_mask_is_taken_apart),
		cmocka_unit_test(units_are_the_smallest_differences),
		cmocka_unit_test(deviations_from_the_trained_budgets),
		cmocka_unit_test(masks_are_saved_between_the_budgets),
		cmocka_unit_test(a_file_is_made_for_a_mask),
	};
	return cmocka_run_group_tests(tests, open_budgets, close_budgets);
}
