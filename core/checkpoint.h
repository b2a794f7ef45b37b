/*
 * A safetensors checkpoint, mapped read-only: one model.safetensors, or shards named by
 * model.safetensors.index.json, or (no index) every model-*.safetensors of the folder. Tensors are
 * found by name in a hash table (24,000 and more, opened in well under a second). A header is
 * checked before anything in it is believed: its length against the file's, dtype and shape against
 * the byte range, ranges against each other and the end of the file. Owns the mappings; never
 * changes.
 */
#ifndef CORE_CHECKPOINT_H
#define CORE_CHECKPOINT_H

#include "base/error.h"
#include "base/text.h"
#include "kernels/tensor.h"
#include <stddef.h>
#include <stdint.h>

struct shard {
	char *name;                // file name
	const unsigned char *data; // the whole file, mapped; open faults in no more than the header
	size_t bytes, header_bytes;
};

struct named_tensor {
	const char *name; // NUL-terminated, owned by the checkpoint
	struct tensor tensor;
	int shard;
};

struct checkpoint {
	struct shard *shards;
	int n_shards;
	struct named_tensor *tensors; // in order of shard, then offset
	size_t n_tensors;
	uint64_t tensor_bytes; // sum
	uint32_t *table;       // open addressing: index + 1 into tensors
	size_t table_size;
	char *names; // backing store
};

int checkpoint_open(struct checkpoint *checkpoint, const char *directory, struct error *err);

/* One safetensors file (router, importance, golden values). */
int checkpoint_open_file(struct checkpoint *checkpoint, const char *path, struct error *err);
void checkpoint_close(struct checkpoint *checkpoint); // takes {0} and half-opened ones

/* NULL if there is none of that name. */
const struct tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name);

/* Writes a safetensors file: n named tensors whose data is in memory, atomically (temporary name,
 * fsync, rename). */
int checkpoint_write(const char *path, const struct named_tensor *tensors, size_t n,
					 struct error *err);

/* What a file says about itself in its header's __metadata__: strings by name. */
struct checkpoint_note {
	const char *key, *value;
};

/* The same with n_notes strings in __metadata__. */
int checkpoint_write_noted(const char *path, const struct named_tensor *tensors, size_t n,
						   const struct checkpoint_note *notes, size_t n_notes, struct error *err);

/* Appends a string of the first shard's __metadata__; nothing where there is none of that name. */
void checkpoint_note(const struct checkpoint *checkpoint, const char *key, struct text *out);

/* What checkpoint_write does, for writers that stream: the order in which n tensors stand in a file
 * (larger elements first, so that all are aligned), and the file's bytes in front of their data.
 */
void checkpoint_order(const struct named_tensor *tensors, size_t n,
					  const struct named_tensor **order);
int checkpoint_header(const struct named_tensor *const *order, size_t n,
					  const struct checkpoint_note *notes, size_t n_notes, struct text *header,
					  struct error *err);

/* -1 and a sentence where two tensors have one name. */
int checkpoint_check_names(const struct named_tensor *tensors, size_t n, struct error *err);

/* Lets go of the mapped pages after every 32 MiB that were read, so that streaming through 59 GB
 * does not hold them. since: the caller's count, 0 at the start. */
void checkpoint_forget(const struct checkpoint *checkpoint, uint64_t *since, uint64_t bytes);

/* SHA-256 (hex, first 16 digits and NUL) over names, sizes, headers and evenly spaced samples of
 * the data of every shard, so that opening 59 GB stays fast: the checkpoint's identity in logs. */
void checkpoint_hash(const struct checkpoint *checkpoint, char out[17]);

/* Bytes of the mappings that are in memory now (mincore). Large mappings are sampled: *estimated.
 */
uint64_t checkpoint_resident(const struct checkpoint *checkpoint, int *estimated);

#endif
