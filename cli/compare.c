/*
 * compare A B [C]: budgets hold their predictions for the same tokens against A's. The tokens are a
 * text, ids, or what A writes to a prompt.
 */
#include "cli/compare.h"
#include "base/file.h"
#include "base/memory.h"
#include "cli/run.h"
#include "cli/source.h"
#include "core/forward.h"
#include "core/turn.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define WINDOW 4096 // tokens a window, and of prompt and answer, when --ctx says nothing else
#define ANSWER 512  // tokens of an answer, when -n says nothing else

struct work {
	const struct cli *cli;
	struct comparison c;
	const char *arguments[COMPARE_SIDES];
	struct model *model; // the one that plain budgets belong to; NULL until one asks
	char *directory;     // an argument that is the model's
	struct device *device;
	struct device_options options;
	int context;
	bool wrong_usage; // the error is the user's
	uint64_t shown;   // percent of the progress that was printed last
};

/* ---- who ---- */

/* Among three arguments, one that is just a directory is the model. */
static int take_arguments(struct work *w, struct error *err)
{
	const struct string_list *list = &w->cli->arguments;

	for (size_t i = 0; i < list->n; i++) {
		const char *argument = list->items[i];
		if (list->n == 3 && !w->directory && !w->cli->model && !strchr(argument, '#') &&
			file_is_directory(argument)) {
			if (!(w->directory = mem_string(argument, strlen(argument), err)))
				return -1;
			continue;
		}
		w->arguments[w->c.n_sides++] = argument;
	}
	return 0;
}

static struct model *open_plain(struct work *w, struct error *err)
{
	struct cli cli = *w->cli;

	if (w->directory)
		cli.model = w->directory;
	if (!w->model)
		w->model = cli_open_model(&cli, err);
	return w->model ? model_retain(w->model) : NULL;
}

/* The model in a directory, shared with the side that has it open already. */
static struct model *open_directory(struct work *w, const char *directory, struct error *err)
{
	struct model_options options = {.lenient = w->cli->lenient};
	char *path = realpath(directory, NULL);
	struct model *model = NULL;

	for (int i = 0; i < COMPARE_SIDES && path && !model; i++) {
		char *other = w->c.models[i] ? realpath(w->c.models[i]->directory, NULL) : NULL;
		if (other && !strcmp(path, other))
			model = model_retain(w->c.models[i]);
		free(other);
	}
	free(path);
	return model ? model : model_open(directory, &options, err);
}

/* "BUDGET", "DIR#BUDGET", or "DIR": its parent. */
static int open_side(struct work *w, int i, struct error *err)
{
	const char *argument = w->arguments[i], *hash = strrchr(argument, '#'), *name = argument;
	struct budget budget = {0};
	char *directory;
	int result;

	w->c.labels[i] = argument;
	if (file_is_directory(argument)) {
		w->c.models[i] = open_directory(w, argument, err);
		name = w->c.models[i] ? elastic_default(&w->c.models[i]->elastic) : NULL;
	} else if (hash) {
		directory = mem_string(argument, (size_t)(hash - argument), err);
		w->c.models[i] = directory ? open_directory(w, directory, err) : NULL;
		free(directory);
		name = hash + 1;
	} else {
		w->c.models[i] = open_plain(w, err);
	}
	if (!w->c.models[i])
		return -1;
	result = cli_find_budget(w->cli, w->c.models[i], name, &budget, err);
	if (!result)
		result = slice_build(&w->c.slices[i], &w->c.models[i]->weights, &w->c.models[i]->config,
							 &budget, &backend_cpu, w->device, err);
	budget_free(&budget);
	w->c.plan.sides[i] = &w->c.slices[i];
	return result;
}

static int open_sides(struct work *w, struct error *err)
{
	w->device = backend_cpu.open(&w->options, err);
	if (!w->device)
		return -1;
	for (int i = 0; i < w->c.n_sides; i++)
		if (open_side(w, i, err) || (i && w->c.models[i] != w->c.models[0] && !w->cli->text_only &&
									 fidelity_same_vocabulary(w->c.models[0], w->c.models[i], err)))
			return -1;
	return 0;
}

/* ---- what ---- */

static int progress(void *user, int done, int total)
{
	struct work *w = user;
	uint64_t percent = (uint64_t)done * 100 / (uint64_t)total;

	if (!w->cli->quiet && isatty(STDERR_FILENO) && total > 4 * PREFILL_CHUNK &&
		percent / 10 > w->shown / 10)
		fprintf(stderr, "%d of %d tokens\n", done, total);
	w->shown = percent;
	return run_interrupted();
}

/* All budgets write to the prompt, side by side; what A wrote is what they are compared on. */
static int write_answers(struct work *w, struct error *err)
{
	struct comparison *c = &w->c;
	struct turn_rules rules;
	int room = w->context - c->n, wanted = w->cli->n < 0 ? ANSWER : (int)w->cli->n;

	c->n_prompt = c->n;
	if (room < 1)
		return fail(err, "-p: a prompt of %d tokens leaves no room in a context of %d; --ctx",
					c->n_prompt, w->context);
	if (turn_rules_init(&rules, &c->models[0]->config, c->models[0]->tokenizer, err))
		return -1;
	struct answers_plan plan = {.n_sides = c->n_sides,
								.prompt = c->ids,
								.n_prompt = c->n,
								.max_tokens = wanted && wanted < room ? wanted : room,
								.stop_ids = rules.stop_ids,
								.n_stop_ids = rules.n_stop_ids,
								.params = c->settings.sampling,
								.kv_dtype = w->options.kv_dtype,
								.step = progress,
								.user = w};
	memcpy(plan.sides, c->plan.sides, COMPARE_SIDES * sizeof *plan.sides);
	if (answers_write(&c->answers, &plan, err))
		return -1;
	const struct answer *answer = &c->answers.of[0];
	int32_t *ids = realloc(c->ids, (size_t)(c->n + answer->n) * sizeof *ids);
	if (!ids)
		return fail(err, "no memory for %d tokens", c->n + answer->n);
	memcpy(ids + c->n, answer->ids, (size_t)answer->n * sizeof *ids);
	c->ids = ids;
	c->n += answer->n;
	c->plan.first = c->n_prompt - 1; // predicts the answer's first token
	c->plan.end = c->n - 1;          // nothing is known to follow the last one
	return 0;
}

static int get_tokens(struct work *w, struct error *err)
{
	if (source_ids(w->cli, w->c.models[0], &w->c.ids, &w->c.n, err))
		return -1;
	return w->cli->prompts.n > 0 ? write_answers(w, err) : 0;
}

/* ---- how ---- */

static int settings(struct work *w, struct error *err)
{
	const struct cli *cli = w->cli;

	if (cli_settings(cli, w->c.models[0], &w->c.settings, err))
		return -1;
	if (cli->temperature < 0)
		w->c.settings.sampling.temperature = 0; // greedy unless the user says otherwise
	w->context = w->c.models[0]->config.max_position_embeddings;
	if (w->context < 1 || w->context > WINDOW)
		w->context = WINDOW;
	if (cli->context > 0)
		w->context = (int)cli->context;
	w->c.worst = cli->worst >= 0 ? (int)cli->worst : COMPARE_WORST;
	return 0;
}

/* --route-from names one of the sides, as it was typed. */
static int find_router(struct work *w, struct error *err)
{
	w->c.plan.route_from = -1;
	for (int i = 0; i < w->c.n_sides && w->cli->route_from; i++)
		if (!strcmp(w->arguments[i], w->cli->route_from))
			w->c.plan.route_from = i;
	if (!w->cli->route_from || w->c.plan.route_from >= 0)
		return 0;
	return fail(err, "--route-from: '%s': expected one of the budgets that are compared",
				w->cli->route_from);
}

static int check_usage(struct work *w, struct error *err)
{
	const struct cli *cli = w->cli;
	w->wrong_usage = true;
	if (source_check(cli, err))
		return -1;
	if (cli->text_only && (cli->prompts.n != 1 || cli->csv || cli->lens || cli->route_from))
		return fail(err,
					"--text-only: expected -p TEXT, and neither --csv, --lens nor --route-from");
	if (take_arguments(w, err) || find_router(w, err))
		return -1;
	w->wrong_usage = false;
	return 0;
}

static bool same_layers(const struct comparison *c)
{
	const struct config *a = &c->models[0]->config;

	for (int i = 1; i < c->n_sides; i++) {
		const struct config *b = &c->models[i]->config;
		if (a->n_layers != b->n_layers || a->hidden_size != b->hidden_size ||
			a->n_routed_experts != b->n_routed_experts ||
			memcmp(a->kinds, b->kinds, (size_t)a->n_layers) != 0)
			return false;
	}
	return true;
}

static int print(const struct work *w, struct error *err)
{
	if (w->cli->json)
		return compare_print_json(&w->c, w->cli, err);
	if (!w->cli->csv)
		return compare_print_tables(&w->c, err);
	compare_print_csv(&w->c);
	return 0;
}

static int run(struct work *w, struct error *err)
{
	struct fidelity_plan *plan = &w->c.plan;

	if (check_usage(w, err) || cli_device_options(w->cli, &w->options, err) || open_sides(w, err) ||
		settings(w, err))
		return -1;
	if (w->cli->text_only)
		return compare_texts(&w->c, w->cli, err);
	if (get_tokens(w, err))
		return -1;
	plan->n_sides = w->c.n_sides;
	plan->ids = w->c.ids;
	plan->n = w->c.n;
	plan->window = w->c.n_prompt ? 0 : w->context;
	plan->kv_dtype = w->options.kv_dtype;
	plan->layers = same_layers(&w->c);
	plan->lens = w->cli->lens;
	plan->step = progress;
	plan->user = w;
	w->shown = 0;
	if (!plan->layers && !w->cli->quiet)
		fprintf(stderr, "elastiscope: the models have different layers: compared by their "
						"predictions only\n");
	return fidelity_run(&w->c.fidelity, plan, err) ? -1 : print(w, err);
}

int cli_compare(const struct cli *cli)
{
	struct work w = {.cli = cli};
	struct error err = {0};

	run_catch_interrupt();
	int result = run(&w, &err);
	fidelity_free(&w.c.fidelity);
	answers_free(&w.c.answers);
	for (int i = 0; i < COMPARE_SIDES; i++) {
		slice_free(&w.c.slices[i]);
		model_release(w.c.models[i]);
	}
	model_release(w.model);
	backend_cpu.close(w.device);
	free(w.c.ids);
	free(w.directory);
	if (run_interrupted())
		return EXIT_INTERRUPTED;
	return !result ? EXIT_DONE : w.wrong_usage ? cli_usage(&err) : cli_fail(&err);
}
