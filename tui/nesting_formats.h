/* Of the Nesting view: what every budget costs in every format, and which modules are stored in
 * which, with the reason. */
#ifndef TUI_NESTING_FORMATS_H
#define TUI_NESTING_FORMATS_H

#include "inspect/nesting.h"
#include "tui/canvas.h"

/* Lines from `top` on. named: how each budget is called and coloured; elastic's first n_named, then
 * typed widths. */
void nesting_formats_draw(const struct nesting *nesting, const struct canvas *canvas, int top,
						  int n_named);
int nesting_formats_lines(const struct nesting *nesting);

#endif
