/*
 * logits --tokens .. --out FILE: what the model says at every position, and what it thinks on the
 * way, as a safetensors file:
 *
 *   logits F32 [n, vocab]
 *   --taps hidden    hidden.{i} F32 [n, width], i = 0..L: the residual before the parent's layer i,
 * L = before norm_f; with --switch, a narrower budget leaves 0 behind its last channel
 *   --taps experts   experts.{i}.ids I32 ascending, experts.{i}.weights F32 [n, k]: MoE layer i; -1
 * and 0 where the running budget leaves the layer out
 *   --taps lens      lens.{i}.ids I32 [n], lens.{i}.logprobs F32 [n]: what lm_head would say of
 * hidden.{i}: the most probable id and the natural log of its probability
 */
#include "base/memory.h"
#include "cli/command.h"
#include "core/reading.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* A --switch as typed, and its slice. */
struct turn {
	struct slice slice;
	int at;
	enum handoff handoff;
};

struct work {
	const struct cli *cli;
	struct model *model;
	const struct backend *backend;
	struct device *device;
	struct device_options options;
	struct slice slice;
	struct turn *turns;              // (n_turns)
	struct reading_switch *switches; // (n_turns)
	size_t n_turns;
	int32_t *ids;
	int n;
	struct reading_plan plan;
	struct reading reading;
	bool wrong_usage; // the error is the user's
};

static int parse_taps(const char *text, struct reading_plan *plan, struct error *err)
{
	for (const char *at = text; at; at = *at ? at + 1 : NULL) {
		size_t length = strcspn(at, ",");
		if (length == 6 && !strncmp(at, "hidden", 6))
			plan->hidden = true;
		else if (length == 7 && !strncmp(at, "experts", 7))
			plan->experts = true;
		else if (length == 4 && !strncmp(at, "lens", 4))
			plan->lens = true;
		else
			return fail(err, "--taps: '%.*s': expected hidden, experts or lens", (int)length, at);
		at += length;
		if (!*at)
			break;
	}
	return 0;
}

static int build(struct work *w, const struct budget *budget, struct slice *slice,
				 struct error *err)
{
	struct upload upload = {.backend = w->backend, .device = w->device};
	return cli_build_slice(w->cli, &upload, w->model, budget, slice, err);
}

/* POS:BUDGET:HANDOFF */
static int parse_switch(struct work *w, const char *text, struct turn *turn, struct error *err)
{
	const char *first = strchr(text, ':'), *last = strrchr(text, ':');
	char *end, *name;
	long at = strtol(text, &end, 10);
	int handoff = last ? handoff_find(last + 1) : -1, result;
	struct budget budget = {0};

	w->wrong_usage = true;
	if (!first || end == text || end != first || first == last || at < 0 || at >= w->n)
		return fail(err, "--switch: '%s': expected POS:BUDGET:HANDOFF with a position of 0 to %d",
					text, w->n - 1);
	if (handoff < 0)
		return fail(err, "--switch: '%s': expected reprefill or carry, found '%s'", text, last + 1);
	w->wrong_usage = false;
	turn->at = (int)at;
	turn->handoff = (enum handoff)handoff;
	name = mem_string(first + 1, (size_t)(last - first - 1), err);
	if (!name)
		return -1;
	result = model_budget(w->model, name, &budget, err);
	if (!result)
		result = build(w, &budget, &turn->slice, err);
	budget_free(&budget);
	free(name);
	return result ? fail_in(err, "--switch") : 0;
}

static int by_position(const void *a, const void *b)
{
	const struct reading_switch *x = a, *y = b;
	return (x->at > y->at) - (x->at < y->at);
}

static int parse_switches(struct work *w, const struct string_list *list, struct error *err)
{
	w->turns = mem_new(list->n, sizeof *w->turns, err);
	w->switches = mem_new(list->n, sizeof *w->switches, err);
	if (!w->turns || !w->switches)
		return -1;
	for (size_t i = 0; i < list->n; i++) {
		struct turn *turn = &w->turns[w->n_turns++];
		if (parse_switch(w, list->items[i], turn, err))
			return -1;
		w->switches[i] = (struct reading_switch){turn->at, &turn->slice, turn->handoff};
	}
	qsort(w->switches, list->n, sizeof *w->switches, by_position);
	for (size_t i = 1; i < list->n; i++)
		if (w->switches[i].at == w->switches[i - 1].at) {
			w->wrong_usage = true;
			return fail(err, "--switch: two before position %d", w->switches[i].at);
		}
	return 0;
}

/* ---- the file ---- */

struct output {
	struct named_tensor *tensors;
	char (*names)[40];
	size_t n, capacity;
};

static void add(struct output *out, enum dtype dtype, const void *data, int rows, int width,
				const char *format, int layer)
{
	struct named_tensor *to = &out->tensors[out->n];

	snprintf(out->names[out->n], sizeof out->names[0], format, layer);
	to->name = out->names[out->n++];
	to->tensor = (struct tensor){.dtype = dtype,
								 .n_dims = width ? 2 : 1,
								 .shape = {rows, width},
								 .data = data,
								 .bytes = (uint64_t)rows * (uint64_t)(width ? width : 1) * 4};
}

static void add_layers(struct output *out, const struct work *w)
{
	const struct reading *r = &w->reading;
	size_t n = (size_t)r->n;

	for (int i = 0; i <= r->n_layers; i++) {
		size_t at = (size_t)i * n;
		if (w->plan.hidden)
			add(out, DTYPE_F32, r->hidden + at * (size_t)r->width, r->n, r->width, "hidden.%d", i);
		if (w->plan.lens) {
			add(out, DTYPE_I32, r->lens_ids + at, r->n, 0, "lens.%d.ids", i);
			add(out, DTYPE_F32, r->lens_logprobs + at, r->n, 0, "lens.%d.logprobs", i);
		}
		if (!w->plan.experts || i == r->n_layers || w->model->config.kinds[i] != LAYER_MOE)
			continue;
		at *= (size_t)r->top_k;
		add(out, DTYPE_I32, r->expert_ids + at, r->n, r->top_k, "experts.%d.ids", i);
		add(out, DTYPE_F32, r->expert_weights + at, r->n, r->top_k, "experts.%d.weights", i);
	}
}

static int write_file(const struct work *w, const char *path, struct error *err)
{
	size_t most = 5 * ((size_t)w->reading.n_layers + 1) + 1;
	struct output out = {.tensors = mem_new(most, sizeof *out.tensors, err),
						 .names = mem_new(most, sizeof *out.names, err)};
	int result = -1;

	if (out.tensors && out.names) {
		add(&out, DTYPE_F32, w->reading.logits, w->reading.n, w->reading.vocab, "logits", 0);
		add_layers(&out, w);
		result = checkpoint_write(path, out.tensors, out.n, err);
	}
	free(out.tensors);
	free(out.names);
	return result;
}

static int progress(void *user, int done, int total)
{
	(void)user;
	if (total > 4 * PREFILL_CHUNK && isatty(STDERR_FILENO))
		fprintf(stderr, "%d of %d tokens\n", done, total);
	return 0;
}

/* Where nobody asked for the card, the CPU does as well. */
static int open_device(struct work *w, const struct budget *budget, struct error *err)
{
	w->device = w->backend->open(&w->options, err);
	if (w->device && !build(w, budget, &w->slice, err))
		return 0;
	if (!w->options.automatic || w->backend == &backend_cpu)
		return -1;
	if (!w->cli->quiet)
		fprintf(stderr, "elastiscope: on the CPU: %s\n", err->text);
	w->backend->close(w->device);
	w->backend = &backend_cpu;
	return open_device(w, budget, err);
}

static int run(struct work *w, const struct cli *cli, struct error *err)
{
	struct budget budget = {0};
	int result;

	w->wrong_usage = true;
	if (!cli->out)
		return fail(err, "--out: name the safetensors file to write");
	if ((cli->tokens != NULL) == (cli->text != NULL))
		return fail(err, "logits: expected one of --tokens and --text");
	if (cli->taps && parse_taps(cli->taps, &w->plan, err))
		return -1;
	w->wrong_usage = false;
	if (!(w->backend = cli_device(cli, &w->options, err)))
		return -1;
	w->model = cli_open_model(cli, err);
	if (!w->model || cli_ids(cli, w->model, &w->ids, &w->n, err))
		return -1;
	result = cli_budget(cli, w->model, &budget, err);
	if (!result)
		result = open_device(w, &budget, err);
	budget_free(&budget);
	if (result || parse_switches(w, &cli->switches, err))
		return -1;
	w->plan.ids = w->ids;
	w->plan.n = w->n;
	w->plan.slice = &w->slice;
	w->plan.switches = w->switches;
	w->plan.n_switches = (int)w->n_turns;
	w->plan.kv_dtype = w->options.kv_dtype;
	w->plan.step = cli->quiet ? NULL : progress;
	return reading_run(&w->reading, &w->plan, err) ? -1 : write_file(w, cli->out, err);
}

int cli_logits(const struct cli *cli)
{
	struct work w = {.cli = cli};
	struct error err = {0};
	int result = run(&w, cli, &err);

	reading_free(&w.reading);
	for (size_t i = 0; i < w.n_turns; i++)
		slice_free(&w.turns[i].slice);
	slice_free(&w.slice);
	if (w.backend)
		w.backend->close(w.device);
	model_release(w.model);
	free(w.turns);
	free(w.switches);
	free(w.ids);
	if (!result)
		return EXIT_DONE;
	return w.wrong_usage ? cli_usage(&err) : cli_fail(&err);
}
