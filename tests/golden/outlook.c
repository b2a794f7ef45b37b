/*
 * What every budget would have said (inspect/outlook.h) on nest-tiny, against the plainest reading
 * of the same logits.
 */
#include "inspect/outlook.h"
#include "golden.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define N 40

static void near(const char *what, int at, double found, double expected)
{
	if (!(fabs(found - expected) <= 1e-4 * (1 + fabs(expected))))
		golden_fail("%s %d: found %.9g, expected %.9g", what, at, found, expected);
}

static void check_view(const struct outlook_view *view, const float *logits, int vocab, int actual,
					   int token)
{
	double sum = 0, entropy = 0;
	int larger = 0;
	for (int i = 0; i < vocab; i++)
		sum += exp((double)logits[i]);
	for (int i = 0; i < vocab; i++) {
		double p = exp((double)logits[i]) / sum;
		entropy -= p * log(p);
		larger += logits[i] > logits[actual];
	}
	near("rank", token, view->rank, larger + 1);
	near("p", token, (double)view->p_actual, exp((double)logits[actual]) / sum);
	near("entropy", token, (double)view->entropy, entropy);
	for (int k = 0; k < OUTLOOK_TOP; k++) {
		int better = 0;
		for (int i = 0; i < vocab; i++)
			better += logits[i] > logits[view->top[k]];
		near("place", token, better, k);
		near("top p", token, (double)view->p[k], exp((double)logits[view->top[k]]) / sum);
	}
}

static void alternatives_equal_doubles(void)
{
	struct golden g;
	struct error err = {0};
	int32_t ids[N];
	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	int vocab = g.model->config.vocab_size;
	for (int i = 0; i < N; i++)
		ids[i] = (i * 37 + 11) % vocab;
	struct outlook_plan plan = {
		.model = g.model,
		.device = {.n_threads = 1, .math = MATH_EXACT, .kv_dtype = g.kv_dtype},
		.ids = ids,
		.n = N,
		.first = 5};
	struct outlook outlook;
	float *logits = calloc((size_t)N * (size_t)vocab, sizeof *logits);
	assert_non_null(logits);
	golden_must(outlook_run(&outlook, &plan, &err), &err);
	assert_true(outlook.n_budgets > 1);
	for (int b = 0; b < outlook.n_budgets; b++) {
		struct sequence sequence;
		golden_sequence(&g, &sequence, outlook.budgets[b]);
		golden_read(&g, &sequence, ids, N, PREFILL_CHUNK, logits);
		for (int token = 5; token < N; token++)
			check_view(outlook_at(&outlook, b, token), logits + (size_t)(token - 1) * (size_t)vocab,
					   vocab, ids[token], token);
		sequence_close(&sequence);
	}
	assert_null(outlook_at(&outlook, 0, 4));
	assert_null(outlook_at(&outlook, 0, N));
	outlook_free(&outlook);
	plan.first = 0;
	assert_int_equal(outlook_run(&outlook, &plan, &err), -1);
	ids[3] = vocab;
	plan.first = 1;
	assert_int_equal(outlook_run(&outlook, &plan, &err), -1);
	free(logits);
	golden_close(&g);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"alternatives_equal_doubles", alternatives_equal_doubles}};
	return golden_main(tests, sizeof tests / sizeof *tests);
}
