/*
 * The inside of engine_local: one thread that owns the device, the open model and its sequences,
 * and what it shares with its owner (queue, journal, the newest gauges and expert counts). Only
 * engine_local.c, worker.c, opening.c, said.c and track.c include this.
 *
 * Everything happens between two passes: requests are looked at between tokens and between prefill
 * chunks, and every wait is a wait on the queue, so that a key acts at once.
 */
#ifndef CORE_WORKER_H
#define CORE_WORKER_H

#include "core/journal.h"
#include "core/prefill.h"
#include "core/request.h"
#include "core/stage.h"
#include "core/track.h"

struct worker {
	struct engine_options options;
	struct request_queue queue;
	struct journal *journal;
	uint64_t opened_ns; // clock_ns() at 0 of all events

	pthread_mutex_t shared; // guards gauges and experts
	struct gauges gauges;
	struct expert_counts experts;

	// the thread's own
	struct device *device; // opened with the first model
	struct stage stage;    // .model NULL = none
	struct track tracks[MAX_SEQUENCES];
	double pace;     // tokens/s of the largest budget, 0 = as fast as it goes
	uint64_t due_ns; // not before: the next token while paced
	bool paused;
	int steps; // that may be made while paused
	int n_turns;
	int first_turn; // of this conversation: what was before stands in another log
	int *parents;   // (n_parents): the turn that each follows, -1 = none
	int n_parents;  // n_turns, unless memory was short
	size_t parents_capacity;
	uint64_t memory_ns; // of the last EV_MEMORY
	bool log_failed;
	bool upload_stopped; // by the user: see opening_stopped()
	uint64_t upload_said_ns;
};

void worker_run(struct worker *worker); // until the queue ends

/* Records and appends an event; at_ns is set here. */
void worker_emit(struct worker *worker, struct event *event);
void worker_say(struct worker *worker, enum event_type type, int seq, const char *sentence);
void worker_memory(struct worker *worker);    // EV_MEMORY
void worker_say_masks(struct worker *worker); // EV_MASK of those that came into use

/* What may be done in the middle of a turn is done. Called between chunks and tokens. */
void worker_look(struct worker *worker);

/* The gauges of a track that has changed. */
void worker_gauge(struct worker *worker, const struct track *track);

#endif
