/*
 * Every score of importance.safetensors measured on texts, with the parent's full width. What each
 * score is: inspect/sums.h. Texts are read in windows, each from an empty state; a window never
 * holds parts of two texts.
 *
 * The work is groups x windows: a group is the parent and up to three copies of it that leave one
 * layer out, side by side as lanes of one pass, so that no logits are kept. The parent's own scores
 * come from the first group. Finished parts are written every few seconds to PATH.part, and a
 * calibration that was stopped goes on behind the last of them; at most one window of one group is
 * read again.
 */
#ifndef INSPECT_CALIBRATE_H
#define INSPECT_CALIBRATE_H

#include "inspect/scores.h"
#include "kernels/backend.h"

struct calibrate_text {
	char *name;
	int32_t *ids;
	int n;
};

struct calibrate_texts { // starts as {0}
	struct calibrate_text *items;
	size_t n, capacity;
};

/* A file of UTF-8 text, of ids for a model without a tokenizer (model_encode()). special: special
 * tokens in it are those of the chat format, else text. Empty or binary ones are refused. */
int calibrate_add_file(struct calibrate_texts *texts, const char *path, bool special,
					   const struct model *model, struct error *err);
/* Ids, which become the texts'. */
int calibrate_add_ids(struct calibrate_texts *texts, const char *name, int32_t *ids, size_t n,
					  struct error *err);
void calibrate_texts_free(struct calibrate_texts *texts); // takes {0}

struct calibrate_plan {
	const struct model *model;
	const struct calibrate_texts *texts;
	int window; // tokens; 0 = CALIBRATE_WINDOW, or the model's context where that is less
	struct device_options device;
	/* Called between passes with tokens read and to read, all groups counted; `done` begins where a
	 * stopped calibration goes on. Non-zero stops. May be NULL. */
	int (*step)(void *user, int64_t done, int64_t total);
	void *user;
};

#define CALIBRATE_WINDOW 4096

struct calibration {
	char *path;              // of the scores, in the cache; free()
	bool from_cache;         // they were there already
	struct error damaged;    // why what was there is measured again; set before the first step
	int64_t tokens, samples; // of the texts; windows
	uint64_t took_ns;
};

/* -1 with "stopped ..." when step said so; what was done is kept. */
int calibrate_run(struct calibration *calibration, const struct calibrate_plan *plan,
				  struct error *err);
void calibration_free(struct calibration *calibration); // takes {0}

/* The same in the background, on one thread: a struct job whose result is the calibration. */
struct calibrate_job;

#endif
