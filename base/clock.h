/* Time is nanoseconds in a uint64_t everywhere inside. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include <stdint.h>

uint64_t clock_ns(void); // monotonic

/* Wall clock as "2026-11-22T12:07:00Z" (20 characters and NUL). */
void clock_utc(char out[24]);

#endif
