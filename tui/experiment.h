/* The commands of the experiments: budgets side by side, branches. Rows of the command table. */
#ifndef TUI_EXPERIMENT_H
#define TUI_EXPERIMENT_H

#include "tui/command.h"

int run_compare(struct command_context *context, const char *arguments, bool forced,
				struct error *err);
int run_keep(struct command_context *context, const char *arguments, bool forced,
			 struct error *err);
int run_branch(struct command_context *context, const char *arguments, bool forced,
			   struct error *err);

int run_lab(struct command_context *context, const char *arguments, bool forced, struct error *err);
int run_study(struct command_context *context, const char *arguments, bool forced,
			  struct error *err);
int run_target(struct command_context *context, const char *arguments, bool forced,
			   struct error *err);
int run_scores(struct command_context *context, const char *arguments, bool forced,
			   struct error *err);
int run_calibrate(struct command_context *context, const char *arguments, bool forced,
				  struct error *err);
int run_agreement(struct command_context *context, const char *arguments, bool forced,
				  struct error *err);

#endif
