#include "core/distribution.h"
#include <math.h>

struct distribution distribution_of(const float *logits, int vocab)
{
	struct distribution d = {0};
	double largest, sum = 0, weighted = 0;

	for (int i = 1; i < vocab; i++)
		d.top = logits[i] > logits[d.top] ? i : d.top;
	largest = (double)logits[d.top];
	for (int i = 0; i < vocab; i++) {
		double x = (double)logits[i] - largest, e = exp(x);
		sum += e;
		if (e > 0) // 0 log 0 = 0, also where a logit is -inf
			weighted += e * x;
	}
	d.log_sum = largest + log(sum);
	d.entropy = log(sum) - weighted / sum; // -sum p ln p, shifted by the largest
	return d;
}

double distribution_kl(const float *p, const struct distribution *of_p, const float *q,
					   const struct distribution *of_q, int vocab)
{
	double kl = 0;

	for (int i = 0; i < vocab; i++) {
		double lp = (double)p[i] - of_p->log_sum, share = exp(lp);
		if (share > 0)
			kl += share * (lp - ((double)q[i] - of_q->log_sum));
	}
	return kl > 0 || isnan(kl) ? kl : 0; // rounding may leave -1e-17
}
