#include "core/model.h"
#include "core/slice.h"
#include "core/tokenizer.h"
#include "tests/unit/folder.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static struct folder folder;

static void tests_path(char path[1024], const char *name)
{
	snprintf(path, 1024, "%s/%s", getenv("ELASTISCOPE_TESTS"), name);
}

/* The fixture's files, linked into a folder where some can be replaced. */
static void link_fixture(void)
{
	static const char *const files[] = {"config.json",
										"generation_config.json",
										"elastic.json",
										"router.safetensors",
										"model-00001-of-00002.safetensors",
										"model-00002-of-00002.safetensors",
										"model.safetensors.index.json"};
	folder_empty(&folder);
	for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
		char path[1024], name[128];
		snprintf(name, sizeof name, "golden/nest-tiny/%s", files[i]);
		tests_path(path, name);
		assert_int_equal(symlink(path, folder_file(&folder, files[i])), 0);
	}
}

static void replace(const char *name, const char *text)
{
	unlink(folder_file(&folder, name));
	if (text)
		folder_write(&folder, name, text, strlen(text));
}

static struct model *open_ok(const char *directory, const struct model_options *options)
{
	struct error err = {0};
	struct model *model = model_open(directory, options, &err);
	if (!model)
		fail_msg("%s", err.text);
	return model;
}

static void expect_refused(const char *directory, const char *says)
{
	struct error err = {0};
	struct model *model = model_open(directory, NULL, &err);
	if (model)
		fail_msg("accepted, expected \"%s\"", says);
	if (!strstr(err.text, says))
		fail_msg("\"%s\" does not say \"%s\"", err.text, says);
}

static void opens_the_demo(void **state)
{
	char path[1024];
	(void)state;
	tests_path(path, "../demo/");
	struct model *model = open_ok(path, NULL);
	assert_string_equal(model->name, "demo");
	assert_non_null(model->tokenizer);
	assert_int_equal(model->elastic.n_budgets, 3);
	assert_true(model->router.n_tensors > 0);
	assert_true(model->importance.n_tensors > 0);
	assert_int_equal(strlen(model->hash), 16);
	assert_string_equal(text_chars(&model->notices), "");
	assert_ptr_equal(model_retain(model), model);
	model_release(model);
	assert_int_equal(model->config.hidden_size, 128); // still there
	model_release(model);
	model_release(NULL);
}

static void expect_no_ids(const struct model *model, const char *text, const char *says)
{
	struct id_list ids = {0};
	struct error err = {0};
	assert_int_equal(id_list_add(&ids, 9, &err), 0);
	assert_int_equal(model_encode(model, text, strlen(text), &ids, &err), -1);
	if (!strstr(err.text, says) || !strstr(err.text, "a prompt is ids, as 1 2 3 (0 to 223)"))
		fail_msg("\"%s\" does not say \"%s\"", err.text, says);
	assert_int_equal(ids.n, 1); // what was there stays
	free(ids.ids);
}

static void without_a_tokenizer_text_is_ids(void **state)
{
	static const char *const same[] = {"1 2 223", "1,2,223", "[1, 2,\t223]\n", " 1 2 223 "};
	struct id_list ids = {0};
	struct text text = {0};
	(void)state;
	link_fixture();
	struct model *model = open_ok(folder.path, NULL);
	for (size_t i = 0; i < sizeof same / sizeof *same; i++) {
		ids.n = 0;
		assert_int_equal(model_encode(model, same[i], strlen(same[i]), &ids, NULL), 0);
		assert_int_equal(ids.n, 3);
		assert_int_equal(ids.ids[2], 223);
	}
	for (size_t i = 0; i < ids.n; i++) // what is written can be read
		tokenizer_decode(model->tokenizer, ids.ids[i], &text);
	assert_string_equal(text_chars(&text), " 1 2 223");
	expect_no_ids(model, "1 2 hello", "'hello' is not a token id");
	expect_no_ids(model, "1 -2", "'-2' is not a token id");
	expect_no_ids(model, "1 224", "224 is not one of them");
	expect_no_ids(model, "99999999999999999999", "'99999999999999999999' is not");
	expect_no_ids(model, "abc\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4",
				  "'abc\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4\u00e4' is not");
	text_free(&text);
	free(ids.ids);
	model_release(model);
}

static void opens_without_the_optional_files(void **state)
{
	(void)state;
	link_fixture();
	struct model *model = open_ok(folder.path, NULL);
	assert_null(model->tokenizer);
	assert_non_null(strstr(text_chars(&model->notices), "no tokenizer.json"));
	assert_true(model->router.n_tensors > 0);
	assert_int_equal(model->importance.n_tensors, 0);
	model_release(model);

	replace("router.safetensors", NULL);
	model = open_ok(folder.path, NULL);
	assert_non_null(strstr(text_chars(&model->notices), "the router of elastic.json is not there"));
	model_release(model);

	replace("elastic.json", NULL);
	replace("chat_template.jinja", "another template");
	model = open_ok(folder.path, NULL);
	assert_int_equal(model->elastic.n_budgets, 1);
	assert_null(strstr(text_chars(&model->notices), "router"));
	assert_non_null(strstr(text_chars(&model->notices), "template"));
	model_release(model);

	char budgets[1024];
	tests_path(budgets, "golden/nest-tiny/elastic-skip.json");
	model = open_ok(folder.path, &(struct model_options){.budgets_file = budgets});
	assert_true(elastic_find(&model->elastic, "noattn") > 0);
	model_release(model);
}

static void refuses_broken_files(void **state)
{
	static const struct {
		const char *name, *text, *says;
	} cases[] = {
		{"config.json", NULL, "config.json: No such file"},
		{"config.json", "{", "config.json: line 1"},
		{"config.json", "{}", "config.json: "},
		{"generation_config.json", "[", "generation_config.json: line 1"},
		{"tokenizer.json", "{\"model\": 3}", "tokenizer.json"},
		{"tokenizer.json", "", "tokenizer.json"},
		{"elastic.json", "{", "elastic.json"},
		{"elastic.json", "{\"format\": \"elastic-9\", \"budgets\": []}", "elastic"},
		{"router.safetensors", "short", "router.safetensors: has 5 bytes"},
		{"router.safetensors", "\1\2\3\4\5\6\7\1 {}", "router.safetensors: the header says"},
		{"model-00002-of-00002.safetensors", NULL,
		 "model-00002-of-00002.safetensors: No such file"},
		{"model-00002-of-00002.safetensors", "0123456789", "model-00002-of-00002.safetensors: "},
		{"model.safetensors.index.json", "{}", "has no object \"weight_map\""},
		{"model.safetensors", "", "model.safetensors: has 0 bytes"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		link_fixture();
		replace(cases[i].name, cases[i].text);
		expect_refused(folder.path, cases[i].says);
	}
	link_fixture();
	expect_refused(folder_file(&folder, "config.json"), "is a file, expected the directory");
	expect_refused(folder_file(&folder, "nowhere"), "nowhere: No such file");
	expect_refused("", "No such file");
	folder_empty(&folder);
	expect_refused(folder.path, "config.json: No such file");
	char path[1024];
	tests_path(path, "golden/nest-tiny/config.json");
	assert_int_equal(symlink(path, folder_file(&folder, "config.json")), 0);
	expect_refused(folder.path, "no model.safetensors");
	// a config of another model: the sentence names folder and tensor
	link_fixture();
	tests_path(path, "golden/nest-tiny/children/small/config.json");
	unlink(folder_file(&folder, "config.json"));
	assert_int_equal(symlink(path, folder_file(&folder, "config.json")), 0);
	expect_refused(
		folder.path,
		"\"backbone.embeddings.weight\" has shape [224, 80], config.json asks for [224, 48]");
}

static void refuses_ids_outside_the_vocabulary(void **state)
{
	char path[1024];
	(void)state;
	link_fixture(); // its vocabulary has 224, the demo's tokenizer 512
	tests_path(path, "../demo/tokenizer.json");
	assert_int_equal(symlink(path, folder_file(&folder, "tokenizer.json")), 0);
	expect_refused(folder.path, "but vocab_size of config.json is 224");
}

static void finds_budgets(void **state)
{
	struct budget budget;
	struct error err = {0};
	char path[1024];
	(void)state;
	tests_path(path, "golden/nest-tiny");
	struct model *model = open_ok(path, NULL);
	assert_int_equal(model_budget(model, "medium", &budget, &err), 0);
	assert_int_equal(budget.width[AXIS_HIDDEN], 64);
	budget_free(&budget);
	assert_int_equal(model_budget(model, "hidden_size=32,n_routed_experts=5", &budget, &err), 0);
	assert_int_equal(budget.width[AXIS_HIDDEN], 32);
	assert_int_equal(budget.width[AXIS_EXPERTS], 5);
	budget_free(&budget);
	assert_int_equal(model_budget(model, "huge", &budget, &err), -1);
	assert_non_null(
		strstr(err.text, "budget \"huge\": no such budget; there are large, medium, small"));
	assert_int_equal(model_budget(model, "hidden_size=81", &budget, &err), -1);
	assert_non_null(strstr(err.text, "hidden_size"));
	model_release(model);
}

/* The plans of all budgets point into the one mapping and say what each costs. */
static void plans_every_budget(void **state)
{
	struct error err = {0};
	char path[1024];
	(void)state;
	tests_path(path, "golden/nest-tiny");
	struct model *model = open_ok(path, NULL);
	uint64_t before = UINT64_MAX;
	for (int i = 0; i < model->elastic.n_budgets; i++) {
		struct slice slice;
		if (slice_build(&slice, &model->weights, &model->config, &model->elastic.budgets[i], NULL,
						NULL, &err) != 0)
			fail_msg("%s", err.text);
		assert_ptr_equal(slice.embeddings.data, model->weights.embeddings.data);
		assert_true(slice.cost.bytes < before);
		if (i == 0)
			assert_int_equal(slice.cost.bytes, model->checkpoint.tensor_bytes);
		before = slice.cost.bytes;
		slice_free(&slice);
	}
	model_release(model);
}

static int setup(void **state)
{
	(void)state;
	folder_make(&folder);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	folder_remove(&folder);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(opens_the_demo),
		cmocka_unit_test(opens_without_the_optional_files),
		cmocka_unit_test(without_a_tokenizer_text_is_ids),
		cmocka_unit_test(refuses_broken_files),
		cmocka_unit_test(refuses_ids_outside_the_vocabulary),
		cmocka_unit_test(finds_budgets),
		cmocka_unit_test(plans_every_budget),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
