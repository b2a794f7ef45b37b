/*
 * Quantised parents against those of an independent quantiser (tests/golden/quantised), and why
 * scales must be the parent's.
 */
#include "export/quantisation.h"
#include "base/file.h"
#include "base/json.h"
#include "export/child.h"
#include "export/inputs.h"
#include "export/verify.h"
#include "tests/unit/folder.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct error err; // of the last call

#define ASSERT_OK(call)                                                                            \
	do {                                                                                           \
		err.text[0] = '\0';                                                                        \
		if ((call) != 0)                                                                           \
			fail_msg("%s", err.text);                                                              \
	} while (0)

static const struct {
	enum dtype format;
	const char *golden, *name;
} formats[] = {{DTYPE_F8_E4M3, "quantised/nest-tiny-fp8", "fp8"},
			   {DTYPE_NVFP4, "quantised/nest-tiny-nvfp4", "nvfp4"}};

static const char *golden(const char *name)
{
	static char path[4096];
	snprintf(path, sizeof path, "%s/golden/%s", getenv("ELASTISCOPE_TESTS"), name);
	return path;
}

static struct model *open_model(const char *path, const char *budgets)
{
	struct model_options options = {.budgets_file = budgets};
	struct model *model = model_open(path, &options, &err);
	if (!model)
		fail_msg("%s", err.text);
	return model;
}

static void open_quantisation(struct quantisation *q, const struct model *model, enum dtype format)
{
	struct quantisation_plan plan = {.model = model, .format = format};
	ASSERT_OK(quantisation_open(q, &plan, &err));
}

/* A budget of the model, quantised on the way or not. */
static void write_child(const struct model *model, const char *budget, const struct quantisation *q,
						const char *target)
{
	struct budget kept = {0};
	struct child_report report;
	ASSERT_OK(model_budget(model, budget, &kept, &err));
	struct child_plan plan = {.model = model,
							  .budget = &kept,
							  .target = target,
							  .force = true,
							  .quantisation = q,
							  .version = "test",
							  .nested = strcmp(budget, "large") == 0};
	ASSERT_OK(child_write(&plan, &report, &err));
	budget_free(&kept);
}

static void remove_all(struct folder *folder)
{
	char command[600];
	snprintf(command, sizeof command, "rm -rf '%s'", folder->path);
	assert_int_equal(system(command), 0);
}

static const char *inside(const struct folder *folder, const char *name)
{
	static char path[4][600];
	static int turn;
	turn = (turn + 1) % 4;
	snprintf(path[turn], sizeof path[turn], "%s/%s", folder->path, name);
	return path[turn];
}

static bool is_input_scale(const char *name)
{
	const char *dot = strrchr(name, '.');
	return dot && strcmp(dot, ".input_scale") == 0;
}

/* Bytes of b's tensors that differ from a's; every tensor but input scales must be there. */
static uint64_t count_differing(const char *a, const char *b)
{
	struct checkpoint x, y;
	uint64_t n = 0;
	ASSERT_OK(checkpoint_open(&x, a, &err));
	ASSERT_OK(checkpoint_open(&y, b, &err));
	for (size_t i = 0; i < x.n_tensors; i++) {
		const struct tensor *t = &x.tensors[i].tensor;
		const struct tensor *u = checkpoint_find(&y, x.tensors[i].name);
		if (is_input_scale(x.tensors[i].name))
			continue;
		if (!u)
			fail_msg("%s has no %s", b, x.tensors[i].name);
		assert_int_equal(t->dtype, u->dtype);
		assert_int_equal(t->bytes, u->bytes);
		assert_memory_equal(t->shape, u->shape, (size_t)t->n_dims * sizeof *t->shape);
		for (uint64_t at = 0; at < t->bytes; at++)
			n += ((const char *)t->data)[at] != ((const char *)u->data)[at];
	}
	checkpoint_close(&x);
	checkpoint_close(&y);
	return n;
}

static void excluded_of(const char *folder, struct text *out)
{
	struct text text = {0};
	struct json json;
	char path[4096];
	snprintf(path, sizeof path, "%s/hf_quant_config.json", folder);
	ASSERT_OK(file_read(path, 1 << 20, &text, &err));
	ASSERT_OK(json_parse(&json, text.data, text.length, &err));
	const struct json_node *said = json_member(&json, json.nodes, "quantization");
	json_string(&json, json_member(&json, said, "quant_algo"), out);
	const struct json_node *list = json_member(&json, said, "exclude_modules");
	for (const struct json_node *n = json_first(&json, list); n; n = json_next(&json, list, n)) {
		text_add_char(out, ' ');
		json_string(&json, n, out);
	}
	json_free(&json);
	text_free(&text);
}

static void parents_are_golden(void **state)
{
	struct model *model = open_model(golden("nest-tiny"), NULL);
	struct folder folder;
	(void)state;
	folder_make(&folder);
	for (size_t f = 0; f < 2; f++) {
		struct quantisation q;
		struct text said = {0}, expected = {0};
		open_quantisation(&q, model, formats[f].format);
		assert_int_equal(q.n_modules, 72);
		write_child(model, "large", &q, inside(&folder, "parent"));
		assert_int_equal(count_differing(golden(formats[f].golden), inside(&folder, "parent")), 0);
		excluded_of(inside(&folder, "parent"), &said);
		excluded_of(golden(formats[f].golden), &expected);
		assert_string_equal(said.data, expected.data);
		assert_true(file_exists(inside(&folder, "parent/elastic.json")));
		text_free(&said);
		text_free(&expected);
		quantisation_close(&q);
	}
	model_release(model);
	remove_all(&folder);
}

/* Quantise, then slice = quantise on the way; and every child verifies. */
static void every_budget_is_a_slice(void **state)
{
	static const char *const budgets[] = {"large", "medium", "small",
										  "hidden_size=64,mamba_num_heads=2,skip=3,"
										  "n_routed_experts=5,intermediate_size=80"};
	struct model *model = open_model(golden("nest-tiny"), NULL);
	struct folder folder;
	(void)state;
	folder_make(&folder);
	for (size_t f = 0; f < 2; f++) {
		struct quantisation q;
		open_quantisation(&q, model, formats[f].format);
		write_child(model, "large", &q, inside(&folder, "parent"));
		struct model *parent = open_model(inside(&folder, "parent"), NULL);
		for (size_t b = 0; b < sizeof budgets / sizeof *budgets; b++) {
			struct verify v;
			write_child(model, budgets[b], &q, inside(&folder, "way"));
			write_child(parent, budgets[b], NULL, inside(&folder, "after"));
			assert_int_equal(count_differing(inside(&folder, "after"), inside(&folder, "way")), 0);
			ASSERT_OK(verify_open(&v, parent, inside(&folder, "way"), NULL, &err));
			ASSERT_OK(verify_run(&v, NULL, NULL, &err));
			if (v.n_differences)
				fail_msg("%s", v.differences[0].sentence);
			verify_close(&v);
		}
		model_release(parent);
		quantisation_close(&q);
	}
	model_release(model);
	remove_all(&folder);
}

/* Why scales are the parent's: a slice that is quantised by itself is other bytes, so it is no
 * slice of any parent, and three children would be three checkpoints. */
static void slicing_first_is_something_else(void **state)
{
	static const uint64_t expected[] = {42822, 5791}; // tests/golden/quantise_order.py
	struct model *model = open_model(golden("nest-tiny"), NULL);
	struct folder folder;
	(void)state;
	folder_make(&folder);
	write_child(model, "small", NULL, inside(&folder, "slice"));
	struct model *slice = open_model(inside(&folder, "slice"), NULL);
	for (size_t f = 0; f < 2; f++) {
		struct quantisation q, own;
		open_quantisation(&q, model, formats[f].format);
		open_quantisation(&own, slice, formats[f].format);
		write_child(model, "small", &q, inside(&folder, "quantise-then-slice"));
		write_child(slice, "parent", &own, inside(&folder, "slice-then-quantise"));
		uint64_t n = count_differing(inside(&folder, "quantise-then-slice"),
									 inside(&folder, "slice-then-quantise"));
		print_message("%s: slice-then-quantise and quantise-then-slice differ in %llu bytes\n",
					  formats[f].name, (unsigned long long)n);
		assert_int_equal(n, expected[f]);
		quantisation_close(&q);
		quantisation_close(&own);
	}
	model_release(slice);
	model_release(model);
	remove_all(&folder);
}

static void what_cannot_be_quantised(void **state)
{
	static const char *const pattern[] = {"*.experts.*", "*.layers.0.*"};
	static const char *const all[] = {"*"};
	struct quantisation q;
	struct cuts cuts;
	struct budget budget = {0};
	(void)state;
	struct model *model = open_model(golden("nest-tiny"), NULL);
	struct quantisation_plan plan = {
		.model = model, .format = DTYPE_NVFP4, .exclude = pattern, .n_exclude = 2};
	ASSERT_OK(quantisation_open(&q, &plan, &err));
	assert_int_equal(q.n_modules, 10); // layer 6's two, shared 3 x 2, MLP 2
	assert_int_equal(q.n_excluded, 62);
	assert_non_null(strstr(text_chars(&q.excluded), "backbone.layers.1.mixer.experts.0.up_proj\n"));
	ASSERT_OK(model_budget(model, "hidden_size=72", &budget, &err));
	ASSERT_OK(cuts_plan(&cuts, model, &budget, &err));
	assert_int_equal(quantisation_check(&q, &cuts, &err), -1);
	assert_non_null(strstr(err.text, "keeps columns 0 to 72 of \"backbone.layers."));
	q.format = DTYPE_F8_E4M3;
	ASSERT_OK(quantisation_check(&q, &cuts, &err));
	cuts_free(&cuts);
	budget_free(&budget);
	quantisation_close(&q);
	plan.exclude = all;
	plan.n_exclude = 1;
	assert_int_equal(quantisation_open(&q, &plan, &err), -1);
	assert_non_null(strstr(err.text, "no module is left"));
	model_release(model);

	model = open_model(golden("quantised/nest-tiny-fp8"), NULL);
	plan = (struct quantisation_plan){.model = model, .format = DTYPE_NVFP4};
	assert_int_equal(quantisation_open(&q, &plan, &err), -1);
	assert_non_null(strstr(err.text, "is stored as FP8 already, expected a BF16 parent"));
	model_release(model);
}

static void numbers_that_are_none(void **state)
{
	static const struct {
		uint16_t bits;
		const char *reason;
	} cases[] = {{0x7fc0, "has a NaN at element 7"}, {0xff80, "has an infinity at element 7"}};
	struct folder folder;
	struct checkpoint checkpoint;
	struct quantisation q;
	(void)state;
	folder_make(&folder);
	for (size_t i = 0; i < 2; i++) {
		struct named_tensor tensors[512];
		ASSERT_OK(checkpoint_open(&checkpoint, golden("nest-tiny"), &err));
		assert_true(checkpoint.n_tensors < 512);
		uint16_t *bytes = NULL;
		for (size_t t = 0; t < checkpoint.n_tensors; t++) {
			tensors[t] = checkpoint.tensors[t];
			if (strcmp(tensors[t].name, "backbone.layers.0.mixer.in_proj.weight") != 0)
				continue;
			bytes = malloc(tensors[t].tensor.bytes);
			assert_non_null(bytes);
			memcpy(bytes, tensors[t].tensor.data, tensors[t].tensor.bytes);
			bytes[7] = cases[i].bits;
			tensors[t].tensor.data = bytes;
		}
		ASSERT_OK(checkpoint_write(inside(&folder, "model.safetensors"), tensors,
								   checkpoint.n_tensors, &err));
		free(bytes);
		checkpoint_close(&checkpoint);
		struct text config = {0};
		ASSERT_OK(file_read(golden("nest-tiny/config.json"), 1 << 20, &config, &err));
		folder_write(&folder, "config.json", config.data, config.length);
		text_free(&config);
		struct model *model = open_model(folder.path, NULL);
		struct quantisation_plan plan = {.model = model, .format = DTYPE_F8_E4M3};
		assert_int_equal(quantisation_open(&q, &plan, &err), -1);
		assert_non_null(strstr(err.text, "\"backbone.layers.0.mixer.in_proj.weight\" has a"));
		if (!strstr(err.text, cases[i].reason))
			fail_msg("%s", err.text);
		model_release(model);
	}
	folder_remove(&folder);
}

/* Near those of another calibration (other tokens); experts that no token chose have a scale, too.
 */
static void inputs_are_measured(void **state)
{
	struct model *model = open_model(golden("nest-tiny"), NULL);
	struct checkpoint other;
	struct calibrate_texts texts = {0};
	int32_t *ids = calloc(150, sizeof *ids);
	size_t n_unseen = 0, n = 0;
	struct quantisation q;
	(void)state;
	for (int i = 0; i < 150; i++)
		ids[i] = (i * 37 + i * i) % 224;
	ASSERT_OK(calibrate_add_ids(&texts, "ids", ids, 150, &err));
	open_quantisation(&q, model, DTYPE_F8_E4M3);
	struct inputs_plan plan = {.texts = &texts, .window = 100, .device = {.n_threads = 1}};
	ASSERT_OK(inputs_measure(&q, &plan, &n_unseen, &err));
	ASSERT_OK(checkpoint_open(&other, golden("quantised/nest-tiny-fp8"), &err));
	for (size_t i = 0; i < model->checkpoint.n_tensors; i++) {
		const char *name = model->checkpoint.tensors[i].name;
		char beside[200];
		float theirs;
		if (q.scale[i] == 0)
			continue;
		snprintf(beside, sizeof beside, "%.*s.input_scale", (int)(strlen(name) - 7), name);
		memcpy(&theirs, checkpoint_find(&other, beside)->data, sizeof theirs);
		if (!(q.input_scale[i] > theirs / 8 && q.input_scale[i] < theirs * 8))
			fail_msg("%s: %g, theirs %g", beside, (double)q.input_scale[i], (double)theirs);
		n++;
	}
	assert_int_equal(n, 72);
	checkpoint_close(&other);
	calibrate_texts_free(&texts);
	quantisation_close(&q);
	model_release(model);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(parents_are_golden),
		cmocka_unit_test(every_budget_is_a_slice),
		cmocka_unit_test(slicing_first_is_something_else),
		cmocka_unit_test(what_cannot_be_quantised),
		cmocka_unit_test(numbers_that_are_none),
		cmocka_unit_test(inputs_are_measured),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
