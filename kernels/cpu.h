/*
 * Inside the CPU backend: the second table. A rung is a set of inner loops for one kind of
 * processor, chosen from CPUID (never by timing: replays must repeat): c first, faster rungs
 * override rows. ELASTISCOPE_RUNG=c|avx2|avx512|avx512+bf16 in the environment keeps to a rung, so
 * that every rung is tested on one machine.
 */
#ifndef KERNELS_CPU_H
#define KERNELS_CPU_H

#include "kernels/backend.h"
#include "kernels/tensor.h"
#include <stdbool.h>

/* out[t * out_stride + r] = sum_j w[r * w_stride + j] * x[t][j]: stored rows against activation
 * rows. The order of summation over j depends on n alone, whatever n_w and n_x are. Rows of w are
 * aligned to their element only, rows of NVFP4 to a byte. */
struct product {
	const void *w;        // (n_w, n), rows w_stride elements apart
	const void *const *x; // (n_x) rows of n
	float *out;           // (n_x, n_w), rows out_stride apart
	int64_t w_stride, out_stride;
	int n_w, n_x, n;
	const uint8_t *scales; // dot_nvfp4: (n_w, n / 16) E4M3, rows scale_stride apart
	int64_t scale_stride;
	float scale; // dot_f8, dot_nvfp4: a factor of every result
};

/* y[h][j] += sum_i a[h][i] * v[i][j], i ascending: attention's weighted sums of values, for the
 * heads that share them. */
struct blend {
	float *y;       // (n_y, n), rows y_stride apart
	const float *a; // (n_y, n_v), rows a_stride apart
	const void *v;  // (n_v, n), rows v_stride elements apart
	int64_t y_stride, a_stride, v_stride;
	int n_y, n_v, n;
};

struct cpu_rung {
	const char *name;

	void (*dot_f32)(const struct product *p); // the type of w; x is F32
	void (*dot_bf16)(const struct product *p);
	void (*dot_f16)(const struct product *p);
	void (*dot_f8)(const struct product *p);         // E4M3, NaN stays NaN
	void (*dot_nvfp4)(const struct product *p);      // n a multiple of 16, w_stride even (elements)
	void (*dot_bf16_bf16)(const struct product *p);  // w and x BF16; NULL where it does not pay
	void (*dot_nvfp4_bf16)(const struct product *p); // x BF16; set with dot_bf16_bf16

	/* One SSM row: s[j] = decay * s[j] + input * b[j]; returns sum_j s[j] * c[j]. */
	float (*ssm_row)(float *s, const float *b, const float *c, float decay, float input, int n);

	/* Element by element, the same wherever an element stands; within 2 ulp of libm. */
	void (*exp)(float *v, int n);                  // v = e^v; 0 and inf past the ends, NaN stays
	void (*silu)(float *y, const float *x, int n); // y = x / (1 + e^-x); y may be x

	void (*blend_f32)(const struct blend *b); // the type of v
	void (*blend_bf16)(const struct blend *b);
	void (*blend_f8)(const struct blend *b); // E4M3; |a| at most 1
};

/* The rungs that this processor has, slowest ("c") first; *n says how many. */
const struct cpu_rung *const *cpu_rungs(int *n);

/* The best one allowed by the environment. MATH_FAST may name one that multiplies in BF16. */
const struct cpu_rung *cpu_rung_best(enum math math);

#endif
