/*
 * What was recorded, in the workbench and the line chat: a session log that is replayed through the
 * talk without a model, one that is taken up again, the list of all.
 */
#ifndef TUI_RECALL_H
#define TUI_RECALL_H

#include "tui/command.h"

/* In a replay: takes what a live talk knows from itself (the user's messages, turns, budgets'
 * names). */
void recall_event(struct talk *talk, const struct event *event);
void recall_free(struct talk *talk);

/* `:sessions [TEXT]` and `:resume FILE|NUMBER`. */
int recall_sessions(struct command_context *context, const char *text, bool forced,
					struct error *err);
int recall_resume(struct command_context *context, const char *name, bool forced,
				  struct error *err);

#endif
