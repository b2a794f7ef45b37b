#include "export/piece.h"

#include "base/memory.h"
#include "kernels/convert.h"
#include "kernels/quantise.h"
#include <stdlib.h>
#include <string.h>

#define BUFFER_BYTES ((size_t)4 << 20)

/* ---- what is written ---- */

struct listing {
	struct piece_list *pieces;
	const struct cuts *cuts;
	size_t tensors_capacity;
	struct error *err;
};

/* name: the cut's with `ending` instead of "weight". */
static int add(struct listing *l, const struct piece *piece, const struct tensor *tensor,
			   const char *ending)
{
	struct piece_list *p = l->pieces;
	const char *name = piece->cut->to.name;
	if (mem_grow(&p->list, &p->capacity, p->n + 1, sizeof *p->list, l->err) != 0 ||
		mem_grow(&p->tensors, &l->tensors_capacity, p->n + 1, sizeof *p->tensors, l->err) != 0)
		return -1;
	p->list[p->n] = *piece;
	p->tensors[p->n].tensor = *tensor;
	p->tensors[p->n].name =
		(const char *)(uintptr_t)p->names.length; // an offset, until all are known
	p->n++;
	text_append(&p->names, name, strlen(name) - (ending ? strlen("weight") : 0));
	text_add(&p->names, ending ? ending : "");
	text_append(&p->names, "", 1);
	return text_check(&p->names, l->err);
}

static int add_number(struct listing *l, struct piece piece, float number, const char *ending)
{
	static const struct tensor one = {.dtype = DTYPE_F32, .bytes = sizeof(float)};
	piece.encoding = ENCODE_NUMBER;
	piece.number = number;
	return add(l, &piece, &one, ending);
}

static int add_quantised(struct listing *l, const struct cut *cut, const struct quantisation *q)
{
	size_t at = (size_t)(cut->from - q->model->checkpoint.tensors);
	bool nvfp4 = q->format == DTYPE_NVFP4;
	int64_t rows = cut->to.tensor.shape[0], columns = cut->to.tensor.shape[1];
	struct piece piece = {
		.cut = cut, .encoding = ENCODE_CODES, .format = q->format, .scale = q->scale[at]};
	struct tensor t = {.dtype = nvfp4 ? DTYPE_U8 : DTYPE_F8_E4M3,
					   .n_dims = 2,
					   .shape = {rows, nvfp4 ? columns / 2 : columns}};
	t.bytes = (uint64_t)(t.shape[0] * t.shape[1]);
	if (add(l, &piece, &t, "weight") != 0)
		return -1;
	if (nvfp4) {
		t.dtype = DTYPE_F8_E4M3;
		t.shape[1] = columns / NVFP4_BLOCK;
		t.bytes = (uint64_t)(t.shape[0] * t.shape[1]);
		piece.encoding = ENCODE_SCALES;
		if (add(l, &piece, &t, "weight_scale") != 0)
			return -1;
	}
	if (add_number(l, piece, piece.scale, nvfp4 ? "weight_scale_2" : "weight_scale") != 0)
		return -1;
	return q->input_scale[at] > 0 ? add_number(l, piece, q->input_scale[at], "input_scale") : 0;
}

int piece_list_open(struct piece_list *pieces, const struct cuts *cuts,
					const struct quantisation *quantisation, struct error *err)
{
	*pieces =
		(struct piece_list){.buffer_bytes = BUFFER_BYTES, .checkpoint = &cuts->model->checkpoint};
	struct listing l = {.pieces = pieces, .cuts = cuts, .err = err};
	int result = quantisation ? quantisation_check(quantisation, cuts, err) : 0;
	for (size_t i = 0; i < cuts->n && result == 0; i++) {
		const struct cut *cut = &cuts->list[i];
		size_t at = (size_t)(cut->from - cuts->model->checkpoint.tensors);
		if (quantisation && quantisation->scale[at] > 0)
			result = add_quantised(&l, cut, quantisation);
		else
			result = add(&l, &(struct piece){.cut = cut}, &cut->to.tensor, NULL);
		if ((size_t)cut->kept_bytes > pieces->row_bytes)
			pieces->row_bytes = (size_t)cut->kept_bytes;
	}
	if (pieces->row_bytes > pieces->buffer_bytes)
		pieces->buffer_bytes = pieces->row_bytes;
	for (size_t i = 0; i < pieces->n && result == 0; i++)
		pieces->tensors[i].name = pieces->names.data + (size_t)(uintptr_t)pieces->tensors[i].name;
	if (result != 0)
		piece_list_close(pieces);
	return result;
}

void piece_list_close(struct piece_list *pieces)
{
	free(pieces->list);
	free(pieces->tensors);
	text_free(&pieces->names);
	*pieces = (struct piece_list){0};
}

int piece_buffer_open(struct piece_buffer *buffer, const struct piece_list *pieces,
					  struct error *err)
{
	*buffer =
		(struct piece_buffer){.bytes = pieces->buffer_bytes, .checkpoint = pieces->checkpoint};
	// stored numbers have two bytes and more, made ones at most one
	buffer->stored = mem_new_aligned(pieces->buffer_bytes, 1, err);
	buffer->made = buffer->stored ? mem_new_aligned(pieces->buffer_bytes, 1, err) : NULL;
	buffer->row = buffer->made ? mem_new(pieces->row_bytes, sizeof(float), err) : NULL;
	return buffer->row ? 0 : -1;
}

void piece_buffer_close(struct piece_buffer *buffer)
{
	free(buffer->stored);
	free(buffer->made);
	free(buffer->row);
	*buffer = (struct piece_buffer){0};
}

/* ---- bytes ---- */

static int check_codes(const struct cut *cut, const char *codes, size_t n, struct error *err)
{
	if (cut->from->tensor.dtype != DTYPE_F8_E4M3)
		return 0;
	for (size_t i = 0; i < n; i++)
		if ((codes[i] & 0x7f) == 0x7f)
			return fail(err, "tensor \"%s\" has a NaN (E4M3 byte 0x%02x)", cut->from->name,
						(unsigned char)codes[i]);
	return 0;
}

/* Whole rows of stored bytes in the piece's encoding. The bytes made. */
static size_t encode(const struct piece *piece, const struct piece_buffer *buffer, size_t n)
{
	const struct cut *cut = piece->cut;
	enum dtype dtype = cut->from->tensor.dtype;
	int64_t columns = cut->kept_bytes / (int64_t)dtype_bytes(dtype);
	uint8_t *to = (uint8_t *)buffer->made;
	for (size_t at = 0; at < n; at += (size_t)cut->kept_bytes) {
		convert_to_f32(buffer->stored + at, dtype, (size_t)columns, buffer->row);
		bool codes = piece->encoding == ENCODE_CODES;
		quantise_row(piece->format, piece->scale, buffer->row, columns, codes ? to : NULL,
					 codes ? NULL : to);
		to += !codes ? columns / NVFP4_BLOCK : piece->format == DTYPE_NVFP4 ? columns / 2 : columns;
	}
	return (size_t)(to - (uint8_t *)buffer->made);
}

int piece_stream(const struct piece *piece, struct piece_buffer *buffer, struct sink sink,
				 struct error *err)
{
	const struct cut *cut = piece->cut;
	struct cut_reader reader = {.cut = cut};
	if (piece->encoding == ENCODE_NUMBER)
		return sink.take(sink.user, &piece->number, sizeof piece->number, err);
	for (size_t n; (n = cut_read(&reader, buffer->stored, buffer->bytes)) > 0;) {
		const char *bytes = buffer->stored;
		// rows are touched whole
		checkpoint_forget(buffer->checkpoint, &buffer->since,
						  n / (size_t)cut->kept_bytes * (uint64_t)cut->row_bytes);
		if (check_codes(cut, bytes, n, err) != 0)
			return -1;
		if (piece->encoding != ENCODE_NOT) {
			n = encode(piece, buffer, n);
			bytes = buffer->made;
		}
		if (sink.take(sink.user, bytes, n, err) != 0)
			return -1;
	}
	return 0;
}
