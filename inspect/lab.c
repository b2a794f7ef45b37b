#include "inspect/lab.h"
#include "base/clock.h"
#include "base/memory.h"
#include "core/distribution.h"
#include "core/prefill.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Everything a run needs; closed by bench_close() however far it came. */
struct bench {
	const struct lab_plan *plan;
	struct lab *lab;
	const struct config *config;
	struct device *device;
	struct slice from, to;
	struct workspace *workspace;
	struct sequence reference, source, candidate;
	int32_t *ids;               // (at + horizon): what is read
	float *logits, *row;        // (horizon, vocab) of the reference; (PREFILL_CHUNK, vocab)
	struct distribution *exact; // (horizon): of the reference
	int done, total;            // tokens, for progress
};

/* Where reading stands; `logits` takes a row a token, NULL = only the state is wanted. */
static int read_tokens(struct bench *b, struct sequence *sequence, int end, float *logits,
					   struct error *err)
{
	size_t vocab = (size_t)b->config->vocab_size;
	while (sequence->n_tokens < end) {
		int at = sequence->n_tokens, n = end - at < PREFILL_CHUNK ? end - at : PREFILL_CHUNK;
		struct lane lane = {.sequence = sequence,
							.tokens = b->ids + at,
							.n_tokens = n,
							.logits = logits ? LOGITS_ALL : LOGITS_NONE};
		if (forward(b->workspace, &lane, 1, NULL, NULL, err))
			return -1;
		if (logits) {
			backend_cpu.download(b->device, logits, lane.out, (size_t)n * vocab * sizeof *logits);
			logits += (size_t)n * vocab;
		}
		b->done += n;
		if (b->plan->step && b->plan->step(b->plan->user, b->done, b->total))
			return fail(err, "stopped after %d of %d tokens", b->done, b->total);
	}
	return 0;
}

/* ---- similarity ---- */

struct cosine {
	double dot, aa, bb;
};

static void add_row(struct cosine *sum, const float *a, const float *b, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		sum->dot += (double)a[i] * (double)b[i];
		sum->aa += (double)a[i] * (double)a[i];
		sum->bb += (double)b[i] * (double)b[i];
	}
}

static double similarity(const struct cosine *sum)
{
	return sum->aa > 0 && sum->bb > 0 ? sum->dot / sqrt(sum->aa * sum->bb) : NAN;
}

/* Two stretches of state, on the host; free both. */
static int fetch(struct bench *b, const void *state[2], size_t n, float *host[2], struct error *err)
{
	host[0] = host[1] = NULL;
	for (int i = 0; i < 2; i++) {
		host[i] = mem_new(n, sizeof **host, err);
		if (!host[i]) {
			free(host[0]);
			return -1;
		}
		backend_cpu.download(b->device, host[i], state[i], n * sizeof **host);
	}
	return 0;
}

static int compare_mamba(struct bench *b, int layer, struct lab_layer *out, struct error *err)
{
	const struct config *config = b->config;
	const struct mamba_slice *slice = &b->to.layers[layer].mamba;
	const struct layer_state *x = &b->candidate.layers[layer], *y = &b->reference.layers[layer];
	size_t channels = (size_t)config_conv_channels(config), rows = (size_t)config->conv_kernel - 1;
	size_t width = (size_t)config->ssm_state_size, inner = (size_t)config_inner(config);
	struct cosine conv = {0}, ssm = {0};
	float *host[2];
	int32_t *kept = mem_new((size_t)slice->channels, sizeof *kept, err);
	if (!kept)
		return -1;
	backend_cpu.download(b->device, kept, slice->channel, (size_t)slice->channels * sizeof *kept);
	int failed = fetch(b, (const void *[]){x->conv, y->conv}, rows * channels, host, err);
	for (size_t r = 0; !failed && r < rows; r++)
		for (int i = 0; i < slice->channels; i++) {
			size_t at = r * channels + (size_t)kept[i];
			add_row(&conv, host[0] + at, host[1] + at, 1);
		}
	if (!failed) {
		free(host[0]);
		free(host[1]);
		failed = fetch(b, (const void *[]){x->ssm, y->ssm}, inner * width, host, err);
	}
	for (int i = 0; !failed && i < slice->inner; i++) {
		size_t at = (size_t)kept[i] * width;
		add_row(&ssm, host[0] + at, host[1] + at, width);
	}
	if (!failed) {
		free(host[0]);
		free(host[1]);
		out->conv = similarity(&conv);
		out->ssm = similarity(&ssm);
	}
	free(kept);
	return failed;
}

static int compare_attention(struct bench *b, int layer, struct lab_layer *out, struct error *err)
{
	const struct layer_state *x = &b->candidate.layers[layer], *y = &b->reference.layers[layer];
	size_t n =
		(size_t)y->rows * (size_t)b->config->num_key_value_heads * (size_t)b->config->head_dim;
	if (x->rows != y->rows || n == 0) // a layer that `from` leaves out
		return 0;
	for (int v = 0; v < 2; v++) {
		struct cosine sum = {0};
		float *host[2];
		if (fetch(b, v ? (const void *[]){x->v, y->v} : (const void *[]){x->k, y->k}, n, host, err))
			return -1;
		add_row(&sum, host[0], host[1], n);
		*(v ? &out->v : &out->k) = similarity(&sum);
		free(host[0]);
		free(host[1]);
	}
	return 0;
}

static double mean_of(const struct lab *lab, size_t offset)
{
	double sum = 0;
	int n = 0;
	for (int i = 0; i < lab->n_layers; i++) {
		double value = *(const double *)((const char *)&lab->layers[i] + offset);
		if (isnan(value))
			continue;
		sum += value;
		n++;
	}
	return n ? sum / n : NAN;
}

/* The carried state in `candidate` against the reference's, both behind `at` tokens. */
static int compare_states(struct bench *b, struct error *err)
{
	struct lab *lab = b->lab;
	for (int i = 0; i < lab->n_layers; i++) {
		struct lab_layer *layer = &lab->layers[i];
		*layer = (struct lab_layer){b->config->kinds[i], NAN, NAN, NAN, NAN};
		if (!b->to.layers[i].keep)
			continue;
		if ((layer->kind == LAYER_MAMBA && compare_mamba(b, i, layer, err)) ||
			(layer->kind == LAYER_ATTENTION && compare_attention(b, i, layer, err)))
			return -1;
	}
	lab->conv = mean_of(lab, offsetof(struct lab_layer, conv));
	lab->ssm = mean_of(lab, offsetof(struct lab_layer, ssm));
	lab->k = mean_of(lab, offsetof(struct lab_layer, k));
	lab->v = mean_of(lab, offsetof(struct lab_layer, v));
	return 0;
}

/* ---- the reference ---- */

static bool is_stop(const struct config *config, int32_t id)
{
	for (int i = 0; i < config->n_stop_ids; i++)
		if (config->stop_ids[i] == id)
			return true;
	return false;
}

/* `to` reads the prompt (timed), then the continuation, which it writes itself where none is given;
 * a stop id that it writes ends the horizon. */
static int run_reference(struct bench *b, struct error *err)
{
	struct lab *lab = b->lab;
	int at = lab->at, given = b->plan->n - at, vocab = b->config->vocab_size;
	struct sequence *writer = &b->candidate;
	float *last = b->row;
	// twice: the first pass faults pages in, which is not what a switch costs
	if (sequence_use(&b->reference, &b->to, err) ||
		read_tokens(b, &b->reference, at - 1, NULL, err) ||
		read_tokens(b, &b->reference, at, last, err))
		return -1;
	sequence_reset(&b->reference);
	uint64_t began = clock_ns();
	if (sequence_use(&b->reference, &b->to, err) || read_tokens(b, &b->reference, at, NULL, err))
		return -1;
	lab->reprefill_ms = (double)(clock_ns() - began) / 1e6;
	given = given < lab->horizon ? given : lab->horizon;
	if (sequence_fork(writer, &b->reference, err) ||
		read_tokens(b, writer, at + given, b->logits, err))
		return -1;
	for (int i = given; i < lab->horizon; i++) {
		if (i > 0)
			last = b->logits + (size_t)(i - 1) * (size_t)vocab;
		b->ids[at + i] = distribution_of(last, vocab).top;
		if (read_tokens(b, writer, at + i + 1, b->logits + (size_t)i * (size_t)vocab, err))
			return -1;
		if (is_stop(b->config, b->ids[at + i]))
			lab->horizon = i + 1;
	}
	for (int i = 0; i < lab->horizon; i++)
		b->exact[i] = distribution_of(b->logits + (size_t)i * (size_t)vocab, vocab);
	memcpy(lab->ids, b->ids + at, (size_t)lab->horizon * sizeof *lab->ids);
	return 0;
}

/* ---- candidates ---- */

/* One row of the candidate against the reference's. */
static void compare_row(struct bench *b, int i, const float *logits, struct lab_repair *out,
						bool carry)
{
	struct lab *lab = b->lab;
	int vocab = b->config->vocab_size;
	const float *exact = b->logits + (size_t)i * (size_t)vocab;
	struct distribution found = distribution_of(logits, vocab);
	double kl = distribution_kl(exact, &b->exact[i], logits, &found, vocab);
	out->kl_mean += kl; // a sum, until the last row
	out->kl_max = kl > out->kl_max ? kl : out->kl_max;
	out->top1 += found.top == b->exact[i].top; // a count
	if (!carry)
		return;
	lab->kl[i] = kl;
	lab->p[i] = lab->p_carry[i] = NAN;
	if (i + 1 == lab->horizon)
		return;
	lab->p[i] = exp((double)exact[lab->ids[i + 1]] - b->exact[i].log_sum);
	lab->p_carry[i] = exp((double)logits[lab->ids[i + 1]] - found.log_sum);
}

/* Switches `repair` tokens before `at`, and follows the continuation from there. */
static int run_candidate(struct bench *b, int repair, struct lab_repair *out, struct error *err)
{
	struct lab *lab = b->lab;
	int at = lab->at, from = repair < at ? at - repair : 0;
	size_t vocab = (size_t)b->config->vocab_size;
	*out = (struct lab_repair){.n = repair, .replayed = at - from};
	if (read_tokens(b, &b->source, from, NULL, err) ||
		sequence_fork(&b->candidate, &b->source, err))
		return -1;
	uint64_t began = clock_ns();
	if (sequence_use(&b->candidate, &b->to, err) || read_tokens(b, &b->candidate, at, NULL, err))
		return -1;
	out->ms = (double)(clock_ns() - began) / 1e6;
	if (repair == 0 && compare_states(b, err))
		return -1;
	for (int i = 0; i < lab->horizon;) {
		int n = lab->horizon - i < PREFILL_CHUNK ? lab->horizon - i : PREFILL_CHUNK;
		if (read_tokens(b, &b->candidate, at + i + n, b->row, err))
			return -1;
		for (int k = 0; k < n; k++)
			compare_row(b, i + k, b->row + (size_t)k * vocab, out, repair == 0);
		i += n;
	}
	out->kl_mean /= lab->horizon;
	out->top1 /= lab->horizon;
	return 0;
}

/* From the longest repair to the shortest, so that `from` reads the tokens once; carry is last. */
static int run_candidates(struct bench *b, struct error *err)
{
	struct lab *lab = b->lab;
	struct lab_repair carry;
	if (sequence_use(&b->source, &b->from, err))
		return -1;
	for (int i = lab->n_repairs - 1; i >= 0 && lab->repairs[i].n > 0; i--)
		if (run_candidate(b, lab->repairs[i].n, &lab->repairs[i], err))
			return -1;
	if (run_candidate(b, 0, &carry, err))
		return -1;
	if (lab->n_repairs > 0 && lab->repairs[0].n == 0)
		lab->repairs[0] = carry;
	lab->kl_mean = carry.kl_mean;
	lab->kl_max = carry.kl_max;
	lab->top1 = carry.top1;
	lab->carry_ms = carry.ms;
	return 0;
}

/* ---- the whole ---- */

static int choose_repairs(struct lab *lab, const struct lab_plan *plan, struct error *err)
{
	if (!plan->repairs) {
		for (int n = 0; n < lab->at && lab->n_repairs < LAB_MAX_REPAIRS; n = n ? 2 * n : 1)
			lab->repairs[lab->n_repairs++].n = n;
		return 0;
	}
	if (plan->n_repairs < 0 || plan->n_repairs > LAB_MAX_REPAIRS)
		return fail(err, "%d repairs: expected at most %d", plan->n_repairs, LAB_MAX_REPAIRS);
	for (int i = 0; i < plan->n_repairs; i++) {
		if (plan->repairs[i] < 0 || (i > 0 && plan->repairs[i] <= plan->repairs[i - 1]))
			return fail(err, "repair of %d tokens: expected ascending numbers from 0",
						plan->repairs[i]);
		lab->repairs[lab->n_repairs++].n = plan->repairs[i];
	}
	return 0;
}

/* Sizes and names; what the result holds. */
static int lab_open(struct lab *lab, const struct lab_plan *plan, struct error *err)
{
	size_t horizon = (size_t)(plan->horizon > 0 ? plan->horizon : LAB_HORIZON);
	if (plan->at < 1 || plan->at > plan->n)
		return fail(err, "a switch before position %d: expected 1 to %d", plan->at, plan->n);
	if (horizon > 65536)
		return fail(err, "a horizon of %zu tokens: expected at most 65536", horizon);
	lab->at = lab->reprefill_tokens = plan->at;
	lab->horizon = (int)horizon;
	lab->n_layers = plan->model->config.n_layers;
	lab->ids = mem_new(horizon, sizeof *lab->ids, err);
	lab->kl = mem_new(horizon, sizeof *lab->kl, err);
	lab->p = mem_new(horizon, sizeof *lab->p, err);
	lab->p_carry = mem_new(horizon, sizeof *lab->p_carry, err);
	lab->layers = mem_new((size_t)lab->n_layers, sizeof *lab->layers, err);
	if (!lab->ids || !lab->kl || !lab->p || !lab->p_carry || !lab->layers)
		return -1;
	return choose_repairs(lab, plan, err);
}

static int open_slice(struct bench *b, struct slice *slice, const char *name,
					  char out[BUDGET_NAME_BYTES], struct error *err)
{
	struct budget budget = {0};
	if (model_budget(b->plan->model, name, &budget, err))
		return -1;
	snprintf(out, BUDGET_NAME_BYTES, "%s", budget.name);
	int failed = slice_build(slice, &b->plan->model->weights, b->config, &budget, &backend_cpu,
							 b->device, err);
	budget_free(&budget);
	return failed;
}

static int bench_open(struct bench *b, struct error *err)
{
	struct device_options options = b->plan->device;
	struct sequence *sequences[] = {&b->reference, &b->source, &b->candidate};
	struct lab *lab = b->lab;
	size_t vocab = (size_t)b->config->vocab_size, horizon = (size_t)lab->horizon;
	int capacity = lab->at + lab->horizon;
	size_t given = (size_t)(b->plan->n < capacity ? b->plan->n : capacity);
	options.n_threads = options.n_threads > 0 ? options.n_threads : 1;
	options.kv_dtype = DTYPE_F32;
	if (!(b->device = backend_cpu.open(&options, err)) ||
		open_slice(b, &b->from, b->plan->from, lab->from, err) ||
		open_slice(b, &b->to, b->plan->to, lab->to, err) ||
		!(b->workspace =
			  workspace_open(b->config, &backend_cpu, b->device, 1, PREFILL_CHUNK, true, err)))
		return -1;
	for (int i = 0; i < 3; i++)
		if (sequence_open(sequences[i], b->config, &backend_cpu, b->device, DTYPE_F32, capacity,
						  err))
			return -1;
	b->ids = mem_new((size_t)capacity, sizeof *b->ids, err);
	b->logits = mem_new(horizon * vocab, sizeof *b->logits, err);
	b->row = mem_new(PREFILL_CHUNK * vocab, sizeof *b->row, err);
	b->exact = mem_new(horizon, sizeof *b->exact, err);
	if (!b->ids || !b->logits || !b->row || !b->exact)
		return -1;
	memcpy(b->ids, b->plan->ids, given * sizeof *b->ids);
	b->total = 3 * lab->at + 2 * lab->horizon; // reference, twice, and carry
	for (int i = 0; i < lab->n_repairs; i++)
		if (lab->repairs[i].n > 0)
			b->total += lab->horizon + (lab->repairs[i].n < lab->at ? lab->repairs[i].n : lab->at);
	return 0;
}

static void bench_close(struct bench *b)
{
	sequence_close(&b->reference);
	sequence_close(&b->source);
	sequence_close(&b->candidate);
	workspace_close(b->workspace);
	slice_free(&b->from);
	slice_free(&b->to);
	free(b->ids);
	free(b->logits);
	free(b->row);
	free(b->exact);
	if (b->device)
		backend_cpu.close(b->device);
}

int lab_run(struct lab *lab, const struct lab_plan *plan, struct error *err)
{
	struct bench b = {.plan = plan, .lab = lab, .config = &plan->model->config};
	*lab = (struct lab){0};
	int failed = lab_open(lab, plan, err) || bench_open(&b, err) || run_reference(&b, err) ||
				 run_candidates(&b, err);
	bench_close(&b);
	if (failed)
		lab_free(lab);
	return failed ? -1 : 0;
}

void lab_free(struct lab *lab)
{
	free(lab->ids);
	free(lab->kl);
	free(lab->p);
	free(lab->p_carry);
	free(lab->layers);
	*lab = (struct lab){0};
}

/* ---- in the background ---- */

static int run_job(struct job *job, struct error *err)
{
	struct lab_job *lab = (struct lab_job *)job;
	lab->plan.step = job_plan_step;
	lab->plan.user = job;
	return lab_run(&lab->lab, &lab->plan, err);
}

static void free_job(struct job *job)
{
	struct lab_job *lab = (struct lab_job *)job;
	lab_free(&lab->lab);
	model_release(lab->plan.model);
	free((int32_t *)lab->plan.ids);
	free((int *)lab->plan.repairs);
	free((char *)lab->plan.from);
	free((char *)lab->plan.to);
	free(lab);
}

struct lab_job *lab_job(const struct lab_plan *plan, struct error *err)
{
	struct lab_job *lab = mem_new(1, sizeof *lab, err);
	if (!lab)
		return NULL;
	lab->job = (struct job){.name = "handoff lab", .run = run_job, .free = free_job};
	lab->plan = *plan;
	lab->plan.model = model_retain(plan->model);
	lab->plan.from = mem_string(plan->from, strlen(plan->from), err);
	lab->plan.to = mem_string(plan->to, strlen(plan->to), err);
	int32_t *ids = mem_new((size_t)(plan->n > 0 ? plan->n : 0), sizeof *ids, err);
	int n_repairs = plan->repairs && plan->n_repairs > 0 ? plan->n_repairs : 0;
	int *repairs = plan->repairs ? mem_new((size_t)n_repairs, sizeof *repairs, err) : NULL;
	lab->plan.ids = ids;
	lab->plan.repairs = repairs;
	if (!lab->plan.from || !lab->plan.to || !ids || (plan->repairs && !repairs)) {
		free_job(&lab->job);
		return NULL;
	}
	if (plan->n > 0)
		memcpy(ids, plan->ids, (size_t)plan->n * sizeof *ids);
	if (n_repairs > 0)
		memcpy(repairs, plan->repairs, (size_t)n_repairs * sizeof *repairs);
	return lab;
}
