/*
 * The checkpoint's tensors bound to their places in the model: tolerant of names (backbone. /
 * model., embeddings / embedding / embed_tokens, fused [E, F, H] or per-expert tensors), strict
 * about shapes and dtypes (F32, BF16, F16; matrices also FP8 and NVFP4, quantised.h). An error
 * names the tensor and both shapes. Borrows the checkpoint; never changes.
 */
#ifndef CORE_WEIGHTS_H
#define CORE_WEIGHTS_H

#include "core/axis.h"
#include "core/checkpoint.h"
#include "core/config.h"

struct layer_weights {
	struct tensor norm; // (hidden)
	// Mamba
	struct tensor in_proj, out_proj;             // (in_proj rows, hidden), (hidden, inner)
	struct tensor conv_weight, conv_bias;        // (channels, 1, kernel), (channels) or no data
	struct tensor a_log, d, dt_bias, gated_norm; // (heads) three times, (inner)
	// attention
	struct tensor q, k, v, o;
	float k_scale, v_scale; // of a KV cache in FP8; 1 where the checkpoint has none
	bool kv_scales;         // it has
	// MoE; up and down point to n_routed_experts tensors each
	struct tensor gate, gate_bias;        // (experts, hidden), (experts)
	struct tensor *up, *down;             // (ffn, hidden), (hidden, ffn)
	struct tensor shared_up, shared_down; // data NULL = no shared expert
	// dense MLP uses mlp_up, mlp_down
	struct tensor mlp_up, mlp_down;
};

struct weights {
	const struct checkpoint *checkpoint;       // whose tensors these are
	struct tensor embeddings, norm_f, lm_head; // lm_head = embeddings when tied
	struct layer_weights *layers;              // (n_layers)
	struct tensor *experts;                    // backing store of up and down
	size_t n_unused; // tensors that no layer uses (reported, not refused); mtp.* are not counted
	const char *first_unused;
};

int weights_bind(struct weights *weights, const struct checkpoint *checkpoint,
				 const struct config *config, struct error *err);
void weights_free(struct weights *weights); // takes {0}

/* Widths on an axis (in its own units: channels, heads, experts) that this checkpoint can be cut
 * to are multiples of this number: 1, or more where a matrix that reads the axis is NVFP4, whose
 * blocks of 16 stored columns share a scale. layer -1: on every layer at once; AXIS_HIDDEN is the
 * whole model's anyway. The parent's width is always one; where nothing less is, it is the answer.
 */
int weights_block(const struct weights *weights, const struct config *config, enum axis axis,
				  int layer);

#endif
