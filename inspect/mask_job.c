#include "inspect/mask_job.h"

#include "base/file.h"
#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

static int probe_mask(struct mask_job *it, struct error *err)
{
	struct budget budget;
	const struct model *model = it->probe.model;
	bool pinned = it->probe.base.n > 0 && strcmp(it->probe.slice.budget.name, it->base) == 0;
	if (!pinned) {
		if (model_budget(model, it->base, &budget, err) < 0)
			return -1;
		int status = probe_pin(&it->probe, &budget, err);
		budget_free(&budget);
		if (status < 0)
			return -1;
	}
	if (model_budget(model, it->mask, &budget, err) < 0)
		return -1;
	int status = probe_read(&it->probe, &budget, &it->result, err);
	budget_free(&budget);
	return status;
}

static int bisect(struct mask_job *it, struct error *err)
{
	struct budget good = {0}, bad = {0};
	struct model *child = NULL;
	const char *hash = strrchr(it->mask, '#'), *name = it->mask;
	char *directory = mem_string(name, hash ? (size_t)(hash - name) : strlen(name), err);
	int status = directory ? model_budget(it->probe.model, it->base, &good, err) : -1;
	if (status == 0 && file_is_directory(directory)) {
		child = model_open(directory, NULL, err);
		status = child ? 0 : -1;
		if (child)
			name = hash ? hash + 1 : elastic_default(&child->elastic);
	}
	if (status == 0)
		status = model_budget(child ? child : it->probe.model, name, &bad, err);
	if (status == 0)
		status = child ? bisect_child(&it->bisect, &it->probe, &good, child, &bad, err)
					   : bisect_masks(&it->bisect, &it->probe, &good, &bad, err);
	free(directory);
	budget_free(&good);
	budget_free(&bad);
	model_release(child);
	return status;
}

static int against(struct mask_job *it, struct error *err)
{
	struct budget budget;
	if (model_budget(it->probe.model, it->mask, &budget, err) < 0)
		return -1;
	int status = against_run(&it->against, &it->probe, &budget, it->path, AGAINST_TOLERANCE, err);
	budget_free(&budget);
	return status;
}

static int run(struct job *job, struct error *err)
{
	struct mask_job *it = (struct mask_job *)job;
	it->probe.step = job_plan_step;
	it->probe.user = job;
	switch (it->task) {
	case MASK_PROBE: return probe_mask(it, err);
	case MASK_BISECT: return bisect(it, err);
	case MASK_AGAINST: return against(it, err);
	}
	return -1;
}

static void job_free(struct job *job)
{
	struct mask_job *it = (struct mask_job *)job;
	probe_close(&it->probe);
	free(it->base);
	free(it->mask);
	free(it->path);
	free(it);
}

struct mask_job *mask_job(enum mask_task task, struct probe *probe, const char *base,
						  const char *mask, const char *path, struct error *err)
{
	static const char *const names[] = {"probe", "bisection", "comparison"};
	struct mask_job *it = mem_new(1, sizeof *it, err);
	if (!it) {
		probe_close(probe);
		return NULL;
	}
	*it = (struct mask_job){
		.job = {.name = names[task], .run = run, .free = job_free}, .task = task, .probe = *probe};
	*probe = (struct probe){0};
	it->base = mem_string(base, strlen(base), err);
	it->mask = mem_string(mask, strlen(mask), err);
	it->path = path ? mem_string(path, strlen(path), err) : NULL;
	if (!it->base || !it->mask || (path && !it->path)) {
		job_free(&it->job);
		return NULL;
	}
	return it;
}
