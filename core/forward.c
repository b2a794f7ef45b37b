/*
 *     h = embeddings[token]
 *     h = h + Mixer_i(RMSNorm(h))      for every layer i
 *     logits = lm_head RMSNorm(h)
 *
 * Each mixer fills the arguments of its operations for all lanes, then calls them one after the
 * other with the equation beside the call. Lanes whose slice drops a layer are not in that layer's
 * arrays.
 */
#include "core/forward.h"
#include "base/hash.h"
#include "core/finite.h"
#include "core/pass.h"
#include "core/tapping.h"
#include <math.h>

/* ---- mixers ---- */

static struct linear_op times(const struct matrix *w, const float *x, float *y, int n,
							  enum linear_mode mode)
{
	return (struct linear_op){.w = w, .x = x, .y = y, .n = n, .mode = mode};
}

/* Spec nemotron-h.md 4. normed -> residual. */
static void mamba_layer(struct pass *p)
{
	struct linear_op in[MAX_LANES], out[MAX_LANES];
	struct conv_op conv[MAX_LANES];
	struct ssm_op ssm[MAX_LANES];
	struct gated_norm_op norm[MAX_LANES];
	const struct config *config = p->config;

	for (int k = 0; k < p->n; k++) {
		const struct reader *r = p->at[k];
		const struct mamba_slice *m = &r->slice->layers[p->layer].mamba;
		struct layer_state *state = &r->sequence->layers[p->layer];
		int stride = m->in_proj.n_rows; // z | x | B | C | dt
		float *z = r->a->projected, *xbc = z + m->inner, *dt = xbc + m->channels;
		in[k] = times(&m->in_proj, r->a->normed, z, r->n, LINEAR_SET);
		conv[k] = (struct conv_op){.x = xbc,
								   .x_stride = stride,
								   .weight = m->conv_weight,
								   .bias = m->conv_bias,
								   .y = r->a->convolved,
								   .state = state->conv,
								   .channel = m->channel,
								   .n = r->n,
								   .channels = m->channels,
								   .state_channels = config_conv_channels(config),
								   .kernel = config->conv_kernel};
		ssm[k] = (struct ssm_op){.xbc = r->a->convolved,
								 .dt = dt,
								 .dt_stride = stride,
								 .a = m->a,
								 .d = m->d,
								 .dt_bias = m->dt_bias,
								 .head_group = m->head_group,
								 .state_row = m->channel,
								 .state = state->ssm,
								 .y = r->a->mixed,
								 .n = r->n,
								 .n_heads = m->n_heads,
								 .head_dim = m->head_dim,
								 .n_groups = config->n_groups,
								 .state_size = config->ssm_state_size};
		norm[k] = (struct gated_norm_op){.y = r->a->mixed,
										 .z = z,
										 .z_stride = stride,
										 .weight = m->norm,
										 .group_start = m->group_start,
										 .count = m->norm_count,
										 .n = r->n,
										 .width = m->inner,
										 .n_groups = config->n_groups,
										 .eps = config->norm_eps,
										 .scale = m->norm_scale};
		out[k] = times(&m->out_proj, r->a->mixed, r->a->residual, r->n, LINEAR_ADD);
	}
	p->b->linear(p->device, p->n, in); // z | xBC | dt = in_proj u
	for (int k = 0; k < p->n; k++)
		tap(p, p->at[k], TAP_MAMBA_PROJECTED, conv[k].x, conv[k].n, norm[k].width,
			(int)conv[k].x_stride);
	p->b->conv(p->device, p->n, conv); // x | B | C = silu(conv1d(xBC) + bias)
	for (int k = 0; k < p->n; k++)
		tap(p, p->at[k], TAP_MAMBA_X, conv[k].y, conv[k].n, norm[k].width, conv[k].channels);
	p->b->ssm(p->device, p->n, ssm);         // S = exp(d a) S + d x B^T;  y = S C + D x
	p->b->gated_norm(p->device, p->n, norm); // o = RMSNorm_groups(y silu(z))
	for (int k = 0; k < p->n; k++)
		tap(p, p->at[k], TAP_MAMBA_OUT, norm[k].y, norm[k].n, norm[k].width, norm[k].width);
	p->b->linear(p->device, p->n, out); // h += out_proj o
}

/* Spec nemotron-h.md 5.1: grouped queries, causal, no positions. normed -> residual. */
static void attention_layer(struct pass *p)
{
	struct linear_op q[MAX_LANES], k[MAX_LANES], v[MAX_LANES], out[MAX_LANES];
	struct attention_op attend[MAX_LANES];
	const struct config *config = p->config;
	int kv_width = config->num_key_value_heads * config->head_dim;

	for (int i = 0; i < p->n; i++) {
		const struct reader *r = p->at[i];
		const struct attention_slice *s = &r->slice->layers[p->layer].attention;
		struct layer_state *state = &r->sequence->layers[p->layer];
		float *to_q = r->a->projected;
		float *to_k = to_q + (size_t)r->n * (size_t)s->q.n_rows;
		float *to_v = to_k + (size_t)r->n * (size_t)kv_width;
		q[i] = times(&s->q, r->a->normed, to_q, r->n, LINEAR_SET);
		k[i] = times(&s->k, r->a->normed, to_k, r->n, LINEAR_SET);
		v[i] = times(&s->v, r->a->normed, to_v, r->n, LINEAR_SET);
		attend[i] = (struct attention_op){.q = to_q,
										  .k = to_k,
										  .v = to_v,
										  .k_cache = state->k,
										  .v_cache = state->v,
										  .length = state->length,
										  .kv_head = s->kv_head,
										  .y = r->a->mixed,
										  .n = r->n,
										  .n_heads = s->n_heads,
										  .n_kv_heads = config->num_key_value_heads,
										  .head_dim = config->head_dim,
										  .scale = 1 / sqrtf((float)config->head_dim),
										  .k_scale = s->k_scale,
										  .v_scale = s->v_scale};
		out[i] = times(&s->o, r->a->mixed, r->a->residual, r->n, LINEAR_ADD);
	}
	p->b->linear(p->device, p->n, q);         // q = W_q u
	p->b->linear(p->device, p->n, k);         // k = W_k u
	p->b->linear(p->device, p->n, v);         // v = W_v u
	p->b->attention(p->device, p->n, attend); // o = softmax(q K^T / sqrt(head_dim)) V
	for (int i = 0; i < p->n; i++) {
		int width = attend[i].n_heads * attend[i].head_dim;
		tap(p, p->at[i], TAP_ATTENTION_OUT, attend[i].y, attend[i].n, width, width);
	}
	p->b->linear(p->device, p->n, out); // h += W_o o
}

/* down(relu2(up u)) of dense MLP layers and shared experts; normed -> residual. */
static void feed_forward(struct pass *p, struct reader *const *at, int n,
						 const struct linear_op *up, const struct linear_op *down)
{
	p->b->linear(p->device, n, up); // a = max(W_up u, 0)^2
	for (int k = 0; k < n; k++)
		tap(p, at[k], TAP_FFN, up[k].y, up[k].n, up[k].w->n_rows, up[k].w->n_rows);
	p->b->linear(p->device, n, down); // h += W_down a
}

/* Spec nemotron-h.md 5.2. normed -> residual. */
static void moe_layer(struct pass *p)
{
	struct linear_op gate[MAX_LANES], up[MAX_LANES], down[MAX_LANES];
	struct route_op route[MAX_LANES];
	struct experts_op experts[MAX_LANES];
	struct reader *sharing[MAX_LANES];
	int n_sharing = 0;

	for (int k = 0; k < p->n; k++) {
		struct reader *r = p->at[k];
		const struct moe_slice *m = &r->slice->layers[p->layer].moe;
		struct activations *a = r->a;
		const int32_t *given = routing_given(p->workspace, a, r->lane, p->layer);
		int top_k = given ? routing_top_k(r->lane->routing, m) : m->top_k;
		int32_t *chosen = chosen_at(p->workspace, a->choices, p->layer, r->n);
		float *weights = chosen_weights_at(p->workspace, a->choices, p->layer, r->n);
		gate[k] = times(&m->gate, a->normed, a->projected, r->n, LINEAR_SET);
		gate[k].precise = true; // a rounding flips an expert
		route[k] = (struct route_op){.logits = a->projected,
									 .bias = m->bias,
									 .given = given,
									 .ids = chosen,
									 .weights = weights,
									 .n = r->n,
									 .n_experts = m->n_experts,
									 .top_k = top_k,
									 .normalise = p->config->norm_topk_prob,
									 .scale = p->config->routed_scaling_factor};
		experts[k] = (struct experts_op){.up = m->up,
										 .down = m->down,
										 .placed_up = m->placed_up,
										 .placed_down = m->placed_down,
										 .x = a->normed,
										 .ids = chosen,
										 .weights = weights,
										 .hidden = a->activated,
										 .y = a->residual,
										 .n = r->n,
										 .n_experts = m->n_experts,
										 .top_k = top_k,
										 .width = r->slice->hidden,
										 .ffn = m->ffn,
										 .norms = tap_wanted(r, TAP_EXPERT_NORM) ? a->norms : NULL};
		if (!m->shared_ffn)
			continue;
		up[n_sharing] = times(&m->shared_up, a->normed, a->mixed, r->n, LINEAR_RELU2);
		down[n_sharing] = times(&m->shared_down, a->mixed, a->residual, r->n, LINEAR_ADD);
		sharing[n_sharing++] = r;
	}
	p->b->linear(p->device, p->n, gate); // r = W_gate u
	p->b->route(p->device, p->n, route); // s = sigmoid(r); top k of s + bias; w = s / sum s * scale
	for (int k = 0; k < p->n; k++)
		tap_experts(p, p->at[k]);
	p->b->experts(p->device, p->n, experts); // h += sum_e w_e down_e(relu2(up_e u))
	for (int k = 0; k < p->n; k++) {
		const struct experts_op *e = &experts[k];
		tap(p, p->at[k], TAP_EXPERT_FFN, e->hidden, e->n, e->top_k * e->ffn, e->top_k * e->ffn);
		tap(p, p->at[k], TAP_EXPERT_NORM, e->norms, e->n, e->top_k, e->top_k);
	}
	if (n_sharing)
		feed_forward(p, sharing, n_sharing, up, down); // h += down_s(relu2(up_s u))
}

static void mlp_layer(struct pass *p)
{
	struct linear_op up[MAX_LANES], down[MAX_LANES];

	for (int k = 0; k < p->n; k++) {
		const struct reader *r = p->at[k];
		const struct mlp_slice *m = &r->slice->layers[p->layer].mlp;
		up[k] = times(&m->up, r->a->normed, r->a->mixed, r->n, LINEAR_RELU2);
		down[k] = times(&m->down, r->a->mixed, r->a->residual, r->n, LINEAR_ADD);
	}
	feed_forward(p, p->at, p->n, up, down); // h += down(relu2(up u))
}

/* ---- passes ---- */

/* The lanes that keep this layer; every lane shows its residual. */
static void enter_layer(struct pass *p, int layer)
{
	p->layer = layer;
	p->n = 0;
	for (int k = 0; k < p->n_readers; k++) {
		struct reader *r = &p->readers[k];
		int width = r->slice->hidden;
		tap(p, r, TAP_RESIDUAL, r->a->residual, r->n, width, width);
		if (layer < p->config->n_layers && r->slice->layers[layer].keep)
			p->at[p->n++] = r;
	}
}

static void embed(struct pass *p)
{
	struct embed_op op[MAX_LANES];

	for (int k = 0; k < p->n_readers; k++) {
		const struct reader *r = &p->readers[k];
		op[k] = (struct embed_op){&r->slice->embeddings, r->a->ids, r->a->residual, r->n};
	}
	p->b->embed(p->device, p->n_readers, op); // h = embeddings[token]
}

static void norm_layer(struct pass *p)
{
	struct norm_op op[MAX_LANES];

	for (int k = 0; k < p->n; k++) {
		const struct reader *r = p->at[k];
		const struct layer_slice *layer = &r->slice->layers[p->layer];
		op[k] = (struct norm_op){.x = r->a->residual,
								 .weight = layer->norm,
								 .y = r->a->normed,
								 .n = r->n,
								 .width = r->slice->hidden,
								 .count = layer->norm_count,
								 .eps = p->config->norm_eps,
								 .scale = layer->norm_scale};
	}
	p->b->norm(p->device, p->n, op); // u = RMSNorm(h; norm_i)
	for (int k = 0; k < p->n; k++)
		tap(p, p->at[k], TAP_MIXER_INPUT, op[k].y, op[k].n, op[k].width, op[k].width);
}

static void run_layer(struct pass *p)
{
	for (int k = 0; k < p->n; k++)
		tap_mixer_start(p, p->at[k]);
	norm_layer(p);
	switch ((enum layer_kind)p->config->kinds[p->layer]) {
	case LAYER_MAMBA: mamba_layer(p); break;
	case LAYER_ATTENTION: attention_layer(p); break;
	case LAYER_MOE: moe_layer(p); break;
	case LAYER_MLP: mlp_layer(p); break;
	}
	for (int k = 0; k < p->n; k++)
		tap_mixer_output(p, p->at[k]);
}

/* logits = lm_head RMSNorm(h; norm_f), of the rows that are wanted. */
static void head(struct pass *p)
{
	struct norm_op norm[MAX_LANES];
	struct linear_op linear[MAX_LANES];
	struct reader *at[MAX_LANES];
	int n = 0;

	for (int k = 0; k < p->n_readers; k++) {
		struct reader *r = &p->readers[k];
		int rows = r->lane->logits == LOGITS_ALL ? r->n : 1;
		if (r->lane->logits == LOGITS_NONE)
			continue;
		norm[n] =
			(struct norm_op){.x = r->a->residual + (size_t)(r->n - rows) * (size_t)r->slice->hidden,
							 .weight = r->slice->norm_f,
							 .y = r->a->normed,
							 .n = rows,
							 .width = r->slice->hidden,
							 .count = r->slice->norm_f_count,
							 .eps = p->config->norm_eps,
							 .scale = r->slice->norm_f_scale};
		linear[n] = times(&r->slice->lm_head, r->a->normed, r->a->logits, rows, LINEAR_SET);
		at[n++] = r;
	}
	if (!n)
		return;
	p->b->norm(p->device, n, norm);     // u = RMSNorm(h; norm_f)
	p->b->linear(p->device, n, linear); // logits = lm_head u
	for (int k = 0; k < n; k++)
		tap(p, at[k], TAP_LOGITS, linear[k].y, linear[k].n, p->config->vocab_size,
			p->config->vocab_size);
}

static void pick(struct pass *p)
{
	struct pick_op op[MAX_LANES];
	size_t vocab = (size_t)p->config->vocab_size;

	for (int k = 0; k < p->n_readers; k++) {
		const struct reader *r = &p->readers[k];
		size_t last = r->lane->logits == LOGITS_ALL ? (size_t)r->n - 1 : 0;
		op[k] = (struct pick_op){.logits = r->a->logits + last * vocab,
								 .vocab = p->config->vocab_size,
								 .ask = r->a->ask,
								 .out = &r->a->picked};
	}
	p->b->pick(p->device, p->n_readers, op);
}

/* The lanes of one model, from ids to logits. */
static void run(struct pass *p, bool picks)
{
	embed(p);
	for (int layer = 0; layer < p->config->n_layers; layer++) {
		enter_layer(p, layer);
		if (p->n)
			run_layer(p); // h += Mixer(RMSNorm(h))
	}
	enter_layer(p, p->config->n_layers);
	head(p);
	if (picks)
		pick(p);
}

/* ---- before and after ---- */

/* What the pass reads that differs from token to token. */
static void send(const struct workspace *w, const struct lane *lane, struct activations *a,
				 const struct pick_params *params)
{
	w->backend->upload(w->device, a->ids, lane->tokens, (size_t)lane->n_tokens * sizeof *a->ids);
	if (params) {
		struct pick_ask ask = {lane->sequence->n_tokens + lane->n_tokens, *params};
		w->backend->upload(w->device, a->ask, &ask, sizeof ask);
	}
}

/* room: tokens that the lanes before have left. */
static int check_lane(const struct workspace *w, const struct lane *lane, int room,
					  struct error *err)
{
	const struct sequence *sequence = lane->sequence;
	const struct slice *slice = sequence_slice(sequence);
	int vocab = sequence->config->vocab_size;

	if (!slice)
		return fail(err, "no budget was chosen for the sequence");
	if (lane->n_tokens < 1 || lane->n_tokens > room)
		return fail(err, "a pass of %d tokens: expected 1 to %d", lane->n_tokens, room);
	if (lane->n_tokens > sequence->capacity - sequence->n_tokens)
		return fail(err, "context full: %d tokens and %d more, room for %d", sequence->n_tokens,
					lane->n_tokens, sequence->capacity);
	if (lane->logits == LOGITS_ALL && !w->all_logits && lane->n_tokens > 1)
		return fail(err, "logits of %d positions: the workspace has room for one", lane->n_tokens);
	for (int i = 0; i < lane->n_tokens; i++)
		if (lane->tokens[i] < 0 || lane->tokens[i] >= vocab)
			return fail(err, "token %d at position %d: the vocabulary has ids 0 to %d",
						lane->tokens[i], sequence->n_tokens + i, vocab - 1);
	return workspace_check(w, slice, err);
}

static int check(struct workspace *w, const struct lane *lanes, int n_lanes, bool picks,
				 struct error *err)
{
	if (n_lanes < 1 || n_lanes > w->n_lanes)
		return fail(err, "a pass of %d lanes: expected 1 to %d", n_lanes, w->n_lanes);
	for (int i = 0, room = w->max_tokens; i < n_lanes; room -= lanes[i++].n_tokens) {
		if (check_lane(w, &lanes[i], room, err))
			return n_lanes > 1 ? fail_in(err, "lane %d", i) : -1;
		if (picks && lanes[i].logits == LOGITS_NONE)
			return fail(err, "lane %d: picking an id needs logits", i);
		for (int k = 0; k < i; k++)
			if (lanes[k].sequence == lanes[i].sequence)
				return fail(err, "lanes %d and %d: the same sequence twice in one pass", k, i);
		if (lanes[i].taps && lanes[i].taps->wanted && workspace_open_taps(w, err))
			return -1;
		if (lanes[i].routing && routing_open(w, &w->lanes[i], &lanes[i], err))
			return n_lanes > 1 ? fail_in(err, "lane %d", i) : -1;
	}
	return 0;
}

/* Names a pass for devices that record: the same key, the same operations on the same memory. 0 =
 * do not record. */
static uint64_t pass_key(const struct lane *lanes, int n_lanes, bool picks)
{
	uint64_t key = 1 + (picks ? 1u : 0u);

	for (int i = 0; i < n_lanes; i++) {
		const struct taps *taps = lanes[i].taps;
		if ((taps && taps->wanted && !tap_can_wait(taps)) || lanes[i].routing)
			return 0;
		key = hash_mix(key ^ (uintptr_t)sequence_slice(lanes[i].sequence));
		key = hash_mix(key ^ (uintptr_t)lanes[i].sequence);
		key = hash_mix(key ^ ((uint64_t)lanes[i].n_tokens << 2) ^ (uint64_t)lanes[i].logits);
	}
	return key ? key : 1;
}

/* Takes the lanes of the same model as lanes[first] into the pass; earlier groups are done already.
 */
static void gather(struct pass *p, struct lane *lanes, int n_lanes, int first)
{
	p->config = lanes[first].sequence->config;
	p->n_readers = 0;
	for (int i = first; i < n_lanes; i++) {
		struct sequence *sequence = lanes[i].sequence;
		if (sequence->config == p->config)
			p->readers[p->n_readers++] = (struct reader){.lane = &lanes[i],
														 .index = i,
														 .slice = sequence_slice(sequence),
														 .sequence = sequence,
														 .a = &p->workspace->lanes[i],
														 .n = lanes[i].n_tokens};
	}
}

static bool is_first_of_model(const struct lane *lanes, int i)
{
	for (int k = 0; k < i; k++)
		if (lanes[k].sequence->config == lanes[i].sequence->config)
			return false;
	return true;
}

/* Where nothing could be picked because a lane's logits are no numbers, the stored number that is
 * to blame goes in front of the sentence. */
static void explain(const struct pass *p, const struct lane *lanes, int n_lanes, struct error *err)
{
	for (int i = 0; i < n_lanes; i++) {
		const struct activations *a = &p->workspace->lanes[i];
		const struct slice *slice = sequence_slice(lanes[i].sequence);
		float last[64];
		size_t vocab = (size_t)slice->config->vocab_size, n = vocab < 64 ? vocab : 64, odd = 0;
		size_t row = lanes[i].logits == LOGITS_ALL ? (size_t)lanes[i].n_tokens - 1 : 0;
		p->b->download(p->device, last, a->logits + row * vocab, n * sizeof *last);
		while (odd < n && isfinite(last[odd]))
			odd++;
		if (odd < n) {
			finite_explain(slice->weights->checkpoint, err);
			return;
		}
	}
}

int forward(struct workspace *workspace, struct lane *lanes, int n_lanes,
			const struct pick_params *picks, struct picked *picked, struct error *err)
{
	struct pass pass = {
		.b = workspace->backend, .device = workspace->device, .workspace = workspace};

	if (check(workspace, lanes, n_lanes, picks != NULL, err))
		return -1;
	workspace_divide(workspace, lanes, n_lanes);
	for (int i = 0; i < n_lanes; i++) {
		struct activations *a = &workspace->lanes[i];
		lanes[i].out = lanes[i].logits == LOGITS_NONE ? NULL : a->logits;
		send(workspace, &lanes[i], a, picks ? &picks[i] : NULL);
	}
	if (pass.b->begin(pass.device, pass_key(lanes, n_lanes, picks != NULL)) == STEP_RUN)
		for (int i = 0; i < n_lanes; i++)
			if (is_first_of_model(lanes, i)) {
				gather(&pass, lanes, n_lanes, i);
				run(&pass, picks != NULL);
			}
	if (pass.b->finish(pass.device, err)) {
		if (picks)
			explain(&pass, lanes, n_lanes, err);
		for (int i = 0; i < n_lanes; i++)
			sequence_reset(lanes[i].sequence);
		return fail_in(err, "the pass failed midway, its sequences were emptied");
	}
	for (int i = 0; i < n_lanes; i++) {
		if (picks)
			picked[i] = workspace->lanes[i].picked;
		if (tap_can_wait(lanes[i].taps))
			tap_experts_late(workspace, &lanes[i], i);
		sequence_advance(lanes[i].sequence, lanes[i].tokens, lanes[i].n_tokens);
	}
	return 0;
}
