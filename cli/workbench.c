/* The workbench, or the line chat where there is no terminal to draw on. */
#include "cli/command.h"

#include "tui/app.h"
#include "tui/plain.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SETTINGS 16

/* The options that the workbench takes as `:set NAME VALUE`. */
static int settings_of(const struct cli *cli, struct tui_setting out[MAX_SETTINGS],
					   char numbers[MAX_SETTINGS][32])
{
	const struct {
		const char *name, *value;
	} words[] = {
		{"budget", cli_named_budget(cli)},
		{"think", cli->think},
		{"answer", cli->answer},
		{"read", cli->read},
		{"rule", cli->policy},
		{"handoff", cli->handoff},
		{"thinking", cli->no_think ? "off" : NULL},
	};
	const struct {
		const char *name;
		double value; // negative = not given
	} values[] = {
		{"seed", (double)cli->seed},
		{"temp", cli->temperature},
		{"top-p", cli->top_p},
		{"top-k", (double)cli->top_k},
		{"min-p", cli->min_p},
		{"n", (double)cli->n},
		{"think-limit", (double)cli->think_limit},
		{"pace", cli->pace},
	};
	int n = 0;
	for (size_t i = 0; i < sizeof words / sizeof *words; i++)
		if (words[i].value)
			out[n++] = (struct tui_setting){words[i].name, words[i].value};
	for (size_t i = 0; i < sizeof values / sizeof *values; i++) {
		if (values[i].value < 0)
			continue;
		snprintf(numbers[n], sizeof numbers[n], "%.17g", values[i].value);
		out[n] = (struct tui_setting){values[i].name, numbers[n]};
		n++;
	}
	return n;
}

static int parse_screen(const char *text, int *columns, int *rows, struct error *err)
{
	char rest;
	if (sscanf(text, "%dx%d%c", columns, rows, &rest) != 2 || *columns < 1 || *rows < 1 ||
		*columns > 1000 || *rows > 1000)
		return fail(err, "--size: '%s': expected WxH such as 120x40, at most 1000x1000", text);
	return 0;
}

static bool wants_plain(const struct cli *cli)
{
	const char *accessible = getenv("ACCESSIBLE");
	return cli->plain || (accessible && accessible[0] != '\0' && strcmp(accessible, "0") != 0);
}

int cli_workbench(const struct cli *cli)
{
	struct error err = {0};
	struct tui_setting settings[MAX_SETTINGS];
	char numbers[MAX_SETTINGS][32];
	struct tui_options options = {.budgets_file = cli->budgets_file,
								  .lenient = cli->lenient,
								  .settings = settings,
								  .n_settings = settings_of(cli, settings, numbers),
								  .system = cli->system,
								  .script = cli->script,
								  .theme = cli->theme,
								  .no_color = cli->no_color,
								  .tour = cli->tour};
	options.engine = (struct engine_options){.context = (int)cli->context, .warm = cli->warm};
	options.engine.backend = cli_device(cli, &options.engine.device, &err);
	if (!options.engine.backend ||
		(cli->size && parse_screen(cli->size, &options.columns, &options.rows, &err) < 0)) {
		cli_fail(&err);
		return EXIT_USAGE;
	}
	char *directory = cli_model_directory(cli, &err);
	options.directory = directory;
	int result = -1;
	bool on_terminal = tui_possible() && !wants_plain(cli);
	if (cli->tour && !on_terminal) {
		fail(&err, "--tour: the tour is drawn; it needs a terminal and no --plain");
		free(directory);
		return cli_fail(&err);
	}
	bool screen = cli->script || on_terminal;
	if (directory)
		result = screen ? tui_run(&options, &err) : plain_run(&options, &err);
	free(directory);
	if (result < 0 && err.text[0] == '\0') // the line chat has said what failed
		return EXIT_FAILED;
	return result < 0 ? cli_fail(&err) : EXIT_DONE;
}
