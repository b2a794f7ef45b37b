/*
 * What a calibration adds up while it reads: sums in doubles, one block of memory, so that a half
 * done calibration is written and read again as it is. Inside calibrate.c.
 *
 * Definitions (T tokens; u_i = RMSNorm of the residual, the input of layer i):
 *
 *   hidden_size.layers[i, j]    1/T sum_t |u_i[t, j]|; hidden_size[j] = sum over i
 *   FFN axes[f]                 1/T sum_t |a[t, f]|, a = input of down_proj; of expert e over the
 *                               T_e tokens routed to it, 0 if there are none
 *   n_routed_experts.reap[e]    1/T_e sum_t g_e[t] ||f_e[t]||, g the final weight (normalised and
 *                               scaled; the selection bias is not in it), f_e the expert's output
 *   n_routed_experts.count[e]   T_e / T, so that all sum to top-k
 *   Mamba                       x = x rows of in_proj u, before the convolution;
 *                               s[h, d] = sqrt(1/T sum_t x[t, h, d]^2);
 *     mamba_head_dim[d]         sqrt(sum_h s[h, d]^2)
 *     mamba_num_heads[h]        sqrt(sum of s[h, d]^2 over the top channels): the half (rounded up)
 *                               of all d with the largest mamba_head_dim; ties: the lower
 *   num_attention_heads[h]      1/T sum_t ||o[t, h]||, o = input of o_proj
 *   layers[i]                   sum_t ||z[t] - z_i[t]||^2 / sum_t ||z[t]||^2, z logits, z_i without
 *                               layer i
 */
#ifndef INSPECT_SUMS_H
#define INSPECT_SUMS_H

#include "core/forward.h"
#include "core/model.h"
#include "inspect/scores.h"

struct layer_sums {       // NULL where the layer has none
	double *hidden;       // (hidden)
	double *experts;      // (E, F)
	double *reap, *count; // (E)
	double *ffn;          // (F) of a dense FFN, or of the shared expert
	double *squares;      // (heads, head_dim) of Mamba's x
	double *heads;        // (heads) of attention
};

struct sums {
	const struct config *config;
	double *all; // the block
	size_t n;
	struct layer_sums *layers; // (n_layers)
	double *difference;        // (n_layers): squared difference of the logits without the layer
	double *energy, *tokens;   // (1): of squared logits; tokens read with taps
	int32_t *chosen;           // (chunk, top_k): the last TAP_EXPERTS
	float *weights;
};

int sums_open(struct sums *sums, const struct config *config, struct error *err);
void sums_close(struct sums *sums); // takes {0}
void sums_clear(struct sums *sums);
void sums_add(struct sums *to, const struct sums *from);

#define SUMS_TAPS                                                                                  \
	((unsigned)TAP_MIXER_INPUT | TAP_EXPERTS | TAP_EXPERT_FFN | TAP_EXPERT_NORM | TAP_FFN |        \
	 TAP_MAMBA_PROJECTED | TAP_ATTENTION_OUT)
void sums_see(void *sums, const struct tapped *t); // a tap's callback

/* One tensor of scores into out. */
int sums_score(const struct sums *sums, const struct score_row *row, float *out, struct error *err);

#endif
