/*
 * Rows and columns of a stored matrix as 64-bit hashes, so that a child's can be looked for among
 * the parent's. A unit is an element, or, where elements share a byte or a scale, the bytes of a
 * block of columns.
 */
#ifndef EXPORT_FINGERPRINT_H
#define EXPORT_FINGERPRINT_H

#include "base/error.h"
#include "kernels/tensor.h"
#include <stdbool.h>

/* Bytes seen as rows of units, some of them. */
struct sight {
	const char *data;
	int64_t row_bytes;
	const struct span *rows, *columns; // columns in bytes; what is looked at
	int n_row_spans, n_column_spans;
	int unit; // bytes
};

int64_t sight_rows(const struct sight *sight);
int64_t sight_units(const struct sight *sight); // in a row

/* A hash of every row over the kept columns. ordered: else of its units in any order. free() */
uint64_t *sight_row_hashes(const struct sight *sight, bool ordered, struct error *err);
uint64_t *sight_column_hashes(const struct sight *sight, struct error *err);

/* For each of n hashes, an index into the m others that has the same hash; each is taken once,
 * `expected[i]` first. -1 = there is none. Returns how many are -1; `out` is the caller's. */
int64_t match_hashes(const uint64_t *hashes, int64_t n, const uint64_t *others, int64_t m,
					 const int64_t *expected, int64_t *out, struct error *err);

#endif
