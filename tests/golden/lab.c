/*
 * The handoff lab on nest-tiny: its divergences against the golden handoffs of an independent
 * implementation, its similarities against a plain double recomputation, the repair curve's ends,
 * and the same through a job.
 */
#include "inspect/lab.h"
#include "golden.h"
#include <math.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define N 150

static struct lab_plan plan_of(struct golden *g, const int32_t *ids, int at, const char *from,
							   const char *to)
{
	return (struct lab_plan){.model = g->model,
							 .device = {.n_threads = golden_run.threads},
							 .ids = ids,
							 .n = N,
							 .at = at,
							 .from = from,
							 .to = to,
							 .horizon = N - at};
}

static void divergences(void)
{
	static const char *const pairs[][2] = {{"large", "medium"}, {"large", "small"},
										   {"medium", "large"}, {"medium", "small"},
										   {"small", "large"},  {"small", "medium"}};
	struct golden g;
	struct checkpoint values;
	struct error err = {0};
	char *path = golden_path("nest-tiny/golden/handoff.safetensors");

	golden_open(&g, "nest-tiny", "elastic.json", MATH_EXACT);
	golden_must(checkpoint_open_file(&values, path, &err), &err);
	free(path);
	const int32_t *ids = golden_ids(&values, "tokens", N);
	int at = golden_ids(&values, "k", 1)[0];
	size_t n = (size_t)(N - at);
	for (size_t i = 0; i < sizeof pairs / sizeof *pairs; i++) {
		static const int repairs[] = {0, 1000};
		struct lab_plan plan = plan_of(&g, ids, at, pairs[i][0], pairs[i][1]);
		struct lab lab;
		double mean = 0, largest = 0;
		char name[80];
		plan.repairs = repairs;
		plan.n_repairs = 2;
		golden_must(lab_run(&lab, &plan, &err), &err);
		snprintf(name, sizeof name, "kl.%s-%s", pairs[i][0], pairs[i][1]);
		const float *kl = golden_floats(&values, name, n);
		assert_int_equal(lab.horizon, n);
		assert_memory_equal(lab.ids, ids + at, n * sizeof *ids);
		for (size_t k = 0; k < n; k++) {
			if (!(fabs(lab.kl[k] - (double)kl[k]) < 1e-4))
				golden_fail("%s: row %zu: KL %.6f, expected %.6f", name, k, lab.kl[k],
							(double)kl[k]);
			mean += lab.kl[k] / (double)n;
			largest = fmax(largest, lab.kl[k]);
		}
		assert_true(fabs(mean - lab.kl_mean) < 1e-9 && largest == lab.kl_max);
		assert_true(lab.repairs[0].kl_mean == lab.kl_mean && lab.repairs[0].replayed == 0);
		// a repair of everything is a re-prefill
		assert_int_equal(lab.repairs[1].replayed, at);
		assert_true(lab.repairs[1].kl_max == 0 && lab.repairs[1].top1 == 1);
		assert_true(lab.reprefill_ms > lab.carry_ms);
		assert_true(lab.p[0] > 0 && lab.p[0] < 1 && isnan(lab.p[n - 1]));
		lab_free(&lab);
	}
	checkpoint_close(&values);
	golden_close(&g);
}

/* cos of x and y, plainly. */
static double cosine(const float *x, const float *y, size_t n)
{
	double dot = 0, xx = 0, yy = 0;
	for (size_t i = 0; i < n; i++) {
		dot += (double)x[i] * (double)y[i];
		xx += (double)x[i] * (double)x[i];
		yy += (double)y[i] * (double)y[i];
	}
	return dot / sqrt(xx) / sqrt(yy);
}

static void near(double found, double expected, const char *what, int layer)
{
	if (!(fabs(found - expected) < 1e-9))
		golden_fail("layer %d: cosine of %s %.12f, expected %.12f", layer, what, found, expected);
}

/* The budgets of elastic.json keep all heads, so whole states are compared. */
static void similarities(void)
{
	struct golden g;
	struct checkpoint values;
	struct error err = {0};
	struct sequence carried, exact;
	struct lab lab;
	char *path = golden_path("nest-tiny/golden/handoff.safetensors");
	int at = 90, n_mamba = 0, n_attention = 0;

	golden_open(&g, "nest-tiny", "elastic.json", MATH_EXACT);
	golden_must(checkpoint_open_file(&values, path, &err), &err);
	free(path);
	const struct config *config = &g.model->config;
	const int32_t *ids = golden_ids(&values, "tokens", N);
	golden_sequence(&g, &carried, "large");
	golden_read(&g, &carried, ids, at, 11, NULL);
	golden_sequence(&g, &exact, "small");
	golden_read(&g, &exact, ids, at, 128, NULL);
	struct lab_plan plan = plan_of(&g, ids, at, "large", "small");
	golden_must(lab_run(&lab, &plan, &err), &err);
	size_t conv = (size_t)(config->conv_kernel - 1) * (size_t)config_conv_channels(config);
	size_t ssm = (size_t)config_inner(config) * (size_t)config->ssm_state_size;
	size_t kv = (size_t)at * (size_t)config->num_key_value_heads * (size_t)config->head_dim;
	double sum_ssm = 0, sum_k = 0;
	assert_int_equal(lab.n_layers, config->n_layers);
	for (int i = 0; i < lab.n_layers; i++) {
		const struct lab_layer *layer = &lab.layers[i];
		const struct layer_state *x = &carried.layers[i], *y = &exact.layers[i];
		assert_int_equal(layer->kind, config->kinds[i]);
		assert_int_equal(isnan(layer->conv), layer->kind != LAYER_MAMBA);
		assert_int_equal(isnan(layer->k), layer->kind != LAYER_ATTENTION);
		if (layer->kind == LAYER_MAMBA) {
			near(layer->conv, cosine(x->conv, y->conv, conv), "conv", i);
			near(layer->ssm, cosine(x->ssm, y->ssm, ssm), "ssm", i);
			sum_ssm += layer->ssm;
			n_mamba++;
		} else if (layer->kind == LAYER_ATTENTION) {
			near(layer->k, cosine(x->k, y->k, kv), "k", i);
			near(layer->v, cosine(x->v, y->v, kv), "v", i);
			sum_k += layer->k;
			n_attention++;
		}
	}
	assert_true(n_mamba > 0 && n_attention > 0);
	near(lab.ssm, sum_ssm / n_mamba, "ssm, mean", -1);
	near(lab.k, sum_k / n_attention, "k, mean", -1);
	assert_int_equal(lab.n_repairs, 8); // 0, 1, 2, .. 64
	for (int i = 0; i < lab.n_repairs; i++) {
		assert_int_equal(lab.repairs[i].n, i ? 1 << (i - 1) : 0);
		assert_int_equal(lab.repairs[i].replayed, lab.repairs[i].n);
	}
	lab_free(&lab);
	sequence_close(&carried);
	sequence_close(&exact);
	checkpoint_close(&values);
	golden_close(&g);
}

static int stop_at_once(void *user, int done, int total)
{
	++*(int *)user;
	return done > 0 && total >= done;
}

/* Without a continuation the reference writes it; as a job; stopped; refused. */
static void alone(void)
{
	static const int32_t ids[] = {5, 17, 99, 3, 42, 8};
	struct golden g;
	struct error err = {0};
	struct lab lab;
	struct jobs *jobs = jobs_open(&err);
	struct pollfd ended = {.fd = jobs_fd(jobs), .events = POLLIN};
	int calls = 0;

	golden_open(&g, "nest-tiny", "elastic.json", MATH_EXACT);
	struct lab_plan plan = plan_of(&g, ids, 6, "large", "small");
	plan.n = 6;
	plan.horizon = 9;
	golden_must(lab_run(&lab, &plan, &err), &err);
	assert_in_range(lab.horizon, 1, 9);

	size_t vocab = (size_t)g.model->config.vocab_size;
	float *logits = test_calloc(16 * vocab, sizeof *logits), logprob;
	struct sequence sequence;
	golden_sequence(&g, &sequence, "small");
	golden_read(&g, &sequence, ids, 6, 6, logits);
	int32_t id = logits_top(logits + 5 * vocab, (int)vocab, &logprob);
	for (int i = 0; i < lab.horizon; i++) {
		assert_int_equal(lab.ids[i], id);
		golden_read(&g, &sequence, &id, 1, 1, logits);
		id = logits_top(logits, (int)vocab, &logprob);
		if (i + 1 < lab.horizon)
			assert_true(fabs(lab.p[i] - exp((double)logprob)) < 1e-6);
	}
	sequence_close(&sequence);
	test_free(logits);

	struct lab_job *job = lab_job(&plan, &err);
	assert_non_null(job);
	jobs_submit(jobs, &job->job);
	while (!jobs_next(jobs))
		assert_int_equal(poll(&ended, 1, 60000), 1);
	assert_int_equal(job->job.state, JOB_DONE);
	assert_int_equal(job->lab.horizon, lab.horizon);
	assert_memory_equal(job->lab.kl, lab.kl, (size_t)lab.horizon * sizeof *lab.kl);
	job->job.free(&job->job);
	lab_free(&lab);
	jobs_close(jobs);

	plan.step = stop_at_once;
	plan.user = &calls;
	assert_int_equal(lab_run(&lab, &plan, &err), -1);
	assert_int_equal(calls, 1);
	assert_string_equal(err.text, "stopped after 5 of 70 tokens");
	plan.at = 7;
	assert_int_equal(lab_run(&lab, &plan, &err), -1);
	assert_string_equal(err.text, "a switch before position 7: expected 1 to 6");
	plan.at = 6;
	plan.to = "enormous";
	assert_int_equal(lab_run(&lab, &plan, &err), -1);
	assert_non_null(strstr(err.text, "enormous"));
	golden_close(&g);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"divergences", divergences},
		{"similarities", similarities},
		{"alone", alone},
	};
	return golden_main(tests, sizeof tests / sizeof *tests);
}
