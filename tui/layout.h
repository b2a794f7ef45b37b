/*
 * Where everything stands, for any size of terminal. Pure functions.
 */
#ifndef TUI_LAYOUT_H
#define TUI_LAYOUT_H

#include <stdbool.h>

struct rect {
	int row, column, rows, columns; // rows 0 = not shown
};

struct layout_wish {
	int prompt_rows; // of text
	int notice_rows; // that the notice wants; a fifth of the screen at most
	bool chat;       // the view is the chat: it has a strip
	bool split;      // there is a companion
	bool maximised;
};

struct layout {
	bool too_small;
	struct rect title, main, rule, side, strip, gauges, status, notice, prompt;
};

#define LAYOUT_MIN_ROWS 10
#define LAYOUT_MIN_COLUMNS 40
#define LAYOUT_SPLIT_COLUMNS 110
#define LAYOUT_GAUGE_ROWS 2
#define LAYOUT_READER_ROWS 30 // from here on the strip has a second row: who read each token
#define LAYOUT_REASON_ROWS 34 // and from here on a third: why the writer changed

void layout_make(int rows, int columns, const struct layout_wish *wish, struct layout *out);

#endif
