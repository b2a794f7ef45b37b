#include "tui/table.h"
#include "tui/cells.h"
#include <stdlib.h>
#include <string.h>

int table_add(struct table *table, const char *name, int width, int drop)
{
	if (table->n == TABLE_MAX_COLUMNS)
		return -1;
	table->columns[table->n] = (struct table_column){name, width, drop, -1};
	return table->n++;
}

static int width_of(const struct table *table)
{
	int width = 0;
	for (int i = 0; i < table->n; i++)
		if (table->columns[i].at >= 0)
			width += abs(table->columns[i].width) + (width > 0);
	return width;
}

int table_lay(struct table *table, int start, int room)
{
	for (int i = 0; i < table->n; i++)
		table->columns[i].at = 0;
	while (width_of(table) > room) {
		int worst = -1;
		for (int i = 0; i < table->n; i++)
			if (table->columns[i].at >= 0 && table->columns[i].drop > 0 &&
				(worst < 0 || table->columns[i].drop > table->columns[worst].drop))
				worst = i;
		if (worst < 0)
			break;
		table->columns[worst].at = -1;
	}
	int at = start;
	for (int i = 0; i < table->n; i++) {
		if (table->columns[i].at < 0)
			continue;
		table->columns[i].at = at;
		at += abs(table->columns[i].width) + 1;
	}
	return at - 1;
}

void table_cell(const struct table *table, const struct canvas *canvas, int row, int column,
				enum role role, const char *text)
{
	if (column < 0 || column >= table->n || table->columns[column].at < 0)
		return;
	const struct table_column *c = &table->columns[column];
	int width;
	size_t fits = cells_fit(text, strlen(text), abs(c->width), &width);
	int at = c->width < 0 ? c->at : c->at + c->width - width;
	canvas_bytes(canvas, row, at, role, text, fits);
}

void table_bar(const struct table *table, const struct canvas *canvas, int row, int column,
			   enum role role, double fraction)
{
	if (column < 0 || column >= table->n || table->columns[column].at < 0)
		return;
	const struct table_column *c = &table->columns[column];
	canvas_bar(canvas, row, c->at, abs(c->width), (float)fraction, role);
}

void table_head(const struct table *table, const struct canvas *canvas, int row, int sorted)
{
	for (int i = 0; i < table->n; i++) {
		table_cell(table, canvas, row, i, ROLE_HEADING, table->columns[i].name);
		const struct table_column *c = &table->columns[i];
		if (i != sorted || c->at < 0)
			continue;
		int length = (int)strlen(c->name),
			at = c->width < 0 ? c->at + length : c->at + c->width - length - 1;
		if (at >= 0)
			canvas_text(canvas, row, at, ROLE_HEADING, canvas_glyph(canvas, GLYPH_DOWN));
	}
}
