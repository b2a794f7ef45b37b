/*
 * What a stored tensor is, and which part of it a budget uses. No data is owned here: `data` points
 * into a mapped file (or a device's one upload of it) and nothing below core/ knows files or
 * layers.
 */
#ifndef KERNELS_TENSOR_H
#define KERNELS_TENSOR_H

#include <stddef.h>
#include <stdint.h>

enum dtype {
	DTYPE_F32,
	DTYPE_BF16,
	DTYPE_F16,
	DTYPE_F8_E4M3,
	DTYPE_U8,
	DTYPE_I32,
	DTYPE_I64,
	N_DTYPES
};

size_t dtype_bytes(enum dtype dtype);
const char *dtype_name(enum dtype dtype); // as safetensors spells it: "BF16"

#define TENSOR_MAX_DIMS 4

struct tensor {
	enum dtype dtype;
	int n_dims;
	int64_t shape[TENSOR_MAX_DIMS]; // slowest axis first
	const void *data;
	uint64_t bytes; // product of shape times dtype_bytes
};

/* A run of stored rows, columns or channels: [start, start + length). */
struct span {
	int32_t start, length;
};

/*
 * A budget's view of one stored (stored_rows, stored_columns) matrix W, row-major: the rows and
 * columns that it keeps, as spans, ascending. Rows are outermost, so a stored row is read once, in
 * order. A matrix with one column span that starts at 0 takes the fast kernels.
 */
struct matrix {
	const void *data; // first element of stored row 0
	enum dtype dtype; // F32, BF16, F16
	int64_t stride;   // elements from one stored row to the next
	const struct span *rows, *columns;
	int n_row_spans, n_column_spans;
	int n_rows, n_columns; // kept: sums of the spans' lengths
};

#endif
