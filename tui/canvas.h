/*
 * Drawing into a rectangle of a window, through roles. Everything is clipped to the rectangle and
 * counts columns by utf8_width. Text is UTF-8; controls become visible (^X), ill-formed bytes
 * U+FFFD, and in ASCII mode what has no ASCII form '?'. Rows and columns count from 0 inside the
 * rectangle.
 */
#ifndef TUI_CANVAS_H
#define TUI_CANVAS_H

#include "tui/theme.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct _win_st; // WINDOW of ncurses

struct canvas {
	struct _win_st *window;
	struct theme *theme;
	int top, left; // in the window
	int rows, columns;
};

/* A part of it, clipped. */
struct canvas canvas_part(const struct canvas *canvas, int row, int column, int rows, int columns);

void canvas_blank(const struct canvas *canvas, enum role role); // fills all of it

/* Each returns the columns that were drawn. */
int canvas_text(const struct canvas *canvas, int row, int column, enum role role, const char *text);
int canvas_bytes(const struct canvas *canvas, int row, int column, enum role role,
				 const char *bytes, size_t length);
int canvas_print(const struct canvas *canvas, int row, int column, enum role role,
				 const char *format, ...) __attribute__((format(printf, 5, 6)));
/* Ends at column `end` (exclusive). */
int canvas_right(const struct canvas *canvas, int row, int end, enum role role, const char *text);

/* What a text takes, drawn as canvas_text would. */
int canvas_width(const char *bytes, size_t length);

/* A horizontal bar in eighths of a column: fraction 0..1 of `columns`; ASCII '#' . */
void canvas_bar(const struct canvas *canvas, int row, int column, int columns, float fraction,
				enum role role);

/* A heat-map: values (n_rows, n_columns) in 0..1, NaN = blank, infinity = outside (its own glyph).
 * Two values a cell with half blocks, so (n_rows + 1) / 2 rows are used; without colours or in
 * ASCII a shade a cell
 * (" .:-=+*#%@", 'x' outside), so n_rows are used. Returns the rows used. */
int canvas_heat(const struct canvas *canvas, int row, int column, const float *values, int n_rows,
				int n_columns, enum ramp ramp);
/* Rows that canvas_heat would use. */
int canvas_heat_rows(const struct canvas *canvas, int n_rows);
/* A legend of the ramp with numbers at its ends and in the middle; one row. Returns the columns. */
int canvas_legend(const struct canvas *canvas, int row, int column, enum ramp ramp, float low,
				  float high);

/* A curve in braille (2 x 4 dots a cell), ASCII: one mark a column ('*'). values (n) are spread
 * over the canvas' columns; low..high over its rows; NaN = no dot. Several curves may overlap. */
void canvas_curve(const struct canvas *canvas, const float *values, int n, float low, float high,
				  enum role role);

/* Lines: a horizontal and a vertical one, of the canvas' own box glyphs or '-', '|'. */
void canvas_rule(const struct canvas *canvas, int row, int column, int columns, enum role role);
void canvas_column_rule(const struct canvas *canvas, int row, int column, int rows, enum role role);

/* Small glyphs with ASCII forms, for use in texts. */
enum glyph {
	GLYPH_FOLDED,
	GLYPH_UNFOLDED,
	GLYPH_DOT,
	GLYPH_ARROW,
	GLYPH_ELLIPSIS,
	GLYPH_BULLET,
	GLYPH_UP,
	GLYPH_DOWN,
	GLYPH_CROSS,
	GLYPH_CHECK,
	N_GLYPHS
};
const char *canvas_glyph(const struct canvas *canvas, enum glyph glyph);

#endif
