/*
 * The prompt: readline's callback interface, fed from a queue and drawn by us, so that it lives
 * while tokens stream. Readline has one state, so there is one line.
 */
#ifndef TUI_LINE_H
#define TUI_LINE_H

#include "base/error.h"
#include "base/text.h"
#include <stdbool.h>
#include <stddef.h>

enum path_kind { PATH_NONE, PATH_FILE, PATH_FOLDER }; // what a word names

struct line_options {
	void (*accept)(void *user, const char *line); // Enter; NULL = Ctrl-D on an empty line
	/* The i-th completion of the line up to the cursor, new string or NULL; *start = where the word
	 * begins in it. `path` is asked first: readline completes the names of files, or of folders
	 * only. */
	char *(*complete)(void *user, const char *line, int i, int *start);
	enum path_kind (*path)(void *user, const char *line);
	void *user;
	bool keep_history; // $XDG_STATE_HOME/elastiscope/history
};

int line_open(const struct line_options *options, struct error *err); // after screen_open
void line_close(void);

void line_key(int key);   // a byte, a key code or an Alt key; unknown ones do nothing
bool line_knows(int key); // an Alt key that readline has a function for
void line_insert(const char *text, size_t length); // verbatim, one undo step

const char *line_text(void);
int line_cursor(void); // byte offset
bool line_is_empty(void);
void line_set(const char *text); // cursor at its end
/* What readline wants to say before the text ("(reverse-i-search)..."), "" = nothing. */
const char *line_message(void);
/* The completions to choose from, separated by two blanks; "" = none. Forgotten with the next key.
 */
const char *line_matches(void);
bool line_in_vi_insert(void); // Esc belongs to readline now

/* A readline generator: the folders that begin like text. */
char *line_next_folder(const char *text, int state);

const char *line_readline_version(void); // "8.2"
void line_remember(const char *text);    // into the history, memory and file

#endif
