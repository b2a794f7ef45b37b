/*
 * The handoff lab on the screen: one switch taken apart in the background (inspect/lab.h). A part
 * of the Compare pane.
 */
#ifndef TUI_LAB_VIEW_H
#define TUI_LAB_VIEW_H

#include "inspect/lab.h"
#include "tui/canvas.h"
#include "tui/errand.h"
#include "tui/talk.h"

struct lab_view {
	struct lab lab; // n_layers 0 = none yet
	struct errand errand;
	int top, n_lines, rows;
};

/* Asks for the switch before position `at` of the last turn, or, with from NULL, for its last one.
 * What is being computed is given up. */
int lab_view_ask(struct lab_view *view, const struct talk *talk, const char *from, const char *to,
				 int at, struct error *err);
bool lab_view_job(struct lab_view *view, struct job *job); // true: it was its own
void lab_view_draw(struct lab_view *view, const struct talk *talk, const struct canvas *canvas);
void lab_view_close(struct lab_view *view); // takes {0}

#endif
