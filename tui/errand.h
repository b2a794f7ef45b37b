/*
 * Heavy work that a view waits for (core/job.h), one piece at a time: what is newly sent takes the
 * place of what was. A job that is given up is nobody's; the app frees it when it comes out.
 */
#ifndef TUI_ERRAND_H
#define TUI_ERRAND_H

#include "core/job.h"

struct errand {
	struct job *waiting; // the queue's; NULL = nothing is waited for
	char failed[160];    // why the last one brought nothing; "" = it did
};

/* -1: job is NULL, it could not be made. */
int errand_send(struct errand *errand, struct jobs *jobs, struct job *job);
bool errand_give_up(struct errand *errand, struct jobs *jobs); // false: there was nothing

/* Whether this job is the one waited for; from now on it is the caller's to free, and has its
 * result if it is DONE. */
bool errand_returns(struct errand *errand, const struct job *job);

int errand_percent(const struct errand *errand, struct jobs *jobs); // 0 before it runs

#endif
