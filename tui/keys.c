#include "tui/keys.h"
#include "base/file.h"
#include <ncurses.h>
#include <stdlib.h>
#include <string.h>

/* clang-format off */
const struct key_row key_rows[N_ACTIONS - 1] = {
	{ACTION_BUDGET_1, "budget-1", "F5 A-1", ANYWHERE, "the smallest budget writes from the next token on"},
	{ACTION_BUDGET_2, "budget-2", "F6 A-2", ANYWHERE, "the second smallest budget"},
	{ACTION_BUDGET_3, "budget-3", "F7 A-3", ANYWHERE, "the third smallest budget"},
	{ACTION_SMALLER, "smaller", "[", IN_VIEW, "one budget smaller"},
	{ACTION_LARGER, "larger", "]", IN_VIEW, "one budget larger"},
	{ACTION_POLICY, "policy", "F8", ANYWHERE, "policy on or off: one budget thinks, another answers"},
	{ACTION_END_THINKING, "end-thinking", "F9", ANYWHERE, "end the thinking now"},
	{ACTION_HANDOFF, "handoff", "F4", ANYWHERE, "handoff: carry (instant) or reprefill (exact)"},
	{ACTION_INTERRUPT, "interrupt", "C-c", ANYWHERE, "stop the generation; twice: quit"},
	{ACTION_PAUSE, "pause", "p", IN_VIEW, "pause the model, or go on"},
	{ACTION_STEP, "step", ".", IN_VIEW, "one token, then pause"},
	{ACTION_TO_VIEW, "view", "Esc", IN_PROMPT, "leave the prompt for the view"},
	{ACTION_TO_PROMPT, "prompt", "i", IN_VIEW, "back to the prompt"},
	{ACTION_COMMAND, "command", ":", IN_VIEW, "type a command"},
	{ACTION_HELP, "help", "F1 ?", ANYWHERE, "this help"},
	{ACTION_NEXT_VIEW, "next-view", "Tab", IN_VIEW, "next view"},
	{ACTION_PREVIOUS_VIEW, "previous-view", "S-Tab", IN_VIEW, "previous view"},
	{ACTION_VIEW_1, "view-1", "1", IN_VIEW, "view 1"},
	{ACTION_VIEW_2, "view-2", "2", IN_VIEW, "view 2"},
	{ACTION_VIEW_3, "view-3", "3", IN_VIEW, "view 3"},
	{ACTION_VIEW_4, "view-4", "4", IN_VIEW, "view 4"},
	{ACTION_VIEW_5, "view-5", "5", IN_VIEW, "view 5"},
	{ACTION_VIEW_6, "view-6", "6", IN_VIEW, "view 6"},
	{ACTION_VIEW_7, "view-7", "7", IN_VIEW, "view 7"},
	{ACTION_VIEW_8, "view-8", "8", IN_VIEW, "view 8"},
	{ACTION_MAXIMISE, "maximise", "+", IN_VIEW, "the view takes the whole screen"},
	{ACTION_RESTORE, "restore", "_", IN_VIEW, "back to the usual layout"},
	{ACTION_UP, "up", "k Up", IN_VIEW, "up"},
	{ACTION_DOWN, "down", "j Down", IN_VIEW, "down"},
	{ACTION_LEFT, "left", "h Left", IN_VIEW, "left"},
	{ACTION_RIGHT, "right", "l Right", IN_VIEW, "right"},
	{ACTION_PAGE_UP, "page-up", "PgUp", ANYWHERE, "a page up"},
	{ACTION_PAGE_DOWN, "page-down", "PgDn", ANYWHERE, "a page down"},
	{ACTION_HALF_UP, "half-up", "C-u", IN_VIEW, "half a page up"},
	{ACTION_HALF_DOWN, "half-down", "C-d", IN_VIEW, "half a page down"},
	{ACTION_TOP, "top", "g Home", IN_VIEW, "to the beginning"},
	{ACTION_BOTTOM, "bottom", "G End", IN_VIEW, "to the end, and follow it"},
	{ACTION_SEARCH, "search", "/", IN_VIEW, "search"},
	{ACTION_SEARCH_NEXT, "search-next", "n", IN_VIEW, "next hit"},
	{ACTION_SEARCH_PREVIOUS, "search-previous", "N", IN_VIEW, "previous hit"},
	{ACTION_SORT, "sort", "s", IN_VIEW, "sort by the next column"},
	{ACTION_FOLD, "fold", "Space", IN_VIEW, "fold or unfold the thoughts"},
	{ACTION_COPY, "copy", "y", IN_VIEW, "copy to the terminal's clipboard (OSC 52)"},
	{ACTION_WRITE, "write", "w", IN_VIEW, "write the view to a file"},
	{ACTION_ENTER, "enter", "Enter", IN_VIEW, "choose; in the chat: back to the prompt"},
	{ACTION_NEWLINE, "newline", "A-Enter", IN_PROMPT, "a new line in the prompt"},
	{ACTION_REDRAW, "redraw", "C-l", ANYWHERE, "draw the screen anew"},
	{ACTION_SUSPEND, "suspend", "C-z", ANYWHERE, "suspend (fg comes back)"},
	{ACTION_BACK, "back", "q", IN_VIEW, "back; from the chat: quit"},
	{ACTION_CANCEL, "cancel", "Esc", IN_VIEW, "close what is open over the view"},
};

static const struct { const char *name; int key; } names[] = {
	{"Esc", 27}, {"Enter", '\r'}, {"Tab", '\t'}, {"S-Tab", KEY_BTAB}, {"Space", ' '},
	{"Up", KEY_UP}, {"Down", KEY_DOWN}, {"Left", KEY_LEFT}, {"Right", KEY_RIGHT},
	{"PgUp", KEY_PPAGE}, {"PgDn", KEY_NPAGE}, {"Home", KEY_HOME}, {"End", KEY_END},
	{"Ins", KEY_IC}, {"Del", KEY_DC}, {"Backspace", KEY_BACKSPACE},
};
/* clang-format on */

int key_parse(const char *name, size_t length)
{
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (strlen(names[i].name) == length && memcmp(names[i].name, name, length) == 0)
			return names[i].key;
	if (length > 2 && name[0] == 'A' && name[1] == '-') {
		int key = key_parse(name + 2, length - 2);
		return key < 0 || (key & KEY_WITH_ALT) ? -1 : key | KEY_WITH_ALT;
	}
	if (length == 3 && name[0] == 'C' && name[1] == '-' && name[2] >= '@' && name[2] < 127)
		return name[2] & 0x1f;
	if (length >= 2 && length <= 3 && name[0] == 'F' && name[1] >= '1' && name[1] <= '9') {
		int n = name[1] - '0';
		if (length == 3)
			n = name[2] >= '0' && name[2] <= '9' ? 10 * n + name[2] - '0' : 99;
		return n <= 63 ? KEY_F(n) : -1;
	}
	return length == 1 && name[0] > ' ' && name[0] < 127 ? name[0] : -1;
}

static void key_format(int key, struct text *out)
{
	if (key & KEY_WITH_ALT) {
		text_add(out, "Alt-");
		key &= ~KEY_WITH_ALT;
	}
	for (size_t i = 0; i < sizeof names / sizeof *names; i++)
		if (names[i].key == key) {
			text_add(out, names[i].name);
			return;
		}
	if (key >= KEY_F(1) && key <= KEY_F(63))
		text_format(out, "F%d", key - KEY_F0);
	else if (key > 0 && key < 32)
		text_format(out, "Ctrl-%c", key + '@');
	else if (key >= 32 && key < 127)
		text_add_char(out, (char)key);
	else
		text_format(out, "<%d>", key);
}

const struct key_row *key_row_find(enum action action)
{
	for (int i = 0; i < N_ACTIONS - 1; i++)
		if (key_rows[i].action == action)
			return &key_rows[i];
	return NULL;
}

/* Replaces an action's keys by the words in `list`. */
static int bind_keys(struct keymap *map, enum action action, const char *list, const char **wrong)
{
	int keys[MAX_KEYS_PER_ACTION] = {0}, n = 0;
	while (*(list += strspn(list, " \t\r")) && *list != '#') {
		size_t length = strcspn(list, " \t\r");
		int key = key_parse(list, length);
		*wrong = list;
		if (length == 4 && memcmp(list, "none", 4) == 0) {
			list += length;
			continue;
		}
		if (key < 0 || n == MAX_KEYS_PER_ACTION)
			return -1;
		keys[n++] = key;
		list += length;
	}
	memcpy(map->keys[action], keys, sizeof keys);
	return n;
}

void keymap_init(struct keymap *map)
{
	const char *wrong;
	memset(map, 0, sizeof *map);
	for (int i = 0; i < N_ACTIONS - 1; i++)
		bind_keys(map, key_rows[i].action, key_rows[i].keys, &wrong);
}

/* A key that the file gives to one action is taken from the others of the same context. */
static void take_away(struct keymap *map, const struct key_row *row)
{
	for (int i = 0; i < N_ACTIONS - 1; i++) {
		if (&key_rows[i] == row || !(key_rows[i].contexts & row->contexts))
			continue;
		int *keys = map->keys[key_rows[i].action];
		for (int j = 0; j < MAX_KEYS_PER_ACTION; j++)
			for (int k = 0; k < MAX_KEYS_PER_ACTION; k++)
				if (keys[j] && keys[j] == map->keys[row->action][k])
					keys[j] = 0;
	}
}

static int parse_line(struct keymap *map, const char *line, int number, struct error *err)
{
	line += strspn(line, " \t\r");
	if (!*line || *line == '#')
		return 0;
	size_t length = strcspn(line, " \t\r");
	for (int i = 0; i < N_ACTIONS - 1; i++) {
		const struct key_row *row = &key_rows[i];
		if (strlen(row->name) != length || memcmp(row->name, line, length) != 0)
			continue;
		const char *wrong = "";
		if (bind_keys(map, row->action, line + length, &wrong) < 0)
			return fail(
				err,
				"keys: line %d: %.20s: expected a key like F5, C-x, A-1, Esc, PgUp or a character, "
				"at most %d of them",
				number, wrong, MAX_KEYS_PER_ACTION);
		take_away(map, row);
		return 0;
	}
	return fail(err, "keys: line %d: there is no action %.*s", number, (int)length, line);
}

int keymap_parse(struct keymap *map, const char *text, struct error *err)
{
	char line[512];
	for (int number = 1; *text; number++) {
		size_t length = strcspn(text, "\n");
		snprintf(line, sizeof line, "%.*s", (int)(length < sizeof line ? length : sizeof line - 1),
				 text);
		if (parse_line(map, line, number, err))
			return -1;
		text += length + (text[length] == '\n');
	}
	return 0;
}

int keymap_load(struct keymap *map, struct error *err)
{
	char *path = file_place(PLACE_CONFIG, "keys", NULL);
	if (!path || !file_exists(path)) {
		free(path);
		return 0;
	}
	struct text text = {0};
	int result = file_read(path, 1 << 20, &text, err);
	if (result == 0)
		result = keymap_parse(map, text_chars(&text), err);
	text_free(&text);
	free(path);
	return result;
}

enum action keymap_find(const struct keymap *map, int key, enum key_context context)
{
	if (key <= 0 ||
		(context == IN_PROMPT && ((key >= 32 && key < 127) || (key >= 128 && key < 256))))
		return ACTION_NONE; // text
	for (int i = 0; i < N_ACTIONS - 1; i++) {
		if (!(key_rows[i].contexts & context))
			continue;
		for (int j = 0; j < MAX_KEYS_PER_ACTION; j++)
			if (map->keys[key_rows[i].action][j] == key)
				return key_rows[i].action;
	}
	return ACTION_NONE;
}

void keymap_names(const struct keymap *map, enum action action, struct text *out)
{
	bool first = true;
	for (int i = 0; i < MAX_KEYS_PER_ACTION; i++) {
		if (!map->keys[action][i])
			continue;
		if (!first)
			text_add(out, ", ");
		key_format(map->keys[action][i], out);
		first = false;
	}
}
