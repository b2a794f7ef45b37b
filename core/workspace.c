#include "core/workspace.h"
#include "base/memory.h"
#include <stdlib.h>

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static struct room room_of(const struct config *config)
{
	int64_t inner = config_inner(config), channels = config_conv_channels(config);
	int64_t q = (int64_t)config->num_attention_heads * config->head_dim;
	int64_t kv = (int64_t)config->num_key_value_heads * config->head_dim;
	struct room room = {
		.hidden = config->hidden_size,
		.projected = larger(inner + channels + config->mamba_num_heads,
							larger(q + 2 * kv, config->n_routed_experts)),
		.channels = channels,
		.mixed = larger(larger(inner, q), larger(config->moe_shared_expert_intermediate_size,
												 config->intermediate_size)),
		.top_k = config->num_experts_per_tok,
		.layers = config->n_layers,
		.activated = (int64_t)config->num_experts_per_tok * config->moe_intermediate_size,
		.vocab = config->vocab_size,
	};
	return room;
}

static void *room_new(struct workspace *w, int64_t rows, int64_t width, struct error *err)
{
	size_t bytes = (size_t)rows * (size_t)larger(width, 1) * sizeof(float);
	void *memory = w->backend->alloc(w->device, bytes, err);
	if (memory)
		w->bytes += bytes;
	return memory;
}

static int activations_open(struct workspace *w, struct activations *a, struct error *err)
{
	int64_t n = w->max_tokens;
	const struct room *room = &w->room;

	a->ids = room_new(w, n, 1, err);
	a->residual = room_new(w, n, room->hidden, err);
	a->normed = room_new(w, n, room->hidden, err);
	a->projected = room_new(w, n, room->projected, err);
	a->convolved = room_new(w, n, room->channels, err);
	a->mixed = room_new(w, n, room->mixed, err);
	a->choices = room_new(w, 2 * n, room->top_k * room->layers, err);
	a->norms = room_new(w, n, room->top_k, err);
	a->activated = room_new(w, n, room->activated, err);
	a->logits = room_new(w, w->all_logits ? n : 1, room->vocab, err);
	a->ask = room_new(w, 1, sizeof *a->ask / sizeof(float), err);
	return a->ids && a->residual && a->normed && a->projected && a->convolved && a->mixed &&
				   a->choices && a->norms && a->activated && a->logits && a->ask
			   ? 0
			   : -1;
}

struct workspace *workspace_open(const struct config *config, const struct backend *backend,
								 struct device *device, int n_lanes, int max_tokens,
								 bool all_logits, struct error *err)
{
	struct workspace *w;

	if (n_lanes < 1 || n_lanes > MAX_LANES || max_tokens < 1) {
		fail(err, "workspace of %d lanes x %d tokens: expected 1 to %d lanes, at least 1 token",
			 n_lanes, max_tokens, MAX_LANES);
		return NULL;
	}
	w = mem_new(1, sizeof *w, err);
	if (!w)
		return NULL;
	w->backend = backend;
	w->device = device;
	w->n_lanes = n_lanes;
	w->max_tokens = max_tokens;
	w->all_logits = all_logits;
	w->room = room_of(config);
	for (int i = 0; i < n_lanes; i++)
		if (activations_open(w, &w->lanes[i], err)) {
			workspace_close(w);
			return NULL;
		}
	return w;
}

void workspace_close(struct workspace *w)
{
	if (!w)
		return;
	for (int i = 0; i < w->n_lanes; i++) {
		struct activations *a = &w->lanes[i];
		void *all[] = {a->ids,     a->residual, a->normed,    a->projected, a->convolved, a->mixed,
					   a->choices, a->norms,    a->activated, a->logits,    a->ask};
		for (size_t k = 0; k < sizeof all / sizeof *all; k++)
			w->backend->release(w->device, all[k]);
		w->backend->release(w->device, a->given);
		free(a->given_rows);
		free(a->is_given);
		free(a->before);
	}
	free(w->seen);
	free(w->seen_choices);
	free(w->seen_ids);
	free(w);
}

void workspace_widen(struct config *config, const struct config *other)
{
	const struct {
		int *mine;
		int theirs;
	} widths[] = {
		{&config->n_layers, other->n_layers},
		{&config->hidden_size, other->hidden_size},
		{&config->vocab_size, other->vocab_size},
		{&config->mamba_num_heads, other->mamba_num_heads},
		{&config->mamba_head_dim, other->mamba_head_dim},
		{&config->ssm_state_size, other->ssm_state_size},
		{&config->n_groups, other->n_groups},
		{&config->num_attention_heads, other->num_attention_heads},
		{&config->num_key_value_heads, other->num_key_value_heads},
		{&config->head_dim, other->head_dim},
		{&config->n_routed_experts, other->n_routed_experts},
		{&config->num_experts_per_tok, other->num_experts_per_tok},
		{&config->moe_intermediate_size, other->moe_intermediate_size},
		{&config->moe_shared_expert_intermediate_size, other->moe_shared_expert_intermediate_size},
		{&config->intermediate_size, other->intermediate_size},
	};

	for (size_t i = 0; i < sizeof widths / sizeof *widths; i++)
		if (widths[i].theirs > *widths[i].mine)
			*widths[i].mine = widths[i].theirs;
}

uint64_t workspace_bytes(const struct workspace *workspace)
{
	return workspace->bytes;
}

int workspace_max_tokens(const struct workspace *workspace)
{
	return workspace->max_tokens;
}

int workspace_open_taps(struct workspace *w, struct error *err)
{
	const struct room *r = &w->room;
	size_t rows = (size_t)w->max_tokens, logit_rows = w->all_logits ? rows : 1;
	size_t widest = (size_t)larger(larger(r->hidden, r->channels), larger(r->mixed, r->activated));
	size_t values = rows * widest, logits = logit_rows * (size_t)r->vocab;

	if (!w->seen_choices)
		w->seen_choices = mem_new(choices_bytes(w, w->max_tokens), 1, err);
	if (!w->seen_ids)
		w->seen_ids = mem_new(rows * (size_t)r->top_k, sizeof *w->seen_ids, err);
	if (!w->seen)
		w->seen = mem_new(values > logits ? values : logits, sizeof *w->seen, err);
	for (int i = 0; i < w->n_lanes; i++) {
		struct activations *a = &w->lanes[i];
		if (!a->before)
			a->before = mem_new(rows * (size_t)r->hidden, sizeof *a->before, err);
		if (!a->before)
			return -1;
	}
	return w->seen && w->seen_choices && w->seen_ids ? 0 : -1;
}

int32_t *chosen_at(const struct workspace *w, void *choices, int layer, int n)
{
	return (int32_t *)choices + (size_t)layer * (size_t)n * (size_t)w->room.top_k;
}

float *chosen_weights_at(const struct workspace *w, void *choices, int layer, int n)
{
	return (float *)choices + (size_t)(w->room.layers + layer) * (size_t)n * (size_t)w->room.top_k;
}

size_t choices_bytes(const struct workspace *w, int n)
{
	return 2 * (size_t)(w->room.layers * w->room.top_k) * (size_t)n * sizeof(int32_t);
}

int workspace_check(const struct workspace *w, const struct slice *slice, struct error *err)
{
	const struct config *config = slice->config;
	struct room need = room_of(config);
	const struct room *room = &w->room;

	if (slice->backend != w->backend || slice->device != w->device)
		return fail(err, "budget %s: its slice was built for another device", slice->budget.name);
	for (int i = 0; i < config->n_layers; i++) {
		const struct moe_slice *moe = &slice->layers[i].moe;
		if (config->kinds[i] != LAYER_MOE || !slice->layers[i].keep)
			continue;
		need.top_k = larger(need.top_k, moe->top_k);
		need.activated = larger(need.activated, (int64_t)moe->top_k * moe->ffn);
	}
	if (need.hidden > room->hidden || need.projected > room->projected ||
		need.channels > room->channels || need.mixed > room->mixed || need.vocab > room->vocab)
		return fail(err, "budget %s: the model is wider than the workspace was opened for",
					slice->budget.name);
	if (need.layers > room->layers)
		return fail(err, "budget %s: %d layers, the workspace has room for %d", slice->budget.name,
					(int)need.layers, (int)room->layers);
	if (need.top_k > room->top_k || need.activated > room->activated)
		return fail(err, "budget %s: %d experts a token, the workspace has room for %d",
					slice->budget.name, (int)need.top_k, (int)room->top_k);
	return 0;
}
