#include "core/shard.h"
#include "base/json.h"
#include "base/memory.h"
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MAX_HEADER_BYTES 100000000
#define MAX_NAME_BYTES 300 // of a tensor: errors quote it whole

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

int shard_open(struct opening *o, const char *path, struct error *err)
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
