/*
 * One sequence and the turn that runs on it. A track goes idle -> accepted (EV_TURN is out) ->
 * running (prompt read, first token out) -> idle (EV_STOP is out, exactly one). Belongs to the
 * worker.
 */
#ifndef CORE_TRACK_H
#define CORE_TRACK_H

#include "core/forward.h"
#include "core/request.h"
#include "core/turn.h"

struct worker;

enum track_state { TRACK_IDLE, TRACK_ACCEPTED, TRACK_RUNNING };

/* What was said before, so that only new messages become events and turns know their parent. */
struct said {
	uint64_t hash; // of a message's role and text
	int turn;      // that made this answer, -1 = somebody else did
};

struct track {
	struct worker *worker;
	int seq;
	enum track_state state;
	bool stopping;                // as soon as possible
	struct sequence sequence;     // .config NULL = not open
	struct request_copy *request; // of the turn
	struct turn turn;
	int id;                // of the turn
	struct picked pending; // the token to be read next
	struct decode_state decode;
	struct text text;   // of one token
	struct id_list ids; // the prompt; then of no use
	struct taps taps;
	enum phase tapped; // phase of what is being read
	int32_t *cuts;     // positions where a chunk ended
	size_t n_cuts, cuts_capacity;
	struct said *said;
	size_t n_said, said_capacity;
	uint64_t system_hash;
	uint64_t first_ns; // from request to first token
};

void track_init(struct track *track, struct worker *worker, int seq);
void track_finish(struct track *track); // closes the sequence, frees all

/* Forgets the conversation; the memory of sequence 0 stays, a column's goes. Idle only. */
void track_clear(struct track *track);

/* Becomes a copy of `from`: what was said, and the state with its snapshots. Both idle. A failure
 * (-1) is an EV_ERROR and leaves nothing said. */
int track_fork(struct track *track, const struct track *from);

/* The last turn of what was said, -1 = none. */
int track_last_turn(const struct track *track);

/* Messages that nobody here made or answers, as events. */
void track_say(struct track *track, const struct conversation *conversation);

/* Takes a TURN or COMPLETE over: emits EV_TURN and the new messages. */
void track_accept(struct track *track, struct request_copy *request);

/* Reads the prompt and takes the first token. */
void track_start(struct track *track);

/* Other settings for the running turn; bad ones are an EV_ERROR and change nothing. */
void track_set(struct track *track, const struct turn_settings *settings);

/* Makes the budget that should read next the running one. False: the turn is over. */
bool track_ready(struct track *track);

/* The pending token as a lane, and how to pick the next one. */
struct lane track_lane(struct track *track, struct pick_params *params);

/* The pass is done: the next token is this; pass_ns: how long the pass took, the same for all that
 * were in it, 0 = the token came out of a prefill. */
void track_take(struct track *track, const struct picked *picked, uint64_t pass_ns);

/* Ends the turn; error: its sentence becomes an EV_ERROR first, NULL = none. */
void track_stop(struct track *track, enum stop_reason reason, const struct error *error);

#endif
