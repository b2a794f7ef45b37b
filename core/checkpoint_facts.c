/*
 * What a checkpoint is worth knowing for beside its tensors: its identity and how much of it is in
 * memory.
 */
#include "base/hash.h"
#include "base/json.h"
#include "base/text.h"
#include "core/checkpoint.h"
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SAMPLES 64       // per shard
#define SAMPLE_BYTES 256 // each
#define CHUNK_BYTES ((size_t)16 << 20)
#define FORGET_BYTES ((uint64_t)32 << 20)
#define AROUND_BYTES ((uint64_t)64 << 10)    // that the kernel maps around a number that is read
#define FULL_COUNT_BYTES ((uint64_t)8 << 30) // larger mappings are sampled

/* Evenly spaced samples of the data, from the first bytes to the last; all of it when it is small.
 */
static void add_samples(struct text *text, const struct shard *shard)
{
	const unsigned char *data = shard->data + shard->header_bytes;
	size_t bytes = shard->bytes - shard->header_bytes;
	if (bytes <= SAMPLES * SAMPLE_BYTES) {
		text_append(text, (const char *)data, bytes);
		return;
	}
	// else each sample reads megabytes around it: 760 ms instead of 2 for 47 GB, measured
	void *mapping = (void *)(uintptr_t)shard->data;
	madvise(mapping, shard->bytes, MADV_RANDOM);
	size_t room = bytes - SAMPLE_BYTES;
	for (size_t i = 0; i < SAMPLES; i++) {
		size_t at = room / (SAMPLES - 1) * i + room % (SAMPLES - 1) * i / (SAMPLES - 1);
		text_append(text, (const char *)data + at, SAMPLE_BYTES);
	}
	madvise(mapping, shard->bytes, MADV_NORMAL);
}

void checkpoint_hash(const struct checkpoint *checkpoint, char out[17])
{
	struct text text = {0};
	char digest[65];
	for (int i = 0; i < checkpoint->n_shards; i++) {
		const struct shard *shard = &checkpoint->shards[i];
		hash_sha256(shard->data, shard->header_bytes, digest);
		text_format(&text, "%s %zu %s\n", shard->name, shard->bytes, digest);
		add_samples(&text, shard);
	}
	hash_sha256(text_chars(&text), text.length, digest);
	memcpy(out, digest, 16);
	out[16] = 0;
	text_free(&text);
}

void checkpoint_note(const struct checkpoint *checkpoint, const char *key, struct text *out)
{
	struct json json = {0};
	const struct shard *shard = checkpoint->shards;
	if (checkpoint->n_shards > 0 &&
		json_parse(&json, (const char *)shard->data + 8, shard->header_bytes - 8, NULL) == 0) {
		const struct json_node *notes = json_member(&json, json.nodes, "__metadata__");
		const struct json_node *value = json_member(&json, notes, key);
		if (json_is(value, JSON_STRING))
			json_string(&json, value, out);
	}
	json_free(&json);
}

/* Resident bytes of data[0, bytes); data is page-aligned, bytes at most CHUNK_BYTES. */
static uint64_t resident_chunk(const unsigned char *data, size_t bytes, size_t page)
{
	unsigned char in_core[CHUNK_BYTES / 4096];
	size_t pages = (bytes + page - 1) / page, resident = 0;
	if (page < 4096 || mincore((void *)(uintptr_t)data, bytes, in_core) != 0)
		return 0;
	for (size_t i = 0; i < pages; i++)
		resident += in_core[i] & 1;
	uint64_t total = (uint64_t)resident * page;
	if (pages && (in_core[pages - 1] & 1) && bytes % page)
		total -= page - bytes % page; // the last page ends behind the file
	return total;
}

/* For a file that the user may not write and does not own, Linux answers "resident" for every page.
 */
uint64_t checkpoint_resident(const struct checkpoint *checkpoint, int *estimated)
{
	uint64_t mapped = 0, seen = 0, resident = 0, chunk = 0;
	for (int i = 0; i < checkpoint->n_shards; i++)
		mapped += checkpoint->shards[i].bytes;
	uint64_t every = (mapped + FULL_COUNT_BYTES - 1) / FULL_COUNT_BYTES; // look at every n-th chunk
	size_t page = (size_t)sysconf(_SC_PAGESIZE);
	for (int i = 0; i < checkpoint->n_shards; i++) {
		const struct shard *shard = &checkpoint->shards[i];
		for (size_t at = 0; at < shard->bytes; at += CHUNK_BYTES, chunk++) {
			if (every > 1 && chunk % every)
				continue;
			size_t n = shard->bytes - at < CHUNK_BYTES ? shard->bytes - at : CHUNK_BYTES;
			resident += resident_chunk(shard->data + at, n, page);
			seen += n;
		}
	}
	if (estimated)
		*estimated = every > 1;
	if (every > 1 && seen)
		return (uint64_t)((double)resident / (double)seen * (double)mapped);
	return resident;
}

void checkpoint_forget(const struct checkpoint *checkpoint, uint64_t *since, uint64_t bytes)
{
	*since += bytes > AROUND_BYTES ? bytes : AROUND_BYTES;
	if (*since < FORGET_BYTES)
		return;
	*since = 0;
	/* All of it, not the range just read: the kernel maps pages around each one that is touched,
	 * and those of the tensor before would stay (430 MB of 24,147 tensors, measured). */
	for (int i = 0; i < checkpoint->n_shards; i++)
		madvise((void *)(uintptr_t)checkpoint->shards[i].data, checkpoint->shards[i].bytes,
				MADV_DONTNEED);
}
