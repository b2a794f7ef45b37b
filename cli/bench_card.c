#include "cli/bench.h"
#include <stdio.h>

#define DECODED 8

int bench_peaks(struct bench *bench, struct error *err)
{
	const struct profiler *profiler = bench->backend->profiler;
	struct peaks peaks;
	if (profiler->peaks(bench->device, &peaks, err) < 0)
		return -1;
	bench_print(bench, &(struct bench_row){.name = "copy",
										   .what = "the card's memory",
										   .value = peaks.copy_bps / 1e9,
										   .unit = "GB/s",
										   .bytes_per_second = peaks.copy_bps});
	bench_print(bench, &(struct bench_row){.name = "read",
										   .what = "the card's memory",
										   .value = peaks.read_bps / 1e9,
										   .unit = "GB/s",
										   .bytes_per_second = peaks.read_bps});
	bench_print(bench, &(struct bench_row){.name = "product",
										   .what = "dense BF16",
										   .value = peaks.bf16_flops / 1e12,
										   .unit = "TFLOP/s",
										   .flops = peaks.bf16_flops});
	bench->peaks = peaks;
	return 0;
}

static void print_group(const struct bench *bench, const char *what, const struct profiled *row,
						int n)
{
	double seconds = row->ns / 1e9;
	bench_print(bench, &(struct bench_row){
						   .name = row->name[0] ? "kernel" : "pass",
						   .what = what,
						   .value = row->ns / 1e3 / n,
						   .unit = "us",
						   .bytes_per_second = seconds > 0 ? row->work.bytes / seconds : 0,
						   .flops = seconds > 0 ? row->work.flops / seconds : 0,
						   .n_launches = (row->n_launches + n / 2) / n,
					   });
}

/* One row a kind of group, then their sum; times, work and launches are one pass's of n. */
static struct work print_groups(const struct bench *bench, const char *budget, const char *phase,
								int n)
{
	int n_rows;
	const struct profiled *rows = bench->backend->profiler->stop(bench->device, &n_rows);
	struct profiled sum = {.n_groups = 0};
	char what[160];
	for (int i = 0; i < n_rows; i++) {
		snprintf(what, sizeof what, "%s %s: %s", budget, phase, rows[i].name);
		print_group(bench, what, &rows[i], n);
		sum.ns += rows[i].ns;
		sum.n_launches += rows[i].n_launches;
		sum.work.bytes += rows[i].work.bytes;
		sum.work.flops += rows[i].work.flops;
	}
	snprintf(what, sizeof what, "%s %s", budget, phase);
	print_group(bench, what, &sum, n);
	return (struct work){sum.work.bytes / n, sum.work.flops / n};
}

int bench_apart(struct bench *bench, const struct slice *slice, struct work *prompt,
				struct error *err)
{
	const struct profiler *profiler = bench->backend->profiler;
	struct sequence *sequence = &bench->sequence;
	struct prefill prefill = {.workspace = bench->workspace};
	struct pick_params greedy = {.top_p = 1, .forced = -1};
	struct picked picked;
	int chunk = workspace_chunk(bench->workspace), n = bench->n_tokens;
	int n_decode = sequence->capacity - n < DECODED ? sequence->capacity - n : DECODED;
	int result = 0;

	sequence_reset(sequence);
	/* rows that the caches hold before a chunk, on average */
	if (sequence_use(sequence, slice, err) < 0 ||
		profiler->start(bench->device, n > chunk ? (n - chunk) / 2 : 0, err) < 0)
		return -1;
	result = prefill_extend(&prefill, sequence, bench->tokens, n, &greedy, &picked, err);
	*prompt = print_groups(bench, slice->budget.name, "prefill", 1);
	if (result < 0 || profiler->start(bench->device, n + n_decode / 2, err) < 0)
		return -1;
	for (int i = 0; i < n_decode && result == 0; i++) {
		struct lane lane = {
			.sequence = sequence, .tokens = &picked.id, .n_tokens = 1, .logits = LOGITS_LAST};
		result = forward(bench->workspace, &lane, 1, &greedy, &picked, err);
	}
	print_groups(bench, slice->budget.name, "decode", n_decode);
	return result;
}
