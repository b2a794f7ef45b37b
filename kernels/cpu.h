/*
 * Inside the CPU backend: the second table. A rung is a set of inner loops for one kind of processor,
 * filled once from CPUID (never by timing: replays must repeat): c first, faster rungs override rows.
 * ELASTISCOPE_RUNG=c|avx2|avx512 in the environment keeps to a lower rung, so that every rung is
 * tested on one machine.
 */
#ifndef KERNELS_CPU_H
#define KERNELS_CPU_H

#include "kernels/tensor.h"
#include <stdbool.h>

struct cpu_rung {
	const char *name;

	/* out[i] = sum_j w[j] * x[i * x_stride + j] for i < n_x: one stored row against several activation
	 * rows. The order of summation over j is the same whatever n_x is. */
	void (*dot_f32)(const float *w, const float *x, int64_t x_stride, int n_x, int n, float *out);
	void (*dot_bf16)(const uint16_t *w, const float *x, int64_t x_stride, int n_x, int n, float *out);
	void (*dot_f16)(const uint16_t *w, const float *x, int64_t x_stride, int n_x, int n, float *out);

	/* One SSM row: s[j] = decay * s[j] + input * b[j]; returns sum_j s[j] * c[j]. */
	float (*ssm_row)(float *s, const float *b, const float *c, float decay, float input, int n);

	/* y[j] += a * v[j], v in F32 or BF16: attention's weighted sum of values. */
	void (*axpy_f32)(float *y, float a, const float *v, int n);
	void (*axpy_bf16)(float *y, float a, const uint16_t *v, int n);
};

/* The rungs that this processor has, slowest ("c") first; *n says how many. */
const struct cpu_rung *const *cpu_rungs(int *n);

/* The best one allowed by the environment. */
const struct cpu_rung *cpu_rung_best(void);

#endif
