/* What commands do with the Nesting view. */
#ifndef TUI_PANE_NESTING_H
#define TUI_PANE_NESTING_H

#include "tui/pane.h"

struct mask_view;
struct mask_view *pane_nesting_mask(struct pane *pane);

#endif
