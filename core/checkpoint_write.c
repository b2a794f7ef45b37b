/*
 * Writing a safetensors file. Tensors with larger elements come first, so that every one is aligned
 * (the header is padded to 8 bytes); otherwise they keep the order given.
 */
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/text.h"
#include "base/utf8.h"
#include "core/checkpoint.h"
#include <stdlib.h>
#include <string.h>

static int check_tensor(const struct named_tensor *t, struct error *err)
{
	size_t bytes = dtype_bytes(t->tensor.dtype);
	if (!utf8_valid(t->name, strlen(t->name), NULL))
		return fail(err, "tensor \"%s\": its name is not valid UTF-8", t->name);
	for (int i = 0; i < t->tensor.n_dims; i++)
		if (t->tensor.shape[i] < 0 || !mem_multiply(bytes, (size_t)t->tensor.shape[i], &bytes))
			return fail(err, "tensor \"%s\": its shape has no size", t->name);
	if (bytes != t->tensor.bytes)
		return fail(err, "tensor \"%s\" has %llu bytes, dtype and shape need %zu", t->name,
					(unsigned long long)t->tensor.bytes, bytes);
	return 0;
}

static void add_notes(struct text *header, const struct checkpoint_note *notes, size_t n)
{
	text_add(header, "{\"__metadata__\":{\"format\":\"pt\"");
	for (size_t i = 0; i < n; i++) {
		text_add_char(header, ',');
		json_add_string(header, notes[i].key);
		text_add_char(header, ':');
		json_add_string(header, notes[i].value);
	}
	text_add_char(header, '}');
}

int checkpoint_header(const struct named_tensor *const *order, size_t n,
					  const struct checkpoint_note *notes, size_t n_notes, struct text *header,
					  struct error *err)
{
	uint64_t at = 0;
	text_append(header, "\0\0\0\0\0\0\0\0", 8);
	add_notes(header, notes, n_notes);
	for (size_t i = 0; i < n; i++) {
		const struct tensor *t = &order[i]->tensor;
		if (check_tensor(order[i], err) != 0)
			return -1;
		text_add_char(header, ',');
		json_add_string(header, order[i]->name);
		text_format(header, ":{\"dtype\":\"%s\",\"shape\":[", dtype_name(t->dtype));
		for (int d = 0; d < t->n_dims; d++)
			text_format(header, "%s%lld", d ? "," : "", (long long)t->shape[d]);
		text_format(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
					(unsigned long long)(at + t->bytes));
		at += t->bytes;
	}
	text_add_char(header, '}');
	while (header->length % 8 && !header->failed)
		text_add_char(header, ' ');
	if (text_check(header, err) != 0)
		return -1;
	uint64_t length = header->length - 8;
	for (int i = 0; i < 8; i++)
		header->data[i] = (char)(length >> (8 * i) & 0xff);
	return 0;
}

void checkpoint_order(const struct named_tensor *tensors, size_t n,
					  const struct named_tensor **order)
{
	size_t filled = 0;
	for (size_t size = 8; size; size /= 2)
		for (size_t i = 0; i < n; i++)
			if (dtype_bytes(tensors[i].tensor.dtype) == size)
				order[filled++] = &tensors[i];
}

static int by_name(const void *a, const void *b)
{
	return strcmp((*(const struct named_tensor *const *)a)->name,
				  (*(const struct named_tensor *const *)b)->name);
}

int checkpoint_check_names(const struct named_tensor *tensors, size_t n, struct error *err)
{
	const struct named_tensor **order = mem_new(n, sizeof *order, err);
	int result = order ? 0 : -1;
	for (size_t i = 0; order && i < n; i++)
		order[i] = &tensors[i];
	if (order && n)
		qsort(order, n, sizeof *order, by_name);
	for (size_t i = 1; i < n && result == 0; i++)
		if (strcmp(order[i - 1]->name, order[i]->name) == 0)
			result = fail(err, "tensor \"%s\" would be written twice", order[i]->name);
	free(order);
	return result;
}

struct contents {
	const struct text *header;
	const struct named_tensor *const *order;
	size_t n;
};

static int write_contents(int fd, void *user)
{
	const struct contents *c = user;
	if (file_write_all(fd, c->header->data, c->header->length) != 0)
		return -1;
	for (size_t i = 0; i < c->n; i++)
		if (file_write_all(fd, c->order[i]->tensor.data, c->order[i]->tensor.bytes) != 0)
			return -1;
	return 0;
}

int checkpoint_write(const char *path, const struct named_tensor *tensors, size_t n,
					 struct error *err)
{
	return checkpoint_write_noted(path, tensors, n, NULL, 0, err);
}

int checkpoint_write_noted(const char *path, const struct named_tensor *tensors, size_t n,
						   const struct checkpoint_note *notes, size_t n_notes, struct error *err)
{
	const struct named_tensor **order = mem_new(n, sizeof *order, err);
	if (!order)
		return -1;
	checkpoint_order(tensors, n, order);
	struct text header = {0};
	int result = 0;
	if (checkpoint_check_names(tensors, n, err) != 0 ||
		checkpoint_header(order, n, notes, n_notes, &header, err) != 0)
		result = fail_in(err, "%s", path);
	if (result == 0)
		result = file_replace(path, write_contents, &(struct contents){&header, order, n}, err);
	text_free(&header);
	free(order);
	return result;
}
