/*
 * The terminal as ncurses has it: opened once, given back on every way out, crashes included. Owns
 * the one window that everything is drawn into. Without a terminal (scripts) it draws into
 * /dev/null.
 */
#ifndef TUI_SCREEN_H
#define TUI_SCREEN_H

#include "base/error.h"
#include "base/text.h"
#include "tui/theme.h"
#include <stdbool.h>
#include <stdio.h>

struct _win_st;
struct screen;

struct screen_options {
	bool terminal;     // false: /dev/null, for scripts without one
	int rows, columns; // 0 = the terminal's
	bool no_color;
};

struct screen {
	struct _win_st *window; // rows x columns
	void *handle;           // SCREEN
	FILE *in, *out;
	int in_fd; // to poll, -1 = none
	int rows, columns;
	bool terminal, mouse, forced_size;
	bool ascii;       // the locale is not UTF-8
	int n_colors;     // 0, 8, 16, 256
	char notice[128]; // unknown TERM
};

int screen_open(struct screen *screen, const struct screen_options *options, struct error *err);
void screen_close(struct screen *screen); // takes {0}

/* Out of the way for the shell, stopped by SIGSTOP, and back. */
void screen_suspend(struct screen *screen);
/* The terminal's present size; true if it changed. */
bool screen_measure(struct screen *screen);
void screen_resize(struct screen *screen, int rows, int columns);
void screen_mouse(struct screen *screen, bool on);
void screen_write(struct screen *screen, const char *bytes, size_t length); // past ncurses: OSC 52
const char *screen_ncurses_version(void); // "ncurses 6.4.20221231"
/* The window's characters, a line each without trailing blanks. */
void screen_text(const struct screen *screen, struct text *out);

#endif
