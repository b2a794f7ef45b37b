/*
 * Where the importance pane's scores come from: the checkpoint, files that were measured, norms of
 * weights (large ones in a job), and a calibration that runs behind the screen.
 */
#ifndef TUI_IMPORTANCE_WORK_H
#define TUI_IMPORTANCE_WORK_H

#include "inspect/importance_job.h"
#include "tui/canvas.h"
#include "tui/talk.h"

#define IMPORTANCE_AT_ONCE_BYTES (8ll << 20)

struct importance_work {
	const struct talk *talk;
	int64_t at_once_bytes;            // norms of so many bytes of weights take no time worth a job
	struct curve_job *waiting, *done; // done: nobody has taken its result yet
	struct importance_query stopped;  // the user stopped this one: it is not begun again
	bool is_stopped;
	struct calibrate_job *calibrating;
	uint64_t start_ns; // of its first progress
	int start_done;
	struct scores sources[SCORES_MAX];
	int n_sources, source; // source: 0 = the checkpoint's, i = sources[i - 1]
};

/* The scores that the pane shows; NULL = the checkpoint's own. */
const struct scores *importance_source(const struct importance_work *work);

bool importance_same(const struct importance_query *a, const struct importance_query *b);

/* 1: *curve is there; 0: a job is at it, or the user has stopped it; -1: err. */
int importance_want(struct importance_work *work, const struct importance_query *query,
					struct importance_curve *curve, struct error *err);

/* "FILE|cache [FILE]", or "off"; what was there stays where a file is refused. */
int importance_load(struct importance_work *work, const char *arguments, struct error *err);
int importance_calibrate(struct importance_work *work, const char *arguments, struct error *err);

bool importance_work_busy(const struct importance_work *work);
bool importance_work_stop(struct importance_work *work); // the norms first, then the calibration

/* True: the job was of this work. said: what the user should know, or "". */
bool importance_work_job(struct importance_work *work, struct job *job, char *said, size_t size);

/* "measuring: 1,234 of 5,000 tokens, 800 a second, 0:05 left"; nothing where nothing runs. */
void importance_progress(struct importance_work *work, char *out, size_t size);

void importance_work_close(struct importance_work *work); // forgets all, another model comes

#endif
