/*
 * The one reader of the terminal. It turns what comes into keys (keys.h) and pastes. Bytes are read
 * with wgetch on a 1 x 1 pad: get_wch loses a character whose bytes arrive in two reads, stdscr
 * would be refreshed.
 */
#ifndef TUI_INPUT_H
#define TUI_INPUT_H

#include "base/error.h"
#include "base/text.h"
#include <stdbool.h>

struct _win_st;

struct input {
	struct _win_st *pad;
	bool pasting;
	struct text paste; // what has come of it
	bool too_long;     // more than MAX_PASTE_BYTES: the rest is dropped, and said
};

#define MAX_PASTE_BYTES (16u << 20)

struct input_sink {
	void (*key)(void *user, int key);
	void (*paste)(void *user, const char *text, size_t length, bool cut);
	void *user;
};

int input_open(struct input *input, struct error *err); // after screen_open
void input_close(struct input *input);

/* Everything that has arrived. ESC with nothing behind it is Esc; ESC and a byte are an Alt key. */
void input_read(struct input *input, const struct input_sink *sink);

/* Only what may stand in a prompt: newlines, tabs, no other controls, well-formed UTF-8. */
void input_clean(const char *bytes, size_t length, struct text *out);

#endif
