/*
 * Whole-tensor operations behind a const table: core/forward.c is written once over it. The CPU
 * table (cpu.c) is complete and is the reference for any other, operation by operation.
 *
 * An operation gets the arguments of all lanes of a pass at once (1..MAX_LANES: one for chat,
 * several for variants side by side), and reads every stored weight row once for all lanes that
 * share the matrix. Activations are F32 and packed to the lane's own width, so no operation knows
 * about slicing except through `struct matrix` and index lists. Pointers are device memory from
 * alloc() or adopt().
 *
 * Operations return nothing: the device keeps its first failure and finish() returns it, so that
 * the forward pass reads as mathematics. Results for a token do not depend on the number of
 * threads, on the number of tokens in the call, nor on the other lanes: prefill and decode agree
 * bit for bit.
 */
#ifndef KERNELS_BACKEND_H
#define KERNELS_BACKEND_H

#include "base/error.h"
#include "kernels/tensor.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_LANES 4
#define N_ALTERNATIVES 5

struct device; // one opened backend: threads or a card, its scratch, its first failure

enum math { MATH_EXACT, MATH_FAST };
// EXACT: F32 activations, sums and KV. FAST: bf16 products where the processor gains by them, BF16
// KV.

struct device_options {
	int n_threads; // 0 = all CPUs the process may use
	enum math math;
	enum dtype kv_dtype; // F32 or BF16
};

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
 * head h, group g = head_group[h], d = softplus(dt + dt_bias), softplus(v) = v > 20 ? v :
 * log1p(exp(v)), no clamp: S[h,p,:] = exp(d * a[h]) * S[h,p,:] + d * x[h,p] * B[g,:];  y[h,p] =
 * S[h,p,:] . C[g,:] + D[h] * x[h,p] */
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
 * of squares divided by count[g]; y = v * r * scale * weight, in place. */
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
 * the device's kv_dtype; capacity was checked by the caller. */
struct attention_op {
	const float *q, *k, *v;  // (n, n_heads, head_dim), (n, n_kv_heads, head_dim) twice
	void *k_cache, *v_cache; // (capacity, n_kv_heads, head_dim)
	int32_t *length;         // rows in the cache; device memory, per layer
	const int32_t *kv_head;  // (n_heads): which KV head a query head uses
	float *y;                // (n, n_heads, head_dim)
	int n, n_heads, n_kv_heads, head_dim;
	float scale; // 1 / sqrt(head_dim)
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
	const struct matrix *up, *down; // one an expert: (ffn, width), (width, ffn)
	const float *x;                 // (n, width)
	const int32_t *ids;             // (n, top_k)
	const float *weights;           // (n, top_k)
	float *hidden;                  // (n, top_k, ffn), scratch; holds the activations afterwards
	float *y;                       // (n, width)
	int n, n_experts, top_k, width, ffn;
};

/* How an id is chosen. The id is a pure function of logits, these and position: noise is a hash of
 * (seed, position, id), argmax of logit / temperature + Gumbel noise over what the filters leave.
 */
struct pick_params {
	uint64_t seed;
	float temperature; // 0 = greedy (ties: the lower id)
	float top_p;       // 1 = off
	float min_p;       // 0 = off
	int32_t top_k;     // 0 = off
	int32_t forced;    // >= 0: this id is taken; its logprob is still the model's
};

struct picked {
	int32_t id;
	float logprob; // natural log of softmax(logits)[id], before temperature and filters
	float entropy; // of softmax(logits), nats, before temperature and filters
	struct {
		int32_t id;
		float logprob;
	} top[N_ALTERNATIVES]; // the most probable, best first; id -1 where the vocabulary is smaller
};

struct pick_op {
	const float *logits; // (vocab)
	int vocab;
	int64_t position; // of the token that is being chosen
	struct pick_params params;
	struct picked *out; // host memory, valid after finish()
};

enum step { STEP_RUN, STEP_REPLAYED };

struct backend {
	const char *name; // "cpu"

	struct device *(*open)(const struct device_options *options, struct error *err);
	void (*close)(struct device *device); // takes NULL
	const char *(*rung)(
		const struct device *device); // which kernels run: "c", "avx2", "avx512", ...
	int (*threads)(const struct device *device);

	/* Memory: zeroed; NULL and err without memory. adopt gives the device's address of weights that
	 * lie in a mapping (the CPU: the same address). */
	void *(*alloc)(struct device *device, size_t bytes, struct error *err);
	void (*release)(struct device *device, void *memory); // takes NULL
	const void *(*adopt)(struct device *device, const void *host, size_t bytes, struct error *err);
	void (*upload)(struct device *device, void *to, const void *from, size_t bytes);
	void (*download)(struct device *device, void *to, const void *from, size_t bytes);
	void (*copy)(struct device *device, void *to, const void *from, size_t bytes);
	void (*zero)(struct device *device, void *memory, size_t bytes);

	/* A pass: begin, operations, finish. A device that recorded this pass (key) may answer
	 * REPLAYED: the caller goes straight to finish. finish waits and returns the device's first
	 * failure, once. */
	enum step (*begin)(struct device *device, uint64_t key);
	int (*finish)(struct device *device, struct error *err);

	void (*embed)(struct device *device, int n_lanes, const struct embed_op *op);
	void (*norm)(struct device *device, int n_lanes, const struct norm_op *op);
	void (*linear)(struct device *device, int n_lanes, const struct linear_op *op);
	void (*conv)(struct device *device, int n_lanes, const struct conv_op *op);
	void (*ssm)(struct device *device, int n_lanes, const struct ssm_op *op);
	void (*gated_norm)(struct device *device, int n_lanes, const struct gated_norm_op *op);
	void (*attention)(struct device *device, int n_lanes, const struct attention_op *op);
	void (*route)(struct device *device, int n_lanes, const struct route_op *op);
	void (*experts)(struct device *device, int n_lanes, const struct experts_op *op);
	void (*pick)(struct device *device, int n_lanes, const struct pick_op *op);
};

extern const struct backend backend_cpu;

#endif
