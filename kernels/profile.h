/*
 * A pass taken apart, on a device that can time what it runs (backend.profiler): its operations run
 * in groups of neighbours, each of one launch or a few, and every group is timed for itself; and
 * what the device could do at most. For bench: nothing is recorded or replayed meanwhile.
 */
#ifndef KERNELS_PROFILE_H
#define KERNELS_PROFILE_H

#include "base/error.h"
#include "kernels/work.h"

struct device;

/* Groups of the same operations on the same shapes, of all passes since start(). */
struct profiled {
	char name[72]; // "norm + 3 linear bf16 4608x2688"
	int n_groups, n_launches;
	double ns; // gaps between launches included
	struct work work;
};

/* Measured now, on random bits; 0 = could not be. */
struct peaks {
	double read_bps, copy_bps; // of the memory, bytes a second; a copy's count twice
	double bf16_flops;         // a large dense product of cuBLASLt's, per second
};

struct profiler {
	/* Takes some milliseconds and up to a few GB of the card for as long. */
	int (*peaks)(struct device *device, struct peaks *out, struct error *err);

	/* rows: what every KV cache holds before the passes to come (work_attention). */
	int (*start)(struct device *device, int rows, struct error *err);

	/* Most time first; valid until the next start or close. */
	const struct profiled *(*stop)(struct device *device, int *n);
};

#endif
