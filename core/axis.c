#include "core/axis.h"

#include <string.h>

static const char *const names[N_AXES] = {
	"hidden_size",       "moe_intermediate_size",
	"n_routed_experts",  "moe_shared_expert_intermediate_size",
	"intermediate_size", "mamba_num_heads",
	"mamba_head_dim",    "num_attention_heads",
};

const char *axis_name(enum axis axis)
{
	return (unsigned)axis < N_AXES ? names[axis] : "?";
}

int axis_find(const char *name)
{
	for (int a = 0; a < N_AXES; a++)
		if (strcmp(name, names[a]) == 0)
			return a;
	return -1;
}

void axis_names(struct text *out)
{
	for (int a = 0; a < N_AXES; a++)
		text_format(out, "%s%s", a ? ", " : "", names[a]);
}

bool axis_on_layer(enum axis axis, enum layer_kind kind)
{
	switch (axis) {
	case AXIS_HIDDEN: return true;
	case AXIS_EXPERT_FFN:
	case AXIS_EXPERTS:
	case AXIS_SHARED_FFN: return kind == LAYER_MOE;
	case AXIS_FFN: return kind == LAYER_MLP;
	case AXIS_MAMBA_HEADS:
	case AXIS_MAMBA_CHANNELS: return kind == LAYER_MAMBA;
	case AXIS_ATTENTION_HEADS: return kind == LAYER_ATTENTION;
	case N_AXES: break;
	}
	return false;
}

bool axis_in_model(enum axis axis, const struct config *config)
{
	for (int i = 0; i < config->n_layers; i++)
		if (axis_on_layer(axis, config->kinds[i]))
			return axis_parent_width(axis, config) > 0;
	return false;
}

int axis_parent_width(enum axis axis, const struct config *config)
{
	switch (axis) {
	case AXIS_HIDDEN: return config->hidden_size;
	case AXIS_EXPERT_FFN: return config->moe_intermediate_size;
	case AXIS_EXPERTS: return config->n_routed_experts;
	case AXIS_SHARED_FFN: return config->moe_shared_expert_intermediate_size;
	case AXIS_FFN: return config->intermediate_size;
	case AXIS_MAMBA_HEADS: return config->mamba_num_heads;
	case AXIS_MAMBA_CHANNELS: return config->mamba_head_dim;
	case AXIS_ATTENTION_HEADS: return config->num_attention_heads;
	case N_AXES: break;
	}
	return 0;
}

int axis_groups(enum axis axis, const struct config *config)
{
	if (axis == AXIS_MAMBA_HEADS && config->n_groups > 0)
		return config->n_groups;
	if (axis == AXIS_ATTENTION_HEADS && config->num_key_value_heads > 0)
		return config->num_key_value_heads;
	return 1;
}
