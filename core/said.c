#include "core/said.h"

#include "base/hash.h"
#include "base/memory.h"
#include "core/worker.h"
#include <string.h>

static void emit_message(struct track *track, const char *role, const char *text, size_t length)
{
	struct event event = {.type = EV_MESSAGE, .seq = track->seq, .text = text, .length = length};
	strncpy(event.message.role, role, sizeof event.message.role - 1);
	worker_emit(track->worker, &event);
}

static uint64_t message_hash(const struct message *message)
{
	return hash_mix(hash_bytes(message->text, message->text_length) + (uint64_t)message->role);
}

/* How many messages of the path were said already. An answer that a turn here made counts whatever
 * the owner kept of it: its tokens were events. */
static size_t said_before(const struct track *track, const struct conversation *conversation)
{
	size_t n = 0;
	while (n < track->n_said && n < (size_t)conversation->n_messages) {
		const struct message *message = &conversation->messages[n];
		bool ours = track->said[n].turn >= 0 && message->role == CHAT_ASSISTANT;
		if (!ours && track->said[n].hash != message_hash(message))
			break;
		n++;
	}
	return n;
}

/* The turn whose answer this one follows, -1 = none. */
static int parent_of(const struct track *track, size_t n_known)
{
	int parent = -1;
	for (size_t i = 0; i < n_known; i++)
		if (track->said[i].turn >= 0)
			parent = track->said[i].turn;
	return parent;
}

int said_messages(struct track *track, const struct conversation *conversation, size_t known,
				  struct error *err)
{
	size_t n = (size_t)conversation->n_messages;
	const char *system = conversation->system ? conversation->system : "";
	uint64_t hash = *system ? hash_bytes(system, strlen(system)) : 0;
	if (hash != track->system_hash)
		emit_message(track, "system", system, strlen(system));
	track->system_hash = hash;
	if (mem_grow(&track->said, &track->said_capacity, n + 1, sizeof *track->said, err))
		return -1;
	for (size_t i = known; i < n; i++) {
		const struct message *message = &conversation->messages[i];
		track->said[i] = (struct said){.hash = message_hash(message), .turn = -1};
		if (message->reasoning_length > 0) // of an answer that another session made
			emit_message(track, "reasoning", message->reasoning, message->reasoning_length);
		emit_message(track, chat_role_name(message->role), message->text, message->text_length);
	}
	track->n_said = n;
	return 0;
}

void track_say(struct track *track, const struct conversation *conversation)
{
	struct error err = {0};
	if (said_messages(track, conversation, said_before(track, conversation), &err))
		worker_say(track->worker, EV_ERROR, track->seq, err.text);
}

int track_last_turn(const struct track *track)
{
	return parent_of(track, track->n_said);
}

/* A branch: the path is what the owner says, but for what is asked now. */
static size_t said_in_branch(struct track *track, const struct request *asked)
{
	const struct conversation *conversation = asked->conversation;
	size_t n = (size_t)conversation->n_messages - (asked->tokens == NULL);
	if (mem_grow(&track->said, &track->said_capacity, n + 1, sizeof *track->said, NULL))
		return 0;
	for (size_t i = 0; i < n; i++)
		track->said[i] =
			(struct said){.hash = message_hash(&conversation->messages[i]), .turn = -1};
	track->n_said = n;
	return n;
}

/* Without memory for it a turn has no parent. */
static void keep_parent(struct worker *worker, int turn, int parent)
{
	if (mem_grow(&worker->parents, &worker->parents_capacity, (size_t)turn + 1,
				 sizeof *worker->parents, NULL))
		return;
	while (worker->n_parents <= turn)
		worker->parents[worker->n_parents++] = -1;
	worker->parents[turn] = parent;
}

static int parent_kept(const struct worker *worker, int turn)
{
	return turn < worker->n_parents ? worker->parents[turn] : -1;
}

size_t said_place(struct track *track, int *parent)
{
	struct worker *worker = track->worker;
	const struct request *asked = &track->request->request;
	bool chat = asked->type == REQUEST_TURN && asked->conversation != NULL;
	bool leaves = chat && asked->branched && asked->left >= worker->first_turn &&
				  asked->left < track->id && asked->conversation->n_messages > 0;
	size_t known = leaves ? said_in_branch(track, asked)
				   : chat ? said_before(track, asked->conversation)
						  : 0;
	*parent = !leaves         ? parent_of(track, known)
			  : asked->tokens ? parent_kept(worker, asked->left)
							  : asked->left;
	keep_parent(worker, track->id, *parent);
	return known;
}
