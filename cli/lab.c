/*
 * lab FROM TO: one switch of budget taken apart (inspect/lab.h). The tokens are ids, a text, or a
 * prompt and what FROM thinks about it; the switch comes before --at, else where FROM's thoughts
 * end, else at the end.
 */
#include "inspect/lab.h"
#include "cli/print.h"
#include "cli/run.h"
#include "core/tokenizer.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_WRITTEN 4096 // tokens that FROM may write

struct work {
	const struct cli *cli;
	struct model *model;
	struct id_list ids;
	int at; // where the thoughts end, 0 = nowhere
	struct error err;
	int shown; // percent
};

/* ---- the tokens ---- */

static void collect(void *user, const struct event *event)
{
	struct work *w = user;
	if (event->type != EV_TOKEN)
		return;
	if (event->token.thinking_ends)
		w->at = (int)w->ids.n;
	id_list_add(&w->ids, event->token.id, &w->err);
}

static int encode_prompt(struct work *w, struct conversation *conversation, struct error *err)
{
	struct prompt prompt = {0};
	if (w->model->tokenizer == NULL)
		return fail(err, "%s has no tokenizer.json, which -p needs", w->model->directory);
	conversation->enable_thinking = !w->cli->no_think;
	int failed = conversation_render(conversation, true, &prompt, err) ||
				 tokenizer_encode(w->model->tokenizer, &prompt, &w->ids, err);
	prompt_free(&prompt);
	return failed ? -1 : 0;
}

/* The prompt and what FROM writes, greedily. */
static int write_text(struct work *w, struct error *err)
{
	struct conversation conversation;
	struct turn_settings settings = {
		.sampling = {.top_p = 1}, .max_tokens = MAX_WRITTEN, .thinking = !w->cli->no_think};
	struct request request = {.type = REQUEST_TURN, .conversation = &conversation};
	const char *text = w->cli->prompts.items[0];
	struct reply reply = {0};
	if (strlen(w->cli->arguments.items[0]) >= sizeof settings.budget)
		return fail(err, "%s: longer than a budget's name may be", w->cli->arguments.items[0]);
	strcpy(settings.budget, w->cli->arguments.items[0]);
	struct engine *engine = cli_open_engine(w->cli, NULL, NULL, &w->model, err);
	if (engine == NULL)
		return -1;
	conversation_init(&conversation);
	request.settings = settings;
	int failed =
		(w->cli->system != NULL && conversation_set_system(&conversation, w->cli->system, err)) ||
		conversation_append(&conversation, CHAT_USER, (struct chat_string){text, strlen(text)},
							(struct chat_string){0}, err) < 0 ||
		encode_prompt(w, &conversation, err) ||
		run_request(w->cli, engine, &request, &reply, (struct run_eye){.see = collect, .user = w},
					err);
	if (!failed && w->err.text[0] != '\0')
		failed = fail(err, "%s", w->err.text);
	reply_free(&reply);
	conversation_free(&conversation);
	engine_close(engine);
	return failed ? -1 : 0;
}

static int open_tokens(struct work *w, struct error *err)
{
	if (w->cli->prompts.n > 0)
		return write_text(w, err);
	int n;
	if ((w->model = cli_open_model(w->cli, err)) == NULL ||
		cli_ids(w->cli, w->model, &w->ids.ids, &n, err) < 0)
		return -1;
	w->ids.n = (size_t)n;
	return 0;
}

/* ---- printing ---- */

static cJSON *json_of(const struct lab *lab)
{
	cJSON *object = cJSON_CreateObject(), *list;
	cJSON_AddStringToObject(object, "from", lab->from);
	cJSON_AddStringToObject(object, "to", lab->to);
	cJSON_AddNumberToObject(object, "at", lab->at);
	cJSON_AddNumberToObject(object, "horizon", lab->horizon);
	print_add_number(object, "carry_ms", lab->carry_ms);
	print_add_number(object, "reprefill_ms", lab->reprefill_ms);
	cJSON_AddNumberToObject(object, "reprefill_tokens", lab->reprefill_tokens);
	print_add_number(object, "kl_mean", lab->kl_mean);
	print_add_number(object, "kl_max", lab->kl_max);
	print_add_number(object, "top1", lab->top1);
	print_add_number(object, "conv", lab->conv);
	print_add_number(object, "ssm", lab->ssm);
	print_add_number(object, "k", lab->k);
	print_add_number(object, "v", lab->v);
	list = cJSON_AddArrayToObject(object, "layers");
	for (int i = 0; i < lab->n_layers; i++) {
		const struct lab_layer *layer = &lab->layers[i];
		cJSON *row = cJSON_CreateObject();
		cJSON_AddNumberToObject(row, "layer", i);
		cJSON_AddStringToObject(row, "kind", layer_name(layer->kind));
		print_add_number(row, "conv", layer->conv);
		print_add_number(row, "ssm", layer->ssm);
		print_add_number(row, "k", layer->k);
		print_add_number(row, "v", layer->v);
		cJSON_AddItemToArray(list, row);
	}
	list = cJSON_AddArrayToObject(object, "repairs");
	for (int i = 0; i < lab->n_repairs; i++) {
		const struct lab_repair *repair = &lab->repairs[i];
		cJSON *row = cJSON_CreateObject();
		cJSON_AddNumberToObject(row, "n", repair->n);
		cJSON_AddNumberToObject(row, "replayed", repair->replayed);
		print_add_number(row, "ms", repair->ms);
		print_add_number(row, "kl_mean", repair->kl_mean);
		print_add_number(row, "kl_max", repair->kl_max);
		print_add_number(row, "top1", repair->top1);
		cJSON_AddItemToArray(list, row);
	}
	list = cJSON_AddArrayToObject(object, "per_token");
	for (int i = 0; i < lab->horizon; i++) {
		cJSON *row = cJSON_CreateObject();
		cJSON_AddNumberToObject(row, "at", lab->at + i);
		cJSON_AddNumberToObject(row, "id", lab->ids[i]);
		print_add_number(row, "kl", lab->kl[i]);
		print_add_number(row, "p", lab->p[i]);
		print_add_number(row, "p_carry", lab->p_carry[i]);
		cJSON_AddItemToArray(list, row);
	}
	return object;
}

static void csv_row(const char *section, int index, const char *name, double value)
{
	if (isfinite(value))
		printf("%s,%d,%s,%.9g\n", section, index, name, value);
}

/* One number a row: the sections have different columns. */
static void print_csv(const struct lab *lab)
{
	printf("section,index,name,value\n");
	csv_row("switch", lab->at, "carry_ms", lab->carry_ms);
	csv_row("switch", lab->at, "reprefill_ms", lab->reprefill_ms);
	csv_row("switch", lab->at, "kl_mean", lab->kl_mean);
	csv_row("switch", lab->at, "kl_max", lab->kl_max);
	csv_row("switch", lab->at, "top1", lab->top1);
	for (int i = 0; i < lab->n_layers; i++) {
		csv_row("layer", i, "conv", lab->layers[i].conv);
		csv_row("layer", i, "ssm", lab->layers[i].ssm);
		csv_row("layer", i, "k", lab->layers[i].k);
		csv_row("layer", i, "v", lab->layers[i].v);
	}
	for (int i = 0; i < lab->n_repairs; i++) {
		const struct lab_repair *repair = &lab->repairs[i];
		csv_row("repair", repair->n, "ms", repair->ms);
		csv_row("repair", repair->n, "kl_mean", repair->kl_mean);
		csv_row("repair", repair->n, "kl_max", repair->kl_max);
		csv_row("repair", repair->n, "top1", repair->top1);
	}
	for (int i = 0; i < lab->horizon; i++)
		csv_row("token", lab->at + i, "kl", lab->kl[i]);
}

static void print_cosine(double value)
{
	if (isnan(value))
		printf("%10s", "-");
	else
		printf("%10.5f", value);
}

static void print_cosines(const char *name, const char *kind, double conv, double ssm, double k,
						  double v)
{
	printf("%5s %-10s", name, kind);
	print_cosine(conv);
	print_cosine(ssm);
	print_cosine(k);
	print_cosine(v);
	putchar('\n');
}

static void print_text(const struct lab *lab)
{
	printf("%s > %s before position %d, held against %s re-prefilled over %d tokens; times after a "
		   "warm pass\n\n",
		   lab->from, lab->to, lab->at, lab->to, lab->horizon);
	printf("%-12s %9s %10s %10s %10s %8s\n", "handoff", "replayed", "ms", "mean KL", "max KL",
		   "top-1");
	for (int i = 0; i < lab->n_repairs; i++) {
		const struct lab_repair *repair = &lab->repairs[i];
		char name[HANDOFF_TEXT_BYTES];
		handoff_write(repair->n > 0 ? HANDOFF_REPAIR : HANDOFF_CARRY, repair->n, name);
		printf("%-12s %9d %10.3f %10.5f %10.5f %7.1f%%\n", name, repair->replayed, repair->ms,
			   repair->kl_mean, repair->kl_max, repair->top1 * 100);
	}
	printf("%-12s %9d %10.3f %10d %10d %7d%%\n\n", "reprefill", lab->reprefill_tokens,
		   lab->reprefill_ms, 0, 0, 100);
	printf("cosine of the carried state with the re-prefilled one\n%5s %-10s%10s%10s%10s%10s\n",
		   "layer", "kind", "conv", "SSM", "K", "V");
	for (int i = 0; i < lab->n_layers; i++) {
		const struct lab_layer *layer = &lab->layers[i];
		char number[12];
		snprintf(number, sizeof number, "%d", i);
		if (layer->kind == LAYER_MAMBA || layer->kind == LAYER_ATTENTION)
			print_cosines(number, layer_name(layer->kind), layer->conv, layer->ssm, layer->k,
						  layer->v);
	}
	print_cosines("", "mean", lab->conv, lab->ssm, lab->k, lab->v);
}

/* ---- the command ---- */

static int progress(void *user, int done, int total)
{
	struct work *w = user;
	int percent = (int)((int64_t)done * 100 / total);
	if (!w->cli->quiet && isatty(STDERR_FILENO) && total > 4096 && percent / 10 > w->shown / 10)
		fprintf(stderr, "%d of %d tokens\n", done, total);
	w->shown = percent;
	return run_interrupted();
}

static int run_lab(struct work *w, struct lab *lab, struct error *err)
{
	const struct cli *cli = w->cli;
	struct lab_plan plan = {.from = cli->arguments.items[0],
							.to = cli->arguments.items[1],
							.horizon = cli->horizon > 0 ? (int)cli->horizon : 0,
							.step = progress,
							.user = w};
	if (cli_device_options(cli, &plan.device, err) < 0 || open_tokens(w, err) < 0)
		return -1;
	plan.model = w->model;
	plan.ids = w->ids.ids;
	plan.n = plan.at = (int)w->ids.n;
	if (cli->at > 0) {
		plan.at = cli->at < INT32_MAX ? (int)cli->at : INT32_MAX;
	} else if (w->at > 0) { // </think> is read by TO, which then goes on by itself
		plan.at = w->at;
		plan.n = w->at + 1;
	}
	return lab_run(lab, &plan, err);
}

int cli_lab(const struct cli *cli)
{
	struct work w = {.cli = cli};
	struct error err = {0};
	struct lab lab = {0};
	if ((cli->prompts.n > 0) + (cli->tokens != NULL) + (cli->text != NULL) != 1 ||
		cli->prompts.n > 1) {
		fail(&err, "lab: expected one of -p, --tokens and --text");
		return cli_usage(&err);
	}
	run_catch_interrupt();
	int result = run_lab(&w, &lab, &err);
	if (result == 0 && cli->json)
		result = print_line(json_of(&lab), &err);
	else if (result == 0 && cli->csv)
		print_csv(&lab);
	else if (result == 0)
		print_text(&lab);
	lab_free(&lab);
	free(w.ids.ids);
	model_release(w.model);
	if (result < 0 && run_interrupted())
		return EXIT_INTERRUPTED;
	return result < 0 ? cli_fail(&err) : EXIT_DONE;
}
