/*
 * Inside slice_build(): which rows, columns or channels of a stored tensor a budget keeps, as spans
 * in the memory of the plan. An axis is one list of spans; what lies below its units (channels of
 * heads, rows of in_proj) is nested from it.
 */
#ifndef CORE_KEPT_H
#define CORE_KEPT_H

#include "core/slice.h"

/* Kept rows, columns or channels: spans in the plan's memory and the sum of their lengths. */
struct kept {
	const struct span *spans, *on_device;
	int n, total;
};

/* A slice that is being built. */
struct builder {
	struct slice *slice;
	const struct config *config;
	const struct weights *weights;
	const struct pack *pack; // where its matrices are packed; NULL = they are whole
	float *staging;          // a packed vector before it is uploaded
	size_t staging_capacity;
	struct kept hidden;
	int layer; // for errors; -1 = none
	struct error *err;
};

/* bytes (zeroed, 64-byte aligned) of the plan's memory, or NULL; on_device: of the device's. */
void *plan_take(struct builder *b, bool on_device, size_t bytes);

/* A copy of host memory where operations can read it, or NULL. */
const void *plan_put(struct builder *b, const void *from, size_t bytes);

/* What the budget keeps of an axis in the current layer. */
int keep_axis(struct builder *b, enum axis axis, struct kept *out);

/* All of 0 .. n - 1, or units of `stride` channels each. */
int keep_all(struct builder *b, int n, struct kept *out);
int keep_units(struct builder *b, struct kept units, int stride, struct kept *out);

/* Adds to the list: every kept unit of `units` stands for the channels `inside` of `stride` stored
 * ones. */
int keep_nested(struct builder *b, struct span_list *list, int from, struct kept units,
				struct kept inside, int stride);

/* Takes over the list's spans (and frees the list, also on failure). */
int keep_list(struct builder *b, struct span_list *list, struct kept *out);

/* One past the last kept channel. */
int64_t kept_end(struct kept kept);

/* The indices themselves, ascending. free() */
int32_t *kept_indices(struct builder *b, struct kept kept);

/* The indices in the plan's memory, or the device's; NULL on failure. */
const int32_t *kept_put(struct builder *b, struct kept kept, bool on_device);

#endif
