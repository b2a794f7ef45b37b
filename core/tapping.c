#include "core/tapping.h"

static void show(const struct pass *p, const struct reader *r, struct tapped tapped)
{
	tapped.layer = p->layer;
	tapped.lane = r->index;
	tapped.first = r->sequence->n_tokens + r->n - tapped.n;
	r->lane->taps->see(r->lane->taps->user, &tapped);
}

/* What w->seen_choices says of a layer. */
static void show_experts(const struct workspace *w, const struct reader *r, int layer)
{
	const struct moe_slice *moe = &r->slice->layers[layer].moe;
	const struct lane *lane = r->lane;
	int n = r->n, top_k = moe->top_k;

	if (routing_given(w, &w->lanes[r->index], lane, layer))
		top_k = routing_top_k(lane->routing, moe);
	const int32_t *chosen = chosen_at(w, w->seen_choices, layer, n);
	for (int k = 0; k < n * top_k; k++)
		w->seen_ids[k] = moe->expert[chosen[k]];
	struct tapped tapped = {.tap = TAP_EXPERTS,
							.layer = layer,
							.lane = r->index,
							.n = n,
							.width = top_k,
							.values = chosen_weights_at(w, w->seen_choices, layer, n),
							.ids = w->seen_ids,
							.first = lane->sequence->n_tokens};
	lane->taps->see(lane->taps->user, &tapped);
}

bool tap_wanted(const struct reader *r, enum tap tap)
{
	return r->lane->taps && (r->lane->taps->wanted & tap);
}

void tap(const struct pass *p, const struct reader *r, enum tap which, const float *values,
		 int rows, int width, int stride)
{
	struct workspace *w = p->workspace;

	if (!tap_wanted(r, which))
		return;
	if (stride == width)
		p->b->download(p->device, w->seen, values, (size_t)rows * (size_t)width * sizeof(float));
	else
		for (int i = 0; i < rows; i++)
			p->b->download(p->device, w->seen + (size_t)i * (size_t)width,
						   values + (size_t)i * (size_t)stride, (size_t)width * sizeof(float));
	show(p, r, (struct tapped){.tap = which, .n = rows, .width = width, .values = w->seen});
}

bool tap_can_wait(const struct taps *taps)
{
	return taps && taps->wanted == TAP_EXPERTS;
}

void tap_experts(const struct pass *p, const struct reader *r)
{
	struct workspace *w = p->workspace;

	if (!tap_wanted(r, TAP_EXPERTS) || tap_can_wait(r->lane->taps))
		return;
	p->b->download(p->device, w->seen_choices, r->a->choices, choices_bytes(w, r->n));
	show_experts(w, r, p->layer);
}

void tap_mixer_start(const struct pass *p, const struct reader *r)
{
	if (tap_wanted(r, TAP_MIXER_OUTPUT))
		p->b->download(p->device, r->a->before, r->a->residual,
					   (size_t)r->n * (size_t)r->slice->hidden * sizeof(float));
}

void tap_mixer_output(const struct pass *p, const struct reader *r)
{
	struct workspace *w = p->workspace;
	size_t n = (size_t)r->n * (size_t)r->slice->hidden;

	if (!tap_wanted(r, TAP_MIXER_OUTPUT))
		return;
	p->b->download(p->device, w->seen, r->a->residual, n * sizeof(float));
	for (size_t i = 0; i < n; i++)
		w->seen[i] -= r->a->before[i];
	show(p, r,
		 (struct tapped){
			 .tap = TAP_MIXER_OUTPUT, .n = r->n, .width = r->slice->hidden, .values = w->seen});
}

void tap_experts_late(const struct pass *p, const struct reader *r)
{
	const struct slice *slice = r->slice;
	struct workspace *w = p->workspace;

	if (!tap_can_wait(r->lane->taps))
		return;
	w->backend->download(w->device, w->seen_choices, r->a->choices, choices_bytes(w, r->n));
	for (int i = 0; i < slice->config->n_layers; i++)
		if (slice->layers[i].kind == LAYER_MOE && slice->layers[i].keep)
			show_experts(w, r, i);
}
