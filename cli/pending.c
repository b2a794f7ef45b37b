/* Commands whose files have not landed: each leaves this file when it does. */
#include "cli/command.h"
#include <stdio.h>

#define PENDING(command_function)                                                                  \
	int command_function(const struct cli *cli)                                                    \
	{                                                                                              \
		fprintf(stderr, "elastiscope: %s: pending\n", cli->command->name);                         \
		return EXIT_FAILED;                                                                        \
	}

PENDING(cli_chat)
PENDING(cli_complete)
