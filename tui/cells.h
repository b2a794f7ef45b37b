/*
 * How many columns text takes as the canvas draws it, and where lines break. Pure functions.
 */
#ifndef TUI_CELLS_H
#define TUI_CELLS_H

#include <stddef.h>
#include <stdint.h>

/* The next character of bytes[0..length): its columns (0 = combining or dropped), in *used its
 * bytes, in *code what to draw. A tab is CELLS_TAB blanks; other controls are drawn as ^X (2
 * columns, *code = CELLS_CONTROL + X), ill-formed bytes and what has no width as U+FFFD, marks that
 * turn the direction of text not at all (*code 0). length > 0. */
int cells_next(const char *bytes, size_t length, size_t *used, uint32_t *code);
#define CELLS_CONTROL 0x110000u
#define CELLS_TAB 4

int cells_width(const char *bytes, size_t length);

/* How many bytes fit into `columns`; *width = what they take. */
size_t cells_fit(const char *bytes, size_t length, int columns, int *width);

/* One line of a text that is wrapped at words: returns its bytes (without the newline or the blanks
 * that the break swallows), *next = bytes up to the next line's beginning; always > 0. columns > 0.
 */
size_t cells_wrap(const char *bytes, size_t length, int columns, size_t *next);

#endif
