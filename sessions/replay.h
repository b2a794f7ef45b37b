/*
 * An engine that plays a session log: the same screens, without a model. Events come when they came
 * (times the speed; what the user took between two turns is cut to a second), with the text,
 * the times and the budgets that were recorded. EV_OPENED has no model: its text is the session
 * line (session_origin_read).
 *
 * Requests: OPEN starts it; PAUSE and STEP work; STOP goes to the end of the turn at once; settings
 * and the like are ignored; a turn is refused.
 */
#ifndef SESSIONS_REPLAY_H
#define SESSIONS_REPLAY_H

#include "core/engine.h"
#include "sessions/session.h"

struct replay_options {
	const struct session *session; // borrowed; must outlive the engine
	double speed;                  // 1 = as recorded, 0 = as fast as it goes
};

/* Fits tui_options.open_engine: options->record_user is a struct replay_options (record is not
 * used). */
struct engine *engine_replay_open(const struct engine_options *options, struct error *err);

/* Whether everything was played and told. */
bool engine_replay_over(const struct engine *engine);

#endif
