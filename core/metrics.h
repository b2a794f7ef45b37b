/*
 * What events add up to: one formula for tokens per second in the workbench, in JSON and in bench.
 *
 * Decode tok/s = tokens / sum of `took` over decode steps, by phase and budget. `took` is computing
 * time (forward, pick, decode), so pace, pause, step and switches never falsify it. Columns that
 * decode together share one pass: each is charged the whole pass, because each waited for it, and
 * then its own pick and decode; a budget's own speed is what `bench` measures. The token that comes
 * out of a prefill counts to TTFT, not to decode; columns read the prompt one after the other, so
 * TTFT of a later one includes the prefills before it, but no pacing. Prefill tok/s = tokens read /
 * time of the prefills, apart. ITL is arrival time between tokens, and says when paced.
 */
#ifndef CORE_METRICS_H
#define CORE_METRICS_H

#include "base/text.h"
#include "core/event.h"

#define METRICS_MAX_BUDGETS 16
#define METRICS_WINDOW 512

struct metrics_row { // one phase and budget
	char budget[BUDGET_NAME_BYTES];
	enum phase phase;
	int tokens;       // all that this budget wrote (prefill: read) in this phase
	int steps;        // of them, decode steps (prefill: all)
	uint64_t took_ns; // over the steps
};

struct metrics {
	struct metrics_row rows[METRICS_MAX_BUDGETS * N_PHASES];
	int n_rows;
	uint64_t first_ns;                 // TTFT of the last turn, 0 = none yet
	uint64_t turn_ns, last_arrival_ns; // when the turn began and its last token came, 0 = none
	uint64_t arrivals[METRICS_WINDOW]; // ITL in ns, a ring
	int n_arrivals, next_arrival;
	float speed[METRICS_WINDOW]; // tok/s a decode step, a ring, for curves
	int n_speed, next_speed;
	int switches;
};

/* Starts as {0}. Events of one seq; the caller leaves out the others. */
void metrics_event(struct metrics *metrics, const struct event *event);
double metrics_row_tps(const struct metrics_row *row); // 0 = no steps
const struct metrics_row *metrics_find(const struct metrics *metrics, const char *budget,
									   enum phase phase);
/* tok/s over the last `window` decode steps, 0 if none. */
double metrics_recent_tps(const struct metrics *metrics, int window);
/* The p-th percentile (0..100) of ITL in ns, 0 if none. */
uint64_t metrics_itl(const struct metrics *metrics, double p);
extern const char metrics_formula[]; // for help

#endif
