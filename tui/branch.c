#include "tui/branch.h"
#include "base/memory.h"
#include "core/tokenizer.h"
#include "tui/talk.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void branch_empty(struct branch *branch)
{
	transcript_free(&branch->transcript);
	tape_free(&branch->tape);
}

void branches_free(struct branches *branches)
{
	for (size_t i = 0; i < branches->n; i++)
		branch_empty(&branches->items[i]);
	free(branches->items);
	*branches = (struct branches){0};
}

/* Keeps the active way, before another one is shown. */
static int save(struct talk *talk, struct error *err)
{
	struct branch *branch = &talk->branches.items[talk->branches.active];
	branch_empty(branch);
	branch->leaf = talk->conversation.active;
	if (transcript_copy(&branch->transcript, &talk->transcript) ||
		tape_copy(&branch->tape, &talk->tape))
		return fail(err, "no memory for a branch of %zu tokens", talk->tape.n);
	return 0;
}

static int show(struct talk *talk, size_t i, struct error *err)
{
	struct branch *branch = &talk->branches.items[i];
	struct transcript transcript;
	if (save(talk, err))
		return -1;
	if (transcript_copy(&transcript, &branch->transcript))
		return fail(err, "no memory for a branch");
	transcript_free(&talk->transcript);
	talk->transcript = transcript;
	tape_free(&talk->tape);
	talk->tape = branch->tape;
	branch->tape = (struct tape){0};
	conversation_select(&talk->conversation, branch->leaf);
	talk->branches.active = i;
	talk_say(talk, "branch %zu of %zu: %s", i + 1, talk->branches.n, branch->note);
	return 0;
}

static int add(struct branches *branches, const struct branch *branch, struct error *err)
{
	if (mem_grow(&branches->items, &branches->capacity, branches->n + 1, sizeof *branches->items,
				 err))
		return -1;
	branches->items[branches->n++] = *branch;
	return 0;
}

/* A token as a short quotation. */
static void quote(const struct model *model, int32_t id, char out[32])
{
	struct text text = {0};
	tokenizer_decode(model->tokenizer, id, &text);
	size_t n = 0, i = 0;
	out[n++] = '\'';
	for (; i < text.length && n < 26; i++) {
		char c = text.data[i];
		if (c == '\n' || c == '\t') // as the strip of Tokens shows them
			out[n++] = '\\';
		out[n++] = c == '\n' ? 'n' : c == '\t' ? 't' : c;
	}
	while (i < text.length && n > 1 && ((unsigned char)out[n - 1] & 0xc0) == 0x80)
		n--; // no half character
	n -= i < text.length && (unsigned char)out[n - 1] >= 0xc0;
	strcpy(out + n, "'");
	text_free(&text);
}

static int may_branch(const struct talk *talk, int at, struct error *err)
{
	const struct tape *tape = &talk->tape;
	if (talk->running)
		return fail(err, "the model is still answering; Ctrl-C stops it");
	if (!talk->model)
		return fail(err, "branch: there is no model");
	if (at < 0 || (size_t)at < tape->prompt || (size_t)at >= tape->n)
		return fail(err, "branch: token %d was not written by the model; %zu to %zu were", at,
					tape->prompt, tape->n - (tape->n > tape->prompt));
	if (!tape->known)
		return fail(err, "branch: the ids of the prompt are not known");
	return 0;
}

/* From exactly the tape's first `at` ids and this one. */
static int submit(struct talk *talk, int at, int32_t id, const char *budget, struct error *err)
{
	int32_t *ids = mem_new((size_t)at + 1, sizeof *ids, err);
	if (!ids)
		return -1;
	struct request request = {.type = REQUEST_TURN,
							  .seq = talk->seq,
							  .conversation = &talk->conversation,
							  .tokens = ids,
							  .n_tokens = at + 1,
							  .settings = talk->settings};
	snprintf(request.settings.budget, sizeof request.settings.budget, "%s", budget);
	request.settings.policy = false;
	request.settings.rule[0] = 0;
	tape_ids(&talk->tape, (size_t)at, ids);
	ids[at] = id;
	int result = engine_submit(talk->engine, &request, err);
	free(ids);
	return result;
}

int talk_branch(struct talk *talk, int at, int32_t id, const char *budget, struct error *err)
{
	struct branches *branches = &talk->branches;
	struct conversation *conversation = &talk->conversation;
	char new_text[32], old_text[32];
	if (may_branch(talk, at, err) || talk_check_budget(talk, budget, err))
		return -1;
	if (branches->n == 0 &&
		add(branches, &(struct branch){.from = -1, .at = -1, .note = "the first way"}, err))
		return -1;
	if (save(talk, err))
		return -1;
	struct tape_token old = talk->tape.tokens[at];
	struct branch branch = {.from = (int)branches->active, .at = at};
	quote(talk->model, id, new_text);
	quote(talk->model, old.id, old_text);
	snprintf(branch.note, sizeof branch.note, "%.20s %s for %s", budget, new_text, old_text);
	if (add(branches, &branch, err))
		return -1;
	int before = conversation->active;
	if (before != NO_MESSAGE && conversation->messages[before].role == CHAT_ASSISTANT)
		conversation_select(conversation, conversation->messages[before].parent);
	if (submit(talk, at, id, budget, err)) {
		conversation_select(conversation, before);
		branches->n--;
		return -1;
	}
	branches->active = branches->n - 1;
	branches->begins = true;
	transcript_undo(&talk->transcript, true);
	tape_cut(&talk->tape, (size_t)at + 1);
	struct tape_token *token = &talk->tape.tokens[at];
	token->id = token->picked.id = id;
	token->writer = (int8_t)talk_writer_index(talk, budget);
	token->reader = TAPE_NOBODY;
	token->ends =
		old.phase == PHASE_THINK && id == tokenizer_special(talk->model->tokenizer, "</think>");
	talk->running = true;
	talk->turn_begun = false;
	return 0;
}

int talk_walk_branches(struct talk *talk, int step, struct error *err)
{
	int n = (int)talk->branches.n;
	if (talk->running)
		return fail(err, "the model is still answering; Ctrl-C stops it");
	if (n < 2)
		return fail(err, "there is one way only; Enter on an alternative makes a branch");
	return show(talk, (size_t)(((int)talk->branches.active + step % n + n) % n), err);
}

int talk_leave_branch(struct talk *talk, struct error *err)
{
	const struct branches *branches = &talk->branches;
	int from = branches->n > 0 ? branches->items[branches->active].from : -1;
	if (talk->running)
		return fail(err, "the model is still answering; Ctrl-C stops it");
	if (from < 0)
		return fail(err, "this is the first way; :undo takes the message back");
	return show(talk, (size_t)from, err);
}

/* The event that token i was, with its text. */
static void replay(struct talk *talk, struct decode_state *state, size_t i, struct text *text)
{
	const struct tape_token *token = &talk->tape.tokens[i];
	const struct elastic *elastic = &talk->model->elastic;
	struct event event = {.type = EV_TOKEN, .seq = talk->seq};
	text_clear(text);
	if (!token->ends && !tokenizer_is_special(talk->model->tokenizer, token->id))
		tokenizer_decode_step(talk->model->tokenizer, state, token->id, text);
	event.token.at = (int)i;
	event.token.id = token->id;
	event.token.logprob = token->picked.logprob;
	event.token.phase = token->phase;
	event.token.picked = token->picked;
	event.token.thinking_ends = token->ends;
	if (token->writer >= 0 && token->writer < elastic->n_budgets)
		snprintf(event.token.budget, sizeof event.token.budget, "%s",
				 elastic->budgets[token->writer].name);
	event.text = text_chars(text);
	event.length = text->length;
	reply_event(&talk->reply, &event);
	transcript_token(&talk->transcript, &event, &talk->reply, token->writer);
}

void branch_begun(struct talk *talk, const struct event *turn)
{
	struct decode_state state = {0};
	struct text text = {0};
	(void)turn;
	if (!talk->branches.begins)
		return;
	talk->branches.begins = false;
	size_t prompt = talk->tape.prompt;
	talk->reply.thinking = prompt < talk->tape.n && talk->tape.tokens[prompt].phase == PHASE_THINK;
	for (size_t i = prompt; i < talk->tape.n; i++)
		replay(talk, &state, i, &text);
	text_free(&text);
}
