/*
 * One budget's weights alone in a device's memory, where the whole model has no room: of every
 * matrix the kept rows x kept columns, packed, experts as far as they are kept, so the bytes are
 * that budget's own. Slices of this budget, and of all that are nested in it, are built over it
 * (slice_build_packed); their spans count packed rows and columns.
 */
#ifndef CORE_PACK_H
#define CORE_PACK_H

#include "core/upload.h"

/* A stored matrix and what of it is packed where; spans are the plan's. */
struct packed {
	const void *host; // stored row 0; NULL = free
	const void *data;
	const uint8_t *scales;
	const struct span *rows, *columns;
	int n_row_spans, n_column_spans;
	int64_t stride; // packed columns
};

struct pack {
	struct slice plan; // its budget; the matrices point at the mapping
	const struct backend *backend;
	struct device *device;
	unsigned char *memory;
	uint64_t bytes;       // of memory
	struct packed *table; // open addressing by host, n_slots a power of two
	size_t n_slots;
};

/* What a budget's own weights take in a pack. */
uint64_t pack_bytes(const struct slice *plan);

/* Uploads a budget alone. plan: built without a backend; taken over (also on failure). */
int pack_open(struct pack *pack, struct slice *plan, const struct upload *upload,
			  struct error *err);
void pack_close(struct pack *pack); // takes {0}; no slice over it may run any more

/* Whether all that the plan reads is there. */
bool pack_holds(const struct pack *pack, const struct slice *plan);

const struct packed *pack_find(const struct pack *pack, const void *host); // or NULL

/* Where the channels of `spans` stand among those of `base`, appended to out (NULL: not asked).
 * False: one of them is missing (or there is no memory). Both ascending. */
bool spans_within(const struct span *base, int n_base, const struct span *spans, int n,
				  struct span_list *out);

#endif
