/* What commands want of the Compare pane. */
#ifndef TUI_PANE_COMPARE_H
#define TUI_PANE_COMPARE_H

#include "tui/compare.h"
#include "tui/pane.h"

/* Its columns, for :compare and :keep; the pane shows them from the tail on. */
struct compare *pane_compare_of(struct pane *pane);

bool pane_compare_running(const struct pane *pane);             // a column is being written
bool pane_compare_opening(const struct pane *pane);             // or its checkpoint is being opened
struct memory_use pane_compare_memory(const struct pane *pane); // compare_memory()

/* The columns' budgets are compared on this text instead. */
int pane_compare_text(struct pane *pane, const struct text *text, struct error *err);

/* The handoff lab shows there too; from NULL: the last change of budget. */
int pane_compare_lab(struct pane *pane, const char *from, const char *to, int at,
					 struct error *err);

/* A study shows there too: "FILE ...", "write FILE", or "" for what there is. */
int pane_compare_study(struct pane *pane, const struct engine_options *engine,
					   const char *arguments, struct error *err);

#endif
