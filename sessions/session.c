/*
 * The path is kept as the engine keeps it (core/track.c): a message each, and one place for every
 * answer even if nothing came of it, because EV_TURN counts in these.
 */
#include "sessions/session.h"
#include "base/memory.h"
#include "sessions/log.h"
#include <stdlib.h>
#include <string.h>

struct builder {
	struct session *session;
	struct error *err;
	bool failed;
	int line;
	size_t at; // the event that is taken
	int *path; // messages, NO_MESSAGE for an answer without text
	size_t n_path, path_capacity;
	bool in_turn;
	const char *system;           // of the path
	struct chat_string reasoning; // of the next message; borrowed from its event
	size_t given;                 // event of the turn left, behind the last that was found
	size_t *places;               // (n_turns): where the path stood behind the turn's answer
	size_t places_capacity;
};

static void take(struct builder *b, struct event *event);

static void push(struct builder *b, int message)
{
	if (mem_grow(&b->path, &b->path_capacity, b->n_path + 1, sizeof *b->path, b->err))
		b->failed = true;
	else
		b->path[b->n_path++] = message;
}

/* The first n of the path stay. */
static void cut(struct builder *b, size_t n)
{
	int active = NO_MESSAGE;
	if (n < b->n_path)
		b->n_path = n;
	for (size_t i = 0; i < b->n_path; i++)
		active = b->path[i] != NO_MESSAGE ? b->path[i] : active;
	conversation_select(&b->session->conversation, active);
}

static int append(struct builder *b, enum chat_role role, const struct text *text,
				  const struct text *reasoning)
{
	int message = conversation_append(
		&b->session->conversation, role, (struct chat_string){text_chars(text), text->length},
		(struct chat_string){text_chars(reasoning), reasoning->length}, b->err);
	b->failed |= message < 0;
	return message;
}

static void end_turn(struct builder *b)
{
	struct session *session = b->session;
	if (!b->in_turn)
		return;
	struct session_turn *turn = &session->turns[session->n_turns - 1];
	const struct reply *reply = &turn->reply;
	b->in_turn = false;
	turn->end = b->at + 1;
	if (reply->answer.length + reply->reasoning.length > 0)
		turn->answer = append(b, CHAT_ASSISTANT, &reply->answer, &reply->reasoning);
	push(b, turn->answer);
	b->places[session->n_turns - 1] = b->n_path;
}

/* A branch: the path is that of the turn it left or follows. */
static void take_path(struct builder *b, const struct session_turn *left)
{
	const struct conversation *conversation = &b->session->conversation;
	int leaf = left->answer != NO_MESSAGE ? left->answer : left->user, *path;
	int n = conversation_path(conversation, leaf, &path, b->err);
	b->failed |= n < 0;
	b->n_path = 0;
	for (int i = 0; i < n; i++)
		push(b, path[i]);
	if (n >= 0)
		free(path);
}

/* Tokens that a branch has in common with the answer it left were written there. */
static void take_given(struct builder *b, struct event *event)
{
	const struct session *session = b->session;
	const struct session_turn *turn = &session->turns[session->n_turns - 1];
	if (!event->token.given || *event->token.budget || turn->left < 0)
		return;
	const struct session_turn *left = &session->turns[turn->left];
	size_t at = b->given >= left->first && b->given < left->end ? b->given : left->first;
	for (; at < left->end; at++) {
		const struct event *other = &session->events[at];
		if (other->type != EV_TOKEN || other->seq != 0 || other->token.at < event->token.at)
			continue;
		if (other->token.at > event->token.at || other->token.id != event->token.id)
			return;
		memcpy(event->token.budget, other->token.budget, BUDGET_NAME_BYTES);
		event->token.logprob = other->token.logprob;
		event->token.picked = other->token.picked;
		b->given = at + 1;
		return;
	}
}

/* Where the path goes on. Logs that do not count say at least which answer it follows. */
static size_t known(const struct builder *b, const struct event *event)
{
	const struct session *session = b->session;
	if (event->turn.known >= 0)
		return (size_t)event->turn.known;
	int parent = event->turn.parent < 0
					 ? -1
					 : session_find_turn(session, event->turn.parent, session->n_turns);
	return parent < 0 ? 0 : b->places[parent];
}

/* The turn of this id before that event, since a checkpoint was opened, in whatever column it ran;
 * -1 = none. */
static int find_event(const struct builder *b, int id, size_t before)
{
	const struct event *events = b->session->events;
	for (size_t i = before; id >= 0 && i-- > 0 && events[i].type != EV_OPENED;)
		if (events[i].type == EV_TURN && events[i].turn.id == id)
			return (int)i;
	return -1;
}

/* A turn that ran in a compare column becomes one of the conversation's: its events count as those
 * of seq 0 from here on. The columns beside it stay what they are. */
static void adopt(struct builder *b, size_t first)
{
	struct session *session = b->session;
	size_t at = b->at;
	int seq = session->events[first].seq;
	bool over = false;
	int parent = session_find_turn(session, session->events[first].turn.parent, session->n_turns);
	if (parent >= 0)
		take_path(b, &session->turns[parent]);
	for (size_t i = first; i < at && !over; i++) {
		if (session->events[i].seq != seq)
			continue;
		session->events[i].seq = 0;
		over = session->events[i].type == EV_STOP;
		b->at = i;
		take(b, &session->events[i]);
	}
	end_turn(b);
	b->at = at;
}

/* A column was kept when a turn goes on from one of its: oldest first. */
static void adopt_kept(struct builder *b, int id)
{
	const struct event *events = b->session->events;
	for (int top = 0; top >= 0 && !b->failed;) {
		top = -1;
		for (int i = find_event(b, id, b->at); i >= 0 && events[i].seq != 0;
			 i = find_event(b, events[i].turn.parent, (size_t)i))
			top = i;
		if (top >= 0)
			adopt(b, (size_t)top);
	}
}

/* The column's last turn, or one of the conversation's where the column said nothing of its own. */
static void keep(struct builder *b, const struct event *event)
{
	end_turn(b);
	adopt_kept(b, event->kept.turn);
	int turn = session_find_turn(b->session, event->kept.turn, b->session->n_turns);
	if (turn >= 0)
		take_path(b, &b->session->turns[turn]);
	cut(b, turn >= 0 ? b->n_path : 0);
}

static void begin_turn(struct builder *b, const struct event *event)
{
	struct session *session = b->session;
	end_turn(b);
	adopt_kept(b, event->turn.parent);
	int left = event->turn.branched && event->turn.left >= 0
				   ? session_find_turn(session, event->turn.left, session->n_turns)
				   : -1;
	if (left >= 0)
		take_path(b, &session->turns[left]);
	b->given = 0;
	cut(b, known(b, event));
	if (mem_grow(&session->turns, &session->turns_capacity, session->n_turns + 1,
				 sizeof *session->turns, b->err) ||
		mem_grow(&b->places, &b->places_capacity, session->n_turns + 1, sizeof *b->places,
				 b->err)) {
		b->failed = true;
		return;
	}
	session->turns[session->n_turns++] =
		(struct session_turn){.left = left,
							  .first = b->at,
							  .opening = (int)session->n_openings - 1,
							  .user = session->conversation.active,
							  .answer = NO_MESSAGE,
							  .active_before = session->conversation.active,
							  .system = b->system};
	b->in_turn = true;
}

static void message(struct builder *b, const struct event *event)
{
	struct session *session = b->session;
	struct chat_string text = {event->text, event->length};
	int role = chat_role_find(event->message.role, strlen(event->message.role));
	if (role == CHAT_SYSTEM && conversation_set_system(&session->conversation, event->text, b->err))
		b->failed = true;
	if (role == CHAT_SYSTEM)
		b->system = event->text;
	if (b->in_turn)
		session->turns[session->n_turns - 1].system = b->system;
	if (!strcmp(event->message.role, "reasoning"))
		b->reasoning = text;
	if (role < 0 || role == CHAT_SYSTEM)
		return;
	int added = conversation_append(&session->conversation, (enum chat_role)role, text,
									b->reasoning, b->err);
	b->reasoning = (struct chat_string){0};
	b->failed |= added < 0;
	push(b, added);
	if (b->in_turn && added >= 0)
		session->turns[session->n_turns - 1].user = added;
}

static void opening(struct builder *b, const struct event *event)
{
	struct session *session = b->session;
	end_turn(b);
	cut(b, 0);
	b->system = NULL;
	if (mem_grow(&session->openings, &session->openings_capacity, session->n_openings + 1,
				 sizeof *session->openings, b->err)) {
		b->failed = true;
		return;
	}
	struct session_opening *opening = &session->openings[session->n_openings];
	opening->event = b->at;
	if (session_origin_read(event, &opening->origin, b->err) == 0)
		session->n_openings++;
}

static void take(struct builder *b, struct event *event)
{
	struct session *session = b->session;
	if (event->type == EV_OPENED)
		opening(b, event);
	if (event->seq != 0)
		return;
	if (event->type == EV_TURN)
		begin_turn(b, event);
	else if (event->type == EV_MESSAGE)
		message(b, event);
	else if (event->type == EV_KEPT)
		keep(b, event);
	if (!b->in_turn || b->failed)
		return;
	struct session_turn *turn = &session->turns[session->n_turns - 1];
	if (event->type == EV_TOKEN)
		take_given(b, event);
	reply_event(&turn->reply, event);
	if (event->type == EV_STOP) {
		turn->over = true;
		end_turn(b);
	}
}

static int on_line(void *user, const char *line, size_t length)
{
	struct builder *b = user;
	struct session *session = b->session;
	struct error err = {0};
	struct event event;
	b->line++;
	int kind = event_read(line, length, &event, &err);
	if (kind <= 0) {
		if (kind < 0 && session->n_broken++ == 0)
			fail(&session->broken, "line %d: %s", b->line, err.text);
		session->n_unknown += kind == 0;
		return 0;
	}
	if (mem_grow(&session->events, &session->events_capacity, session->n_events + 1,
				 sizeof *session->events, b->err)) {
		event_release(&event);
		b->failed = true;
		return -1;
	}
	session->events[session->n_events++] = event;
	b->at = session->n_events - 1;
	take(b, &session->events[session->n_events - 1]);
	return b->failed ? -1 : 0;
}

int session_read(const char *path, struct session *session, struct error *err)
{
	struct error unused;
	struct builder b = {.session = session, .err = err ? err : &unused};
	*session = (struct session){.path = mem_string(path, strlen(path), b.err)};
	conversation_init(&session->conversation);
	b.failed = !session->path ||
			   session_log_read(path, on_line, &b, &session->torn_bytes, b.err) < 0 || b.failed;
	if (!b.failed)
		end_turn(&b);
	if (!b.failed && session->n_events == 0)
		b.failed = fail(b.err, "%s: %s%s", path,
						session->n_broken ? "no session log: " : "no whole line of a session log",
						session->broken.text);
	free(b.path);
	free(b.places);
	if (b.failed)
		session_free(session);
	return b.failed ? -1 : 0;
}

void session_free(struct session *session)
{
	for (size_t i = 0; i < session->n_events; i++)
		event_release(&session->events[i]);
	for (size_t i = 0; i < session->n_openings; i++)
		session_origin_free(&session->openings[i].origin);
	for (size_t i = 0; i < session->n_turns; i++)
		reply_free(&session->turns[i].reply);
	free(session->events);
	free(session->openings);
	free(session->turns);
	free(session->path);
	conversation_free(&session->conversation);
	*session = (struct session){0};
}

const struct session_origin *session_last_origin(const struct session *session)
{
	return session->n_openings ? &session->openings[session->n_openings - 1].origin : NULL;
}

int session_check_hash(const struct session *session, const char *hash, struct error *err)
{
	const struct session_origin *origin = session_last_origin(session);
	if (!origin || !origin->hash[0])
		return fail(err, "%s does not say which checkpoint it was recorded with", session->path);
	if (strcmp(origin->hash, hash) != 0)
		return fail(err, "recorded with checkpoint %s (hash %s), open is one with hash %s",
					origin->checkpoint, origin->hash, hash);
	return 0;
}

const struct session_turn *session_turn_of(const struct session *session, int answer)
{
	for (size_t i = 0; i < session->n_turns; i++)
		if (session->turns[i].answer == answer)
			return &session->turns[i];
	return NULL;
}

int session_find_turn(const struct session *session, int id, size_t n)
{
	for (size_t i = n; i-- > 0;)
		if (session->events[session->turns[i].first].turn.id == id)
			return (int)i;
	return -1;
}

void session_damage(const struct session *session, struct text *out)
{
	if (session->torn_bytes)
		text_format(out, "the last line is torn (%zu bytes left out)", session->torn_bytes);
	if (session->n_broken)
		text_format(out, "%s%d broken line%s left out (%s)", out->length ? "; " : "",
					session->n_broken, session->n_broken == 1 ? "" : "s", session->broken.text);
	if (session->n_unknown)
		text_format(out, "%s%d line%s of a kind that this version does not know",
					out->length ? "; " : "", session->n_unknown,
					session->n_unknown == 1 ? "" : "s");
}
