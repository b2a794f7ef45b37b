#include "inspect/fidelity_job.h"
#include "base/memory.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LENS_TOKENS 512 // the lens reads lm_head once a layer and token: for answers, not for files

static int compare(struct fidelity_job *it, struct slice *slices, struct device *device,
				   struct error *err)
{
	for (int i = 0; i < it->plan.n_sides; i++) {
		struct model *model = it->models[i];
		struct budget budget = {0};
		if (i > 0 && model != it->models[0] && fidelity_same_vocabulary(it->models[0], model, err))
			return -1;
		if (model_budget(model, it->budgets[i], &budget, err))
			return -1;
		int result = slice_build(&slices[i], &model->weights, &model->config, &budget, &backend_cpu,
								 device, err);
		budget_free(&budget);
		if (result)
			return -1;
		it->plan.sides[i] = &slices[i];
	}
	return fidelity_run(&it->fidelity, &it->plan, err);
}

static int run(struct job *job, struct error *err)
{
	struct fidelity_job *it = (struct fidelity_job *)job;
	struct slice slices[FIDELITY_SIDES] = {0};
	struct device_options options = it->device;
	options.n_threads = options.n_threads > 0 ? options.n_threads : 1;
	struct device *device = backend_cpu.open(&options, err);
	if (!device)
		return -1;
	it->plan.step = job_plan_step;
	it->plan.user = job;
	it->plan.kv_dtype = options.kv_dtype;
	int result = compare(it, slices, device, err);
	for (int i = 0; i < FIDELITY_SIDES; i++)
		slice_free(&slices[i]);
	backend_cpu.close(device);
	return result;
}

static void job_free(struct job *job)
{
	struct fidelity_job *it = (struct fidelity_job *)job;
	for (int i = 0; i < FIDELITY_SIDES; i++)
		model_release(it->models[i]);
	free(it->ids);
	fidelity_free(&it->fidelity);
	free(it);
}

struct fidelity_job *fidelity_job(const struct fidelity_side_plan *sides, int n_sides,
								  const int32_t *ids, int n, int first,
								  const struct device_options *device, struct error *err)
{
	if (n_sides < 2 || n_sides > FIDELITY_SIDES || n < 2 || first < 0 || first >= n - 1) {
		fail(err, "nothing to compare: %d budgets, tokens %d to %d", n_sides, first, n);
		return NULL;
	}
	struct fidelity_job *it = mem_new(1, sizeof *it, err);
	if (!it || !(it->ids = mem_new((size_t)n, sizeof *it->ids, err))) {
		free(it);
		return NULL;
	}
	memcpy(it->ids, ids, (size_t)n * sizeof *ids);
	it->job = (struct job){.name = "comparison", .run = run, .free = job_free};
	it->device = *device;
	it->plan = (struct fidelity_plan){
		.n_sides = n_sides, .ids = it->ids, .n = n, .first = first, .end = n - 1, .route_from = -1};
	bool alike = false;
	for (int i = 0; i < n_sides; i++) {
		it->models[i] = model_retain(sides[i].model);
		snprintf(it->budgets[i], sizeof it->budgets[i], "%s", sides[i].budget);
		it->plan.unlike[i] = fidelity_same_shape(&sides[0].model->config, &sides[i].model->config,
												 sides[0].budget, sides[i].budget, NULL) != 0;
		alike |= i > 0 && !it->plan.unlike[i];
	}
	it->plan.layers = alike;
	it->plan.lens = alike && n - first <= LENS_TOKENS;
	if (alike && sides[0].model->config.n_routed_experts > 0)
		it->plan.route_from = 0;
	return it;
}
