/*
 * Roles and their colours. Code draws roles; a theme file says what a role looks like, a line each:
 *
 *     ROLE FOREGROUND [BACKGROUND] [bold|dim|underline|reverse ...]      # comment
 *
 * Colours are `default`, a name (red, bright-blue ...) or an xterm-256 index; on terminals with 16
 * or 8 colours the nearest one is taken, without colours only the attributes count. The palette is
 * never redefined, pairs are allocated on demand. `glyphs ascii` in a theme asks for ASCII forms.
 */
#ifndef TUI_THEME_H
#define TUI_THEME_H

#include "base/error.h"
#include <stdbool.h>
#include <stdint.h>

enum role {
	ROLE_TEXT,
	ROLE_DIM,      // less important
	ROLE_TITLE,    // the bar at the top
	ROLE_TITLE_ON, // the view that is shown
	ROLE_HEADING,  // of tables, of panes
	ROLE_STATUS,   // the status line
	ROLE_NOTICE,   // the notice line
	ROLE_ERROR,
	ROLE_PROMPT, // the prompt's mark
	ROLE_INPUT,  // what is typed
	ROLE_USER,   // labels and texts of the chat
	ROLE_THOUGHT,
	ROLE_ANSWER,
	ROLE_MARK,     // search hits, cursor line
	ROLE_GOOD,     // proof holds
	ROLE_WARN,     // DISAGREE, N/A that matters
	ROLE_BAR,      // bars and curves
	ROLE_FRAME,    // lines between panes
	ROLE_BUDGET_1, // the largest budget ...
	ROLE_BUDGET_2,
	ROLE_BUDGET_3,
	ROLE_BUDGET_4,
	ROLE_BUDGET_5,
	ROLE_BUDGET_6,
	N_ROLES
};

#define N_BUDGET_ROLES 6
/* The role of elastic.budgets[index]; further ones begin again; -1 = ROLE_TEXT. */
enum role role_of_budget(int index);

enum ramp { RAMP_SEQUENTIAL, RAMP_STEPS, RAMP_DIVERGING }; // 10, 8 and 9 colours, dark to light

struct style { // colours: -1 = the terminal's own
	int foreground, background;
	unsigned attributes; // A_BOLD | ...
};

struct theme {
	struct style styles[N_ROLES];
	int n_colors; // of the terminal: 0 = mono, 8, 16, 256
	bool ascii;   // the theme, the locale or the terminal asks for it
	struct pair {
		int foreground, background;
	} * pairs; // allocated ones; pair i + 1 of ncurses
	int n_pairs, max_pairs;
	char name[64];
};

/* Attributes only. */
void theme_init(struct theme *theme);
void theme_free(struct theme *theme);

/* By name: $XDG_CONFIG_HOME/elastiscope/themes/NAME, else the bundled one. n_colors and ascii stay
 * as the terminal set them; on an error the theme stays what it was. */
int theme_load(struct theme *theme, const char *name, struct error *err);

/* The same from text, for tests. */
int theme_parse(struct theme *theme, const char *text, const char *name, struct error *err);

/* Names to complete. i counts from 0; NULL = no more. */
const char *theme_bundled(int i);

/* The pair for two xterm-256 colours (-1 = default) on this terminal. 0 when none is left. */
int theme_pair(struct theme *theme, int foreground, int background);

/* A colour of a ramp for value in 0..1 (NaN = -1, no colour). */
int theme_ramp(enum ramp ramp, float value);
int theme_nearest(int color, int n_colors); // an xterm-256 index on a terminal with fewer colours

#endif
