/*
 * The `:` commands: one table feeds running, completion and help. A command works on the talk, or
 * on the screen too (then `app` must be there: in the plain line chat it is NULL and such a command
 * says so).
 */
#ifndef TUI_COMMAND_H
#define TUI_COMMAND_H

#include "base/error.h"
#include "base/text.h"
#include "tui/line.h"
#include "tui/talk.h"

struct app;

struct command_context {
	struct talk *talk;
	struct app *app;  // NULL in the plain line chat
	bool quit;        // set by :quit
	struct text *out; // text to show (help, lists); may stay empty
};

enum complete_kind {
	COMPLETE_NOTHING,
	COMPLETE_BUDGET,
	COMPLETE_FILE,
	COMPLETE_FOLDER,
	COMPLETE_SETTING,
	COMPLETE_THEME,
	COMPLETE_VIEW,
	COMPLETE_ON_OFF,
	COMPLETE_TOPIC,
	COMPLETE_HANDOFF,
};

struct command {
	const char *name, *arguments, *help;
	enum complete_kind completes;
	/* arguments without surrounding blanks; forced = the name ended in `!`. */
	int (*run)(struct command_context *context, const char *arguments, bool forced,
			   struct error *err);
	bool needs_screen;
};

extern const struct command commands[];
extern const int n_commands;

/* line without the colon. An unknown name is an error that names the nearest one. */
int command_run(struct command_context *context, const char *line, struct error *err);

/* Completions for the line up to the cursor (with its colon). i counts from 0; a new string, or
 * NULL = no more. *start = where the completed word begins. */
char *command_complete(const struct talk *talk, const char *line, int i, int *start);

/* Whether the word at the end of the line names a file or a folder, which readline completes. */
enum path_kind command_path(const char *line);

/* The nearest name in a list by edit distance, or NULL when none is near. next(i) gives names, NULL
 * ends. */
const char *nearest_name(const char *name, const char *(*next)(int i));

#endif
