/*
 * One table of actions: it feeds the keys, the help overlay and the remap file
 * ($XDG_CONFIG_HOME/elastiscope/keys: lines of `ACTION KEY ...`, `none` takes its keys away).
 *
 * A key is an int: a byte, a key code of ncurses (above 255), or either with KEY_WITH_ALT. Names:
 * F5, C-c, A-1, Esc, Enter, Tab, S-Tab, Space, Up, PgUp, Home, Del, Backspace, or the character
 * itself.
 */
#ifndef TUI_KEYS_H
#define TUI_KEYS_H

#include "base/error.h"
#include "base/text.h"
#include <stdbool.h>

#define KEY_WITH_ALT 0x1000000

enum key_context { IN_PROMPT = 1, IN_VIEW = 2, ANYWHERE = 3 };

enum action {
	ACTION_NONE,
	// budgets
	ACTION_BUDGET_1,
	ACTION_BUDGET_2,
	ACTION_BUDGET_3, // from the smallest
	ACTION_SMALLER,
	ACTION_LARGER,
	ACTION_POLICY,
	ACTION_END_THINKING,
	ACTION_HANDOFF,
	// running
	ACTION_INTERRUPT,
	ACTION_PAUSE,
	ACTION_STEP,
	// focus and views
	ACTION_TO_VIEW,
	ACTION_TO_PROMPT,
	ACTION_COMMAND,
	ACTION_HELP,
	ACTION_NEXT_VIEW,
	ACTION_PREVIOUS_VIEW,
	ACTION_VIEW_1,
	ACTION_VIEW_2,
	ACTION_VIEW_3,
	ACTION_VIEW_4,
	ACTION_VIEW_5,
	ACTION_VIEW_6,
	ACTION_VIEW_7,
	ACTION_VIEW_8,
	ACTION_MAXIMISE,
	ACTION_RESTORE,
	// inside a view
	ACTION_UP,
	ACTION_DOWN,
	ACTION_LEFT,
	ACTION_RIGHT,
	ACTION_PAGE_UP,
	ACTION_PAGE_DOWN,
	ACTION_HALF_UP,
	ACTION_HALF_DOWN,
	ACTION_TOP,
	ACTION_BOTTOM,
	ACTION_SEARCH,
	ACTION_SEARCH_NEXT,
	ACTION_SEARCH_PREVIOUS,
	ACTION_SORT,
	ACTION_FOLD,
	ACTION_COPY,
	ACTION_WRITE,
	ACTION_ENTER,
	// program
	ACTION_NEWLINE,
	ACTION_REDRAW,
	ACTION_SUSPEND,
	ACTION_BACK,
	ACTION_CANCEL,
	N_ACTIONS
};

#define MAX_KEYS_PER_ACTION 6

struct key_row {
	enum action action;
	const char *name; // in the remap file
	const char *keys; // defaults, separated by blanks
	unsigned contexts;
	const char *help;
};

extern const struct key_row key_rows[N_ACTIONS - 1];

struct keymap {
	int keys[N_ACTIONS][MAX_KEYS_PER_ACTION]; // 0 = none
};

void keymap_init(struct keymap *map); // the defaults
/* Lines as above. An error names the line; what came before stays. */
int keymap_parse(struct keymap *map, const char *text, struct error *err);
int keymap_load(struct keymap *map, struct error *err); // the user's file; 0 if there is none

enum action keymap_find(const struct keymap *map, int key, enum key_context context);

int key_parse(const char *name, size_t length); // -1 = no key of that name
/* "F5, A-1": the keys of an action. */
void keymap_names(const struct keymap *map, enum action action, struct text *out);
const struct key_row *key_row_find(enum action action);

#endif
