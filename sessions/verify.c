/*
 * The engine is paused and makes one step a recorded token, so that what the user did between two
 * tokens (another budget, the end of the thoughts, a stop) happens between the same two. Policies
 * and limits are not asked again: what came of them is in the log.
 */
#include "sessions/verify.h"
#include <math.h>
#include <string.h>

struct run {
	const struct session *session;
	const struct session_turn *turn;
	struct engine *engine;
	struct verify_result *result;
	struct turn_settings settings; // of the running turn, as they are now
	bool over;                     // EV_STOP has come
	bool was_forced;               // the token before
	int n_given;                   // tokens of the answer that it began with
	int prompt;                    // tokens of the recorded prompt, 0 = the log does not say
	bool other_prompt; // what was asked cannot be told from the messages: an old log's branch
	struct error *err;
};

static int submit(struct run *run, struct request request)
{
	return engine_submit(run->engine, &request, run->err);
}

/* The next token, or NULL at the turn's end or on failure (then *failed). */
static const struct event *await_token(struct run *run, bool *failed)
{
	struct error error = {0};
	const struct event *event;
	*failed = false;
	while (!run->over && (event = engine_wait(run->engine, -1))) {
		if (event->type == EV_TURN)
			memcpy(run->result->rung, event->turn.rung, sizeof run->result->rung);
		if (event->type == EV_PREFILL && run->prompt > 0)
			run->other_prompt |= event->prefill.from + event->prefill.tokens != run->prompt;
		if (event->type == EV_ERROR)
			fail(&error, "%s", event->text);
		if (event->type == EV_TOKEN && !event->token.given)
			return event;
		if (event->type != EV_STOP)
			continue;
		run->over = true;
		if (event->stop.reason == STOP_ERROR)
			*failed = fail(run->err, "%s", error.text) != 0;
	}
	return NULL;
}

static void keep(struct verify_token *to, const struct event *event)
{
	to->id = event ? event->token.id : -1;
	if (!event)
		return;
	to->logprob = event->token.logprob;
	memcpy(to->budget, event->token.budget, sizeof to->budget);
	text_append(&to->text, event->text, event->length);
}

/* 1 = the same token, 0 = another one. */
static int compare(struct run *run, const struct event *recorded)
{
	struct verify_result *result = run->result;
	bool failed;
	const struct event *now = await_token(run, &failed);
	run->prompt = 0; // only of the turn's beginning
	if (failed)
		return -1;
	if (run->other_prompt)
		return 0;
	if (now && now->token.id == recorded->token.id && now->token.at == recorded->token.at &&
		!strcmp(now->token.budget, recorded->token.budget)) {
		double change = fabs((double)now->token.logprob - (double)recorded->token.logprob);
		if (change > result->largest_change)
			result->largest_change = change;
		result->n_tokens++;
		return 1;
	}
	result->differs = true;
	result->turn = run->session->events[run->turn->first].turn.id;
	result->at = recorded->token.at;
	keep(&result->recorded, recorded);
	keep(&result->now, now);
	return 0;
}

/* Everything that was recorded from one token to the next, then that token. */
static int do_event(struct run *run, const struct event *event, bool first)
{
	if (event->seq != 0)
		return 1;
	if (event->type == EV_SWITCH && !first) { // before the first token the settings say it
		memcpy(run->settings.budget, event->change.to, BUDGET_NAME_BYTES);
		run->settings.handoff = // as it was asked for
			event->change.repair > 0 ? HANDOFF_REPAIR : event->change.handoff;
		run->settings.repair = event->change.repair;
		return submit(run, (struct request){.type = REQUEST_SETTINGS, .settings = run->settings})
				   ? -1
				   : 1;
	}
	if (event->type != EV_TOKEN || event->token.given)
		return 1;
	if (event->token.forced && !run->was_forced &&
		submit(run, (struct request){.type = REQUEST_END_THINKING}))
		return -1;
	run->was_forced = event->token.forced;
	return submit(run, (struct request){.type = REQUEST_STEP}) ? -1 : compare(run, event);
}

/* What the turn began with: who chose the first token, and as many tokens as came of it where a
 * limit ended it. */
static void begin_settings(struct run *run, int *n_tokens, bool *fresh)
{
	const struct session_turn *turn = run->turn;
	const struct event *events = run->session->events;
	bool has_reader = false, has_writer = false;
	run->prompt = run->n_given = 0;
	*n_tokens = 0;
	*fresh = false;
	run->settings = events[turn->first].turn.settings;
	run->settings.policy = false;
	run->settings.rule[0] = 0;
	run->settings.think_limit = run->settings.max_tokens = 0;
	for (size_t i = turn->first; i < turn->end; i++) {
		const struct event *event = &events[i];
		if (event->seq != 0)
			continue;
		bool given = event->type == EV_TOKEN && event->token.given;
		run->n_given += given;
		*n_tokens += event->type == EV_TOKEN && !given;
		if (event->type == EV_PREFILL && !has_reader) {
			has_reader = true;
			*fresh = event->prefill.cached == 0;
			run->prompt = event->prefill.from + event->prefill.tokens;
		}
		if (event->type == EV_TOKEN && !given && !has_writer) {
			has_writer = true;
			memcpy(run->settings.budget, event->token.budget, BUDGET_NAME_BYTES);
		}
		if (event->type == EV_STOP && event->stop.reason == STOP_LENGTH)
			run->settings.max_tokens = *n_tokens;
	}
}

static int end(struct run *run)
{
	bool failed = false;
	const struct session_turn *turn = run->turn;
	const struct event *last = &run->session->events[turn->end - 1];
	bool by_itself = turn->over && last->type == EV_STOP &&
					 (last->stop.reason == STOP_EOS || last->stop.reason == STOP_LENGTH);
	if ((run->result->differs || run->other_prompt || !by_itself) && !run->over &&
		submit(run, (struct request){.type = REQUEST_STOP}))
		return -1;
	while (!run->over && !failed)
		await_token(run, &failed);
	return failed ? -1 : 0;
}

/* The turn's prompt: its path, with the system text of that time; of a branch inside an answer the
 * very ids that it went on from. */
static int ask(struct run *run, bool fresh)
{
	struct conversation path;
	const struct session_turn *turn = run->turn;
	const struct event *begin = &run->session->events[turn->first];
	int n_ids = (int)begin->n_numbers;
	if (conversation_copy_path(&run->session->conversation, turn->user, &path, run->err))
		return -1;
	int failed = conversation_set_system(&path, turn->system, run->err);
	path.enable_thinking = run->settings.thinking;
	if (!failed && fresh)
		failed = submit(run, (struct request){.type = REQUEST_CLEAR});
	if (!failed)
		failed = submit(run, (struct request){.type = REQUEST_TURN,
											  .conversation = &path,
											  .tokens = n_ids > 0 ? begin->numbers : NULL,
											  .n_tokens = n_ids,
											  .n_prompt = n_ids - run->n_given,
											  .settings = run->settings});
	conversation_free(&path);
	return failed;
}

static void leave_out(struct run *run, const char *why)
{
	int id = run->session->events[run->turn->first].turn.id;
	run->result->n_left_out++;
	text_format(&run->result->left_out, "turn %d: %s\n", id, why);
}

static int verify_turn(struct run *run)
{
	const struct session *session = run->session;
	int n_tokens, state = 1;
	bool fresh, first = true;
	begin_settings(run, &n_tokens, &fresh);
	bool has_message = run->turn->user != NO_MESSAGE &&
					   session->conversation.messages[run->turn->user].role == CHAT_USER;
	if (n_tokens == 0 || !has_message) {
		leave_out(run, has_message ? "it has no token" : "it has no message");
		return 0;
	}
	run->over = run->was_forced = run->other_prompt = false;
	memcpy(run->result->recorded_rung, session->events[run->turn->first].turn.rung, 32);
	if (ask(run, fresh))
		return -1;
	for (size_t i = run->turn->first; i < run->turn->end && state == 1; i++) {
		state = do_event(run, &session->events[i], first);
		first &= session->events[i].type != EV_TOKEN;
	}
	if (run->other_prompt)
		leave_out(run, "its prompt is another one now: it branches inside an answer, and the log "
					   "lacks its ids");
	else
		run->result->n_turns++;
	return state < 0 ? -1 : end(run);
}

int session_verify(const struct session *session, struct engine *engine, const char *hash,
				   void (*progress)(void *user, int turn, int n_turns), void *user,
				   struct verify_result *result, struct error *err)
{
	struct run run = {.session = session, .engine = engine, .result = result, .err = err};
	*result = (struct verify_result){0};
	if (submit(&run, (struct request){.type = REQUEST_PAUSE, .value = 1}))
		return -1;
	for (size_t i = 0; i < session->n_turns && !result->differs; i++) {
		run.turn = &session->turns[i];
		const struct session_origin *origin =
			run.turn->opening >= 0 ? &session->openings[run.turn->opening].origin : NULL;
		if (!origin || strcmp(origin->hash, hash) != 0) {
			leave_out(&run, origin ? "of another checkpoint" : "its checkpoint is not known");
			continue;
		}
		if (progress)
			progress(user, (int)i, (int)session->n_turns);
		if (verify_turn(&run)) {
			verify_free(result);
			return -1;
		}
	}
	return 0;
}

void verify_free(struct verify_result *result)
{
	text_free(&result->left_out);
	text_free(&result->recorded.text);
	text_free(&result->now.text);
	*result = (struct verify_result){0};
}
