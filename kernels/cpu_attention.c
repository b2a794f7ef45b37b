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
#define HEADS 16 // query heads that share a pass over K

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

/* Heads [h, h + n) of token t; they share a KV head. */
static void attend(const struct attention_job *job, const struct attention_op *o, int t, int h,
				   int n)
{
	float p[HEADS][BLOCK];
	struct head head[HEADS];
	const void *q[HEADS];
	float *y = o->y + ((int64_t)t * o->n_heads + h) * o->head_dim;
	int64_t stride = (int64_t)o->n_kv_heads * o->head_dim;
	int64_t n_rows = (int64_t)*o->length + t + 1;
	size_t element = dtype_bytes(job->kv_dtype);
	bool narrow = job->kv_dtype == DTYPE_BF16;
	memset(y, 0, (size_t)n * (size_t)o->head_dim * sizeof *y);
	for (int i = 0; i < n; i++) {
		q[i] = o->q + ((int64_t)t * o->n_heads + h + i) * o->head_dim;
		head[i] = (struct head){-INFINITY, 0, y + (int64_t)i * o->head_dim};
	}
	for (int64_t row = 0; row < n_rows; row += BLOCK) {
		int n_block = n_rows - row < BLOCK ? (int)(n_rows - row) : BLOCK;
		size_t at = (size_t)(row * stride + (int64_t)o->kv_head[h] * o->head_dim) * element;
		const char *k = (const char *)o->k_cache + at, *v = (const char *)o->v_cache + at;
		struct product scores = {.w = k,
								 .w_stride = stride,
								 .n_w = n_block,
								 .x = q,
								 .n_x = n,
								 .n = o->head_dim,
								 .out = p[0],
								 .out_stride = BLOCK};
		if (narrow)
			job->rung->dot_bf16(&scores);
		else
			job->rung->dot_f32(&scores);
		for (int i = 0; i < n; i++) {
			softmax_block(job->rung, o, p[i], n_block, &head[i]);
			if (narrow)
				job->rung->blend_bf16(head[i].y, p[i], (const void *)v, stride, n_block,
									  o->head_dim);
			else
				job->rung->blend_f32(head[i].y, p[i], (const void *)v, stride, n_block,
									 o->head_dim);
		}
	}
	for (int i = 0; i < n; i++)
		for (int j = 0; j < o->head_dim; j++)
			head[i].y[j] /= head[i].sum;
}

/* Heads [from, to) of token t, in groups that share a KV head. */
static void attend_heads(const struct attention_job *job, const struct attention_op *o, int t,
						 int from, int to)
{
	for (int h = from; h < to;) {
		int n = 1;
		while (h + n < to && n < HEADS && o->kv_head[h + n] == o->kv_head[h])
			n++;
		attend(job, o, t, h, n);
		h += n;
	}
}

static void attention_task(void *argument, int part, int n_parts)
{
	const struct attention_job *job = argument;
	for (const struct attention_op *o = job->op; o < job->op + job->n_lanes; o++) {
		if (o->n >= n_parts) { // later tokens see more: deal them out in turn
			for (int t = part; t < o->n; t += n_parts)
				attend_heads(job, o, t, 0, o->n_heads);
			continue;
		}
		for (int t = 0; t < o->n; t++) {
			int from, to;
			pool_share(part, n_parts, o->n_heads, 1, &from, &to);
			attend_heads(job, o, t, from, to);
		}
	}
}

static void append(void *cache, const float *rows, int64_t at, int64_t n, enum dtype dtype)
{
	if (dtype == DTYPE_F32) {
		memcpy((float *)cache + at, rows, (size_t)n * sizeof(float));
		return;
	}
	uint16_t *narrow = (uint16_t *)cache + at;
	for (int64_t i = 0; i < n; i++)
		narrow[i] = f32_to_bf16(rows[i]);
}

void cpu_attention(struct device *device, int n_lanes, const struct attention_op *op)
{
	if (device->failed)
		return;
	double work = 0;
	for (const struct attention_op *o = op; o < op + n_lanes; o++) {
		int64_t width = (int64_t)o->n_kv_heads * o->head_dim;
		append(o->k_cache, o->k, *o->length * width, o->n * width, device->kv_dtype);
		append(o->v_cache, o->v, *o->length * width, o->n * width, device->kv_dtype);
		work += 2.0 * o->n * ((double)*o->length + o->n) * o->n_heads * o->head_dim;
	}
	struct attention_job job = {device->rung, op, device->kv_dtype, n_lanes};
	device_run(device, work, attention_task, &job);
	for (const struct attention_op *o = op; o < op + n_lanes; o++)
		*o->length += o->n;
}
