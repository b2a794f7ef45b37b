/* The commands of the mask debugger. Rows of the command table. */
#ifndef TUI_MASK_COMMAND_H
#define TUI_MASK_COMMAND_H

#include "tui/command.h"

int run_mask(struct command_context *context, const char *arguments, bool forced,
			 struct error *err);
int run_probe(struct command_context *context, const char *arguments, bool forced,
			  struct error *err);
int run_bisect(struct command_context *context, const char *arguments, bool forced,
			   struct error *err);
int run_against(struct command_context *context, const char *arguments, bool forced,
				struct error *err);

#endif
