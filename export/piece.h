/*
 * One tensor that an export writes: bytes of a cut as they are stored, or made from them. Streamed
 * through one buffer; what has been read of the mapping is let go.
 */
#ifndef EXPORT_PIECE_H
#define EXPORT_PIECE_H

#include "export/cut.h"

enum encoding {
	ENCODE_NOT, // the stored bytes
};

struct piece {
	const struct cut *cut;
	enum encoding encoding;
};

/* Where bytes go; non-zero ends the stream with an error. */
struct sink {
	int (*take)(void *user, const void *bytes, size_t n, struct error *err);
	void *user;
};

#define PIECE_BUFFER_BYTES ((size_t)4 << 20)

/* E4M3 bytes that are NaN are refused, with the tensor's name. */
int piece_stream(const struct piece *piece, void *buffer, struct sink sink, struct error *err);

/* Bytes of a buffer that every piece of the list fits: PIECE_BUFFER_BYTES, or a longer row. */
size_t piece_buffer_bytes(const struct cuts *cuts);

#endif
