/*
 * A file of scores in the form of importance.safetensors that stands apart from the checkpoint:
 * measured by inspect/calibrate.h, kept in the cache or wherever the user put it. What it must hold
 * for a checkpoint, by name and shape, is one table, which the writer, the reader and the check of
 * a foreign file share.
 */
#ifndef INSPECT_SCORES_H
#define INSPECT_SCORES_H

#include "core/model.h"

#define SCORES_NAME_BYTES 96
#define SCORES_MAX 2 // files that a view holds against each other

enum score_kind {
	SCORE_HIDDEN,        // [hidden]
	SCORE_HIDDEN_LAYERS, // [L, hidden]
	SCORE_CHANNELS,      // of an FFN axis: [F], or [E, F] of routed experts
	SCORE_HEADS,         // of Mamba or attention, Mamba's head channels: [heads], [head_dim]
	SCORE_REAP,          // [E]
	SCORE_COUNT,         // [E]
	SCORE_LAYERS,        // [L]
};

struct score_row {
	char name[SCORES_NAME_BYTES]; // "importance.4.mamba_num_heads"
	enum score_kind kind;
	enum axis axis; // N_AXES of SCORE_LAYERS
	int layer;      // -1 = the model's
	int n_dims;
	int64_t shape[2];
};

/* The tensors that a checkpoint's scores have, in *rows (free()); returns how many, or -1. */
int scores_table(const struct config *config, struct score_row **rows, struct error *err);

struct scores {
	struct checkpoint file;
	char text[SCORES_NAME_BYTES]; // what they were measured on: names of texts, else of the file
	int64_t tokens, samples;      // 0 = the file does not say
	char math[8];                 // "exact", "fast", "" = it does not say
	struct error passed_over;     // of "cache": why not a newer file, "" = there is none
};

/* Refuses a file without scores, one whose recorded checkpoint is another than the model's, and one
 * with scores of a layer, axis or shape that the model does not have; the sentence names both. */
int scores_open(struct scores *scores, const char *path, const struct model *model,
				struct error *err);
void scores_close(struct scores *scores); // takes {0}

/* Refuses what no score is, NaN and what is negative, naming tensor and element. t is F32. */
int scores_check(const char *name, const struct tensor *t, struct error *err);

/* Where scores of checkpoints are kept: $XDG_CACHE_HOME/elastiscope/importance. free(). */
char *scores_folder(struct error *err);

/* A file, or "cache": the newest that was measured on the checkpoint and can be read; why a newer
 * one can't is in passed_over. */
int scores_open_named(struct scores *scores, const char *name, const struct model *model,
					  struct error *err);

#endif
