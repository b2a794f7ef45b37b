/*
 * Inside checkpoint_open(): one safetensors file. Rules of the official reader are kept: the data
 * of a file is covered by its tensors without overlaps, holes or a rest; a header has at most 100
 * MB. One rule is added, because tensors are used where they are mapped: a tensor must be aligned
 * to its element size.
 */
#ifndef CORE_SHARD_H
#define CORE_SHARD_H

#include "base/text.h"
#include "core/checkpoint.h"

/* What is known while a checkpoint is being opened. Names are kept as offsets until all are known.
 */
struct opening {
	struct checkpoint *checkpoint;
	const char *directory; // NULL for a single file
	struct text names;
	size_t *name_offsets; // (n_tensors)
	size_t names_capacity, tensors_capacity, shards_capacity;
};

/* Maps the file and adds its tensors, whose names are offsets into opening->names as yet. */
int shard_open(struct opening *opening, const char *path, struct error *err);

#endif
