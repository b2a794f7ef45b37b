#include "inspect/trials.h"
#include <math.h>

#define AT_ONCE (FIDELITY_SIDES - 1) // beside the base

/* What has been read before the running pass, for its progress. */
struct progress {
	const struct trials_plan *plan;
	double before, all; // passes
};

static int step(void *user, int done, int total)
{
	const struct progress *p = user;
	double share = (p->before + (double)done / total) / p->all;

	return p->plan->step ? p->plan->step(p->plan->user, (int)(share * 10000), 10000) : 0;
}

static struct trial trial_of(const struct divergence_summary *summary)
{
	return (struct trial){summary->kl, summary->ppl, summary->same_top.value};
}

/* A budget that cannot be run is named by the slice. */
static int one_pass(const struct trials_plan *plan, const struct budget *budgets, int n,
					struct slice *slices, struct progress *progress, struct fidelity *out,
					struct error *err)
{
	struct fidelity_plan pass = {.n_sides = n + 1,
								 .ids = plan->ids,
								 .n = plan->n,
								 .window = plan->window,
								 .kv_dtype = plan->kv_dtype,
								 .route_from = -1,
								 .step = step,
								 .user = progress};

	pass.sides[0] = &slices[0];
	for (int i = 0; i < n; i++) {
		if (slice_build(&slices[i + 1], &plan->model->weights, &plan->model->config, &budgets[i],
						plan->backend, plan->device, err))
			return -1;
		pass.sides[i + 1] = &slices[i + 1];
	}
	return fidelity_run(out, &pass, err);
}

int trials_run(const struct trials_plan *plan, const struct budget *budgets, int n,
			   struct trial *out, struct trial *base_out, struct error *err)
{
	struct slice slices[FIDELITY_SIDES] = {0};
	struct progress progress = {plan, 0, (n + AT_ONCE - 1) / AT_ONCE};
	int result = 0;

	if (n < 1)
		return fail(err, "no budget to try");
	if (slice_build(&slices[0], &plan->model->weights, &plan->model->config, plan->base,
					plan->backend, plan->device, err))
		return -1;
	for (int at = 0; at < n && !result; at += AT_ONCE, progress.before++) {
		int some = n - at < AT_ONCE ? n - at : AT_ONCE;
		struct fidelity f = {0};
		result = one_pass(plan, budgets + at, some, slices, &progress, &f, err);
		for (int i = 0; i < some; i++) {
			if (!result)
				out[at + i] = trial_of(&f.sides[i + 1].summary);
			slice_free(&slices[i + 1]);
		}
		if (!result)
			*base_out = trial_of(&f.sides[0].summary);
		fidelity_free(&f);
	}
	slice_free(&slices[0]);
	return result;
}
