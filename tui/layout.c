#include "tui/layout.h"
#include <string.h>

static struct rect take_bottom(int *bottom, int rows, int columns)
{
	*bottom -= rows;
	return (struct rect){*bottom, 0, rows, columns};
}

void layout_make(int rows, int columns, const struct layout_wish *wish, struct layout *out)
{
	memset(out, 0, sizeof *out);
	if (rows < LAYOUT_MIN_ROWS || columns < LAYOUT_MIN_COLUMNS) {
		out->too_small = true;
		out->main = (struct rect){0, 0, rows, columns};
		return;
	}
	int prompt = wish->prompt_rows < 1 ? 1 : wish->prompt_rows;
	if (prompt > rows / 3)
		prompt = rows / 3;
	int bottom = rows;
	out->prompt = take_bottom(&bottom, prompt, columns);
	int notice = wish->notice_rows > rows / 5 ? rows / 5 : wish->notice_rows;
	out->notice = take_bottom(&bottom, notice < 1 ? 1 : notice, columns);
	out->status = take_bottom(&bottom, 1, columns);
	bool full = rows >= 24 && columns >= 80;
	if (full && !wish->maximised)
		out->gauges = take_bottom(&bottom, LAYOUT_GAUGE_ROWS, columns);
	if (wish->chat && rows >= 14)
		out->strip = take_bottom(
			&bottom, 1 + (rows >= LAYOUT_READER_ROWS) + (rows >= LAYOUT_REASON_ROWS), columns);
	out->title = (struct rect){0, 0, 1, columns};
	out->main = (struct rect){1, 0, bottom - 1, columns};
	if (wish->split && !wish->maximised && columns >= LAYOUT_SPLIT_COLUMNS) {
		int side = columns * 2 / 5;
		out->side = (struct rect){1, columns - side, bottom - 1, side};
		out->rule = (struct rect){1, columns - side - 1, bottom - 1, 1};
		out->main.columns = columns - side - 1;
	}
}
