/*
 * The workbench's state, for the files that make it up: app.c (loop), view.c (what is on the
 * screen), actions.c (what keys do), commands and scripts. One struct, one owner: the UI thread.
 */
#ifndef TUI_STATE_H
#define TUI_STATE_H

#include "sessions/log.h"
#include "tui/app.h"
#include "tui/command.h"
#include "tui/input.h"
#include "tui/layout.h"
#include "tui/line.h"
#include "tui/pane.h"
#include "tui/screen.h"
#include "tui/showcase.h"
#include "tui/steps.h"

#define MAX_PANES 8

enum focus { FOCUS_PROMPT, FOCUS_VIEW };
enum prompt_mode { PROMPT_CHAT, PROMPT_COMMAND, PROMPT_SEARCH };

struct app {
	const struct tui_options *options;
	struct talk talk;
	struct session_log *log;
	struct screen screen;
	struct theme theme;
	struct keymap keymap;
	struct input input;
	struct layout layout;
	struct pane *panes[MAX_PANES];
	int view;          // index in panes[]
	int split;         // companion pane's index, -1 = none
	bool split_chosen; // by the user: it shows before anything was said, too
	bool maximised;
	enum focus focus;
	enum prompt_mode prompt_mode;
	struct text draft;   // the prompt's text while a command or a search is typed
	struct text overlay; // help and lists over the view; "" = none
	int overlay_top, overlay_lines;
	int overlay_hit; // line of the last search hit, -1 = none
	char overlay_search[128];
	enum focus overlay_from; // where the focus goes back to
	char overlay_title[64];
	bool returned;           // the prompt's text is one that was taken back, untouched
	int matches_page;        // of the completions, where they do not fit
	bool asking;             // "quit?": the next key answers, or it lapses
	uint64_t asked_ns;       // when
	uint64_t interrupted_ns; // the last Ctrl-C
	uint64_t offer;          // the notice that says what another one does, 0 = it is gone
	struct showcase *showcase;
	int offered; // showcase prompt that stands in the prompt, -1 = none
	struct steps *steps;
	bool tour;   // steps are the tour: any key ends it
	bool no_log; // the log could not even be opened
	bool quit;
	bool failed; // error says why
	struct error error;
	bool dirty;  // all of the screen
	bool wanted; // a frame
	bool urgent; // a key was pressed: now
	uint64_t last_frame_ns;
	int n_opened; // models
	int n_frames;
	uint64_t draw_ns;      // spent drawing
	uint64_t painted_ns;   // when the first frame was on the terminal
	uint64_t entered_ns;   // when Enter was pressed, 0 once the first token behind it is shown
	bool answered;         // it is there, not shown yet
	uint64_t waited_ns[2]; // from Enter to the first token on the terminal: first and last turn
};

/* app.c */
void app_suspend(struct app *app);

/* view.c */
int view_show(struct app *app, const char *name, struct error *err);
int view_split(struct app *app, const char *name, struct error *err); // "off" = none
int view_theme(struct app *app, const char *name, struct error *err);
void view_overlay(struct app *app, const char *title, const char *text);
void view_overlay_close(struct app *app);
void view_overlay_search(struct app *app, int direction); // for overlay_search
void view_text(struct app *app, struct text *out);        // the screen as text, drawn first
void view_draw(struct app *app);                          // one frame
void view_redraw(struct app *app);                        // from nothing: Ctrl-L
void view_resize(struct app *app, int rows, int columns);
struct pane *view_pane(struct app *app);

/* actions.c */
void app_key(struct app *app, int key);
void app_paste(struct app *app, const char *text, size_t length, bool cut);
void app_accept(struct app *app, const char *line); // Enter in the prompt; NULL = Ctrl-D
void app_run_command(struct app *app, const char *line);
bool app_return(struct app *app, const char *text); // into the prompt, if that is empty
uint64_t app_due(const struct app *app); // when a question or an offer lapses, 0 = there is none
void app_lapse(struct app *app, uint64_t now);
bool app_end_tour(struct app *app); // the user did something: false if there was none

/* help.c */
void help_text(const struct keymap *map, const char *topic, struct text *out);

#endif
