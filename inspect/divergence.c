#include "inspect/divergence.h"
#include "base/memory.h"
#include <math.h>
#include <stdlib.h>

static const struct {
	double fraction;
	const char *kl, *dp;
} percentiles[N_PERCENTILES] = {
	{.999, "99.9% KLD", "99.9% Δp"}, {.99, "99.0% KLD", "99.0% Δp"},
	{.95, "95.0% KLD", "95.0% Δp"},  {.90, "90.0% KLD", "90.0% Δp"},
	{.75, "75.0% KLD", "75.0% Δp"},  {.50, "Median KLD", "Median Δp"},
	{.25, "25.0% KLD", "25.0% Δp"},  {.10, "10.0% KLD", "10.0% Δp"},
	{.05, "5.0% KLD", "5.0% Δp"},    {.01, "1.0% KLD", "1.0% Δp"},
	{.001, "0.1% KLD", "0.1% Δp"},
};

double divergence_fraction(enum divergence_percentile percentile)
{
	return percentiles[percentile].fraction;
}

static void spread(double *values, size_t n, double *low, double *high, double *out)
{
	statistics_sort(values, n);
	*low = n ? values[0] : NAN;
	*high = n ? values[n - 1] : NAN;
	for (int i = 0; i < N_PERCENTILES; i++)
		out[i] = statistics_percentile(values, n, percentiles[i].fraction);
}

/* Perplexities, their ratio and difference; errors carry the covariance, because both read the same
 * text. scratch holds 2 n values. */
static void perplexities(struct divergence_summary *s, const struct divergence_position *base,
						 const struct divergence_position *q, double *scratch)
{
	double *nll = scratch, *nll_base = scratch + s->n;
	struct comoment both = {0};
	size_t n = 0;

	for (int i = 0; i < s->n; i++) {
		if (isnan(base[i].logprob) || isnan(q[i].logprob))
			continue;
		nll[n] = -q[i].logprob;
		nll_base[n] = -base[i].logprob;
		comoment_add(&both, nll[n], nll_base[n]);
		n++;
	}
	struct estimate mean = statistics_mean(nll, n), mean_base = statistics_mean(nll_base, n);
	double cov = comoment_of_means(&both), ratio = exp(mean.value - mean_base.value);
	s->n_next = (int)n;
	s->ppl = (struct estimate){exp(mean.value), exp(mean.value) * mean.error};
	s->ppl_base = (struct estimate){exp(mean_base.value), exp(mean_base.value) * mean_base.error};
	s->ln_ppl_correlation = comoment_correlation(&both);
	s->ln_ppl_ratio.value = mean.value - mean_base.value;
	s->ln_ppl_ratio.error =
		sqrt(fmax(0, mean.error * mean.error + mean_base.error * mean_base.error - 2 * cov));
	s->ppl_ratio = (struct estimate){ratio, ratio * s->ln_ppl_ratio.error};
	s->ppl_difference.value = s->ppl.value - s->ppl_base.value;
	s->ppl_difference.error =
		sqrt(fmax(0, s->ppl.error * s->ppl.error + s->ppl_base.error * s->ppl_base.error -
						 2 * s->ppl.value * s->ppl_base.value * cov));
	if (n < 2)
		s->ln_ppl_ratio.error = s->ppl_ratio.error = s->ppl_difference.error = NAN;
}

static void probabilities(struct divergence_summary *s, const struct divergence_position *base,
						  const struct divergence_position *q, double *scratch)
{
	double *dp = scratch, *squares = scratch + s->n;
	size_t n = 0;

	for (int i = 0; i < s->n; i++) {
		if (isnan(base[i].logprob) || isnan(q[i].logprob))
			continue;
		dp[n] = exp(q[i].logprob) - exp(base[i].logprob);
		squares[n] = dp[n] * dp[n];
		n++;
	}
	struct estimate mean_square = statistics_mean(squares, n);
	double rms = sqrt(mean_square.value);
	s->dp = statistics_mean(dp, n);
	s->rms_dp = (struct estimate){rms, rms > 0 ? mean_square.error / (2 * rms) : mean_square.error};
	spread(dp, n, &s->dp_min, &s->dp_max, s->dp_percentile);
}

static void divergences(struct divergence_summary *s, const struct divergence_position *base,
						const struct divergence_position *q, double *scratch)
{
	double *kl = scratch, *same = scratch + s->n;

	s->first_divergence = -1;
	for (int i = 0; i < s->n; i++) {
		kl[i] = q[i].kl;
		same[i] = q[i].top == base[i].top;
		if (s->first_divergence < 0 && q[i].top != base[i].top)
			s->first_divergence = i;
	}
	s->same_top = statistics_mean(same, (size_t)s->n);
	s->kl = statistics_mean(kl, (size_t)s->n);
	spread(kl, (size_t)s->n, &s->kl_min, &s->kl_max, s->kl_percentile);
}

int divergence_summarise(struct divergence_summary *summary, const struct divergence_position *base,
						 const struct divergence_position *q, int n, struct error *err)
{
	double *scratch = mem_new((size_t)n, 2 * sizeof *scratch, err);

	*summary = (struct divergence_summary){.n = n};
	if (!scratch)
		return -1;
	perplexities(summary, base, q, scratch);
	divergences(summary, base, q, scratch);
	probabilities(summary, base, q, scratch);
	free(scratch);
	return 0;
}

/* ---- rows ---- */

#define N_PPL 6 // rows before the first KLD
#define N_KLD (N_PERCENTILES + 3)
#define N_DP (N_PERCENTILES + 5)

static struct divergence_row alone(const char *name, double value, bool percent)
{
	return (struct divergence_row){.name = name, .value = value, .error = NAN, .percent = percent};
}

static struct divergence_row with_error(const char *name, struct estimate e, bool percent)
{
	return (struct divergence_row){
		.name = name, .value = e.value, .error = e.error, .percent = percent};
}

static struct divergence_row ppl_row(const struct divergence_summary *s, int i)
{
	switch (i) {
	case 0: return with_error("Mean PPL(Q)", s->ppl, false);
	case 1: return with_error("Mean PPL(base)", s->ppl_base, false);
	case 2: return alone("Cor(ln(PPL(Q)), ln(PPL(base)))", s->ln_ppl_correlation, true);
	case 3: return with_error("Mean ln(PPL(Q)/PPL(base))", s->ln_ppl_ratio, false);
	case 4: return with_error("Mean PPL(Q)/PPL(base)", s->ppl_ratio, false);
	default: return with_error("Mean PPL(Q)-PPL(base)", s->ppl_difference, false);
	}
}

static struct divergence_row kld_row(const struct divergence_summary *s, int i)
{
	if (i == 0)
		return with_error("Mean KLD", s->kl, false);
	if (i == 1)
		return alone("Maximum KLD", s->kl_max, false);
	if (i < N_KLD - 1)
		return alone(percentiles[i - 2].kl, s->kl_percentile[i - 2], false);
	return alone("Minimum KLD", s->kl_min, false);
}

static struct divergence_row dp_row(const struct divergence_summary *s, int i)
{
	if (i == 0)
		return with_error("Mean Δp", s->dp, true);
	if (i == 1)
		return alone("Maximum Δp", s->dp_max, true);
	if (i < N_DP - 3)
		return alone(percentiles[i - 2].dp, s->dp_percentile[i - 2], true);
	if (i == N_DP - 3)
		return alone("Minimum Δp", s->dp_min, true);
	return i == N_DP - 2 ? with_error("RMS Δp", s->rms_dp, true)
						 : with_error("Same top p", s->same_top, true);
}

bool divergence_row(const struct divergence_summary *summary, int i, struct divergence_row *row)
{
	int in_kld = i - N_PPL, in_dp = in_kld - N_KLD;

	if (i < 0 || in_dp >= N_DP)
		return false;
	*row = i < N_PPL        ? ppl_row(summary, i)
		   : in_kld < N_KLD ? kld_row(summary, in_kld)
							: dp_row(summary, in_dp);
	row->section = i == 0        ? "Perplexity statistics"
				   : in_kld == 0 ? "KL divergence statistics"
				   : in_dp == 0  ? "Token probability statistics"
								 : NULL;
	return true;
}
