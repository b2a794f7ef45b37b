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
	talk->progress = (struct progress){0};
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

/* The way whose last turn this was. */
static void show_way(struct talk *talk, int turn)
{
	for (size_t i = 0; turn >= 0 && turn != talk->turn && i < talk->branches.n; i++)
		if (talk->branches.items[i].turn == turn) {
			branches_show(talk, i, NULL);
			return;
		}
}

/* Undone turns leave the screen: as many messages stay as the turn says. What they were, and what a
 * branch leaves, stays a way. */
static void keep_known(struct talk *talk, const struct event *turn)
{
	struct conversation *conversation = &talk->conversation;
	bool inside = turn->n_numbers > 0;
	char note[BRANCH_NOTE_BYTES] = "another message";
	if (turn->turn.branched)
		show_way(talk, turn->turn.left);
	int known = turn->turn.known, *path;
	int n = conversation_path(conversation, conversation->active, &path, NULL);
	if (n < 0)
		return;
	if (known < 0 || known > n) // an older log: nothing was taken back
		known = n;
	bool again = known > 0 && conversation->messages[path[known - 1]].role == CHAT_USER;
	if (known < n)
		branches_part(talk, NULL);
	for (int i = n; i-- > known;)
		if (conversation->messages[path[i]].role == CHAT_USER)
			transcript_undo(&talk->transcript, false);
	if (known < n && again)
		transcript_undo(&talk->transcript, true);
	conversation_select(conversation, known > 0 ? path[known - 1] : NO_MESSAGE);
	free(path);
	if (inside)
		snprintf(note, sizeof note, "%.20s, another token", turn->turn.settings.budget);
	else if (again)
		snprintf(note, sizeof note, "again, seed %llu",
				 (unsigned long long)turn->turn.settings.sampling.seed);
	branches_send(talk, inside ? (int)turn->n_numbers - 1 : -1, note, NULL, NULL);
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
		keep_known(talk, event);
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

/* ---- the tree of ways ---- */

static const struct event *token_at(const struct session *session, const struct session_turn *turn,
									int at)
{
	const struct event *found = NULL;
	for (size_t i = turn->first; i < turn->end && !found; i++) {
		const struct event *event = &session->events[i];
		if (event->type == EV_TOKEN && event->seq == 0 && event->token.at == at)
			found = event;
	}
	return found;
}

/* What the way is called and how it begins, from its first answer. */
static void name_way(const struct talk *talk, const struct session *session, int top, int answer,
					 struct branch *way)
{
	const struct message *message = &talk->conversation.messages[top];
	const struct session_turn *turn = session_turn_of(session, answer);
	const struct event *begin = turn ? &session->events[turn->first] : NULL;
	char new_text[32], old_text[32] = "";
	snprintf(way->note, sizeof way->note, "another message");
	if (message->role == CHAT_ASSISTANT && begin)
		snprintf(way->note, sizeof way->note, "again, seed %llu",
				 (unsigned long long)begin->turn.settings.sampling.seed);
	if (begin && begin->n_numbers > 0) {
		way->at = (int)begin->n_numbers - 1;
		const struct event *token = token_at(session, turn, way->at);
		const struct event *old =
			turn->left >= 0 ? token_at(session, &session->turns[turn->left], way->at) : NULL;
		branch_quote(token ? token->text : "", token ? token->length : 0, new_text);
		if (old)
			branch_quote(old->text, old->length, old_text);
		snprintf(way->note, sizeof way->note, "%.20s %s%s%s", begin->turn.settings.budget, new_text,
				 old ? " for " : "", old_text);
		for (size_t i = turn->first; i < turn->end; i++)
			if (session->events[i].type == EV_TOKEN && session->events[i].token.at >= way->at)
				branch_add_head(way, session->events[i].text, session->events[i].length);
	} else if (message->reasoning_length > 0) {
		branch_add_head(way, message->reasoning, message->reasoning_length);
	} else {
		branch_add_head(way, message->text, message->text_length);
	}
}

/* The way that a new one leaves: that of the answer its turn names, else of the newest sibling. */
static int origin_of(const struct talk *talk, const struct session *session, const int *owner,
					 int top, int answer)
{
	const struct message *messages = talk->conversation.messages;
	const struct session_turn *turn = session_turn_of(session, answer);
	if (turn && turn->left >= 0 && session->turns[turn->left].answer >= 0 &&
		owner[session->turns[turn->left].answer] >= 0)
		return owner[session->turns[turn->left].answer];
	for (int i = top; i-- > 0;)
		if (messages[i].parent == messages[top].parent && owner[i] >= 0)
			return owner[i];
	return messages[top].parent == NO_MESSAGE ? 0 : owner[messages[top].parent];
}

/* Gives an answer, and what was said before it and belongs to no way yet, to one. */
static int take_answer(struct talk *talk, const struct session *session, int *owner, int answer,
					   struct error *err)
{
	const struct message *messages = talk->conversation.messages;
	struct branches *branches = &talk->branches;
	int top = answer, way;
	while (messages[top].parent != NO_MESSAGE && owner[messages[top].parent] < 0)
		top = messages[top].parent;
	int parent = messages[top].parent;
	bool first = parent == NO_MESSAGE && branches->n == 0;
	if (parent != NO_MESSAGE && branches->items[owner[parent]].leaf == parent) {
		way = owner[parent];
	} else {
		struct branch branch = {.from = -1, .at = -1, .turn = -1, .note = "the first way"};
		if (first)
			branch_add_head(&branch, messages[top].text, messages[top].text_length);
		else
			name_way(talk, session, top, answer, &branch);
		if (!first)
			branch.from = origin_of(talk, session, owner, top, answer);
		if (branches_add(talk, &branch, err))
			return -1;
		way = (int)branches->n - 1;
	}
	for (int at = answer; at != parent; at = messages[at].parent)
		owner[at] = way;
	branches->items[way].leaf = answer;
	return 0;
}

static int root_of(const struct conversation *conversation, int message)
{
	while (message != NO_MESSAGE && conversation->messages[message].parent != NO_MESSAGE)
		message = conversation->messages[message].parent;
	return message;
}

/* Shows every way once, so that it is kept as it was written, the active one last. */
static int write_ways(struct talk *talk, const struct session *session, const int *owner,
					  struct error *err)
{
	struct conversation *conversation = &talk->conversation;
	struct branches *branches = &talk->branches;
	int active = conversation->active;
	for (size_t i = 0; i < branches->n; i++) {
		branches->active = i;
		conversation_select(conversation, branches->items[i].leaf);
		write_transcript(talk, session);
		if (branches_keep(talk, err))
			return -1;
	}
	conversation_select(conversation, active);
	branches->active = (size_t)owner[active];
	branches->apart = branches->items[owner[active]].leaf != active;
	return 0;
}

/* The ways of the conversation that goes on, from its messages and what the log says of its turns.
 */
static int regrow(struct talk *talk, const struct session *session, struct error *err)
{
	struct conversation *conversation = &talk->conversation;
	int n = conversation->n_messages, root = root_of(conversation, conversation->active);
	int active = conversation->active, result = 0;
	branches_free(&talk->branches);
	talk->turn = -1;
	if (root == NO_MESSAGE)
		return 0;
	int *owner = mem_new((size_t)n, sizeof *owner, err);
	if (!owner)
		return -1;
	for (int i = 0; i < n; i++)
		owner[i] = -1;
	for (int i = 0; i < n && result == 0; i++)
		if (conversation->messages[i].role == CHAT_ASSISTANT && root_of(conversation, i) == root)
			result = take_answer(talk, session, owner, i, err);
	while (active != NO_MESSAGE && owner[active] < 0)
		active = conversation->messages[active].parent;
	if (result == 0 && talk->branches.n > 1 && active == conversation->active)
		result = write_ways(talk, session, owner, err);
	else
		branches_free(&talk->branches);
	free(owner);
	return result;
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
	struct error lost = {0};
	if (regrow(talk, session, &lost))
		branches_free(&talk->branches);
	int n_turns = write_transcript(talk, session);
	const char *slash = strrchr(session->path, '/');
	talk_say(talk, "resumed: %d turn%s of %s; the next one reads them again", n_turns,
			 n_turns == 1 ? "" : "s", slash ? slash + 1 : session->path);
	if (talk->branches.n > 1)
		text_format(&talk->notice, "; branch %zu of %zu (:branch)", talk->branches.active + 1,
					talk->branches.n);
	if (lost.text[0])
		talk_say(talk, "resumed without its branches: %s", lost.text);
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
