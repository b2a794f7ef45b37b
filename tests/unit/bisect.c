/* What makes the difference is found: seeded faults in children (tests/faults) and in masks, in at
 * most 12 runs; the probe's line; files from elsewhere. */
#include "inspect/bisect.h"
#include "core/mask.h"
#include "faults.h"
#include "folder.h"
#include "inspect/against.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define MOST_RUNS 12
#define GOOD "small,mamba_num_heads=4"

static struct model *model;
static struct probe probe;

static void good(int status, const struct error *err)
{
	if (status < 0)
		fail_msg("%s", err->text);
}

static int open_probe(void **state)
{
	(void)state;
	char path[512];
	int32_t ids[24];
	struct error err = {0};
	struct device_options options = {.n_threads = 1, .math = MATH_EXACT, .kv_dtype = DTYPE_F32};
	snprintf(path, sizeof path, "%s/golden/nest-tiny", getenv("ELASTISCOPE_TESTS"));
	for (int i = 0; i < 24; i++)
		ids[i] = (i * 53 + 7) % 224;
	model = model_open(path, NULL, &err);
	if (!model || probe_open(&probe, model, ids, 24, &options, &err) < 0) {
		print_error("%s\n", err.text);
		return -1;
	}
	return 0;
}

static int close_probe(void **state)
{
	(void)state;
	probe_close(&probe);
	model_release(model);
	return 0;
}

static void budget_of(struct budget *budget, const char *text)
{
	struct error err = {0};
	good(model_budget(model, text, budget, &err), &err);
}

static void bisect_fault(enum fault fault, struct bisect *out)
{
	struct folder folder;
	struct budget budget;
	struct error err = {0};
	folder_make(&folder);
	good(fault_write(model, GOOD, fault, folder.path, &err), &err);
	struct model *child = model_open(folder.path, NULL, &err);
	if (!child)
		fail_msg("%s", err.text);
	budget_of(&budget, GOOD);
	good(bisect_child(out, &probe, &budget, child, &child->elastic.budgets[0], &err), &err);
	budget_free(&budget);
	model_release(child);
	folder_remove(&folder);
}

static void expect(const struct bisect *found, int layer, const char *what)
{
	assert_true(found->found >= 0);
	assert_int_equal(found->layer, layer);
	assert_non_null(strstr(found->what, what));
	assert_true(found->kl_before < found->kl_bad / 2);
	assert_true(found->kl_after >= found->kl_bad / 2);
	assert_true(found->runs <= MOST_RUNS);
}

static void faults_of_children_are_located(void **state)
{
	(void)state;
	struct bisect found;
	bisect_fault(FAULT_NONE, &found);
	assert_int_equal(found.found, -1);
	assert_string_equal(found.note, "the child does the same");
	assert_true(found.kl_bad < 1e-9);
	bisect_fault(FAULT_NORM, &found);
	expect(&found, found.layer, " norm"); // one of them: all are wrong
	assert_true(found.kl_all_but > found.kl_bad / 2);
	bisect_fault(FAULT_HEADS, &found);
	assert_int_equal(model->config.kinds[found.layer], LAYER_MAMBA);
	expect(&found, found.layer, "in_proj");
	bisect_fault(FAULT_EXPERTS, &found);
	expect(&found, 4, "experts.1.");
	bisect_fault(FAULT_WIDTH, &found);
	expect(&found, 4, "experts.");
	bisect_fault(FAULT_SCALED, &found);
	expect(&found, 2, "layer 2 out_proj");
	assert_true(found.kl_all_but < 1e-9);
	bisect_fault(FAULT_PERMUTED, &found);
	expect(&found, 4, "layer 4 experts.0.up_proj");
	assert_true(found.kl_all_but < 1e-9);
}

static void bisect_texts(const char *from, const char *to, struct bisect *out)
{
	struct budget a, b;
	struct error err = {0};
	budget_of(&a, from);
	budget_of(&b, to);
	good(bisect_masks(out, &probe, &a, &b, &err), &err);
	budget_free(&a);
	budget_free(&b);
}

static void faults_of_masks_are_located(void **state)
{
	(void)state;
	struct bisect found;
	bisect_texts("small", "small", &found);
	assert_int_equal(found.found, -1);
	assert_string_equal(found.note, "they keep the same");
	bisect_texts("small", "small,norm=uncorrected", &found);
	expect(&found, -1, "norm=uncorrected");
	bisect_texts("small", "small,norm=masked", &found); // the same but for eps
	assert_true(found.kl_bad < 1e-5);
	// of several differences, those of the good one harmless
	bisect_texts("medium",
				 "medium,1.moe_intermediate_size=31,4.moe_intermediate_size=16-48,"
				 "5.intermediate_size=95,norm=masked",
				 &found);
	expect(&found, 4, "4.moe_intermediate_size=16-48");
	bisect_texts("large", "large,drop=4.n_routed_experts:1+2,7.moe_intermediate_size=47", &found);
	expect(&found, 4, "4.n_routed_experts=0-1+3-10");
	bisect_texts("large,0.mamba_num_heads=4,6.mamba_num_heads=4",
				 "large,0.mamba_num_heads=4,6.mamba_num_heads=4,heads=global,"
				 "5.intermediate_size=95",
				 &found);
	expect(&found, -1, "heads=global");
	bisect_texts("large", "large,skip=2,7.n_routed_experts=9", &found);
	expect(&found, 2, "skip=2");
	assert_int_equal(found.n_units, 2);
}

static void the_probe_says_where_it_begins(void **state)
{
	(void)state;
	struct budget base, edited;
	struct probe_result result;
	struct error err = {0};
	struct text line = {0};
	budget_of(&base, "medium");
	good(probe_pin(&probe, &base, &err), &err);
	good(probe_read(&probe, &base, &result, &err), &err);
	assert_true(result.kl == 0 && result.first_layer == PROBE_NO_LAYER && result.same_top == 1);
	assert_true(result.ppl == result.ppl_base);
	probe_line(&result, &model->config, probe.tolerance, &line);
	assert_non_null(strstr(line.data, "KL 0 (max 0 at 0), ppl "));
	assert_non_null(strstr(line.data, "(+0.0 %), same top 100 %, no layer leaves 1 %"));
	for (int layer = 0; layer < 8; layer++) {
		char text[80];
		snprintf(text, sizeof text, "medium,skip=%d", layer);
		budget_of(&edited, text);
		good(probe_read(&probe, &edited, &result, &err), &err);
		assert_int_equal(result.first_layer, layer);
		assert_true(result.kl > 0 && result.first_distance > probe.tolerance);
		for (int i = 0; i <= layer; i++)
			assert_true(result.distance[i] == 0);
		budget_free(&edited);
	}
	// channels that only one keeps are not held against each other
	budget_of(&edited, "large,hidden_size=0-10+20-80");
	good(probe_read(&probe, &edited, &result, &err), &err);
	assert_true(result.distance[0] == 0 && result.distance[1] > 0);
	text_clear(&line);
	probe_line(&result, &model->config, probe.tolerance, &line);
	assert_non_null(strstr(line.data, "layer 0 (mamba) leaves 1 %: "));
	budget_free(&edited);
	budget_free(&base);
	text_free(&line);
}

/* Forced experts run whatever the router says, and a left-out one never. */
static void experts_are_forced(void **state)
{
	(void)state;
	struct budget budget;
	struct slice slice;
	struct reading reading;
	struct error err = {0};
	budget_of(&budget, "large,4.force=7+2,num_experts_per_tok=2");
	good(slice_build(&slice, &model->weights, &model->config, &budget, &backend_cpu, probe.device,
					 &err),
		 &err);
	struct reading_plan plan = {
		.ids = probe.ids, .n = probe.n, .slice = &slice, .kv_dtype = DTYPE_F32, .experts = true};
	good(reading_run(&reading, &plan, &err), &err);
	for (int i = 0; i < probe.n; i++) {
		const int32_t *ids = reading.expert_ids + (size_t)(4 * probe.n + i) * 2;
		const float *weights = reading.expert_weights + (size_t)(4 * probe.n + i) * 2;
		assert_int_equal(ids[0], 2);
		assert_int_equal(ids[1], 7);
		assert_true(weights[0] > 0 && weights[0] < 2.5f && isfinite(weights[1]));
	}
	reading_free(&reading);
	slice_free(&slice);
	budget_free(&budget);
}

/* A child that was cut with the first heads of all, run by itself, is what heads=global says of the
 * parent: the convention is the fault. */
static void global_heads_are_what_such_a_child_does(void **state)
{
	(void)state;
	struct folder folder;
	struct bisect found;
	struct budget budget;
	struct error err = {0};
	folder_make(&folder);
	good(fault_write(model, "small,mamba_num_heads=4,num_attention_heads=4", FAULT_HEADS,
					 folder.path, &err),
		 &err);
	struct model *child = model_open(folder.path, NULL, &err);
	if (!child)
		fail_msg("%s", err.text);
	budget_of(&budget, "small,mamba_num_heads=4,num_attention_heads=4,heads=global");
	good(bisect_child(&found, &probe, &budget, child, &child->elastic.budgets[0], &err), &err);
	assert_true(found.kl_bad < 1e-9);
	budget_free(&budget);
	budget_of(&budget, "small,mamba_num_heads=4,num_attention_heads=4");
	good(bisect_child(&found, &probe, &budget, child, &child->elastic.budgets[0], &err), &err);
	assert_true(found.kl_bad > 0.1);
	budget_free(&budget);
	model_release(child);
	folder_remove(&folder);
}

static void write_reading(struct folder *folder, const char *budget, int spoil, const char *only)
{
	struct budget of;
	struct slice slice;
	struct reading r;
	struct error err = {0};
	struct named_tensor tensors[16];
	char names[16][24];
	size_t n = 0;
	budget_of(&of, budget);
	good(
		slice_build(&slice, &model->weights, &model->config, &of, &backend_cpu, probe.device, &err),
		&err);
	struct reading_plan plan = {
		.ids = probe.ids, .n = probe.n, .slice = &slice, .kv_dtype = DTYPE_F32, .hidden = true};
	good(reading_run(&r, &plan, &err), &err);
	if (spoil >= 0)
		r.hidden[((size_t)spoil * (size_t)r.n + 3) * (size_t)r.width + 17] += 0.5f;
	for (int i = 0; i <= r.n_layers + 1; i++) {
		bool logits = i > r.n_layers;
		int width = logits ? r.vocab : r.width;
		snprintf(names[n], sizeof names[n], logits ? "logits" : "hidden.%d", i);
		if (only && strcmp(only, names[n]) != 0)
			continue;
		tensors[n] = (struct named_tensor){
			.name = names[n],
			.tensor = {.dtype = DTYPE_F32,
					   .n_dims = 2,
					   .shape = {r.n, width},
					   .data = logits ? r.logits : r.hidden + (size_t)i * (size_t)(r.n * r.width),
					   .bytes = (uint64_t)r.n * (uint64_t)width * 4}};
		n++;
	}
	good(checkpoint_write(folder_file(folder, "there.safetensors"), tensors, n, &err), &err);
	reading_free(&r);
	slice_free(&slice);
	budget_free(&of);
}

static void compares(struct folder *folder, const char *budget, const char *begins)
{
	struct budget of;
	struct against against;
	struct text line = {0};
	struct error err = {0};
	budget_of(&of, budget);
	if (against_run(&against, &probe, &of, folder_file(folder, "there.safetensors"),
					AGAINST_TOLERANCE, &err) < 0)
		text_add(&line, err.text);
	else
		against_line(&against, &model->config, &line);
	if (!strstr(text_chars(&line), begins))
		fail_msg("%s, expected %s", text_chars(&line), begins);
	text_free(&line);
	budget_free(&of);
}

static void files_from_elsewhere_are_compared(void **state)
{
	(void)state;
	struct folder folder;
	folder_make(&folder);
	write_reading(&folder, "small", -1, NULL);
	compares(&folder, "small", "nothing differs: 9 residuals and the logits of 24 tokens within");
	compares(&folder, "small,norm=uncorrected", "hidden.1, written by layer 0 (mamba): channel 0 ");
	compares(&folder, "small,7.n_routed_experts=4", "hidden.8, written by layer 7 (moe): ");
	compares(&folder, "medium", "hidden.0 is F32 [24, 48], this reading has F32 [24, 64]");
	write_reading(&folder, "small", 5, NULL);
	compares(&folder, "small", "hidden.5, written by layer 4 (moe): channel 17 at position 3 is ");
	compares(&folder, "small", "; 1 of 48 differ by more than 0.001");
	write_reading(&folder, "small", 0, NULL);
	compares(&folder, "small", "hidden.0, the embeddings: channel 17 ");
	write_reading(&folder, "medium", -1, "logits");
	compares(&folder, "medium", "nothing differs: 0 residuals and the logits of 24 tokens");
	compares(&folder, "small", "logits (norm_f, lm_head): id 0 at position 0 ");
	write_reading(&folder, "small", -1, "hidden.99");
	compares(&folder, "small", "has neither hidden.0 to hidden.8 nor logits");
	folder_write(&folder, "there.safetensors", "not one", 7);
	compares(&folder, "small", "there.safetensors");
	folder_remove(&folder);
}

static void bad_probes_are_refused(void **state)
{
	(void)state;
	struct probe other;
	struct error err = {0};
	int32_t ids[5000] = {0, 224};
	struct device_options options = {.kv_dtype = DTYPE_F32};
	assert_int_equal(probe_open(&other, model, ids, 0, &options, &err), -1);
	assert_string_equal(err.text, "a probe needs at least one token");
	assert_int_equal(probe_open(&other, model, ids, 5000, &options, &err), -1);
	assert_string_equal(err.text, "the probe has 5000 tokens, the context of the model is 4096");
	assert_int_equal(probe_open(&other, model, ids, 2, &options, &err), -1);
	assert_string_equal(err.text, "token 1 of the probe is 224, expected 0 to 223");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(faults_of_children_are_located),
		cmocka_unit_test(faults_of_masks_are_located),
		cmocka_unit_test(the_probe_says_where_it_begins),
		cmocka_unit_test(experts_are_forced),
		cmocka_unit_test(global_heads_are_what_such_a_child_does),
		cmocka_unit_test(files_from_elsewhere_are_compared),
		cmocka_unit_test(bad_probes_are_refused),
	};
	return cmocka_run_group_tests(tests, open_probe, close_probe);
}
