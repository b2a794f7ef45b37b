#include "inspect/outlook.h"
#include "base/memory.h"
#include "core/distribution.h"
#include "core/forward.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_LOGITS (1 << 22) // values in memory at a time

struct run {
	const struct outlook_plan *plan;
	struct outlook *out;
	const struct backend *b;
	struct device *device;
	struct workspace *workspace;
	float *logits; // host (rows, vocab)
	int rows, vocab, done;
};

/* The OUTLOOK_TOP largest logits, by insertion: few rows, and most values fall through. */
static void view_of(struct outlook_view *view, const float *logits, int vocab, int32_t actual)
{
	struct distribution of = distribution_of(logits, vocab);
	int n = 0, rank = 1;
	for (int id = 0; id < vocab; id++) {
		rank += logits[id] > logits[actual] || (logits[id] >= logits[actual] && id < actual);
		if (n == OUTLOOK_TOP && logits[id] <= logits[view->top[n - 1]])
			continue;
		int at = n < OUTLOOK_TOP ? n++ : n - 1;
		for (; at > 0 && logits[id] > logits[view->top[at - 1]]; at--)
			view->top[at] = view->top[at - 1];
		view->top[at] = id;
	}
	for (int i = 0; i < OUTLOOK_TOP; i++) {
		if (i >= n)
			view->top[i] = -1;
		view->p[i] = i < n ? (float)exp((double)logits[view->top[i]] - of.log_sum) : 0;
	}
	view->rank = rank;
	view->p_actual = (float)exp((double)logits[actual] - of.log_sum);
	view->entropy = (float)of.entropy;
}

/* Reads tokens [at, at + n) and looks at what follows each. */
static int read_chunk(struct run *r, struct sequence *sequence, int budget, int at, int n,
					  struct error *err)
{
	const struct outlook_plan *plan = r->plan;
	bool wanted = at + n >= plan->first;
	struct lane lane = {.sequence = sequence,
						.tokens = plan->ids + at,
						.n_tokens = n,
						.logits = wanted ? LOGITS_ALL : LOGITS_NONE};
	if (forward(r->workspace, &lane, 1, NULL, NULL, err))
		return -1;
	size_t vocab = (size_t)r->vocab;
	if (wanted)
		r->b->download(r->device, r->logits, lane.out, (size_t)n * vocab * sizeof(float));
	for (int i = 0; wanted && i < n; i++) {
		int token = at + i + 1;
		if (token < plan->first || token >= plan->n)
			continue;
		struct outlook_view *view =
			&r->out->views[(size_t)budget * (size_t)(plan->n - plan->first) +
						   (size_t)(token - plan->first)];
		view_of(view, r->logits + (size_t)i * vocab, r->vocab, plan->ids[token]);
	}
	r->done += n;
	return 0;
}

static int read_all(struct run *r, const struct slice *slice, int budget, struct error *err)
{
	const struct outlook_plan *plan = r->plan;
	struct sequence sequence = {0};
	int n = plan->n - 1; // nothing follows the last
	int result = sequence_open(&sequence, &plan->model->config, r->b, r->device,
							   plan->device.kv_dtype, n, err);
	if (result == 0)
		result = sequence_use(&sequence, slice, err);
	for (int at = 0; at < n && result == 0; at += r->rows) {
		if (plan->step && plan->step(plan->user, r->done, n * r->out->n_budgets))
			result = fail(err, "stopped");
		else
			result = read_chunk(r, &sequence, budget, at, n - at < r->rows ? n - at : r->rows, err);
	}
	sequence_close(&sequence);
	return result;
}

static int open_run(struct run *r, struct error *err)
{
	const struct outlook_plan *plan = r->plan;
	const struct config *config = &plan->model->config;
	struct device_options options = plan->device;
	options.n_threads = options.n_threads > 0 ? options.n_threads : 1;
	r->b = &backend_cpu;
	r->vocab = config->vocab_size;
	r->rows = CHUNK_LOGITS / r->vocab < PREFILL_CHUNK ? CHUNK_LOGITS / r->vocab : PREFILL_CHUNK;
	r->rows = r->rows < 1 ? 1 : r->rows;
	r->logits = mem_new((size_t)r->rows * (size_t)r->vocab, sizeof *r->logits, err);
	if (!r->logits || !(r->device = r->b->open(&options, err)))
		return -1;
	r->workspace = workspace_open(config, r->b, r->device, 1, r->rows, true, err);
	return r->workspace ? 0 : -1;
}

static int check(const struct outlook_plan *plan, struct error *err)
{
	int vocab = plan->model->config.vocab_size;
	if (plan->first < 1 || plan->first >= plan->n)
		return fail(err, "tokens %d to %d: expected 1 or more, and one at least", plan->first,
					plan->n);
	for (int i = 0; i < plan->n; i++)
		if (plan->ids[i] < 0 || plan->ids[i] >= vocab)
			return fail(err, "token %d is %d: the vocabulary has %d", i, plan->ids[i], vocab);
	return 0;
}

/* What budget number i of the outlook says. */
static int read_budget(struct run *r, int i, struct error *err)
{
	const struct model *model = r->plan->model;
	bool named = i + (r->plan->typed != NULL) < r->out->n_budgets;
	struct budget budget = {0};
	struct slice slice = {0};
	if (model_budget(model, named ? model->elastic.budgets[i].name : r->plan->typed, &budget, err))
		return -1;
	memcpy(r->out->budgets[i], budget.name, strnlen(budget.name, BUDGET_NAME_BYTES - 1));
	int result =
		slice_build(&slice, &model->weights, &model->config, &budget, r->b, r->device, err);
	if (result == 0)
		result = read_all(r, &slice, i, err);
	slice_free(&slice);
	budget_free(&budget);
	return result;
}

int outlook_run(struct outlook *outlook, const struct outlook_plan *plan, struct error *err)
{
	struct run r = {.plan = plan, .out = outlook};
	int n = plan->model->elastic.n_budgets, most = OUTLOOK_BUDGETS - (plan->typed != NULL);
	*outlook = (struct outlook){.first = plan->first, .n = plan->n};
	outlook->n_budgets = (n < most ? n : most) + (plan->typed != NULL);
	int result = check(plan, err);
	if (result == 0) {
		outlook->views = mem_new((size_t)outlook->n_budgets * (size_t)(plan->n - plan->first),
								 sizeof *outlook->views, err);
		result = outlook->views ? open_run(&r, err) : -1;
	}
	for (int i = 0; i < outlook->n_budgets && result == 0; i++)
		result = read_budget(&r, i, err);
	workspace_close(r.workspace);
	if (r.device)
		r.b->close(r.device);
	free(r.logits);
	if (result)
		outlook_free(outlook);
	return result;
}

void outlook_free(struct outlook *outlook)
{
	free(outlook->views);
	*outlook = (struct outlook){0};
}

const struct outlook_view *outlook_at(const struct outlook *outlook, int budget, int token)
{
	if (budget < 0 || budget >= outlook->n_budgets || token < outlook->first || token >= outlook->n)
		return NULL;
	return &outlook->views[(size_t)budget * (size_t)(outlook->n - outlook->first) +
						   (size_t)(token - outlook->first)];
}

/* ---- in the background ---- */

static int run(struct job *job, struct error *err)
{
	struct outlook_job *it = (struct outlook_job *)job;
	it->plan.step = job_plan_step;
	it->plan.user = job;
	return outlook_run(&it->outlook, &it->plan, err);
}

static void job_free(struct job *job)
{
	struct outlook_job *it = (struct outlook_job *)job;
	model_release(it->plan.model);
	free((void *)it->plan.ids);
	outlook_free(&it->outlook);
	free(it);
}

struct outlook_job *outlook_job(const struct outlook_plan *plan, struct error *err)
{
	struct outlook_job *it = mem_new(1, sizeof *it, err);
	int32_t *ids = mem_new((size_t)plan->n, sizeof *ids, err);
	if (!it || !ids) {
		free(it);
		free(ids);
		return NULL;
	}
	memcpy(ids, plan->ids, (size_t)plan->n * sizeof *ids);
	it->plan = *plan;
	it->plan.ids = ids;
	if (plan->typed) {
		memcpy(it->typed, plan->typed, strnlen(plan->typed, sizeof it->typed - 1));
		it->plan.typed = it->typed;
	}
	it->plan.model = model_retain(plan->model);
	it->job = (struct job){.name = "tokens of every budget", .run = run, .free = job_free};
	return it;
}
