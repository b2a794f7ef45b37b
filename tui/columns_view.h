/*
 * The columns of Compare on the screen: each with its head (budget, state, rates, memory), the text
 * as it is written, and a mark where it parts from the first. A part of the Compare pane.
 */
#ifndef TUI_COLUMNS_VIEW_H
#define TUI_COLUMNS_VIEW_H

#include "tui/canvas.h"
#include "tui/compare.h"
#include "tui/keys.h"

struct column_line {
	size_t entry, offset, length;
	bool label;
};

struct column_lines {
	struct column_line *items;
	size_t n, capacity;
};

struct columns_view {
	const struct compare *compare; // borrowed
	struct column_lines lines[COMPARE_COLUMNS];
	int top[COMPARE_COLUMNS];
	bool follow;
	int focus, rows; // rows of text in the last drawing
};

void columns_view_draw(struct columns_view *view, struct canvas *canvas);

/* To where the columns part. False: they have not. */
bool columns_view_jump(struct columns_view *view);
bool columns_view_scroll(struct columns_view *view, enum action action);

/* Where the column left the first one: of this turn the token, of an earlier one the turn. */
void columns_view_parting(const struct compare_column *column, const struct compare_place *own,
						  struct text *out);

void columns_view_close(struct columns_view *view); // takes {0}

#endif
