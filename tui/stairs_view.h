/*
 * The width staircase of the Router view: one line an axis, a step a column, from the smallest
 * budget's cost to the parent's, and the target on it. Computed in the background when asked for.
 */
#ifndef TUI_STAIRS_VIEW_H
#define TUI_STAIRS_VIEW_H

#include "core/target.h"
#include "inspect/staircase.h"
#include "tui/canvas.h"
#include "tui/errand.h"
#include "tui/talk.h"

struct stairs_view {
	struct errand errand;
	struct staircase stairs; // n 0 = none yet
	struct target target;    // "" = none; on the staircase's metric
};

/* Starts the job for target.metric unless that staircase is there already. */
int stairs_view_ask(struct stairs_view *view, const struct talk *talk, struct error *err);
bool stairs_view_job(struct stairs_view *view, struct job *job); // true: it was this one's
void stairs_view_close(struct stairs_view *view);

/* Moves the target by a step of the staircase; false = there is no staircase. */
bool stairs_view_move(struct stairs_view *view, int steps);

int stairs_view_rows(const struct stairs_view *view); // that it would like
void stairs_view_draw(const struct stairs_view *view, const struct talk *talk,
					  const struct canvas *canvas);

#endif
