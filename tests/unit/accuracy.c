/* Intervals and paired tests against published values. */
#include "inspect/accuracy.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

static void near(double found, double expected, double within)
{
	if (!(fabs(found - expected) <= within))
		print_error("found %.9g, expected %.9g\n", found, expected);
	assert_true(fabs(found - expected) <= within);
}

/* Newcombe 1998, table I, method 3. */
static void wilson(void **state)
{
	static const struct {
		size_t right, n;
		double low, high;
	} known[] = {
		{81, 263, 0.2553, 0.3662},
		{15, 148, 0.0624, 0.1605},
		{0, 20, 0, 0.1611},
		{1, 29, 0.0061, 0.1718},
	};
	(void)state;
	for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
		struct interval found = accuracy_interval(known[i].right, known[i].n);
		near(found.low, known[i].low, 5e-5);
		near(found.high, known[i].high, 5e-5);
		struct interval turned = accuracy_interval(known[i].n - known[i].right, known[i].n);
		near(turned.low, 1 - known[i].high, 5e-5);
	}
	assert_true(accuracy_interval(20, 20).high == 1);
	assert_true(accuracy_interval(0, 20).low == 0);
	assert_true(accuracy_interval(0, 0).low == 0 && accuracy_interval(0, 0).high == 1);
}

/* 1 and 7: Fagerland, Lydersen, Laake 2013 (airway hyper-responsiveness). */
static void mcnemar(void **state)
{
	(void)state;
	struct mcnemar found = accuracy_mcnemar(1, 7), turned = accuracy_mcnemar(7, 1);
	near(found.exact, 0.0703125, 1e-12);
	near(found.mid, 0.0390625, 1e-12);
	assert_true(found.exact == turned.exact && found.mid == turned.mid);
	found = accuracy_mcnemar(0, 0);
	assert_true(found.exact == 1 && found.mid == 1);
	found = accuracy_mcnemar(2, 2); // 6 of 16 outcomes are even
	near(found.exact, 1, 0);
	near(found.mid, 1 - 6.0 / 16 / 2, 1e-12);
	found = accuracy_mcnemar(0, 5);
	near(found.exact, 2.0 / 32, 1e-12);
	near(found.mid, 1.0 / 32, 1e-12);
	near(accuracy_mcnemar(5, 6).exact, 1, 1e-12);
	// 2 * (C(2000, 0) + ... + C(2000, 900)) / 2^2000 in whole numbers
	near(accuracy_mcnemar(900, 1100).exact, 8.457089535503927e-06, 1e-14);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(wilson),
		cmocka_unit_test(mcnemar),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
