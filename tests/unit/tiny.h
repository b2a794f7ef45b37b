/* The dimensions of tests/golden/nest-tiny: MEM*E-ME. */
#ifndef TESTS_TINY_H
#define TESTS_TINY_H

#include "core/config.h"
#include <string.h>

static inline struct config tiny(void)
{
	static const uint8_t kinds[] = {LAYER_MAMBA, LAYER_MOE, LAYER_MAMBA, LAYER_ATTENTION,
									LAYER_MOE,   LAYER_MLP, LAYER_MAMBA, LAYER_MOE};
	struct config c = {.n_layers = 8, .hidden_size = 80, .vocab_size = 224, .norm_eps = 1e-5f};
	memcpy(c.kinds, kinds, sizeof kinds);
	c.mamba_num_heads = 6;
	c.mamba_head_dim = 16;
	c.ssm_state_size = 24;
	c.n_groups = 2;
	c.conv_kernel = 4;
	c.num_attention_heads = 6;
	c.num_key_value_heads = 2;
	c.head_dim = 20;
	c.n_routed_experts = 10;
	c.num_experts_per_tok = 3;
	c.moe_intermediate_size = 48;
	c.moe_shared_expert_intermediate_size = 48;
	c.intermediate_size = 96;
	return c;
}

#endif
