/* The rungs that are compiled in; rung.c asks the processor which of them run. */
#ifndef KERNELS_RUNG_H
#define KERNELS_RUNG_H

#include "kernels/cpu.h"

extern const struct cpu_rung rung_c;

#if defined(__x86_64__)
extern const struct cpu_rung rung_avx2;              // AVX2, FMA, F16C
extern const struct cpu_rung rung_avx512;            // AVX-512 F BW VL DQ
void dot_f8_avx512(const struct product *p);         // the same
void dot_nvfp4_avx512(const struct product *p);      // the same
void dot_bf16_bf16_avx512(const struct product *p);  // AVX-512 BF16
void dot_nvfp4_bf16_avx512(const struct product *p); // the same
#endif

#endif
