/*
 * bench --batch: how many tokens a second a budget writes when many sequences are decoded together.
 * A smaller budget leaves more room beside its weights, so more sequences fit, and each of its
 * steps is shorter: the paper's 36, 108 and 224 sequences.
 */
#include "cli/bench.h"

#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include "core/footprint.h"
#include "core/pack.h"
#include "core/prefill.h"
#include "core/stage.h"
#include "inspect/statistics.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BATCH_PROMPT 32 // tokens, each sequence's own
#define BATCH_WARM 4    // steps that are not counted: a card records its pass meanwhile
#define BATCH_STEPS 12  // of a run
#define BATCH_RUNS 5
#define BATCH_TOKENS (BATCH_PROMPT + BATCH_WARM + BATCH_STEPS * BATCH_RUNS)

/* Sequences of one budget that write side by side. */
struct crowd {
	struct bench *bench;
	const struct slice *slice;
	int n, context;
	struct workspace *workspace;
	struct sequence *sequences; // (n), as the next three
	struct lane *lanes;
	struct pick_params *params;
	struct picked *picked;
};

/* ---- what fits ---- */

/* Memory for weights, states and work, before any of them is there; 0 = not known. Whether it is a
 * card's, on which a budget then is alone: */
static bool room(const struct bench *bench, uint64_t *bytes)
{
	uint64_t total;
	if (bench->backend->room(bench->device, bytes, &total))
		return true;
	*bytes = mem_available_bytes();
	return false;
}

/* Sequences that have room beside a budget's weights, as `info --fit` counts them. */
static int sequences_beside(const struct bench *bench, uint64_t weights, int context,
							uint64_t bytes)
{
	struct footprint_plan plan = {.context = context,
								  .kv_dtype = bench->options.kv_dtype,
								  .n_slices = 1,
								  .n_tokens = bench->backend->chunk(bench->device),
								  .math = bench->options.math,
								  .scratch_bytes = bench->backend->scratch_bytes};
	return weights > bytes ? 0 : footprint_sequences(&bench->model->config, &plan, bytes - weights);
}

struct count {
	int fit, run;
};

/* How many of each budget fit and are run; -1: more are wanted than fit. */
static int count_sequences(const struct bench *bench, int context, struct count counts[MAX_BUDGETS],
						   struct error *err)
{
	const struct model *model = bench->model;
	uint64_t bytes;
	bool alone = room(bench, &bytes);
	for (int i = 0; i < model->elastic.n_budgets; i++) {
		const struct budget *budget = &model->elastic.budgets[i];
		struct slice plan;
		char a[32], b[32];
		if (slice_build(&plan, &model->weights, &model->config, budget, NULL, NULL, err) < 0)
			return -1;
		uint64_t weights = alone ? pack_bytes(&plan) : plan.cost.bytes;
		int fit = bytes ? sequences_beside(bench, weights, context, bytes) : MAX_LANES;
		slice_free(&plan);
		int64_t wanted = strcmp(bench->cli->batch, "fit") ? strtoll(bench->cli->batch, NULL, 10)
														  : (fit < MAX_LANES ? fit : MAX_LANES);
		if (wanted > fit || fit == 0)
			return fail(err,
						"--batch %s: %d sequences of %d tokens have room beside the weights of "
						"budget %s (%s of %s); --ctx makes them shorter",
						bench->cli->batch, fit, context, budget->name, size_text(weights, a),
						size_text(bytes, b));
		counts[i] = (struct count){fit, (int)wanted};
	}
	return 0;
}

/* ---- decoding ---- */

static void crowd_close(struct crowd *c)
{
	for (int i = 0; c->sequences && i < c->n; i++)
		sequence_close(&c->sequences[i]);
	workspace_close(c->workspace);
	free(c->sequences);
	free(c->lanes);
	free(c->params);
	free(c->picked);
}

static int crowd_open(struct crowd *c, struct error *err)
{
	const struct bench *bench = c->bench;
	const struct config *config = &bench->model->config;
	size_t n = (size_t)c->n;
	int chunk = bench->backend->chunk(bench->device);
	if (!(c->sequences = mem_new(n, sizeof *c->sequences, err)) ||
		!(c->lanes = mem_new(n, sizeof *c->lanes, err)) ||
		!(c->params = mem_new(n, sizeof *c->params, err)) ||
		!(c->picked = mem_new(n, sizeof *c->picked, err)))
		return -1;
	c->workspace = workspace_open(config, bench->backend, bench->device, c->n,
								  chunk > c->n ? chunk : c->n, false, err);
	if (!c->workspace)
		return -1;
	for (int i = 0; i < c->n; i++)
		if (sequence_open(&c->sequences[i], config, bench->backend, bench->device,
						  bench->options.kv_dtype, c->context, err) < 0)
			return fail_in(err, "sequence %d of %d", i + 1, c->n);
	return 0;
}

/* Each reads a prompt of its own; any ids will do, the same in every run. */
static int crowd_read(struct crowd *c, struct error *err)
{
	unsigned vocab = (unsigned)c->bench->model->config.vocab_size;
	for (int i = 0; i < c->n; i++) {
		struct prefill prefill = {.workspace = c->workspace};
		int32_t ids[BATCH_PROMPT];
		for (int t = 0; t < BATCH_PROMPT; t++)
			ids[t] = (int32_t)(((unsigned)t * 7919u + (unsigned)i * 104729u + 13u) % vocab);
		c->params[i] = (struct pick_params){.top_p = 1, .forced = -1};
		c->lanes[i] = (struct lane){.sequence = &c->sequences[i],
									.tokens = &c->picked[i].id,
									.n_tokens = 1,
									.logits = LOGITS_LAST};
		if (sequence_use(&c->sequences[i], c->slice, err) < 0 ||
			prefill_extend(&prefill, &c->sequences[i], ids, BATCH_PROMPT, &c->params[i],
						   &c->picked[i], err) < 0)
			return -1;
	}
	return 0;
}

static int crowd_write(struct crowd *c, int n_steps, struct error *err)
{
	for (int i = 0; i < n_steps; i++)
		if (forward(c->workspace, c->lanes, c->n, c->params, c->picked, err) < 0)
			return -1;
	return 0;
}

static int crowd_measure(struct crowd *c, double *tps, struct error *err)
{
	double runs[BATCH_RUNS];
	if (crowd_open(c, err) < 0 || crowd_read(c, err) < 0 || crowd_write(c, BATCH_WARM, err) < 0)
		return -1;
	for (int run = 0; run < BATCH_RUNS; run++) {
		uint64_t from = clock_ns();
		if (crowd_write(c, BATCH_STEPS, err) < 0)
			return -1;
		runs[run] = (double)c->n * BATCH_STEPS / ((double)(clock_ns() - from) / 1e9);
	}
	statistics_sort(runs, BATCH_RUNS);
	*tps = statistics_percentile(runs, BATCH_RUNS, 0.5);
	return 0;
}

/* A card gets the budget's own weights and nothing else. */
static int open_budget(const struct bench *bench, const struct budget *budget, struct pack *pack,
					   struct slice *slice, struct error *err)
{
	const struct model *model = bench->model;
	struct upload upload = {.backend = bench->backend, .device = bench->device};
	uint64_t bytes;
	if (!room(bench, &bytes))
		return slice_build(slice, &model->weights, &model->config, budget, bench->backend,
						   bench->device, err);
	struct slice plan;
	if (slice_build(&plan, &model->weights, &model->config, budget, NULL, NULL, err) < 0 ||
		pack_open(pack, &plan, &upload, err) < 0)
		return -1;
	return slice_build_packed(slice, pack, budget, err);
}

static int measure_budget(struct bench *bench, int index, int context, int n, double *tps,
						  struct error *err)
{
	struct slice slice = {0};
	struct pack pack = {0};
	struct crowd crowd = {.bench = bench, .slice = &slice, .n = n, .context = context};
	int result = open_budget(bench, &bench->model->elastic.budgets[index], &pack, &slice, err);
	if (result == 0)
		result = crowd_measure(&crowd, tps, err);
	crowd_close(&crowd);
	slice_free(&slice);
	pack_close(&pack);
	return result;
}

/* ratio: to the first budget at its own number. */
static void print_count(const struct bench *bench, const char *name, const struct count *count,
						double tps, double ratio)
{
	if (!bench->cli->csv) {
		printf("%-14s %10d %10d %12.1f %12.1f %8.2f\n", name, count->fit, count->run, tps,
			   tps / count->run, ratio);
		fflush(stdout);
		return;
	}
	const struct bench_row rows[] = {
		{.name = "batch fits", .value = count->fit, .unit = "sequences"},
		{.name = "batch sequences", .value = count->run, .unit = "sequences"},
		{.name = "batch", .value = tps, .unit = "tok/s"},
		{.name = "batch each", .value = tps / count->run, .unit = "tok/s"},
		{.name = "batch ratio", .value = ratio, .unit = "x"},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct bench_row row = rows[i];
		row.what = name;
		bench_print(bench, &row);
	}
}

int bench_batch(struct bench *bench, struct error *err)
{
	const struct elastic *elastic = &bench->model->elastic;
	const struct config *config = &bench->model->config;
	struct count counts[MAX_BUDGETS];
	int context = (int)bench->cli->context;
	double first = 0;
	if (context == 0)
		context = config->max_position_embeddings < STAGE_MAX_CONTEXT
					  ? config->max_position_embeddings
					  : STAGE_MAX_CONTEXT;
	if (context < BATCH_TOKENS)
		return fail(err, "--batch reads and writes %d tokens a sequence, the context has %d",
					BATCH_TOKENS, context);
	if (count_sequences(bench, context, counts, err) < 0)
		return -1;
	if (!bench->cli->csv)
		printf("%-14s %10s %10s %12s %12s %8s   (context %d)\n", "budget", "fit", "together",
			   "tok/s", "each", "x", context);
	for (int i = 0; i < elastic->n_budgets; i++) {
		const char *name = elastic->budgets[i].name;
		double tps = 0;
		if (measure_budget(bench, i, context, counts[i].run, &tps, err) < 0)
			return fail_in(err, "budget %s", name);
		first = i ? first : tps;
		print_count(bench, name, &counts[i], tps, tps / first);
	}
	return 0;
}
