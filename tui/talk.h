/*
 * One chat with an engine, without a screen: the conversation, the settings of the next turn, what
 * the running turn has said so far, and what the events add up to. The workbench and the plain line
 * chat both stand on it. It owns everything in it but the engine. Panes read it and never write.
 */
#ifndef TUI_TALK_H
#define TUI_TALK_H

#include "core/engine.h"
#include "core/metrics.h"
#include "core/model.h"
#include "core/progress.h"
#include "core/reply.h"
#include "tui/branch.h"
#include "tui/tape.h"
#include "tui/transcript.h"

struct jobs;

#define MAX_TYPED 6 // typed budgets with a mark of their own

struct talk {
	struct engine *engine;    // borrowed
	int seq;                  // of the engine: whose events these are, where requests go
	struct model *model;      // retained; NULL until EV_OPENED, and in a replay
	bool replay;              // the engine plays a session: sessions/replay.h
	struct elastic *recorded; // of a replay: budgets by name alone; NULL = none
	enum math math;
	char rung[32];
	int n_threads;
	struct conversation conversation;
	struct transcript transcript;  // the same turns as they were written, token by token
	struct tape tape;              // the ids of the last turn
	struct branches branches;      // all ways that the conversation went
	int turn;                      // the engine's number of the last turn shown; -1 = none
	struct jobs *jobs;             // borrowed: for heavy work; NULL = there are none
	struct turn_settings settings; // of the next turn
	struct reply reply;            // of the last turn
	struct metrics metrics;
	struct gauges gauges;     // newest, read once a frame
	struct memory_use memory; // of the last EV_MEMORY
	bool has_memory;
	bool lab;     // :set lab on: every change of budget is taken apart
	bool opening; // REQUEST_OPEN is under way
	bool anew;    // the open model could not read the conversation, nothing was said since
	bool moving;  // :device: the open model, settings and conversation stay
	char open_with[BUDGET_NAME_BYTES]; // writes once that is open; "" = the file's first budget
	struct memory_use beside; // what other engines hold (columns of other checkpoints), see
							  // compare_memory()
	bool running;             // a turn is under way
	bool turn_begun;          // EV_TURN of it has come
	bool seed_fixed;          // the user chose it
	bool handoff_chosen;      // by the user, not by the file
	double pace;              // 0 = as fast as it goes
	bool pace_chosen;         // by the user, not by the size of the model
	bool paused;
	/* The text of a turn that ended before its first token: it left the conversation again, and the
	 * owner may offer it for another try (and empties this). */
	struct text taken_back;
	bool retried;                             // the turn that runs answers a message again
	char typed[MAX_TYPED][BUDGET_NAME_BYTES]; // widths that have written, by their text
	int n_typed;
	struct text notice;       // the newest message for the user, one line
	uint64_t notices;         // how many there have been
	struct progress progress; // long work
};

void talk_init(struct talk *talk, struct engine *engine);
void talk_free(struct talk *talk); // takes {0}; not the engine

/* Takes one event: model, metrics, reply, transcript, conversation. */
void talk_event(struct talk *talk, const struct event *event);
void talk_gauges(struct talk *talk);                    // reads the newest
struct memory_use talk_memory(const struct talk *talk); // of the last EV_MEMORY, and beside

/* What the user should know, in the notice line. */
void talk_say(struct talk *talk, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* :device: the open model goes on there, and reads the conversation again with the next turn. */
int talk_device(struct talk *talk, const char *device, struct error *err);
int talk_open(struct talk *talk, const char *directory, const char *budgets_file, bool lenient,
			  struct error *err);
int talk_send(struct talk *talk, const char *text, size_t length, struct error *err);
int talk_stop(struct talk *talk, struct error *err);
int talk_end_thinking(struct talk *talk, struct error *err);
int talk_retry(struct talk *talk, struct error *err);
/* Takes the last user message back; its text is appended to `out` (may be NULL). */
int talk_undo(struct talk *talk, struct text *out, struct error *err);
int talk_new(struct talk *talk, struct error *err);
int talk_pace(struct talk *talk, double tokens_per_second, struct error *err);
int talk_pause(struct talk *talk, bool pause, struct error *err);
int talk_step(struct talk *talk, struct error *err);
/* Tells the engine about talk->settings, for what is running and for the next turn. */
int talk_settings_changed(struct talk *talk, struct error *err);

/* The open model's budgets, or the replayed session's (names only); NULL = none. */
const struct elastic *talk_elastic(const struct talk *talk);

/* The budget that reads next: of the running phase, or the one that would begin. */
const char *talk_budget_name(const struct talk *talk);
/* Index in elastic.budgets of a budget's name, or -1 (typed widths, no model). */
int talk_budget_index(const struct talk *talk, const char *name);
/* Who writes or reads: a budget of the file, then typed widths in the order they appeared, which
 * keep their number for the session; -1 = one too many. */
int talk_writer_index(struct talk *talk, const char *name);
int talk_find_writer(const struct talk *talk, const char *name);   // -1: it has not appeared, too
char talk_mark(const struct talk *talk, int writer);               // its letter; '~' for -1
const char *talk_writer_name(const struct talk *talk, int writer); // "typed" for -1
/* Of the budget that a PREFILL, TOKEN or SWITCH (to) names; -1 for others. */
int talk_event_writer(struct talk *talk, const struct event *event);

/* This budget (a name or typed widths) writes from the next token on; the policy goes off. */
int talk_choose_budget(struct talk *talk, const char *name, struct error *err);
int talk_use_budget(struct talk *talk, const char *name, const struct budget *budget,
					struct error *err); // a resolved one
/* 0 if the open model has such a budget; what it is, budget_free() it. A target is searched for. */
int talk_check_budget(const struct talk *talk, const char *name, struct error *err);
int talk_resolve_budget(const struct talk *talk, const char *name, struct budget *budget,
						struct error *err);

/* The conversation as Markdown. */
void talk_write(const struct talk *talk, struct text *out);

#endif
