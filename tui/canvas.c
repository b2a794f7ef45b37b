#define NCURSES_WIDECHAR 1
#include "tui/canvas.h"
#include "base/text.h"
#include "tui/cells.h"
#include <math.h>
#include <ncurses.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <wchar.h>

static void pen(const struct canvas *canvas, int foreground, int background, unsigned attributes)
{
	int pair = theme_pair(canvas->theme, foreground, background);
	wattr_set(canvas->window, attributes, (short)pair, &pair);
}

static void pen_role(const struct canvas *canvas, enum role role)
{
	const struct style *style = &canvas->theme->styles[role];
	pen(canvas, style->foreground, style->background, style->attributes);
}

static bool inside(const struct canvas *canvas, int row, int column)
{
	return row >= 0 && row < canvas->rows && column >= 0 && column < canvas->columns;
}

static void put(const struct canvas *canvas, int row, int column, wchar_t glyph)
{
	if (!inside(canvas, row, column))
		return;
	mvwaddnwstr(canvas->window, canvas->top + row, canvas->left + column, &glyph, 1);
}

/* What stands for a character where only ASCII can be drawn; same columns. */
static char plain(uint32_t code)
{
	static const struct {
		uint32_t code;
		char ascii;
	} table[] = {{0xa0, ' '},   {0xb7, '.'},   {0xd7, 'x'},   {0x2010, '-'},  {0x2011, '-'},
				 {0x2012, '-'}, {0x2013, '-'}, {0x2014, '-'}, {0x2018, '\''}, {0x2019, '\''},
				 {0x201c, '"'}, {0x201d, '"'}, {0x2022, '*'}, {0x2026, '.'},  {0x2212, '-'}};
	for (size_t i = 0; i < sizeof table / sizeof *table; i++)
		if (table[i].code == code)
			return table[i].ascii;
	return '?';
}

struct canvas canvas_part(const struct canvas *canvas, int row, int column, int rows, int columns)
{
	struct canvas part = *canvas;
	int bottom = row + rows < canvas->rows ? row + rows : canvas->rows;
	int right = column + columns < canvas->columns ? column + columns : canvas->columns;
	row = row < 0 ? 0 : row;
	column = column < 0 ? 0 : column;
	part.top += row;
	part.left += column;
	part.rows = bottom > row ? bottom - row : 0;
	part.columns = right > column ? right - column : 0;
	return part;
}

void canvas_blank(const struct canvas *canvas, enum role role)
{
	pen_role(canvas, role);
	for (int row = 0; row < canvas->rows; row++)
		mvwhline(canvas->window, canvas->top + row, canvas->left, ' ', canvas->columns);
}

/* Draws one character at the place of the cursor of mvwaddnwstr; combining ones join the cell
 * before. */
static void put_code(const struct canvas *canvas, int row, int column, uint32_t code, int width)
{
	wchar_t cell[CELLS_TAB] = {(wchar_t)code, (wchar_t)code, L' ', L' '};
	int n = code == ' ' ? width : 1;
	if (code >= CELLS_CONTROL && code < CELLS_CONTROL + 0x100) {
		cell[0] = L'^';
		cell[1] = (wchar_t)(code - CELLS_CONTROL);
		n = 2;
	} else if (canvas->theme->ascii && code > 0x7e) {
		cell[0] = cell[1] = (wchar_t)plain(code);
		n = width;
	} else if (code > 0x7e && wcwidth((wchar_t)code) != width) {
		cell[0] = 0xfffd; // the C library disagrees about its columns
		cell[1] = L' ';
		n = width;
	}
	if (n > 0)
		mvwaddnwstr(canvas->window, canvas->top + row, canvas->left + column, cell, n);
}

int canvas_bytes(const struct canvas *canvas, int row, int column, enum role role,
				 const char *bytes, size_t length)
{
	if (row < 0 || row >= canvas->rows)
		return 0;
	pen_role(canvas, role);
	int start = column, combining = 0;
	for (size_t at = 0, used; at < length; at += used) {
		uint32_t code;
		int width = cells_next(bytes + at, length - at, &used, &code);
		if (column + width > canvas->columns)
			break;
		if (width == 0) { // joins the cell before, at most three a cell
			if (code == 0 || canvas->theme->ascii || column <= start || ++combining > 3 ||
				wcwidth((wchar_t)code) != 0)
				continue;
			wchar_t mark = (wchar_t)code;
			waddnwstr(canvas->window, &mark, 1);
			continue;
		}
		combining = 0;
		if (column >= 0)
			put_code(canvas, row, column, code, width);
		column += width;
	}
	return column - start;
}

int canvas_text(const struct canvas *canvas, int row, int column, enum role role, const char *text)
{
	return canvas_bytes(canvas, row, column, role, text, strlen(text));
}

int canvas_print(const struct canvas *canvas, int row, int column, enum role role,
				 const char *format, ...)
{
	char line[1024];
	va_list list;
	va_start(list, format);
	vsnprintf(line, sizeof line, format, list);
	va_end(list);
	return canvas_text(canvas, row, column, role, line);
}

int canvas_right(const struct canvas *canvas, int row, int end, enum role role, const char *text)
{
	return canvas_text(canvas, row, end - canvas_width(text, strlen(text)), role, text);
}

int canvas_width(const char *bytes, size_t length)
{
	return cells_width(bytes, length);
}

void canvas_bar(const struct canvas *canvas, int row, int column, int columns, float fraction,
				enum role role)
{
	if (isnan(fraction) || columns <= 0)
		return;
	fraction = fraction < 0 ? 0 : fraction > 1 ? 1 : fraction;
	pen_role(canvas, role);
	int eighths = (int)lroundf(fraction * (float)columns * 8);
	if (canvas->theme->ascii)
		eighths = (eighths + 4) / 8 * 8;
	if (eighths == 0 && fraction > 0)
		eighths = canvas->theme->ascii ? 8 : 1; // something is not nothing
	for (int i = 0; i < columns && eighths > 0; i++, eighths -= 8) {
		wchar_t block = eighths >= 8 ? 0x2588 : (wchar_t)(0x2590 - eighths); // 0x258f = one eighth
		put(canvas, row, column + i, canvas->theme->ascii ? L'#' : block);
	}
}

static bool half_blocks(const struct canvas *canvas)
{
	return canvas->theme->n_colors >= 256 && !canvas->theme->ascii;
}

int canvas_heat_rows(const struct canvas *canvas, int n_rows)
{
	return half_blocks(canvas) ? (n_rows + 1) / 2 : n_rows;
}

static void heat_pair(const struct canvas *canvas, int row, int column, float upper, float lower,
					  enum ramp ramp)
{
	bool up = isfinite(upper), down = isfinite(lower);
	if (!up && !down) {
		pen_role(canvas, ROLE_DIM);
		put(canvas, row, column, isinf(upper) || isinf(lower) ? 0xb7 : L' ');
	} else {
		int top = up ? theme_ramp(ramp, upper) : -1, bottom = down ? theme_ramp(ramp, lower) : -1;
		pen(canvas, up ? top : bottom, up ? bottom : -1, 0);
		put(canvas, row, column, up ? 0x2580 : 0x2584);
	}
}

static void heat_shade(const struct canvas *canvas, int row, int column, float value,
					   enum ramp ramp)
{
	static const char shades[] = " .:-=+*#%@";
	pen_role(canvas, ROLE_TEXT);
	if (isnan(value))
		return;
	if (isinf(value)) {
		pen_role(canvas, ROLE_DIM);
		put(canvas, row, column, L'x');
		return;
	}
	int level = (int)(value * 10);
	level = level < 0 ? 0 : level > 9 ? 9 : level;
	if (canvas->theme->n_colors >= 8 && canvas->theme->n_colors < 256)
		pen(canvas, theme_ramp(ramp, value < .35f ? .35f : value), -1, 0); // not black on black
	put(canvas, row, column, (wchar_t)shades[level]);
}

int canvas_heat(const struct canvas *canvas, int row, int column, const float *values, int n_rows,
				int n_columns, enum ramp ramp)
{
	int used = canvas_heat_rows(canvas, n_rows);
	bool half = half_blocks(canvas);
	for (int i = 0; i < used; i++) {
		const float *upper = values + (size_t)(half ? 2 * i : i) * (size_t)n_columns;
		for (int j = 0; j < n_columns && column + j < canvas->columns; j++) {
			if (!half)
				heat_shade(canvas, row + i, column + j, upper[j], ramp);
			else
				heat_pair(canvas, row + i, column + j, upper[j],
						  2 * i + 1 < n_rows ? upper[n_columns + j] : NAN, ramp);
		}
	}
	return used;
}

int canvas_legend(const struct canvas *canvas, int row, int column, enum ramp ramp, float low,
				  float high)
{
	int at = column, n = 12;
	at += canvas_print(canvas, row, at, ROLE_DIM, "%.3g ", (double)low);
	for (int i = 0; i < n; i++) {
		if (i == n / 2)
			at += canvas_print(canvas, row, at, ROLE_DIM, " %.3g ", (double)(low + high) / 2);
		float value = ((float)i + .5f) / (float)n;
		if (half_blocks(canvas)) {
			pen(canvas, theme_ramp(ramp, value), -1, 0);
			put(canvas, row, at++, 0x2588);
		} else {
			heat_shade(canvas, row, at++, value, ramp);
		}
	}
	at += canvas_print(canvas, row, at, ROLE_DIM, " %.3g", (double)high);
	return at - column;
}

/* Adds a dot to the braille cell at (row, column). */
static void braille(const struct canvas *canvas, int row, int column, int x, int y)
{
	static const uint8_t bits[4][2] = {{0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
	wchar_t old[CCHARW_MAX + 1] = {0};
	cchar_t cell;
	attr_t attributes;
	short pair;
	int dots = 0;
	if (!inside(canvas, row, column))
		return;
	if (mvwin_wch(canvas->window, canvas->top + row, canvas->left + column, &cell) != ERR &&
		getcchar(&cell, old, &attributes, &pair, NULL) != ERR && old[0] >= 0x2800 &&
		old[0] <= 0x28ff)
		dots = (int)old[0] - 0x2800;
	put(canvas, row, column, (wchar_t)(0x2800 + (dots | bits[y][x])));
}

void canvas_curve(const struct canvas *canvas, const float *values, int n, float low, float high,
				  enum role role)
{
	bool ascii = canvas->theme->ascii;
	int width = canvas->columns * (ascii ? 1 : 2), height = canvas->rows * (ascii ? 1 : 4);
	if (n <= 0 || width <= 0 || height <= 0)
		return;
	pen_role(canvas, role);
	float range = high > low ? high - low : 1;
	for (int x = 0; x < width; x++) {
		float value = values[(int64_t)x * n / width];
		if (!isfinite(value))
			continue;
		float part = (value - low) / range;
		int y = height - 1 -
				(int)lroundf((part < 0   ? 0
							  : part > 1 ? 1
										 : part) *
							 (float)(height - 1));
		if (ascii)
			put(canvas, y, x, L'*');
		else
			braille(canvas, y / 4, x / 2, x % 2, y % 4);
	}
}

void canvas_rule(const struct canvas *canvas, int row, int column, int columns, enum role role)
{
	pen_role(canvas, role);
	for (int i = 0; i < columns; i++)
		put(canvas, row, column + i, canvas->theme->ascii ? L'-' : 0x2500);
}

void canvas_column_rule(const struct canvas *canvas, int row, int column, int rows, enum role role)
{
	pen_role(canvas, role);
	for (int i = 0; i < rows; i++)
		put(canvas, row + i, column, canvas->theme->ascii ? L'|' : 0x2502);
}

const char *canvas_glyph(const struct canvas *canvas, enum glyph glyph)
{
	static const char *const glyphs[N_GLYPHS][2] = {
		[GLYPH_FOLDED] = {"▸", ">"}, [GLYPH_UNFOLDED] = {"▾", "v"}, [GLYPH_DOT] = {"·", "."},
		[GLYPH_ARROW] = {"→", ">"},  [GLYPH_ELLIPSIS] = {"…", "."}, [GLYPH_BULLET] = {"•", "*"},
		[GLYPH_UP] = {"↑", "^"},     [GLYPH_DOWN] = {"↓", "v"},     [GLYPH_CROSS] = {"×", "x"},
		[GLYPH_CHECK] = {"✓", "+"},
	};
	return glyphs[glyph][canvas->theme->ascii];
}
