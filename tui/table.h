/*
 * Columns of a table: laid out for the room there is, the least important ones dropped first.
 * Numbers stand right, names left. Cells that are too long are cut.
 */
#ifndef TUI_TABLE_H
#define TUI_TABLE_H

#include "tui/canvas.h"

#define TABLE_MAX_COLUMNS 20

struct table_column {
	const char *name;
	int width; // negative: left-aligned
	int drop;  // 0 = stays; the highest goes first
	int at;    // where it begins, -1 = dropped; set by table_lay
};

struct table {
	struct table_column columns[TABLE_MAX_COLUMNS];
	int n;
};

int table_add(struct table *table, const char *name, int width, int drop); // its index
/* Places the columns from `start` on; a blank between. Returns where the last one ends. */
int table_lay(struct table *table, int start, int room);
/* The names; the sorted one (or -1) is marked. */
void table_head(const struct table *table, const struct canvas *canvas, int row, int sorted);
void table_cell(const struct table *table, const struct canvas *canvas, int row, int column,
				enum role role, const char *text);
void table_bar(const struct table *table, const struct canvas *canvas, int row, int column,
			   enum role role, double fraction);

#endif
