/* Completion of commands, settings, budgets and names, out of the tables. */
#include "tui/command.h"
#include "tui/setting.h"
#include "tui/state.h"
#include <stdlib.h>
#include <string.h>

struct words { // of the line up to the cursor
	char command[64], first[64];
	int n_before;     // whole words before the one at the cursor
	const char *last; // the word at the cursor, may be ""
};

static void split(const char *line, struct words *out)
{
	*out = (struct words){.last = line};
	for (const char *at = line; *at;) {
		size_t length = strcspn(at, " \t");
		if (!at[length]) { // the cursor is in this word
			out->last = at;
			return;
		}
		char *to = out->n_before == 0 ? out->command : out->n_before == 1 ? out->first : NULL;
		if (to)
			snprintf(to, sizeof out->command, "%.*s", (int)(length < 63 ? length : 63), at);
		out->n_before++;
		at += length + strspn(at + length, " \t");
		out->last = at;
	}
}

static const struct command *command_of(const char *word)
{
	size_t length = strcspn(word, "!");
	for (int i = 0; word[0] == ':' && i < n_commands; i++)
		if (strlen(commands[i].name) == length - 1 &&
			strncmp(commands[i].name, word + 1, length - 1) == 0)
			return &commands[i];
	return NULL;
}

static enum complete_kind kind_of(const struct words *words)
{
	const struct command *command = command_of(words->command);
	if (!command || words->n_before == 0)
		return COMPLETE_NOTHING;
	if (words->n_before == 1 || (command->completes == COMPLETE_BUDGET && words->n_before <= 3))
		return command->completes; // :compare names up to three budgets
	const struct setting *setting = setting_find(words->first);
	return command->completes == COMPLETE_SETTING && words->n_before == 2 && setting
			   ? setting->completes
			   : COMPLETE_NOTHING;
}

/* The i-th name of a kind, whatever its beginning. */
static const char *name_of_kind(const struct talk *talk, enum complete_kind kind, int i)
{
	static const char *const on_off[] = {"on", "off"},
							 *const handoffs[] = {"carry", "reprefill", "repair:16"},
							 *const topics[] = {"keys", "commands", "settings"};
	switch (kind) {
	case COMPLETE_BUDGET:
		return talk->model && i < talk->model->elastic.n_budgets
				   ? talk->model->elastic.budgets[i].name
				   : NULL;
	case COMPLETE_SETTING: return i < n_settings ? settings[i].name : NULL;
	case COMPLETE_THEME: return theme_bundled(i);
	case COMPLETE_VIEW: return i < n_panes ? panes[i].name : NULL;
	case COMPLETE_ON_OFF: return i < 2 ? on_off[i] : NULL;
	case COMPLETE_HANDOFF: return i < 3 ? handoffs[i] : NULL;
	case COMPLETE_TOPIC:
		return i < 3 ? topics[i] : i - 3 < n_commands ? commands[i - 3].name : NULL;
	default: return NULL;
	}
}

enum path_kind command_path(const char *line)
{
	struct words words;
	split(line, &words);
	enum complete_kind kind = kind_of(&words);
	return kind == COMPLETE_FILE ? PATH_FILE : kind == COMPLETE_FOLDER ? PATH_FOLDER : PATH_NONE;
}

char *command_complete(const struct talk *talk, const char *line, int i, int *start)
{
	struct words words;
	split(line, &words);
	*start = (int)(words.last - line);
	bool names = words.n_before == 0; // of commands, with the colon
	if (line[0] != ':')
		return NULL;
	enum complete_kind kind = kind_of(&words);
	const char *typed = words.last + names;
	int found = 0;
	for (int j = 0;; j++) {
		const char *name =
			names ? (j < n_commands ? commands[j].name : NULL) : name_of_kind(talk, kind, j);
		if (!name)
			return NULL;
		if (strncmp(name, typed, strlen(typed)) != 0 || found++ < i)
			continue;
		char *match = malloc(strlen(name) + 2);
		if (match)
			sprintf(match, "%s%s", names ? ":" : "", name);
		return match;
	}
}
