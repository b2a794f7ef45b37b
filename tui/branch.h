/*
 * The tree of the ways that a conversation went. A way leaves another one inside an answer (another
 * token there, another budget perhaps), for another answer to the same message (:retry), or for
 * another message (:undo); it grows with every turn that follows. In the conversation all of them
 * are paths through one tree of messages; here stands what messages do not keep: the transcript and
 * the ids of each way while another one is shown.
 */
#ifndef TUI_BRANCH_H
#define TUI_BRANCH_H

#include "tui/tape.h"
#include "tui/transcript.h"

struct talk;

#define BRANCH_NOTE_BYTES 96
#define BRANCH_HEAD_BYTES 64
#define BRANCH_LEVELS 12 // of the tree that a line shows

struct branch {
	int from;                     // the way that it left, -1 = the first
	int at;                       // token where it did, -1 = before one was written
	int leaf;                     // its last message, while it is not shown
	int turn;                     // of the engine, that wrote last; -1 = none of this log
	char note[BRANCH_NOTE_BYTES]; // "large 'dog' for 'cat'"
	char head[BRANCH_HEAD_BYTES]; // how its own text begins, one line
	struct transcript transcript; // while it is not shown
	struct tape tape;
};

struct branches {
	struct branch *items;
	size_t n, capacity; // 0 = nobody has branched
	size_t active;      // that is shown
	bool apart;         // :undo took messages of it back: what is said next is a new way
	bool fresh;         // the active one is being written for the first time
	bool heading;       // and its head with it
	bool moved;         // another one was shown since the last turn
	size_t *steps;      // ways in the order they were shown: undo and redo
	size_t n_steps, step, steps_capacity;
};

void branches_free(struct branches *branches); // takes {0}

/* Token `at` of the last answer becomes id, and this budget goes on from there. */
int talk_branch(struct talk *talk, int at, int32_t id, const char *budget, struct error *err);

/* Another way becomes the conversation. */
enum branch_walk {
	WALK_NEXT, // in the order of the tree, the first behind the last
	WALK_PREVIOUS,
	WALK_PARENT, // that the one shown left
	WALK_UNDO,   // back to the one shown before, or to what :undo took back
	WALK_REDO,
};
int talk_walk_branches(struct talk *talk, enum branch_walk walk, struct error *err);
int talk_show_branch(struct talk *talk, int number, struct error *err); // from 1

/* Called by talk. A message was taken back or is about to be: the way as it is stays. */
int branches_part(struct talk *talk, struct error *err);
/* A turn was submitted: where branches_part() went before, it begins a way. head NULL: its text. */
int branches_send(struct talk *talk, int at, const char *note, const char *head, struct error *err);
void branches_taken_back(struct talk *talk); // that turn left nothing; a fresh way goes again
/* Events of the shown way, once everything else has taken them. */
void branches_event(struct talk *talk, const struct event *event);

/* Called by a replay or a resume. */
int branches_add(struct talk *talk, const struct branch *branch, struct error *err);
int branches_show(struct talk *talk, size_t i, struct error *err); // without a word
int branches_keep(struct talk *talk, struct error *err); // what is shown, as the active one
void branch_add_head(struct branch *branch, const char *bytes, size_t length); // one line of it
void branch_quote(const char *bytes, size_t length, char out[32]); // a token's text, quoted

/* The tree as it is drawn, first to last: indices into items, free(); NULL without memory. */
size_t *branches_order(const struct branches *branches);
/* A line of it: "3 |- @41 small ' dog' for ' cat': dog sat". */
void branches_line(const struct branches *branches, size_t i, bool ascii, struct text *out);

#endif
