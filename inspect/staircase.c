#include "inspect/staircase.h"

#include "base/memory.h"
#include "core/target.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static int measure(const struct model *model, const struct budget *budget,
				   struct staircase_step *step, struct error *err)
{
	step->n_layers = 0;
	for (int i = 0; i < budget->n_layers; i++)
		step->n_layers += budget_keeps_layer(budget, i);
	for (int a = 0; a < N_AXES; a++)
		step->width[a] = budget->width[a];
	return slice_measure(&step->cost, &model->weights, &model->config, budget, err);
}

/* Where the file's budgets stand: the ends of the staircase, too. */
static int mark_budgets(struct staircase *s, const struct model *model, struct error *err)
{
	s->n_budgets = model->elastic.n_budgets;
	for (int i = 0; i < s->n_budgets; i++) {
		struct staircase_step step;
		if (measure(model, &model->elastic.budgets[i], &step, err) < 0)
			return -1;
		s->at[i] = slice_cost_of(s->metric, &step.cost);
	}
	return 0;
}

static int choose(struct staircase *s, const struct model *model, struct staircase_step *step,
				  struct error *err)
{
	struct target target = {.value = step->target};
	struct budget budget = {0};
	char name[64];
	snprintf(target.metric, sizeof target.metric, "%s", s->metric);
	snprintf(name, sizeof name, "%s=%.6g", s->metric, step->target);
	if (target_budget(model, &target, name, &budget, err) < 0)
		return -1;
	int status = measure(model, &budget, step, err);
	budget_free(&budget);
	return status;
}

/* job: NULL, or where progress goes and what may cancel. */
static int climb(struct staircase *staircase, const struct model *model, const char *metric, int n,
				 struct job *job, struct error *err)
{
	struct staircase *s = staircase;
	*s = (struct staircase){.n = n, .by_router = model->router.n_tensors > 0};
	snprintf(s->metric, sizeof s->metric, "%s", metric);
	s->steps = mem_new((size_t)n, sizeof *s->steps, err);
	int status = s->steps ? mark_budgets(s, model, err) : -1;
	double most = s->at[0], least = s->n_budgets > 1 ? s->at[s->n_budgets - 1] : most / 2;
	for (int i = 0; i < n && status == 0; i++) {
		s->steps[i].target = least + (most - least) * i / (n - 1);
		status = job && job_step(job, i, n) < 0 ? -1 : choose(s, model, &s->steps[i], err);
		for (int a = 0; a < N_AXES && status == 0; a++)
			s->changes[a] |= s->steps[i].width[a] != s->steps[0].width[a];
	}
	if (status < 0)
		staircase_close(s);
	return status;
}

int staircase_open(struct staircase *staircase, const struct model *model, const char *metric,
				   int n, struct error *err)
{
	return climb(staircase, model, metric, n, NULL, err);
}

void staircase_close(struct staircase *staircase)
{
	free(staircase->steps);
	*staircase = (struct staircase){0};
}

static int job_run(struct job *job, struct error *err)
{
	struct staircase_job *it = (struct staircase_job *)job;
	char metric[sizeof it->staircase.metric];
	memcpy(metric, it->staircase.metric, sizeof metric);
	return climb(&it->staircase, it->model, metric, it->staircase.n, job, err);
}

static void job_free(struct job *job)
{
	struct staircase_job *it = (struct staircase_job *)job;
	staircase_close(&it->staircase);
	model_release(it->model);
	free(it);
}

struct staircase_job *staircase_job(struct model *model, const char *metric, int n,
									struct error *err)
{
	struct staircase_job *it = mem_new(1, sizeof *it, err);
	if (!it)
		return NULL;
	it->job = (struct job){.name = "width staircase", .run = job_run, .free = job_free};
	it->model = model_retain(model);
	it->staircase.n = n;
	snprintf(it->staircase.metric, sizeof it->staircase.metric, "%s", metric);
	return it;
}
