#include "inspect/norms.h"

#include "base/memory.h"
#include "kernels/convert.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define WATCHED_ROWS 2048

struct walk {
	const struct norms_watch *watch; // NULL = nobody looks
	int64_t done, total;             // rows
	struct error *err;
};

static int step(struct walk *w)
{
	if (++w->done % WATCHED_ROWS || !w->watch || !w->watch->step(w->watch->user, w->done, w->total))
		return 0;
	return fail(w->err, "stopped");
}

/* Sums of squares of a (rows, columns) tensor, of rows [from, to): by_row and by_column may be
 * NULL. */
static int squares(const struct tensor *t, int64_t from, int64_t to, double *by_row,
				   double *by_column, struct walk *w)
{
	if (!t->data || t->n_dims != 2 || to > t->shape[0]) {
		return fail(w->err,
					"a matrix that weight norms need is missing or has %lld rows, expected %lld",
					(long long)(t->n_dims ? t->shape[0] : 0), (long long)to);
	}
	size_t n = (size_t)t->shape[1];
	struct matrix m = {.data = t->data,
					   .dtype = t->dtype,
					   .stride = t->shape[1],
					   .scales = t->scales,
					   .scale = t->scale};
	float *row = mem_new(n, sizeof *row, w->err);
	if (!row)
		return -1;
	for (int64_t r = from; r < to; r++) {
		if (step(w) < 0) {
			free(row);
			return -1;
		}
		matrix_widen(&m, r, 0, (int)n, row);
		double sum = 0;
		for (size_t c = 0; c < n; c++) {
			double square = (double)row[c] * (double)row[c];
			sum += square;
			if (by_column)
				by_column[c] += square;
		}
		if (by_row)
			by_row[r - from] += sum;
	}
	free(row);
	return 0;
}

int norms_squares(const struct tensor *t, int64_t from, int64_t to, double *by_row,
				  double *by_column, struct error *err)
{
	struct walk w = {.err = err};
	return squares(t, from, to, by_row, by_column, &w);
}

static int columns(const struct tensor *t, double *sums, struct walk *w)
{
	return squares(t, 0, t->shape[0], NULL, sums, w);
}

static int rows(const struct tensor *t, double *sums, struct walk *w)
{
	return squares(t, 0, t->shape[0], sums, NULL, w);
}

static int hidden(const struct model *model, int layer, double *sums, struct walk *w)
{
	const struct weights *all = &model->weights;
	if (layer < 0) {
		int status = columns(&all->embeddings, sums, w);
		return status < 0 || all->lm_head.data == all->embeddings.data
				   ? status
				   : columns(&all->lm_head, sums, w);
	}
	const struct layer_weights *l = &all->layers[layer];
	switch ((enum layer_kind)model->config.kinds[layer]) {
	case LAYER_MAMBA: return columns(&l->in_proj, sums, w);
	case LAYER_ATTENTION:
		return columns(&l->q, sums, w) < 0 || columns(&l->k, sums, w) < 0 ? -1
																		  : columns(&l->v, sums, w);
	case LAYER_MOE:
		if (l->shared_up.data && columns(&l->shared_up, sums, w) < 0)
			return -1;
		return columns(&l->gate, sums, w);
	case LAYER_MLP: return columns(&l->mlp_up, sums, w);
	}
	return fail(w->err, "layer %d is of no known kind", layer);
}

static int ffn(const struct tensor *up, const struct tensor *down, double *sums, struct walk *w)
{
	return rows(up, sums, w) < 0 ? -1 : columns(down, sums, w);
}

/* AXIS_EXPERTS: an expert's channels added up. AXIS_EXPERT_FFN: each channel's mean over experts of
 * its norm (the root is taken before the mean). */
static int experts(const struct model *model, enum axis axis, int layer, double *sums,
				   struct walk *w)
{
	const struct layer_weights *l = &model->weights.layers[layer];
	int n = model->config.moe_intermediate_size, n_experts = model->config.n_routed_experts;
	double *one = mem_new((size_t)n, sizeof *one, w->err);
	int status = one ? 0 : -1;
	for (int e = 0; e < n_experts && status == 0; e++) {
		memset(one, 0, (size_t)n * sizeof *one);
		status = ffn(&l->up[e], &l->down[e], one, w);
		for (int i = 0; i < n; i++)
			sums[axis == AXIS_EXPERTS ? e : i] +=
				axis == AXIS_EXPERTS ? one[i] : sqrt(one[i]) / n_experts;
	}
	for (int i = 0; i < n && axis == AXIS_EXPERT_FFN; i++)
		sums[i] *= sums[i];
	free(one);
	return status;
}

/* x rows of in_proj follow z: row inner + head * head_dim + channel. */
static int mamba(const struct model *model, enum axis axis, int layer, double *sums, struct walk *w)
{
	const struct config *c = &model->config;
	int inner = config_inner(c);
	double *x = mem_new((size_t)inner, sizeof *x, w->err);
	if (!x || squares(&model->weights.layers[layer].in_proj, inner, 2 * inner, x, NULL, w) < 0) {
		free(x);
		return -1;
	}
	for (int i = 0; i < inner; i++)
		sums[axis == AXIS_MAMBA_HEADS ? i / c->mamba_head_dim : i % c->mamba_head_dim] += x[i];
	free(x);
	return 0;
}

static int attention(const struct model *model, int layer, double *sums, struct walk *w)
{
	const struct config *c = &model->config;
	const struct layer_weights *l = &model->weights.layers[layer];
	int n = c->num_attention_heads * c->head_dim;
	double *each = mem_new((size_t)n, sizeof *each, w->err);
	if (!each || ffn(&l->q, &l->o, each, w) < 0) {
		free(each);
		return -1;
	}
	for (int i = 0; i < n; i++)
		sums[i / c->head_dim] += each[i];
	free(each);
	return 0;
}

/* About how many rows of matrices will be read, for the progress alone. */
static int64_t rows_of(const struct model *model, enum axis axis, int layer, int expert)
{
	const struct config *c = &model->config;
	int64_t both = (int64_t)c->hidden_size + c->moe_intermediate_size;
	if (axis == AXIS_HIDDEN && layer < 0)
		return 2ll * c->vocab_size;
	return axis == AXIS_EXPERTS || (axis == AXIS_EXPERT_FFN && expert < 0)
			   ? both * c->n_routed_experts
			   : both;
}

int norms_of(const struct model *model, enum axis axis, int layer, int expert,
			 const struct norms_watch *watch, float *out, struct error *err)
{
	struct walk walk = {.watch = watch, .total = rows_of(model, axis, layer, expert), .err = err};
	struct walk *w = &walk;
	int n = axis_parent_width(axis, &model->config), status = 0;
	double *sums = mem_new((size_t)n, sizeof *sums, err);
	if (!sums)
		return -1;
	const struct layer_weights *l = layer < 0 ? NULL : &model->weights.layers[layer];
	switch (axis) {
	case AXIS_HIDDEN: status = hidden(model, layer, sums, w); break;
	case AXIS_EXPERT_FFN:
		status = expert < 0 ? experts(model, axis, layer, sums, w)
							: ffn(&l->up[expert], &l->down[expert], sums, w);
		break;
	case AXIS_EXPERTS: status = experts(model, axis, layer, sums, w); break;
	case AXIS_SHARED_FFN: status = ffn(&l->shared_up, &l->shared_down, sums, w); break;
	case AXIS_FFN: status = ffn(&l->mlp_up, &l->mlp_down, sums, w); break;
	case AXIS_MAMBA_HEADS:
	case AXIS_MAMBA_CHANNELS: status = mamba(model, axis, layer, sums, w); break;
	case AXIS_ATTENTION_HEADS: status = attention(model, layer, sums, w); break;
	case N_AXES: break;
	}
	for (int i = 0; i < n; i++)
		out[i] = (float)sqrt(sums[i]);
	free(sums);
	return status;
}
