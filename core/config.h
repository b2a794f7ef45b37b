/*
 * config.json (and generation_config.json) as plain values, both spellings: the hub's and
 * transformers v5's (spec nemotron-h.md 1.3, 1.4). Checked before anything is believed: every size
 * positive and small enough that products of sizes fit, the pattern as long as num_hidden_layers,
 * heads divisible by groups. What this family does not have and the forward pass therefore does not
 * do (biases, a sliding window, router groups, latent experts, a clamp of dt) is refused where a
 * file asks for it.
 */
#ifndef CORE_CONFIG_H
#define CORE_CONFIG_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum layer_kind { LAYER_MAMBA, LAYER_ATTENTION, LAYER_MOE, LAYER_MLP };

#define CONFIG_MAX_LAYERS 1024
#define CONFIG_MAX_STOP_IDS 16

struct config {
	int n_layers;
	uint8_t kinds[CONFIG_MAX_LAYERS]; // enum layer_kind

	int hidden_size, vocab_size, max_position_embeddings;
	float norm_eps;
	bool tie_word_embeddings;

	/* Sizes of layer kinds that the model does not have may be 0, but n_groups and
	 * num_key_value_heads are at least 1. */
	int mamba_num_heads, mamba_head_dim, ssm_state_size, n_groups, conv_kernel; // Mamba-2
	bool use_conv_bias;                                     // else the layers have no conv1d.bias
	int num_attention_heads, num_key_value_heads, head_dim; // attention
	int n_routed_experts, num_experts_per_tok, moe_intermediate_size; // MoE
	int moe_shared_expert_intermediate_size; // width of all shared experts together, 0 = none
	bool norm_topk_prob;
	float routed_scaling_factor;
	int intermediate_size; // dense MLP layers

	int bos_token_id, eos_token_id, pad_token_id; // -1 = not given
	int32_t stop_ids[CONFIG_MAX_STOP_IDS];        // eos ids of generation_config, else of config
	int n_stop_ids;
	float temperature, top_p; // what the checkpoint recommends (generation_config); -1 = not given
	int do_sample;            // 1, 0, -1 = not given

	char torch_dtype[16];
};

char layer_letter(enum layer_kind kind);      // 'M', '*', 'E', '-'
const char *layer_name(enum layer_kind kind); // "mamba", "attention", "moe", "mlp"

/* Reads DIR/config.json and, if there, DIR/generation_config.json. */
int config_read(struct config *config, const char *directory, struct error *err);

/* The same from text, for tests. generation may be NULL. */
int config_parse(struct config *config, const char *text, const char *generation,
				 struct error *err);

/* Outside strings, Python's Infinity becomes 1e999999: JSON, a number, and as long. */
void config_spell_infinity(char *text, size_t length);

int config_layers_of(const struct config *config, enum layer_kind kind); // how many
int config_inner(const struct config *config);         // mamba_num_heads * mamba_head_dim
int config_conv_channels(const struct config *config); // inner + 2 * n_groups * ssm_state_size

#endif
