/*
 * Inside `elastiscope bench`: what is measured on, and how a row is printed. bench_card.c has what
 * only a card can tell: its peaks, and passes taken apart; bench_batch.c decodes many sequences.
 */
#ifndef CLI_BENCH_H
#define CLI_BENCH_H

#include "cli/command.h"
#include "core/prefill.h"
#include "kernels/profile.h"

#define BENCH_PROMPT_MAX 4096

struct bench {
	const struct cli *cli;
	struct model *model;
	const struct backend *backend;
	struct device *device;
	struct device_options options;
	struct sequence sequence;
	struct workspace *workspace;
	struct slice slices[MAX_BUDGETS];
	int32_t tokens[BENCH_PROMPT_MAX];
	int n_tokens;       // that fit
	struct peaks peaks; // of a card, else 0
	double upload_ms, uploaded_bytes;
};

#define BENCH_CSV                                                                                  \
	"row,what,rung,threads,value,unit,gb_per_s,of_memory,tflop_per_s,of_product,launches"

struct bench_row {
	const char *name, *what;
	double value;
	const char *unit;
	double bytes_per_second, flops; // per second; 0 = not said
	int n_launches;                 // 0 = not said
};

/* Shares of the card's peaks (percent) stand beside the rates where they were measured. */
void bench_print(const struct bench *bench, const struct bench_row *row);

/* Rows: how fast the card copies and reads its memory and multiplies. */
int bench_peaks(struct bench *bench, struct error *err);

/* Rows of every kind of group, and of whole passes: the prompt's, and per token of some decoded
 * behind it. work: of the whole prompt. */
int bench_apart(struct bench *bench, const struct slice *slice, struct work *prompt,
				struct error *err);

/* --batch: sequences decoded together, budget by budget. */
int bench_batch(struct bench *bench, struct error *err);

#endif
