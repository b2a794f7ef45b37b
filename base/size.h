/* Quantities as people type and read them. */
#ifndef BASE_SIZE_H
#define BASE_SIZE_H

#include "base/error.h"
#include <stdint.h>

/* "24GiB", "500M" (powers of 1024), "8 GB" (of 1000), or bytes. */
int size_parse(const char *text, uint64_t *bytes, struct error *err);

/* "2.8B", "630K", "2.8e9": a positive count with powers of 1000, K M B (or G) T. */
int count_parse(const char *text, double *count, struct error *err);

/* The same for reading: "58.82 GiB", "2.79B", "630.8K". */
const char *size_text(uint64_t bytes, char out[32]);
const char *count_text(double count, char out[32]);

#endif
