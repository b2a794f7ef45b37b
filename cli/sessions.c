/* `sessions list|show|export|replay`: what was recorded. */
#include "cli/print.h"
#include "cli/run.h"

#include "base/file.h"
#include "base/memory.h"
#include "sessions/export.h"
#include "sessions/replay.h"
#include "sessions/shelf.h"
#include "sessions/verify.h"
#include "tui/app.h"
#include "tui/plain.h"
#include <cjson/cJSON.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static int print(struct text *text, struct error *err)
{
	int failed = text_check(text, err);
	if (!failed)
		fwrite(text_chars(text), 1, text->length, stdout);
	text_free(text);
	return failed;
}

static void note(const struct cli *cli, const struct session *session)
{
	struct text damage = {0};
	session_damage(session, &damage);
	if (damage.length && !cli->quiet)
		fprintf(stderr, "elastiscope: %s: %s\n", session->path, text_chars(&damage));
	text_free(&damage);
}

static cJSON *row_json(const struct shelf_row *row)
{
	cJSON *to = cJSON_CreateObject();
	cJSON_AddNumberToObject(to, "number", (double)row->number);
	cJSON_AddStringToObject(to, "path", row->path);
	cJSON_AddStringToObject(to, "time", row->origin.time);
	cJSON_AddStringToObject(to, "checkpoint", row->origin.checkpoint ? row->origin.checkpoint : "");
	cJSON_AddStringToObject(to, "hash", row->origin.hash);
	cJSON_AddStringToObject(to, "version", row->origin.version);
	cJSON *budgets = cJSON_AddArrayToObject(to, "budgets");
	for (int i = 0; i < row->origin.n_budgets; i++)
		cJSON_AddItemToArray(budgets, cJSON_CreateString(row->origin.budgets[i]));
	cJSON_AddNumberToObject(to, "turns", row->n_turns);
	cJSON_AddNumberToObject(to, "tokens", row->n_tokens);
	cJSON_AddNumberToObject(to, "seconds", (double)row->length_ns / 1e9);
	cJSON_AddStringToObject(to, "first", text_chars(&row->first));
	if (row->found.length)
		cJSON_AddStringToObject(to, "found", text_chars(&row->found));
	return to;
}

static int columns(void)
{
	struct winsize size;
	return ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0 ? size.ws_col : 160;
}

static void list_csv(const struct shelf *shelf)
{
	puts("number,path,time,checkpoint,hash,version,budgets,turns,tokens,seconds,first");
	for (size_t i = 0; i < shelf->n_rows; i++) {
		const struct shelf_row *row = &shelf->rows[i];
		const struct session_origin *origin = &row->origin;
		printf("%zu,", row->number);
		print_field(row->path);
		printf(",%s,", origin->time);
		print_field(origin->checkpoint ? origin->checkpoint : "");
		printf(",%s,%s,%d,%d,%d,%.6f,", origin->hash, origin->version, origin->n_budgets,
			   row->n_turns, row->n_tokens, (double)row->length_ns / 1e9);
		print_field(text_chars(&row->first));
		putchar('\n');
	}
}

static int list(const struct cli *cli, struct error *err)
{
	struct shelf shelf;
	struct text table = {0};
	if (shelf_open(NULL, cli->search, &shelf, err))
		return -1;
	int failed = 0;
	if (cli->json) {
		cJSON *all = cJSON_CreateArray();
		for (size_t i = 0; i < shelf.n_rows; i++)
			cJSON_AddItemToArray(all, row_json(&shelf.rows[i]));
		failed = print_line(all, err);
	} else if (cli->csv) {
		list_csv(&shelf);
	} else {
		shelf_table(&shelf, columns(), &table);
		failed = print(&table, err);
		if (shelf.n_rows == 0 && !cli->quiet)
			fprintf(stderr, "elastiscope: no session in %s%s%s\n", shelf.directory,
					cli->search ? " says " : "", cli->search ? cli->search : "");
	}
	shelf_close(&shelf);
	return failed;
}

static int show(const struct cli *cli, const struct session *session, struct error *err)
{
	struct text text = {0};
	if (cli->json)
		return print_line(session_json(session), err);
	if (cli->csv)
		session_csv(session, &text); // a row a token
	else
		session_markdown(session, &text);
	return print(&text, err);
}

static int export(const struct cli *cli, const struct session *session, struct error *err)
{
	struct text text = {0};
	const char *format = cli->format ? cli->format : cli->json ? "json" : cli->csv ? "csv" : "md";
	if (!strcmp(format, "json"))
		return print_line(session_json(session), err);
	if (!strcmp(format, "csv"))
		session_csv(session, &text);
	else
		session_markdown(session, &text);
	return print(&text, err);
}

/* ---- replay ---- */

static int play(const struct cli *cli, const struct session *session, struct error *err)
{
	struct replay_options replay = {.session = session, .speed = cli->speed >= 0 ? cli->speed : 1};
	const struct session_origin *origin = session_last_origin(session);
	struct tui_options options = {.directory = origin ? origin->checkpoint : "",
								  .engine.record_user = &replay,
								  .open_engine = engine_replay_open,
								  .replay = true,
								  .script = cli->script,
								  .theme = cli->theme,
								  .no_color = cli->no_color,
								  .no_log = true};
	if (cli->size && sscanf(cli->size, "%dx%d", &options.columns, &options.rows) != 2)
		return fail(err, "--size: '%s': expected WxH such as 120x40", cli->size);
	bool screen = cli->script || (tui_possible() && !cli->plain);
	return screen ? tui_run(&options, err) : plain_run(&options, err);
}

/* ---- verify ---- */

static void progress(void *user, int turn, int n_turns)
{
	const struct cli *cli = user;
	if (!cli->quiet && isatty(STDERR_FILENO))
		fprintf(stderr, "\rturn %d of %d ", turn + 1, n_turns);
}

/* As it was recorded, unless an option says otherwise: the checkpoint, --math, --kv. */
static struct cli as_recorded(const struct cli *cli, const struct session *session)
{
	struct cli other = *cli;
	const struct session_origin *origin = session_last_origin(session);
	size_t at = session->n_openings ? session->openings[session->n_openings - 1].event : 0;
	const struct event *opened = &session->events[at];
	if (!other.model && origin && file_is_directory(origin->checkpoint))
		other.model = origin->checkpoint;
	if (opened->type != EV_OPENED)
		return other;
	if (!other.math)
		other.math = opened->opened.math == MATH_FAST ? "fast" : "exact";
	if (!other.kv)
		other.kv = kv_name(opened->opened.kv_dtype);
	if (!other.context)
		other.context = opened->opened.context;
	return other;
}

static cJSON *token_json(const struct verify_token *token)
{
	if (token->id < 0)
		return cJSON_CreateNull();
	cJSON *to = cJSON_CreateObject();
	cJSON_AddNumberToObject(to, "id", token->id);
	cJSON_AddStringToObject(to, "text", text_chars(&token->text));
	cJSON_AddStringToObject(to, "budget", token->budget);
	cJSON_AddNumberToObject(to, "logprob", (double)token->logprob);
	return to;
}

static int result_json(const struct session_origin *origin, const struct verify_result *result,
					   struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddBoolToObject(root, "same", !result->differs && result->n_turns > 0);
	cJSON_AddNumberToObject(root, "turns", result->n_turns);
	cJSON_AddNumberToObject(root, "tokens", result->n_tokens);
	cJSON_AddNumberToObject(root, "left_out", result->n_left_out);
	cJSON_AddStringToObject(root, "left_out_turns", text_chars(&result->left_out));
	cJSON_AddNumberToObject(root, "largest_logprob_change", result->largest_change);
	cJSON_AddStringToObject(root, "hash", origin->hash);
	cJSON_AddStringToObject(root, "recorded_version", origin->version);
	cJSON_AddStringToObject(root, "version", ELASTISCOPE_VERSION);
	cJSON_AddStringToObject(root, "recorded_rung", result->recorded_rung);
	cJSON_AddStringToObject(root, "rung", result->rung);
	if (result->differs) {
		cJSON *first = cJSON_AddObjectToObject(root, "difference");
		cJSON_AddNumberToObject(first, "turn", result->turn);
		cJSON_AddNumberToObject(first, "at", result->at);
		cJSON_AddItemToObject(first, "recorded", token_json(&result->recorded));
		cJSON_AddItemToObject(first, "now", token_json(&result->now));
	}
	return print_line(root, err);
}

static void print_token(const char *label, const struct verify_token *token, const char *version,
						const char *rung)
{
	if (token->id < 0)
		printf("  %-8s  no token: the turn was over", label);
	else
		printf("  %-8s  id %d, \"%s\", budget %s, logprob %.6f", label, token->id,
			   text_chars(&token->text), token->budget, (double)token->logprob);
	printf(" (elastiscope %s, %s)\n", version, rung);
}

static int print_result(const struct cli *cli, const struct session_origin *origin,
						const struct verify_result *result, struct error *err)
{
	if (cli->json)
		return result_json(origin, result, err);
	if (!result->differs && result->n_turns > 0)
		printf("the same: %d token%s in %d turn%s, largest change of a logprob %.3g\n",
			   result->n_tokens, result->n_tokens == 1 ? "" : "s", result->n_turns,
			   result->n_turns == 1 ? "" : "s", result->largest_change);
	else if (!result->differs)
		puts("nothing to verify");
	if (result->n_left_out)
		printf("%d turn%s left out\n%s", result->n_left_out, result->n_left_out == 1 ? "" : "s",
			   text_chars(&result->left_out));
	if (!result->differs)
		return 0;
	printf("the first difference: turn %d, position %d, after %d equal tokens\n", result->turn,
		   result->at, result->n_tokens);
	print_token("recorded", &result->recorded, origin->version, result->recorded_rung);
	print_token("now", &result->now, ELASTISCOPE_VERSION, result->rung);
	printf("  hash      %s, both\n", origin->hash);
	return 0;
}

static int verify(const struct cli *cli, const struct session *session, struct error *err)
{
	struct cli recorded = as_recorded(cli, session);
	struct verify_result result = {0};
	struct model *model = NULL;
	struct engine *engine = cli_open_engine(&recorded, NULL, NULL, &model, err);
	int failed = !engine;
	if (!failed && session_check_hash(session, model->hash, err))
		failed = fail_in(err, "%s: not verified", session->path);
	failed =
		failed || session_verify(session, engine, model->hash, progress, (void *)cli, &result, err);
	if (!cli->quiet && isatty(STDERR_FILENO))
		fputs("\r\033[K", stderr);
	failed = failed || print_result(cli, session_last_origin(session), &result, err);
	bool wrong = result.differs || result.n_turns == 0; // nothing was verified
	verify_free(&result);
	engine_close(engine);
	model_release(model);
	if (!failed && wrong)
		return EXIT_FAILED;
	return failed ? -1 : 0;
}

static int replay(const struct cli *cli, const struct session *session, struct error *err)
{
	return cli->verify ? verify(cli, session, err) : play(cli, session, err);
}

static const struct {
	const char *name;
	int (*run)(const struct cli *cli, const struct session *session, struct error *err);
} verbs[] = {{"show", show}, {"export", export}, {"replay", replay}};

static int wrong_usage(const struct error *err)
{
	cli_fail(err);
	return EXIT_USAGE;
}

int cli_sessions(const struct cli *cli)
{
	struct error err = {0};
	struct session session;
	const char *verb = cli->arguments.items[0];
	size_t i = 0, n = sizeof verbs / sizeof *verbs;
	if (cli->format && strcmp(cli->format, "md") != 0 && strcmp(cli->format, "json") != 0 &&
		strcmp(cli->format, "csv") != 0) {
		fail(&err, "--format: '%s': expected md, json or csv", cli->format);
		return wrong_usage(&err);
	}
	if (cli->pace >= 0 || cli->tour) {
		fail(&err, "--%s: not an option of sessions; a replay has --speed",
			 cli->tour ? "tour" : "pace");
		return wrong_usage(&err);
	}
	if (!strcmp(verb, "list"))
		return list(cli, &err) ? cli_fail(&err) : EXIT_DONE;
	while (i < n && strcmp(verbs[i].name, verb) != 0)
		i++;
	if (i == n || cli->arguments.n < 2) {
		if (i == n)
			fail(&err, "sessions: '%s': expected list, show, export or replay", verb);
		else
			fail(&err, "sessions %s: expected a file or a number of `sessions list`", verb);
		return wrong_usage(&err);
	}
	char *path = shelf_find(NULL, cli->arguments.items[1], &err);
	int result = path ? session_read(path, &session, &err) : -1;
	free(path);
	if (result)
		return cli_fail(&err);
	note(cli, &session);
	result = verbs[i].run(cli, &session, &err);
	session_free(&session);
	return result < 0 ? cli_fail(&err) : result;
}
