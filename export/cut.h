/*
 * What a child keeps of its parent's stored tensors: of each one that the budget reads, rows and,
 * of every row, runs of bytes, and the name and shape under which they stand in the child (layers
 * and experts that go are counted out). The spans are those of core/slice.h, so that what is
 * written is what runs; scales follow their weights: one for a block of 16 columns is cut like the
 * weight, one for a whole matrix is copied.
 */
#ifndef EXPORT_CUT_H
#define EXPORT_CUT_H

#include "core/model.h"
#include "core/slice.h"

struct cut {
	const struct named_tensor *from;
	struct named_tensor to;            // in the child; no data
	int64_t n_rows, row_bytes;         // of the stored tensor
	const struct span *rows, *columns; // kept; columns in bytes
	int n_row_spans, n_column_spans;
	int64_t kept_bytes;          // of a row
	const struct matrix *matrix; // a weight of a matrix product: its kept elements; else NULL
	int layer, expert;           // of the parent, -1 = none
};

struct cuts {
	const struct model *model;
	struct slice slice;
	struct cut *list; // in the parent's order
	size_t n;
	struct named_tensor *to; // (n) what `list` makes, for shards_open()
	int *layer;              // (n_layers) the child's number, -1 = gone
	int n_layers;
	size_t n_left_out; // tensors that no budget of the parent reads
	const char *first_left_out;
	struct text names;
};

/* The budget is copied, the model borrowed. */
int cuts_plan(struct cuts *cuts, const struct model *model, const struct budget *budget,
			  struct error *err);
void cuts_free(struct cuts *cuts); // takes {0}

/* The name of a module or tensor in the child: appended to out, true; false if it is gone. What
 * does not name a layer stays as it is. */
bool cuts_rename(const struct cuts *cuts, const char *name, struct text *out);

/* Reads kept bytes from the first row to the last. */
struct cut_reader {
	const struct cut *cut;
	int span;    // into rows
	int64_t row; // into that span
};
/* Whole rows, as many as fit; the bytes, 0 at the end. size is at least kept_bytes. */
size_t cut_read(struct cut_reader *reader, void *out, size_t size);

/* The stored row of the child's row. */
int64_t cut_row(const struct cut *cut, int64_t row);

/* The stored byte of byte `at` of a kept row. */
int64_t cut_byte(const struct cut *cut, int64_t at);

/* The first byte in which a stored row, cut, differs from a child's row; -1 = none. */
int64_t cut_difference(const struct cut *cut, const char *stored, const char *child);

#endif
