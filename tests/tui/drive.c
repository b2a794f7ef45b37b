/*
 * A driver for the terminal's tests: the workbench with a played or the real engine, as tests ask
 * for it.
 *
 *     drive [--play] [--script FILE] [--size WxH] [--theme NAME] [--no-color] [--tour] [--plain]
 * [--print-tour]
 * [--set NAME=VALUE] [--ctx N] [DIR]
 */
#include "base/file.h"
#include "tests/tui/play.h"
#include "tui/app.h"
#include "tui/plain.h"
#include "tui/steps.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SETTINGS 16

static const char *value(int argc, char **argv, int *i)
{
	if (*i + 1 >= argc) {
		fprintf(stderr, "drive: %s wants a value\n", argv[*i]);
		exit(2);
	}
	return argv[++*i];
}

int main(int argc, char **argv)
{
	static struct tui_setting settings[MAX_SETTINGS];
	struct tui_options options = {.settings = settings, .engine.backend = &backend_cpu};
	struct error err = {0};
	bool plain = false;
	options.engine.device.n_threads = 2;
	options.engine.device.math = MATH_FAST;
	options.engine.device.kv_dtype = DTYPE_F32;
	for (int i = 1; i < argc; i++) {
		if (strcmp(argv[i], "--play") == 0)
			options.open_engine = play_open;
		else if (strcmp(argv[i], "--script") == 0)
			options.script = value(argc, argv, &i);
		else if (strcmp(argv[i], "--theme") == 0)
			options.theme = value(argc, argv, &i);
		else if (strcmp(argv[i], "--no-color") == 0)
			options.no_color = true;
		else if (strcmp(argv[i], "--term") == 0)
			setenv("TERM", value(argc, argv, &i), 1);
		else if (strcmp(argv[i], "--print-tour") == 0)
			return fputs(tour_text, stdout) < 0;
		else if (strcmp(argv[i], "--tour") == 0)
			options.tour = true;
		else if (strcmp(argv[i], "--ctx") == 0)
			options.engine.context = atoi(value(argc, argv, &i));
		else if (strcmp(argv[i], "--plain") == 0)
			plain = true;
		else if (strcmp(argv[i], "--size") == 0)
			sscanf(value(argc, argv, &i), "%dx%d", &options.columns, &options.rows);
		else if (strcmp(argv[i], "--set") == 0 && options.n_settings < MAX_SETTINGS) {
			char *name = strdup(value(argc, argv, &i)), *equals = strchr(name, '=');
			if (equals)
				*equals = 0;
			settings[options.n_settings++] = (struct tui_setting){name, equals ? equals + 1 : ""};
		} else
			options.directory = argv[i];
	}
	char *demo = options.directory ? NULL : file_shared("demo", &err);
	if (demo)
		options.directory = demo;
	int result =
		options.directory ? (plain ? plain_run(&options, &err) : tui_run(&options, &err)) : -1;
	if (result && err.text[0])
		fprintf(stderr, "drive: %s\n", err.text);
	play_close();
	free(demo);
	for (int i = 0; i < options.n_settings; i++)
		free((char *)settings[i].name);
	return result ? 1 : 0;
}
