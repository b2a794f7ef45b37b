#include "export/shards.h"

#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void shard_name(const struct shards *s, int shard, char out[64])
{
	if (s->n_shards == 1)
		snprintf(out, 64, "model.safetensors");
	else
		snprintf(out, 64, "model-%05d-of-%05d.safetensors", shard + 1, s->n_shards);
}

/* Tensors stay in the order given from shard to shard; inside one they are ordered by element size.
 */
static int split(struct shards *s, uint64_t max_bytes, struct error *err)
{
	uint64_t filled = 0;
	s->first = mem_new(s->n_tensors + 2, sizeof *s->first, err);
	if (!s->first)
		return -1;
	s->n_shards = 1;
	for (size_t i = 0; i < s->n_tensors; i++) {
		uint64_t bytes = s->tensors[i].tensor.bytes;
		if (filled && bytes > max_bytes - (filled < max_bytes ? filled : max_bytes)) {
			s->first[s->n_shards++] = i;
			filled = 0;
		}
		filled += bytes;
		s->total += bytes;
	}
	s->first[s->n_shards] = s->n_tensors;
	for (int k = 0; k < s->n_shards; k++)
		checkpoint_order(s->tensors + s->first[k], s->first[k + 1] - s->first[k],
						 s->order + s->first[k]);
	return 0;
}

/* ---- one file after the other ---- */

static int end_shard(struct shards *s, struct error *err)
{
	char name[64];
	int fd = s->fd;
	shard_name(s, s->shard, name);
	s->fd = -1;
	return staging_close_file(fd, name, err);
}

static int write_bytes(struct shards *s, const void *bytes, size_t n, struct error *err)
{
	char name[64];
	if (file_write_all(s->fd, bytes, n) == 0)
		return 0;
	int reason = errno;
	shard_name(s, s->shard, name);
	return fail(err, "%s of %s: cannot be written: %s", name, s->staging->path, strerror(reason));
}

/* Opens the next shard and writes its header. */
static int begin_shard(struct shards *s, struct error *err)
{
	struct text header = {0};
	char name[64];
	s->shard++;
	if (s->shard == s->n_shards)
		return fail(err, "more bytes of tensors than were announced");
	size_t first = s->first[s->shard], n = s->first[s->shard + 1] - first;
	s->left = 0;
	for (size_t i = 0; i < n; i++)
		s->left += s->order[first + i]->tensor.bytes;
	shard_name(s, s->shard, name);
	s->fd = staging_create(s->staging, name, err);
	int result = s->fd < 0 ? -1 : checkpoint_header(s->order + first, n, NULL, 0, &header, err);
	if (result == 0)
		result = write_bytes(s, header.data, header.length, err);
	text_free(&header);
	return result;
}

int shards_open(struct shards *shards, const struct staging *staging,
				const struct named_tensor *tensors, size_t n, uint64_t max_bytes, struct error *err)
{
	*shards = (struct shards){
		.tensors = tensors, .n_tensors = n, .staging = staging, .fd = -1, .shard = -1};
	shards->order = mem_new(n, sizeof *shards->order, err);
	if (!shards->order || checkpoint_check_names(tensors, n, err) != 0 ||
		split(shards, max_bytes, err) != 0 ||
		staging_check_room(staging, shards->total, err) != 0) {
		shards_close(shards);
		return -1;
	}
	return 0;
}

int shards_write(struct shards *shards, const void *bytes, size_t n, struct error *err)
{
	const char *from = bytes;
	while (n) {
		if (shards->fd < 0 && begin_shard(shards, err) != 0)
			return -1;
		size_t now = n < shards->left ? n : (size_t)shards->left;
		if (write_bytes(shards, from, now, err) != 0)
			return -1;
		from += now;
		n -= now;
		shards->left -= now;
		if (shards->left == 0 && end_shard(shards, err) != 0)
			return -1;
	}
	return 0;
}

/* ---- the index ---- */

static int write_index(const struct shards *s, struct error *err)
{
	struct text text = {0};
	char name[64];
	text_format(&text, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {",
				(unsigned long long)s->total);
	const char *comma = "";
	for (int k = 0; k < s->n_shards; k++) {
		shard_name(s, k, name);
		for (size_t i = s->first[k]; i < s->first[k + 1]; i++, comma = ",") {
			text_format(&text, "%s\n    ", comma);
			json_add_string(&text, s->tensors[i].name);
			text_format(&text, ": \"%s\"", name);
		}
	}
	text_add(&text, "\n  }\n}\n");
	int result = text_check(&text, err);
	if (result == 0)
		result =
			staging_write(s->staging, "model.safetensors.index.json", text.data, text.length, err);
	text_free(&text);
	return result;
}

int shards_finish(struct shards *shards, struct error *err)
{
	// tensors without bytes may be all that a shard has
	while (shards->fd < 0 && shards->shard + 1 < shards->n_shards) {
		if (begin_shard(shards, err) != 0)
			return -1;
		if (shards->left)
			break;
		if (end_shard(shards, err) != 0)
			return -1;
	}
	if (shards->fd >= 0)
		return fail(err, "shard %d of %d: %llu bytes of its tensors are missing", shards->shard + 1,
					shards->n_shards, (unsigned long long)shards->left);
	return shards->n_shards > 1 ? write_index(shards, err) : 0;
}

void shards_close(struct shards *shards)
{
	if (shards->order && shards->fd >= 0)
		close(shards->fd);
	free(shards->order);
	free(shards->first);
	*shards = (struct shards){.fd = -1};
}
