#include "inspect/fidelity.h"
#include "base/memory.h"
#include "core/tokenizer.h"
#include "inspect/layerwise.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_LOGITS (1 << 22) // values a side that are in memory at a time

static const char *const metric_keys[N_FIDELITY_METRICS] = {"distance", "leak", "orphan_mass",
															"expert_overlap"};

const char *fidelity_metric_key(enum fidelity_metric metric)
{
	return metric_keys[metric];
}

/* One budget while it reads. */
struct side {
	const struct slice *slice;
	struct sequence sequence, routed; // routed: with another side's experts
	struct capture capture;
	struct layerwise layerwise;
	float *logits;           // host (rows, vocab)
	struct distribution *of; // (rows)
	double *kl;              // (rows): KL(A || this)
	size_t choices, dropped; // of the other side's experts, and those that this one lacks
};

struct run {
	const struct fidelity_plan *plan;
	struct fidelity *out;
	const struct backend *b;
	struct device *device;
	struct workspace *workspace;
	struct side sides[FIDELITY_SIDES];
	int rows;                        // of a chunk
	float *routed;                   // host (rows, vocab)
	struct lens lens[2];             // A's, the side's
	struct distribution *lens_of[2]; // (rows)
};

/* Whether layers of this side are looked at. */
static bool wants_layers(const struct fidelity_plan *plan, int i)
{
	return (plan->layers || plan->lens || plan->route_from >= 0) && !plan->unlike[i];
}

/* Whether this side runs a second time, with another one's experts. */
static bool is_routed(const struct fidelity_plan *plan, int i)
{
	return plan->route_from >= 0 && plan->route_from != i && !plan->unlike[i];
}

/* ---- the plan ---- */

int fidelity_same_shape(const struct config *x, const struct config *y, const char *a,
						const char *q, struct error *err)
{
	if (x->n_layers != y->n_layers || memcmp(x->kinds, y->kinds, (size_t)x->n_layers) != 0)
		return fail(err,
					"layers of %s and %s: %d and %d, or of different kinds; they cannot be "
					"held against each other",
					a, q, x->n_layers, y->n_layers);
	if (x->hidden_size != y->hidden_size || x->n_routed_experts != y->n_routed_experts)
		return fail(err,
					"layers of %s and %s: %d channels and %d experts against %d and %d; they "
					"cannot be held against each other",
					a, q, x->hidden_size, x->n_routed_experts, y->hidden_size, y->n_routed_experts);
	return 0;
}

static int check_plan(const struct fidelity_plan *plan, struct error *err)
{
	const struct slice *base = plan->sides[0];
	int end = plan->end ? plan->end : plan->n;

	if (plan->n_sides < 2 || plan->n_sides > FIDELITY_SIDES)
		return fail(err, "a comparison of %d budgets: expected 2 to %d", plan->n_sides,
					FIDELITY_SIDES);
	if (plan->n < 1 || plan->first < 0 || plan->first >= end || end > plan->n)
		return fail(err, "nothing to compare: positions %d to %d of %d tokens", plan->first, end,
					plan->n);
	if (plan->window < 0 || plan->route_from >= plan->n_sides)
		return fail(err, "windows of %d tokens, experts of budget %d of %d: out of range",
					plan->window, plan->route_from, plan->n_sides);
	for (int i = 1; i < plan->n_sides; i++) {
		const struct slice *q = plan->sides[i];
		if (q->config->vocab_size != base->config->vocab_size)
			return fail(err, "vocabularies differ: %s has %d tokens, %s has %d", base->budget.name,
						base->config->vocab_size, q->budget.name, q->config->vocab_size);
		if (q->backend != base->backend || q->device != base->device)
			return fail(err, "%s and %s: slices on different devices", base->budget.name,
						q->budget.name);
		if (wants_layers(plan, i) &&
			fidelity_same_shape(base->config, q->config, base->budget.name, q->budget.name, err))
			return -1;
	}
	return 0;
}

/* ---- opening and closing ---- */

static int larger_window(const struct fidelity_plan *plan)
{
	return plan->window && plan->window < plan->n ? plan->window : plan->n;
}

static int open_side(struct run *r, int i, struct error *err)
{
	const struct fidelity_plan *plan = r->plan;
	struct side *side = &r->sides[i];
	struct fidelity_side *out = &r->out->sides[i];
	size_t rows = (size_t)r->rows, vocab = (size_t)r->out->vocab, layers;

	side->slice = plan->sides[i];
	layers = (size_t)side->slice->config->n_layers + 1;
	side->logits = mem_new(rows * vocab, sizeof *side->logits, err);
	side->of = mem_new(rows, sizeof *side->of, err);
	side->kl = mem_new(rows, sizeof *side->kl, err);
	out->positions = mem_new((size_t)r->out->n, sizeof *out->positions, err);
	if (!side->logits || !side->of || !side->kl || !out->positions)
		return -1;
	if (capture_open(&side->capture, side->slice, r->rows,
					 (plan->layers || plan->lens) && !plan->unlike[i],
					 (plan->layers && !plan->unlike[i]) || plan->route_from == i, err) ||
		sequence_open(&side->sequence, side->slice->config, r->b, r->device, plan->kv_dtype,
					  larger_window(plan), err))
		return -1;
	if (is_routed(plan, i) && sequence_open(&side->routed, side->slice->config, r->b, r->device,
											plan->kv_dtype, larger_window(plan), err))
		return -1;
	if (!wants_layers(plan, i))
		return 0;
	if ((plan->layers || plan->lens) && !(out->layers = mem_new(layers, sizeof *out->layers, err)))
		return -1;
	return layerwise_open(&side->layerwise, plan->sides[0], side->slice, err);
}

static int open_lens(struct run *r, struct error *err)
{
	int width = 0;

	for (int i = 0; i < r->plan->n_sides; i++)
		width = r->sides[i].slice->hidden > width ? r->sides[i].slice->hidden : width;
	for (int i = 0; i < 2; i++) {
		r->lens_of[i] = mem_new((size_t)r->rows, sizeof *r->lens_of[i], err);
		if (!r->lens_of[i] ||
			lens_open(&r->lens[i], r->b, r->device, r->rows, width, r->out->vocab, err))
			return -1;
	}
	return 0;
}

static int open_run(struct run *r, struct error *err)
{
	const struct fidelity_plan *plan = r->plan;
	struct config widest = *plan->sides[0]->config;
	int rows = CHUNK_LOGITS / widest.vocab_size;

	r->rows = rows < 8 ? 8 : rows > PREFILL_CHUNK ? PREFILL_CHUNK : rows;
	for (int i = 0; i < plan->n_sides; i++) {
		workspace_widen(&widest, plan->sides[i]->config);
		if (open_side(r, i, err))
			return -1;
	}
	r->workspace =
		workspace_open(&widest, r->b, r->device, plan->n_sides, plan->n_sides * r->rows, true, err);
	if (!r->workspace || (plan->lens && open_lens(r, err)))
		return -1;
	if (plan->route_from >= 0)
		r->routed = mem_new((size_t)r->rows * (size_t)r->out->vocab, sizeof *r->routed, err);
	return plan->route_from < 0 || r->routed ? 0 : -1;
}

static void close_run(struct run *r)
{
	for (int i = 0; i < FIDELITY_SIDES; i++) {
		struct side *side = &r->sides[i];
		sequence_close(&side->sequence);
		sequence_close(&side->routed);
		capture_close(&side->capture);
		layerwise_close(&side->layerwise);
		free(side->logits);
		free(side->of);
		free(side->kl);
	}
	for (int i = 0; i < 2; i++) {
		lens_close(&r->lens[i]);
		free(r->lens_of[i]);
	}
	workspace_close(r->workspace);
	free(r->routed);
}

/* ---- a chunk: positions [at, at + n), of which rows [from, to) are compared ---- */

struct chunk {
	int at, n, from, to;
};

static void fetch(const struct run *r, float *to, const float *out, int n)
{
	r->b->download(r->device, to, out, (size_t)n * (size_t)r->out->vocab * sizeof *to);
}

/* All sides read the chunk in one pass; their logits and distributions come to the host. */
static int read_sides(struct run *r, const struct chunk *c, struct error *err)
{
	struct lane lanes[FIDELITY_SIDES];
	bool compared = c->from < c->to;

	for (int i = 0; i < r->plan->n_sides; i++) {
		struct side *side = &r->sides[i];
		capture_begin(&side->capture, c->n);
		lanes[i] = (struct lane){.sequence = &side->sequence,
								 .tokens = r->plan->ids + c->at,
								 .n_tokens = c->n,
								 .logits = compared ? LOGITS_ALL : LOGITS_NONE,
								 .taps = &side->capture.taps};
	}
	if (forward(r->workspace, lanes, r->plan->n_sides, NULL, NULL, err))
		return -1;
	for (int i = 0; i < r->plan->n_sides && compared; i++) {
		struct side *side = &r->sides[i];
		fetch(r, side->logits, lanes[i].out, c->n);
		for (int row = c->from; row < c->to; row++)
			side->of[row] =
				distribution_of(side->logits + (size_t)row * (size_t)r->out->vocab, r->out->vocab);
	}
	return 0;
}

static void keep_positions(struct run *r, const struct chunk *c)
{
	const struct side *base = &r->sides[0];
	size_t vocab = (size_t)r->out->vocab;

	for (int i = 0; i < r->plan->n_sides; i++) {
		struct side *side = &r->sides[i];
		for (int row = c->from; row < c->to; row++) {
			int at = c->at + row;
			const float *logits = side->logits + (size_t)row * vocab;
			struct divergence_position *to = &r->out->sides[i].positions[at - r->out->first];
			side->kl[row] = i ? distribution_kl(base->logits + (size_t)row * vocab, &base->of[row],
												logits, &side->of[row], r->out->vocab)
							  : 0;
			*to = (struct divergence_position){.top = side->of[row].top,
											   .logprob = NAN,
											   .entropy = side->of[row].entropy,
											   .kl = side->kl[row],
											   .routed_kl = NAN};
			if (at + 1 < r->plan->n)
				to->logprob = (double)logits[r->plan->ids[at + 1]] - side->of[row].log_sum;
		}
	}
}

/* How many of the router's choices this side lacks. */
static void count_dropped(struct side *side, const struct capture *from, const struct chunk *c)
{
	size_t n_experts = (size_t)side->slice->config->n_routed_experts;

	for (int layer = 0; layer < from->n_layers; layer++)
		for (int row = c->from; row < c->to; row++) {
			size_t at = ((size_t)layer * (size_t)from->n + (size_t)row) * (size_t)from->top_k;
			if (!side->slice->layers[layer].keep)
				continue;
			for (int k = 0; k < from->top_k; k++) {
				int32_t id = from->ids[at + (size_t)k];
				if (id < 0)
					continue;
				side->choices++;
				side->dropped += !side->layerwise.keeps[(size_t)layer * n_experts + (size_t)id];
			}
		}
}

/* The other sides once more, with the experts that one of them chose. */
static int read_routed(struct run *r, const struct chunk *c, struct error *err)
{
	const struct capture *from = &r->sides[r->plan->route_from].capture;
	struct routing routing = {.ids = from->ids, .top_k = from->top_k};
	struct lane lanes[FIDELITY_SIDES];
	int at[FIDELITY_SIDES], n = 0;
	size_t vocab = (size_t)r->out->vocab;

	for (int i = 0; i < r->plan->n_sides; i++) {
		if (!is_routed(r->plan, i))
			continue;
		at[n] = i;
		lanes[n++] = (struct lane){.sequence = &r->sides[i].routed,
								   .tokens = r->plan->ids + c->at,
								   .n_tokens = c->n,
								   .logits = c->from < c->to ? LOGITS_ALL : LOGITS_NONE,
								   .routing = &routing};
		count_dropped(&r->sides[i], from, c);
	}
	if (forward(r->workspace, lanes, n, NULL, NULL, err))
		return -1;
	for (int k = 0; k < n && c->from < c->to; k++) {
		fetch(r, r->routed, lanes[k].out, c->n);
		for (int row = c->from; row < c->to; row++) {
			const float *q = r->routed + (size_t)row * vocab;
			struct distribution of = distribution_of(q, r->out->vocab);
			r->out->sides[at[k]].positions[c->at + row - r->out->first].routed_kl =
				distribution_kl(r->sides[0].logits + (size_t)row * vocab, &r->sides[0].of[row], q,
								&of, r->out->vocab);
		}
	}
	return 0;
}

static int look(struct run *r, int which, int i, int layer, const struct chunk *c,
				struct error *err)
{
	const struct side *side = &r->sides[i];
	const struct capture *capture = &side->capture;
	size_t row = (size_t)layer * (size_t)capture->rows + (size_t)c->from;
	struct lens *lens = &r->lens[which];
	int n = c->to - c->from;

	if (lens_look(lens, side->slice, capture->hidden + row * (size_t)capture->width,
				  (size_t)capture->width, n, err))
		return -1;
	for (int k = 0; k < n; k++)
		r->lens_of[which][k] =
			distribution_of(lens->logits + (size_t)k * (size_t)r->out->vocab, r->out->vocab);
	return 0;
}

static int look_through_layers(struct run *r, const struct chunk *c, struct error *err)
{
	for (int layer = 0; layer <= r->out->n_layers; layer++)
		for (int i = 0; i < r->plan->n_sides; i++) {
			int which = i > 0;
			const struct side *side = &r->sides[i];
			size_t from = (size_t)c->from;
			if (r->plan->unlike[i])
				continue;
			if (look(r, which, i, layer, c, err))
				return -1;
			struct lens_rows base = {r->lens[0].logits, r->lens_of[0]};
			struct lens_rows lens = {r->lens[which].logits, r->lens_of[which]};
			struct lens_rows final = {side->logits + from * (size_t)r->out->vocab, side->of + from};
			layerwise_add_lens(&r->sides[i].layerwise, layer, &base, &lens, &final, c->to - c->from,
							   r->out->vocab);
		}
	return 0;
}

static int read_chunk(struct run *r, const struct chunk *c, struct error *err)
{
	const struct fidelity_plan *plan = r->plan;

	if (read_sides(r, c, err))
		return -1;
	keep_positions(r, c);
	for (int i = 1; i < plan->n_sides && plan->layers; i++)
		if (!plan->unlike[i])
			layerwise_add(&r->sides[i].layerwise, &r->sides[0].capture, &r->sides[i].capture,
						  c->from, c->to, r->sides[i].kl);
	if (plan->lens && c->from < c->to && look_through_layers(r, c, err))
		return -1;
	return plan->route_from >= 0 ? read_routed(r, c, err) : 0;
}

/* ---- the text ---- */

static int between(int low, int value, int high)
{
	return value < low ? low : value > high ? high : value;
}

/* Every window begins with empty states. */
static int begin_window(struct run *r, struct error *err)
{
	for (int i = 0; i < r->plan->n_sides; i++) {
		struct side *side = &r->sides[i];
		sequence_reset(&side->sequence);
		if (sequence_use(&side->sequence, side->slice, err))
			return -1;
		if (!side->routed.config)
			continue;
		sequence_reset(&side->routed);
		if (sequence_use(&side->routed, side->slice, err))
			return -1;
	}
	return 0;
}

static int read_text(struct run *r, struct error *err)
{
	const struct fidelity_plan *plan = r->plan;
	int first = r->out->first, end = first + r->out->n, window = larger_window(plan);

	for (int at = 0, n; at < end; at += n) {
		int left = window - at % window; // of the window
		if (left == window && begin_window(r, err))
			return -1;
		n = between(1, end - at, r->rows < left ? r->rows : left);
		struct chunk chunk = {at, n, between(0, first - at, n), n};
		if (read_chunk(r, &chunk, err))
			return -1;
		if (plan->step && plan->step(plan->user, at + n, end))
			return fail(err, "stopped after %d of %d tokens", at + n, end);
	}
	return 0;
}

static int routed_result(struct fidelity_side *out, const struct side *side, int n,
						 struct error *err)
{
	double *values = mem_new((size_t)n, sizeof *values, err);

	if (!values)
		return -1;
	for (int i = 0; i < n; i++)
		values[i] = out->positions[i].routed_kl;
	out->routed_kl = statistics_mean(values, (size_t)n);
	free(values);
	if (out->summary.kl.value > 0)
		out->routed_share = 1 - out->routed_kl.value / out->summary.kl.value;
	if (side->choices)
		out->routed_dropped = (double)side->dropped / (double)side->choices;
	return 0;
}

static int results(struct run *r, struct error *err)
{
	struct fidelity *f = r->out;

	for (int i = 0; i < f->n_sides; i++) {
		struct fidelity_side *out = &f->sides[i];
		out->routed_kl = (struct estimate){NAN, NAN};
		out->routed_share = out->routed_dropped = NAN;
		if (divergence_summarise(&out->summary, f->sides[0].positions, out->positions, f->n, err))
			return -1;
		if (out->layers)
			layerwise_result(&r->sides[i].layerwise, out->layers, i == 0);
		if (is_routed(r->plan, i) && routed_result(out, &r->sides[i], f->n, err))
			return -1;
	}
	return 0;
}

int fidelity_run(struct fidelity *fidelity, const struct fidelity_plan *plan, struct error *err)
{
	struct run r = {.plan = plan, .out = fidelity};

	*fidelity = (struct fidelity){0};
	if (check_plan(plan, err))
		return -1;
	r.b = plan->sides[0]->backend;
	r.device = plan->sides[0]->device;
	fidelity->first = plan->first;
	fidelity->n = (plan->end ? plan->end : plan->n) - plan->first;
	fidelity->n_sides = plan->n_sides;
	fidelity->n_layers = plan->sides[0]->config->n_layers;
	fidelity->vocab = plan->sides[0]->config->vocab_size;
	int result = open_run(&r, err) || read_text(&r, err) || results(&r, err) ? -1 : 0;
	close_run(&r);
	if (result)
		fidelity_free(fidelity);
	return result;
}

void fidelity_free(struct fidelity *fidelity)
{
	for (int i = 0; i < FIDELITY_SIDES; i++) {
		free(fidelity->sides[i].positions);
		free(fidelity->sides[i].layers);
	}
	*fidelity = (struct fidelity){0};
}

/* ---- beside a run ---- */

int fidelity_same_vocabulary(const struct model *a, const struct model *b, struct error *err)
{
	int n = a->config.vocab_size;

	if (b->config.vocab_size != n)
		return fail(err, "vocabularies differ: %s has %d tokens, %s has %d", a->directory, n,
					b->directory, b->config.vocab_size);
	for (int i = 0; a->tokenizer && b->tokenizer && i < n; i++) {
		size_t x = 0, y = 0;
		const char *of_a = tokenizer_bytes(a->tokenizer, i, &x);
		const char *of_b = tokenizer_bytes(b->tokenizer, i, &y);
		if (!of_a != !of_b || x != y || (of_a && memcmp(of_a, of_b, x) != 0))
			return fail(err, "vocabularies differ: token %d of %s is '%.*s', of %s '%.*s'", i,
						a->directory, (int)x, of_a ? of_a : "", b->directory, (int)y,
						of_b ? of_b : "");
	}
	return 0;
}

struct ranked {
	double kl;
	int at;
};

static int falling(const void *a, const void *b)
{
	const struct ranked *x = a, *y = b;
	return x->kl != y->kl ? (x->kl < y->kl) - (x->kl > y->kl) : (x->at > y->at) - (x->at < y->at);
}

int fidelity_worst(const struct fidelity *fidelity, int side, int worst, int *out,
				   struct error *err)
{
	struct ranked *all = mem_new((size_t)fidelity->n, sizeof *all, err);

	if (!all)
		return -1;
	for (int i = 0; i < fidelity->n; i++)
		all[i] = (struct ranked){fidelity->sides[side].positions[i].kl, i};
	qsort(all, (size_t)fidelity->n, sizeof *all, falling);
	worst = worst < fidelity->n ? worst : fidelity->n;
	for (int i = 0; i < worst; i++)
		out[i] = all[i].at;
	free(all);
	return worst;
}
