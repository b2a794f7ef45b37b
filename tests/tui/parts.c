/* The terminal's pure parts: layout, columns and wrapping, keys, themes, completion, status,
 * transcript. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tui/cells.h"
#include "tui/command.h"
#include "tui/input.h"
#include "tui/keys.h"
#include "tui/layout.h"
#include "tui/setting.h"
#include "tui/status.h"
#include "tui/theme.h"
#include "tui/transcript.h"

#include <cmocka.h> // last: it makes macros of common words

static int end_of(struct rect rect)
{
	return rect.row + rect.rows;
}

/* Every size: nothing overlaps, nothing is outside, the main pane has room. */
static void test_layout_all_sizes(void **state)
{
	(void)state;
	for (int rows = 1; rows <= 70; rows++)
		for (int columns = 1; columns <= 220; columns += 3)
			for (int wishes = 0; wishes < 16; wishes++) {
				struct layout_wish wish = {1 + 9 * (wishes & 1), wishes, wishes & 2, wishes & 4,
										   wishes & 8};
				struct layout l;
				layout_make(rows, columns, &wish, &l);
				assert_int_equal(l.too_small, rows < 10 || columns < 40);
				if (l.too_small)
					continue;
				assert_int_equal(end_of(l.title), l.main.row);
				int at = end_of(l.main);
				const struct rect below[] = {l.strip, l.gauges, l.status, l.notice, l.prompt};
				for (size_t i = 0; i < 5; i++) {
					if (below[i].rows == 0)
						continue;
					assert_int_equal(below[i].row, at);
					assert_int_equal(below[i].columns, columns);
					at = end_of(below[i]);
				}
				assert_int_equal(at, rows);
				assert_true(l.notice.rows >= 1 && l.notice.rows <= (rows < 10 ? 1 : rows / 5));
				assert_true(l.main.rows >= 3 && l.main.columns >= 40);
				assert_int_equal(l.main.columns + l.rule.columns + l.side.columns, columns);
			}
}

static void test_layout_degrades(void **state)
{
	(void)state;
	struct layout_wish wish = {.prompt_rows = 1, .chat = true, .split = true};
	struct layout l;
	layout_make(24, 80, &wish, &l);
	assert_int_equal(l.gauges.rows, LAYOUT_GAUGE_ROWS);
	assert_int_equal(l.side.rows, 0);
	layout_make(23, 80, &wish, &l); // gauges go first
	assert_int_equal(l.gauges.rows, 0);
	assert_int_equal(l.strip.rows, 1);
	layout_make(40, 110, &wish, &l);
	assert_int_equal(l.side.columns, 44);
	layout_make(40, 109, &wish, &l);
	assert_int_equal(l.side.columns, 0);
	wish.maximised = true;
	layout_make(40, 120, &wish, &l);
	assert_int_equal(l.side.columns, 0);
	assert_int_equal(l.gauges.rows, 0);
}

static void test_cells(void **state)
{
	(void)state;
	assert_int_equal(cells_width("abc", 3), 3);
	assert_int_equal(cells_width("\xe4\xbd\xa0\xe5\xa5\xbd", 6), 4);
	assert_int_equal(cells_width("e\xcc\x81", 3), 1);
	assert_int_equal(cells_width("\x1b[0m", 4), 5);  // ^[ is two
	assert_int_equal(cells_width("\xff\xfe", 2), 2); // ill-formed: one each
	assert_int_equal(cells_width("\xe4\xbd", 2), 1); // cut short
	assert_int_equal(cells_width("a\xe2\x80\xae"
								 "b",
								 5),
					 2); // turns the direction: not drawn
	int width;
	assert_int_equal(cells_fit("\xe4\xbd\xa0\xe5\xa5\xbd", 6, 3, &width), 3);
	assert_int_equal(width, 2);
}

/* Lines joined by '|'. */
static const char *wrapped(const char *text, int columns)
{
	static char out[1024];
	size_t length = strlen(text), at = 0, n = 0;
	while (at < length) {
		size_t next, line = cells_wrap(text + at, length - at, columns, &next);
		assert_true(next > 0 && line <= next);
		assert_true(cells_width(text + at, line) <= columns || columns < 2);
		memcpy(out + n, text + at, line);
		n += line;
		out[n++] = '|';
		at += next;
	}
	out[n] = 0;
	return out;
}

static void test_wrap(void **state)
{
	(void)state;
	assert_string_equal(wrapped("one two three", 8), "one two|three|");
	assert_string_equal(wrapped("one two three", 7), "one two|three|");
	assert_string_equal(wrapped("one\n\ntwo\n", 7), "one||two|");
	assert_string_equal(wrapped("abcdefghij", 4), "abcd|efgh|ij|");
	assert_string_equal(wrapped("a abcdefgh", 4), "a|abcd|efgh|");
	assert_string_equal(wrapped("\xe4\xbd\xa0\xe5\xa5\xbd\xe5\x90\x97", 5),
						"\xe4\xbd\xa0\xe5\xa5\xbd|\xe5\x90\x97|");
	assert_string_equal(wrapped("word    next", 5), "word|next|");
	assert_string_equal(wrapped("\xe4\xbd\xa0", 1),
						"\xe4\xbd\xa0|"); // wider than the screen: goes on
}

static void test_keys(void **state)
{
	(void)state;
	struct keymap map;
	keymap_init(&map);
	int f5 = key_parse("F5", 2), alt1 = key_parse("A-1", 3);
	assert_true(f5 > 255 && alt1 == ('1' | KEY_WITH_ALT));
	assert_int_equal(key_parse("C-c", 3), 3);
	assert_int_equal(key_parse("Esc", 3), 27);
	assert_int_equal(key_parse("nonsense", 8), -1);
	assert_int_equal(key_parse("A-A-x", 5), -1);
	assert_int_equal(keymap_find(&map, f5, IN_PROMPT), ACTION_BUDGET_1);
	assert_int_equal(keymap_find(&map, alt1, IN_VIEW), ACTION_BUDGET_1);
	assert_int_equal(keymap_find(&map, '?', IN_VIEW), ACTION_HELP);
	assert_int_equal(keymap_find(&map, '?', IN_PROMPT), ACTION_NONE); // text
	assert_int_equal(keymap_find(&map, 4, IN_PROMPT), ACTION_NONE);   // Ctrl-D is readline's
	assert_int_equal(keymap_find(&map, 4, IN_VIEW), ACTION_HALF_DOWN);
}

/* In one context a key does one thing, and every action has a row and a help line. */
static void test_key_table(void **state)
{
	(void)state;
	struct keymap map;
	keymap_init(&map);
	for (int a = 1; a < N_ACTIONS; a++) {
		const struct key_row *row = key_row_find((enum action)a);
		assert_non_null(row);
		assert_true(strlen(row->help) > 0);
		for (int i = 0; i < MAX_KEYS_PER_ACTION; i++)
			for (unsigned context = IN_PROMPT; context <= IN_VIEW; context++) {
				int key = map.keys[a][i];
				bool text = context == IN_PROMPT && key >= 32 && key < 127;
				if (key && (row->contexts & context) && !text)
					assert_int_equal(keymap_find(&map, key, (enum key_context)context), a);
			}
	}
}

static void test_keys_remapped(void **state)
{
	(void)state;
	struct keymap map;
	struct error err = {0};
	keymap_init(&map);
	assert_int_equal(keymap_parse(&map, "# mine\nbudget-1 F2 A-q\npolicy none\nhelp F5\n", &err),
					 0);
	assert_int_equal(keymap_find(&map, key_parse("F2", 2), IN_PROMPT), ACTION_BUDGET_1);
	assert_int_equal(keymap_find(&map, key_parse("F5", 2), IN_VIEW), ACTION_HELP);
	assert_int_equal(keymap_find(&map, key_parse("F8", 2), IN_VIEW), ACTION_NONE);
	struct text names = {0};
	keymap_names(&map, ACTION_BUDGET_1, &names);
	assert_string_equal(text_chars(&names), "F2, Alt-q");
	text_free(&names);
	assert_int_equal(keymap_parse(&map, "budget-1 F2\nbudgte F3\n", &err), -1);
	assert_string_equal(err.text, "keys: line 2: there is no action budgte");
	assert_int_equal(keymap_parse(&map, "sort Foo\n", &err), -1);
	assert_non_null(strstr(err.text, "line 1: Foo"));
}

static void test_paste_is_cleaned(void **state)
{
	(void)state;
	struct text out = {0};
	static const char dirty[] = "a\r\nb\rc\n\td\x01\x1b[31m\x7f\xc2\x9b"
								"e\xff"
								"f";
	input_clean(dirty, sizeof dirty - 1, &out);
	assert_string_equal(text_chars(&out), "a\nb\nc\n\td[31me\xEF\xBF\xBD"
										  "f");
	text_free(&out);
}

static void test_theme(void **state)
{
	(void)state;
	struct theme theme;
	struct error err = {0};
	theme_init(&theme);
	assert_int_equal(
		theme_parse(&theme, "dim 245 # grey\nstatus black bright-blue bold\n", "x", &err), 0);
	assert_int_equal(theme.styles[ROLE_DIM].foreground, 245);
	assert_int_equal(theme.styles[ROLE_STATUS].foreground, 0);
	assert_int_equal(theme.styles[ROLE_STATUS].background, 12);
	assert_false(theme.ascii);
	assert_int_equal(theme_parse(&theme, "dim 245\nnobody red\n", "x", &err), -1);
	assert_string_equal(err.text, "theme x: line 2: there is no role nobody");
	assert_int_equal(theme_parse(&theme, "dim 256\n", "x", &err), -1);
	assert_int_equal(theme.styles[ROLE_DIM].foreground, 245); // stays what it was
	for (int i = 0; theme_bundled(i); i++)
		assert_int_equal(theme_load(&theme, theme_bundled(i), &err), 0);
	assert_true(theme.ascii); // the last one
	assert_int_equal(theme_load(&theme, "../default", &err), -1);
	assert_int_equal(theme_nearest(196, 8), 1); // red
	assert_int_equal(theme_nearest(196, 16), 9);
	assert_int_equal(theme_nearest(196, 256), 196);
	assert_int_equal(theme_ramp(RAMP_SEQUENTIAL, 0), 16);
	assert_int_equal(theme_ramp(RAMP_SEQUENTIAL, 1), 194);
	assert_int_equal(theme_ramp(RAMP_STEPS, -3), 53);
	assert_int_equal(theme_ramp(RAMP_DIVERGING, NAN), -1);
	theme_free(&theme);
}

static const char *completion(const char *line, int i)
{
	static char out[64];
	static const struct talk talk = {0};
	int start;
	char *match = command_complete(&talk, line, i, &start);
	snprintf(out, sizeof out, "%s", match ? match : "none");
	free(match);
	return out;
}

static void test_completion(void **state)
{
	(void)state;
	assert_string_equal(completion(":bud", 0), ":budget");
	assert_string_equal(completion(":bud", 1), "none");
	assert_string_equal(completion(":s", 0), ":set");
	assert_string_equal(completion(":set top", 0), "top-p");
	assert_string_equal(completion(":set top", 1), "top-k");
	assert_string_equal(completion(":set thinking o", 1), "off");
	assert_string_equal(completion(":theme m", 0), "mono");
	assert_string_equal(completion(":budget ", 0), "none"); // no model
	assert_string_equal(completion("plain text", 0), "none");
	assert_int_equal(command_path(":write /tm"), PATH_FILE);
	assert_int_equal(command_path(":open /tm"), PATH_FOLDER);
	assert_int_equal(command_path(":write! /tm"), PATH_FILE);
	assert_int_equal(command_path(":wri"), PATH_NONE);
}

static void test_number(void **state)
{
	(void)state;
	struct error err = {0};
	double number;
	assert_int_equal(parse_number("temp", " 0.5 ", 0, 100, &number, &err), 0);
	assert_true(number == 0.5);
	static const char *const wrong[] = {"", "x", "1x", "nan", "inf", "101", "-1", "1e999"};
	for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++)
		assert_int_equal(parse_number("temp", wrong[i], 0, 100, &number, &err), -1);
	assert_true(number == 0.5);
}

static void test_units(void **state)
{
	static const struct {
		int64_t bytes;
		const char *text;
	} rows[] = {{0, "0B"},
				{999, "999B"},
				{1024, "1.0K"},
				{61 << 20, "61M"},
				{-1, "N/A"},
				{4700000, "4.5M"},
				{(int64_t)80 << 30, "80G"},
				{1023 << 10, "1.0M"}};
	(void)state;
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
		struct text out = {0};
		status_bytes(rows[i].bytes, &out);
		assert_string_equal(text_chars(&out), rows[i].text);
		text_free(&out);
	}
}

static void say(struct transcript *transcript, struct reply *reply, enum phase phase,
				const char *text, int budget)
{
	struct event event = {.type = EV_TOKEN, .text = text, .length = strlen(text)};
	event.token.phase = phase;
	event.token.took_ns = 1000;
	reply_event(reply, &event);
	transcript_token(transcript, &event, reply, budget);
}

static void test_transcript(void **state)
{
	(void)state;
	struct transcript transcript = {0};
	struct reply reply = {0};
	struct event turn = {.type = EV_TURN};
	turn.turn.settings.thinking = true;
	transcript_add(&transcript, ENTRY_USER, "hi", 2);
	reply_event(&reply, &turn);
	say(&transcript, &reply, PHASE_THINK, "a", 0);
	say(&transcript, &reply, PHASE_THINK, " b", 0);
	say(&transcript, &reply, PHASE_THINK, " c", 2);
	assert_int_equal(transcript.n_entries, 2);
	assert_true(transcript.entries[1].live && !transcript.entries[1].folded);
	say(&transcript, &reply, PHASE_ANSWER, "\nyes", 0);
	assert_int_equal(transcript.n_entries, 3);
	const struct entry *thought = &transcript.entries[1];
	assert_string_equal(text_chars(&thought->text), "a b c");
	assert_true(thought->folded && !thought->live);
	assert_int_equal(thought->n_tokens, 3);
	assert_int_equal(thought->tokens[2].offset, 3);
	assert_true(thought->tokens[2].switched && !thought->tokens[1].switched);
	assert_string_equal(text_chars(&transcript.entries[2].text), "yes");
	transcript_stop(&transcript);
	transcript_add(&transcript, ENTRY_USER, "again", 5);
	transcript_undo(&transcript, false);
	assert_int_equal(transcript.n_entries, 3);
	transcript_undo(&transcript, true);
	assert_int_equal(transcript.n_entries, 1);
	transcript_free(&transcript);
	reply_free(&reply);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout_all_sizes),
		cmocka_unit_test(test_layout_degrades),
		cmocka_unit_test(test_cells),
		cmocka_unit_test(test_wrap),
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_key_table),
		cmocka_unit_test(test_keys_remapped),
		cmocka_unit_test(test_paste_is_cleaned),
		cmocka_unit_test(test_theme),
		cmocka_unit_test(test_completion),
		cmocka_unit_test(test_number),
		cmocka_unit_test(test_units),
		cmocka_unit_test(test_transcript),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
