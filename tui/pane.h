/*
 * A pane is a table of five functions and what it shows. The app opens each pane once, tells all of
 * them about every event, draws only those that are visible and dirty, and gives keys to the one
 * that has the focus. A pane lives in the UI thread, reads `talk` and never waits for the model.
 *
 * A new pane: `struct pane *pane_NAME_open(const struct talk *, struct error *)` in pane_NAME.c and
 * one row in panes[] (panes.c). Its own struct begins with `struct pane`.
 */
#ifndef TUI_PANE_H
#define TUI_PANE_H

#include "base/error.h"
#include "base/text.h"
#include "core/event.h"
#include "tui/canvas.h"
#include "tui/keys.h"
#include "tui/talk.h"

struct job;
struct pane_more;

struct pane {
	const struct pane_table *table;
	const struct pane_more *more; // NULL = it neither sends nor computes
	const struct talk *talk;      // model, metrics, gauges, engine ...; borrowed
	bool dirty;                   // set it for a redraw; a draw that sets it is drawn once more
	char search[128];  // what `/` asked for, "" = nothing; ACTION_SEARCH tells that it changed
	bool focused;      // keys go here
	char message[160]; // what the notice line should say; the app takes it and clears it
	char command[384]; // what the app should run, as if typed after a colon; taken and cleared
};

struct pane_table {
	/* An event happened; called after talk has taken it, also while the pane is hidden: be quick.
	 */
	void (*event)(struct pane *pane, const struct event *event);
	/* The canvas is blank and may have any size from 1 x 1 up. */
	void (*draw)(struct pane *pane, struct canvas *canvas);
	/* An action of the key table (or ACTION_NONE and the key itself, for digits and letters that no
	 * row has). True = taken. */
	bool (*action)(struct pane *pane, enum action action, int key);
	/* Appends what the title line says after the name: counts, filter, where numbers come from.
	 * NULL = no more. */
	void (*title)(const struct pane *pane, struct text *out);
	void (*close)(struct pane *pane);
};

/* What panes of experiments can do besides; each may be NULL. */
struct pane_more {
	/* The prompt's text while this pane is the view; NULL = it goes to the conversation. */
	int (*send)(struct pane *pane, const char *text, size_t length, struct error *err);
	/* Ctrl-C: ends what is being written for the pane; false = nothing is. */
	bool (*stop)(struct pane *pane);
	bool (*busy)(const struct pane *pane); // something is being written or computed for it
	/* A job has ended. True: it was the pane's own, which frees it in its time. */
	bool (*job)(struct pane *pane, struct job *job);
	/* Descriptors of engines of its own: at most `max` into fds; returns how many. */
	int (*watch)(const struct pane *pane, int *fds, int max);
	void (*wake)(struct pane *pane); // called once a loop; takes what they have
	/* The command that `w` begins in the prompt; NULL, or returning it = :save-screen. */
	const char *(*write)(const struct pane *pane);
};

struct pane_row {
	char key;          // '1'
	const char *name;  // "nesting": for :view, :split
	const char *label; // "Nesting": in the title bar
	const char *help;  // one line
	struct pane *(*open)(const struct talk *talk, struct error *err);
};

extern const struct pane_row panes[]; // chat first
extern const int n_panes;

int pane_find(const char *name); // index in panes[], or -1; a unique beginning will do

/* Scrolling that all list-like panes share: a top line that follows g G j k PgUp PgDn C-d C-u.
 * Returns whether the action was one of them. */
bool pane_scroll(int *top, int n_lines, int rows, enum action action);

struct pane *pane_chat_open(const struct talk *talk, struct error *err);
struct pane *pane_nesting_open(const struct talk *talk, struct error *err);
struct pane *pane_importance_open(const struct talk *talk, struct error *err);
struct pane *pane_router_open(const struct talk *talk, struct error *err);
struct pane *pane_experts_open(const struct talk *talk, struct error *err);
struct pane *pane_compare_open(const struct talk *talk, struct error *err);
struct pane *pane_tokens_open(const struct talk *talk, struct error *err);
struct pane *pane_metrics_open(const struct talk *talk, struct error *err);

#endif
