/*
 * Reading a text with everything kept (core/reading.h), against the golden values of nest-tiny: a
 * switch on the way, residuals, experts, and the lens, whose last entry is the model's own choice.
 */
#include "core/reading.h"
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

static void open_values(struct checkpoint *values, const char *file)
{
	struct error err = {0};
	char *path = golden_path(file);
	golden_must(checkpoint_open_file(values, path, &err), &err);
	free(path);
}

static void everything_is_kept(void)
{
	struct golden g;
	struct checkpoint values;
	struct reading r;
	struct error err = {0};

	golden_open(&g, "nest-tiny", "elastic-skip.json", MATH_EXACT);
	open_values(&values, "nest-tiny/golden/noattn.safetensors");
	struct reading_plan plan = {.ids = golden_ids(&values, "tokens.7", 7),
								.n = 7,
								.slice = golden_slice(&g, "noattn"),
								.kv_dtype = DTYPE_F32,
								.hidden = true,
								.experts = true,
								.lens = true};
	golden_must(reading_run(&r, &plan, &err), &err);
	size_t vocab = (size_t)r.vocab, n = 7 * (size_t)r.width;
	assert_int_equal(r.width, 80);
	assert_int_equal(r.top_k, 3);
	golden_close_to(&g, "logits.7", r.logits, golden_floats(&values, "logits.7", 7 * vocab),
					7 * vocab, LIMIT);
	golden_close_to(&g, "hidden.7", r.hidden, golden_floats(&values, "hidden.7", 9 * n), 9 * n,
					LIMIT);
	for (int i = 0; i < r.n_layers; i++) {
		char name[32];
		const int32_t *ids = r.expert_ids + i * 21;
		if (g.model->config.kinds[i] != LAYER_MOE) {
			assert_int_equal(ids[0], -1);
			continue;
		}
		snprintf(name, sizeof name, "moe.%d.ids.7", i);
		assert_memory_equal(ids, golden_ids(&values, name, 21), 21 * sizeof *ids);
		snprintf(name, sizeof name, "moe.%d.weights.7", i);
		golden_close_to(&g, name, r.expert_weights + i * 21, golden_floats(&values, name, 21), 21,
						LIMIT);
	}
	for (int t = 0; t < 7; t++) {
		float logprob;
		int id = logits_top(r.logits + (size_t)t * vocab, r.vocab, &logprob);
		assert_int_equal(r.lens_ids[8 * 7 + t], id);
		assert_true(r.lens_logprobs[8 * 7 + t] == logprob);
		// the left-out layer adds nothing, so the model's mind does not change there
		assert_int_equal(r.lens_ids[4 * 7 + t], r.lens_ids[3 * 7 + t]);
	}
	golden_leave(&g, "reading");
	reading_free(&r);
	checkpoint_close(&values);
	golden_close(&g);
}

/* large -> noattn -> small carried, and the same re-prefilled. */
static void budgets_change_on_the_way(void)
{
	struct golden g;
	struct checkpoint values;
	struct reading carried, exact, refused;
	struct error err = {0};
	const char *small = "hidden_size=48,moe_intermediate_size=16";

	golden_open(&g, "nest-tiny", "elastic-skip.json", MATH_EXACT);
	open_values(&values, "nest-tiny/golden/handoff-skip.safetensors");
	struct reading_switch switches[] = {{70, golden_slice(&g, "noattn"), HANDOFF_CARRY},
										{110, golden_slice(&g, small), HANDOFF_CARRY}};
	struct reading_plan plan = {.ids = golden_ids(&values, "tokens", 150),
								.n = 150,
								.slice = golden_slice(&g, "large"),
								.switches = switches,
								.n_switches = 2,
								.kv_dtype = DTYPE_F32,
								.hidden = true};
	golden_must(reading_run(&carried, &plan, &err), &err);
	size_t vocab = (size_t)carried.vocab;
	golden_close_to(&g, "logits.large-noattn-small", carried.logits + 70 * vocab,
					golden_floats(&values, "logits.large-noattn-small", 80 * vocab), 80 * vocab,
					LIMIT);
	assert_int_equal(carried.width, 80);
	for (int t = 0; t < 150; t++) // small has 48 channels
		assert_int_equal(carried.hidden[t * 80 + 48] == 0, t >= 110);
	switches[0].handoff = switches[1].handoff = HANDOFF_REPREFILL;
	plan.hidden = false;
	golden_must(reading_run(&exact, &plan, &err), &err);
	assert_null(exact.hidden);
	const float *kl = golden_floats(&values, "kl.large-noattn-small", 80);
	for (size_t t = 70; t < 150; t++) {
		double found = logits_kl(exact.logits + t * vocab, carried.logits + t * vocab, exact.vocab);
		assert_true(fabs(found - (double)kl[t - 70]) < 1e-4);
	}
	golden_same("before the switch", exact.logits, carried.logits, 70 * vocab);
	golden_leave(&g, "reading with switches");

	switches[1].at = 150;
	assert_int_equal(reading_run(&refused, &plan, &err), -1);
	assert_string_equal(err.text, "a switch before position 150: expected 0 to 149");
	switches[1].at = 60;
	assert_int_equal(reading_run(&refused, &plan, &err), -1);
	plan.n = 0;
	assert_int_equal(reading_run(&refused, &plan, &err), -1);
	reading_free(&exact);
	reading_free(&carried);
	checkpoint_close(&values);
	golden_close(&g);
}

static void logits_are_compared_in_doubles(void)
{
	const float p[] = {1, 2, -INFINITY, 0}, q[] = {1, 1, 1, 1}, flat[] = {3, 3, 3, 3};
	float logprob;
	double z = exp(1) + exp(2) + 1, expected = 0;

	for (int i = 0; i < 4; i++)
		if (i != 2)
			expected += exp((double)p[i]) / z * ((double)p[i] - log(z) + log(4));
	assert_true(fabs(logits_kl(p, q, 4) - expected) < 1e-12);
	assert_true(logits_kl(q, flat, 4) == 0);
	assert_int_equal(logits_top(flat, 4, &logprob), 0);
	assert_true(fabs((double)logprob + log(4)) < 1e-7);
	assert_int_equal(logits_top(p, 4, &logprob), 1);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"everything_is_kept", everything_is_kept},
		{"budgets_change_on_the_way", budgets_change_on_the_way},
		{"logits_are_compared_in_doubles", logits_are_compared_in_doubles},
	};
	return golden_main(tests, sizeof tests / sizeof *tests);
}
