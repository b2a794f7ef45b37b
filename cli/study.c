/*
 * `study --tasks FILE`: every task in every cell of the grid. Rows go to --csv FILE as they come,
 * so that a study that was stopped goes on; the table, the plot or --json go to stdout at the end.
 */
#include "cli/study.h"
#include "base/clock.h"
#include "base/memory.h"
#include "cli/run.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TERMINAL_NS 200000000u // between two lines of progress, overwritten
#define LOG_NS 10000000000u    // the same where stderr is no terminal

struct run {
	const struct cli *cli;
	struct model *model;
	struct engine *engine;
	struct event opened; // what it says about the device decides rows too
	struct study_plan plan;
	uint64_t began_ns, shown_ns;
	bool shown; // a line of progress stands on the terminal
};

/* EV_OPENED passes here on its way. */
static int record(void *user, const struct event *event, struct error *err)
{
	struct run *run = user;
	(void)err;
	if (event->type == EV_OPENED)
		run->opened = *event;
	return 0;
}

static void end_line(struct run *run)
{
	if (run->shown)
		fputs("\r\033[K", stderr);
	run->shown = false;
}

static void note(void *user, const char *sentence)
{
	struct run *run = user;
	end_line(run);
	if (!run->cli->quiet)
		fprintf(stderr, "elastiscope: %s\n", sentence);
}

static bool cancelled(void *user)
{
	(void)user;
	return run_interrupted();
}

static void progress(struct run *run, const struct study *study)
{
	uint64_t now = clock_ns();
	bool terminal = isatty(STDERR_FILENO);
	size_t all = study->tasks->n * study->n_cells, ran = study->n_done - study->n_had;
	if (run->cli->quiet || now - run->shown_ns < (terminal ? TERMINAL_NS : LOG_NS))
		return;
	run->shown_ns = now;
	double rate = (double)ran * 1e9 / (double)(now - run->began_ns);
	double left = rate > 0 ? (double)(all - study->n_done) / rate : 0;
	fprintf(stderr, "%s%zu of %zu answers, %.1f/s, %d:%02d left%s", terminal ? "\r" : "",
			study->n_done, all, rate, (int)(left / 60), (int)left % 60, terminal ? "\033[K" : "\n");
	run->shown = terminal;
}

static int on_row(void *user, const struct study *study, size_t task, size_t cell,
				  struct error *err)
{
	struct run *run = user;
	progress(run, study);
	return run->plan.file ? study_file_add(run->plan.file, study, task, cell, err) : 0;
}

/* An option's value as a list of budgets; widths and rules, which may have commas, are one value.
 */
static int add_option(struct run *run, const char *option, const char *value, enum grid_axis axis,
					  struct error *err)
{
	struct text list = {0};
	bool one = axis == GRID_POLICY || strchr(value, '=') != NULL;
	text_format(&list, one ? "{%s}" : "%s", value);
	int result = text_check(&list, err) || grid_add(&run->plan.grid, axis, text_chars(&list), err);
	text_free(&list);
	return result ? fail_in(err, "--%s", option) : 0;
}

/* The options that name one axis each, beside --grid. */
static int read_grid(struct run *run, struct error *err)
{
	const struct cli *cli = run->cli;
	const char *named = cli_named_budget(cli);
	struct {
		const char *option, *value;
		enum grid_axis axis;
	} options[] = {
		{"think", cli->no_think ? GRID_OFF : cli->think, GRID_THINK},
		{"answer", cli->answer, GRID_ANSWER},
		{"read", cli->read, GRID_READ},
		{"handoff", cli->handoff, GRID_HANDOFF},
		{"policy", cli->policy, GRID_POLICY},
	};
	for (size_t i = 0; i < sizeof options / sizeof options[0]; i++)
		if (options[i].value &&
			add_option(run, options[i].option, options[i].value, options[i].axis, err))
			return -1;
	for (size_t i = 0; i < cli->grid.n; i++)
		if (grid_parse(&run->plan.grid, cli->grid.items[i], err))
			return fail_in(err, "--grid");
	for (int axis = GRID_THINK; named && axis <= GRID_ANSWER; axis++) // -b: these two
		if (run->plan.grid.values[axis].n == 0 &&
			grid_add(&run->plan.grid, (enum grid_axis)axis, named, err))
			return fail_in(err, "--budget");
	char limit[32];
	snprintf(limit, sizeof limit, "%lld", (long long)cli->think_limit);
	if (cli->think_limit > 0 && grid_add(&run->plan.grid, GRID_LIMIT, limit, err))
		return -1;
	return 0;
}

static int prepare(struct run *run, struct error *err)
{
	const struct cli *cli = run->cli;
	struct turn_settings settings;
	struct cli plain = *cli; // the grid decides about budgets
	plain.think = plain.answer = plain.read = plain.policy = plain.handoff = plain.budget = NULL;
	if (plain.seed < 0)
		plain.seed = 0; // greedy or not, a study is to be repeated
	struct tasks *tasks = &run->plan.tasks;
	if (study_plan_tasks(&run->plan, cli->tasks, cli->limit > 0 ? (size_t)cli->limit : 0, err) ||
		read_grid(run, err))
		return -1;
	if (tasks->n_broken > 0 && !cli->quiet)
		fprintf(stderr, "elastiscope: left out %d lines:\n%s", tasks->n_broken,
				text_chars(&tasks->broken));
	run->engine = cli_open_engine(cli, record, run, &run->model, err);
	if (!run->engine || cli_settings(&plain, run->model, &settings, err) ||
		study_plan_cells(&run->plan, run->model, &settings, err))
		return -1;
	study_plan_facts(&run->plan, run->model, &run->opened);
	if (cli->csv_file && study_plan_rows(&run->plan, cli->csv_file, err))
		return -1;
	if (!cli->quiet)
		fprintf(stderr, "%zu tasks x %zu cells, %zu answers are there, seed %s\n", tasks->n,
				run->plan.study.n_cells, run->plan.study.n_had, run->plan.facts[FACT_SEED].value);
	return 0;
}

static int report(const struct run *run, bool interrupted, struct error *err)
{
	struct study_summary *summaries = mem_new(run->plan.study.n_cells, sizeof *summaries, err);
	struct study_report report = {&run->plan.study, summaries,       run->plan.facts,
								  N_STUDY_FACTS,    run->cli->tasks, interrupted};
	int result = summaries ? study_summarise(&run->plan.study, summaries, err) : -1;
	bool rows_alone = run->cli->csv_file && strcmp(run->cli->csv_file, "-") == 0;
	if (result == 0 && !rows_alone) {
		if (run->cli->json)
			result = study_print_json(&report, err);
		else
			study_print(&report);
	}
	free(summaries);
	return result;
}

int cli_study(const struct cli *cli)
{
	struct run run = {.cli = cli};
	struct error err = {0};
	struct study_watch watch = {on_row, cancelled, note, &run};
	if (!cli->tasks || (cli->json && cli->csv_file && strcmp(cli->csv_file, "-") == 0)) {
		fail(&err, cli->tasks ? "study: --json and rows can't both go to stdout: --csv FILE"
							  : "study: expected --tasks FILE");
		cli_fail(&err);
		return EXIT_USAGE;
	}
	run_catch_interrupt();
	int result = prepare(&run, &err);
	run.began_ns = run.shown_ns = clock_ns();
	if (result == 0)
		result = study_run(&run.plan.study, run.engine, &watch, &err);
	end_line(&run);
	if (result >= 0 && report(&run, result == 1, &err))
		result = -1;
	engine_close(run.engine);
	study_plan_free(&run.plan);
	model_release(run.model);
	return result < 0 ? cli_fail(&err) : result == 1 ? EXIT_INTERRUPTED : EXIT_DONE;
}
