#include "tui/stairs_view.h"

#include "base/size.h"
#include "core/job.h"
#include "tui/look.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define STEPS 101
#define LABEL_COLUMNS 12

/* ---- the job ---- */

int stairs_view_ask(struct stairs_view *view, const struct talk *talk, struct error *err)
{
	const char *metric = *view->target.metric ? view->target.metric : "active";
	const struct staircase_job *under_way = (struct staircase_job *)view->errand.waiting;
	const struct staircase *asked = under_way ? &under_way->staircase : &view->stairs;
	if (!talk->jobs || !talk->model)
		return fail(err, "target: no model is open");
	if (asked->n > 0 && strcmp(asked->metric, metric) == 0)
		return 0;
	struct staircase_job *job = staircase_job(talk->model, metric, STEPS, err);
	return errand_send(&view->errand, talk->jobs, job ? &job->job : NULL);
}

bool stairs_view_job(struct stairs_view *view, struct job *job)
{
	struct staircase_job *done = (struct staircase_job *)job;
	if (!errand_returns(&view->errand, job))
		return false;
	staircase_close(&view->stairs);
	if (job->state == JOB_DONE) {
		view->stairs = done->staircase;
		done->staircase = (struct staircase){0};
	}
	job->free(job);
	return true;
}

void stairs_view_close(struct stairs_view *view)
{
	staircase_close(&view->stairs);
	*view = (struct stairs_view){0};
}

/* ---- the target ---- */

static double least(const struct staircase *s)
{
	return s->steps[0].target;
}

static double most(const struct staircase *s)
{
	return s->steps[s->n - 1].target;
}

/* Where a cost stands on the staircase, 0 to 1. */
static double place(const struct staircase *s, double cost)
{
	double share = most(s) > least(s) ? (cost - least(s)) / (most(s) - least(s)) : 0;
	return fmin(fmax(share, 0), 1);
}

bool stairs_view_move(struct stairs_view *view, int steps)
{
	const struct staircase *s = &view->stairs;
	if (s->n == 0)
		return false;
	bool on = strcmp(view->target.metric, s->metric) == 0;
	int now = on ? (int)lround(place(s, view->target.value) * (s->n - 1)) : s->n - 1;
	int next = now + steps < 0 ? 0 : now + steps >= s->n ? s->n - 1 : now + steps;
	snprintf(view->target.metric, sizeof view->target.metric, "%s", s->metric);
	view->target.value = s->steps[next].target;
	return true;
}

/* ---- drawing ---- */

int stairs_view_rows(const struct stairs_view *view)
{
	int rows = 4;
	for (int a = 0; a < N_AXES && view->stairs.n > 0; a++)
		rows += view->stairs.changes[a];
	return rows;
}

/* A width as a bar of one to eight eighths of the parent's. */
static void draw_axis(const struct staircase *s, enum axis axis, const struct canvas *canvas,
					  int row, int columns)
{
	static const char *const bars[] = {"▁", "▂", "▃", "▄", "▅", "▆", "▇", "█"};
	int parent = s->steps[s->n - 1].width[axis];
	canvas_print(canvas, row, 0, ROLE_TEXT, "%s", axis_short(axis));
	for (int c = 0; c < columns; c++) {
		const struct staircase_step *step = &s->steps[(int64_t)c * (s->n - 1) / (columns - 1)];
		int level = parent > 0 ? (step->width[axis] * 8 + parent - 1) / parent : 1;
		level = level < 1 ? 1 : level > 8 ? 8 : level;
		char digit[2] = {(char)('0' + level), '\0'};
		canvas_text(canvas, row, LABEL_COLUMNS + c, ROLE_BAR,
					canvas->theme->ascii ? digit : bars[level - 1]);
	}
	canvas_print(canvas, row, LABEL_COLUMNS + columns, ROLE_TEXT, " %d-%d", s->steps[0].width[axis],
				 parent);
}

/* The budgets' marks and the target below the steps, then the ends. */
static void draw_scale(const struct stairs_view *view, const struct talk *talk,
					   const struct canvas *canvas, int row, int columns)
{
	const struct staircase *s = &view->stairs;
	const struct elastic *elastic = &talk->model->elastic;
	canvas_text(canvas, row, 0, ROLE_DIM, "budgets");
	for (int i = 0; i < s->n_budgets && i < elastic->n_budgets; i++) {
		char mark[2] = {elastic_mark(elastic, i), '\0'};
		int at = (int)lround(place(s, s->at[i]) * (columns - 1));
		canvas_text(canvas, row, LABEL_COLUMNS + at, role_of_budget(i), mark);
	}
	if (strcmp(view->target.metric, s->metric) == 0) {
		int at = (int)lround(place(s, view->target.value) * (columns - 1));
		canvas_text(canvas, row + 1, LABEL_COLUMNS + at, ROLE_MARK, "^");
	}
	char low[32], high[32];
	bool bytes = strcmp(s->metric, "bytes") == 0;
	canvas_print(canvas, row + 2, 0, ROLE_DIM, "%s %s to %s, widths by %s; :budget %s=.. takes one",
				 s->metric, bytes ? size_text((uint64_t)least(s), low) : count_text(least(s), low),
				 bytes ? size_text((uint64_t)most(s), high) : count_text(most(s), high),
				 s->by_router ? "the router" : "importance", s->metric);
}

void stairs_view_draw(const struct stairs_view *view, const struct talk *talk,
					  const struct canvas *canvas)
{
	const struct staircase *s = &view->stairs;
	canvas_rule(canvas, 0, 0, canvas->columns, ROLE_FRAME);
	if (s->n == 0) {
		if (*view->errand.failed)
			canvas_text(canvas, 1, 0, ROLE_WARN, view->errand.failed);
		else if (view->errand.waiting)
			canvas_print(canvas, 1, 0, ROLE_TEXT,
						 "the staircase is being computed: %d%%, Ctrl-C stops",
						 errand_percent(&view->errand, talk->jobs));
		else
			canvas_text(canvas, 1, 0, ROLE_DIM, "the staircase was stopped; t twice begins again");
		return;
	}
	int columns = canvas->columns - LABEL_COLUMNS - 12, row = 1;
	if (columns < 8)
		return;
	if (columns > s->n)
		columns = s->n;
	for (int a = 0; a < N_AXES; a++)
		if (s->changes[a])
			draw_axis(s, (enum axis)a, canvas, row++, columns);
	draw_scale(view, talk, canvas, row, columns);
}
