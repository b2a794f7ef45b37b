/*
 * Of the Nesting view: what every budget costs, the proof that each lies inside the one before it,
 * and what one file for all of them saves. A column is a budget of the file, or, behind those, the
 * widths or the mask that the user typed.
 */
#ifndef TUI_NESTING_SUMMARY_H
#define TUI_NESTING_SUMMARY_H

#include "core/mask.h"
#include "core/model.h"
#include "inspect/nesting.h"
#include "tui/canvas.h"
#include "tui/look.h"

int nesting_index(const struct model *model, int budget); // in elastic, -1 for typed widths
struct number nesting_label(const struct nesting *nesting, const struct model *model, int budget,
							int columns);

/* Whether a row of a mask's column is nested with the trained budgets. */
enum mask_mark nesting_mark(const struct nesting *nesting, const struct model *model,
							const struct nesting_row *row, int budget);

/* A table, or one line where there is no room for it; returns the rows it took. */
int nesting_summary_draw(const struct nesting *nesting, const struct model *model,
						 const struct canvas *canvas);

#endif
