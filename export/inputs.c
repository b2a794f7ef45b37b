#include "export/inputs.h"

#include "base/memory.h"
#include "core/forward.h"
#include "inspect/modules.h"
#include "kernels/quantise.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define TAPS                                                                                       \
	(TAP_MIXER_INPUT | TAP_EXPERTS | TAP_EXPERT_FFN | TAP_FFN | TAP_MAMBA_OUT | TAP_ATTENTION_OUT)

/* Largest magnitudes of a layer's inputs. */
struct layer_inputs {
	float mixer, ffn, out;          // in_proj, up_proj, q k v; down_proj; out_proj, o_proj
	float *expert_up, *expert_down; // (n_routed_experts)
};

struct measuring {
	const struct inputs_plan *plan;
	const struct model *model;
	struct layer_inputs *layers;
	float *experts;            // backing store
	float rows[PREFILL_CHUNK]; // of the running layer's normed input
	int32_t *chosen;           // (PREFILL_CHUNK, top_k) of the running layer
	int top_k;
	struct device *device;
	struct workspace *workspace;
	struct sequence sequence;
	int window;
	uint64_t done, total;
	struct error *err;
};

/* ---- taps ---- */

static float largest(const float *x, int64_t n)
{
	float amax = 0;
	for (int64_t i = 0; i < n; i++)
		amax = fabsf(x[i]) > amax ? fabsf(x[i]) : amax;
	return amax;
}

static void raise_to(float *amax, float value)
{
	if (value > *amax)
		*amax = value;
}

static void see_experts(struct measuring *m, struct layer_inputs *layer, const struct tapped *t)
{
	m->top_k = t->width;
	memcpy(m->chosen, t->ids, (size_t)t->n * (size_t)t->width * sizeof *m->chosen);
	for (int i = 0; i < t->n * t->width; i++)
		raise_to(&layer->expert_up[t->ids[i]], m->rows[i / t->width]);
}

static void see_expert_ffn(struct measuring *m, struct layer_inputs *layer, const struct tapped *t)
{
	int ffn = t->width / m->top_k;
	for (int i = 0; i < t->n * m->top_k; i++)
		raise_to(&layer->expert_down[m->chosen[i]], largest(t->values + (int64_t)i * ffn, ffn));
}

static void see(void *user, const struct tapped *t)
{
	struct measuring *m = user;
	struct layer_inputs *layer = &m->layers[t->layer];
	int64_t n = (int64_t)t->n * t->width;
	switch (t->tap) {
	case TAP_MIXER_INPUT:
		for (int i = 0; i < t->n; i++) {
			m->rows[i] = largest(t->values + (int64_t)i * t->width, t->width);
			raise_to(&layer->mixer, m->rows[i]);
		}
		break;
	case TAP_EXPERTS: see_experts(m, layer, t); break;
	case TAP_EXPERT_FFN: see_expert_ffn(m, layer, t); break;
	case TAP_FFN: raise_to(&layer->ffn, largest(t->values, n)); break;
	case TAP_MAMBA_OUT:
	case TAP_ATTENTION_OUT: raise_to(&layer->out, largest(t->values, n)); break;
	default: break;
	}
}

/* ---- reading ---- */

static int read_window(struct measuring *m, const struct slice *slice, const int32_t *ids, int n)
{
	struct taps taps = {.wanted = TAPS, .see = see, .user = m};
	sequence_reset(&m->sequence);
	if (sequence_use(&m->sequence, slice, m->err) != 0)
		return -1;
	for (int at = 0; at < n; at += PREFILL_CHUNK) {
		int chunk = n - at < PREFILL_CHUNK ? n - at : PREFILL_CHUNK;
		struct lane lane = {.sequence = &m->sequence,
							.tokens = ids + at,
							.n_tokens = chunk,
							.logits = LOGITS_NONE,
							.taps = &taps};
		if (forward(m->workspace, &lane, 1, NULL, NULL, m->err) != 0)
			return -1;
		m->done += (uint64_t)chunk;
		if (m->plan->step && m->plan->step(m->plan->user, m->done, m->total) != 0)
			return fail(m->err, "stopped, nothing was written");
	}
	return 0;
}

static int read_budget(struct measuring *m, const struct budget *budget)
{
	struct slice slice;
	if (slice_build(&slice, &m->model->weights, &m->model->config, budget, &backend_cpu, m->device,
					m->err) != 0)
		return -1;
	int result = 0;
	for (size_t t = 0; t < m->plan->texts->n; t++) {
		const struct calibrate_text *text = &m->plan->texts->items[t];
		for (int at = 0; at < text->n && result == 0; at += m->window)
			result = read_window(m, &slice, text->ids + at,
								 text->n - at < m->window ? text->n - at : m->window);
	}
	sequence_reset(&m->sequence);
	slice_free(&slice);
	return result;
}

static int open_measuring(struct measuring *m)
{
	const struct config *c = &m->model->config;
	size_t experts = (size_t)c->n_routed_experts, n_layers = (size_t)c->n_layers;
	m->layers = mem_new(n_layers, sizeof *m->layers, m->err);
	m->experts = m->layers ? mem_new(n_layers * experts * 2, sizeof *m->experts, m->err) : NULL;
	m->chosen = m->experts ? mem_new((size_t)PREFILL_CHUNK * (experts ? experts : 1),
									 sizeof *m->chosen, m->err)
						   : NULL;
	if (!m->chosen)
		return -1;
	for (size_t i = 0; i < n_layers; i++) {
		m->layers[i].expert_up = m->experts + i * experts * 2;
		m->layers[i].expert_down = m->layers[i].expert_up + experts;
	}
	m->window = m->plan->window > 0 ? m->plan->window : CALIBRATE_WINDOW;
	if (c->max_position_embeddings > 0 && m->window > c->max_position_embeddings)
		m->window = c->max_position_embeddings;
	for (size_t t = 0; t < m->plan->texts->n; t++)
		m->total += (uint64_t)m->plan->texts->items[t].n * (uint64_t)m->model->elastic.n_budgets;
	m->device = backend_cpu.open(&m->plan->device, m->err);
	if (!m->device)
		return -1;
	m->workspace = workspace_open(c, &backend_cpu, m->device, 1, PREFILL_CHUNK, false, m->err);
	return m->workspace ? sequence_open(&m->sequence, c, &backend_cpu, m->device,
										m->plan->device.kv_dtype, m->window, m->err)
						: -1;
}

static void close_measuring(struct measuring *m)
{
	sequence_close(&m->sequence);
	workspace_close(m->workspace);
	backend_cpu.close(m->device);
	free(m->layers);
	free(m->experts);
	free(m->chosen);
}

/* ---- scales ---- */

struct assigning {
	struct quantisation *q;
	const struct measuring *m;
	const struct cuts *cuts;
	size_t n_unseen;
};

static float of_expert(struct assigning *a, const float *experts, int expert)
{
	if (experts[expert] > 0)
		return experts[expert];
	a->n_unseen++;
	return largest(experts, a->q->model->config.n_routed_experts);
}

static float amax_of(struct assigning *a, const struct module *module)
{
	const struct layer_inputs *layer = &a->m->layers[module->layer];
	switch (module->kind) {
	case MODULE_UP: return of_expert(a, layer->expert_up, module->expert);
	case MODULE_DOWN: return of_expert(a, layer->expert_down, module->expert);
	case MODULE_OUT_PROJ:
	case MODULE_O: return layer->out;
	case MODULE_SHARED_DOWN:
	case MODULE_MLP_DOWN: return layer->ffn;
	default: return layer->mixer;
	}
}

static void assign(void *user, const struct module *module)
{
	struct assigning *a = user;
	const struct checkpoint *checkpoint = &a->q->model->checkpoint;
	for (size_t i = 0; i < a->cuts->n && module->layer >= 0; i++) {
		const struct cut *cut = &a->cuts->list[i];
		size_t at = (size_t)(cut->from - checkpoint->tensors);
		if (cut->matrix != module->matrix || a->q->scale[at] == 0)
			continue;
		float amax = amax_of(a, module);
		a->q->input_scale[at] = amax > 0 ? quantise_scale(a->q->format, amax) : 0;
	}
}

static int assign_all(struct quantisation *q, const struct measuring *m, size_t *n_unseen,
					  struct error *err)
{
	struct budget parent = {0};
	struct cuts cuts;
	if (budget_init(&parent, &q->model->config, "parent", err) != 0)
		return -1;
	int result = cuts_plan(&cuts, q->model, &parent, err);
	if (result == 0) {
		struct assigning a = {.q = q, .m = m, .cuts = &cuts};
		modules_each(&cuts.slice, assign, &a);
		*n_unseen = a.n_unseen;
		cuts_free(&cuts);
	}
	budget_free(&parent);
	return result;
}

int inputs_measure(struct quantisation *quantisation, const struct inputs_plan *plan,
				   size_t *n_unseen, struct error *err)
{
	const struct model *model = quantisation->model;
	struct measuring m = {.plan = plan, .model = model, .err = err};
	int result = open_measuring(&m);
	for (int i = 0; i < model->elastic.n_budgets && result == 0; i++)
		result = read_budget(&m, &model->elastic.budgets[i]);
	if (result == 0)
		result = assign_all(quantisation, &m, n_unseen, err);
	close_measuring(&m);
	return result;
}
