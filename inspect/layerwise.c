#include "inspect/layerwise.h"
#include "base/memory.h"
#include "core/config.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- what a pass leaves ---- */

static int widest_top_k(const struct slice *slice)
{
	int top_k = 1;

	for (int i = 0; i < slice->config->n_layers; i++)
		if (slice->layers[i].keep && slice->layers[i].kind == LAYER_MOE &&
			slice->layers[i].moe.top_k > top_k)
			top_k = slice->layers[i].moe.top_k;
	return top_k;
}

static void see(void *user, const struct tapped *t)
{
	struct capture *c = user;
	size_t width = (size_t)t->width, n = (size_t)t->n, layer = (size_t)t->layer;

	if (t->tap == TAP_RESIDUAL) {
		float *to = c->hidden + layer * (size_t)c->rows * (size_t)c->width;
		for (size_t i = 0; i < n; i++)
			memcpy(to + i * (size_t)c->width, t->values + i * width, width * sizeof *to);
		return;
	}
	size_t to = layer * (size_t)c->n * (size_t)c->top_k;
	for (size_t i = 0; i < n; i++, to += (size_t)c->top_k)
		for (size_t k = 0; k < width; k++) {
			float weight = t->values[i * width + k];
			// too few experts were allowed: one fills the list, with weight 0
			c->ids[to + k] = weight > 0 ? t->ids[i * width + k] : -1;
			c->weights[to + k] = weight;
		}
}

int capture_open(struct capture *c, const struct slice *slice, int rows, bool hidden, bool experts,
				 struct error *err)
{
	size_t layers = (size_t)slice->config->n_layers, values;

	*c = (struct capture){.rows = rows,
						  .n_layers = slice->config->n_layers,
						  .width = slice->hidden,
						  .top_k = widest_top_k(slice),
						  .taps = {.see = see, .user = c}};
	if (hidden) {
		if (!mem_multiply((layers + 1) * (size_t)rows, (size_t)c->width, &values))
			return fail(err, "%d residuals of %zu layers: too many values", rows, layers);
		c->hidden = mem_new(values, sizeof *c->hidden, err);
		if (!c->hidden)
			return -1;
		c->taps.wanted |= TAP_RESIDUAL;
	}
	if (experts) {
		values = layers * (size_t)rows * (size_t)c->top_k;
		c->ids = mem_new(values, sizeof *c->ids, err);
		c->weights = mem_new(values, sizeof *c->weights, err);
		if (!c->ids || !c->weights)
			return -1;
		c->taps.wanted |= TAP_EXPERTS;
	}
	return 0;
}

void capture_close(struct capture *c)
{
	free(c->hidden);
	free(c->ids);
	free(c->weights);
	*c = (struct capture){0};
}

void capture_begin(struct capture *c, int n)
{
	size_t values = (size_t)c->n_layers * (size_t)n * (size_t)c->top_k;

	c->n = n;
	for (size_t i = 0; c->ids && i < values; i++) {
		c->ids[i] = -1;
		c->weights[i] = 0;
	}
}

/* ---- channels and experts of two budgets ---- */

/* Stored hidden channels of a slice, packed order; free(). */
static int *stored_channels(const struct slice *slice, struct error *err)
{
	struct span_list list = {0};
	int *out = mem_new((size_t)slice->hidden, sizeof *out, err), n = 0;

	if (out && budget_spans(&slice->budget, slice->config, AXIS_HIDDEN, 0, &list, err) == 0)
		for (size_t i = 0; i < list.n; i++)
			for (int k = 0; k < list.spans[i].length && n < slice->hidden; k++)
				out[n++] = list.spans[i].start + k;
	free(list.spans);
	if (out && n != slice->hidden) {
		free(out);
		return NULL;
	}
	return out;
}

static int open_channels(struct layerwise *l, struct error *err)
{
	int *a = stored_channels(l->base, err), *q = a ? stored_channels(l->slice, err) : NULL;
	size_t n = (size_t)l->base->hidden;

	if (q && (l->both_base = mem_new(n, sizeof *a, err)) &&
		(l->both = mem_new(n, sizeof *a, err)) && (l->only_base = mem_new(n, sizeof *a, err)))
		for (int i = 0, k = 0; i < l->base->hidden; i++) {
			while (k < l->slice->hidden && q[k] < a[i])
				k++;
			if (k < l->slice->hidden && q[k] == a[i]) {
				l->both_base[l->n_both] = i;
				l->both[l->n_both++] = k;
			} else {
				l->only_base[l->n_only++] = i;
			}
		}
	free(a);
	free(q);
	return l->only_base ? 0 : -1;
}

static int open_experts(struct layerwise *l, struct error *err)
{
	const struct config *config = l->slice->config;
	size_t n = (size_t)config->n_routed_experts;

	l->keeps = mem_new((size_t)config->n_layers * n, 1, err);
	if (!l->keeps)
		return -1;
	for (int i = 0; i < config->n_layers; i++) {
		const struct layer_slice *layer = &l->slice->layers[i];
		if (!layer->keep || layer->kind != LAYER_MOE)
			continue;
		for (int e = 0; e < layer->moe.n_experts; e++)
			l->keeps[(size_t)i * n + (size_t)layer->moe.expert[e]] = 1;
	}
	return 0;
}

int layerwise_open(struct layerwise *l, const struct slice *base, const struct slice *slice,
				   struct error *err)
{
	size_t layers = (size_t)slice->config->n_layers + 1;

	*l = (struct layerwise){.base = base, .slice = slice};
	l->metrics = mem_new(layers * N_FIDELITY_METRICS, sizeof *l->metrics, err);
	l->lens = mem_new(layers, sizeof *l->lens, err);
	return l->metrics && l->lens && !open_channels(l, err) ? open_experts(l, err) : -1;
}

void layerwise_close(struct layerwise *l)
{
	free(l->both_base);
	free(l->both);
	free(l->only_base);
	free(l->keeps);
	free(l->metrics);
	free(l->lens);
	*l = (struct layerwise){0};
}

/* ---- metrics ---- */

static double square(double x)
{
	return x * x;
}

static void add(struct layerwise *l, int layer, enum fidelity_metric metric, double value,
				double kl)
{
	comoment_add(&l->metrics[layer * N_FIDELITY_METRICS + (int)metric], value, kl);
}

static void add_residual(struct layerwise *l, int layer, const float *a, const float *q, double kl)
{
	double shared = 0, apart = 0, outside = 0;

	for (int i = 0; i < l->n_both; i++) {
		double x = (double)a[l->both_base[i]];
		shared += x * x;
		apart += square(x - (double)q[l->both[i]]);
	}
	for (int i = 0; i < l->n_only; i++)
		outside += square((double)a[l->only_base[i]]);
	if (shared > 0)
		add(l, layer, FIDELITY_DISTANCE, sqrt(apart / shared), kl);
	if (shared + outside > 0)
		add(l, layer, FIDELITY_LEAK, outside / (shared + outside), kl);
}

static void add_experts(struct layerwise *l, int layer, const struct capture *base,
						const struct capture *side, int row, double kl)
{
	size_t rows = (size_t)layer * (size_t)base->n + (size_t)row;
	const int32_t *a = base->ids + rows * (size_t)base->top_k;
	const int32_t *q = side->ids + rows * (size_t)side->top_k;
	const float *weights = base->weights + rows * (size_t)base->top_k;
	const uint8_t *keeps = l->keeps + (size_t)layer * (size_t)l->slice->config->n_routed_experts;
	double sum = 0, orphans = 0;
	int n = 0, common = 0;

	for (int i = 0; i < base->top_k; i++) {
		if (a[i] < 0)
			continue;
		n++;
		sum += (double)weights[i];
		orphans += keeps[a[i]] ? 0 : (double)weights[i];
		for (int k = 0; k < side->top_k; k++)
			common += q[k] == a[i];
	}
	if (!n) // A leaves the layer out
		return;
	add(l, layer, FIDELITY_ORPHAN_MASS, orphans / sum, kl);
	add(l, layer, FIDELITY_OVERLAP, (double)common / n, kl);
}

void layerwise_add(struct layerwise *l, const struct capture *base, const struct capture *side,
				   int from, int to, const double *kl)
{
	const struct config *config = l->slice->config;

	for (int layer = 0; layer <= config->n_layers; layer++)
		for (int row = from; row < to; row++) {
			size_t at = (size_t)layer * (size_t)base->rows + (size_t)row;
			add_residual(l, layer, base->hidden + at * (size_t)base->width,
						 side->hidden + at * (size_t)side->width, kl[row]);
			if (layer < config->n_layers && config->kinds[layer] == LAYER_MOE)
				add_experts(l, layer, base, side, row, kl[row]);
		}
}

void layerwise_add_lens(struct layerwise *l, int layer, const struct lens_rows *base,
						const struct lens_rows *lens, const struct lens_rows *final, int n,
						int vocab)
{
	struct lens_sums *s = &l->lens[layer];

	for (int i = 0; i < n; i++) {
		size_t at = (size_t)i * (size_t)vocab;
		s->top += lens->of[i].top == final->of[i].top;
		s->kl += distribution_kl(final->logits + at, &final->of[i], lens->logits + at, &lens->of[i],
								 vocab);
		s->same += lens->of[i].top == base->of[i].top;
		s->apart += distribution_kl(base->logits + at, &base->of[i], lens->logits + at,
									&lens->of[i], vocab);
	}
	if (layer == 0)
		l->n_lens += (size_t)n;
}

void layerwise_result(const struct layerwise *l, struct fidelity_layer *layers, bool is_base)
{
	double n = (double)l->n_lens;

	for (int i = 0; i <= l->slice->config->n_layers; i++) {
		struct fidelity_layer *to = &layers[i];
		for (int m = 0; m < N_FIDELITY_METRICS; m++) {
			const struct comoment *c = &l->metrics[i * N_FIDELITY_METRICS + m];
			to->mean[m] = c->n ? c->mean_x : NAN;
			to->correlation[m] = comoment_correlation(c);
		}
		to->lens_top = n > 0 ? l->lens[i].top / n : NAN;
		to->lens_kl = n > 0 ? l->lens[i].kl / n : NAN;
		to->apart_same = n > 0 && !is_base ? l->lens[i].same / n : NAN;
		to->apart_kl = n > 0 && !is_base ? l->lens[i].apart / n : NAN;
	}
}
