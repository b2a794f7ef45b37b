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
	N_FILE_DTYPES,               // what a safetensors header can name
	DTYPE_NVFP4 = N_FILE_DTYPES, // how a bound U8 weight is read: E2M1 pairs, a scale a block
	N_DTYPES
};

#define NVFP4_BLOCK 16 // consecutive input elements that share an E4M3 scale

size_t dtype_bytes(enum dtype dtype);     // of an element; not for NVFP4, which has none of its own
const char *dtype_name(enum dtype dtype); // as safetensors spells it: "BF16"
size_t dtype_span_bytes(enum dtype dtype, size_t n); // n consecutive elements, NVFP4: n even

/* A matrix of n weights with what decoding it reads: block scales, and one F32 scale of FP8 or
 * NVFP4. (input_scale is not read, so not counted.) */
uint64_t dtype_matrix_bytes(enum dtype dtype, uint64_t n);

#define TENSOR_MAX_DIMS 4

struct tensor {
	enum dtype dtype;
	int n_dims;
	int64_t shape[TENSOR_MAX_DIMS]; // slowest axis first
	const void *data;
	uint64_t bytes; // of data: product of shape times dtype_bytes, NVFP4: half a byte an element
	/* Of a bound quantised weight (core/quantised.h), whose shape counts elements. */
	const uint8_t *scales; // NVFP4: (out, in / 16) E4M3
	float scale;           // FP8: weight_scale; NVFP4: weight_scale_2
	float input_scale;     // what activations were divided by, calibrated; 0 = not known
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
	const void *data;                                // first element of stored row 0
	enum dtype dtype;                                // F32, BF16, F16, F8_E4M3, NVFP4
	int64_t stride;                                  // elements from one stored row to the next
	int64_t n_stored;                                // rows of the stored matrix, 0 = not said
	const struct span *rows, *columns;               // host
	const struct span *device_rows, *device_columns; // the same in the device's memory
	int n_row_spans, n_column_spans;
	int n_rows, n_columns; // kept: sums of the spans' lengths
	/* W = e4m3(data) * scale, or e2m1(data) * e4m3(scales[row][column / 16]) * scale. Column spans
	 * of NVFP4 start and end on blocks. */
	const uint8_t *scales; // of stored row 0, stride / 16 a row
	float scale;
	float
		input_scale; // of FP8, for devices that multiply E4M3: x = e4m3 * input_scale; 0 = unknown
};

/* Where one of several matrices of the same spans lies, for tables in device memory. */
struct placed {
	const void *data;
	const uint8_t *scales;
	float scale;
	enum dtype dtype;
};

struct placed matrix_placed(const struct matrix *m);

const void *matrix_at(const struct matrix *m, int64_t row, int64_t column); // stored; NVFP4: even
const uint8_t *matrix_scales_at(const struct matrix *m, int64_t row, int64_t column); // or NULL

#endif
