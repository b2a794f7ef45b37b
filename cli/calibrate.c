/*
 * calibrate: every importance score measured on texts (inspect/calibrate.h), and whether the
 * checkpoint is stored in that order. The scores stay in the cache, where `inspect importance
 * --scores cache` and the workbench find them.
 */
#include "inspect/calibrate.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/text.h"
#include "cli/print.h"
#include "cli/run.h"
#include "core/tokenizer.h"
#include "inspect/sorted.h"
#include "sessions/session.h"
#include "sessions/shelf.h"
#include <cjson/cJSON.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define TERMINAL_NS 200000000u // between two progress lines on a terminal
#define FILE_NS 10000000000u   // and in a file

struct work {
	const struct cli *cli;
	struct model *model;
	struct calibrate_texts texts;
	struct calibration result;
	struct scores scores;
	struct sorted axes[N_AXES];
	uint64_t start_ns, shown_ns;
	int64_t first, tokens; // read at the first call; of the texts
};

/* ---- the texts ---- */

/* As the user names it: without folders and the ending. */
static int name_session(const char *path, struct text *name, struct error *err)
{
	const char *slash = strrchr(path, '/'), *start = slash ? slash + 1 : path;
	size_t length = strlen(start);
	if (length > 6 && strcmp(start + length - 6, ".jsonl") == 0)
		length -= 6;
	text_append(name, start, length);
	return text_check(name, err);
}

/* The whole conversation, thoughts of earlier turns too. */
static int add_session(struct work *w, const char *named, struct error *err)
{
	struct session session = {0};
	struct id_list ids = {0};
	struct text name = {0};
	char *path = shelf_find(NULL, named, err);
	int status = path ? session_read(path, &session, err) : -1;
	if (status == 0) {
		session.conversation.truncate_history = false;
		status = conversation_encode(&session.conversation, w->model, false, &ids, err)
					 ? fail_in(err, "%s", path)
					 : name_session(path, &name, err);
	}
	if (status < 0)
		free(ids.ids);
	else
		status = calibrate_add_ids(&w->texts, text_chars(&name), ids.ids, ids.n, err);
	text_free(&name);
	session_free(&session);
	free(path);
	return status;
}

static int add_tokens(struct work *w, struct error *err)
{
	int32_t *ids;
	int n;
	if (cli_token_list(w->cli->tokens, &ids, &n, err) < 0)
		return fail_in(err, "--tokens");
	return calibrate_add_ids(&w->texts, "--tokens", ids, (size_t)n, err);
}

static int open_texts(struct work *w, struct error *err)
{
	const struct cli *cli = w->cli;
	for (size_t i = 0; i < cli->texts.n; i++)
		if (calibrate_add_file(&w->texts, cli->texts.items[i], cli->special, w->model, err) < 0)
			return -1;
	for (size_t i = 0; i < cli->sessions.n; i++)
		if (add_session(w, cli->sessions.items[i], err) < 0)
			return -1;
	return cli->tokens ? add_tokens(w, err) : 0;
}

/* ---- progress ---- */

/* Several passes read all texts, each with other layers left out. */
static void print_place(const struct work *w, int64_t done, int64_t total)
{
	int64_t pass = done > 0 ? (done - 1) / w->tokens : 0; // a whole one is at its end
	fprintf(stderr, "pass %lld of %lld, %lld of %lld tokens", (long long)pass + 1,
			(long long)(total / w->tokens), (long long)(done - pass * w->tokens),
			(long long)w->tokens);
}

static void begin(struct work *w, int64_t done, int64_t total)
{
	w->start_ns = w->shown_ns = clock_ns();
	w->first = done;
	for (size_t i = 0; i < w->texts.n; i++)
		w->tokens += w->texts.items[i].n;
	if (!w->cli->quiet && w->result.damaged.text[0])
		fprintf(stderr, "%s: measuring again\n", w->result.damaged.text);
	if (w->cli->quiet || done <= CALIBRATE_WINDOW)
		return;
	fprintf(stderr, "going on: ");
	print_place(w, done, total);
	fputc('\n', stderr);
}

static int progress(void *user, int64_t done, int64_t total)
{
	struct work *w = user;
	bool terminal = isatty(STDERR_FILENO);
	uint64_t now = clock_ns();
	if (w->start_ns == 0)
		begin(w, done, total);
	if (!w->cli->quiet && now > w->shown_ns + (terminal ? TERMINAL_NS : FILE_NS)) {
		double rate = (double)(done - w->first) * 1e9 / (double)(now - w->start_ns);
		int64_t left = rate > 0 ? (int64_t)((double)(total - done) / rate) : 0;
		if (terminal)
			fputc('\r', stderr);
		print_place(w, done, total);
		fprintf(stderr, ", %.0f a second, %lld:%02lld left   %s", rate, (long long)(left / 60),
				(long long)(left % 60), terminal ? "" : "\n");
		w->shown_ns = now;
	}
	if (terminal && !w->cli->quiet && w->shown_ns != w->start_ns &&
		(done == total || run_interrupted()))
		fputc('\n', stderr);
	return run_interrupted();
}

/* ---- results ---- */

static int copy_scores(const struct work *w, struct error *err)
{
	static const char *const keys[] = {"checkpoint", "text_hash", "text",
									   "tokens",     "samples",   "math"};
	enum { N = sizeof keys / sizeof *keys };
	struct checkpoint_note notes[N];
	struct text values[N] = {0};
	const char *out = w->cli->out;
	char *path =
		file_is_directory(out) ? file_join(out, "importance.safetensors", err) : strdup(out);
	if (!path)
		return -1;
	for (int i = 0; i < N; i++) {
		checkpoint_note(&w->scores.file, keys[i], &values[i]);
		notes[i] = (struct checkpoint_note){keys[i], text_chars(&values[i])};
	}
	int status = file_is_directory(out) && file_exists(path)
					 ? fail(err, "--out: %s exists; name the file to overwrite it", path)
					 : checkpoint_write_noted(path, w->scores.file.tensors,
											  w->scores.file.n_tensors, notes, N, err);
	for (int i = 0; i < N; i++)
		text_free(&values[i]);
	free(path);
	return status;
}

static cJSON *to_json(const struct work *w)
{
	const struct calibration *c = &w->result;
	cJSON *root = cJSON_CreateObject();
	cJSON_AddStringToObject(root, "file", c->path);
	cJSON_AddBoolToObject(root, "from_cache", c->from_cache);
	cJSON_AddStringToObject(root, "checkpoint", w->model->hash);
	cJSON_AddStringToObject(root, "text", w->scores.text);
	cJSON_AddStringToObject(root, "math", w->scores.math);
	cJSON_AddNumberToObject(root, "tokens", (double)c->tokens);
	cJSON_AddNumberToObject(root, "samples", (double)c->samples);
	cJSON_AddNumberToObject(root, "seconds", (double)c->took_ns / 1e9);
	cJSON *axes = cJSON_AddArrayToObject(root, "axes");
	for (int a = 0; a < N_AXES; a++) {
		const struct sorted *s = &w->axes[a];
		if (s->n_orders == 0)
			continue;
		cJSON *one = cJSON_CreateObject();
		cJSON_AddStringToObject(one, "axis", axis_name((enum axis)a));
		cJSON_AddNumberToObject(one, "orders", s->n_orders);
		cJSON_AddNumberToObject(one, "descending", s->n_descending);
		print_add_number(one, "spearman", s->mean);
		print_add_number(one, "least", s->least);
		print_add_number(one, "least_layer", s->least_layer < 0 ? (double)NAN : s->least_layer);
		cJSON_AddNumberToObject(one, "inversions", (double)s->inversions);
		cJSON_AddNumberToObject(one, "pairs", (double)s->pairs);
		cJSON_AddItemToArray(axes, one);
	}
	return root;
}

static void to_csv(const struct work *w)
{
	puts("axis,orders,descending,spearman,least,least_layer,inversions,pairs");
	for (int a = 0; a < N_AXES; a++) {
		const struct sorted *s = &w->axes[a];
		if (s->n_orders == 0)
			continue;
		printf("%s,%d,%d", axis_name((enum axis)a), s->n_orders, s->n_descending);
		print_value(s->mean);
		print_value(s->least);
		print_value(s->least_layer < 0 ? (double)NAN : s->least_layer);
		printf(",%lld,%lld\n", (long long)s->inversions, (long long)s->pairs);
	}
}

static void to_text(const struct work *w)
{
	const struct calibration *c = &w->result;
	printf("%lld tokens in %lld window%s of %s", (long long)c->tokens, (long long)c->samples,
		   c->samples == 1 ? "" : "s", w->scores.text);
	if (c->from_cache)
		printf(", from the cache\n");
	else
		printf(", %.1f s\n", (double)c->took_ns / 1e9);
	printf("%s\n\n%-36s %7s %8s %8s %6s %9s\n", c->path, "axis", "orders", "Spearman", "least",
		   "layer", "inverted");
	for (int a = 0; a < N_AXES; a++) {
		const struct sorted *s = &w->axes[a];
		if (s->n_orders == 0)
			continue;
		char layer[16] = "-";
		if (s->least_layer >= 0)
			snprintf(layer, sizeof layer, "%d", s->least_layer);
		printf("%-36s %7d %8.3f %8.3f %6s %8.2f%%\n", axis_name((enum axis)a), s->n_orders, s->mean,
			   s->least, layer, s->pairs ? 100.0 * (double)s->inversions / (double)s->pairs : 0);
	}
	puts("\nSpearman of the stored order against the measured scores, 1 = sorted; layers' scores "
		 "and "
		 "the rest:\ninspect importance --scores cache");
}

/* ---- the command ---- */

static int measure(struct work *w, struct error *err)
{
	struct calibration *c = &w->result;
	struct calibrate_plan plan = {.texts = &w->texts, .step = progress, .user = w};
	if (cli_device_options(w->cli, &plan.device, err) < 0 ||
		!(w->model = cli_open_model(w->cli, err)) || open_texts(w, err) < 0)
		return -1;
	plan.model = w->model;
	plan.window = w->cli->context < INT32_MAX ? (int)w->cli->context : INT32_MAX;
	if (calibrate_run(c, &plan, err) < 0 || scores_open(&w->scores, c->path, w->model, err) < 0)
		return -1;
	for (int a = 0; a < N_AXES; a++)
		if (axis_in_model((enum axis)a, &w->model->config) &&
			sorted_axis(&w->axes[a], w->model, (enum axis)a, &w->scores, err) < 0)
			return -1;
	return w->cli->out ? copy_scores(w, err) : 0;
}

int cli_calibrate(const struct cli *cli)
{
	struct work w = {.cli = cli};
	struct error err = {0};
	if (cli->texts.n + cli->sessions.n == 0 && !cli->tokens) {
		fail(&err, "calibrate: expected --text FILE..., --sessions NUMBER... or --tokens 1,2,3");
		return cli_usage(&err);
	}
	if (cli->json && cli->csv) {
		fail(&err, "calibrate: expected one of --json and --csv");
		return cli_usage(&err);
	}
	run_catch_interrupt();
	int status = measure(&w, &err);
	if (status == 0 && cli->json)
		status = print_line(to_json(&w), &err);
	else if (status == 0 && cli->csv)
		to_csv(&w);
	else if (status == 0)
		to_text(&w);
	int code = status == 0 ? EXIT_DONE : cli_fail(&err);
	calibration_free(&w.result);
	scores_close(&w.scores);
	calibrate_texts_free(&w.texts);
	model_release(w.model);
	return status < 0 && run_interrupted() ? EXIT_INTERRUPTED : code;
}
