/* What the command :target says to the Router view. */
#ifndef TUI_PANE_ROUTER_H
#define TUI_PANE_ROUTER_H

#include "tui/pane.h"

/* "active=2.8B": the mix for it, and the staircase; "" = back to the budgets. On -1 the view stays
 * as it was. */
int pane_router_target(struct pane *pane, const char *typed, struct error *err);

#endif
