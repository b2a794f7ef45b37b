#include "inspect/sums.h"

#include "base/memory.h"
#include "inspect/rank.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

/* ---- memory ---- */

static double *take(struct sums *s, size_t n)
{
	double *at = s->all ? s->all + s->n : NULL;
	s->n += n;
	return at;
}

/* Once without a block, to count, then with it. */
static void lay_out(struct sums *s)
{
	const struct config *c = s->config;
	size_t experts = (size_t)c->n_routed_experts;
	s->n = 0;
	for (int i = 0; i < c->n_layers; i++) {
		struct layer_sums *l = &s->layers[i];
		l->hidden = take(s, (size_t)c->hidden_size);
		switch ((enum layer_kind)c->kinds[i]) {
		case LAYER_MAMBA: l->squares = take(s, (size_t)config_inner(c)); break;
		case LAYER_ATTENTION: l->heads = take(s, (size_t)c->num_attention_heads); break;
		case LAYER_MOE:
			l->experts = take(s, experts * (size_t)c->moe_intermediate_size);
			l->reap = take(s, experts);
			l->count = take(s, experts);
			l->ffn = take(s, (size_t)c->moe_shared_expert_intermediate_size);
			break;
		case LAYER_MLP: l->ffn = take(s, (size_t)c->intermediate_size); break;
		}
	}
	s->difference = take(s, (size_t)c->n_layers);
	s->energy = take(s, 1);
	s->tokens = take(s, 1);
}

int sums_open(struct sums *s, const struct config *config, struct error *err)
{
	size_t pairs = (size_t)PREFILL_CHUNK * (size_t)config->num_experts_per_tok;
	*s = (struct sums){.config = config};
	s->layers = mem_new((size_t)config->n_layers, sizeof *s->layers, err);
	s->chosen = s->layers ? mem_new(pairs, sizeof *s->chosen, err) : NULL;
	s->weights = s->chosen ? mem_new(pairs, sizeof *s->weights, err) : NULL;
	if (s->weights) {
		lay_out(s);
		s->all = mem_new(s->n, sizeof *s->all, err);
	}
	if (!s->all) {
		sums_close(s);
		return -1;
	}
	lay_out(s);
	return 0;
}

void sums_close(struct sums *s)
{
	free(s->all);
	free(s->layers);
	free(s->chosen);
	free(s->weights);
	*s = (struct sums){0};
}

void sums_clear(struct sums *s)
{
	memset(s->all, 0, s->n * sizeof *s->all);
}

void sums_add(struct sums *to, const struct sums *from)
{
	for (size_t i = 0; i < to->n; i++)
		to->all[i] += from->all[i];
}

/* ---- what a tap adds ---- */

static void add_absolute(double *sum, const float *v, int n, int width)
{
	for (int t = 0; t < n; t++, v += width)
		for (int i = 0; i < width; i++)
			sum[i] += fabs((double)v[i]);
}

static void add_squares(double *sum, const float *v, int n, int width)
{
	for (int t = 0; t < n; t++, v += width)
		for (int i = 0; i < width; i++)
			sum[i] += (double)v[i] * (double)v[i];
}

static void add_norms(double *sum, const float *v, int n, int heads, int width)
{
	for (int t = 0; t < n; t++)
		for (int h = 0; h < heads; h++, v += width) {
			double square = 0;
			for (int i = 0; i < width; i++)
				square += (double)v[i] * (double)v[i];
			sum[h] += sqrt(square);
		}
}

/* The rows of TAP_EXPERT_FFN and TAP_EXPERT_NORM belong to the experts that TAP_EXPERTS named. */
static void keep_experts(struct sums *s, const struct tapped *t)
{
	size_t pairs = (size_t)t->n * (size_t)t->width;
	memcpy(s->chosen, t->ids, pairs * sizeof *s->chosen);
	memcpy(s->weights, t->values, pairs * sizeof *s->weights);
	for (size_t i = 0; i < pairs; i++)
		s->layers[t->layer].count[t->ids[i]]++;
}

static void add_experts(struct sums *s, const struct tapped *t)
{
	struct layer_sums *l = &s->layers[t->layer];
	int top_k = s->config->num_experts_per_tok, ffn = t->width / top_k;
	for (int i = 0; i < t->n * top_k; i++)
		add_absolute(l->experts + (size_t)s->chosen[i] * (size_t)ffn,
					 t->values + (size_t)i * (size_t)ffn, 1, ffn);
}

void sums_see(void *user, const struct tapped *t)
{
	struct sums *s = user;
	struct layer_sums *l = &s->layers[t->layer];
	switch (t->tap) {
	case TAP_MIXER_INPUT: add_absolute(l->hidden, t->values, t->n, t->width); break;
	case TAP_FFN: add_absolute(l->ffn, t->values, t->n, t->width); break;
	case TAP_MAMBA_PROJECTED: add_squares(l->squares, t->values, t->n, t->width); break;
	case TAP_ATTENTION_OUT:
		add_norms(l->heads, t->values, t->n, s->config->num_attention_heads, s->config->head_dim);
		break;
	case TAP_EXPERTS: keep_experts(s, t); break;
	case TAP_EXPERT_FFN: add_experts(s, t); break;
	case TAP_EXPERT_NORM:
		for (int i = 0; i < t->n * t->width; i++)
			l->reap[s->chosen[i]] += (double)s->weights[i] * (double)t->values[i];
		break;
	default: break;
	}
}

/* ---- scores ---- */

static void over(const double *sums, int64_t n, double by, float *out)
{
	for (int64_t i = 0; i < n; i++)
		out[i] = by > 0 ? (float)(sums[i] / by) : 0;
}

/* mamba_head_dim: sqrt over heads of the mean squares. */
static void score_channels(const struct sums *s, const double *squares, float *out)
{
	int heads = s->config->mamba_num_heads, width = s->config->mamba_head_dim;
	for (int d = 0; d < width; d++) {
		double sum = 0;
		for (int h = 0; h < heads; h++)
			sum += squares[h * width + d];
		out[d] = *s->tokens > 0 ? (float)sqrt(sum / *s->tokens) : 0;
	}
}

static int score_heads(const struct sums *s, const double *squares, float *out, struct error *err)
{
	int heads = s->config->mamba_num_heads, width = s->config->mamba_head_dim;
	float *channels = mem_new((size_t)width, sizeof *channels, err);
	int *order = channels ? mem_new((size_t)width, sizeof *order, err) : NULL;
	int status = -1;
	if (order) {
		score_channels(s, squares, channels);
		status = rank_order(channels, width, order, err);
	}
	for (int h = 0; h < heads && status == 0; h++) {
		double sum = 0;
		for (int k = 0; k < (width + 1) / 2; k++)
			sum += squares[h * width + order[k]];
		out[h] = *s->tokens > 0 ? (float)sqrt(sum / *s->tokens) : 0;
	}
	free(order);
	free(channels);
	return status;
}

static void score_hidden(const struct sums *s, float *out)
{
	for (int j = 0; j < s->config->hidden_size; j++) {
		double sum = 0;
		for (int i = 0; i < s->config->n_layers; i++)
			sum += s->layers[i].hidden[j];
		out[j] = *s->tokens > 0 ? (float)(sum / *s->tokens) : 0;
	}
}

int sums_score(const struct sums *s, const struct score_row *row, float *out, struct error *err)
{
	const struct layer_sums *l = row->layer < 0 ? NULL : &s->layers[row->layer];
	int64_t width = row->shape[row->n_dims - 1];
	switch (row->kind) {
	case SCORE_HIDDEN: score_hidden(s, out); break;
	case SCORE_HIDDEN_LAYERS:
		for (int i = 0; i < s->config->n_layers; i++)
			over(s->layers[i].hidden, width, *s->tokens, out + i * width);
		break;
	case SCORE_CHANNELS:
		if (row->n_dims == 1)
			over(l->ffn, width, *s->tokens, out);
		for (int64_t e = 0; row->n_dims == 2 && e < row->shape[0]; e++)
			over(l->experts + e * width, width, l->count[e], out + e * width);
		break;
	case SCORE_HEADS:
		if (row->axis == AXIS_MAMBA_HEADS)
			return score_heads(s, l->squares, out, err);
		if (row->axis == AXIS_MAMBA_CHANNELS)
			score_channels(s, l->squares, out);
		else
			over(l->heads, width, *s->tokens, out);
		break;
	case SCORE_REAP:
		for (int64_t e = 0; e < width; e++)
			over(l->reap + e, 1, l->count[e], out + e);
		break;
	case SCORE_COUNT: over(l->count, width, *s->tokens, out); break;
	case SCORE_LAYERS: over(s->difference, width, *s->energy, out); break;
	}
	return 0;
}
