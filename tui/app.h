/*
 * The workbench: one UI thread, one poll() over the terminal, signals, the engine and a timer.
 * tui_run() owns the terminal from the first paint until it returns, and gives it back on every way
 * out.
 */
#ifndef TUI_APP_H
#define TUI_APP_H

#include "base/error.h"
#include "core/engine.h"

struct tui_setting { // as `:set NAME VALUE` takes them; applied when the model is open
	const char *name, *value;
};

struct tui_measured { // what drawing cost, for bench
	int frames;
	uint64_t draw_ns;        // over the frames
	uint64_t first_paint_ns; // from tui_run() to the first frame on the terminal
	uint64_t waited_ns[2];   // from Enter to the first token there: first and last turn, 0 = none
};

struct tui_options {
	const char *directory;    // the checkpoint
	const char *budgets_file; // NULL = the checkpoint's own
	bool lenient;
	struct engine_options engine; // record is set by tui_run(): the session log
	/* NULL = engine_local_open; tests bring their own. */
	struct engine *(*open_engine)(const struct engine_options *options, struct error *err);
	const struct tui_setting *settings; // (n_settings): budget, think, answer, temp, seed, pace ...
	int n_settings;
	const char *system;            // system text, NULL = none
	const char *script;            // NULL = none; runs without a terminal too
	const char *steps;             // the same as text
	struct tui_measured *measured; // filled when tui_run() returns; NULL = not wanted
	int rows, columns;             // --size; 0 = the terminal's
	const char *theme;             // NULL = "default"
	bool no_color;                 // the flag; the environment is looked at here
	bool tour;
	bool replay; // open_engine plays a session (sessions/replay.h): no model, nobody answers
	bool no_log; // record nothing
	const char *log_directory; // NULL = $XDG_DATA_HOME/elastiscope/sessions
};

/* 0, or -1 with one sentence (a script's step that failed, a terminal that can't be opened). */
int tui_run(const struct tui_options *options, struct error *err);

/* Whether the workbench can run here: stdin and stdout are terminals and TERM is not "dumb" or
 * empty. */
bool tui_possible(void);

#endif
