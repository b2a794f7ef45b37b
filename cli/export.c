#include "cli/export.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/size.h"
#include "cli/run.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define SHOW_NS 500000000u

int export_step(void *user, uint64_t done, uint64_t total)
{
	struct export_progress *p = user;
	uint64_t now = clock_ns();
	char a[32], b[32];
	if (!p->began_ns)
		p->began_ns = p->shown_ns = now;
	double seconds = (double)(now - p->began_ns) / 1e9;
	if (p->cli->quiet || now - p->shown_ns < SHOW_NS || seconds <= 0)
		return run_interrupted();
	p->shown_ns = now;
	double rate = (double)done / seconds;
	unsigned left = (unsigned)((double)(total - done) / rate);
	bool terminal = isatty(STDERR_FILENO);
	fprintf(stderr, "%s%3.0f%%  %s of %s  %.0f MB/s  %u:%02u left%s", terminal ? "\r" : "",
			100.0 * (double)done / (double)total, size_text(done, a), size_text(total, b),
			rate / 1e6, left / 60, left % 60, terminal ? "  " : "\n");
	return run_interrupted();
}

void export_done(struct export_progress *p, uint64_t bytes)
{
	char text[32];
	double seconds = p->began_ns ? (double)(clock_ns() - p->began_ns) / 1e9 : 0;
	if (p->cli->quiet)
		return;
	if (p->shown_ns != p->began_ns && isatty(STDERR_FILENO))
		fprintf(stderr, "\r\33[K");
	fprintf(stderr, "%s in %.1f s", size_text(bytes, text), seconds);
	if (seconds > 0.05)
		fprintf(stderr, " (%.0f MB/s)", (double)bytes / seconds / 1e6);
	fputc('\n', stderr);
}

struct model *export_source(const struct cli *cli, bool *wrong, struct error *err)
{
	*wrong = true;
	if (!cli->target)
		return fail(err, "%s: expected --target-checkpoint DIR", cli->command->name), NULL;
	if (cli->source && cli->source[0] == '\0')
		return fail(err, "--source-checkpoint is '', expected a directory"), NULL;
	*wrong = false;
	struct cli source = *cli;
	source.model = cli->source;
	char *directory = cli_model_directory(&source, err);
	struct model_options options = {.budgets_file = cli->budgets_file};
	struct model *model = directory ? model_open(directory, &options, err) : NULL;
	free(directory);
	if (model && !cli->quiet && model->notices.length > 0)
		fprintf(stderr, "%s", text_chars(&model->notices));
	return model;
}

int export_options(const struct cli *cli, struct child_plan *plan, struct error *err)
{
	plan->target = cli->target;
	plan->force = cli->force;
	plan->elastic = cli->elastic;
	if (cli->shard_size && size_parse(cli->shard_size, &plan->max_shard_bytes, err) != 0)
		return fail_in(err, "--max-shard-size");
	signal(SIGXFSZ, SIG_IGN); // a file that may not grow is an error like a full disk
	run_catch_interrupt();
	return 0;
}
