/* Inside boundaries: the walk through the weights, each matrix read once for both of its axes. */
#include "base/memory.h"
#include "inspect/boundaries.h"
#include "inspect/norms.h"
#include "kernels/convert.h"
#include <stdlib.h>
#include <string.h>

struct walk {
	struct boundaries *out;
	const struct model *model;
	int (*step)(void *user, int done, int total);
	void *user;
	uint64_t done;          // bytes
	double *rows, *columns; // sums of squares of the running matrix, or of several
	size_t room;            // of each
	struct error *err;
};

static int told(struct walk *w, uint64_t bytes)
{
	const uint64_t mib = 1 << 20;
	uint64_t total = w->model->checkpoint.tensor_bytes;

	w->done += bytes;
	if (w->step && w->step(w->user, (int)(w->done / mib), (int)(total / mib) + 1))
		return fail(w->err, "stopped after %llu of %llu MiB", (unsigned long long)(w->done / mib),
					(unsigned long long)(total / mib));
	return 0;
}

static void begin(struct walk *w)
{
	memset(w->rows, 0, w->room * sizeof *w->rows);
	memset(w->columns, 0, w->room * sizeof *w->columns);
}

/* Adds the matrix' squares to rows and columns. */
static int take(struct walk *w, const struct tensor *t)
{
	if (norms_squares(t, 0, t->shape[0], w->rows, w->columns, w->err))
		return -1;
	return told(w, t->bytes);
}

static int add(struct walk *w, enum axis axis, const double *squares)
{
	return w->out->axes[axis].n ? boundaries_add(w->out, axis, squares, w->err) : 0;
}

/* hidden_size along a matrix' columns (what reads the residual) or rows (what writes it). */
static int hidden(struct walk *w, const struct tensor *t, bool writes)
{
	begin(w);
	return take(w, t) || add(w, AXIS_HIDDEN, writes ? w->rows : w->columns) ? -1 : 0;
}

static int norm_vector(struct walk *w, const struct tensor *t)
{
	size_t n = (size_t)w->model->config.hidden_size;
	float *values = mem_new(n, sizeof *values, w->err);
	int result = values ? 0 : -1;

	if (!result && !convert_to_f32(t->data, t->dtype, n, values))
		result = fail(w->err, "a norm is %s, which cannot be widened", dtype_name(t->dtype));
	for (size_t i = 0; i < n && !result; i++)
		w->rows[i] = (double)values[i] * (double)values[i];
	free(values);
	return result || add(w, AXIS_HIDDEN, w->rows) ? -1 : 0;
}

/* ---- layers ---- */

/* Heads and channels of one head, from squares a row or column of z, x or out_proj's input. */
static int mamba_inner(struct walk *w, const double *squares)
{
	const struct config *c = &w->model->config;
	size_t heads = (size_t)c->mamba_num_heads, dim = (size_t)c->mamba_head_dim;
	double *head = mem_new(heads + dim, sizeof *head, w->err), *channel = head + heads;

	if (!head)
		return -1;
	for (size_t i = 0; i < heads * dim; i++) {
		head[i / dim] += squares[i];
		channel[i % dim] += squares[i];
	}
	int result = add(w, AXIS_MAMBA_HEADS, head) || add(w, AXIS_MAMBA_CHANNELS, channel) ? -1 : 0;
	free(head);
	return result;
}

static int mamba(struct walk *w, const struct layer_weights *l)
{
	const struct config *c = &w->model->config;
	size_t inner = (size_t)config_inner(c);
	size_t dt = 2 * inner + 2 * (size_t)c->n_groups * (size_t)c->ssm_state_size;

	if (hidden(w, &l->in_proj, false) || mamba_inner(w, w->rows) ||
		mamba_inner(w, w->rows + inner) || add(w, AXIS_MAMBA_HEADS, w->rows + dt))
		return -1;
	return hidden(w, &l->out_proj, true) || mamba_inner(w, w->columns) ? -1 : 0;
}

static int heads(struct walk *w, const double *squares)
{
	const struct config *c = &w->model->config;
	double *head = mem_new((size_t)c->num_attention_heads, sizeof *head, w->err);

	if (!head)
		return -1;
	for (int i = 0; i < c->num_attention_heads * c->head_dim; i++)
		head[i / c->head_dim] += squares[i];
	int result = add(w, AXIS_ATTENTION_HEADS, head);
	free(head);
	return result;
}

static int attention(struct walk *w, const struct layer_weights *l)
{
	return hidden(w, &l->q, false) || heads(w, w->rows) || hidden(w, &l->k, false) ||
				   hidden(w, &l->v, false) || hidden(w, &l->o, true) || heads(w, w->columns)
			   ? -1
			   : 0;
}

/* up's rows and down's columns are the FFN's channels. */
static int ffn(struct walk *w, enum axis axis, const struct tensor *up, const struct tensor *down)
{
	return hidden(w, up, false) || add(w, axis, w->rows) || hidden(w, down, true) ||
				   add(w, axis, w->columns)
			   ? -1
			   : 0;
}

/* All experts' matrices of one kind together: FFN channels, hidden channels, and an expert each. */
static int experts(struct walk *w, const struct tensor *of, bool down)
{
	const struct config *c = &w->model->config;
	size_t n = (size_t)c->n_routed_experts;
	double *each = mem_new(n, sizeof *each, w->err), before = 0;
	int result = each ? 0 : -1;

	begin(w);
	for (size_t e = 0; e < n && !result; e++) {
		double sum = 0;
		result = take(w, &of[e]);
		for (int64_t r = 0; r < of[e].shape[0] && !result; r++)
			sum += w->rows[r];
		if (!result)
			each[e] = sum - before;
		before = sum;
	}
	if (!result)
		result = add(w, AXIS_HIDDEN, down ? w->rows : w->columns) ||
						 add(w, AXIS_EXPERT_FFN, down ? w->columns : w->rows) ||
						 add(w, AXIS_EXPERTS, each)
					 ? -1
					 : 0;
	free(each);
	return result;
}

static int moe(struct walk *w, const struct layer_weights *l)
{
	if (hidden(w, &l->gate, false) || add(w, AXIS_EXPERTS, w->rows) || experts(w, l->up, false) ||
		experts(w, l->down, true))
		return -1;
	return l->shared_up.data ? ffn(w, AXIS_SHARED_FFN, &l->shared_up, &l->shared_down) : 0;
}

static int layer(struct walk *w, int i)
{
	const struct layer_weights *l = &w->model->weights.layers[i];

	if (norm_vector(w, &l->norm))
		return -1;
	switch ((enum layer_kind)w->model->config.kinds[i]) {
	case LAYER_MAMBA: return mamba(w, l);
	case LAYER_ATTENTION: return attention(w, l);
	case LAYER_MOE: return moe(w, l);
	case LAYER_MLP: return ffn(w, AXIS_FFN, &l->mlp_up, &l->mlp_down);
	}
	return fail(w->err, "layer %d is of no known kind", i);
}

static size_t largest(size_t a, int64_t b)
{
	return a > (size_t)b ? a : (size_t)b;
}

/* Rows or columns of any matrix that is read. */
static size_t room_of(const struct model *model)
{
	const struct config *c = &model->config;
	size_t n = largest((size_t)c->vocab_size, c->hidden_size);

	n = largest(n, 2 * (int64_t)config_inner(c) + 2 * (int64_t)c->n_groups * c->ssm_state_size +
					   c->mamba_num_heads);
	n = largest(n, (int64_t)c->num_attention_heads * c->head_dim);
	n = largest(n, (int64_t)c->num_key_value_heads * c->head_dim);
	n = largest(n, c->moe_intermediate_size);
	n = largest(n, c->moe_shared_expert_intermediate_size);
	n = largest(n, c->n_routed_experts);
	return largest(n, c->intermediate_size);
}

static int all(struct walk *w)
{
	const struct weights *weights = &w->model->weights;

	if (hidden(w, &weights->embeddings, false) || norm_vector(w, &weights->norm_f))
		return -1;
	if (weights->lm_head.data != weights->embeddings.data && hidden(w, &weights->lm_head, false))
		return -1;
	for (int i = 0; i < w->model->config.n_layers; i++)
		if (layer(w, i))
			return fail_in(w->err, "layer %d", i);
	return boundaries_search(w->out, w->err);
}

int boundaries_find(struct boundaries *out, const struct model *model,
					int (*step)(void *user, int done, int total), void *user, struct error *err)
{
	struct walk w = {
		.out = out, .model = model, .step = step, .user = user, .room = room_of(model), .err = err};

	if (boundaries_open(out, &model->config, err))
		return -1;
	w.rows = mem_new(w.room, sizeof *w.rows, err);
	w.columns = mem_new(w.room, sizeof *w.columns, err);
	int result = w.rows && w.columns ? all(&w) : -1;
	free(w.rows);
	free(w.columns);
	if (result)
		boundaries_free(out);
	return result;
}
