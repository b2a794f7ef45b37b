#include "tui/branch.h"
#include "base/memory.h"
#include "core/tokenizer.h"
#include "tui/talk.h"
#include <limits.h>
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
	free(branches->steps);
	*branches = (struct branches){0};
}

/* Appends to the head what is one line of it, in whole characters. */
void branch_add_head(struct branch *branch, const char *bytes, size_t length)
{
	size_t n = strlen(branch->head), i = 0;
	for (; i < length && n + 1 < sizeof branch->head; i++)
		if (bytes[i] != '\n' && bytes[i] != '\t')
			branch->head[n++] = bytes[i];
		else if (n > 0 && branch->head[n - 1] != ' ')
			branch->head[n++] = ' ';
	while (i < length && n > 0 && ((unsigned char)branch->head[n - 1] & 0xc0) == 0x80)
		n--;
	n -= i < length && n > 0 && (unsigned char)branch->head[n - 1] >= 0xc0;
	branch->head[n] = 0;
}

/* ---- steps ---- */

static void remember(struct branches *branches, size_t way)
{
	if (mem_grow(&branches->steps, &branches->steps_capacity, branches->step + 2,
				 sizeof *branches->steps, NULL))
		return; // undo knows less
	if (branches->n_steps > 0 && branches->steps[branches->step] == way)
		return;
	branches->step += branches->n_steps > 0;
	branches->steps[branches->step] = way;
	branches->n_steps = branches->step + 1;
}

/* ---- ways ---- */

/* Keeps the shown way; of one that lost messages the kept state stays. */
int branches_keep(struct talk *talk, struct error *err)
{
	struct branches *branches = &talk->branches;
	struct branch *branch = &branches->items[branches->active];
	if (branches->apart)
		return 0;
	branch_empty(branch);
	branch->leaf = talk->conversation.active;
	branch->turn = talk->turn;
	if (transcript_copy(&branch->transcript, &talk->transcript) ||
		tape_copy(&branch->tape, &talk->tape))
		return fail(err, "no memory for a branch of %zu tokens", talk->tape.n);
	return 0;
}

int branches_add(struct talk *talk, const struct branch *branch, struct error *err)
{
	struct branches *branches = &talk->branches;
	if (branches->n == INT_MAX)
		return fail(err, "a conversation has at most %d branches", INT_MAX);
	if (mem_grow(&branches->items, &branches->capacity, branches->n + 1, sizeof *branches->items,
				 err))
		return -1;
	branches->items[branches->n++] = *branch;
	return 0;
}

/* The way that was there before anybody branched; its head is the first message. */
static int add_first(struct talk *talk, struct error *err)
{
	struct branch first = {.from = -1, .at = -1, .note = "the first way", .turn = talk->turn};
	const struct conversation *conversation = &talk->conversation;
	int root = conversation->active;
	if (talk->branches.n > 0)
		return 0;
	while (root != NO_MESSAGE && conversation->messages[root].parent != NO_MESSAGE)
		root = conversation->messages[root].parent;
	if (root != NO_MESSAGE)
		branch_add_head(&first, conversation->messages[root].text,
						conversation->messages[root].text_length);
	if (branches_add(talk, &first, err))
		return -1;
	remember(&talk->branches, 0);
	return 0;
}

int branches_show(struct talk *talk, size_t i, struct error *err)
{
	struct branches *branches = &talk->branches;
	struct branch *branch = &branches->items[i];
	struct transcript transcript;
	struct tape tape;
	if (branches_keep(talk, err))
		return -1;
	if (branches->n_steps == 0)
		remember(branches, branches->active);
	if (transcript_copy(&transcript, &branch->transcript))
		return fail(err, "no memory for a branch");
	if (tape_copy(&tape, &branch->tape)) {
		transcript_free(&transcript);
		return fail(err, "no memory for a branch");
	}
	transcript_free(&talk->transcript);
	talk->transcript = transcript;
	tape_free(&talk->tape);
	talk->tape = tape;
	talk->turn = branch->turn;
	conversation_select(&talk->conversation, branch->leaf);
	branches->active = i;
	branches->apart = false;
	branches->moved = true;
	return 0;
}

static void say_shown(struct talk *talk)
{
	const struct branches *branches = &talk->branches;
	talk_say(talk, "branch %zu of %zu: %s", branches->active + 1, branches->n,
			 branches->items[branches->active].note);
}

/* The new way is the last one and shown from now on. */
static void begin(struct talk *talk)
{
	struct branches *branches = &talk->branches;
	branches->active = branches->n - 1;
	branches->apart = false;
	branches->fresh = true;
	branches->heading = branches->items[branches->active].head[0] == 0;
	remember(branches, branches->active);
}

int branches_part(struct talk *talk, struct error *err)
{
	if (talk->branches.apart)
		return 0;
	if (add_first(talk, err) || branches_keep(talk, err))
		return -1;
	talk->branches.apart = true;
	return 0;
}

int branches_send(struct talk *talk, int at, const char *note, const char *head, struct error *err)
{
	struct branches *branches = &talk->branches;
	struct branch branch = {.from = (int)branches->active, .at = at, .turn = -1};
	if (!branches->apart)
		return 0;
	snprintf(branch.note, sizeof branch.note, "%s", note);
	if (head)
		branch_add_head(&branch, head, strlen(head));
	if (branches_add(talk, &branch, err))
		return -1;
	begin(talk);
	return 0;
}

void branches_taken_back(struct talk *talk)
{
	struct branches *branches = &talk->branches;
	if (!branches->fresh)
		return;
	struct branch *branch = &branches->items[--branches->n];
	bool inside = branch->at >= 0;
	branches->active = (size_t)branch->from;
	branch_empty(branch);
	branches->fresh = branches->heading = false;
	branches->apart = true;
	branches->n_steps = branches->step;
	branches->step -= branches->step > 0;
	if (inside)
		branches_show(talk, branches->active, NULL);
}

void branches_event(struct talk *talk, const struct event *event)
{
	struct branches *branches = &talk->branches;
	if (branches->n == 0)
		return;
	struct branch *branch = &branches->items[branches->active];
	if (event->type == EV_TURN)
		branches->moved = false;
	if (event->type == EV_TOKEN && branches->heading && event->text &&
		(!event->token.given || event->token.at >= branch->at))
		branch_add_head(branch, event->text, event->length);
	if (event->type == EV_MESSAGE && talk->replay && branches->heading &&
		!strcmp(event->message.role, "user")) { // live, an engine repeats what was resumed
		branch_add_head(branch, event->text, event->length);
		branches->heading = false;
	}
	if (event->type == EV_STOP)
		branches->fresh = branches->heading = false;
}

/* ---- a branch inside an answer ---- */

void branch_quote(const char *bytes, size_t length, char out[32])
{
	size_t n = 0, i = 0;
	out[n++] = '\'';
	for (; i < length && n < 26; i++) {
		char c = bytes[i];
		if (c == '\n' || c == '\t') // as the strip of Tokens shows them
			out[n++] = '\\';
		out[n++] = c == '\n' ? 'n' : c == '\t' ? 't' : c;
	}
	while (i < length && n > 1 && ((unsigned char)out[n - 1] & 0xc0) == 0x80)
		n--; // no half character
	n -= i < length && (unsigned char)out[n - 1] >= 0xc0;
	strcpy(out + n, "'");
}

static void quote(const struct model *model, int32_t id, char out[32])
{
	struct text text = {0};
	tokenizer_decode(model->tokenizer, id, &text);
	branch_quote(text_chars(&text), text.length, out);
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
	const struct tape *tape = &talk->tape;
	int32_t *ids = mem_new((size_t)at + 1, sizeof *ids, err);
	if (!ids)
		return -1;
	struct request request = {.type = REQUEST_TURN,
							  .seq = talk->seq,
							  .conversation = &talk->conversation,
							  .tokens = ids,
							  .n_tokens = at + 1,
							  .n_prompt = (int)tape->prompt,
							  .branched = true,
							  .left = talk->turn,
							  .settings = talk->settings};
	snprintf(request.settings.budget, sizeof request.settings.budget, "%s", budget);
	request.settings.policy = false;
	request.settings.rule[0] = 0;
	request.settings.thinking = tape->tokens[tape->prompt].phase == PHASE_THINK;
	tape_ids(tape, (size_t)at, ids);
	ids[at] = id;
	int result = engine_submit(talk->engine, &request, err);
	free(ids);
	return result;
}

/* The tape up to the token that is another one now; the engine tells the answer up to it. */
static void cut_tape(struct talk *talk, int at, int32_t id, const char *budget)
{
	tape_cut(&talk->tape, (size_t)at + 1);
	struct tape_token *token = &talk->tape.tokens[at];
	token->id = token->picked.id = id;
	token->writer = (int8_t)talk_writer_index(talk, budget);
	token->reader = TAPE_NOBODY;
}

int talk_branch(struct talk *talk, int at, int32_t id, const char *budget, struct error *err)
{
	struct conversation *conversation = &talk->conversation;
	char new_text[32], old_text[32];
	if (may_branch(talk, at, err) || talk_check_budget(talk, budget, err))
		return -1;
	if (add_first(talk, err) || branches_keep(talk, err))
		return -1;
	struct branch branch = {.from = (int)talk->branches.active, .at = at, .turn = -1};
	quote(talk->model, id, new_text);
	quote(talk->model, talk->tape.tokens[at].id, old_text);
	snprintf(branch.note, sizeof branch.note, "%.20s %s for %s", budget, new_text, old_text);
	if (branches_add(talk, &branch, err))
		return -1;
	int before = conversation->active;
	if (before != NO_MESSAGE && conversation->messages[before].role == CHAT_ASSISTANT)
		conversation_select(conversation, conversation->messages[before].parent);
	if (submit(talk, at, id, budget, err)) {
		conversation_select(conversation, before);
		talk->branches.n--;
		return -1;
	}
	begin(talk);
	transcript_undo(&talk->transcript, true);
	cut_tape(talk, at, id, budget);
	talk->running = true;
	talk->turn_begun = false;
	return 0;
}

/* ---- walking ---- */

/* The way that a step leads to, or -1 and the reason. */
static int target(const struct branches *branches, enum branch_walk walk, struct error *err)
{
	size_t *order, n = branches->n, at = 0;
	int from = branches->items[branches->active].from;
	switch (walk) {
	case WALK_PARENT:
		return branches->apart ? (int)branches->active
			   : from >= 0     ? from
							   : fail(err, "this is the first way; :undo takes the message back");
	case WALK_UNDO:
		return branches->apart      ? (int)branches->active
			   : branches->step > 0 ? (int)branches->steps[branches->step - 1]
									: fail(err, "no branch was shown before this one");
	case WALK_REDO:
		return branches->step + 1 < branches->n_steps
				   ? (int)branches->steps[branches->step + 1]
				   : fail(err, "there is nothing to do again: u goes back first");
	case WALK_NEXT:
	case WALK_PREVIOUS: break;
	}
	if (n < 2)
		return fail(err, "there is one way only; Enter on an alternative makes a branch");
	if (!(order = branches_order(branches)))
		return fail(err, "no memory for %zu branches", n);
	while (order[at] != branches->active)
		at++;
	int way = (int)order[(at + (walk == WALK_NEXT ? 1 : n - 1)) % n];
	free(order);
	return way;
}

static int may_walk(const struct talk *talk, struct error *err)
{
	if (talk->running)
		return fail(err, "the model is still answering; Ctrl-C stops it");
	if (talk->branches.n == 0)
		return fail(err, "there is one way only; Enter on an alternative makes a branch");
	return 0;
}

int talk_walk_branches(struct talk *talk, enum branch_walk walk, struct error *err)
{
	struct branches *branches = &talk->branches;
	bool apart = branches->apart;
	int way = may_walk(talk, err) ? -1 : target(branches, walk, err);
	if (way < 0 || branches_show(talk, (size_t)way, err))
		return -1;
	if (walk == WALK_REDO)
		branches->step++;
	else if (walk == WALK_UNDO)
		branches->step -= !apart;
	else
		remember(branches, (size_t)way);
	say_shown(talk);
	return 0;
}

int talk_show_branch(struct talk *talk, int number, struct error *err)
{
	if (may_walk(talk, err))
		return -1;
	if (number < 1 || (size_t)number > talk->branches.n)
		return fail(err, "branch %d: there are 1 to %zu", number, talk->branches.n);
	if (branches_show(talk, (size_t)number - 1, err))
		return -1;
	remember(&talk->branches, (size_t)number - 1);
	say_shown(talk);
	return 0;
}

/* ---- the tree ---- */

static bool is_last(const struct branches *branches, size_t i)
{
	for (size_t k = i + 1; k < branches->n; k++)
		if (branches->items[k].from == branches->items[i].from)
			return false;
	return true;
}

size_t *branches_order(const struct branches *branches)
{
	size_t *order = mem_new(branches->n, sizeof *order, NULL), n = 0;
	int parent = -1;
	size_t next = 0; // the parent's children before it are placed
	while (order && n < branches->n) {
		while (next < branches->n && branches->items[next].from != parent)
			next++;
		if (next < branches->n) { // down
			order[n++] = next;
			parent = (int)next++; // children come behind their parents
		} else if (parent >= 0) { // up
			next = (size_t)parent + 1;
			parent = branches->items[parent].from;
		} else {
			break;
		}
	}
	return order;
}

void branches_line(const struct branches *branches, size_t i, bool ascii, struct text *out)
{
	const struct branch *branch = &branches->items[i];
	int depth = 0, chain[BRANCH_LEVELS];
	text_format(out, "%zu ", i + 1);
	for (int at = (int)i; branches->items[at].from >= 0; at = branches->items[at].from)
		depth++;
	int shown = depth < BRANCH_LEVELS ? depth : BRANCH_LEVELS, at = (int)i;
	for (int k = shown; k-- > 0; at = branches->items[at].from)
		chain[k] = at;
	if (shown < depth)
		text_format(out, "+%d ", depth - shown);
	for (int k = 0; k < shown; k++) {
		bool last = is_last(branches, (size_t)chain[k]);
		if (k + 1 < shown)
			text_add(out, last ? "  " : ascii ? "| " : "│ ");
		else
			text_add(out, ascii ? (last ? "`-" : "|-") : last ? "└─" : "├─");
	}
	text_add(out, depth > 0 ? " " : "");
	if (branch->at >= 0)
		text_format(out, "@%d ", branch->at);
	text_add(out, branch->note);
	if (branch->head[0])
		text_format(out, ": %s", branch->head);
}
