/*
 * Opening a safetensors checkpoint. Rules of the official reader are kept: the data of a file is
 * covered by its tensors without overlaps, holes or a rest; a header has at most 100 MB. One rule
 * is added, because tensors are used where they are mapped: a tensor must be aligned to its element
 * size.
 */
#include "core/checkpoint.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_HEADER_BYTES 100000000
#define MAX_INDEX_BYTES ((size_t)256 << 20)
#define MAX_SHARDS 10000
#define MAX_NAME_BYTES 300 // of a tensor: errors quote it whole

/* What is known while a checkpoint is being opened. Names are kept as offsets until all are known.
 */
struct opening {
	struct checkpoint *checkpoint;
	const char *directory; // NULL for a single file
	struct text names;
	size_t *name_offsets; // (n_tensors)
	size_t names_capacity, tensors_capacity, shards_capacity;
};

static uint64_t read_le64(const unsigned char *bytes)
{
	uint64_t value = 0;
	for (int i = 7; i >= 0; i--)
		value = value << 8 | bytes[i];
	return value;
}

static int find_dtype(const struct json *json, const struct json_node *node)
{
	for (int i = 0; i < N_FILE_DTYPES; i++)
		if (json_equals(json, node, dtype_name((enum dtype)i)))
			return i;
	return -1;
}

/* ---- one file ---- */

static int map_shard(struct shard *shard, const char *path, struct error *err)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK); // a FIFO must not block
	if (fd < 0)
		return fail(err, "%s: %s", path, strerror(errno));
	struct stat st;
	int result = -1;
	if (fstat(fd, &st) != 0)
		fail(err, "%s: %s", path, strerror(errno));
	else if (S_ISDIR(st.st_mode))
		fail(err, "%s: is a directory, expected a safetensors file", path);
	else if (!S_ISREG(st.st_mode))
		fail(err, "%s: is not a regular file", path);
	else if (st.st_size < 8)
		fail(err,
			 "%s: has %lld bytes, but a safetensors file begins with the 8-byte length of its "
			 "header",
			 path, (long long)st.st_size);
	else
		result = 0;
	if (result == 0) {
		void *data = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
		if (data == MAP_FAILED) {
			result = fail(err, "%s: cannot be mapped (%lld bytes): %s", path, (long long)st.st_size,
						  strerror(errno));
		} else {
			shard->data = data;
			shard->bytes = (size_t)st.st_size;
		}
	}
	close(fd);
	return result;
}

/* The member of a tensor's entry, or NULL and an error naming the tensor. */
static const struct json_node *entry_member(const struct json *json, const struct json_node *entry,
											const char *key, const char *tensor, struct error *err)
{
	const struct json_node *node = json_member(json, entry, key);
	if (!node)
		fail(err, "tensor \"%s\" has no \"%s\" in the header", tensor, key);
	return node;
}

static int read_shape(const struct json *json, const struct json_node *entry, const char *name,
					  struct tensor *tensor, struct error *err)
{
	const struct json_node *shape = entry_member(json, entry, "shape", name, err);
	if (!shape)
		return -1;
	if (!json_is(shape, JSON_ARRAY))
		return fail(err, "tensor \"%s\": \"shape\" is not an array", name);
	if (shape->n_children > TENSOR_MAX_DIMS)
		return fail(err, "tensor \"%s\" has %u dimensions, at most %d are supported", name,
					(unsigned)shape->n_children, TENSOR_MAX_DIMS);
	size_t product = 1;
	for (const struct json_node *n = json_first(json, shape); n; n = json_next(json, shape, n)) {
		int64_t size;
		if (json_integer(json, n, "shape", &size, err) != 0)
			return fail_in(err, "tensor \"%s\"", name);
		if (size < 0)
			return fail(err, "tensor \"%s\": shape has the negative size %lld", name,
						(long long)size);
		if (!mem_multiply(product, (size_t)size, &product) || product > INT64_MAX)
			return fail(err, "tensor \"%s\": the product of its shape does not fit in 63 bits",
						name);
		tensor->shape[tensor->n_dims++] = size;
	}
	size_t bytes;
	if (!mem_multiply(product, dtype_bytes(tensor->dtype), &bytes) || bytes > INT64_MAX)
		return fail(err, "tensor \"%s\": its size in bytes does not fit in 63 bits", name);
	tensor->bytes = bytes;
	return 0;
}

static int read_offsets(const struct json *json, const struct json_node *entry, const char *name,
						int64_t range[2], struct error *err)
{
	const struct json_node *offsets = entry_member(json, entry, "data_offsets", name, err);
	if (!offsets)
		return -1;
	if (!json_is(offsets, JSON_ARRAY) || offsets->n_children != 2)
		return fail(err, "tensor \"%s\": \"data_offsets\" is not an array of two numbers", name);
	const struct json_node *n = json_first(json, offsets);
	for (int i = 0; i < 2; i++, n = json_next(json, offsets, n))
		if (json_integer(json, n, "data_offsets", &range[i], err) != 0)
			return fail_in(err, "tensor \"%s\"", name);
	if (range[0] < 0 || range[1] < range[0])
		return fail(err, "tensor \"%s\": data_offsets [%lld, %lld] are not an ascending range",
					name, (long long)range[0], (long long)range[1]);
	return 0;
}

/* One entry of the header, its byte range checked against dtype, shape and the file. */
static int read_tensor(const struct json *json, const struct json_node *entry, const char *name,
					   const struct shard *shard, struct tensor *tensor, struct error *err)
{
	if (!json_is(entry, JSON_OBJECT))
		return fail(err, "tensor \"%s\": its entry in the header is not an object", name);
	const struct json_node *dtype = entry_member(json, entry, "dtype", name, err);
	if (!dtype)
		return -1;
	int found = json_is(dtype, JSON_STRING) ? find_dtype(json, dtype) : -1;
	if (found < 0) {
		struct text spelling = {0};
		json_string(json, dtype, &spelling);
		fail(
			err,
			"tensor \"%s\" has dtype %.40s; supported are F32, BF16, F16, F8_E4M3, U8, I32 and I64",
			name, text_chars(&spelling));
		text_free(&spelling);
		return -1;
	}
	tensor->dtype = (enum dtype)found;
	int64_t range[2];
	if (read_shape(json, entry, name, tensor, err) != 0 ||
		read_offsets(json, entry, name, range, err) != 0)
		return -1;
	if ((uint64_t)(range[1] - range[0]) != tensor->bytes)
		return fail(
			err,
			"tensor \"%s\": data_offsets [%lld, %lld] hold %lld bytes, dtype and shape need %llu",
			name, (long long)range[0], (long long)range[1], (long long)(range[1] - range[0]),
			(unsigned long long)tensor->bytes);
	uint64_t data_bytes = shard->bytes - shard->header_bytes;
	if ((uint64_t)range[1] > data_bytes)
		return fail(err, "tensor \"%s\" ends at byte %lld of the data, but the file has only %llu",
					name, (long long)range[1], (unsigned long long)data_bytes);
	uint64_t at = shard->header_bytes + (uint64_t)range[0];
	if (tensor->bytes && at % dtype_bytes(tensor->dtype) != 0)
		return fail(err,
					"tensor \"%s\" starts at byte %llu of the file, which is not a multiple of its "
					"element size %zu; write the file again with a current safetensors library",
					name, (unsigned long long)at, dtype_bytes(tensor->dtype));
	tensor->data = shard->data + at;
	return 0;
}

static int by_offset(const void *a, const void *b)
{
	const struct named_tensor *x = a, *y = b;
	const char *p = x->tensor.data, *q = y->tensor.data;
	if (p != q)
		return p < q ? -1 : 1;
	if (x->tensor.bytes != y->tensor.bytes)
		return x->tensor.bytes < y->tensor.bytes ? -1 : 1;
	size_t s = (size_t)x->name, t = (size_t)y->name; // still offsets: the order of the header
	return s < t ? -1 : s > t;
}

/* Sorted by offset, the tensors of a shard must cover its data exactly. */
static int check_cover(const struct opening *o, const struct shard *shard,
					   const struct named_tensor *tensors, size_t n, struct error *err)
{
	const unsigned char *start = shard->data + shard->header_bytes, *expected = start;
	const char *before = NULL;
	for (size_t i = 0; i < n; i++) {
		const unsigned char *data = tensors[i].tensor.data;
		const char *name = text_chars(&o->names) + (size_t)tensors[i].name;
		if (data < expected)
			return fail(
				err,
				"tensor \"%s\" (from byte %lld of the data) overlaps tensor \"%s\" (to byte %lld)",
				name, (long long)(data - start), before, (long long)(expected - start));
		if (data > expected)
			return fail(err,
						"bytes %lld to %lld of the data belong to no tensor (before tensor \"%s\")",
						(long long)(expected - start), (long long)(data - start), name);
		expected = data + tensors[i].tensor.bytes;
		before = name;
	}
	size_t rest = (size_t)(shard->data + shard->bytes - expected);
	if (rest)
		return fail(err, "the last %zu bytes of the file belong to no tensor", rest);
	return 0;
}

/* Adds every tensor of the header. named_tensor.name holds an offset into o->names until finish().
 */
static int add_tensors(struct opening *o, int shard_index, const struct json *json,
					   struct error *err)
{
	struct checkpoint *c = o->checkpoint;
	const struct shard *shard = &c->shards[shard_index];
	const struct json_node *root = &json->nodes[0];
	size_t first = c->n_tensors;
	if (!json_is(root, JSON_OBJECT))
		return fail(err, "the header is not a JSON object");
	if (mem_grow(&c->tensors, &o->tensors_capacity, first + root->n_children, sizeof *c->tensors,
				 err) != 0)
		return -1;
	for (const struct json_node *key = json_first(json, root); key;
		 key = json_next(json, root, key)) {
		if (json_equals(json, key, "__metadata__"))
			continue;
		size_t offset = o->names.length;
		json_string(json, key, &o->names);
		if (text_check(&o->names, err) != 0)
			return -1;
		const char *name = text_chars(&o->names) + offset;
		size_t length = o->names.length - offset;
		if (length == 0 || length > MAX_NAME_BYTES || memchr(name, '\0', length))
			return fail(
				err, "tensor \"%.60s\": its name has %zu bytes%s, expected 1 to %d and no NUL",
				name, length, memchr(name, '\0', length) ? " and a NUL" : "", MAX_NAME_BYTES);
		struct named_tensor *added = &c->tensors[c->n_tensors];
		*added = (struct named_tensor){.name = (const char *)offset, .shard = shard_index};
		if (read_tensor(json, json_value(key), name, shard, &added->tensor, err) != 0)
			return -1;
		c->tensor_bytes += added->tensor.bytes; // every shard's are at most its file size
		c->n_tensors++;
		text_add_char(&o->names, '\0');
	}
	if (text_check(&o->names, err) != 0)
		return -1;
	size_t n = c->n_tensors - first;
	if (n)
		qsort(c->tensors + first, n, sizeof *c->tensors, by_offset);
	return check_cover(o, shard, n ? c->tensors + first : NULL, n, err);
}

static int read_header(struct opening *o, int shard_index, struct error *err)
{
	struct shard *shard = &o->checkpoint->shards[shard_index];
	uint64_t length = read_le64(shard->data);
	if (length > shard->bytes - 8)
		return fail(err, "the header says it has %llu bytes, the file has %zu after the first 8",
					(unsigned long long)length, shard->bytes - 8);
	if (length > MAX_HEADER_BYTES)
		return fail(err, "the header says it has %llu bytes, at most %d are allowed",
					(unsigned long long)length, MAX_HEADER_BYTES);
	shard->header_bytes = 8 + (size_t)length;
	struct json json = {0};
	int result = json_parse(&json, (const char *)shard->data + 8, (size_t)length, err);
	if (result != 0)
		fail_in(err, "header");
	else
		result = add_tensors(o, shard_index, &json, err);
	json_free(&json);
	return result;
}

static int open_path(struct opening *o, const char *path, struct error *err)
{
	struct checkpoint *c = o->checkpoint;
	if (mem_grow(&c->shards, &o->shards_capacity, (size_t)c->n_shards + 1, sizeof *c->shards,
				 err) != 0)
		return -1;
	struct shard *shard = &c->shards[c->n_shards];
	*shard = (struct shard){0};
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	shard->name = mem_string(name, strlen(name), err);
	if (!shard->name)
		return -1;
	c->n_shards++; // from here on checkpoint_close frees it
	if (map_shard(shard, path, err) != 0)
		return -1;
	return read_header(o, c->n_shards - 1, err) != 0 ? fail_in(err, "%s", path) : 0;
}

static int open_shard(struct opening *o, const char *name, struct error *err)
{
	char *path = file_join(o->directory, name, err);
	int result = path ? open_path(o, path, err) : -1;
	free(path);
	return result;
}

/* ---- names ---- */

static const struct named_tensor *lookup(const struct checkpoint *c, const char *name)
{
	if (!c->table_size)
		return NULL;
	size_t mask = c->table_size - 1;
	for (size_t i = hash_bytes(name, strlen(name)) & mask; c->table[i]; i = (i + 1) & mask)
		if (strcmp(c->tensors[c->table[i] - 1].name, name) == 0)
			return &c->tensors[c->table[i] - 1];
	return NULL;
}

/* All names are known: offsets become pointers, the table is filled. */
static int finish(struct opening *o, struct error *err)
{
	struct checkpoint *c = o->checkpoint;
	if (c->n_tensors >= UINT32_MAX / 4)
		return fail(err, "%zu tensors are too many", c->n_tensors);
	c->names = text_take(&o->names);
	size_t size = 16;
	while (size < c->n_tensors * 2)
		size *= 2;
	c->table = mem_new(size, sizeof *c->table, err);
	if (!c->table)
		return -1;
	c->table_size = size;
	for (size_t i = 0; i < c->n_tensors; i++) {
		struct named_tensor *t = &c->tensors[i];
		t->name = c->names + (size_t)t->name;
		const struct named_tensor *other = lookup(c, t->name);
		if (other)
			return fail(err, "tensor \"%s\" is in %s and again in %s", t->name,
						c->shards[other->shard].name, c->shards[t->shard].name);
		size_t at = hash_bytes(t->name, strlen(t->name)) & (size - 1);
		while (c->table[at])
			at = (at + 1) & (size - 1);
		c->table[at] = (uint32_t)i + 1;
	}
	return 0;
}

/* ---- which files ---- */

struct name_list {
	char **names;
	size_t n, capacity;
};

static void free_names(struct name_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->names[i]);
	free(list->names);
}

static int add_name(struct name_list *list, const char *name, size_t length, struct error *err)
{
	if (mem_grow(&list->names, &list->capacity, list->n + 1, sizeof *list->names, err) != 0)
		return -1;
	list->names[list->n] = mem_string(name, length, err);
	return list->names[list->n] ? (list->n++, 0) : -1;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int open_list(struct opening *o, struct name_list *list, struct error *err)
{
	if (list->n)
		qsort(list->names, list->n, sizeof *list->names, by_name);
	const char *before = NULL;
	for (size_t i = 0; i < list->n; i++) {
		if (before && strcmp(before, list->names[i]) == 0)
			continue;
		before = list->names[i];
		if (o->checkpoint->n_shards == MAX_SHARDS)
			return fail(err, "more than %d shards", MAX_SHARDS);
		if (open_shard(o, before, err) != 0)
			return -1;
	}
	return finish(o, err);
}

/* A file name and nothing else: an index may not lead out of its directory. */
static bool plain_name(const char *name, size_t length)
{
	return length > 0 && length < NAME_MAX && !memchr(name, '/', length) &&
		   !memchr(name, '\0', length) && name[0] != '.';
}

/* Every tensor that the index names must be in the shard that it names. */
static int check_index(const struct checkpoint *c, const struct json *json,
					   const struct json_node *map, struct error *err)
{
	struct text name = {0}, shard = {0};
	int result = 0;
	for (const struct json_node *key = json_first(json, map); key && result == 0;
		 key = json_next(json, map, key)) {
		text_clear(&name);
		text_clear(&shard);
		json_string(json, key, &name);
		const struct named_tensor *t = lookup(c, text_chars(&name));
		json_string(json, json_value(key), &shard);
		if (!t)
			result = fail(err, "tensor \"%.300s\" is not in %s, where the index says it is",
						  text_chars(&name), text_chars(&shard));
		else if (strcmp(c->shards[t->shard].name, text_chars(&shard)) != 0)
			result = fail(err, "tensor \"%s\" is in %s, but the index says it is in %s",
						  text_chars(&name), c->shards[t->shard].name, text_chars(&shard));
	}
	text_free(&shard);
	text_free(&name);
	return result;
}

/* The files that the index names. */
static int read_map(const struct json *json, const struct json_node *map, struct name_list *list,
					struct error *err)
{
	if (!json_is(map, JSON_OBJECT))
		return fail(err, "has no object \"weight_map\"");
	struct text name = {0};
	int result = 0;
	for (const struct json_node *key = json_first(json, map); key && result == 0;
		 key = json_next(json, map, key)) {
		const struct json_node *value = json_value(key);
		text_clear(&name);
		json_string(json, value, &name);
		if (!json_is(value, JSON_STRING) || !plain_name(text_chars(&name), name.length))
			result = fail(err, "\"%.200s\" is not the name of a file beside the index",
						  text_chars(&name));
		else if (list->n == 0 || strcmp(list->names[list->n - 1], name.data) != 0)
			result = add_name(list, name.data, name.length, err);
	}
	if (result == 0 && list->n == 0)
		result = fail(err, "\"weight_map\" is empty");
	text_free(&name);
	return result;
}

static int open_index(struct opening *o, const char *path, struct error *err)
{
	struct text source = {0};
	struct json json = {0};
	struct name_list list = {0};
	const struct json_node *map = NULL;
	int result = file_read(path, MAX_INDEX_BYTES, &source, err);
	if (result == 0 && json_parse(&json, text_chars(&source), source.length, err) != 0)
		result = fail_in(err, "%s", path);
	if (result == 0) {
		map = json_member(&json, &json.nodes[0], "weight_map");
		if (read_map(&json, map, &list, err) != 0)
			result = fail_in(err, "%s", path);
	}
	if (result == 0)
		result = open_list(o, &list, err);
	if (result == 0 && check_index(o->checkpoint, &json, map, err) != 0)
		result = fail_in(err, "%s", path);
	free_names(&list);
	json_free(&json);
	text_free(&source);
	return result;
}

/* "model-00001-of-00013.safetensors" says 13; 0 if the name says nothing. */
static int shards_said(const char *name)
{
	int at, of, end = 0;
	if (sscanf(name, "model-%6d-of-%6d.safetensors%n", &at, &of, &end) == 2 && end && !name[end])
		return of > 0 ? of : 0;
	return 0;
}

static int open_scan(struct opening *o, struct error *err)
{
	static const char prefix[] = "model-", suffix[] = ".safetensors";
	DIR *folder = opendir(o->directory);
	if (!folder)
		return fail(err, "%s: %s", o->directory, strerror(errno));
	struct name_list list = {0};
	int result = 0;
	for (struct dirent *e; result == 0 && (e = readdir(folder));) {
		size_t length = strlen(e->d_name);
		if (length > strlen(suffix) && strncmp(e->d_name, prefix, strlen(prefix)) == 0 &&
			strcmp(e->d_name + length - strlen(suffix), suffix) == 0)
			result = add_name(&list, e->d_name, length, err);
	}
	closedir(folder);
	if (result == 0 && list.n == 0)
		result = fail(
			err,
			"%s: no model.safetensors, model.safetensors.index.json or model-*.safetensors there",
			o->directory);
	for (size_t i = 0; i < list.n && result == 0; i++) {
		int said = shards_said(list.names[i]);
		if (said && (size_t)said != list.n)
			result = fail(err, "%s: %s says there are %d shards, found are %zu", o->directory,
						  list.names[i], said, list.n);
	}
	if (result == 0)
		result = open_list(o, &list, err);
	free_names(&list);
	return result;
}

static int open_directory(struct opening *o, struct error *err)
{
	if (!file_is_directory(o->directory))
		return access(o->directory, F_OK) != 0
				   ? fail(err, "%s: %s", o->directory, strerror(errno))
				   : fail(err, "%s: is a file, expected the directory of a checkpoint",
						  o->directory);
	char *single = file_join(o->directory, "model.safetensors", err);
	char *index = single ? file_join(o->directory, "model.safetensors.index.json", err) : NULL;
	int result = -1;
	if (!index)
		result = -1;
	else if (access(single, F_OK) == 0) // transformers' order: the single file wins
		result = open_shard(o, "model.safetensors", err) == 0 ? finish(o, err) : -1;
	else if (access(index, F_OK) == 0)
		result = open_index(o, index, err);
	else
		result = open_scan(o, err);
	free(single);
	free(index);
	return result;
}

int checkpoint_open(struct checkpoint *checkpoint, const char *directory, struct error *err)
{
	*checkpoint = (struct checkpoint){0};
	struct opening o = {.checkpoint = checkpoint, .directory = directory};
	int result = open_directory(&o, err);
	text_free(&o.names);
	if (result != 0)
		checkpoint_close(checkpoint);
	return result;
}

int checkpoint_open_file(struct checkpoint *checkpoint, const char *path, struct error *err)
{
	*checkpoint = (struct checkpoint){0};
	struct opening o = {.checkpoint = checkpoint};
	int result = open_path(&o, path, err);
	if (result == 0)
		result = finish(&o, err);
	text_free(&o.names);
	if (result != 0)
		checkpoint_close(checkpoint);
	return result;
}

void checkpoint_close(struct checkpoint *checkpoint)
{
	for (int i = 0; i < checkpoint->n_shards; i++) {
		struct shard *shard = &checkpoint->shards[i];
		if (shard->data)
			munmap((void *)(uintptr_t)shard->data, shard->bytes);
		free(shard->name);
	}
	free(checkpoint->shards);
	free(checkpoint->tensors);
	free(checkpoint->table);
	free(checkpoint->names);
	*checkpoint = (struct checkpoint){0};
}

const struct tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name)
{
	const struct named_tensor *found = lookup(checkpoint, name);
	return found ? &found->tensor : NULL;
}
