/*
 * The tensors that an export writes: bytes of cuts as they are stored, or made from them (codes and
 * scales of a weight that is quantised on the way). Streamed through one buffer; what has been read
 * of the mapping is let go.
 */
#ifndef EXPORT_PIECE_H
#define EXPORT_PIECE_H

#include "export/cut.h"
#include "export/quantisation.h"

enum encoding {
	ENCODE_NOT,    // the stored bytes
	ENCODE_CODES,  // the weight in the quantisation's format
	ENCODE_SCALES, // a scale a block
	ENCODE_NUMBER  // one F32: `number`
};

struct piece {
	const struct cut *cut;
	enum encoding encoding;
	enum dtype format;
	float scale, number;
};

struct piece_list {
	struct piece *list;
	struct named_tensor *tensors; // (n) what they are called
	const struct checkpoint *checkpoint;
	size_t n, capacity;
	size_t buffer_bytes, row_bytes;
	struct text names;
};

/* quantisation NULL: cuts as they are stored. Both are borrowed. */
int piece_list_open(struct piece_list *pieces, const struct cuts *cuts,
					const struct quantisation *quantisation, struct error *err);
void piece_list_close(struct piece_list *pieces); // takes {0}

/* Where bytes go; non-zero ends the stream with an error. */
struct sink {
	int (*take)(void *user, const void *bytes, size_t n, struct error *err);
	void *user;
};

/* Room for any piece of a list. */
struct piece_buffer {
	char *stored, *made;
	float *row;
	size_t bytes;                        // of `stored`
	const struct checkpoint *checkpoint; // what is read
	uint64_t since;
};
int piece_buffer_open(struct piece_buffer *buffer, const struct piece_list *pieces,
					  struct error *err);
void piece_buffer_close(struct piece_buffer *buffer); // takes {0}

/* E4M3 bytes that are NaN are refused, with the tensor's name. */
int piece_stream(const struct piece *piece, struct piece_buffer *buffer, struct sink sink,
				 struct error *err);

#endif
