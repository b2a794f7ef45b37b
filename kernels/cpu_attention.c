/*
 * Causal attention over the cache (spec: attention), softmax online over blocks of cache rows.
 * Blocks start at multiples of BLOCK whatever the call, so a token's result is the same in prefill
 * and decode.
 */
#include "kernels/convert.h"
#include "kernels/cpu_device.h"
#include <math.h>
#include <string.h>

#define BLOCK 64 // rows of the cache
#define HEADS 16 // query heads that share a pass over K and V
#define TOKENS 8 // and tokens

struct attention_job {
	const struct cpu_rung *rung;
	const struct attention_op *op;
	enum dtype kv_dtype;
	int n_lanes;
};

/* What a head has summed up so far: y = sum of weighted values, relative to e^max. */
struct head {
	float max, sum;
	float *y; // (head_dim)
};

/* One head over one block: scores become weights, and the sums so far are scaled to the new
 * maximum. */
static void softmax_block(const struct cpu_rung *rung, const struct attention_op *o, float *p,
						  int n, struct head *head)
{
	float top = head->max;
	for (int j = 0; j < n; j++) {
		p[j] *= o->scale;
		top = p[j] > top ? p[j] : top;
	}
	if (top > head->max) {
		float shrink = expf(head->max - top);
		for (int i = 0; i < o->head_dim; i++)
			head->y[i] *= shrink;
		head->sum *= shrink;
		head->max = top;
	}
	for (int j = 0; j < n; j++)
		p[j] -= top;
	rung->exp(p, n);
	for (int j = 0; j < n; j++)
		head->sum += p[j];
}

/* What a part works on at a time: tokens first, first + step, ..., and heads that share a KV head.
 */
struct group {
	int first, step, n_tokens;
	int head, n_heads;
};

/* Token t's heads over the cache rows [row, row + n_block). */
static void attend_block(const struct attention_job *job, const struct attention_op *o,
						 const struct group *g, int t, int64_t row, int n_block, struct head *head)
{
	float p[HEADS][BLOCK];
	const void *q[HEADS];
	int64_t stride = (int64_t)o->n_kv_heads * o->head_dim;
	int64_t at = row * stride + (int64_t)o->kv_head[g->head] * o->head_dim;
	size_t offset = (size_t)at * dtype_bytes(job->kv_dtype);
	for (int i = 0; i < g->n_heads; i++)
		q[i] = o->q + ((int64_t)t * o->n_heads + g->head + i) * o->head_dim;
	struct product scores = {.w = (const char *)o->k_cache + offset,
							 .x = q,
							 .out = p[0],
							 .w_stride = stride,
							 .out_stride = BLOCK,
							 .n_w = n_block,
							 .n_x = g->n_heads,
							 .n = o->head_dim,
							 .scale = o->k_scale};
	struct blend values = {.y = head[0].y,
						   .a = p[0],
						   .v = (const char *)o->v_cache + offset,
						   .y_stride = o->head_dim,
						   .a_stride = BLOCK,
						   .v_stride = stride,
						   .n_y = g->n_heads,
						   .n_v = n_block,
						   .n = o->head_dim};
	if (job->kv_dtype == DTYPE_F32)
		job->rung->dot_f32(&scores);
	else if (job->kv_dtype == DTYPE_BF16)
		job->rung->dot_bf16(&scores);
	else
		job->rung->dot_f8(&scores);
	for (int i = 0; i < g->n_heads; i++)
		softmax_block(job->rung, o, p[i], n_block, &head[i]);
	if (job->kv_dtype == DTYPE_F32)
		job->rung->blend_f32(&values);
	else if (job->kv_dtype == DTYPE_BF16)
		job->rung->blend_bf16(&values);
	else
		job->rung->blend_f8(&values);
}

/* Blocks outside, tokens inside: a block of K and V is read from memory once a group. */
static void attend(const struct attention_job *job, const struct attention_op *o,
				   const struct group *g)
{
	struct head head[TOKENS][HEADS];
	size_t n_y = (size_t)g->n_heads * (size_t)o->head_dim;
	for (int k = 0; k < g->n_tokens; k++) {
		int64_t t = g->first + k * g->step;
		float *y = o->y + (t * o->n_heads + g->head) * o->head_dim;
		memset(y, 0, n_y * sizeof *y);
		for (int i = 0; i < g->n_heads; i++)
			head[k][i] = (struct head){-INFINITY, 0, y + (int64_t)i * o->head_dim};
	}
	int last = g->first + (g->n_tokens - 1) * g->step;
	for (int64_t row = 0; row <= (int64_t)*o->length + last; row += BLOCK)
		for (int k = 0; k < g->n_tokens; k++) {
			int t = g->first + k * g->step;
			int64_t n = (int64_t)*o->length + t + 1 - row; // rows that t sees from here on
			if (n > 0)
				attend_block(job, o, g, t, row, n < BLOCK ? (int)n : BLOCK, head[k]);
		}
	float unit = job->kv_dtype == DTYPE_F8_E4M3 ? o->v_scale : 1;
	for (int k = 0; k < g->n_tokens; k++)
		for (int i = 0; i < g->n_heads; i++)
			for (int j = 0; j < o->head_dim; j++)
				head[k][i].y[j] = head[k][i].y[j] / head[k][i].sum * unit;
}

/* The group's tokens, heads [from, to), in runs that share a KV head. */
static void attend_heads(const struct attention_job *job, const struct attention_op *o,
						 struct group g, int from, int to)
{
	for (g.head = from; g.head < to; g.head += g.n_heads) {
		g.n_heads = 1;
		while (g.head + g.n_heads < to && g.n_heads < HEADS &&
			   o->kv_head[g.head + g.n_heads] == o->kv_head[g.head])
			g.n_heads++;
		attend(job, o, &g);
	}
}

static void attention_task(void *argument, int part, int n_parts)
{
	const struct attention_job *job = argument;
	for (const struct attention_op *o = job->op; o < job->op + job->n_lanes; o++) {
		int from = 0, to = o->n_heads, first = 0, step = 1;
		if (o->n >= n_parts) { // later tokens see more: deal them out in turn
			first = part;
			step = n_parts;
		} else {
			pool_share(part, n_parts, o->n_heads, 1, &from, &to);
		}
		for (int t = first; t < o->n; t += TOKENS * step) {
			int left = (o->n - t + step - 1) / step;
			struct group g = {.first = t, .step = step, .n_tokens = left < TOKENS ? left : TOKENS};
			attend_heads(job, o, g, from, to);
		}
	}
}

/* scale: FP8's, which the cache does not hold. */
static void append(void *cache, const float *rows, int64_t at, int64_t n, enum dtype dtype,
				   float scale)
{
	uint16_t *narrow = (uint16_t *)cache + at;
	uint8_t *codes = (uint8_t *)cache + at;
	if (dtype == DTYPE_F32)
		memcpy((float *)cache + at, rows, (size_t)n * sizeof(float));
	if (dtype == DTYPE_BF16)
		convert_to_bf16(rows, (size_t)n, narrow);
	for (int64_t i = 0; dtype == DTYPE_F8_E4M3 && i < n; i++)
		codes[i] = f32_to_e4m3(rows[i] / scale);
}

void cpu_attention(struct device *device, int n_lanes, const struct attention_op *op)
{
	if (device->failed)
		return;
	double work = 0;
	for (const struct attention_op *o = op; o < op + n_lanes; o++) {
		int64_t width = (int64_t)o->n_kv_heads * o->head_dim;
		append(o->k_cache, o->k, *o->length * width, o->n * width, device->kv_dtype, o->k_scale);
		append(o->v_cache, o->v, *o->length * width, o->n * width, device->kv_dtype, o->v_scale);
		work += 2.0 * o->n * ((double)*o->length + o->n) * o->n_heads * o->head_dim;
	}
	struct attention_job job = {device->rung, op, device->kv_dtype, n_lanes};
	device_run(device, work, attention_task, &job);
	for (const struct attention_op *o = op; o < op + n_lanes; o++)
		*o->length += o->n;
}
