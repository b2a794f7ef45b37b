#include "core/reading.h"
#include "base/memory.h"
#include "core/distribution.h"
#include "core/finite.h"
#include "core/lens.h"
#include "core/prefill.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

int32_t logits_top(const float *logits, int vocab, float *logprob)
{
	struct distribution d = distribution_of(logits, vocab);

	*logprob = (float)((double)logits[d.top] - d.log_sum);
	return d.top;
}

double logits_kl(const float *p, const float *q, int vocab)
{
	struct distribution of_p = distribution_of(p, vocab), of_q = distribution_of(q, vocab);

	return distribution_kl(p, &of_p, q, &of_q, vocab);
}

/* ---- what is kept ---- */

void reading_free(struct reading *reading)
{
	free(reading->logits);
	free(reading->hidden);
	free(reading->expert_ids);
	free(reading->expert_weights);
	free(reading->lens_ids);
	free(reading->lens_logprobs);
	*reading = (struct reading){0};
}

/* (layers, n, width) values of 4 bytes. */
static void *values_new(const struct reading *r, int layers, int width, struct error *err)
{
	size_t rows, values;

	if (!mem_multiply((size_t)layers, (size_t)r->n, &rows) ||
		!mem_multiply(rows, (size_t)width, &values)) {
		fail(err, "%d positions of %d layers: too many values", r->n, layers);
		return NULL;
	}
	return mem_new(values, sizeof(float), err);
}

/* Experts a token on a slice's widest MoE layer. */
static int slice_top_k(const struct slice *slice)
{
	int top_k = 1;

	for (int i = 0; i < slice->config->n_layers; i++)
		if (slice->config->kinds[i] == LAYER_MOE && slice->layers[i].keep &&
			slice->layers[i].moe.top_k > top_k)
			top_k = slice->layers[i].moe.top_k;
	return top_k;
}

static int reading_open(struct reading *r, const struct reading_plan *plan, struct error *err)
{
	const struct config *config = plan->slice->config;
	int layers = config->n_layers;

	*r = (struct reading){.n = plan->n, .vocab = config->vocab_size, .n_layers = layers};
	r->width = plan->slice->hidden;
	r->top_k = slice_top_k(plan->slice);
	for (int i = 0; i < plan->n_switches; i++) {
		const struct slice *slice = plan->switches[i].slice;
		r->width = slice->hidden > r->width ? slice->hidden : r->width;
		r->top_k = slice_top_k(slice) > r->top_k ? slice_top_k(slice) : r->top_k;
	}
	if (!(r->logits = values_new(r, 1, r->vocab, err)))
		return -1;
	if ((plan->hidden || plan->lens) && !(r->hidden = values_new(r, layers + 1, r->width, err)))
		return -1;
	if (plan->experts && (!(r->expert_ids = values_new(r, layers, r->top_k, err)) ||
						  !(r->expert_weights = values_new(r, layers, r->top_k, err))))
		return -1;
	if (plan->lens && (!(r->lens_ids = values_new(r, layers + 1, 1, err)) ||
					   !(r->lens_logprobs = values_new(r, layers + 1, 1, err))))
		return -1;
	for (size_t i = 0; plan->experts && i < (size_t)layers * (size_t)r->n * (size_t)r->top_k; i++)
		r->expert_ids[i] = -1;
	return 0;
}

static size_t row_of(const struct reading *r, int layer, int position)
{
	return (size_t)layer * (size_t)r->n + (size_t)position;
}

static void keep(void *user, const struct tapped *t)
{
	struct reading *r = user;
	size_t width = (size_t)t->width;

	for (int i = 0; i < t->n; i++) {
		size_t row = row_of(r, t->layer, t->first + i);
		const float *values = t->values + (size_t)i * width;
		if (t->tap == TAP_RESIDUAL) {
			memcpy(r->hidden + row * (size_t)r->width, values, width * sizeof *values);
		} else {
			row *= (size_t)r->top_k;
			memcpy(r->expert_ids + row, t->ids + (size_t)i * width, width * sizeof *t->ids);
			memcpy(r->expert_weights + row, values, width * sizeof *values);
		}
	}
}

/* ---- the lens ---- */

/* Everything that is open while a reading runs. */
struct reader {
	const struct reading_plan *plan;
	struct reading *reading;
	const struct backend *b;
	struct device *device;
	struct workspace *workspace;
	struct sequence sequence;
	struct taps taps;
	struct lens lens;
};

/* Residuals before `layer` at positions [at, at + n). */
static int look(struct reader *r, const struct slice *slice, int layer, int at, int n,
				struct error *err)
{
	struct reading *reading = r->reading;
	const float *residual = reading->hidden + row_of(reading, layer, at) * (size_t)reading->width;

	if (lens_look(&r->lens, slice, residual, (size_t)reading->width, n, err))
		return -1;
	for (int i = 0; i < n; i++) {
		size_t row = row_of(reading, layer, at + i);
		reading->lens_ids[row] = logits_top(r->lens.logits + (size_t)i * (size_t)reading->vocab,
											reading->vocab, &reading->lens_logprobs[row]);
	}
	return 0;
}

/* ---- the run ---- */

static int read_chunk(struct reader *r, int at, int n, struct error *err)
{
	const struct slice *slice = sequence_slice(&r->sequence);
	size_t vocab = (size_t)r->reading->vocab;
	struct lane lane = {.sequence = &r->sequence,
						.tokens = r->plan->ids + at,
						.n_tokens = n,
						.logits = LOGITS_ALL,
						.taps = &r->taps};

	if (forward(r->workspace, &lane, 1, NULL, NULL, err))
		return -1;
	r->b->download(r->device, r->reading->logits + (size_t)at * vocab, lane.out,
				   (size_t)n * vocab * sizeof(float));
	const float *last = r->reading->logits + (size_t)(at + n - 1) * vocab;
	if (isnan(last[0])) {
		fail(err, "the logits at position %d are NaN", at + n - 1);
		return finite_explain(slice->weights->checkpoint, err);
	}
	for (int layer = 0; r->plan->lens && layer <= r->reading->n_layers; layer++)
		if (look(r, slice, layer, at, n, err))
			return -1;
	return 0;
}

static int read_all(struct reader *r, struct error *err)
{
	const struct reading_plan *plan = r->plan;
	struct prefill prefill = {.workspace = r->workspace};
	int next = 0;

	for (int at = 0, end; at < plan->n; at = end) {
		for (; next < plan->n_switches && plan->switches[next].at == at; next++) {
			prefill.handoff = plan->switches[next].handoff;
			if (prefill_switch(&prefill, &r->sequence, plan->switches[next].slice, err))
				return -1;
		}
		end = next < plan->n_switches ? plan->switches[next].at : plan->n;
		end = end - at < PREFILL_CHUNK ? end : at + PREFILL_CHUNK;
		if (read_chunk(r, at, end - at, err))
			return -1;
		if (plan->step && plan->step(plan->user, end, plan->n))
			return fail(err, "stopped after %d of %d tokens", end, plan->n);
	}
	return 0;
}

static int check_plan(const struct reading_plan *plan, struct error *err)
{
	if (plan->n < 1)
		return fail(err, "nothing to read");
	for (int i = 0; i < plan->n_switches; i++) {
		int at = plan->switches[i].at;
		if (at < 0 || at >= plan->n)
			return fail(err, "a switch before position %d: expected 0 to %d", at, plan->n - 1);
		if (i && at < plan->switches[i - 1].at)
			return fail(err, "switches before positions %d and %d: expected ascending ones",
						plan->switches[i - 1].at, at);
	}
	return 0;
}

static int reader_run(struct reader *r, struct error *err)
{
	const struct reading_plan *plan = r->plan;
	const struct config *config = plan->slice->config;

	if (reading_open(r->reading, plan, err))
		return -1;
	r->workspace = workspace_open(config, r->b, r->device, 1, PREFILL_CHUNK, true, err);
	if (!r->workspace ||
		(plan->lens && lens_open(&r->lens, r->b, r->device, PREFILL_CHUNK, r->reading->width,
								 config->vocab_size, err)) ||
		sequence_open(&r->sequence, config, r->b, r->device, plan->kv_dtype, plan->n, err) ||
		sequence_use(&r->sequence, plan->slice, err))
		return -1;
	return read_all(r, err);
}

int reading_run(struct reading *reading, const struct reading_plan *plan, struct error *err)
{
	struct reader r = {.plan = plan,
					   .reading = reading,
					   .b = plan->slice->backend,
					   .device = plan->slice->device,
					   .taps = {.see = keep, .user = reading}};
	int result;

	*reading = (struct reading){0};
	if (check_plan(plan, err))
		return -1;
	r.taps.wanted = (plan->hidden || plan->lens ? (unsigned)TAP_RESIDUAL : 0u) |
					(plan->experts ? (unsigned)TAP_EXPERTS : 0u);
	result = reader_run(&r, err);
	sequence_close(&r.sequence);
	workspace_close(r.workspace);
	lens_close(&r.lens);
	if (result)
		reading_free(reading);
	return result;
}
