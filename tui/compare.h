/*
 * Two or three budgets answer the same prompts side by side. A column is a talk of its own, with
 * its own history, on the engine's sequence 1..3, so that columns of one checkpoint decode together
 * with one pass over the weights; a column of another checkpoint (DIR#BUDGET) has an engine of its
 * own. Columns begin as copies of the conversation; one of them may become it.
 */
#ifndef TUI_COMPARE_H
#define TUI_COMPARE_H

#include "tui/app.h"
#include "tui/talk.h"

#define COMPARE_COLUMNS 3
#define COMPARE_FIRST_SEQ 1

struct compare_place {
	int turn;     // of the comparison, from 1 on; 0 = nowhere
	int token;    // its number in the turn
	size_t entry; // of the column's transcript
	size_t offset;
};

struct compare_column {
	struct talk talk;
	bool own_engine;                        // talk.engine is closed with the column
	char budget[BUDGET_NAME_BYTES];         // as the file names it, once that is known
	char *directory;                        // of another checkpoint, NULL = the conversation's
	int64_t weights_bytes, bytes_per_token; // of the budget, derived; -1 = not known yet
	struct sequence_bytes state;            // of its sequence, as allocated; all 0 = not told yet
	char refused[512];                      // why it can't be compared; "" = it can
	int n_before;                           // messages that came from the conversation
	size_t n_entries;                       // of the transcript, likewise
	struct compare_place own, base;         // where it parted from column 0 in an earlier turn
};

struct compare {
	struct compare_column columns[COMPARE_COLUMNS];
	int n;               // 0 = nothing is compared
	int base;            // the conversation's last message when it began
	bool text_only;      // whatever the vocabularies: texts are compared, probabilities are not
	bool lenient;        // how checkpoints are opened
	struct model *model; // retained: the conversation's, whose vocabulary the columns must have
};

struct compare_plan {
	const char *const *specs; // (n): BUDGET or DIR#BUDGET
	int n;                    // 2 or 3
	bool text_only;
};

/* What was compared before goes, but only once all columns are there: on -1 it stays. options: how
 * engines are opened. A checkpoint that turns out to have another vocabulary, once it is open,
 * makes its column a refused one. */
int compare_open(struct compare *compare, const struct talk *talk, const struct compare_plan *plan,
				 const struct tui_options *options, struct error *err);
/* Ends it: the columns' sequences are released in the conversation's engine, too. */
void compare_end(struct compare *compare, const struct talk *talk);
void compare_close(struct compare *compare); // takes {0}; says nothing to that engine

int compare_send(struct compare *compare, const struct talk *talk, const char *text, size_t length,
				 struct error *err);
bool compare_stop(struct compare *compare); // false = nothing was running
bool compare_running(const struct compare *compare);

bool compare_opening(const struct compare *compare); // a checkpoint of a column is

/* What the columns' own engines hold: weights, state, scratch, n_sequences; the rest 0. */
struct memory_use compare_memory(const struct compare *compare);

/* An event of the conversation's engine. True: it was a column's. */
bool compare_event(struct compare *compare, const struct event *event);
/* Takes the events of the columns' own engines. True: there were some. */
bool compare_drain(struct compare *compare);

/* The last message of all columns and its answers go; its text is appended to `out`. */
int compare_undo(struct compare *compare, struct text *out, struct error *err);

/* This column becomes the conversation, and nothing is compared any more. One of another checkpoint
 * opens that, and its state is made again by the next turn's prefill. */
int compare_keep(struct compare *compare, int column, struct talk *talk, struct error *err);

/* Where what `column` and column 0 wrote in this comparison parted first. False: they have not, so
 * far. */
bool compare_divergence(const struct compare *compare, int column, struct compare_place *own,
						struct compare_place *base);

#endif
