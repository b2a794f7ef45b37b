/*
 * bench: what the program costs on this machine, a row each, medians of several runs. Everything
 * runs in one process and one order, so that ratios between rows hold on a noisy machine.
 */
#include "cli/bench.h"

#include "base/clock.h"
#include "base/memory.h"
#include "core/sampler.h"
#include "inspect/statistics.h"
#include "kernels/bench.h"
#include "tui/app.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_RUNS 9
#define MAX_COLUMNS 4
#define PROMPT_TOKENS 512 // at least
#define DECODE_TOKENS 128
#define SWITCH_TOKENS 256

static void text_cell(const char *text)
{
	printf(strchr(text, ',') ? "\"%s\"" : "%s", text);
}

/* A column that a row may leave empty. */
static void cell(double value)
{
	putchar(',');
	if (value > 0)
		printf("%.4g", value);
}

void bench_print(const struct bench *bench, const struct bench_row *row)
{
	const char *rung = bench->backend->rung(bench->device);
	double of_memory = 0, of_product = 0;
	if (bench->peaks.read_bps > 0)
		of_memory = 100 * row->bytes_per_second / bench->peaks.read_bps;
	if (bench->peaks.bf16_flops > 0)
		of_product = 100 * row->flops / bench->peaks.bf16_flops;
	if (bench->cli->csv) {
		text_cell(row->name);
		putchar(',');
		text_cell(row->what);
		printf(",%s,%d,%.6g,%s,%.4g", rung, bench->backend->threads(bench->device), row->value,
			   row->unit, row->bytes_per_second / 1e9);
		cell(of_memory);
		cell(row->flops / 1e12);
		cell(of_product);
		cell(row->n_launches);
		putchar('\n');
	} else {
		printf("%-22s %-22s %12.4g %-10s", row->name, row->what, row->value, row->unit);
		if (row->bytes_per_second > 0)
			printf(" %8.2f GB/s", row->bytes_per_second / 1e9);
		if (of_memory > 0)
			printf(" %5.1f %%", of_memory);
		if (row->flops > 0)
			printf(" %8.2f TFLOP/s", row->flops / 1e12);
		if (of_product > 0)
			printf(" %5.1f %%", of_product);
		if (row->n_launches > 0)
			printf(" %5d launches", row->n_launches);
		printf("\n");
	}
	fflush(stdout);
}

/* value in `unit`; gigabytes moved per second, 0 = no rate. */
static void print_row(const struct bench *bench, const char *name, const char *what, double value,
					  const char *unit, double gigabytes_per_second)
{
	bench_print(bench, &(struct bench_row){.name = name,
										   .what = what,
										   .value = value,
										   .unit = unit,
										   .bytes_per_second = gigabytes_per_second * 1e9});
}

static double median(double *values, int n)
{
	statistics_sort(values, (size_t)n);
	return statistics_percentile(values, (size_t)n, 0.5);
}

static int bench_load(struct bench *bench, struct error *err)
{
	bool card = bench->backend->profiler != NULL; // has the weights; not a second time
	double open_ms[MAX_RUNS], slice_ms[MAX_RUNS];
	char *directory = cli_model_directory(bench->cli, err);
	struct model_options options = {.budgets_file = bench->cli->budgets_file,
									.lenient = bench->cli->lenient};
	struct upload upload = {.backend = bench->backend, .device = bench->device};
	int done = 0;
	for (; directory && done < MAX_RUNS; done++) {
		uint64_t from = clock_ns();
		struct model *model = model_open(directory, &options, err);
		open_ms[done] = (double)(clock_ns() - from) / 1e6;
		struct slice slice = {0};
		from = clock_ns();
		if (!model || (!card && cli_build_slice(bench->cli, &upload, model,
												&model->elastic.budgets[0], &slice, err) < 0)) {
			model_release(model);
			break;
		}
		slice_ms[done] = (double)(clock_ns() - from) / 1e6;
		slice_free(&slice);
		upload_forget(&upload, &model->checkpoint);
		model_release(model);
	}
	free(directory);
	if (done < MAX_RUNS)
		return -1;
	print_row(bench, "load", "open", median(open_ms, done), "ms", 0);
	if (card)
		print_row(bench, "load", "upload", bench->upload_ms, "ms",
				  bench->uploaded_bytes / (bench->upload_ms * 1e6));
	else
		print_row(bench, "load", "slice", median(slice_ms, done), "ms", 0);
	return 0;
}

/* Reads the prompt through one budget, then writes DECODE_TOKENS greedily. */
static int bench_budget(struct bench *bench, int index, struct error *err)
{
	struct sequence *sequence = &bench->sequence;
	const struct slice *slice = &bench->slices[index];
	struct pick_params greedy = {.top_p = 1, .forced = -1};
	struct picked picked;
	double prefill_tps[3], decode_tps[3];
	int n_decode = sequence->capacity - bench->n_tokens;
	if (n_decode > DECODE_TOKENS)
		n_decode = DECODE_TOKENS;
	for (int run = 0; run < 3; run++) {
		struct prefill prefill = {.workspace = bench->workspace};
		sequence_reset(sequence);
		if (sequence_use(sequence, slice, err) < 0 ||
			prefill_extend(&prefill, sequence, bench->tokens, bench->n_tokens, &greedy, &picked,
						   err) < 0)
			return -1;
		prefill_tps[run] = bench->n_tokens / ((double)prefill.took_ns / 1e9);
		uint64_t from = clock_ns();
		for (int i = 0; i < n_decode; i++) {
			struct lane lane = {
				.sequence = sequence, .tokens = &picked.id, .n_tokens = 1, .logits = LOGITS_LAST};
			if (forward(bench->workspace, &lane, 1, &greedy, &picked, err) < 0)
				return -1;
		}
		decode_tps[run] = n_decode / ((double)(clock_ns() - from) / 1e9);
	}
	double decode = median(decode_tps, 3);
	double prefill = median(prefill_tps, 3);
	struct work prompt = {0, 0};
	if (bench->backend->profiler && bench_apart(bench, slice, &prompt, err) < 0)
		return -1;
	bench_print(bench, &(struct bench_row){.name = "prefill",
										   .what = slice->budget.name,
										   .value = prefill,
										   .unit = "tok/s",
										   .flops = prompt.flops / bench->n_tokens * prefill});
	print_row(bench, "decode", slice->budget.name, decode, "tok/s",
			  decode * (double)slice->cost.bytes_per_token / 1e9);
	return 0;
}

static int bench_switch(struct bench *bench, int from, int to, struct error *err)
{
	double carry_us[MAX_RUNS], reprefill_us[MAX_RUNS];
	int n = bench->n_tokens < SWITCH_TOKENS ? bench->n_tokens : SWITCH_TOKENS;
	for (int run = 0; run < MAX_RUNS; run++) {
		struct prefill prefill = {.workspace = bench->workspace};
		struct sequence *sequence = &bench->sequence;
		sequence_reset(sequence);
		if (sequence_use(sequence, &bench->slices[from], err) < 0 ||
			prefill_extend(&prefill, sequence, bench->tokens, n, NULL, NULL, err) < 0)
			return -1;
		prefill.handoff = HANDOFF_CARRY;
		uint64_t start = clock_ns();
		if (prefill_switch(&prefill, sequence, &bench->slices[to], err) < 0)
			return -1;
		carry_us[run] = (double)(clock_ns() - start) / 1e3;
		prefill.handoff = HANDOFF_REPREFILL;
		start = clock_ns();
		if (prefill_switch(&prefill, sequence, &bench->slices[to], err) < 0)
			return -1;
		reprefill_us[run] = (double)(clock_ns() - start) / 1e3;
	}
	char what[160];
	snprintf(what, sizeof what, "%s>%s", bench->slices[from].budget.name,
			 bench->slices[to].budget.name);
	print_row(bench, "switch carry", what, median(carry_us, MAX_RUNS), "us", 0);
	snprintf(what, sizeof what, "%s>%s/%d", bench->slices[from].budget.name,
			 bench->slices[to].budget.name, n);
	print_row(bench, "switch reprefill", what, median(reprefill_us, MAX_RUNS), "us", 0);
	return 0;
}

/* The budgets side by side, a lane each; the largest MAX_COLUMNS of them. */
struct columns {
	struct bench *bench;
	struct workspace *workspace;
	struct sequence sequences[MAX_COLUMNS];
	int n, n_decode;
};

/* All columns read the prompt, then write greedily, in one pass for all or one column after the
 * other; nanoseconds of the writing. */
static int write_columns(struct columns *c, bool together, uint64_t *took_ns, struct error *err)
{
	struct bench *bench = c->bench;
	struct pick_params greedy[MAX_COLUMNS];
	struct picked picked[MAX_COLUMNS];
	struct lane lanes[MAX_COLUMNS];
	for (int i = 0; i < c->n; i++) {
		struct prefill prefill = {.workspace = c->workspace};
		greedy[i] = (struct pick_params){.top_p = 1, .forced = -1};
		lanes[i] = (struct lane){.sequence = &c->sequences[i],
								 .tokens = &picked[i].id,
								 .n_tokens = 1,
								 .logits = LOGITS_LAST};
		sequence_reset(&c->sequences[i]);
		if (sequence_use(&c->sequences[i], &bench->slices[i], err) < 0 ||
			prefill_extend(&prefill, &c->sequences[i], bench->tokens, bench->n_tokens, greedy,
						   &picked[i], err) < 0)
			return -1;
	}
	uint64_t from = clock_ns();
	int at_once = together ? c->n : 1;
	for (int first = 0; first < c->n; first += at_once)
		for (int t = 0; t < c->n_decode; t++)
			if (forward(c->workspace, lanes + first, at_once, greedy, picked + first, err) < 0)
				return -1;
	*took_ns = clock_ns() - from;
	return 0;
}

static int measure_columns(struct columns *c, struct error *err)
{
	struct bench *bench = c->bench;
	double together_tps[5], apart_tps[5], ratio[5];
	char what[160] = "";
	int n_tokens = c->n * c->n_decode;
	for (int i = 0; i < c->n; i++) {
		size_t used = strlen(what);
		snprintf(what + used, sizeof what - used, "%s%s", i ? "+" : "",
				 bench->slices[i].budget.name);
	}
	for (int run = 0; run < 5; run++) {
		uint64_t together_ns, apart_ns;
		if (write_columns(c, true, &together_ns, err) < 0 ||
			write_columns(c, false, &apart_ns, err) < 0)
			return -1;
		together_tps[run] = n_tokens / ((double)together_ns / 1e9);
		apart_tps[run] = n_tokens / ((double)apart_ns / 1e9);
		ratio[run] = (double)together_ns / (double)apart_ns;
	}
	print_row(bench, "decode together", what, median(together_tps, 5), "tok/s", 0);
	print_row(bench, "decode one by one", what, median(apart_tps, 5), "tok/s", 0);
	print_row(bench, "together/one by one", what, median(ratio, 5), "time", 0);
	return 0;
}

static int bench_columns(struct bench *bench, struct error *err)
{
	struct columns c = {.bench = bench, .n = bench->model->elastic.n_budgets};
	const struct config *config = &bench->model->config;
	int result = 0;
	c.n = c.n < MAX_COLUMNS ? c.n : MAX_COLUMNS;
	c.n_decode = bench->sequence.capacity - bench->n_tokens;
	c.n_decode = c.n_decode < DECODE_TOKENS ? c.n_decode : DECODE_TOKENS;
	c.workspace = workspace_open(config, bench->backend, bench->device, c.n,
								 bench->backend->chunk(bench->device), false, err);
	if (c.workspace == NULL)
		return -1;
	for (int i = 0; i < c.n && result == 0; i++)
		result = sequence_open(&c.sequences[i], config, bench->backend, bench->device,
							   bench->sequence.kv_dtype, bench->sequence.capacity, err);
	if (result == 0)
		result = measure_columns(&c, err);
	for (int i = 0; i < c.n; i++)
		sequence_close(&c.sequences[i]);
	workspace_close(c.workspace);
	return result;
}

/* Two turns of the workbench at 120x40 without a log: what a frame costs, drawing's share of decode
 * time at the screen's 12 frames a second, and how long the first token takes to appear. */
static int bench_screen(struct bench *bench, struct error *err)
{
	struct tui_measured measured = {0};
	char *directory = cli_model_directory(bench->cli, err);
	struct tui_options options = {
		.directory = directory,
		.engine = {.backend = bench->backend},
		.settings = (struct tui_setting[]){{"pace", "100"}, {"n", "64"}},
		.n_settings = 2,
		.steps = "type Sort 84, 13, 55, 20, 7.\nkey Enter\nwait turn\n"
				 "type What is 4827 + 396?\nkey Enter\nwait turn\n",
		.measured = &measured,
		.rows = 40,
		.columns = 120,
		.no_log = true,
	};
	int result = directory && cli_device_options(bench->cli, &options.engine.device, err) == 0
					 ? tui_run(&options, err)
					 : -1;
	free(directory);
	if (result < 0)
		return -1;
	double frame_us = (double)measured.draw_ns / 1e3 / measured.frames;
	print_row(bench, "screen", "first paint", (double)measured.first_paint_ns / 1e6, "ms", 0);
	print_row(bench, "screen", "frame 120x40", frame_us, "us", 0);
	print_row(bench, "screen", "share at 12 frames/s", frame_us * 12 / 1e4, "%", 0);
	print_row(bench, "screen", "first token", (double)measured.waited_ns[0] / 1e6, "ms", 0);
	print_row(bench, "screen", "first token later", (double)measured.waited_ns[1] / 1e6, "ms", 0);
	return 0;
}

static void kernel_row(void *user, const char *name, const char *rung, double ns, double bytes)
{
	const struct bench *bench = user;
	char what[64];
	snprintf(what, sizeof what, "%s", rung);
	print_row(bench, name, what, ns / 1e3, "us", bytes / ns);
}

static int bench_all(struct bench *bench, struct error *err)
{
	int n_budgets = bench->model->elastic.n_budgets;
	if (bench_load(bench, err) < 0 || (bench->backend->profiler && bench_peaks(bench, err) < 0))
		return -1;
	for (int i = 0; i < n_budgets; i++)
		if (bench_budget(bench, i, err) < 0)
			return -1;
	if (n_budgets > 1 &&
		(bench_columns(bench, err) < 0 || bench_switch(bench, 0, n_budgets - 1, err) < 0 ||
		 bench_switch(bench, n_budgets - 1, 0, err) < 0))
		return -1;
	return bench->backend == &backend_cpu ? kernels_bench(kernel_row, bench, err) : 0;
}

/* Of the prompt: a card reads two of its chunks. */
static int prompt_tokens(const struct bench *bench)
{
	int n = bench->backend->profiler ? 2 * bench->backend->chunk(bench->device) : 0;
	return n < PROMPT_TOKENS ? PROMPT_TOKENS : n > BENCH_PROMPT_MAX ? BENCH_PROMPT_MAX : n;
}

static int bench_open(struct bench *bench, const struct cli *cli, struct error *err)
{
	bench->cli = cli;
	return (bench->model = cli_open_model(cli, err)) &&
				   (bench->backend = cli_device(cli, &bench->options, err)) &&
				   (bench->device = bench->backend->open(&bench->options, err))
			   ? 0
			   : -1;
}

/* What all but --batch runs over. */
static int bench_prepare(struct bench *bench, struct error *err)
{
	const struct cli *cli = bench->cli;
	struct device_gauges gauges;
	const struct config *config = &bench->model->config;
	int capacity = prompt_tokens(bench) + DECODE_TOKENS;
	if (cli->context > 0 && capacity > cli->context)
		capacity = (int)cli->context;
	if (capacity > config->max_position_embeddings)
		capacity = config->max_position_embeddings;
	bench->n_tokens = capacity > 2 * DECODE_TOKENS ? capacity - DECODE_TOKENS : capacity / 2;
	for (int i = 0; i < bench->n_tokens; i++) // any ids will do, the same in every run
		bench->tokens[i] = (int32_t)((i * 7919u + 13u) % (unsigned)config->vocab_size);
	struct upload upload = {.backend = bench->backend, .device = bench->device};
	uint64_t from = clock_ns();
	for (int i = 0; i < bench->model->elastic.n_budgets; i++)
		if (cli_build_slice(cli, &upload, bench->model, &bench->model->elastic.budgets[i],
							&bench->slices[i], err) < 0)
			return -1;
	bench->backend->begin(bench->device, 0); // waits for the upload
	if (bench->backend->finish(bench->device, err) < 0)
		return -1;
	bench->upload_ms = (double)(clock_ns() - from) / 1e6;
	bench->backend->gauges(bench->device, &gauges);
	bench->uploaded_bytes = (double)gauges.weights_bytes;
	bench->workspace = workspace_open(config, bench->backend, bench->device, 1,
									  bench->backend->chunk(bench->device), false, err);
	if (!bench->workspace)
		return -1;
	return sequence_open(&bench->sequence, config, bench->backend, bench->device,
						 bench->options.kv_dtype, capacity, err);
}

int cli_bench(const struct cli *cli)
{
	struct error err = {0};
	struct bench *bench = mem_new(1, sizeof *bench, &err);
	if (!bench)
		return cli_fail(&err);
	int result = bench_open(bench, cli, &err);
	if (result == 0 && !cli->batch)
		result = bench_prepare(bench, &err);
	if (result == 0 && cli->csv)
		printf(BENCH_CSV "\n");
	if (result == 0)
		result = cli->batch ? bench_batch(bench, &err) : bench_all(bench, &err);
	bool speaks = bench->model && bench->model->tokenizer && !cli->batch;
	sequence_close(&bench->sequence);
	workspace_close(bench->workspace);
	for (int i = 0; i < MAX_BUDGETS; i++)
		slice_free(&bench->slices[i]);
	model_release(bench->model);
	if (result == 0 && speaks) // has a model of its own: a card need not hold two
		result = bench_screen(bench, &err);
	if (bench->device)
		bench->backend->close(bench->device);
	free(bench);
	return result < 0 ? cli_fail(&err) : EXIT_DONE;
}
