/*
 * Other ways that a conversation went: at a token of the last answer another one was put, and
 * another budget perhaps, and the model went on from there. In the conversation the answers are
 * siblings; here stands what the tree of messages does not keep, the transcript and the ids of each
 * way while another one is shown.
 */
#ifndef TUI_BRANCH_H
#define TUI_BRANCH_H

#include "tui/tape.h"
#include "tui/transcript.h"

struct talk;

struct branch {
	int from;                     // the branch that it left, -1 = the first way
	int at;                       // where: index of the token
	int leaf;                     // last message, while it is not the active one
	char note[96];                // "large 'dog' for 'cat'"
	struct transcript transcript; // while it is not the active one
	struct tape tape;
};

struct branches {
	struct branch *items;
	size_t n, capacity; // 0 = nobody has branched
	size_t active;
	bool begins; // the next EV_TURN is that of a new branch
};

void branches_free(struct branches *branches); // takes {0}

/* Token `at` of the last answer becomes id, and this budget goes on from there. */
int talk_branch(struct talk *talk, int at, int32_t id, const char *budget, struct error *err);
/* The next (1) or the previous (-1) branch becomes the conversation. */
int talk_walk_branches(struct talk *talk, int step, struct error *err);
/* Back to the branch that the active one left; both stay. */
int talk_leave_branch(struct talk *talk, struct error *err);

/* Called by talk_event() at EV_TURN: gives a new branch what it has in common with the old. */
void branch_begun(struct talk *talk, const struct event *turn);

#endif
