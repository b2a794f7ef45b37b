/*
 * What the kernel tests share: repeatable random numbers, random spans, memory between guard bytes,
 * and the ways to make one call that must all give the same bits.
 */
#ifndef TESTS_KERNELS_CASE_H
#define TESTS_KERNELS_CASE_H

#include "kernels/backend.h"
#include <stddef.h>
#include <stdint.h>

/* The table under test: the CPU's, or with TEST_CUDA (when case.c is compiled) the CUDA one, on a
 * card or on the shim. */
extern const struct backend *const case_backend;

#define CASE_LANES 4 // of a call, at most

void case_seed(uint64_t seed);
int case_int(int low, int high); // both included
float case_float(void);          // about normal, mean 0, deviation 1
void case_floats(float *values, size_t n);

/* n random floats between guards, where the device reads them too; freed, and the guards checked,
 * by case_done. */
float *case_new(size_t n);
void *case_new_bytes(size_t bytes);
void case_done(void); // fails the test if a byte beside any block changed

/* A random matrix of `rows` x `columns` kept in up to 3 spans each of a larger stored one.
 * NVFP4: columns go down to whole blocks, at least one: see m->n_columns. */
void case_matrix(struct matrix *m, enum dtype dtype, int rows, int columns);
/* A lane's narrower view of the same stored matrix: at most the given kept sizes; spans of its own.
 */
void case_view(struct matrix *m, const struct matrix *parent, int rows, int columns);
/* Another stored matrix of the same shape and spans, as experts are. */
void case_sibling(struct matrix *m, const struct matrix *first, enum dtype dtype);
double case_weight(const struct matrix *m, int row, int column); // by kept indices

enum { BY_TOKEN = 1, BY_LANE = 2, N_WAYS = 4 };

/* Opens both devices (1 and 2 threads) for the rung under test; teardown closes. */
int case_open(void **state);
int case_open_fast(void **state); // MATH_FAST: BF16 products where the processor gains
int case_close(void **state);
struct device *case_device(int n_threads); // 1 or 2

int case_rounds(int n, int least);       // n, or fewer on the shim, where a kernel takes long
void case_finish(struct device *device); // waits; fails the test if the device failed
struct placed *case_placed(const struct matrix *m, int n);

/* How far off products may be: a factor on the tests' tolerances. */
double case_looseness(void);

void case_near(double expected, double found, double tolerance, const char *what);
/* Bit for bit; on a card, whose sums depend on how work is divided, nearly. */
void case_same(const float *a, const float *b, size_t n, const char *what);

#endif
