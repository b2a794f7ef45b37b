/*
 * The axes along which a budget may cut, by the names that config.json and elastic.json use. Hidden
 * size is one number for the whole model; the others may differ from layer to layer.
 */
#ifndef CORE_AXIS_H
#define CORE_AXIS_H

#include "base/text.h"
#include "core/config.h"
#include <stdbool.h>

enum axis {
	AXIS_HIDDEN,          // hidden_size: the residual
	AXIS_EXPERT_FFN,      // moe_intermediate_size
	AXIS_EXPERTS,         // n_routed_experts
	AXIS_SHARED_FFN,      // moe_shared_expert_intermediate_size
	AXIS_FFN,             // intermediate_size of dense MLP layers
	AXIS_MAMBA_HEADS,     // mamba_num_heads: the first k / n_groups of every group
	AXIS_MAMBA_CHANNELS,  // mamba_head_dim: the first k channels of every head
	AXIS_ATTENTION_HEADS, // num_attention_heads: the first k / num_key_value_heads of every KV
						  // group
	N_AXES
};

const char *axis_name(enum axis axis);                           // the config key
int axis_find(const char *name);                                 // enum axis, or -1
void axis_names(struct text *out);                               // all of them, ", " between
bool axis_on_layer(enum axis axis, enum layer_kind kind);        // AXIS_HIDDEN: true everywhere
bool axis_in_model(enum axis axis, const struct config *config); // some layer has channels on it
int axis_parent_width(enum axis axis, const struct config *config);
/* Channels come in this many equal groups, each cut to the same leading part: n_groups for Mamba
 * heads, num_key_value_heads for attention heads, 1 elsewhere. */
int axis_groups(enum axis axis, const struct config *config);

#endif
