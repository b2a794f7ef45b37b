/*
 * nest-tiny and its FP8 and NVFP4 forms, budget by budget: logits, residuals, experts, greedy
 * continuation and state against values of an independent implementation (README.md beside each).
 */
#include "base/file.h"
#include "base/hash.h"
#include "golden.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define LIMIT 1e-4
#define MAX_PROMPT 150

static void open_values(struct checkpoint *values, const char *folder, const char *name)
{
	struct error err = {0};
	char file[100], *path;

	snprintf(file, sizeof file, "%s/golden/%s.safetensors", folder, name);
	path = golden_path(file);
	if (checkpoint_open_file(values, path, &err))
		golden_fail("%s", err.text);
	free(path);
}

static void logits(struct golden *g, const char *budget, const struct checkpoint *values)
{
	static const int lengths[] = {1, 7, 150};
	size_t vocab = (size_t)g->model->config.vocab_size;
	float *found = test_calloc(MAX_PROMPT * vocab, sizeof *found);
	float *by_token = test_calloc(MAX_PROMPT * vocab, sizeof *found);
	struct sequence sequence;

	golden_sequence(g, &sequence, budget);
	for (int i = 0; i < 3; i++) {
		struct error err = {0};
		char name[32];
		size_t n = (size_t)lengths[i];
		snprintf(name, sizeof name, "tokens.%zu", n);
		const int32_t *ids = golden_ids(values, name, n);
		snprintf(name, sizeof name, "logits.%zu", n);
		assert_int_equal(sequence_rewind(&sequence, 0, &err), 0);
		golden_read(g, &sequence, ids, lengths[i], PREFILL_CHUNK, found);
		golden_close_to(g, name, found, golden_floats(values, name, n * vocab), n * vocab, LIMIT);
		// in other chunks, and token by token: the same bits
		for (int chunk = 1; chunk <= 7; chunk += 6) {
			assert_int_equal(sequence_rewind(&sequence, 0, &err), 0);
			golden_read(g, &sequence, ids, lengths[i], chunk, by_token);
			golden_same(name, by_token, found, n * vocab);
		}
	}
	sequence_close(&sequence);
	test_free(by_token);
	test_free(found);
}

/* The state of every Mamba layer after the prompt of 150, at the parent's full width. */
static void state(struct golden *g, const char *budget, const struct checkpoint *values)
{
	const struct config *config = &g->model->config;
	size_t n_conv = (size_t)(config->conv_kernel - 1) * (size_t)config_conv_channels(config);
	size_t n_ssm = (size_t)config_inner(config) * (size_t)config->ssm_state_size;
	float *found = test_calloc(n_conv + n_ssm, sizeof *found);
	struct sequence sequence;
	int n_compared = 0;

	golden_sequence(g, &sequence, budget);
	golden_read(g, &sequence, golden_ids(values, "tokens.150", 150), 150, PREFILL_CHUNK, NULL);
	for (int i = 0; i < config->n_layers; i++) {
		char name[32];
		if (config->kinds[i] != LAYER_MAMBA)
			continue;
		snprintf(name, sizeof name, "state.%d.conv", i);
		golden_backend->download(g->device, found, sequence.layers[i].conv, n_conv * sizeof *found);
		golden_close_to(g, name, found, golden_floats(values, name, n_conv), n_conv, LIMIT);
		snprintf(name, sizeof name, "state.%d.ssm", i);
		golden_backend->download(g->device, found, sequence.layers[i].ssm, n_ssm * sizeof *found);
		golden_close_to(g, name, found, golden_floats(values, name, n_ssm), n_ssm, LIMIT);
		n_compared++;
	}
	assert_int_equal(n_compared, 3);
	sequence_close(&sequence);
	test_free(found);
}

/* Compares while the pass runs. */
struct seen {
	struct golden *g;
	const struct checkpoint *values;
	int residuals, experts;
	const float *before[2]; // unused entries NULL
	float *input;           // of the layer at hand, to check that mixer outputs add up
	float *sum;
};

static void see(void *user, const struct tapped *t)
{
	struct seen *seen = user;
	size_t n = (size_t)t->n * (size_t)t->width;
	char name[32];

	assert_int_equal(t->n, 7);
	assert_int_equal(t->first, 0);
	assert_int_equal(t->lane, 0);
	if (t->tap == TAP_RESIDUAL) {
		const float *all = golden_floats(seen->values, "hidden.7", 9 * n);
		snprintf(name, sizeof name, "hidden.7[%d]", t->layer);
		golden_close_to(seen->g, name, t->values, all + (size_t)t->layer * n, n, LIMIT);
		assert_int_equal(t->layer, seen->residuals++);
		if (t->layer) // what the layers added so far
			assert_true(golden_error(seen->sum, t->values, n) < 1e-6);
		else
			memcpy(seen->sum, t->values, n * sizeof *seen->sum);
	} else if (t->tap == TAP_MIXER_OUTPUT) {
		for (size_t i = 0; i < n; i++)
			seen->sum[i] += t->values[i];
	} else if (t->tap == TAP_EXPERTS) {
		snprintf(name, sizeof name, "moe.%d.ids.7", t->layer);
		assert_memory_equal(t->ids, golden_ids(seen->values, name, n), n * sizeof *t->ids);
		snprintf(name, sizeof name, "moe.%d.weights.7", t->layer);
		golden_close_to(seen->g, name, t->values, golden_floats(seen->values, name, n), n, LIMIT);
		seen->experts++;
	} else {
		golden_fail("a tap that nobody asked for: %d", (int)t->tap);
	}
}

static void inside(struct golden *g, const char *budget, const struct checkpoint *values)
{
	size_t hidden = (size_t)g->model->config.hidden_size;
	struct seen seen = {.g = g, .values = values, .sum = test_calloc(7 * hidden, sizeof *seen.sum)};
	struct taps taps = {TAP_RESIDUAL | TAP_EXPERTS | TAP_MIXER_OUTPUT, see, &seen};
	struct sequence sequence;
	struct error err = {0};

	golden_sequence(g, &sequence, budget);
	struct lane lane = {.sequence = &sequence,
						.tokens = golden_ids(values, "tokens.7", 7),
						.n_tokens = 7,
						.taps = &taps};
	if (forward(g->workspace, &lane, 1, NULL, NULL, &err))
		golden_fail("%s", err.text);
	assert_int_equal(seen.residuals, 9);
	assert_int_equal(seen.experts, 3);
	assert_null(lane.out);
	sequence_close(&sequence);
	test_free(seen.sum);
}

static void greedy(struct golden *g, const char *budget, const struct checkpoint *values)
{
	const int32_t *ids = golden_ids(values, "greedy.ids", 24);
	const int32_t *top = golden_ids(values, "greedy.top5.ids", 24 * 5);
	const float *logprobs = golden_floats(values, "greedy.top5.logprobs", 24 * 5);
	const struct pick_params greedily = {.top_p = 1, .forced = -1};
	struct sequence sequence;
	struct picked picked;
	struct error err = {0};
	double worst = 0;

	golden_sequence(g, &sequence, budget);
	struct lane lane = {.sequence = &sequence,
						.tokens = golden_ids(values, "tokens.7", 7),
						.n_tokens = 7,
						.logits = LOGITS_LAST};
	for (int i = 0; i < 24; i++) {
		if (forward(g->workspace, &lane, 1, &greedily, &picked, &err))
			golden_fail("%s", err.text);
		assert_int_equal(picked.id, ids[i]);
		assert_true(picked.logprob == picked.top[0].logprob);
		for (int k = 0; k < 5; k++) {
			double d = fabs((double)picked.top[k].logprob - (double)logprobs[i * 5 + k]);
			assert_int_equal(picked.top[k].id, top[i * 5 + k]);
			worst = d > worst ? d : worst;
		}
		g->hash = hash_mix(g->hash ^ hash_bytes(&picked, sizeof picked));
		lane.tokens = &picked.id;
		lane.n_tokens = 1;
	}
	if (!(worst <= 1e-4))
		golden_fail("%s: greedy logprobs differ by %.2g", budget, worst);
	sequence_close(&sequence);
}

static void check_budgets(const char *folder, const char *file, const char *const *budgets, int n)
{
	struct golden g;

	golden_open(&g, folder, file, MATH_EXACT);
	for (int i = 0; i < n; i++) {
		struct checkpoint values;
		char what[80];
		open_values(&values, folder, budgets[i]);
		g.worst = 0;
		logits(&g, budgets[i], &values);
		if (checkpoint_find(&values, "state.0.ssm")) // values of the quantised ones have none
			state(&g, budgets[i], &values);
		inside(&g, budgets[i], &values);
		greedy(&g, budgets[i], &values);
		snprintf(what, sizeof what, "%s of %s, %s", budgets[i], folder, file);
		golden_leave(&g, what);
		checkpoint_close(&values);
	}
	golden_close(&g);
}

static void width_budgets(void)
{
	static const char *const budgets[] = {"large", "medium", "small"};
	check_budgets("nest-tiny", "elastic.json", budgets, 3);
}

static void all_axes(void)
{
	static const char *const budgets[] = {"large", "odd", "hetero"};
	check_budgets("nest-tiny", "elastic-allaxes.json", budgets, 3);
}

static void skipped_attention(void)
{
	static const char *const budgets[] = {"large", "noattn"};
	check_budgets("nest-tiny", "elastic-skip.json", budgets, 2);
}

/* The weights as they are stored; the values come from dequantised ones. */
static void quantised(void)
{
	static const char *const widths[] = {"large", "medium", "small"};
	static const char *const axes[] = {"odd"};

	check_budgets("quantised/nest-tiny-fp8", "elastic.json", widths, 3);
	check_budgets("quantised/nest-tiny-fp8", "elastic-allaxes.json", axes, 1);
	check_budgets("quantised/nest-tiny-nvfp4", "elastic.json", widths, 3);
	check_budgets("quantised/nest-tiny-nvfp4", "elastic-allaxes.json", axes, 1);
}

/* Widths, from a file or typed, that would cut through a block of 16. */
static void cut_blocks_are_refused(void)
{
	struct golden g;
	struct slice slice;
	struct budget budget = {0};
	struct error err = {0};
	static const struct {
		const char *file, *budget, *says;
	} cases[] = {
		{"elastic-refused.json", "hetero",
		 "budget hetero: layer 0 in_proj is NVFP4 with a scale per 16 columns, the budget keeps "
		 "columns 0 to 56 of it, expected multiples of 16"},
		{"elastic.json", "moe_intermediate_size=24",
		 "layer 1 experts.0.down_proj is NVFP4 with a scale per 16 columns, the budget keeps "
		 "columns 0 to 24 of it"},
	};

	for (int i = 0; i < 2; i++) {
		golden_open(&g, "quantised/nest-tiny-nvfp4", cases[i].file, MATH_EXACT);
		golden_must(model_budget(g.model, cases[i].budget, &budget, &err), &err);
		assert_int_equal(slice_build(&slice, &g.model->weights, &g.model->config, &budget,
									 golden_backend, g.device, &err),
						 -1);
		if (!strstr(err.text, cases[i].says))
			golden_fail("\"%s\" does not say \"%s\"", err.text, cases[i].says);
		g.hash = hash_bytes(err.text, strlen(err.text));
		golden_leave(&g, cases[i].budget);
		budget_free(&budget);
		golden_close(&g);
	}
}

/* A child is a checkpoint of its own: the same logits as the parent's slice. */
static void children(void)
{
	static const struct {
		const char *parent, *name;
	} all[] = {{"nest-tiny", "medium"},
			   {"nest-tiny", "odd"},
			   {"nest-tiny", "small"},
			   {"quantised/nest-tiny-fp8", "medium"},
			   {"quantised/nest-tiny-nvfp4", "small"}};

	for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) {
		struct golden g;
		struct checkpoint values;
		char folder[64], what[80];
		snprintf(folder, sizeof folder, "%s/children/%s", all[i].parent, all[i].name);
		snprintf(what, sizeof what, "child %s of %s", all[i].name, all[i].parent);
		golden_open(&g, folder, NULL, MATH_EXACT);
		open_values(&values, all[i].parent, all[i].name);
		logits(&g, g.model->elastic.budgets[0].name, &values);
		greedy(&g, g.model->elastic.budgets[0].name, &values);
		golden_leave(&g, what);
		checkpoint_close(&values);
		golden_close(&g);
	}
}

/* Not a promise, a measurement: what --math fast costs. */
static void fast_math(void)
{
	static const char *const budgets[] = {"large", "medium", "small"};
	size_t vocab, n;
	struct golden g;
	float *found;

	golden_open(&g, "nest-tiny", "elastic.json", MATH_FAST);
	vocab = (size_t)g.model->config.vocab_size;
	n = MAX_PROMPT * vocab;
	found = test_calloc(n, sizeof *found);
	for (int i = 0; i < 3; i++) {
		struct checkpoint values;
		struct sequence sequence;
		const float *expected;
		double kl = 0;
		open_values(&values, "nest-tiny", budgets[i]);
		expected = golden_floats(&values, "logits.150", n);
		golden_sequence(&g, &sequence, budgets[i]);
		golden_read(&g, &sequence, golden_ids(&values, "tokens.150", 150), 150, PREFILL_CHUNK,
					found);
		for (size_t t = 0; t < MAX_PROMPT; t++)
			kl += logits_kl(expected + t * vocab, found + t * vocab, (int)vocab) / MAX_PROMPT;
		assert_true(kl < 0.1);
		g.hash = hash_mix(g.hash ^ hash_bytes(found, n * sizeof *found));
		if (golden_run.threads == 1)
			golden_note("fast, %s, %s: relative error %.2g, mean KL %.2g", golden_run.rung,
						budgets[i], golden_error(found, expected, n), kl);
		sequence_close(&sequence);
		checkpoint_close(&values);
	}
	golden_leave(&g, "fast");
	test_free(found);
	golden_close(&g);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"width_budgets", width_budgets},
		{"all_axes", all_axes},
		{"skipped_attention", skipped_attention},
		{"quantised", quantised},
		{"cut_blocks_are_refused", cut_blocks_are_refused},
		{"children", children},
		{"fast_math", fast_math},
	};
	return golden_main(tests, sizeof tests / sizeof *tests);
}
