/* What `compare` and `tokens` read: a prompt that is rendered as chat does, a file of text, or ids.
 * Of a checkpoint without a tokenizer prompts and files list ids, too. */
#ifndef CLI_SOURCE_H
#define CLI_SOURCE_H

#include "cli/command.h"

/* The sentence is wrong usage: not exactly one of -p TEXT, --text FILE and --tokens. */
int source_check(const struct cli *cli, struct error *err);

/* Its ids, one at least; of -p they end where the answer begins. free(*ids), on -1 too. */
int source_ids(const struct cli *cli, const struct model *model, int32_t **ids, int *n,
			   struct error *err);

#endif
