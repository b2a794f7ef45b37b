#include "core/workspace.h"
#include "base/memory.h"
#include "core/pass.h"
#include <stdlib.h>
#include <string.h>

static int64_t larger(int64_t a, int64_t b)
{
	return a > b ? a : b;
}

static int64_t round_up(int64_t width)
{
	return (width + 3) / 4 * 4;
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

/* What a pass is told that differs from token to token: asks of its lanes, then ids. */
static int64_t sent_bytes(const struct workspace *w)
{
	return w->n_lanes * (int64_t)sizeof(struct pick_ask) + w->max_tokens * (int64_t)sizeof(int32_t);
}

/* The pool's parts, T = max_tokens: where each lies, its rows and values a row. */
enum { N_PARTS = 10 };

struct part {
	void **at;
	int64_t rows, width;
};

static void parts_of(struct workspace *w, struct part parts[N_PARTS])
{
	int64_t n = w->max_tokens, lanes = w->n_lanes;
	const struct room *r = &w->room;
	struct activations *a = &w->pool;
	const struct part all[N_PARTS] = {
		{(void **)&a->residual, n, r->hidden},
		{(void **)&a->normed, n, r->hidden},
		{(void **)&a->projected, n, r->projected},
		{(void **)&a->convolved, n, r->channels},
		{(void **)&a->mixed, n, r->mixed},
		{&a->choices, n, 2 * r->top_k * r->layers},
		{(void **)&a->norms, n, r->top_k},
		{(void **)&a->activated, n, r->activated},
		{(void **)&a->logits, w->all_logits ? n : lanes, r->vocab},
		{(void **)&a->ask, 1, sent_bytes(w) / (int64_t)sizeof(float)},
	};
	memcpy(parts, all, sizeof all);
}

/* Rows of the pool begin where loads of 16 bytes may, so that a lane's results do not depend on the
 * lanes before it. */
static size_t part_bytes(const struct part *part)
{
	return (size_t)part->rows * (size_t)round_up(larger(part->width, 1)) * sizeof(float);
}

static int pool_open(struct workspace *w, struct error *err)
{
	struct part parts[N_PARTS];
	parts_of(w, parts);
	for (int i = 0; i < N_PARTS; i++) {
		size_t bytes = part_bytes(&parts[i]);
		if (!(*parts[i].at = w->backend->alloc(w->device, bytes, err)))
			return -1;
		w->bytes += bytes;
	}
	return 0;
}

uint64_t workspace_bytes_of(const struct config *config, int n_lanes, int max_tokens,
							bool all_logits)
{
	struct workspace w = {.n_lanes = n_lanes,
						  .max_tokens = max_tokens,
						  .all_logits = all_logits,
						  .room = room_of(config)};
	struct part parts[N_PARTS];
	uint64_t bytes = 0;
	parts_of(&w, parts);
	for (int i = 0; i < N_PARTS; i++)
		bytes += part_bytes(&parts[i]);
	return bytes;
}

struct workspace *workspace_open(const struct config *config, const struct backend *backend,
								 struct device *device, int n_lanes, int max_tokens,
								 bool all_logits, struct error *err)
{
	struct workspace *w;

	if (n_lanes < 1 || n_lanes > MAX_LANES || max_tokens < n_lanes) {
		fail(err, "workspace of %d lanes and %d tokens: expected 1 to %d lanes, a token for each",
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
	w->lanes = mem_new((size_t)n_lanes, sizeof *w->lanes, err);
	w->sent = mem_new((size_t)sent_bytes(w), 1, err);
	if (!w->lanes || !w->sent || !(w->pass = pass_open(w, err)) || pool_open(w, err)) {
		workspace_close(w);
		return NULL;
	}
	return w;
}

void workspace_close(struct workspace *w)
{
	if (!w)
		return;
	struct part parts[N_PARTS];
	parts_of(w, parts);
	for (int i = 0; i < N_PARTS; i++)
		w->backend->release(w->device, *parts[i].at);
	for (int i = 0; i < w->n_lanes && w->lanes; i++) {
		w->backend->release(w->device, w->lanes[i].given);
		free(w->lanes[i].given_rows);
		free(w->lanes[i].is_given);
	}
	free(w->lanes);
	free(w->sent);
	pass_close(w->pass);
	free(w->pool.before);
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

int workspace_chunk(const struct workspace *workspace)
{
	int chunk = workspace->backend->chunk(workspace->device);
	return chunk < workspace->max_tokens ? chunk : workspace->max_tokens;
}

static void *rows_at(void *part, int64_t row, int64_t width)
{
	return (float *)part + row * round_up(larger(width, 1));
}

void workspace_rows(const struct workspace *w, int row, int lane, int n_lanes,
					struct activations *a)
{
	const struct room *r = &w->room;
	const struct activations *p = &w->pool;
	a->ids = (int32_t *)(p->ask + n_lanes) + row;
	a->residual = rows_at(p->residual, row, r->hidden);
	a->normed = rows_at(p->normed, row, r->hidden);
	a->projected = rows_at(p->projected, row, r->projected);
	a->convolved = rows_at(p->convolved, row, r->channels);
	a->mixed = rows_at(p->mixed, row, r->mixed);
	a->choices = rows_at(p->choices, row, 2 * r->top_k * r->layers);
	a->norms = rows_at(p->norms, row, r->top_k);
	a->activated = rows_at(p->activated, row, r->activated);
	a->logits = rows_at(p->logits, w->all_logits ? row : lane, r->vocab);
	a->ask = NULL;
	a->before = p->before ? p->before + row * r->hidden : NULL;
}

int lane_logits(const struct lane *lane)
{
	return lane->logits == LOGITS_ALL ? lane->n_tokens : lane->logits == LOGITS_LAST;
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
	if (!w->pool.before)
		w->pool.before = mem_new(rows * (size_t)r->hidden, sizeof *w->pool.before, err);
	return w->seen && w->seen_choices && w->seen_ids && w->pool.before ? 0 : -1;
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

	if (!slice->backend)
		return fail(err, "budget %s is not on the device: another one is there alone",
					slice->budget.name);
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
