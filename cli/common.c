/* What several commands need: the model, the device, the turn's settings, an engine. */
#include "cli/command.h"
#include "cli/run.h"
#include "tui/meter.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/memory.h"
#include "base/size.h"
#include "core/progress.h"
#include "core/rule.h"
#include "core/sampler.h"
#include "core/target.h"
#include "core/tokenizer.h"
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int cli_fail(const struct error *err)
{
	fprintf(stderr, "elastiscope: %s\n", err->text);
	return EXIT_FAILED;
}

int cli_usage(const struct error *err)
{
	cli_fail(err);
	return EXIT_USAGE;
}

char *cli_model_directory(const struct cli *cli, struct error *err)
{
	const char *named = cli->model;
	if (!named)
		named = getenv("ELASTISCOPE_MODEL");
	else if (named[0] == '\0')
		return fail(err, "the model is '', expected a directory"), NULL;
	if (!named || named[0] == '\0')
		named = cli->default_model;
	if (!named || named[0] == '\0')
		return file_shared("demo", err);
	/* DIR#BUDGET, unless a folder of the whole name exists. */
	const char *hash = strrchr(named, '#');
	size_t length = hash && !file_is_directory(named) ? (size_t)(hash - named) : strlen(named);
	return mem_string(named, length, err);
}

const char *cli_named_budget(const struct cli *cli)
{
	const char *model = cli->model ? cli->model : cli->default_model;
	if (cli->budget || !model || file_is_directory(model))
		return cli->budget;
	const char *hash = strrchr(model, '#');
	return hash ? hash + 1 : NULL;
}

struct model *cli_open_model(const struct cli *cli, struct error *err)
{
	char *directory = cli_model_directory(cli, err);
	if (!directory)
		return NULL;
	const char *budget = cli_named_budget(cli);
	if (budget && (cli->command->groups & (GROUP_POLICY | GROUP_BUDGET)) == 0) {
		free(directory);
		return fail(err, "%s: %s reads no single budget, found '#%s'", cli->model,
					cli->command->name, budget),
			   NULL;
	}
	struct model_options options = {.budgets_file = cli->budgets_file, .lenient = cli->lenient};
	struct model *model = model_open(directory, &options, err);
	free(directory);
	if (model && !cli->quiet && model->notices.length > 0)
		fprintf(stderr, "%s", text_chars(&model->notices));
	return model;
}

const struct backend *cli_device(const struct cli *cli, struct device_options *options,
								 struct error *err)
{
	struct cli on_cpu = *cli;
	on_cpu.device = NULL;
	if (cli_device_options(&on_cpu, options, err) < 0)
		return NULL;
	return backend_choose(cli->device ? cli->device : "auto", options, err);
}

int cli_device_options(const struct cli *cli, struct device_options *options, struct error *err)
{
	*options = (struct device_options){.n_threads = (int)cli->threads};
	if (cli->device && strncmp(cli->device, "cuda", 4) == 0)
		return fail(err, "--device: '%s': %s runs on the CPU", cli->device, cli->command->name);
	if (cli->device && strcmp(cli->device, "auto") != 0 && strcmp(cli->device, "cpu") != 0)
		return fail(err, "--device: '%s': expected auto or cpu", cli->device);
	const char *math = cli->math ? cli->math : cli->command->exact ? "exact" : "fast";
	if (strcmp(math, "exact") != 0 && strcmp(math, "fast") != 0)
		return fail(err, "--math: '%s': expected exact or fast", math);
	options->math = strcmp(math, "fast") == 0 ? MATH_FAST : MATH_EXACT;
	const char *kv = cli->kv ? cli->kv : options->math == MATH_FAST ? "bf16" : "f32";
	int found = kv_find(kv);
	if (found < 0)
		return fail(err, "--kv: '%s': expected f32, bf16 or fp8", kv);
	options->kv_dtype = (enum dtype)found;
	if (cli->snapshots && strcmp(cli->snapshots, "0") == 0)
		options->snapshot_bytes = 1; // no state is as small: none on the card
	else if (cli->snapshots && size_parse(cli->snapshots, &options->snapshot_bytes, err))
		return fail_in(err, "--snapshots");
	return 0;
}

/* Of a target, what it chose. */
static int note_target(const struct cli *cli, const struct model *model, const char *name,
					   const struct budget *budget, struct error *err)
{
	struct text note = {0};
	if (!target_is(name) || cli->quiet)
		return 0;
	int status = target_note(model, budget, &note, err);
	if (status == 0)
		fprintf(stderr, "%s\n", text_chars(&note));
	text_free(&note);
	return status;
}

int cli_find_budget(const struct cli *cli, const struct model *model, const char *name,
					struct budget *budget, struct error *err)
{
	if (model_budget(model, name, budget, err) < 0)
		return -1;
	int status = note_target(cli, model, name, budget, err);
	if (status < 0)
		budget_free(budget);
	return status;
}

int cli_budget(const struct cli *cli, const struct model *model, struct budget *budget,
			   struct error *err)
{
	const char *name = cli_named_budget(cli);
	return cli_find_budget(cli, model, name ? name : elastic_default(&model->elastic), budget, err);
}

/* Copies the name after checking that the model has such a budget. */
static int set_budget(const struct cli *cli, char *out, const char *name, const char *option,
					  const struct model *model, struct error *err)
{
	struct budget budget = {0};
	if (cli_find_budget(cli, model, name, &budget, err) < 0)
		return fail_in(err, "--%s", option);
	// a text that is too long goes by the name that stands for it
	name = strlen(name) < BUDGET_NAME_BYTES ? name : budget.name;
	memcpy(out, name, strlen(name) + 1);
	budget_free(&budget);
	return 0;
}

static int check_clause(const struct rule_clause *clause, const struct model *model,
						struct error *err)
{
	const char *names[] = {clause->then, clause->otherwise};
	for (size_t i = 0; i < 2 && clause->kind != RULE_NONE; i++) {
		struct budget budget = {0};
		int failed = *names[i] ? model_budget(model, names[i], &budget, err) : 0;
		budget_free(&budget);
		if (failed && clause->kind == RULE_ALWAYS)
			return fail(err, "'%s' is no budget of this model: %s", names[i], rule_expected);
		if (failed)
			return -1;
	}
	return 0;
}

/* Here, not in the engine, so that nothing is recorded of a turn that can't be. */
static int set_rule(const struct cli *cli, const struct model *model,
					struct turn_settings *settings, struct error *err)
{
	struct rule rule;
	if (!cli->policy)
		return 0;
	if (rule_parse(&rule, cli->policy, err))
		return -1;
	if (check_clause(&rule.think, model, err) || check_clause(&rule.answer, model, err))
		return fail_in(err, "--policy");
	snprintf(settings->rule, sizeof settings->rule, "%s", cli->policy);
	return 0;
}

static int set_policy(const struct cli *cli, const struct model *model,
					  struct turn_settings *settings, struct error *err)
{
	const char *first = elastic_default(&model->elastic), *named = cli_named_budget(cli);
	const char *budget = named ? named : first;
	settings->policy = cli->think != NULL || cli->answer != NULL;
	if (set_budget(cli, settings->budget, budget, "budget", model, err) < 0 ||
		(cli->think && set_budget(cli, settings->think, cli->think, "think", model, err) < 0) ||
		(cli->answer && set_budget(cli, settings->answer, cli->answer, "answer", model, err) < 0) ||
		(cli->read && set_budget(cli, settings->read, cli->read, "read", model, err) < 0))
		return -1;
	if (!cli->think)
		memcpy(settings->think, settings->budget, sizeof settings->think);
	if (!cli->answer)
		memcpy(settings->answer, settings->budget, sizeof settings->answer);
	if (set_rule(cli, model, settings, err))
		return -1;
	settings->handoff = model->elastic.carry ? HANDOFF_CARRY : HANDOFF_REPREFILL;
	if (cli->handoff && handoff_parse(cli->handoff, &settings->handoff, &settings->repair, err) < 0)
		return fail_in(err, "--handoff");
	return 0;
}

int cli_settings(const struct cli *cli, const struct model *model, struct turn_settings *settings,
				 struct error *err)
{
	*settings = (struct turn_settings){.thinking = !cli->no_think};
	struct pick_params *sampling = &settings->sampling;
	sampler_defaults(sampling, &model->config, &model->elastic);
	sampling->seed = cli->seed >= 0 ? (uint64_t)cli->seed : sampler_new_seed();
	if (cli->temperature >= 0)
		sampling->temperature = (float)cli->temperature;
	if (cli->top_p >= 0)
		sampling->top_p = (float)cli->top_p;
	if (cli->min_p >= 0)
		sampling->min_p = (float)cli->min_p;
	if (cli->top_k >= 0)
		sampling->top_k = (int32_t)cli->top_k;
	settings->max_tokens = cli->n > 0 ? (int)cli->n : 0;
	settings->think_limit = cli->think_limit > 0 ? (int)cli->think_limit : 0;
	if (sampler_check(sampling, err) < 0)
		return -1;
	return set_policy(cli, model, settings, err);
}

int cli_token_list(const char *text, int32_t **ids, int *n, struct error *err)
{
	struct id_list list = {0};
	int result = id_list_parse(&list, text, strlen(text), err);
	if (result == 0 && (list.n == 0 || list.n > INT32_MAX))
		result = fail(err, list.n ? "more token ids than positions" : "no token ids");
	if (result) {
		free(list.ids);
		list = (struct id_list){0};
	}
	*ids = list.ids;
	*n = (int)list.n;
	return result;
}

int cli_ids(const struct cli *cli, const struct model *model, int32_t **ids, int *n,
			struct error *err)
{
	struct id_list list = {0};
	*ids = NULL;
	*n = 0;
	if ((cli->tokens != NULL) == (cli->text != NULL))
		return fail(err, "%s: expected one of --tokens and --text", cli->command->name);
	if (cli->tokens != NULL)
		return cli_token_list(cli->tokens, ids, n, err);
	if (!model->tokenizer)
		return fail(err, "%s has no tokenizer.json, which --text needs", model->directory);
	int result = tokenizer_encode_text(model->tokenizer, cli->text, strlen(cli->text),
									   cli->special ? TRUST_ALL : TRUST_NONE, &list, err);
	if (result == 0 && (list.n == 0 || list.n > INT32_MAX))
		result = fail(err, "--text: %zu tokens, expected at least 1", list.n);
	if (result != 0) {
		free(list.ids);
		return -1;
	}
	*ids = list.ids;
	*n = (int)list.n;
	return 0;
}

/* Waits for the model; what it has to say comes as notices, behind EV_OPENED. Ctrl-C stops an
 * upload, where it is caught. */
static int wait_opened(const struct cli *cli, struct engine *engine, struct model **model,
					   struct error *err)
{
	struct meter meter = {0};
	bool stopping = false;
	for (;;) {
		const struct event *event = engine_wait(engine, LOOK_MS);
		if (run_interrupted() && !stopping)
			stopping = engine_submit(engine, &(struct request){.type = REQUEST_STOP}, err) == 0;
		if (!event)
			continue;
		if (!cli->quiet)
			meter_event(&meter, event);
		if (event->type == EV_ERROR)
			return fail(err, "%s", event->text);
		if (event->type == EV_OPENED) {
			*model = model_retain(event->opened.model);
			return 0;
		}
	}
}

/* As far as it can be said before the model is open: what will be uploaded. */
static void wished_budgets(const struct cli *cli, struct turn_settings *settings)
{
	const char *named = cli_named_budget(cli);
	const char *think = cli->think ? cli->think : named,
			   *answer = cli->answer ? cli->answer : named;
	settings->policy = cli->think || cli->answer;
	snprintf(settings->budget, sizeof settings->budget, "%s", named ? named : "");
	snprintf(settings->think, sizeof settings->think, "%s", think ? think : "");
	snprintf(settings->answer, sizeof settings->answer, "%s", answer ? answer : "");
}

struct engine *cli_open_engine(const struct cli *cli,
							   int (*record)(void *, const struct event *, struct error *),
							   void *record_user, struct model **model, struct error *err)
{
	struct engine_options options = {.context = (int)cli->context,
									 .warm = cli->warm,
									 .record = record,
									 .record_user = record_user};
	options.backend = cli_device(cli, &options.device, err);
	if (!options.backend)
		return NULL;
	char *directory = cli_model_directory(cli, err);
	struct engine *engine = directory ? engine_local_open(&options, err) : NULL;
	struct request request = {.type = REQUEST_OPEN,
							  .directory = directory,
							  .budgets_file = cli->budgets_file,
							  .lenient = cli->lenient};
	wished_budgets(cli, &request.settings);
	if (engine &&
		(engine_submit(engine, &request, err) < 0 || wait_opened(cli, engine, model, err) < 0)) {
		engine_close(engine);
		engine = NULL;
	}
	free(directory);
	return engine;
}

struct uploading {
	struct meter meter;
	bool quiet;
};

static int show_upload(void *user, const char *budget, uint64_t done, uint64_t total)
{
	struct uploading *uploading = user;
	struct text what = {0};
	struct event event = progress_upload(budget, done, total, &what);
	event.at_ns = clock_ns();
	if (!uploading->quiet)
		meter_event(&uploading->meter, &event);
	text_free(&what);
	return 0;
}

int cli_build_slice(const struct cli *cli, const struct upload *to, const struct model *model,
					const struct budget *budget, struct slice *slice, struct error *err)
{
	struct uploading uploading = {.quiet = cli->quiet};
	struct upload upload = {to->backend, to->device, show_upload, &uploading};
	struct slice plan;
	if (slice_build(&plan, &model->weights, &model->config, budget, NULL, NULL, err))
		return -1;
	int failed = upload_whole(&upload, &plan, err);
	slice_free(&plan);
	return failed ? -1
				  : slice_build(slice, &model->weights, &model->config, budget, to->backend,
								to->device, err);
}
