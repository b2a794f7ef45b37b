#include "inspect/scatter.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_WIDTH 200
#define MAX_HEIGHT 60
#define STEP '\1' // where the front goes
#define STEPS 5   // of an axis, about

struct range {
	double low, high;
};

static void widen(struct range *range, double value)
{
	range->low = fmin(range->low, value);
	range->high = fmax(range->high, value);
}

/* 1, 2 or 5 times a power of ten, about `step`. */
static double round_step(double step)
{
	double power = pow(10, floor(log10(step))), digit = step / power;
	return power * (digit < 1.5 ? 1 : digit < 3.5 ? 2 : digit < 7.5 ? 5 : 10);
}

/* Ends on multiples of a round step, so that labels are short; returns the step, of which there are
 * about n. */
static double round_out(struct range *range, int n)
{
	double span = range->high - range->low;
	double step = round_step(span > 0 ? span / n : fmax(fabs(range->high) / 16, 1e-9));
	bool point = span <= 0;
	// what is a multiple but for rounding stays
	range->low = (floor(range->low / step + 1e-9) - point) * step;
	range->high = (ceil(range->high / step - 1e-9) + point) * step;
	return step;
}

/* Of n places, the first at the low end and the last at the high one. */
static int place(const struct range *range, double value, int n)
{
	int at = (int)lround((value - range->low) / (range->high - range->low) * (n - 1));
	return at < 0 ? 0 : at >= n ? n - 1 : at;
}

/* The multiple of step that stands in this row, the upper one of two; false = none does. */
static bool tick_of(const struct range *y, double step, int row, int height, double *value)
{
	int n = (int)lround((y->high - y->low) / step);
	for (int i = n; i >= 0; i--) {
		*value = (round(y->low / step) + i) * step;
		if (height - 1 - place(y, *value, height) == row)
			return true;
	}
	return false;
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
	round_out(&x, STEPS);
	double step = round_out(&y, height < 3 * STEPS ? 2 : STEPS), value;
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
		if (tick_of(&y, step, row, height, &value))
			text_format(out, "%8.6g ", value);
		else
			text_format(out, "%8s ", "");
		text_add(out, scatter->ascii ? "|" : "│");
		draw_row(scatter, cells[row], width, out);
	}
	text_format(out, "%8s %s", "", scatter->ascii ? "+" : "└");
	for (int column = 0; column < width; column++)
		text_add(out, scatter->ascii ? "-" : "─");
	snprintf(low, sizeof low, "%.6g", x.low);
	snprintf(high, sizeof high, "%.6g", x.high);
	int label = (int)strlen(scatter->x_label);
	int gap = width - (int)(strlen(low) + strlen(high)) - label;
	text_format(out, "\n%9s %s%*s%s%*s%s\n", "", low, gap > 1 ? gap / 2 : 1, "", scatter->x_label,
				gap > 1 ? gap - gap / 2 : 1, "", high);
}
