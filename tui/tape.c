#include "tui/tape.h"
#include "base/memory.h"
#include "core/tokenizer.h"
#include <stdlib.h>
#include <string.h>

void tape_free(struct tape *tape)
{
	free(tape->tokens);
	*tape = (struct tape){0};
}

void tape_clear(struct tape *tape)
{
	tape->n = tape->prompt = 0;
	tape->known = true;
	tape->reader = TAPE_NOBODY;
}

static struct tape_token *add(struct tape *tape, int32_t id)
{
	if (mem_grow(&tape->tokens, &tape->capacity, tape->n + 1, sizeof *tape->tokens, NULL))
		return NULL;
	struct tape_token *token = &tape->tokens[tape->n++];
	*token = (struct tape_token){.id = id, .writer = TAPE_NOBODY, .reader = TAPE_NOBODY};
	tape->known &= id >= 0;
	return token;
}

static size_t same_as(const struct tape *tape, const int32_t *ids, size_t n)
{
	size_t same = 0;
	while (same < n && same < tape->n && tape->tokens[same].id == ids[same])
		same++;
	return same;
}

/* Without memory nothing is on the tape. */
static void begin(struct tape *tape, const int32_t *ids, size_t n)
{
	size_t same = same_as(tape, ids, n);
	tape_cut(tape, same);
	for (size_t i = 0; i < same; i++) // whoever wrote it: now it is the prompt
		tape->tokens[i].writer = TAPE_NOBODY;
	for (size_t i = same; i < n; i++)
		if (!add(tape, ids[i])) {
			tape_clear(tape);
			return;
		}
	tape->prompt = n;
}

void tape_render(struct tape *tape, const struct conversation *conversation,
				 const struct model *model)
{
	struct id_list ids = {0};
	if (!model || conversation_encode(conversation, model, true, &ids, NULL))
		tape_clear(tape);
	else
		begin(tape, ids.ids, ids.n);
	free(ids.ids);
}

void tape_keep(struct tape *tape, const struct conversation *conversation,
			   const struct model *model)
{
	struct id_list ids = {0};
	if (conversation->active == NO_MESSAGE || !model ||
		conversation_encode(conversation, model, false, &ids, NULL))
		tape_clear(tape);
	else
		begin(tape, ids.ids, same_as(tape, ids.ids, ids.n));
	free(ids.ids);
}

void tape_cut(struct tape *tape, size_t n)
{
	if (n < tape->n)
		tape->n = n;
	if (tape->prompt > tape->n)
		tape->prompt = tape->n;
	tape->known = true;
	for (size_t i = 0; i < tape->n; i++)
		tape->known &= tape->tokens[i].id >= 0;
}

static void read_by(struct tape *tape, int from, int end, int8_t reader)
{
	for (int i = from < 0 ? 0 : from; i < end && (size_t)i < tape->n; i++)
		tape->tokens[i].reader = reader;
}

/* Makes the tape end before position `at`, with unknown ids where it was shorter. */
static int reach(struct tape *tape, int at)
{
	tape_cut(tape, (size_t)at);
	while (tape->n < (size_t)at)
		if (!add(tape, -1))
			return -1;
	return 0;
}

static void take_token(struct tape *tape, const struct event *event, int8_t writer)
{
	int at = event->token.at;
	bool first = tape->n == tape->prompt;
	if (at < 0)
		return;
	if (event->token.given && (size_t)at < tape->n && tape->tokens[at].id == event->token.id) {
		tape->tokens[at].phase = event->token.phase; // who wrote it is known
		tape->tokens[at].ends = event->token.thinking_ends;
		return;
	}
	if ((size_t)at != tape->n) {
		if (reach(tape, at))
			return;
		if (first) { // another prompt than we think
			tape->prompt = tape->n;
			tape->known = tape->n == 0;
			for (size_t i = 0; i < tape->n; i++)
				tape->tokens[i].id = -1;
		}
	}
	if (at > 0 && tape->tokens[at - 1].reader == TAPE_NOBODY)
		tape->tokens[at - 1].reader = tape->reader;
	struct tape_token *token = add(tape, event->token.id);
	if (!token)
		return;
	token->writer = writer;
	token->phase = event->token.phase;
	token->ends = event->token.thinking_ends;
	token->picked = event->token.picked;
}

void tape_event(struct tape *tape, const struct event *event, int budget)
{
	switch (event->type) {
	case EV_PREFILL:
		tape->reader = (int8_t)budget;
		if (tape->n < (size_t)event->prefill.from + (size_t)event->prefill.tokens &&
			reach(tape, event->prefill.from + event->prefill.tokens) == 0)
			tape->prompt = tape->n;
		read_by(tape, event->prefill.from, event->prefill.from + event->prefill.tokens,
				tape->reader);
		break;
	case EV_SWITCH:
		tape->reader = (int8_t)budget;
		read_by(tape, event->change.at - event->change.replayed, event->change.at, tape->reader);
		break;
	case EV_TOKEN: take_token(tape, event, (int8_t)budget); break;
	default: break;
	}
}

bool tape_ids(const struct tape *tape, size_t n, int32_t *out)
{
	for (size_t i = 0; i < n; i++) {
		if (i >= tape->n || tape->tokens[i].id < 0)
			return false;
		out[i] = tape->tokens[i].id;
	}
	return true;
}

int tape_copy(struct tape *to, const struct tape *from)
{
	*to = *from;
	to->capacity = from->n;
	to->tokens = mem_new(from->n, sizeof *to->tokens, NULL);
	if (!to->tokens) {
		*to = (struct tape){0};
		return -1;
	}
	if (from->n > 0)
		memcpy(to->tokens, from->tokens, from->n * sizeof *to->tokens);
	return 0;
}
