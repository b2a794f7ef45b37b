/*
 * The table behind `:set NAME VALUE`: one row feeds parsing, showing, completion and help. Values
 * out of range are errors that say both the value and the range; nothing changes then.
 */
#ifndef TUI_SETTING_H
#define TUI_SETTING_H

#include "tui/command.h"

struct setting {
	const char *name, *values, *help;
	enum complete_kind completes;
	int (*set)(struct command_context *context, const char *value, struct error *err);
	void (*get)(const struct command_context *context, struct text *out); // NULL: see `help`
	bool needs_model; // budget names, sampling: kept until the model is open
};

extern const struct setting settings[];
extern const int n_settings;

/* An unknown name is an error that names the nearest. Tells the engine. */
int setting_set(struct command_context *context, const char *name, const char *value,
				struct error *err);
void setting_list(const struct command_context *context, struct text *out); // NAME VALUE HELP lines
const struct setting *setting_find(const char *name);

/* Which budgets these settings name: what must be on the device before they can be set. */
struct tui_setting;
void setting_budgets(const struct tui_setting *list, int n, struct turn_settings *out);

/* A finite number, all of the text; the error names what, the value and the range. */
int parse_number(const char *what, const char *value, double low, double high, double *out,
				 struct error *err);

#endif
