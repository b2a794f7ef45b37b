/* Help is made from the tables of keys, commands and settings, so that it cannot rot. */
#include "tui/setting.h"
#include "tui/state.h"
#include <string.h>

static void keys_help(const struct keymap *map, struct text *out)
{
	if (!map)
		return;
	text_add(out, "KEYS\n");
	for (int i = 0; i < N_ACTIONS - 1; i++) {
		struct text keys = {0};
		keymap_names(map, key_rows[i].action, &keys);
		if (keys.length > 0 && !strstr(key_rows[i].name, "view-"))
			text_format(out, "  %-12s %-6s %s\n", text_chars(&keys),
						key_rows[i].contexts == ANYWHERE    ? ""
						: key_rows[i].contexts == IN_PROMPT ? "prompt"
															: "view",
						key_rows[i].help);
		text_free(&keys);
	}
	text_add(out,
			 "  Keys are changed in elastiscope/keys under $XDG_CONFIG_HOME, a line each: ACTION "
			 "KEY ...\n\nVIEWS\n");
	for (int i = 0; i < n_panes; i++)
		text_format(out, "  %c %-11s %s\n", panes[i].key, panes[i].label, panes[i].help);
}

static void commands_help(bool screen, struct text *out)
{
	text_add(out, "\nCOMMANDS (a line that begins with a colon; :: sends a colon)\n");
	for (int i = 0; i < n_commands; i++)
		if (screen || !commands[i].needs_screen)
			text_format(out, "  :%-11s %-22s %s\n", commands[i].name, commands[i].arguments,
						commands[i].help);
}

static void settings_help(struct text *out)
{
	text_add(out, "\nSETTINGS (:set NAME VALUE)\n");
	for (int i = 0; i < n_settings; i++)
		text_format(out, "  %-11s %-16s %s\n", settings[i].name, settings[i].values,
					settings[i].help);
}

static const char memory_help[] =
	"  Of the status line, in MB: w = weights of all budgets as they are mapped, kv = keys and "
	"values of attention, ssm = Mamba's states, x = scratch; MB/tok = weights that one token of "
	"the running budget reads; RSS or VRAM = all of the process\n";

static bool one_help(const char *topic, struct text *out)
{
	for (int i = 0; i < n_commands; i++)
		if (strcmp(commands[i].name, topic + (*topic == ':')) == 0)
			text_format(out, ":%s %s\n  %s\n", commands[i].name, commands[i].arguments,
						commands[i].help);
	const struct setting *setting = setting_find(topic);
	if (setting)
		text_format(out, ":set %s %s\n  %s\n", setting->name, setting->values, setting->help);
	return out->length > 0;
}

void help_text(const struct keymap *map, const char *topic, struct text *out)
{
	if (strcmp(topic, "keys") == 0 && map) {
		keys_help(map, out);
	} else if (strcmp(topic, "commands") == 0) {
		commands_help(map != NULL, out);
	} else if (strcmp(topic, "settings") == 0) {
		settings_help(out);
	} else if (!*topic || !one_help(topic, out)) {
		if (*topic)
			text_format(out, "There is no help on '%s'.\n\n", topic);
		keys_help(map, out);
		commands_help(map != NULL, out);
		settings_help(out);
		text_format(out, "\nNUMBERS\n  %s\n", metrics_formula);
		text_add(out, memory_help);
	}
}
