#include "tui/recall.h"
#include "base/memory.h"
#include "core/rule.h"
#include "core/sampler.h"
#include "sessions/export.h"
#include "sessions/shelf.h"
#include "tui/line.h"
#include "tui/state.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_COLUMNS 120 // without a screen

/* ---- replay ---- */

void recall_free(struct talk *talk)
{
	if (talk->recorded)
		elastic_free(talk->recorded);
	free(talk->recorded);
	talk->recorded = NULL;
}

/* Names are all that a log knows of budgets. */
static void opened(struct talk *talk, const struct event *event)
{
	struct session_origin origin;
	recall_free(talk);
	talk->opening = false;
	talk->progress[0] = 0;
	talk->math = event->opened.math;
	memcpy(talk->rung, event->opened.rung, sizeof talk->rung);
	talk->n_threads = event->opened.n_threads;
	if (session_origin_read(event, &origin, NULL))
		return;
	talk->recorded = mem_new(1, sizeof *talk->recorded, NULL);
	if (talk->recorded)
		elastic_init(talk->recorded);
	for (int i = 0; talk->recorded && i < origin.n_budgets && i < MAX_BUDGETS; i++) {
		snprintf(talk->recorded->budgets[i].name, sizeof talk->recorded->budgets[i].name, "%s",
				 origin.budgets[i]);
		talk->recorded->n_budgets++;
	}
	talk_say(talk, "a replay of %s, recorded %s", origin.checkpoint, origin.time);
	session_origin_free(&origin);
}

/* Undone turns leave the screen: as many messages stay as the turn says. */
static void keep_known(struct talk *talk, int known)
{
	struct conversation *conversation = &talk->conversation;
	int *path, n = conversation_path(conversation, conversation->active, &path, NULL);
	if (n < 0)
		return;
	if (known < 0 || known > n) // an older log: nothing was taken back
		known = n;
	for (int i = n; i-- > known;)
		if (conversation->messages[path[i]].role == CHAT_USER)
			transcript_undo(&talk->transcript, false);
	if (known < n && known > 0 && conversation->messages[path[known - 1]].role == CHAT_USER)
		transcript_undo(&talk->transcript, true); // a retry
	conversation_select(conversation, known > 0 ? path[known - 1] : NO_MESSAGE);
	free(path);
}

static void message(struct talk *talk, const struct event *event)
{
	struct chat_string text = {event->text, event->length};
	int role = chat_role_find(event->message.role, strlen(event->message.role));
	if (role == CHAT_SYSTEM)
		conversation_set_system(&talk->conversation, event->text, NULL);
	if (role != CHAT_USER && role != CHAT_ASSISTANT)
		return;
	conversation_append(&talk->conversation, (enum chat_role)role, text, (struct chat_string){0},
						NULL);
	transcript_add(&talk->transcript, role == CHAT_USER ? ENTRY_USER : ENTRY_ANSWER, event->text,
				   event->length);
}

void recall_event(struct talk *talk, const struct event *event)
{
	switch (event->type) {
	case EV_OPENED: opened(talk, event); break;
	case EV_TURN:
		talk->opening = false;
		keep_known(talk, event->turn.known);
		talk->settings = event->turn.settings;
		talk->running = true;
		break;
	case EV_MESSAGE: message(talk, event); break;
	default: break;
	}
}

/* ---- the list ---- */

static const char *directory_of(const struct command_context *context)
{
	return context->app ? context->app->options->log_directory : NULL;
}

int recall_sessions(struct command_context *context, const char *text, bool forced,
					struct error *err)
{
	struct shelf shelf;
	(void)forced;
	if (shelf_open(directory_of(context), *text ? text : NULL, &shelf, err))
		return -1;
	if (shelf.n_rows == 0) {
		talk_say(context->talk, "no session in %s%s%s", shelf.directory, *text ? " says " : "",
				 text);
	} else {
		int columns = context->app ? context->app->layout.main.columns - 2 : TABLE_COLUMNS;
		shelf_table(&shelf, columns, context->out);
		talk_say(context->talk, "%zu session%s; :resume NUMBER takes one up", shelf.n_rows,
				 shelf.n_rows == 1 ? "" : "s");
	}
	shelf_close(&shelf);
	return 0;
}

/* ---- taking one up ---- */

/* The tape as it stood when the turn began. */
static void begin_tape(struct talk *talk, const struct session_turn *turn)
{
	struct conversation *conversation = &talk->conversation;
	int active = conversation->active;
	conversation_select(conversation, turn->user);
	tape_render(&talk->tape, conversation, talk->model);
	conversation_select(conversation, active);
}

static void write_answer(struct talk *talk, const struct session *session,
						 const struct session_turn *turn)
{
	struct reply *reply = &talk->reply;
	talk->conversation.enable_thinking = session->events[turn->first].turn.settings.thinking;
	begin_tape(talk, turn);
	for (size_t i = turn->first; i < turn->end; i++) {
		const struct event *event = &session->events[i];
		if (event->seq != 0)
			continue;
		reply_event(reply, event);
		tape_event(&talk->tape, event, talk_event_writer(talk, event));
		if (event->type == EV_TOKEN)
			transcript_token(&talk->transcript, event, reply, talk_event_writer(talk, event));
	}
	transcript_stop(&talk->transcript);
}

static void write_message(struct talk *talk, const struct message *message)
{
	if (message->reasoning_length > 0)
		transcript_add(&talk->transcript, ENTRY_THOUGHT, message->reasoning,
					   message->reasoning_length);
	transcript_add(&talk->transcript, message->role == CHAT_USER ? ENTRY_USER : ENTRY_ANSWER,
				   message->text, message->text_length);
}

/* The chat view's entries from the conversation's path; returns how many turns. */
static int write_transcript(struct talk *talk, const struct session *session)
{
	const struct conversation *conversation = &talk->conversation;
	int *path, n_turns = 0;
	int n = conversation_path(conversation, conversation->active, &path, NULL);
	transcript_clear(&talk->transcript);
	tape_clear(&talk->tape);
	branches_free(&talk->branches);
	for (int i = 0; i < n; i++) {
		const struct session_turn *turn = session_turn_of(session, path[i]);
		n_turns += turn != NULL;
		if (turn)
			write_answer(talk, session, turn);
		else
			write_message(talk, &conversation->messages[path[i]]);
	}
	free(n < 0 ? NULL : path);
	return n_turns;
}

static void take_budget(const struct talk *talk, char to[BUDGET_NAME_BYTES], const char *recorded)
{
	if (talk_check_budget(talk, recorded, NULL) == 0)
		snprintf(to, BUDGET_NAME_BYTES, "%s", recorded);
}

static bool may_decide(const struct talk *talk, const struct rule_clause *clause)
{
	bool names_otherwise = clause->kind > RULE_ALWAYS;
	return clause->kind == RULE_NONE ||
		   (talk_check_budget(talk, clause->then, NULL) == 0 &&
			(!names_otherwise || talk_check_budget(talk, clause->otherwise, NULL) == 0));
}

/* A rule of budgets that the file has no more is dropped. */
static void take_rule(struct talk *talk, const char *recorded)
{
	struct rule rule;
	char *to = talk->settings.rule;
	to[0] = 0;
	if (rule_parse(&rule, recorded, NULL) == 0 && may_decide(talk, &rule.think) &&
		may_decide(talk, &rule.answer))
		snprintf(to, sizeof talk->settings.rule, "%s", recorded);
}

/* Budgets and sampling as they were; the seed is the user's or a new one. */
static void take_settings(struct talk *talk, const struct session *session)
{
	if (session->n_turns == 0)
		return;
	const struct turn_settings *then =
		&session->events[session->turns[session->n_turns - 1].first].turn.settings;
	uint64_t seed = talk->seed_fixed ? talk->settings.sampling.seed : sampler_new_seed();
	take_budget(talk, talk->settings.budget, then->budget);
	if (then->policy) {
		take_budget(talk, talk->settings.think, then->think);
		take_budget(talk, talk->settings.answer, then->answer);
	}
	talk->settings.read[0] = 0;
	if (then->read[0])
		take_budget(talk, talk->settings.read, then->read);
	take_rule(talk, then->rule);
	talk->settings.policy = then->policy;
	talk->settings.handoff = then->handoff;
	talk->settings.repair = then->repair;
	talk->settings.thinking = then->thinking;
	talk->settings.think_limit = then->think_limit;
	talk->settings.max_tokens = then->max_tokens;
	talk->settings.sampling = then->sampling;
	talk->settings.sampling.seed = seed;
}

static void take_conversation(struct talk *talk, struct session *session)
{
	struct conversation *conversation = &talk->conversation;
	bool truncate = conversation->truncate_history;
	conversation_free(conversation);
	*conversation = session->conversation;
	conversation->truncate_history = truncate;
	conversation_init(&session->conversation);
}

/* A message that was never answered stands in the prompt again. */
static void offer_unanswered(struct command_context *context)
{
	struct conversation *conversation = &context->talk->conversation;
	int last = conversation->active;
	if (last == NO_MESSAGE || conversation->messages[last].role != CHAT_USER)
		return;
	conversation_undo(conversation);
	if (context->app && line_is_empty())
		line_set(conversation->messages[last].text);
}

static int resume(struct command_context *context, struct session *session, struct error *err)
{
	struct talk *talk = context->talk;
	struct error other = {0};
	if (session_check_hash(session, talk->model->hash, &other)) {
		session_markdown(session, context->out);
		talk_say(talk, "shown, not resumed: %s", other.text);
		return 0;
	}
	if (engine_submit(talk->engine, &(struct request){.type = REQUEST_CLEAR}, err))
		return -1;
	take_conversation(talk, session);
	take_settings(talk, session);
	offer_unanswered(context);
	int n_turns = write_transcript(talk, session);
	const char *slash = strrchr(session->path, '/');
	talk_say(talk, "resumed: %d turn%s of %s; the next one reads them again", n_turns,
			 n_turns == 1 ? "" : "s", slash ? slash + 1 : session->path);
	if (context->app && context->app->overlay.length > 0)
		view_overlay_close(context->app);
	if (context->app)
		return view_show(context->app, "chat", err);
	return 0;
}

int recall_resume(struct command_context *context, const char *name, bool forced, struct error *err)
{
	const struct talk *talk = context->talk;
	struct session session;
	(void)forced;
	if (talk->running)
		return fail(err, "the model is still answering; Ctrl-C stops it");
	if (!talk->model)
		return fail(err, talk->opening ? "the model is still loading"
									   : "no model is open: a session is resumed with one");
	if (!*name)
		return fail(err, "resume: a file or a number of :sessions is expected");
	char *path = shelf_find(directory_of(context), name, err);
	if (!path)
		return -1;
	int result = session_read(path, &session, err);
	free(path);
	if (result)
		return -1;
	result = resume(context, &session, err);
	session_free(&session);
	return result;
}
