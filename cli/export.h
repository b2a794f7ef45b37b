/* What the commands share that write a checkpoint: the source, progress, Ctrl-C. */
#ifndef CLI_EXPORT_H
#define CLI_EXPORT_H

#include "cli/command.h"
#include "export/child.h"

/* Shows how far a stream of bytes is: "  34%  8.10 GiB of 23.20 GiB  812 MB/s  0:18 left", at most
 * twice a second, on a terminal in one line. Asks for the end when Ctrl-C was pressed. */
struct export_progress {
	const struct cli *cli;
	uint64_t began_ns, shown_ns;
};

int export_step(void *progress, uint64_t done, uint64_t total);   // of bytes: a child_plan's step
int export_tokens(void *progress, uint64_t done, uint64_t total); // of tokens
void export_done(struct export_progress *progress, uint64_t bytes);

/* Checks what --source-checkpoint and --target-checkpoint say and opens the source. wrong: the
 * error is the user's. */
struct model *export_source(const struct cli *cli, bool *wrong, struct error *err);

/* Options of the target. */
int export_options(const struct cli *cli, struct child_plan *plan, struct error *err);

/* --precision as an enum dtype: DTYPE_F8_E4M3, DTYPE_NVFP4, or DTYPE_BF16 (also when not given). */
enum dtype export_precision(const struct cli *cli);

/* "bf16", "fp8", "nvfp4": what the source's matrices are stored in, the smallest there is. */
const char *export_stored(const struct model *model);

/* Chooses and measures what --precision and --exclude say. */
int export_quantisation(struct quantisation *quantisation, const struct cli *cli,
						const struct model *model, struct export_progress *progress,
						struct error *err);

#endif
