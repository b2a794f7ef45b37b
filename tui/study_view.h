/*
 * A study on the screen: run in the background (inspect/study_job.h), its table sorted as one
 * likes, and accuracy against latency below it. Rows so far are shown while it runs, and stay when
 * it is stopped. A part of the Compare pane.
 */
#ifndef TUI_STUDY_VIEW_H
#define TUI_STUDY_VIEW_H

#include "inspect/study_job.h"
#include "tui/canvas.h"
#include "tui/keys.h"
#include "tui/talk.h"

struct study_view {
	struct study_job *waiting; // submitted; the queue's
	struct study_job *shown;   // the last one that ended; ours
	bool stopping;
	enum job_state ended; // of shown
	char failed[256];     // why the last one ended early, "" = it did not fail
	struct study_state state;
	struct study_summary *summaries; // (n_cells) of the one that is drawn
	size_t *order;                   // (n_cells): cells as they are sorted
	int sort;
	int top, n_lines, rows;
};

/* "FILE [ROWS.csv] [LIMIT] [GRID]". engine: how the workbench's own was opened. */
int study_view_ask(struct study_view *view, const struct talk *talk,
				   const struct engine_options *engine, const char *arguments, struct error *err);
/* The rows of the one that is shown, as CSV into a new file. */
int study_view_write(const struct study_view *view, const char *path, struct error *err);
bool study_view_job(struct study_view *view, struct job *job); // true: it was its own
bool study_view_stop(struct study_view *view, const struct talk *talk);
bool study_view_action(struct study_view *view, enum action action);
void study_view_draw(struct study_view *view, const struct canvas *canvas);
void study_view_close(struct study_view *view); // takes {0}

#endif
