#include "tui/errand.h"
#include <stdio.h>

int errand_send(struct errand *errand, struct jobs *jobs, struct job *job)
{
	errand_give_up(errand, jobs);
	*errand = (struct errand){.waiting = job};
	if (!job)
		return -1;
	jobs_submit(jobs, job);
	return 0;
}

bool errand_give_up(struct errand *errand, struct jobs *jobs)
{
	if (!errand->waiting)
		return false;
	jobs_cancel(jobs, errand->waiting);
	errand->waiting = NULL;
	return true;
}

bool errand_returns(struct errand *errand, const struct job *job)
{
	if (!errand->waiting || job != errand->waiting)
		return false;
	errand->waiting = NULL;
	snprintf(errand->failed, sizeof errand->failed, "%.150s",
			 job->state == JOB_DONE     ? ""
			 : job->state == JOB_FAILED ? job->error.text
										: "stopped");
	return true;
}

int errand_percent(const struct errand *errand, struct jobs *jobs)
{
	struct job_progress progress = {0};
	if (errand->waiting)
		jobs_progress(jobs, &progress);
	bool mine = progress.job && progress.job == errand->waiting && progress.total > 0;
	return mine ? (int)((int64_t)progress.done * 100 / progress.total) : 0;
}
