#include "tui/line.h"
#include "base/file.h"
#include "base/utf8.h"
#include "tui/keys.h"
#include <errno.h>
#include <ncurses.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <readline/history.h>
#include <readline/readline.h>
#include <readline/tilde.h>

#define MAX_HISTORY 2000

static struct {
	struct line_options options;
	unsigned char queue[64];
	size_t from, to;
	FILE *null_in, *null_out;
	char *history;
	struct text matches;
	char *entered;   // by Enter, until the key is done
	char partial[4]; // bytes of a character that is not complete
	size_t n_partial;
	bool ended; // Ctrl-D
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

char *line_next_folder(const char *text, int state)
{
	char *name;
	while ((name = rl_filename_completion_function(text, state))) {
		char *path = tilde_expand(name);
		bool folder = path && file_is_directory(path);
		free(path);
		if (folder)
			return name;
		free(name);
		state = 1;
	}
	return NULL;
}

static char **attempt(const char *text, int start, int end)
{
	char *before = strndup(rl_line_buffer, (size_t)end);
	(void)start;
	rl_attempted_completion_over = 1;
	enum path_kind path =
		before && line.options.path ? line.options.path(line.options.user, before) : PATH_NONE;
	free(before);
	if (path != PATH_NONE) {
		rl_filename_completion_desired = 1;
		return rl_completion_matches(text, path == PATH_FOLDER ? line_next_folder
															   : rl_filename_completion_function);
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

/* In callback mode these read further keys by themselves, from a queue that is empty, and readline
 * then loses its place (crashes and endless loops, found by random keys): numeric arguments, string
 * searches, keyboard macros, and what quotes or looks for the next key. */
static void unbind_dangerous(void)
{
	static rl_command_func_t *const functions[] = {
		rl_digit_argument,
		rl_universal_argument,
		rl_noninc_reverse_search,
		rl_noninc_forward_search,
		rl_noninc_reverse_search_again,
		rl_noninc_forward_search_again,
		rl_start_kbd_macro,
		rl_end_kbd_macro,
		rl_call_last_kbd_macro,
		rl_print_last_kbd_macro,
		rl_quoted_insert,
		rl_char_search,
		rl_backward_char_search,
		rl_vi_arg_digit,
		rl_vi_search,
		rl_vi_search_again,
		rl_vi_char_search,
		rl_vi_goto_mark,
		rl_vi_set_mark,
	};
	const Keymap maps[] = {emacs_standard_keymap, emacs_meta_keymap, emacs_ctlx_keymap,
						   vi_insertion_keymap, vi_movement_keymap};
	for (size_t i = 0; i < sizeof maps / sizeof *maps; i++)
		for (size_t j = 0; j < sizeof functions / sizeof *functions; j++)
			rl_unbind_function_in_map(functions[j], maps[i]);
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
	unbind_dangerous();
	open_history();
	rl_callback_handler_install("", accepted);
	line.open = true;
	return 0;
}

void line_close(void)
{
	if (line.open) {
		rl_callback_handler_remove();
		clear_history(); // not rl_clear_history: entries that were edited may share undo lists
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

/* A character's bytes go to readline together: its searches read the rest at once. */
static void feed_byte(int byte)
{
	char character = (char)byte;
	uint32_t code;
	if (byte < 128 || line.n_partial == sizeof line.partial)
		line.n_partial = 0;
	if (byte < 128) {
		feed(&character, 1);
		return;
	}
	line.partial[line.n_partial++] = character;
	int n = utf8_decode(line.partial, line.n_partial, &code);
	if (n > 0)
		feed(line.partial, line.n_partial);
	if (n != 0) // ill-formed: dropped
		line.n_partial = 0;
}

/* In an incremental search only its own keys reach readline; any other ends the search first. */
static void leave_search(int key)
{
	bool own = (key >= 32 && key < 256 && key != 127) || key == 18 || key == 19 || key == 7 ||
			   key == 8 || key == 127 || key == '\r' || key == '\n' || key == KEY_BACKSPACE;
	if (RL_ISSTATE(RL_STATE_ISEARCH) && !own)
		feed("\n", 1); // C-j ends it and does nothing else
}

void line_key(int key)
{
	bool searching = RL_ISSTATE(RL_STATE_ISEARCH);
	leave_search(key);
	if (key & KEY_WITH_ALT) {
		char sequence[2] = {27, (char)key};
		if (line_knows(key))
			feed(sequence, 2);
	} else if (key == 27 && searching) {
		return; // it ended the search
	} else if (key < 256) {
		feed_byte(key);
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
	leave_search(0);
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
	leave_search(0);
	rl_begin_undo_group(); // not rl_replace_line: it frees an undo list that a history entry may
						   // hold
	rl_delete_text(0, rl_end);
	rl_point = 0;
	rl_insert_text(text);
	rl_end_undo_group();
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
