/*
 * What the panes that look into a model share: a cursor in a list, search in it, short names,
 * numbers with units, and what they say while there is no model. Unknown numbers are "N/A".
 */
#ifndef TUI_LOOK_H
#define TUI_LOOK_H

#include "core/axis.h"
#include "tui/pane.h"

struct list { // a cursor among n lines, `rows` of them visible from `top`
	int cursor, top;
};

/* j k g G PgUp PgDn C-d C-u; false = the action is none of them. */
bool list_action(struct list *list, int n, int rows, enum action action);
/* Keeps the cursor inside the list and the cursor's line among the visible ones. */
void list_show(struct list *list, int n, int rows);

/* What a search looks at: line() appends a line's text. */
struct list_lines {
	int n;
	void (*line)(const void *user, int i, struct text *out);
	const void *user;
};
/* The three search actions on a pane's list; false = it is none of them. Says what was not found.
 */
bool list_search_action(struct list *list, const struct list_lines *lines, struct pane *pane,
						enum action action);

struct number {
	char text[32];
};
struct number number_count(double count);               // "512", "1.23M"
struct number number_bytes(int64_t bytes);              // "2.41 MiB"; negative = N/A
struct number number_percent(double share);             // 0..1 -> "43.2%"; NAN = N/A
struct number number_rate(double per_second);           // "96.3", "4.1k"; 0 or less = N/A
struct number number_fixed(double value, int decimals); // NAN = N/A

/* "experts", "expert ffn", ...: at most 11 columns; N_AXES = "layers". */
const char *axis_short(enum axis axis);

/* "m medium" of elastic.budgets[index], at most `columns` wide; -1 = the name alone. */
struct number budget_label(const struct elastic *elastic, int index, const char *name, int columns);

/* One line of a heat-map, so that what belongs to it can stand beside it: values (n) in 0..1, NaN =
 * blank, infinity = outside. */
#define LOOK_HEAT_COLUMNS 512
void look_heat_line(const struct canvas *canvas, int row, int column, const float *values, int n);

/* How many columns a line of n values takes in `room`: up to 4 a value, or fewer than n. */
int look_heat_columns(int n, int room);

/* The typed or named budget that reads next as an index, or -1. */
int look_budget(const struct talk *talk);

/* False while no model is open, and says so. */
bool look_ready(const struct pane *pane, const struct canvas *canvas);
/* One sentence in the middle of nothing, wrapped. */
void look_say(const struct canvas *canvas, int row, enum role role, const char *sentence);

#endif
