#include "cli/export.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/size.h"
#include "cli/run.h"
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SHOW_NS 500000000u

/* Whether it is time to show the next line. */
static bool is_due(struct export_progress *p)
{
	uint64_t now = clock_ns();
	if (!p->began_ns)
		p->began_ns = p->shown_ns = now;
	if (p->cli->quiet || now - p->shown_ns < SHOW_NS)
		return false;
	p->shown_ns = now;
	return true;
}

static void show(const struct export_progress *p, uint64_t done, uint64_t total, const char *what)
{
	bool terminal = isatty(STDERR_FILENO);
	double rate = (double)done / ((double)(p->shown_ns - p->began_ns) / 1e9);
	unsigned left = (unsigned)((double)(total - done) / rate);
	fprintf(stderr, "%s%3.0f%%  %s  %u:%02u left%s", terminal ? "\r" : "",
			100.0 * (double)done / (double)total, what, left / 60, left % 60,
			terminal ? "  " : "\n");
}

int export_step(void *user, uint64_t done, uint64_t total)
{
	struct export_progress *p = user;
	char a[32], b[32], text[128];
	if (is_due(p)) {
		double seconds = (double)(p->shown_ns - p->began_ns) / 1e9;
		snprintf(text, sizeof text, "%s of %s  %.0f MB/s", size_text(done, a), size_text(total, b),
				 (double)done / seconds / 1e6);
		show(p, done, total, text);
	}
	return run_interrupted();
}

int export_tokens(void *user, uint64_t done, uint64_t total)
{
	char text[64];
	if (is_due(user)) {
		snprintf(text, sizeof text, "%llu of %llu tokens", (unsigned long long)done,
				 (unsigned long long)total);
		show(user, done, total, text);
	}
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
	plan->version = ELASTISCOPE_VERSION;
	if (cli->shard_size && size_parse(cli->shard_size, &plan->max_shard_bytes, err) != 0)
		return fail_in(err, "--max-shard-size");
	signal(SIGXFSZ, SIG_IGN); // a file that may not grow is an error like a full disk
	run_catch_interrupt();
	return 0;
}

enum dtype export_precision(const struct cli *cli)
{
	if (!cli->precision || strcmp(cli->precision, "bf16") == 0)
		return DTYPE_BF16;
	return strcmp(cli->precision, "fp8") == 0 ? DTYPE_F8_E4M3 : DTYPE_NVFP4;
}

const char *export_stored(const struct model *model)
{
	const char *found = "bf16";
	for (size_t i = 0; i < model->checkpoint.n_tensors; i++) {
		const char *dot = strrchr(model->checkpoint.tensors[i].name, '.');
		if (dot && strcmp(dot, ".weight_scale_2") == 0)
			return "nvfp4";
		if (dot && strcmp(dot, ".weight_scale") == 0)
			found = "fp8";
	}
	return found;
}

int export_quantisation(struct quantisation *quantisation, const struct cli *cli,
						const struct model *model, struct export_progress *progress,
						struct error *err)
{
	struct quantisation_plan plan = {.model = model,
									 .format = export_precision(cli),
									 .exclude = cli->exclude.items,
									 .n_exclude = cli->exclude.n,
									 .step = export_step,
									 .user = progress};
	return quantisation_open(quantisation, &plan, err);
}
