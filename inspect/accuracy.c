#include "inspect/accuracy.h"
#include <math.h>

#define Z95 1.959963984540054 // the normal distribution's 97.5 % point

struct interval accuracy_interval(size_t right, size_t n)
{
	if (n == 0)
		return (struct interval){0, 1};
	double z2 = Z95 * Z95, total = (double)n, share = (double)right / total;
	double middle = share + z2 / (2 * total);
	double half = Z95 * sqrt(share * (1 - share) / total + z2 / (4 * total * total));
	double scale = 1 + z2 / total;
	// the ends are 0 and 1 exactly where they should be, not nearly
	return (struct interval){right == 0 ? 0 : (middle - half) / scale,
							 right == n ? 1 : (middle + half) / scale};
}

/* P(X = k) for n fair coins. */
static double coins(size_t k, size_t n)
{
	double a = (double)n, b = (double)k;
	return exp(lgamma(a + 1) - lgamma(b + 1) - lgamma(a - b + 1) - a * log(2));
}

struct mcnemar accuracy_mcnemar(size_t lost, size_t won)
{
	size_t n = lost + won, k = lost < won ? lost : won;
	double tail = 0;
	if (lost == won)
		return (struct mcnemar){1, n == 0 ? 1 : 1 - coins(k, n) / 2};
	for (size_t i = 0; i <= k; i++)
		tail += coins(i, n);
	double exact = 2 * tail;
	return (struct mcnemar){exact < 1 ? exact : 1, exact - coins(k, n)};
}
