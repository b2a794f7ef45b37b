/*
 * The plan for one budget: every weight as row spans x column spans of the stored tensor, norm
 * counts and scales, a selection bias per expert. No matrix is copied: the spans point into the
 * checkpoint's one mapping (or a device's one upload). Only vectors (norms, conv, A_log, D,
 * dt_bias, gate bias), less than a thousandth of the weights, are widened to F32 and packed, once,
 * when the slice is built; there every shape is checked. A slice never changes, so passes may share
 * it.
 *
 * Experiments with masks are data in here (other norm counts, forbidden or forced experts):
 * forward.c has no variants.
 */
#ifndef CORE_SLICE_H
#define CORE_SLICE_H

#include "core/budget.h"
#include "core/weights.h"
#include "kernels/backend.h"

struct pack;

struct mamba_slice {
	struct matrix in_proj;  // rows z (inner) | x (inner) | B | C (n_groups*state each) | dt (heads)
	struct matrix out_proj; // (hidden, inner)
	int n_heads, head_dim, inner, channels; // kept; inner = n_heads*head_dim, channels = x | B | C
	const float *conv_weight, *conv_bias;   // (channels, kernel), (channels)
	const float *a, *d, *dt_bias;           // (n_heads); a = -exp(A_log)
	const float *norm;                      // (inner): the gated norm
	const int32_t *channel; // (channels): packed -> stored conv channel; the first `inner` are also
							// the stored rows of the SSM state (head * parent head_dim + channel)
	const int32_t *host_channel; // the same, host memory
	const int32_t *head_group;   // (n_heads)
	const int32_t *group_start;  // (n_groups + 1), in packed x channels
	const float *norm_count;     // (n_groups)
	float norm_scale;
};

struct attention_slice {
	struct matrix q, k, v, o; // k and v are never cut in rows
	float k_scale, v_scale;   // of a KV cache in FP8
	int n_heads;
	const int32_t *kv_head; // (n_heads): which KV head each kept query head uses
	const int32_t *head;    // (n_heads): packed -> stored query head
};

struct moe_slice {
	struct matrix gate;                           // (n_experts, hidden)
	const float *bias;                            // (n_experts): selection only
	int n_experts, ffn, top_k;                    // kept
	const int32_t *expert;                        // (n_experts): packed -> stored
	const struct matrix *up, *down;               // (n_experts)
	const struct placed *placed_up, *placed_down; // the same, device memory
	struct matrix shared_up, shared_down;         // n_rows 0 = no shared expert
	int shared_ffn;
};

struct mlp_slice {
	struct matrix up, down;
	int ffn;
};

struct layer_slice {
	bool keep; // false: the layer is left out
	enum layer_kind kind;
	const float *norm; // (hidden)
	float norm_count, norm_scale;
	union {
		struct mamba_slice mamba;
		struct attention_slice attention;
		struct moe_slice moe;
		struct mlp_slice mlp;
	};
};

/* What a budget costs. active: parameters that one token uses, the embedding table counted once, as
 * lm_head; bytes_per_token: weight bytes that a decode step reads (those, and one row of
 * embeddings). */
struct slice_cost {
	uint64_t total, active;          // parameters
	uint64_t bytes, bytes_per_token; // of the stored dtypes
};

/* Blocks that the plan's arrays are cut from, released together. */
struct slice_memory {
	void **blocks;
	size_t n_blocks, capacity; // of `blocks`
	size_t used, size;         // bytes of the last block
};

struct slice {
	struct budget budget; // own copy
	const struct config *config;
	const struct weights *weights;
	int hidden;
	struct matrix embeddings, lm_head; // (vocab, hidden)
	const float *norm_f;
	float norm_f_count, norm_f_scale;
	struct layer_slice *layers; // (n_layers)
	struct slice_cost cost;
	struct slice_memory host;  // spans, matrices, `expert` and `head`: read by the host only
	struct slice_memory lists; // packed vectors, spans and the other lists: the device's memory
	const struct backend *backend;
	struct device *device;
};

/* Weights, config, backend and device are borrowed and must outlive the slice. backend NULL: a plan
 * for looking only (costs, spans), not for running; its matrices point at the mapping. */
int slice_build(struct slice *slice, const struct weights *weights, const struct config *config,
				const struct budget *budget, const struct backend *backend, struct device *device,
				struct error *err);

/* The same over a budget that is alone on a device, which must hold this one: pack_holds(). */
int slice_build_packed(struct slice *slice, const struct pack *pack, const struct budget *budget,
					   struct error *err);
void slice_free(struct slice *slice); // takes {0}

/* The cost that a metric means: "active" or "total" parameters, else bytes. */
double slice_cost_of(const char *metric, const struct slice_cost *cost);

/* What a budget would cost, without keeping the plan. */
int slice_measure(struct slice_cost *cost, const struct weights *weights,
				  const struct config *config, const struct budget *budget, struct error *err);

#endif
