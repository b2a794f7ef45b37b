/*
 * Which rungs this processor (and its operating system: __builtin_cpu_supports asks XGETBV) can
 * run.
 */
#include "kernels/rung.h"
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <cpuid.h>
#endif

#define MAX_RUNGS 4

static const struct cpu_rung *ladder[MAX_RUNGS];
static int n_ladder;
static struct cpu_rung narrow; // the best rung with BF16 products, where they pay
static bool has_narrow;

#if defined(__x86_64__)
/* clang 14's __builtin_cpu_supports does not know this name. */
static bool has_f16c(void)
{
	unsigned a, b, c, d;
	return __get_cpuid(1, &a, &b, &c, &d) && (c & bit_F16C);
}
#endif

static void build_ladder(void)
{
	ladder[n_ladder++] = &rung_c;
#if defined(__x86_64__)
	__builtin_cpu_init();
	if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma") || !has_f16c())
		return;
	ladder[n_ladder++] = &rung_avx2;
	if (!__builtin_cpu_supports("avx512f") || !__builtin_cpu_supports("avx512bw") ||
		!__builtin_cpu_supports("avx512vl") || !__builtin_cpu_supports("avx512dq"))
		return;
	ladder[n_ladder++] = &rung_avx512;
	/* vdpbf16ps: twice F32's rate on Zen 4 and later, half of it on Intel (measured) */
	has_narrow = __builtin_cpu_supports("avx512bf16") && __builtin_cpu_is("amd");
	narrow = rung_avx512;
	narrow.name = "avx512+bf16";
	narrow.dot_bf16_bf16 = dot_bf16_bf16_avx512;
	narrow.dot_nvfp4_bf16 = dot_nvfp4_bf16_avx512;
#endif
}

const struct cpu_rung *const *cpu_rungs(int *n)
{
	static pthread_once_t once = PTHREAD_ONCE_INIT;
	pthread_once(&once, build_ladder);
	*n = n_ladder;
	return ladder;
}

const struct cpu_rung *cpu_rung_best(enum math math)
{
	int n;
	const struct cpu_rung *const *rungs = cpu_rungs(&n);
	const struct cpu_rung *best = rungs[n - 1];
	const char *wanted = getenv("ELASTISCOPE_RUNG");
	for (int i = 0; wanted && i < n; i++)
		if (!strcmp(rungs[i]->name, wanted))
			best = rungs[i];
	bool plain = wanted && !strcmp(wanted, best->name); // "avx512": not with BF16 products
	return math == MATH_FAST && has_narrow && best == rungs[n - 1] && !plain ? &narrow : best;
}
