#include "tui/line.h"
#include "base/file.h"
#include "tui/keys.h"
#include <errno.h>
#include <ncurses.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <readline/history.h>
#include <readline/readline.h>

#define MAX_HISTORY 2000

static struct {
	struct line_options options;
	unsigned char queue[64];
	size_t from, to;
	FILE *null_in, *null_out;
	char *history;
	struct text matches;
	char *entered; // by Enter, until the key is done
	bool ended;    // Ctrl-D
	bool open;
} line;

static int next_byte(FILE *stream)
{
	(void)stream;
	return line.from < line.to ? line.queue[line.from++] : EOF;
}

static int input_waits(void)
{
	return line.from < line.to;
}

static void redisplay(void)
{
}

static void accepted(char *text)
{
	free(line.entered);
	line.entered = text;
	line.ended = !text;
}

static char *generate(const char *text, int state)
{
	static int i;
	int start;
	(void)text;
	i = state ? i + 1 : 0;
	char *before = strndup(rl_line_buffer, (size_t)rl_point);
	char *match = before ? line.options.complete(line.options.user, before, i, &start) : NULL;
	free(before);
	return match;
}

static char **attempt(const char *text, int start, int end)
{
	char *before = strndup(rl_line_buffer, (size_t)end);
	(void)start;
	rl_attempted_completion_over = 1;
	bool files = before && line.options.files && line.options.files(line.options.user, before);
	free(before);
	if (files) {
		rl_filename_completion_desired = 1;
		return rl_completion_matches(text, rl_filename_completion_function);
	}
	return line.options.complete ? rl_completion_matches(text, generate) : NULL;
}

static void show_matches(char **matches, int n, int longest)
{
	(void)longest;
	text_clear(&line.matches);
	for (int i = 1; i <= n; i++) {
		const char *slash = strrchr(matches[i], '/');
		text_format(&line.matches, "%s%s", i > 1 ? "  " : "",
					slash && slash[1] ? slash + 1 : matches[i]);
	}
}

static void open_history(void)
{
	history_write_timestamps = 1; // or entries of two lines come back as two
	history_comment_char = '#';
	using_history();
	if (!line.options.keep_history)
		return;
	line.history = file_place(PLACE_STATE, "history", NULL);
	char *folder =
		line.history ? strndup(line.history, strlen(line.history) - strlen("/history")) : NULL;
	if (folder)
		file_make_directories(folder, NULL);
	free(folder);
	if (line.history && read_history(line.history) == 0)
		stifle_history(MAX_HISTORY);
}

int line_open(const struct line_options *options, struct error *err)
{
	line.options = *options;
	line.null_in = fopen("/dev/null", "r");
	line.null_out = fopen("/dev/null", "w");
	if (!line.null_in || !line.null_out)
		return fail(err, "/dev/null: %s", strerror(errno));
	rl_readline_name = "elastiscope";
	rl_instream = line.null_in;
	rl_outstream = line.null_out;
	rl_catch_signals = 0;
	rl_catch_sigwinch = 0;
	rl_change_environment = 0;
	rl_prep_term_function = NULL;
	rl_deprep_term_function = NULL;
	rl_getc_function = next_byte;
	rl_input_available_hook = input_waits;
	rl_redisplay_function = redisplay;
	rl_attempted_completion_function = attempt;
	rl_completion_display_matches_hook = show_matches;
	rl_completer_word_break_characters = " \t\n";
	rl_completer_quote_characters = "";
	rl_initialize();
	rl_variable_bind("enable-bracketed-paste", "off");
	rl_variable_bind("bell-style", "none");
	rl_variable_bind("show-all-if-ambiguous", "on");
	rl_variable_bind("echo-control-characters", "off");
	open_history();
	rl_callback_handler_install("", accepted);
	line.open = true;
	return 0;
}

void line_close(void)
{
	if (line.open) {
		rl_callback_handler_remove();
		rl_clear_history();
	}
	if (line.null_in)
		fclose(line.null_in);
	if (line.null_out)
		fclose(line.null_out);
	rl_instream = stdin;
	rl_outstream = stdout;
	free(line.history);
	text_free(&line.matches);
	memset(&line, 0, sizeof line);
}

static void feed(const char *bytes, size_t length)
{
	text_clear(&line.matches);
	line.from = line.to = 0;
	for (size_t i = 0; i < length && line.to < sizeof line.queue; i++)
		line.queue[line.to++] = (unsigned char)bytes[i];
	while (line.from < line.to)
		rl_callback_read_char();
	if (line.entered || line.ended) { // now: readline empties its buffer after its own callback
		char *text = line.entered;
		line.entered = NULL;
		line.ended = false;
		line.options.accept(line.options.user, text);
		free(text);
	}
}

bool line_knows(int key)
{
	char sequence[3] = {27, (char)key, 0};
	return (key & KEY_WITH_ALT) && (key & 0xff) < 128 && (key & 0xff) == (key & 0xffff) &&
		   rl_function_of_keyseq(sequence, NULL, NULL) != NULL;
}

void line_key(int key)
{
	if (key & KEY_WITH_ALT) {
		char sequence[2] = {27, (char)key};
		if (line_knows(key))
			feed(sequence, 2);
	} else if (key < 256) {
		char byte = (char)key;
		feed(&byte, 1);
	} else if (key == KEY_BACKSPACE) {
		feed("\177", 1);
	} else if (key == KEY_ENTER) {
		feed("\r", 1);
	} else {
		char *bytes = keybound(key, 0);
		if (bytes && rl_function_of_keyseq(bytes, NULL, NULL))
			feed(bytes, strlen(bytes));
		free(bytes);
	}
}

void line_insert(const char *text, size_t length)
{
	char *copy = strndup(text, length);
	text_clear(&line.matches);
	if (copy)
		rl_insert_text(copy);
	free(copy);
}

const char *line_text(void)
{
	return rl_line_buffer ? rl_line_buffer : "";
}

int line_cursor(void)
{
	return rl_point;
}

bool line_is_empty(void)
{
	return rl_end == 0;
}

void line_set(const char *text)
{
	text_clear(&line.matches);
	rl_replace_line(text, 1);
	rl_point = rl_end;
}

const char *line_message(void)
{
	return RL_ISSTATE(RL_STATE_ISEARCH | RL_STATE_NSEARCH | RL_STATE_NUMERICARG) &&
				   rl_display_prompt
			   ? rl_display_prompt
			   : "";
}

const char *line_matches(void)
{
	return text_chars(&line.matches);
}

bool line_in_vi_insert(void)
{
	if (RL_ISSTATE(RL_STATE_ISEARCH | RL_STATE_NSEARCH))
		return true; // Esc ends the search
	return rl_editing_mode == 0 && rl_get_keymap() == vi_insertion_keymap;
}

void line_remember(const char *text)
{
	HIST_ENTRY *last = history_length > 0 ? history_get(history_base + history_length - 1) : NULL;
	if (last && strcmp(last->line, text) == 0)
		return;
	add_history(text);
	using_history(); // readline began its new line before this entry
	if (line.history && append_history(1, line.history) != 0) {
		FILE *file = fopen(line.history, "a"); // append_history needs the file to exist
		if (file) {
			fclose(file);
			append_history(1, line.history);
		}
	}
}

const char *line_readline_version(void)
{
	return rl_library_version;
}
