#include "inspect/memory.h"

#include <stdio.h>
#include <unistd.h>

static bool read_statm(uint64_t *rss, uint64_t *shared)
{
	FILE *file = fopen("/proc/self/statm", "re");
	unsigned long long size, resident, files;
	bool read = file && fscanf(file, "%llu %llu %llu", &size, &resident, &files) == 3;
	if (file)
		fclose(file);
	uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
	*rss = read ? resident * page : 0;
	*shared = read ? files * page : 0;
	return read;
}

void memory_measure(struct memory_facts *facts, const struct model *model)
{
	*facts = (struct memory_facts){0};
	facts->rss_known = read_statm(&facts->rss, &facts->shared);
	if (model) {
		for (int i = 0; i < model->checkpoint.n_shards; i++)
			facts->mapped += model->checkpoint.shards[i].bytes;
		int estimated = 0;
		facts->resident = checkpoint_resident(&model->checkpoint, &estimated);
		facts->resident_estimated = estimated;
	}
}

void memory_state_of(struct memory_state *state, const struct config *c, uint64_t tokens,
					 int kv_bytes)
{
	uint64_t mamba = (uint64_t)config_layers_of(c, LAYER_MAMBA);
	uint64_t attention = (uint64_t)config_layers_of(c, LAYER_ATTENTION);
	*state = (struct memory_state){0};
	state->kv_per_token = attention * 2 * (uint64_t)c->num_key_value_heads * (uint64_t)c->head_dim *
						  (uint64_t)kv_bytes;
	state->kv = state->kv_per_token * tokens;
	if (mamba) {
		state->conv = mamba * (uint64_t)(c->conv_kernel - 1) * (uint64_t)config_conv_channels(c) *
					  sizeof(float);
		state->ssm =
			mamba * (uint64_t)config_inner(c) * (uint64_t)c->ssm_state_size * sizeof(float);
	}
}
