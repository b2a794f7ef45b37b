#include "export/piece.h"

#include <string.h>

size_t piece_buffer_bytes(const struct cuts *cuts)
{
	size_t bytes = PIECE_BUFFER_BYTES;
	for (size_t i = 0; i < cuts->n; i++)
		if ((size_t)cuts->list[i].kept_bytes > bytes)
			bytes = (size_t)cuts->list[i].kept_bytes;
	return bytes;
}

static int check_codes(const struct cut *cut, const uint8_t *codes, size_t n, struct error *err)
{
	if (cut->from->tensor.dtype != DTYPE_F8_E4M3)
		return 0;
	for (size_t i = 0; i < n; i++)
		if ((codes[i] & 0x7f) == 0x7f)
			return fail(err, "tensor \"%s\" has a NaN (E4M3 byte 0x%02x)", cut->from->name,
						codes[i]);
	return 0;
}

static const char *position(const struct cut_reader *reader)
{
	const struct cut *cut = reader->cut;
	int64_t row =
		reader->span < cut->n_row_spans ? cut->rows[reader->span].start + reader->row : cut->n_rows;
	return (const char *)cut->from->tensor.data + row * cut->row_bytes;
}

int piece_stream(const struct piece *piece, void *buffer, struct sink sink, struct error *err)
{
	const struct cut *cut = piece->cut;
	struct cut_reader reader = {.cut = cut};
	const char *before = position(&reader);
	size_t size = PIECE_BUFFER_BYTES;
	if (size < (size_t)cut->kept_bytes)
		size = (size_t)cut->kept_bytes;
	for (size_t n; (n = cut_read(&reader, buffer, size)) > 0;) {
		const char *now = position(&reader);
		checkpoint_forget(before, (uint64_t)(now - before));
		before = now;
		if (check_codes(cut, buffer, n, err) != 0 || sink.take(sink.user, buffer, n, err) != 0)
			return -1;
	}
	return 0;
}
