/*
 * tokens: what the workbench's view of that name shows (inspect/outlook.h), as a table, JSON or
 * CSV. The tokens are ids, a text, or what the budget -b writes to a prompt.
 */
#include "base/pool.h"
#include "base/utf8.h"
#include "cli/print.h"
#include "cli/run.h"
#include "cli/source.h"
#include "core/tokenizer.h"
#include "core/turn.h"
#include "inspect/answers.h"
#include "inspect/outlook.h"
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_CONTEXT 32768 // tokens, when --ctx says nothing else
#define ANSWER 512        // tokens of an answer, when -n says nothing else
#define TEXT_COLUMNS 12   // of a token in the table

struct work {
	const struct cli *cli;
	struct model *model;
	struct device_options options;
	struct budget budget; // -b
	int32_t *ids;
	int n, n_prompt; // n_prompt: of them the prompt; 0 = a text
	struct outlook outlook;
	bool wrong_usage; // the error is the user's
	int shown;        // percent
};

static int progress(void *user, int done, int total)
{
	struct work *w = user;
	int percent = total > 0 ? (int)((int64_t)done * 100 / total) : 0;
	if (!w->cli->quiet && isatty(STDERR_FILENO) && total > 2048 && percent / 10 > w->shown / 10)
		fprintf(stderr, "%d of %d tokens\n", done, total);
	w->shown = percent;
	return run_interrupted();
}

/* ---- the tokens ---- */

static int answer(struct work *w, const struct slice *slice, int context, struct error *err)
{
	struct turn_settings settings;
	struct turn_rules rules;
	struct answers answers = {0};
	int room = context - w->n, wanted = w->cli->n < 0 ? ANSWER : (int)w->cli->n;
	if (room < 1)
		return fail(err, "-p: a prompt of %d tokens leaves no room in a context of %d; --ctx", w->n,
					context);
	if (cli_settings(w->cli, w->model, &settings, err) ||
		turn_rules_init(&rules, &w->model->config, w->model->tokenizer, err))
		return -1;
	if (w->cli->temperature < 0)
		settings.sampling.temperature = 0; // greedy unless the user says otherwise
	struct answers_plan plan = {.sides = {slice},
								.n_sides = 1,
								.prompt = w->ids,
								.n_prompt = w->n,
								.max_tokens = wanted && wanted < room ? wanted : room,
								.stop_ids = rules.stop_ids,
								.n_stop_ids = rules.n_stop_ids,
								.params = settings.sampling,
								.kv_dtype = w->options.kv_dtype,
								.step = progress,
								.user = w};
	if (answers_write(&answers, &plan, err))
		return -1;
	const struct answer *written = &answers.of[0];
	int32_t *ids = realloc(w->ids, (size_t)(w->n + written->n) * sizeof *ids);
	if (ids) {
		memcpy(ids + w->n, written->ids, (size_t)written->n * sizeof *ids);
		w->ids = ids;
		w->n_prompt = w->n;
		w->n += written->n;
	}
	answers_free(&answers);
	return ids ? 0 : fail(err, "no memory for the answer");
}

/* The budget -b writes to the prompt. */
static int write_answer(struct work *w, int context, struct error *err)
{
	struct slice slice = {0};
	struct device *device = backend_cpu.open(&w->options, err);
	int result = device ? slice_build(&slice, &w->model->weights, &w->model->config, &w->budget,
									  &backend_cpu, device, err)
						: -1;
	if (!result)
		result = answer(w, &slice, context, err);
	slice_free(&slice);
	backend_cpu.close(device);
	return result;
}

static int get_tokens(struct work *w, struct error *err)
{
	int context = w->model->config.max_position_embeddings;
	if (context < 1 || context > MAX_CONTEXT)
		context = MAX_CONTEXT;
	if (w->cli->context > 0)
		context = (int)w->cli->context;
	if (source_ids(w->cli, w->model, &w->ids, &w->n, err))
		return -1;
	if (w->cli->prompts.n > 0)
		return write_answer(w, context, err);
	const char *option = w->cli->text ? "--text" : "--tokens";
	if (w->n < 2)
		return fail(err, "%s: 1 token, expected 2 or more: nothing comes before the first", option);
	if (w->n > context)
		return fail(err, "%s: %d tokens, the context holds %d; --ctx", option, w->n, context);
	return 0;
}

/* ---- printing ---- */

/* A token as text; bytes that are no character become U+FFFD. "" without a tokenizer. */
static void token_text(const struct work *w, int32_t id, struct text *out)
{
	struct decode_state state = {0};
	text_clear(out);
	if (!w->model->tokenizer)
		return;
	tokenizer_decode_step(w->model->tokenizer, &state, id, out);
	tokenizer_decode_flush(&state, out);
}

/* Whether all budgets have the same first choice. */
static bool agree(const struct outlook *outlook, int token)
{
	for (int b = 1; b < outlook->n_budgets; b++)
		if (outlook_at(outlook, b, token)->top[0] != outlook_at(outlook, 0, token)->top[0])
			return false;
	return true;
}

static void add_id(const struct work *w, cJSON *object, int32_t id)
{
	struct text text = {0};
	token_text(w, id, &text);
	cJSON_AddNumberToObject(object, "id", id);
	if (w->model->tokenizer)
		cJSON_AddStringToObject(object, "text", text_chars(&text));
	else
		cJSON_AddNullToObject(object, "text");
	text_free(&text);
}

static cJSON *view_json(const struct work *w, int budget, int token)
{
	const struct outlook_view *view = outlook_at(&w->outlook, budget, token);
	cJSON *object = cJSON_CreateObject();
	cJSON_AddStringToObject(object, "budget", w->outlook.budgets[budget]);
	cJSON_AddNumberToObject(object, "rank", view->rank);
	print_add_number(object, "p", (double)view->p_actual);
	print_add_number(object, "entropy", (double)view->entropy);
	cJSON *top = cJSON_AddArrayToObject(object, "top");
	for (int i = 0; i < OUTLOOK_TOP && view->top[i] >= 0; i++) {
		cJSON *one = cJSON_CreateObject();
		add_id(w, one, view->top[i]);
		print_add_number(one, "p", (double)view->p[i]);
		cJSON_AddItemToArray(top, one);
	}
	return object;
}

static int print_json(const struct work *w, int differ, struct error *err)
{
	const struct outlook *outlook = &w->outlook;
	cJSON *root = cJSON_CreateObject();
	cJSON_AddStringToObject(root, "model", w->model->directory);
	cJSON_AddStringToObject(root, "source",
							w->n_prompt    ? "prompt"
							: w->cli->text ? "text"
										   : "tokens");
	cJSON_AddNumberToObject(root, "tokens", outlook->n - outlook->first);
	cJSON_AddNumberToObject(root, "prompt_tokens", w->n_prompt);
	if (w->n_prompt)
		cJSON_AddStringToObject(root, "written_by", w->budget.name);
	else
		cJSON_AddNullToObject(root, "written_by");
	cJSON *budgets = cJSON_AddArrayToObject(root, "budgets");
	for (int b = 0; b < outlook->n_budgets; b++)
		cJSON_AddItemToArray(budgets, cJSON_CreateString(outlook->budgets[b]));
	cJSON_AddNumberToObject(root, "disagreements", differ);
	cJSON *list = cJSON_AddArrayToObject(root, "per_token");
	for (int token = outlook->first; token < outlook->n; token++) {
		cJSON *one = cJSON_CreateObject();
		cJSON_AddNumberToObject(one, "at", token);
		add_id(w, one, w->ids[token]);
		cJSON_AddBoolToObject(one, "agree", agree(outlook, token));
		cJSON *views = cJSON_AddArrayToObject(one, "views");
		for (int b = 0; b < outlook->n_budgets; b++)
			cJSON_AddItemToArray(views, view_json(w, b, token));
		cJSON_AddItemToArray(list, one);
	}
	return print_line(root, err);
}

static void print_csv(const struct work *w)
{
	const struct outlook *outlook = &w->outlook;
	struct text text = {0};
	printf("at,id,text,agree,budget,rank,p,entropy");
	for (int i = 1; i <= OUTLOOK_TOP; i++)
		printf(",top_%d,p_%d", i, i);
	putchar('\n');
	for (int token = outlook->first; token < outlook->n; token++)
		for (int b = 0; b < outlook->n_budgets; b++) {
			const struct outlook_view *view = outlook_at(outlook, b, token);
			token_text(w, w->ids[token], &text);
			printf("%d,%d,", token, w->ids[token]);
			print_field(text_chars(&text));
			printf(",%d,", agree(outlook, token));
			print_field(outlook->budgets[b]);
			printf(",%d,%.9g,%.9g", view->rank, (double)view->p_actual, (double)view->entropy);
			for (int i = 0; i < OUTLOOK_TOP; i++)
				if (view->top[i] >= 0)
					printf(",%d,%.9g", view->top[i], (double)view->p[i]);
				else
					printf(",,");
			putchar('\n');
		}
	text_free(&text);
}

/* The token in quotes, one line and cut to its column; without a tokenizer its id. */
static void print_cell(const struct work *w, int32_t id, bool pad)
{
	struct text text = {0}, cell = {0};
	int columns = 0;
	token_text(w, id, &text);
	text_add(&cell, w->model->tokenizer ? "'" : "");
	if (!w->model->tokenizer)
		text_format(&cell, "%d", id);
	for (size_t i = 0; i < text.length && columns < TEXT_COLUMNS - 3;) {
		uint32_t code = 0;
		int n = utf8_decode(text.data + i, text.length - i, &code);
		int width = n > 0 ? utf8_width(code) : -1;
		n = n > 0 ? n : 1;
		if (code == '\n' || code == '\t' || width < 0)
			text_add(&cell, code == '\n' ? "\\n" : code == '\t' ? "\\t" : "\\?");
		else
			text_append(&cell, text.data + i, (size_t)n);
		columns += width < 0 ? 2 : width;
		i += (size_t)n;
	}
	columns = w->model->tokenizer ? columns + 2 : (int)cell.length;
	text_add(&cell, w->model->tokenizer ? "'" : "");
	printf("%s%*s", text_chars(&cell), pad && columns < TEXT_COLUMNS ? TEXT_COLUMNS - columns : 0,
		   "");
	text_free(&text);
	text_free(&cell);
}

static void print_row(const struct work *w, int token)
{
	const struct outlook *outlook = &w->outlook;
	int32_t first = outlook_at(outlook, 0, token)->top[0];
	printf("%c%5d %6d ", agree(outlook, token) ? ' ' : '*', token, w->ids[token]);
	print_cell(w, w->ids[token], true);
	for (int b = 0; b < outlook->n_budgets; b++) {
		const struct outlook_view *view = outlook_at(outlook, b, token);
		printf(" |%4d %5.1f%% %5.2f %c", view->rank, 100 * (double)view->p_actual,
			   (double)view->entropy, view->top[0] == first ? ' ' : '*');
		print_cell(w, view->top[0], b + 1 < outlook->n_budgets);
	}
	putchar('\n');
}

static void print_table(const struct work *w, int differ)
{
	const struct outlook *outlook = &w->outlook;
	int n = outlook->n - outlook->first;
	if (w->n_prompt)
		printf("%s wrote %d tokens to the prompt's %d; what every budget says at each:\n",
			   w->budget.name, n, w->n_prompt);
	else
		printf("%d tokens; what every budget says at each from the second on:\n", outlook->n);
	printf("%27s", "");
	for (int b = 0; b < outlook->n_budgets; b++)
		printf(" | %-*.*s", TEXT_COLUMNS + 19, TEXT_COLUMNS + 19, outlook->budgets[b]);
	printf("\n%6s %6s %-*s", "at", "id", TEXT_COLUMNS + 1, "token");
	for (int b = 0; b < outlook->n_budgets; b++)
		printf(" |%4s %6s %5s  %-*s", "rank", "p", "H", TEXT_COLUMNS, "first choice");
	putchar('\n');
	for (int token = outlook->first; token < outlook->n; token++)
		print_row(w, token);
	printf("rank, p: of the token that stands there; H: entropy in nats\n"
		   "* the budgets' first choices differ: %d of %d tokens\n",
		   differ, n);
	for (int b = 0; b < outlook->n_budgets; b++) {
		int chosen = 0;
		for (int token = outlook->first; token < outlook->n; token++)
			chosen += outlook_at(outlook, b, token)->rank == 1;
		printf("%s%s %.1f%%", b ? ", " : "the token is its first choice: ", outlook->budgets[b],
			   100.0 * chosen / n);
	}
	putchar('\n');
}

/* ---- all of it ---- */

static int look(struct work *w, struct error *err)
{
	bool named = elastic_find(&w->model->elastic, w->budget.name) >= 0;
	struct outlook_plan plan = {.model = w->model,
								.device = w->options,
								.typed = named ? NULL : w->budget.name,
								.ids = w->ids,
								.n = w->n,
								.first = w->n_prompt ? w->n_prompt : 1,
								.step = progress,
								.user = w};
	int differ = 0;
	if (plan.device.n_threads == 0)
		plan.device.n_threads = pool_cpus();
	w->shown = 0;
	if (outlook_run(&w->outlook, &plan, err))
		return -1;
	for (int token = plan.first; token < plan.n; token++)
		differ += !agree(&w->outlook, token);
	if (w->cli->json)
		return print_json(w, differ, err);
	if (w->cli->csv)
		print_csv(w);
	else
		print_table(w, differ);
	return 0;
}

static int run(struct work *w, struct error *err)
{
	if (source_check(w->cli, err)) {
		w->wrong_usage = true;
		return -1;
	}
	if (cli_device_options(w->cli, &w->options, err) || !(w->model = cli_open_model(w->cli, err)) ||
		cli_budget(w->cli, w->model, &w->budget, err) || get_tokens(w, err))
		return -1;
	return look(w, err);
}

int cli_tokens(const struct cli *cli)
{
	struct work w = {.cli = cli};
	struct error err = {0};
	run_catch_interrupt();
	int result = run(&w, &err);
	outlook_free(&w.outlook);
	budget_free(&w.budget);
	model_release(w.model);
	free(w.ids);
	if (run_interrupted())
		return EXIT_INTERRUPTED;
	return !result ? EXIT_DONE : w.wrong_usage ? cli_usage(&err) : cli_fail(&err);
}
