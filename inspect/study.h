/*
 * A study: every task answered in every cell of the grid, through an engine, one turn a row. Tasks
 * go outermost, so that noise of the machine falls on all cells alike, what was done when it stops
 * is balanced, and cells are compared on the same tasks (paired). A turn starts from an empty
 * sequence, so that no row profits from the one before.
 */
#ifndef INSPECT_STUDY_H
#define INSPECT_STUDY_H

#include "core/engine.h"
#include "inspect/accuracy.h"
#include "inspect/grid.h"
#include "inspect/tasks.h"

struct study_row {
	bool done, right, failed; // failed: the turn ended in an error, and counts as wrong
	enum stop_reason reason;
	uint64_t seed;                           // of this turn: `chat --seed` repeats it
	int prompt_tokens, think_tokens, tokens; // tokens: all new ones, thoughts included
	int steps;                               // tokens that decode_ns is about
	int switches;
	uint64_t prefill_ns, switch_ns, decode_ns, first_ns, total_ns;
	char *text; // the answer, NUL-terminated; owned
};

struct study {
	const struct tasks *tasks; // borrowed
	const struct cell *cells;  // borrowed, (n_cells)
	size_t n_cells, baseline;  // the cell that others are compared with
	struct turn_settings base; // sampling, max_tokens; the cells decide the rest
	struct study_row *rows;    // (tasks->n, n_cells)
	size_t n_done, n_had;      // rows that are there; of them from before this run
};

/* largest: the name of the largest budget; the baseline is the first cell in which it does
 * everything and without a limit, if there is one. cells and tasks must outlive the study. */
int study_init(struct study *study, const struct tasks *tasks, const struct cell *cells,
			   size_t n_cells, const struct turn_settings *base, const char *largest,
			   struct error *err);
void study_free(struct study *study); // takes {0}

struct study_row *study_row(const struct study *study, size_t task, size_t cell);

/* Puts a row that is known already (row->text becomes the study's). */
void study_put(struct study *study, size_t task, size_t cell, struct study_row *row);

/* Who watches a run; all may be NULL. */
struct study_watch {
	int (*row)(void *user, const struct study *study, size_t task, size_t cell, struct error *err);
	bool (*cancelled)(void *user);                  // looked at 10 times a second and more
	void (*note)(void *user, const char *sentence); // of a turn that failed, of the engine
	void *user;
};

/* Runs what is not done. 0 = all rows are there, 1 = cancelled (the running turn is dropped, rows
 * stay), -1 = the engine refused or `row` failed. */
int study_run(struct study *study, struct engine *engine, const struct study_watch *watch,
			  struct error *err);

struct study_summary { // of one cell's rows that are there
	size_t n, right, failed;
	struct interval interval;       // of the accuracy, 95 %
	size_t n_pairs, lost, won;      // tasks that the baseline has too; right there only, here only
	struct mcnemar mcnemar;         // against the baseline
	size_t n_twin, n_same;          // tasks that the same cell with reprefill has; same answer
	double tokens, think_tokens;    // mean
	double seconds, median_seconds; // of an answer, from request to its end
	double first_seconds;           // median time to the first token
	double tps;                     // decode steps a second of decoding
	double switch_ms;               // median of turns that switched; NAN = none did
	bool front; // no other cell is right as often in less time, or more often in the same
};

/* summaries: (n_cells) */
int study_summarise(const struct study *study, struct study_summary *summaries, struct error *err);

#endif
