#include "inspect/scatter.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WIDTH 200
#define MAX_HEIGHT 60
#define STEP '\1' // where the front goes

struct range {
	double low, high;
};

static void widen(struct range *range, double value)
{
	range->low = fmin(range->low, value);
	range->high = fmax(range->high, value);
}

/* A margin on both sides, so that no point lies on the frame. */
static void pad(struct range *range)
{
	double span = range->high - range->low;
	double margin = span > 0 ? span / 16 : fmax(fabs(range->high) / 16, 1e-9);
	range->low -= margin;
	range->high += margin;
}

static int place(const struct range *range, double value, int n)
{
	int at = (int)((value - range->low) / (range->high - range->low) * n);
	return at < 0 ? 0 : at >= n ? n - 1 : at;
}

/* The next free column of the row, so that points that coincide all show. */
static int free_column(const char *row, int column, int width)
{
	for (int away = 0; away < width; away++) {
		if (column + away < width && (row[column + away] == ' ' || row[column + away] == STEP))
			return column + away;
		if (column >= away && (row[column - away] == ' ' || row[column - away] == STEP))
			return column - away;
	}
	return column;
}

/* The best y of the front's points at or left of each column, as a line of steps. */
static void draw_front(const struct scatter *scatter, const struct range *x, const struct range *y,
					   int width, int height, char cells[MAX_HEIGHT][MAX_WIDTH])
{
	int before = -1;
	for (int column = 0; column < width; column++) {
		int best = -1;
		for (size_t i = 0; i < scatter->n; i++) {
			const struct scatter_point *point = &scatter->points[i];
			if (!point->front || !isfinite(point->x) || !isfinite(point->y) ||
				place(x, point->x, width) > column)
				continue;
			int row = place(y, point->y, height);
			best = row > best ? row : best;
		}
		for (int row = before < 0 ? best : before; row >= 0 && row <= best; row++)
			cells[height - 1 - row][column] = STEP;
		before = best;
	}
}

static void draw_row(const struct scatter *scatter, const char *cells, int width, struct text *out)
{
	for (int column = 0; column < width; column++)
		if (cells[column] == STEP)
			text_add(out, scatter->ascii ? "." : "·");
		else
			text_add_char(out, cells[column]);
	while (out->length > 0 && out->data[out->length - 1] == ' ')
		out->data[--out->length] = 0;
	text_add_char(out, '\n');
}

void scatter_draw(const struct scatter *scatter, struct text *out)
{
	static const double quiet = 1e300;
	char cells[MAX_HEIGHT][MAX_WIDTH], low[32], high[32];
	int width = scatter->width < MAX_WIDTH ? scatter->width : MAX_WIDTH;
	int height = scatter->height < MAX_HEIGHT ? scatter->height : MAX_HEIGHT;
	struct range x = {quiet, -quiet}, y = {quiet, -quiet};
	size_t shown = 0;
	for (size_t i = 0; i < scatter->n; i++) {
		if (!isfinite(scatter->points[i].x) || !isfinite(scatter->points[i].y))
			continue;
		widen(&x, scatter->points[i].x);
		widen(&y, scatter->points[i].y);
		shown++;
	}
	if (shown == 0)
		x = y = (struct range){0, 1};
	pad(&x);
	double top = y.high; // a share ends at 100 %
	pad(&y);
	if (!scatter->plain)
		y.high = top;
	memset(cells, ' ', sizeof cells);
	if (!scatter->plain)
		draw_front(scatter, &x, &y, width, height, cells);
	for (int front = 1; front >= 0; front--) // the front keeps its places
		for (size_t i = 0; i < scatter->n; i++) {
			const struct scatter_point *point = &scatter->points[i];
			if (point->front != front || !isfinite(point->x) || !isfinite(point->y))
				continue;
			char *row = cells[height - 1 - place(&y, point->y, height)];
			row[free_column(row, place(&x, point->x, width), width)] = point->letter;
		}
	text_format(out, "%8s %s\n", "", scatter->y_label);
	for (int row = 0; row < height; row++) {
		bool labelled = row == 0 || row == height - 1 || row == height / 2;
		// the frame's ends, and the middle of the row between
		double value = row == 0            ? y.high
					   : row == height - 1 ? y.low
										   : y.high - (row + 0.5) * (y.high - y.low) / height;
		if (labelled)
			text_format(out, "%8.4g ", value);
		else
			text_format(out, "%8s ", "");
		text_add(out, scatter->ascii ? "|" : "│");
		draw_row(scatter, cells[row], width, out);
	}
	text_format(out, "%8s %s", "", scatter->ascii ? "+" : "└");
	for (int column = 0; column < width; column++)
		text_add(out, scatter->ascii ? "-" : "─");
	snprintf(low, sizeof low, "%.4g", x.low > 0 || shown == 0 ? x.low : 0);
	snprintf(high, sizeof high, "%.4g", x.high);
	int label = (int)strlen(scatter->x_label);
	int gap = width - (int)(strlen(low) + strlen(high)) - label;
	text_format(out, "\n%9s %s%*s%s%*s%s\n", "", low, gap > 1 ? gap / 2 : 1, "", scatter->x_label,
				gap > 1 ? gap - gap / 2 : 1, "", high);
}
