/*
 * The weights of a checkpoint directory, streamed: the tensors are announced first (name, dtype,
 * shape), then their bytes come in shards->order, in pieces of any size. One model.safetensors, or
 * shards of at most max_bytes each (a larger tensor is one alone) with Hugging Face's names and
 * model.safetensors.index.json. Holds no tensor's data.
 */
#ifndef EXPORT_SHARDS_H
#define EXPORT_SHARDS_H

#include "core/checkpoint.h"
#include "export/staging.h"

struct shards {
	const struct named_tensor *tensors; // borrowed; data is not looked at
	size_t n_tensors;
	const struct named_tensor **order; // (n_tensors) as they must be written
	size_t *first;                     // (n_shards + 1) into order
	int n_shards;
	uint64_t total; // bytes of all tensors
	const struct staging *staging;
	int fd, shard; // the one being written; fd -1 = none
	uint64_t left; // bytes of it that have not come
};

int shards_open(struct shards *shards, const struct staging *staging,
				const struct named_tensor *tensors, size_t n, uint64_t max_bytes,
				struct error *err);
int shards_write(struct shards *shards, const void *bytes, size_t n, struct error *err);

/* Checks that every byte came, and writes the index where there are several shards. */
int shards_finish(struct shards *shards, struct error *err);
void shards_close(struct shards *shards); // also of what is not finished; takes {0}

#endif
