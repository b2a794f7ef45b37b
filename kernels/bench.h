/*
 * How fast the kernels are on this processor: every row of every rung, one thread; then whole
 * operations on all threads. A plain read of the same memory stands first: the share of it is what
 * counts.
 */
#ifndef KERNELS_BENCH_H
#define KERNELS_BENCH_H

#include "base/error.h"

/* One measurement: ns is the best time of a call, bytes what it must move (weights, state, values),
 * or 0 where it works in cache. */
typedef void kernels_bench_row(void *arg, const char *name, const char *rung, double ns,
							   double bytes);

/* Takes about a second and 65 MiB. */
int kernels_bench(kernels_bench_row *row, void *arg, struct error *err);

#endif
