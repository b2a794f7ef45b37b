#include "core/metrics.h"
#include <stdlib.h>
#include <string.h>

const char metrics_formula[] = "tok/s = tokens / computing time of decode steps (forward, pick, "
							   "decode), by phase and budget; the "
							   "token that comes out of a prefill counts to TTFT; prefill tok/s = "
							   "tokens read / time of prefills; ITL "
							   "= time between arrivals, slowed when paced; pace, pause, step and "
							   "switches never count as computing";

/* NULL when all rows are taken: 16 budgets a phase, then new ones are not counted. */
static struct metrics_row *row_of(struct metrics *metrics, const char *budget, enum phase phase)
{
	struct metrics_row *row = (struct metrics_row *)metrics_find(metrics, budget, phase);
	if (row || metrics->n_rows == METRICS_MAX_BUDGETS * N_PHASES)
		return row;
	row = &metrics->rows[metrics->n_rows++];
	*row = (struct metrics_row){.phase = phase};
	memcpy(row->budget, budget, strnlen(budget, sizeof row->budget - 1));
	return row;
}

static void token(struct metrics *metrics, const struct event *event)
{
	uint64_t took = event->token.took_ns;
	struct metrics_row *row = row_of(metrics, event->token.budget, event->token.phase);
	if (row) {
		row->tokens++;
		row->steps += took > 0;
		row->took_ns += took;
	}
	if (took > 0) {
		metrics->speed[metrics->next_speed] = (float)(1e9 / (double)took);
		metrics->next_speed = (metrics->next_speed + 1) % METRICS_WINDOW;
		metrics->n_speed += metrics->n_speed < METRICS_WINDOW;
	}
	if (metrics->last_arrival_ns > 0 && event->at_ns >= metrics->last_arrival_ns) {
		metrics->arrivals[metrics->next_arrival] = event->at_ns - metrics->last_arrival_ns;
		metrics->next_arrival = (metrics->next_arrival + 1) % METRICS_WINDOW;
		metrics->n_arrivals += metrics->n_arrivals < METRICS_WINDOW;
	} else if (metrics->turn_ns <= event->at_ns) {
		metrics->first_ns = event->at_ns - metrics->turn_ns;
	}
	metrics->last_arrival_ns = event->at_ns;
}

static int ascending(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
	return (x > y) - (x < y);
}

void metrics_event(struct metrics *metrics, const struct event *event)
{
	struct metrics_row *row;
	switch (event->type) {
	case EV_TURN:
		metrics->turn_ns = event->at_ns;
		metrics->last_arrival_ns = 0;
		break;
	case EV_PREFILL:
		row = row_of(metrics, event->prefill.budget, PHASE_PREFILL);
		if (row) {
			row->tokens += event->prefill.tokens;
			row->steps += event->prefill.tokens;
			row->took_ns += event->prefill.took_ns;
		}
		break;
	case EV_TOKEN:
		if (!event->token.given)
			token(metrics, event);
		break;
	case EV_SWITCH: metrics->switches++; break;
	case EV_STOP:
		if (event->stop.first_ns > 0)
			metrics->first_ns = event->stop.first_ns;
		metrics->last_arrival_ns = 0;
		break;
	default: break;
	}
}

double metrics_row_tps(const struct metrics_row *row)
{
	return row->took_ns > 0 ? row->steps * 1e9 / (double)row->took_ns : 0;
}

const struct metrics_row *metrics_find(const struct metrics *metrics, const char *budget,
									   enum phase phase)
{
	for (int i = 0; i < metrics->n_rows; i++)
		if (metrics->rows[i].phase == phase && !strcmp(metrics->rows[i].budget, budget))
			return &metrics->rows[i];
	return NULL;
}

/* Steps over the sum of their times, from the ring of speeds. */
double metrics_recent_tps(const struct metrics *metrics, int window)
{
	int n = window < metrics->n_speed ? window : metrics->n_speed;
	double seconds = 0;
	for (int i = 1; i <= n; i++)
		seconds += 1 / metrics->speed[(metrics->next_speed - i + METRICS_WINDOW) % METRICS_WINDOW];
	return n > 0 ? n / seconds : 0;
}

/* Nearest rank: the smallest value that at least p percent do not exceed. */
uint64_t metrics_itl(const struct metrics *metrics, double p)
{
	uint64_t sorted[METRICS_WINDOW];
	int n = metrics->n_arrivals;
	if (n == 0)
		return 0;
	memcpy(sorted, metrics->arrivals, (size_t)n * sizeof *sorted);
	qsort(sorted, (size_t)n, sizeof *sorted, ascending);
	double rank = p / 100 * n;
	int at = (int)rank + ((double)(int)rank < rank) - 1;
	return sorted[at < 0 ? 0 : at >= n ? n - 1 : at];
}
