/*
 * Allocation that is checked: n * size never overflows, failure is an error with the number of
 * bytes, memory comes zeroed. Everything is released with free().
 */
#ifndef BASE_MEMORY_H
#define BASE_MEMORY_H

#include "base/error.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* n zeroed elements of `size` bytes; n = 0 gives a valid pointer. NULL and err when there is no
 * memory. */
void *mem_new(size_t n, size_t size, struct error *err);

/* The same, aligned to 64 bytes (a cache line, an AVX-512 register). */
void *mem_new_aligned(size_t n, size_t size, struct error *err);

/* Makes room for `need` elements in *array (capacity in *capacity, elements of `size` bytes),
 * growing by half; new elements are zeroed. 0, or -1 with *array untouched. */
int mem_grow(void *array, size_t *capacity, size_t need, size_t size, struct error *err);

/* A copy of length bytes of text, NUL-terminated. */
char *mem_string(const char *text, size_t length, struct error *err);

/* What the machine could still give to programs, what it can drop (page cache) included: Linux's
 * MemAvailable. 0 = not known. */
uint64_t mem_available_bytes(void);

/* *product = a * b; false if it does not fit. */
bool mem_multiply(size_t a, size_t b, size_t *product);

#endif
