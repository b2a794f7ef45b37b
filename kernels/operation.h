/*
 * The arguments of the backend's operations, and what each computes: the equations that the CPU
 * reference follows and every other backend is tested against. Pointers are device memory, unless a
 * comment says host (`struct matrix` is host memory); shapes have the slowest axis first, n is
 * tokens. Nothing is owned here.
 */
#ifndef KERNELS_OPERATION_H
#define KERNELS_OPERATION_H

#include "kernels/pick.h"
#include "kernels/tensor.h"
#include <stdbool.h>
#include <stdint.h>

/* y = table[id], n tokens. */
struct embed_op {
	const struct matrix *table; // (vocab, hidden)
	const int32_t *ids;         // (n)
	float *y;                   // (n, table->n_columns)
	int n;
};

/* y = x / sqrt(sum(x^2) / count + eps) * scale * weight. count is the kept width unless an
 * experiment says otherwise. y may be x. */
struct norm_op {
	const float *x, *weight; // (n, width), (width)
	float *y;                // (n, width)
	int n, width;
	float count, eps, scale;
};

enum linear_mode {
	LINEAR_SET,   // y = W x
	LINEAR_ADD,   // y += W x
	LINEAR_RELU2, // y = max(W x, 0)^2
};

struct linear_op {
	const struct matrix *w; // kept (n_rows, n_columns)
	const float *x;         // (n, n_columns)
	float *y;               // (n, n_rows)
	int n;
	enum linear_mode mode;
	bool precise; // F32 activations even in MATH_FAST: the router, where a rounding flips an expert
};

/* Causal depthwise convolution over the last `kernel` inputs, then SiLU:
 * y[t,c] = silu(bias[c] + sum_k weight[c,k] * x[t - kernel + 1 + k, c]); state = the kernel - 1 raw
 * rows before x, oldest first, at the parent's full width; channels that are not kept stay as they
 * are. */
struct conv_op {
	const float *x; // (n, channels), rows x_stride apart
	int64_t x_stride;
	const float *weight, *bias; // (channels, kernel), (channels)
	float *y;                   // (n, channels)
	float *state;               // (kernel - 1, state_channels), updated
	const int32_t *channel;     // (channels): packed -> stored channel
	int n, channels, state_channels, kernel;
};

/* Mamba-2 recurrence. x, B and C stand side by side in xbc as conv_op leaves them; per token and
 * head h with its group g = head_group[h]:
 *
 *   d = softplus(dt[h] + dt_bias[h]), softplus(v) = v > 20 ? v : log1p(exp(v)), no clamp
 *   S[h,p,:] = exp(d * a[h]) * S[h,p,:] + d * x[h,p] * B[g,:]
 *   y[h,p] = S[h,p,:] . C[g,:] + D[h] * x[h,p]
 */
struct ssm_op {
	const float *xbc; // (n, n_heads*head_dim + 2*n_groups*state_size)
	const float *dt;  // (n, n_heads), rows dt_stride apart
	int64_t dt_stride;
	const float *a, *d, *dt_bias; // (n_heads); a = -exp(A_log)
	const int32_t *head_group;    // (n_heads)
	const int32_t *state_row;     // (n_heads*head_dim): packed -> stored row of state
	float *state;                 // (stored rows, state_size), updated
	float *y;                     // (n, n_heads*head_dim)
	int n, n_heads, head_dim, n_groups, state_size;
};

/* v = y * silu(z), then RMSNorm over each group of channels [group_start[g], group_start[g+1]), sum
 * of squares divided by count[g]; y = v * r * scale * weight, in place. Where the next operation is
 * the product that reads y, a backend may make it there: y is undefined after that. */
struct gated_norm_op {
	float *y;       // (n, width), updated
	const float *z; // (n, width), rows z_stride apart
	int64_t z_stride;
	const float *weight;        // (width)
	const int32_t *group_start; // (n_groups + 1)
	const float *count;         // (n_groups)
	int n, width, n_groups;
	float eps, scale;
};

/* Appends n rows of k and v at *length, attends causally (token t sees *length + t + 1 rows), then
 * *length += n. No positions, no bias; softmax in F32. The cache is at the parent's full width, in
 * the device's kv_dtype; capacity was checked by the caller. FP8: k = e4m3(cache) * k_scale, and v
 * likewise; appending rounds k / k_scale to nearest and saturates. */
struct attention_op {
	const float *q, *k, *v;  // (n, n_heads, head_dim), (n, n_kv_heads, head_dim) twice
	void *k_cache, *v_cache; // (capacity, n_kv_heads, head_dim)
	int32_t *length;         // rows in the cache; device memory, per layer
	const int32_t *kv_head;  // (n_heads): which KV head a query head uses
	float *y;                // (n, n_heads, head_dim)
	int n, n_heads, n_kv_heads, head_dim;
	float scale;            // 1 / sqrt(head_dim)
	float k_scale, v_scale; // read with a cache in FP8 only
};

/* s = sigmoid(logits); the top_k largest of s + bias (ties: the lower index); weights = s of the
 * chosen, divided by (their sum + 1e-20) if normalise, times scale. ids ascend and index the kept
 * experts. */
struct route_op {
	const float *logits, *bias; // (n, n_experts), (n_experts): -INFINITY forbids, +INFINITY forces
	/* NULL, or the choice made elsewhere, (n, top_k): kept experts, ascending, then -1s. These are
	 * taken whatever their score, weights are their own s as above; where a row has fewer than
	 * top_k, others fill the list with weight 0. */
	const int32_t *given;
	int32_t *ids;   // (n, top_k)
	float *weights; // (n, top_k)
	int n, n_experts, top_k;
	bool normalise;
	float scale;
};

/* y += sum over the chosen experts of weight * down_e( relu2( up_e x ) ). hidden is scratch of the
 * lane. */
struct experts_op {
	const struct matrix *up, *down; // host; one an expert, all of the same spans: (ffn, width),
									// (width, ffn)
	const struct placed *placed_up, *placed_down; // the same in device memory (n_experts)
	const float *x;                               // (n, width)
	const int32_t *ids;                           // (n, top_k)
	const float *weights;                         // (n, top_k)
	float *hidden; // (n, top_k, ffn), scratch; holds the activations afterwards, if asked to
	float *y;      // (n, width)
	int n, n_experts, top_k, width, ffn;
	bool keep_hidden;
	/* NULL, or (n, top_k): L2 norm of each chosen expert's output, before its weight. */
	float *norms;
};

#endif
