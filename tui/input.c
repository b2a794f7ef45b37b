#include "tui/input.h"
#include "base/utf8.h"
#include "tui/keys.h"
#include <ncurses.h>
#include <string.h>

enum { KEY_PASTE_BEGIN = KEY_MAX + 101, KEY_PASTE_END };

int input_open(struct input *input, struct error *err)
{
	*input = (struct input){0};
	input->pad = newpad(1, 1);
	if (!input->pad)
		return fail(err, "no memory for the terminal's input");
	keypad(input->pad, TRUE);
	nodelay(input->pad, TRUE);
	define_key("\033[200~", KEY_PASTE_BEGIN);
	define_key("\033[201~", KEY_PASTE_END);
	return 0;
}

void input_close(struct input *input)
{
	if (input->pad)
		delwin(input->pad);
	text_free(&input->paste);
	*input = (struct input){0};
}

void input_clean(const char *bytes, size_t length, struct text *out)
{
	for (size_t at = 0; at < length;) {
		uint32_t code;
		int n = utf8_decode(bytes + at, length - at, &code);
		if (n <= 0) {
			text_add(out, UTF8_REPLACEMENT);
			at += n < 0 ? (size_t)-n : length - at;
			continue;
		}
		if (code == '\r') { // terminals send it for newlines
			text_add_char(out, '\n');
			if (at + 1 < length && bytes[at + 1] == '\n')
				at++;
		} else if (code == '\n' || code == '\t' || (code >= 0x20 && (code < 0x7f || code > 0x9f))) {
			text_append(out, bytes + at, (size_t)n);
		}
		at += (size_t)n;
	}
}

static void paste_key(struct input *input, int key, const struct input_sink *sink)
{
	if (key == KEY_PASTE_END) {
		struct text clean = {0};
		input_clean(text_chars(&input->paste), input->paste.length, &clean);
		input->pasting = false;
		text_clear(&input->paste);
		sink->paste(sink->user, text_chars(&clean), clean.length, input->too_long);
		text_free(&clean);
	} else if (key < 256) { // key codes inside a paste come from escape sequences: dropped
		if (input->paste.length < MAX_PASTE_BYTES)
			text_add_char(&input->paste, (char)key);
		else
			input->too_long = true;
	}
}

static void escape(struct input *input, const struct input_sink *sink)
{
	int next = wgetch(input->pad);
	if (next == ERR) {
		sink->key(sink->user, 27);
	} else if (next == 27) {
		sink->key(sink->user, 27);
		ungetch(27);
	} else if (next < 128) {
		sink->key(sink->user, next | KEY_WITH_ALT);
	} else {
		sink->key(sink->user, 27);
		if (next == KEY_PASTE_BEGIN) {
			input->pasting = true;
			input->too_long = false;
		} else {
			sink->key(sink->user, next);
		}
	}
}

void input_read(struct input *input, const struct input_sink *sink)
{
	for (;;) {
		int key = wgetch(input->pad);
		if (key == ERR)
			return;
		if (input->pasting) {
			paste_key(input, key, sink);
		} else if (key == KEY_PASTE_BEGIN) {
			input->pasting = true;
			input->too_long = false;
		} else if (key == 27) {
			escape(input, sink);
		} else if (key != KEY_RESIZE && key != KEY_PASTE_END) {
			sink->key(sink->user, key);
		}
	}
}
