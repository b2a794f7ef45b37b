/* What commands want of the Compare pane. */
#ifndef TUI_PANE_COMPARE_H
#define TUI_PANE_COMPARE_H

#include "tui/compare.h"
#include "tui/pane.h"

/* Its columns, for :compare and :keep; the pane shows them from the tail on. */
struct compare *pane_compare_of(struct pane *pane);

#endif
