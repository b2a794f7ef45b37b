/* What the commands share that let the engine run one request and wait for its end. */
#ifndef CLI_RUN_H
#define CLI_RUN_H

#include "cli/command.h"
#include "core/reply.h"
#include "sessions/log.h"

#define LOOK_MS 100 // how often Ctrl-C is looked for

struct run_eye {
	void (*see)(void *user, const struct event *event); // NULL = nobody looks
	void *user;
};

/* From now on Ctrl-C asks for a stop (the text so far is kept) instead of ending the process. */
void run_catch_interrupt(void);
bool run_interrupted(void);

/* Submits and takes events until EV_STOP. see (may be NULL) is shown each; notices go to stderr
 * unless -q, and so does an error that did not end the turn. -1: the request was refused or the
 * turn failed; err says why. */
int run_request(const struct cli *cli, struct engine *engine, const struct request *request,
				struct reply *reply, struct run_eye eye, struct error *err);

/* The turn in one line, to stderr unless -q. */
void run_note(const struct cli *cli, const struct reply *reply, uint64_t seed);

#endif
