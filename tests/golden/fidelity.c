/*
 * Teacher-forced comparison (inspect/fidelity.h) on nest-tiny: what it says equals what doubles
 * make of the golden logits, residuals and experts, in the plainest way to write the definitions.
 */
#include "inspect/fidelity.h"
#include "golden.h"
#include "inspect/answers.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define N_LAYERS 8
#define VOCAB 224
#define SHORT 7 // tokens of the prompt with residuals and experts
#define TOP_K 3
#define LIMIT 2e-4

static void open_values(struct checkpoint *values, const char *budget)
{
	struct error err = {0};
	char file[80], *path;

	snprintf(file, sizeof file, "nest-tiny/golden/%s.safetensors", budget);
	path = golden_path(file);
	golden_must(checkpoint_open_file(values, path, &err), &err);
	free(path);
}

static void near(const char *what, int at, double found, double expected, double limit)
{
	if (!(fabs(found - expected) <= limit * (1 + fabs(expected))))
		golden_fail("%s %d: found %.9g, expected %.9g", what, at, found, expected);
}

static void softmax(const float *logits, double *p)
{
	double sum = 0;

	for (int i = 0; i < VOCAB; i++)
		sum += exp((double)logits[i]);
	for (int i = 0; i < VOCAB; i++)
		p[i] = exp((double)logits[i]) / sum;
}

static int argmax(const float *logits)
{
	int best = 0;

	for (int i = 1; i < VOCAB; i++)
		if (logits[i] > logits[best])
			best = i;
	return best;
}

static double expected_kl(const double *p, const double *q)
{
	double kl = 0;

	for (int i = 0; i < VOCAB; i++)
		kl += p[i] * log(p[i] / q[i]);
	return kl;
}

static double correlation(const double *x, const double *y, int n)
{
	double mx = 0, my = 0, xx = 0, yy = 0, xy = 0;

	for (int i = 0; i < n; i++)
		mx += x[i] / n, my += y[i] / n;
	for (int i = 0; i < n; i++) {
		xx += (x[i] - mx) * (x[i] - mx);
		yy += (y[i] - my) * (y[i] - my);
		xy += (x[i] - mx) * (y[i] - my);
	}
	return xy / sqrt(xx * yy);
}

/* KL, top ids, entropy, probabilities, perplexity of three budgets read together. */
static void predictions_equal_doubles(void)
{
	static const char *const names[] = {"large", "medium", "small"};
	struct golden g;
	struct checkpoint values[3];
	struct fidelity f;
	struct error err = {0};
	struct fidelity_plan plan = {.n_sides = 3, .n = 150, .kv_dtype = DTYPE_F32, .route_from = -1};
	const float *logits[3];

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	for (int i = 0; i < 3; i++) {
		open_values(&values[i], names[i]);
		plan.sides[i] = golden_slice(&g, names[i]);
		logits[i] = golden_floats(&values[i], "logits.150", 150 * VOCAB);
	}
	plan.ids = golden_ids(&values[0], "tokens.150", 150);
	golden_must(fidelity_run(&f, &plan, &err), &err);
	assert_int_equal(f.n, 150);
	for (int i = 0; i < 3; i++) {
		const struct fidelity_side *side = &f.sides[i];
		double sum = 0, largest = 0, nll = 0, dp = 0;
		int same = 0, first = -1;
		for (int t = 0; t < 150; t++) {
			double p[VOCAB], q[VOCAB], entropy = 0;
			const float *row = logits[i] + t * VOCAB;
			softmax(logits[0] + t * VOCAB, p);
			softmax(row, q);
			for (int k = 0; k < VOCAB; k++)
				entropy -= q[k] * log(q[k]);
			double kl = i ? expected_kl(p, q) : 0;
			near("KL", t, side->positions[t].kl, kl, LIMIT);
			near("entropy", t, side->positions[t].entropy, entropy, LIMIT);
			assert_int_equal(side->positions[t].top, argmax(row));
			if (argmax(row) == argmax(logits[0] + t * VOCAB))
				same++;
			else if (first < 0)
				first = t;
			sum += kl;
			largest = kl > largest ? kl : largest;
			if (t == 149) {
				assert_true(isnan(side->positions[t].logprob));
				continue;
			}
			int next = plan.ids[t + 1];
			near("logprob", t, side->positions[t].logprob, log(q[next]), LIMIT);
			nll -= log(q[next]);
			dp += q[next] - p[next];
		}
		near("mean KL", i, side->summary.kl.value, sum / 150, LIMIT);
		near("max KL", i, side->summary.kl_max, largest, LIMIT);
		near("PPL", i, side->summary.ppl.value, exp(nll / 149), LIMIT);
		near("mean dp", i, side->summary.dp.value, dp / 149, LIMIT);
		near("same top", i, side->summary.same_top.value, same / 150.0, 1e-12);
		assert_int_equal(side->summary.first_divergence, first);
		assert_int_equal(side->summary.n_next, 149);
		golden_note("%s: KL %.6f, same top %.3f, PPL %.3f", names[i], side->summary.kl.value,
					side->summary.same_top.value, side->summary.ppl.value);
	}
	fidelity_free(&f);
	for (int i = 0; i < 3; i++)
		checkpoint_close(&values[i]);
	golden_leave(&g, "fidelity");
	golden_close(&g);
}

/* The goldens of a budget on the short prompt. */
struct stored {
	struct checkpoint values;
	const float *hidden, *logits;
	const int32_t *ids[N_LAYERS];
	const float *weights[N_LAYERS]; // NULL: no experts there
	int width;
};

static void open_stored(struct stored *s, const struct golden *g, const char *budget, int width)
{
	*s = (struct stored){.width = width};
	open_values(&s->values, budget);
	s->hidden = golden_floats(&s->values, "hidden.7", (size_t)((N_LAYERS + 1) * SHORT * width));
	s->logits = golden_floats(&s->values, "logits.7", SHORT * VOCAB);
	for (int i = 0; i < N_LAYERS; i++) {
		char name[32];
		if (g->model->config.kinds[i] != LAYER_MOE)
			continue;
		snprintf(name, sizeof name, "moe.%d.ids.7", i);
		s->ids[i] = golden_ids(&s->values, name, SHORT * TOP_K);
		snprintf(name, sizeof name, "moe.%d.weights.7", i);
		s->weights[i] = golden_floats(&s->values, name, SHORT * TOP_K);
	}
}

static void check_metric(const struct fidelity_layer *layer, enum fidelity_metric metric, int at,
						 const double *x, const double *kl)
{
	double mean = 0, spread = 0;

	for (int t = 0; t < SHORT; t++)
		mean += x[t] / SHORT;
	for (int t = 0; t < SHORT; t++)
		spread += fabs(x[t] - mean);
	near(fidelity_metric_key(metric), at, layer->mean[metric], mean, LIMIT);
	if (spread > 1e-6)
		near("its correlation", at, layer->correlation[metric], correlation(x, kl, SHORT), 1e-3);
}

/* Leading channels and experts: the first q->width channels, experts below n_experts of the layer.
 */
static void check_layers(const struct fidelity_side *side, const struct stored *a,
						 const struct stored *q, const int *n_experts)
{
	double kl[SHORT];

	for (int t = 0; t < SHORT; t++) {
		double of_a[VOCAB], of_q[VOCAB];
		softmax(a->logits + t * VOCAB, of_a);
		softmax(q->logits + t * VOCAB, of_q);
		kl[t] = expected_kl(of_a, of_q);
	}
	for (int i = 0; i <= N_LAYERS; i++) {
		double distance[SHORT], leak[SHORT], orphans[SHORT], overlap[SHORT];
		for (int t = 0; t < SHORT; t++) {
			const float *x = a->hidden + (i * SHORT + t) * a->width;
			const float *y = q->hidden + (i * SHORT + t) * q->width;
			double apart = 0, inside = 0, outside = 0;
			for (int c = 0; c < a->width; c++)
				if (c < q->width) {
					apart += pow((double)x[c] - (double)y[c], 2);
					inside += pow((double)x[c], 2);
				} else {
					outside += pow((double)x[c], 2);
				}
			distance[t] = sqrt(apart) / sqrt(inside);
			leak[t] = outside / (inside + outside);
		}
		check_metric(&side->layers[i], FIDELITY_DISTANCE, i, distance, kl);
		check_metric(&side->layers[i], FIDELITY_LEAK, i, leak, kl);
		if (i == N_LAYERS || !a->ids[i]) {
			assert_true(isnan(side->layers[i].mean[FIDELITY_OVERLAP]));
			continue;
		}
		for (int t = 0; t < SHORT; t++) {
			double sum = 0, lost = 0, common = 0;
			for (int k = 0; k < TOP_K; k++) {
				int id = a->ids[i][t * TOP_K + k];
				sum += (double)a->weights[i][t * TOP_K + k];
				lost += id < n_experts[i] ? 0 : (double)a->weights[i][t * TOP_K + k];
				for (int m = 0; m < TOP_K; m++)
					common += q->ids[i][t * TOP_K + m] == id;
			}
			orphans[t] = lost / sum;
			overlap[t] = common / TOP_K;
		}
		check_metric(&side->layers[i], FIDELITY_ORPHAN_MASS, i, orphans, kl);
		check_metric(&side->layers[i], FIDELITY_OVERLAP, i, overlap, kl);
	}
}

static void layers_equal_doubles(void)
{
	static const int of_odd[] = {0, 7, 0, 0, 7, 0, 0, 7}, of_hetero[] = {0, 7, 0, 0, 5, 0, 0, 4};
	struct golden g;
	struct stored large, odd, hetero;
	struct fidelity f;
	struct error err = {0};

	golden_open(&g, "nest-tiny", "elastic-allaxes.json", MATH_EXACT);
	open_stored(&large, &g, "large", 80);
	open_stored(&odd, &g, "odd", 64);
	open_stored(&hetero, &g, "hetero", 56);
	struct fidelity_plan plan = {
		.sides = {golden_slice(&g, "large"), golden_slice(&g, "odd"), golden_slice(&g, "hetero")},
		.n_sides = 3,
		.ids = golden_ids(&large.values, "tokens.7", SHORT),
		.n = SHORT,
		.kv_dtype = DTYPE_F32,
		.layers = true};
	golden_must(fidelity_run(&f, &plan, &err), &err); // route_from 0
	check_layers(&f.sides[1], &large, &odd, of_odd);
	check_layers(&f.sides[2], &large, &hetero, of_hetero);
	assert_true(isnan(f.sides[0].layers[3].mean[FIDELITY_DISTANCE]));
	double lacking = 0, choices = 0;
	for (int i = 0; i < N_LAYERS; i++)
		for (int k = 0; large.ids[i] && k < SHORT * TOP_K; k++, choices++)
			lacking += large.ids[i][k] >= of_hetero[i];
	assert_true(lacking > 0);
	near("dropped", 0, f.sides[2].routed_dropped, lacking / choices, 1e-12);
	near("share", 0, f.sides[2].routed_share,
		 1 - f.sides[2].routed_kl.value / f.sides[2].summary.kl.value, 1e-12);
	assert_true(f.sides[2].routed_kl.value > 0);
	assert_true(isnan(f.sides[0].routed_share));
	golden_note("large -> hetero: KL %.4f, with large's experts %.4f", f.sides[2].summary.kl.value,
				f.sides[2].routed_kl.value);
	fidelity_free(&f);
	checkpoint_close(&large.values);
	checkpoint_close(&odd.values);
	checkpoint_close(&hetero.values);
	golden_leave(&g, "fidelity by layer");
	golden_close(&g);
}

/* A lane given the experts that it would choose by itself computes the same, bit for bit. */
static void own_experts_change_nothing(void)
{
	struct golden g;
	struct checkpoint values;
	struct fidelity f;
	struct error err = {0};

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	open_values(&values, "small");
	struct fidelity_plan plan = {
		.sides = {golden_slice(&g, "small"), golden_slice(&g, "small"), golden_slice(&g, "large")},
		.n_sides = 3,
		.ids = golden_ids(&values, "tokens.150", 150),
		.n = 150,
		.kv_dtype = DTYPE_F32};
	golden_must(fidelity_run(&f, &plan, &err), &err);
	for (int t = 0; t < 150; t++) {
		assert_true(f.sides[1].positions[t].kl == 0);
		assert_true(f.sides[1].positions[t].routed_kl == 0);
	}
	assert_true(f.sides[1].routed_dropped == 0);
	assert_true(f.sides[1].summary.first_divergence == -1);
	assert_null(f.sides[1].layers);
	assert_true(f.sides[2].routed_kl.value > 0);
	assert_true(f.sides[2].routed_kl.value != f.sides[2].summary.kl.value);
	fidelity_free(&f);
	checkpoint_close(&values);
	golden_leave(&g, "fidelity with given experts");
	golden_close(&g);
}

struct chosen {
	const struct stored *a;
	const int *n_experts; // of each layer of the lane
	int layers;
};

static void see_chosen(void *user, const struct tapped *t)
{
	struct chosen *c = user;

	c->layers++;
	for (int row = 0; row < t->n; row++) {
		double sum = 0;
		int kept = 0, shown = 0;
		for (int k = 0; k < TOP_K; k++)
			kept += c->a->ids[t->layer][row * TOP_K + k] < c->n_experts[t->layer];
		for (int k = 0; k < t->width; k++) {
			int id = t->ids[row * t->width + k];
			bool given = false;
			for (int m = 0; m < TOP_K; m++)
				given = given || c->a->ids[t->layer][row * TOP_K + m] == id;
			assert_in_range(id, 0, c->n_experts[t->layer] - 1);
			assert_int_equal(given, t->values[row * t->width + k] > 0);
			shown += given;
			sum += (double)t->values[row * t->width + k];
		}
		assert_int_equal(shown, kept);
		near("weights", row, sum, kept ? 2.5 : 0, 1e-5);
	}
}

/* A lane of hetero with large's experts: those it keeps, weighed to the same sum, and no others. */
static void lacking_experts_are_dropped(void)
{
	static const int of_hetero[] = {0, 7, 0, 0, 5, 0, 0, 4};
	struct golden g;
	struct stored large;
	struct error err = {0};
	struct sequence sequence;
	int32_t ids[N_LAYERS * SHORT * TOP_K];

	golden_open(&g, "nest-tiny", "elastic-allaxes.json", MATH_EXACT);
	open_stored(&large, &g, "large", 80);
	golden_sequence(&g, &sequence, "hetero");
	for (int i = 0; i < N_LAYERS * SHORT * TOP_K; i++) {
		int layer = i / (SHORT * TOP_K);
		ids[i] = large.ids[layer] ? large.ids[layer][i % (SHORT * TOP_K)] : -1;
	}
	struct chosen chosen = {&large, of_hetero, 0};
	struct routing routing = {ids, TOP_K};
	struct taps taps = {TAP_EXPERTS, see_chosen, &chosen};
	struct lane lane = {.sequence = &sequence,
						.tokens = golden_ids(&large.values, "tokens.7", SHORT),
						.n_tokens = SHORT,
						.logits = LOGITS_NONE,
						.taps = &taps,
						.routing = &routing};
	golden_must(forward(g.workspace, &lane, 1, NULL, NULL, &err), &err);
	assert_int_equal(chosen.layers, 3);
	routing.top_k = 11; // wider than any workspace of this model
	assert_int_equal(forward(g.workspace, &lane, 1, NULL, NULL, &err), -1);
	sequence_close(&sequence);
	checkpoint_close(&large.values);
	golden_leave(&g, "dropped experts");
	golden_close(&g);
}

static float bf16(const uint16_t *from)
{
	uint32_t bits = (uint32_t)*from << 16;
	float value;

	memcpy(&value, &bits, sizeof value);
	return value;
}

/* lm_head RMSNorm(h; norm_f) of a budget's stored residual, in doubles. */
static void expected_lens(const struct golden *g, const float *h, int width, float *logits)
{
	const struct tensor *norm = checkpoint_find(&g->model->checkpoint, "backbone.norm_f.weight");
	const struct tensor *head = checkpoint_find(&g->model->checkpoint, "lm_head.weight");
	double square = 0;

	assert_non_null(norm);
	assert_non_null(head);
	for (int c = 0; c < width; c++)
		square += (double)h[c] * (double)h[c];
	double scale = 1 / sqrt(square / width + (double)g->model->config.norm_eps);
	for (int v = 0; v < VOCAB; v++) {
		double sum = 0;
		for (int c = 0; c < width; c++)
			sum += (double)h[c] * scale * (double)bf16((const uint16_t *)norm->data + c) *
				   (double)bf16((const uint16_t *)head->data + v * 80 + c);
		logits[v] = (float)sum;
	}
}

static void the_lens_equals_doubles(void)
{
	struct golden g;
	struct stored large, small;
	struct fidelity f;
	struct error err = {0};

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	open_stored(&large, &g, "large", 80);
	open_stored(&small, &g, "small", 48);
	struct fidelity_plan plan = {.sides = {golden_slice(&g, "large"), golden_slice(&g, "small")},
								 .n_sides = 2,
								 .ids = golden_ids(&large.values, "tokens.7", SHORT),
								 .n = SHORT,
								 .kv_dtype = DTYPE_F32,
								 .lens = true,
								 .route_from = -1};
	golden_must(fidelity_run(&f, &plan, &err), &err);
	for (int i = 0; i <= N_LAYERS; i++) {
		double top = 0, kl = 0, same = 0, apart = 0;
		for (int t = 0; t < SHORT; t++) {
			float of_a[VOCAB], of_q[VOCAB];
			double a[VOCAB], q[VOCAB], final[VOCAB];
			expected_lens(&g, large.hidden + (i * SHORT + t) * 80, 80, of_a);
			expected_lens(&g, small.hidden + (i * SHORT + t) * 48, 48, of_q);
			softmax(of_a, a);
			softmax(of_q, q);
			softmax(small.logits + t * VOCAB, final);
			top += argmax(of_q) == argmax(small.logits + t * VOCAB);
			kl += expected_kl(final, q);
			same += argmax(of_q) == argmax(of_a);
			apart += expected_kl(a, q);
		}
		const struct fidelity_layer *layer = &f.sides[1].layers[i];
		near("lens top", i, layer->lens_top, top / SHORT, 1e-12);
		near("lens KL", i, layer->lens_kl, kl / SHORT, LIMIT);
		near("lens same", i, layer->apart_same, same / SHORT, 1e-12);
		near("lens apart", i, layer->apart_kl, apart / SHORT, LIMIT);
		assert_true(isnan(f.sides[0].layers[i].apart_kl));
	}
	assert_true(f.sides[1].layers[N_LAYERS].lens_top == 1);
	assert_true(f.sides[1].layers[N_LAYERS].lens_kl == 0);
	assert_true(isnan(f.sides[1].layers[2].mean[FIDELITY_LEAK]));
	fidelity_free(&f);
	checkpoint_close(&large.values);
	checkpoint_close(&small.values);
	golden_leave(&g, "lens");
	golden_close(&g);
}

static int stop_at_once(void *user, int done, int total)
{
	(void)total;
	*(int *)user = done;
	return 1;
}

/* A window begins with empty states; positions before `first` are read and not compared. */
static void windows_begin_empty(void)
{
	struct golden g;
	struct checkpoint values;
	struct fidelity whole, windows, later;
	struct error err = {0};
	int done = 0;

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	open_values(&values, "small");
	struct fidelity_plan plan = {.sides = {golden_slice(&g, "large"), golden_slice(&g, "small")},
								 .n_sides = 2,
								 .ids = golden_ids(&values, "tokens.150", 150),
								 .n = 150,
								 .kv_dtype = DTYPE_F32,
								 .layers = true,
								 .route_from = 0};
	golden_must(fidelity_run(&whole, &plan, &err), &err);
	plan.window = 60;
	golden_must(fidelity_run(&windows, &plan, &err), &err);
	plan.window = 0;
	plan.ids += 60;
	plan.n = 60;
	golden_must(fidelity_run(&later, &plan, &err), &err);
	for (int t = 0; t < 60; t++) {
		const struct divergence_position *w = windows.sides[1].positions;
		assert_true(w[t].kl == whole.sides[1].positions[t].kl);
		assert_true(w[t + 60].kl == later.sides[1].positions[t].kl);
		assert_true(w[t + 60].routed_kl == later.sides[1].positions[t].routed_kl);
	}
	assert_true(windows.sides[1].positions[70].kl != whole.sides[1].positions[70].kl);
	fidelity_free(&windows);
	fidelity_free(&later);

	plan.ids -= 60;
	plan.n = 150;
	plan.first = 131; // chunks before it are read, their logits never computed
	plan.end = 149;
	golden_must(fidelity_run(&later, &plan, &err), &err);
	assert_int_equal(later.n, 18);
	for (int t = 0; t < 18; t++) {
		assert_true(later.sides[1].positions[t].kl == whole.sides[1].positions[131 + t].kl);
		assert_true(later.sides[1].positions[t].routed_kl ==
					whole.sides[1].positions[131 + t].routed_kl);
	}
	int worst[2];
	assert_int_equal(fidelity_worst(&whole, 1, 2, worst, &err), 2);
	assert_true(whole.sides[1].positions[worst[0]].kl == whole.sides[1].summary.kl_max);
	assert_true(whole.sides[1].positions[worst[1]].kl <= whole.sides[1].summary.kl_max);
	fidelity_free(&later);
	fidelity_free(&whole);

	plan.step = stop_at_once;
	plan.user = &done;
	assert_int_equal(fidelity_run(&whole, &plan, &err), -1);
	assert_int_equal(done, 128);
	assert_string_equal(err.text, "stopped after 128 of 149 tokens");
	assert_null(whole.sides[0].positions);
	checkpoint_close(&values);
	golden_leave(&g, "fidelity in windows");
	golden_close(&g);
}

static void other_vocabularies_are_refused(void)
{
	static const int32_t ids[] = {1, 2, 3};
	struct golden g, demo;
	struct fidelity f;
	struct error err = {0};

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	golden_open(&demo, "demo", NULL, MATH_EXACT);
	struct fidelity_plan plan = {.sides = {golden_slice(&g, "large"), golden_slice(&demo, "small")},
								 .n_sides = 2,
								 .ids = ids,
								 .n = 3,
								 .kv_dtype = DTYPE_F32,
								 .route_from = -1};
	assert_int_equal(fidelity_run(&f, &plan, &err), -1);
	assert_string_equal(err.text, "vocabularies differ: large has 224 tokens, small has 512");
	assert_int_equal(fidelity_same_vocabulary(g.model, demo.model, &err), -1);
	assert_non_null(strstr(err.text, "224"));
	assert_non_null(strstr(err.text, "512"));
	assert_int_equal(fidelity_same_vocabulary(demo.model, demo.model, &err), 0);
	plan.n_sides = 1;
	assert_int_equal(fidelity_run(&f, &plan, &err), -1);
	plan.n_sides = 2;
	plan.sides[1] = plan.sides[0];
	plan.first = 3;
	assert_int_equal(fidelity_run(&f, &plan, &err), -1);
	golden_leave(&g, "refused");
	golden_close(&demo);
	golden_close(&g);
}

/* Three budgets write side by side what each writes alone; a stop id ends one of them only. */
static void answers_are_written_together(void)
{
	static const char *const names[] = {"large", "medium", "small"};
	struct golden g;
	struct checkpoint values[3];
	struct answers answers;
	struct error err = {0};
	struct answers_plan plan = {.n_sides = 3,
								.n_prompt = SHORT,
								.max_tokens = 24,
								.params = {.top_p = 1, .forced = -1},
								.kv_dtype = DTYPE_F32};
	const int32_t *greedy[3];
	int stop = 0;

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	for (int i = 0; i < 3; i++) {
		open_values(&values[i], names[i]);
		plan.sides[i] = golden_slice(&g, names[i]);
		greedy[i] = golden_ids(&values[i], "greedy.ids", 24);
	}
	plan.prompt = golden_ids(&values[0], "tokens.7", SHORT);
	golden_must(answers_write(&answers, &plan, &err), &err);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(answers.of[i].n, 24);
		assert_false(answers.of[i].stopped);
		assert_memory_equal(answers.of[i].ids, greedy[i], 24 * sizeof(int32_t));
	}
	int part = 0;
	while (part < 24 && greedy[0][part] == greedy[2][part])
		part++;
	assert_int_equal(answers_part(&answers.of[0], &answers.of[2]), part < 24 ? part : -1);
	assert_int_equal(answers_part(&answers.of[1], &answers.of[1]), -1);
	answers_free(&answers);

	plan.stop_ids = &greedy[1][5];
	plan.n_stop_ids = 1;
	while (greedy[1][stop] != greedy[1][5])
		stop++;
	golden_must(answers_write(&answers, &plan, &err), &err);
	assert_int_equal(answers.of[1].n, stop + 1);
	assert_true(answers.of[1].stopped);
	for (int i = 0; i < 3; i++)
		assert_memory_equal(answers.of[i].ids, greedy[i],
							(size_t)answers.of[i].n * sizeof(int32_t));
	answers_free(&answers);
	plan.max_tokens = 0;
	assert_int_equal(answers_write(&answers, &plan, &err), -1);
	for (int i = 0; i < 3; i++)
		checkpoint_close(&values[i]);
	golden_leave(&g, "answers");
	golden_close(&g);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"predictions_equal_doubles", predictions_equal_doubles},
		{"layers_equal_doubles", layers_equal_doubles},
		{"own_experts_change_nothing", own_experts_change_nothing},
		{"lacking_experts_are_dropped", lacking_experts_are_dropped},
		{"the_lens_equals_doubles", the_lens_equals_doubles},
		{"windows_begin_empty", windows_begin_empty},
		{"answers_are_written_together", answers_are_written_together},
		{"other_vocabularies_are_refused", other_vocabularies_are_refused},
	};
	return golden_main(tests, sizeof tests / sizeof *tests);
}
