/*
 *     h = embeddings[token]
 *     h = h + Mixer_i(RMSNorm(h))      for every layer i
 *     logits = lm_head RMSNorm(h)
 *
 * Each mixer fills the arguments of its operations for all readers (lanes of one slice,
 * core/pass.h) and calls them one after the other with the equation beside the call; what has a
 * state takes an operation a lane. Readers whose slice drops a layer are not in that layer's
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

/* What of a Mamba layer is a lane's own: its rows of what in_proj left, its state. xbc, dt: of the
 * reader's first row, `stride` apart. */
static void mamba_lane(const struct pass *p, const struct reader *r, const struct member *lane,
					   struct conv_op *conv, struct ssm_op *ssm)
{
	const struct mamba_slice *m = &r->slice->layers[p->layer].mamba;
	const struct layer_state *state = &lane->sequence->layers[p->layer];
	const struct config *config = p->config;
	int64_t row = lane->row, stride = m->in_proj.n_rows;
	const float *xbc = r->a->projected + row * stride + m->inner;
	float *convolved = r->a->convolved + row * m->channels;

	*conv = (struct conv_op){.x = xbc,
							 .x_stride = stride,
							 .weight = m->conv_weight,
							 .bias = m->conv_bias,
							 .y = convolved,
							 .state = state->conv,
							 .channel = m->channel,
							 .n = lane->n,
							 .channels = m->channels,
							 .state_channels = config_conv_channels(config),
							 .kernel = config->conv_kernel};
	*ssm = (struct ssm_op){.xbc = convolved,
						   .dt = xbc + m->channels,
						   .dt_stride = stride,
						   .a = m->a,
						   .d = m->d,
						   .dt_bias = m->dt_bias,
						   .head_group = m->head_group,
						   .state_row = m->channel,
						   .state = state->ssm,
						   .y = r->a->mixed + row * m->inner,
						   .n = lane->n,
						   .n_heads = m->n_heads,
						   .head_dim = m->head_dim,
						   .n_groups = config->n_groups,
						   .state_size = config->ssm_state_size};
}

/* Spec nemotron-h.md 4. normed -> residual. */
static void mamba_layer(struct pass *p)
{
	struct linear_op *in = p->args.linear[0], *out = p->args.linear[1];
	struct conv_op *conv = p->args.conv;
	struct ssm_op *ssm = p->args.ssm;
	struct gated_norm_op *norm = p->args.gated_norm;
	int n_lanes = 0;

	for (int k = 0; k < p->n; k++) {
		const struct reader *r = p->at[k];
		const struct mamba_slice *m = &r->slice->layers[p->layer].mamba;
		in[k] = times(&m->in_proj, r->a->normed, r->a->projected, r->n, LINEAR_SET);
		for (int i = 0; i < r->n_members; i++, n_lanes++)
			mamba_lane(p, r, &r->members[i], &conv[n_lanes], &ssm[n_lanes]);
		norm[k] = (struct gated_norm_op){.y = r->a->mixed,
										 .z = r->a->projected, // z | x | B | C | dt
										 .z_stride = m->in_proj.n_rows,
										 .weight = m->norm,
										 .group_start = m->group_start,
										 .count = m->norm_count,
										 .n = r->n,
										 .width = m->inner,
										 .n_groups = p->config->n_groups,
										 .eps = p->config->norm_eps,
										 .scale = m->norm_scale};
		out[k] = times(&m->out_proj, r->a->mixed, r->a->residual, r->n, LINEAR_ADD);
	}
	p->b->linear(p->device, p->n, in); // z | xBC | dt = in_proj u
	for (int k = 0; k < p->n; k++)
		tap(p, p->at[k], TAP_MAMBA_PROJECTED, norm[k].z + norm[k].width, norm[k].n, norm[k].width,
			(int)norm[k].z_stride);
	p->b->conv(p->device, n_lanes, conv); // x | B | C = silu(conv1d(xBC) + bias)
	for (int k = 0; k < p->n; k++)
		tap(p, p->at[k], TAP_MAMBA_X, p->at[k]->a->convolved, norm[k].n, norm[k].width,
			p->at[k]->slice->layers[p->layer].mamba.channels);
	p->b->ssm(p->device, n_lanes, ssm);      // S = exp(d a) S + d x B^T;  y = S C + D x
	p->b->gated_norm(p->device, p->n, norm); // o = RMSNorm_groups(y silu(z))
	for (int k = 0; k < p->n; k++)
		tap(p, p->at[k], TAP_MAMBA_OUT, norm[k].y, norm[k].n, norm[k].width, norm[k].width);
	p->b->linear(p->device, p->n, out); // h += out_proj o
}

/* What of an attention layer is a lane's own. q, k, v: of the reader's first row. */
static struct attention_op attend_lane(const struct pass *p, const struct reader *r,
									   const struct member *lane, const float *q, const float *k,
									   const float *v)
{
	const struct attention_slice *s = &r->slice->layers[p->layer].attention;
	const struct layer_state *state = &lane->sequence->layers[p->layer];
	const struct config *config = p->config;
	int64_t row = lane->row, width = s->q.n_rows, kv_width = s->k.n_rows;

	return (struct attention_op){.q = q + row * width,
								 .k = k + row * kv_width,
								 .v = v + row * kv_width,
								 .k_cache = state->k,
								 .v_cache = state->v,
								 .length = state->length,
								 .kv_head = s->kv_head,
								 .y = r->a->mixed + row * width,
								 .n = lane->n,
								 .n_heads = s->n_heads,
								 .n_kv_heads = config->num_key_value_heads,
								 .head_dim = config->head_dim,
								 .scale = 1 / sqrtf((float)config->head_dim),
								 .k_scale = s->k_scale,
								 .v_scale = s->v_scale};
}

/* Spec nemotron-h.md 5.1: grouped queries, causal, no positions. normed -> residual. */
static void attention_layer(struct pass *p)
{
	struct linear_op *q = p->args.linear[0], *k = p->args.linear[1], *v = p->args.linear[2];
	struct linear_op *out = p->args.linear[3];
	struct attention_op *attend = p->args.attention;
	int n_lanes = 0;

	for (int i = 0; i < p->n; i++) {
		const struct reader *r = p->at[i];
		const struct attention_slice *s = &r->slice->layers[p->layer].attention;
		float *to_q = r->a->projected;
		float *to_k = to_q + (size_t)r->n * (size_t)s->q.n_rows;
		float *to_v = to_k + (size_t)r->n * (size_t)s->k.n_rows;
		q[i] = times(&s->q, r->a->normed, to_q, r->n, LINEAR_SET);
		k[i] = times(&s->k, r->a->normed, to_k, r->n, LINEAR_SET);
		v[i] = times(&s->v, r->a->normed, to_v, r->n, LINEAR_SET);
		for (int m = 0; m < r->n_members; m++)
			attend[n_lanes++] = attend_lane(p, r, &r->members[m], to_q, to_k, to_v);
		out[i] = times(&s->o, r->a->mixed, r->a->residual, r->n, LINEAR_ADD);
	}
	p->b->linear(p->device, p->n, q);            // q = W_q u
	p->b->linear(p->device, p->n, k);            // k = W_k u
	p->b->linear(p->device, p->n, v);            // v = W_v u
	p->b->attention(p->device, n_lanes, attend); // o = softmax(q K^T / sqrt(head_dim)) V
	for (int i = 0; i < p->n; i++)
		tap(p, p->at[i], TAP_ATTENTION_OUT, out[i].x, out[i].n, out[i].w->n_columns,
			out[i].w->n_columns);
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
	struct linear_op *gate = p->args.linear[0], *up = p->args.linear[1];
	struct linear_op *down = p->args.linear[2];
	struct route_op *route = p->args.route;
	struct experts_op *experts = p->args.experts;
	struct reader **sharing = p->args.sharing;
	int n_sharing = 0;

	for (int k = 0; k < p->n; k++) {
		struct reader *r = p->at[k];
		const struct moe_slice *m = &r->slice->layers[p->layer].moe;
		struct activations *a = r->a;
		const int32_t *given =
			routing_given(p->workspace, &p->workspace->lanes[r->index], r->lane, p->layer);
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
										 .keep_hidden = tap_wanted(r, TAP_EXPERT_FFN),
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
	struct linear_op *up = p->args.linear[0], *down = p->args.linear[1];

	for (int k = 0; k < p->n; k++) {
		const struct reader *r = p->at[k];
		const struct mlp_slice *m = &r->slice->layers[p->layer].mlp;
		up[k] = times(&m->up, r->a->normed, r->a->mixed, r->n, LINEAR_RELU2);
		down[k] = times(&m->down, r->a->mixed, r->a->residual, r->n, LINEAR_ADD);
	}
	feed_forward(p, p->at, p->n, up, down); // h += down(relu2(up u))
}

/* ---- passes ---- */

/* The readers that keep this layer; every one shows its residual. */
static void enter_layer(struct pass *p, int layer)
{
	p->layer = layer;
	p->n = 0;
	for (int k = 0; k < p->n_model; k++) {
		struct reader *r = p->model[k];
		int width = r->slice->hidden;
		tap(p, r, TAP_RESIDUAL, r->a->residual, r->n, width, width);
		if (layer < p->config->n_layers && r->slice->layers[layer].keep)
			p->at[p->n++] = r;
	}
}

static void embed(struct pass *p)
{
	struct embed_op *op = p->args.embed;

	for (int k = 0; k < p->n_model; k++) {
		const struct reader *r = p->model[k];
		op[k] = (struct embed_op){&r->slice->embeddings, r->a->ids, r->a->residual, r->n};
	}
	p->b->embed(p->device, p->n_model, op); // h = embeddings[token]
}

static void norm_layer(struct pass *p)
{
	struct norm_op *op = p->args.norm;

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

/* norm_f of the rows that a reader's lanes want, packed: rows that lie side by side in one
 * operation. Returns how many operations. */
static int norm_wanted(const struct pass *p, const struct reader *r, struct norm_op *op,
					   int *n_rows)
{
	size_t width = (size_t)r->slice->hidden;
	int n = 0;

	*n_rows = 0;
	for (int i = 0; i < r->n_members; i++) {
		const struct member *m = &r->members[i];
		int rows = lane_logits(m->lane);
		const float *x = r->a->residual + (size_t)(m->row + m->n - rows) * width;
		if (n && op[n - 1].x + (size_t)op[n - 1].n * width == x)
			op[n - 1].n += rows;
		else if (rows)
			op[n++] = (struct norm_op){.x = x,
									   .weight = r->slice->norm_f,
									   .y = r->a->normed + (size_t)*n_rows * width,
									   .n = rows,
									   .width = r->slice->hidden,
									   .count = r->slice->norm_f_count,
									   .eps = p->config->norm_eps,
									   .scale = r->slice->norm_f_scale};
		*n_rows += rows;
	}
	return n;
}

/* logits = lm_head RMSNorm(h; norm_f), of the rows that are wanted. */
static void head(struct pass *p)
{
	struct norm_op *norm = p->args.norm;
	struct linear_op *linear = p->args.linear[0];
	int n = 0, n_norms = 0, vocab = p->config->vocab_size;

	for (int k = 0; k < p->n_model; k++) {
		struct reader *r = p->model[k];
		int rows;
		n_norms += norm_wanted(p, r, norm + n_norms, &rows);
		if (!rows)
			continue;
		linear[n] = times(&r->slice->lm_head, r->a->normed, r->a->logits, rows, LINEAR_SET);
		p->at[n++] = r;
	}
	if (!n)
		return;
	p->b->norm(p->device, n_norms, norm); // u = RMSNorm(h; norm_f)
	p->b->linear(p->device, n, linear);   // logits = lm_head u
	for (int k = 0; k < n; k++)
		tap(p, p->at[k], TAP_LOGITS, linear[k].y, linear[k].n, vocab, vocab);
}

static void pick(struct pass *p)
{
	struct pick_op *op = p->args.pick;
	size_t vocab = (size_t)p->config->vocab_size;
	int n = 0;

	for (int k = 0; k < p->n_model; k++)
		for (int i = 0; i < p->model[k]->n_members; i++) {
			const struct member *m = &p->model[k]->members[i];
			op[n++] = (struct pick_op){.logits = m->lane->out +
												 (size_t)(lane_logits(m->lane) - 1) * vocab,
									   .vocab = p->config->vocab_size,
									   .ask = m->ask,
									   .out = &p->workspace->lanes[m->index].picked};
		}
	p->b->pick(p->device, n, op);
}

/* The readers of one model, from ids to logits. */
static void run_model(struct pass *p, bool picks)
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
static void send(const struct pass *p, const struct pick_params *picks)
{
	const struct workspace *w = p->workspace;
	struct pick_ask *asks = w->sent;
	int32_t *ids = (int32_t *)(asks + p->n_members);
	size_t n = 0, head = (size_t)p->n_members * sizeof *asks;

	for (int i = 0; i < p->n_members; i++) {
		const struct member *m = &p->members[i];
		for (int t = 0; t < m->n; t++)
			ids[n++] = m->lane->tokens[t];
		if (picks)
			asks[i] = (struct pick_ask){m->sequence->n_tokens + m->n, picks[m->index]};
	}
	if (picks)
		p->b->upload(p->device, w->pool.ask, asks, head + n * sizeof *ids);
	else
		p->b->upload(p->device, w->pool.ask + p->n_members, ids, n * sizeof *ids);
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
	return 0;
}

static int check(struct workspace *w, const struct lane *lanes, int n_lanes, bool picks,
				 struct error *err)
{
	const struct slice *slice = NULL; // of the lane before

	if (n_lanes < 1 || n_lanes > w->n_lanes)
		return fail(err, "a pass of %d lanes: expected 1 to %d", n_lanes, w->n_lanes);
	for (int i = 0; i < n_lanes; i++)
		lanes[i].sequence->lane = i;
	for (int i = 0, room = w->max_tokens; i < n_lanes; room -= lanes[i++].n_tokens) {
		const struct slice *before = slice;
		slice = sequence_slice(lanes[i].sequence);
		if (check_lane(w, &lanes[i], room, err) ||
			(slice != before && workspace_check(w, slice, err)))
			return n_lanes > 1 ? fail_in(err, "lane %d", i) : -1;
		if (picks && lanes[i].logits == LOGITS_NONE)
			return fail(err, "lane %d: picking an id needs logits", i);
		if (lanes[i].sequence->lane != i)
			return fail(err, "lanes %d and %d: the same sequence twice in one pass", i,
						lanes[i].sequence->lane);
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
		bool waits = tap_can_wait(taps); // and reads alone
		if ((taps && taps->wanted && !waits) || lanes[i].routing)
			return 0;
		key = hash_mix(key ^ (uintptr_t)sequence_slice(lanes[i].sequence));
		key = hash_mix(key ^ (uintptr_t)lanes[i].sequence);
		key = hash_mix(key ^ ((uint64_t)lanes[i].n_tokens << 3) ^ ((uint64_t)lanes[i].logits << 1) ^
					   waits);
	}
	return key ? key : 1;
}

/* The readers of the same model as the first one; -1: an earlier reader's, which ran already. */
static int enter_model(struct pass *p, int first)
{
	p->config = p->readers[first].sequence->config;
	p->n_model = 0;
	for (int k = 0; k < p->n_readers; k++) {
		if (p->readers[k].sequence->config != p->config)
			continue;
		if (k < first)
			return -1;
		p->model[p->n_model++] = &p->readers[k];
	}
	return 0;
}

/* Where nothing could be picked because a lane's logits are no numbers, the stored number that is
 * to blame goes in front of the sentence. */
static void explain(const struct pass *p, const struct lane *lanes, int n_lanes, struct error *err)
{
	for (int i = 0; i < n_lanes; i++) {
		const struct slice *slice = sequence_slice(lanes[i].sequence);
		float last[64];
		size_t vocab = (size_t)slice->config->vocab_size, n = vocab < 64 ? vocab : 64, odd = 0;
		size_t row = (size_t)lane_logits(&lanes[i]) - 1;
		p->b->download(p->device, last, lanes[i].out + row * vocab, n * sizeof *last);
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
	struct pass *p = workspace->pass;

	if (check(workspace, lanes, n_lanes, picks != NULL, err))
		return -1;
	pass_arrange(p, lanes, n_lanes);
	send(p, picks);
	if (p->b->begin(p->device, pass_key(lanes, n_lanes, picks != NULL)) == STEP_RUN)
		for (int k = 0; k < p->n_readers; k++)
			if (enter_model(p, k) == 0)
				run_model(p, picks != NULL);
	if (p->b->finish(p->device, err)) {
		if (picks)
			explain(p, lanes, n_lanes, err);
		for (int i = 0; i < n_lanes; i++)
			sequence_reset(lanes[i].sequence);
		return fail_in(err, "the pass failed midway, its sequences were emptied");
	}
	for (int k = 0; k < p->n_readers; k++)
		tap_experts_late(p, &p->readers[k]);
	for (int i = 0; i < n_lanes; i++) {
		if (picks)
			picked[i] = workspace->lanes[i].picked;
		sequence_advance(lanes[i].sequence, lanes[i].tokens, lanes[i].n_tokens);
	}
	return 0;
}
