#include "tui/compare.h"
#include "base/file.h"
#include "base/memory.h"
#include "core/config.h"
#include "core/slice.h"
#include "inspect/fidelity.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void column_close(struct compare_column *column)
{
	struct engine *engine = column->own_engine ? column->talk.engine : NULL;
	talk_free(&column->talk);
	engine_close(engine);
	free(column->directory);
	*column = (struct compare_column){0};
}

void compare_close(struct compare *compare)
{
	for (int i = 0; i < compare->n; i++)
		column_close(&compare->columns[i]);
	model_release(compare->model);
	*compare = (struct compare){0};
}

void compare_end(struct compare *compare, const struct talk *talk)
{
	for (int i = 0; i < compare->n; i++) {
		const struct compare_column *column = &compare->columns[i];
		if (!column->own_engine) // a sequence that can't be told goes with the engine
			engine_submit(talk->engine,
						  &(struct request){.type = REQUEST_CLEAR, .seq = column->talk.seq}, NULL);
	}
	compare_close(compare);
}

/* The budget by the name that the file gives it, and what it costs. */
static int look_up(struct compare_column *column, struct error *err)
{
	struct budget budget = {0};
	struct slice slice = {0};
	const struct model *model = column->talk.model;
	if (model_budget(model, column->budget, &budget, err))
		return -1;
	int index = elastic_find(&model->elastic, column->budget);
	if (index >= 0)
		snprintf(column->budget, sizeof column->budget, "%s", model->elastic.budgets[index].name);
	int result = slice_build(&slice, &model->weights, &model->config, &budget, NULL, NULL, err);
	if (result == 0) {
		column->weights_bytes = (int64_t)slice.cost.bytes;
		column->bytes_per_token = (int64_t)slice.cost.bytes_per_token;
	}
	slice_free(&slice);
	budget_free(&budget);
	memcpy(column->talk.settings.budget, column->budget, sizeof column->budget);
	column->talk.settings.policy = false;
	column->talk.settings.rule[0] = column->talk.settings.read[0] = 0;
	return result;
}

/* What was said so far. */
static int inherit(struct compare_column *column, const struct talk *talk, struct error *err)
{
	conversation_free(&column->talk.conversation);
	if (conversation_copy_path(&talk->conversation, talk->conversation.active,
							   &column->talk.conversation, err))
		return -1;
	column->n_before = column->talk.conversation.n_messages;
	if (transcript_copy(&column->talk.transcript, &talk->transcript))
		return fail(err, "no memory for a column");
	column->n_entries = talk->transcript.n_entries;
	return 0;
}

/* On the conversation's engine. */
static int open_beside(struct compare_column *column, const struct talk *talk, struct error *err)
{
	talk_init(&column->talk, talk->engine);
	column->talk.model = model_retain(talk->model);
	column->talk.settings = talk->settings;
	column->talk.seed_fixed = talk->seed_fixed;
	column->talk.math = talk->math;
	column->talk.pace = talk->pace;
	return look_up(column, err);
}

/* The column reads on a sequence of its own, which goes on from the conversation's. */
static int take_sequence(struct compare_column *column, const struct talk *talk, int seq,
						 struct error *err)
{
	struct request request = {.type = REQUEST_CLEAR, .seq = seq};
	column->talk.seq = seq;
	if (talk->conversation.active != NO_MESSAGE)
		request = (struct request){.type = REQUEST_FORK, .seq = seq, .value = 0};
	return engine_submit(talk->engine, &request, err);
}

/* On an engine of its own, which opens the checkpoint in its own time. */
static int open_other(struct compare_column *column, const struct talk *talk,
					  const struct tui_options *options, struct error *err)
{
	struct engine_options engine_options = options->engine;
	engine_options.record = NULL;
	struct engine *engine = options->open_engine ? options->open_engine(&engine_options, err)
												 : engine_local_open(&engine_options, err);
	if (!engine)
		return -1;
	talk_init(&column->talk, engine);
	column->own_engine = true;
	column->talk.settings = talk->settings;
	column->talk.seed_fixed = talk->seed_fixed;
	column->talk.pace_chosen = true;
	if (talk->pace > 0 && talk_pace(&column->talk, talk->pace, err))
		return -1;
	return talk_open(&column->talk, column->directory, NULL, options->lenient, err);
}

/* The same prompts are put to both, as words or as ids, and unless texts are all that is wanted
 * their probabilities are compared. What the tokens are is looked at once the checkpoint is open.
 */
static int check_directory(const struct talk *talk, const char *directory, bool text_only,
						   struct error *err)
{
	struct config config;
	if (config_read(&config, directory, err))
		return -1;
	if (!text_only && config.vocab_size != talk->model->config.vocab_size)
		return fail(err,
					"vocabularies differ: %s has %d tokens, %s has %d; :compare text-only compares "
					"what they write",
					talk->model->directory, talk->model->config.vocab_size, directory,
					config.vocab_size);
	char *path = file_join(directory, "tokenizer.json", err);
	if (!path)
		return -1;
	bool words = access(path, R_OK) == 0;
	free(path);
	if (words == (talk->model->tokenizer != NULL))
		return 0;
	return fail(err, "compare: %s has no tokenizer.json, %s has one: no prompt can be read by both",
				words ? talk->model->directory : directory,
				words ? directory : talk->model->directory);
}

static int open_column(struct compare_column *column, const struct talk *talk, const char *spec,
					   bool text_only, const struct tui_options *options, struct error *err)
{
	const char *hash = strrchr(spec, '#');
	const char *budget = hash ? hash + 1 : spec;
	column->weights_bytes = column->bytes_per_token = -1;
	if (strlen(budget) >= sizeof column->budget)
		return fail(err, "compare: budget %.20s...: a name has at most %zu bytes", budget,
					sizeof column->budget - 1);
	strcpy(column->budget, budget);
	if (hash && !(column->directory = mem_string(spec, (size_t)(hash - spec), err)))
		return -1;
	if (hash && check_directory(talk, column->directory, text_only, err))
		return -1;
	if (hash ? open_other(column, talk, options, err) : open_beside(column, talk, err))
		return -1;
	return inherit(column, talk, err);
}

int compare_open(struct compare *compare, const struct talk *talk, const struct compare_plan *plan,
				 const struct tui_options *options, struct error *err)
{
	int n = plan->n;
	if (compare_running(compare))
		return fail(err, "the columns are still being written; Ctrl-C stops them");
	if (!talk->model)
		return fail(err, "compare: the model is not open yet");
	struct compare opened = {.base = talk->conversation.active,
							 .text_only = plan->text_only,
							 .lenient = options->lenient,
							 .model = model_retain(talk->model)};
	for (int i = 0; i < n; i++) {
		opened.n = i + 1;
		if (open_column(&opened.columns[i], talk, plan->specs[i], plan->text_only, options, err)) {
			compare_close(&opened);
			return -1;
		}
	}
	compare_end(compare, talk); // only now: the old columns lose their sequences
	for (int i = 0; i < n; i++)
		if (!opened.columns[i].own_engine &&
			take_sequence(&opened.columns[i], talk, COMPARE_FIRST_SEQ + i, err)) {
			compare_end(&opened, talk);
			return -1;
		}
	*compare = opened;
	return 0;
}

bool compare_opening(const struct compare *compare)
{
	bool opening = false;
	for (int i = 0; i < compare->n; i++)
		opening |= compare->columns[i].talk.opening;
	return opening;
}

struct memory_use compare_memory(const struct compare *compare)
{
	struct memory_use sum = {0};
	for (int i = 0; i < compare->n; i++) {
		const struct memory_use *use = &compare->columns[i].talk.memory;
		if (!compare->columns[i].own_engine || !compare->columns[i].talk.has_memory)
			continue;
		sum.weights_bytes += use->weights_bytes;
		sum.resident_bytes += use->resident_bytes;
		sum.kv_bytes += use->kv_bytes;
		sum.conv_bytes += use->conv_bytes;
		sum.ssm_bytes += use->ssm_bytes;
		sum.snapshot_bytes += use->snapshot_bytes;
		sum.scratch_bytes += use->scratch_bytes;
		sum.n_sequences += use->n_sequences;
	}
	return sum;
}

bool compare_running(const struct compare *compare)
{
	bool running = false;
	for (int i = 0; i < compare->n; i++)
		running |= compare->columns[i].talk.running;
	return running;
}

int compare_send(struct compare *compare, const struct talk *talk, const char *text, size_t length,
				 struct error *err)
{
	if (compare->n == 0)
		return fail(err, "nothing is compared yet: :compare A B names two budgets");
	if (compare_running(compare))
		return fail(err, "the columns are still being written; Ctrl-C stops them");
	for (int i = 0; i < compare->n; i++)
		if (compare->columns[i].refused[0])
			return fail(err, "column %d: %s", i + 1, compare->columns[i].refused);
		else if (!compare->columns[i].talk.model)
			return fail(err, "column %d: %s is %s", i + 1, compare->columns[i].directory,
						compare->columns[i].talk.opening ? "still opening"
														 : "not open; :compare begins anew");
	for (int i = 0; i < compare->n; i++) {
		struct compare_column *column = &compare->columns[i];
		compare_divergence(compare, i, &column->own, &column->base); // the ids of this turn go
	}
	for (int i = 0; i < compare->n; i++) {
		struct compare_column *column = &compare->columns[i];
		struct turn_settings settings = talk->settings; // seed, sampling, thinking: as in the chat
		memcpy(settings.budget, column->budget, sizeof settings.budget);
		settings.policy = false;
		settings.rule[0] = settings.read[0] = 0;
		column->talk.settings = settings;
		column->talk.metrics = (struct metrics){0};
		if (talk_send(&column->talk, text, length, err))
			return -1;
	}
	return 0;
}

bool compare_stop(struct compare *compare)
{
	bool running = compare_running(compare);
	for (int i = 0; i < compare->n; i++)
		if (compare->columns[i].talk.running)
			talk_stop(&compare->columns[i].talk, NULL);
	return running;
}

/* How many messages the column has of its own; one that failed may have fewer than others. */
static int own_messages(const struct compare_column *column)
{
	const struct conversation *conversation = &column->talk.conversation;
	int n = 0;
	for (int at = conversation->active; at != NO_MESSAGE; at = conversation->messages[at].parent)
		n += at >= column->n_before && conversation->messages[at].role == CHAT_USER;
	return n;
}

int compare_undo(struct compare *compare, struct text *out, struct error *err)
{
	int most = 0;
	bool told = false;
	if (compare_running(compare))
		return fail(err, "the columns are still being written; Ctrl-C stops them");
	for (int i = 0; i < compare->n; i++)
		most =
			own_messages(&compare->columns[i]) > most ? own_messages(&compare->columns[i]) : most;
	if (most == 0)
		return fail(err, "nothing was said to the columns");
	for (int i = 0; i < compare->n; i++) {
		struct compare_column *column = &compare->columns[i];
		if (own_messages(column) < most)
			continue;
		if (talk_undo(&column->talk, told ? NULL : out, err))
			return -1;
		told = true;
		text_clear(&column->talk.notice);
		column->own = column->base = (struct compare_place){0};
	}
	return 0;
}

/* A column's checkpoint is open: has it the budget, and the conversation's tokens? */
static void judge(const struct compare *compare, struct compare_column *column)
{
	struct error err = {0};
	if (look_up(column, &err) == 0 &&
		(compare->text_only ||
		 fidelity_same_vocabulary(compare->model, column->talk.model, &err) == 0))
		return;
	snprintf(column->refused, sizeof column->refused, "%s", err.text);
}

static void column_event(const struct compare *compare, struct compare_column *column,
						 const struct event *event)
{
	talk_event(&column->talk, event);
	if (event->type == EV_OPENED)
		judge(compare, column);
	if (event->type == EV_ERROR && !column->talk.model)
		snprintf(column->refused, sizeof column->refused, "%s", event->text);
	if (event->type == EV_MEMORY)
		column->state = event->memory.sequences[0];
}

bool compare_event(struct compare *compare, const struct event *event)
{
	bool taken = false;
	for (int i = 0; i < compare->n; i++) {
		struct compare_column *column = &compare->columns[i];
		if (column->own_engine)
			continue;
		if (event->type == EV_MEMORY && event->seq == 0) {
			column->state = event->memory.sequences[column->talk.seq];
			taken = true;
		}
		if (event->seq != column->talk.seq)
			continue;
		column_event(compare, column, event);
		taken = true;
	}
	return taken;
}

bool compare_drain(struct compare *compare)
{
	bool any = false;
	for (int i = 0; i < compare->n; i++) {
		struct compare_column *column = &compare->columns[i];
		const struct event *event;
		while (column->own_engine && (event = engine_next(column->talk.engine))) {
			column_event(compare, column, event);
			any = true;
		}
	}
	return any;
}

/* The column's own messages behind the ones that it had from the conversation. */
static int append(const struct compare_column *column, struct conversation *to, struct error *err)
{
	const struct conversation *from = &column->talk.conversation;
	for (int i = column->n_before; i < from->n_messages; i++) {
		const struct message *m = &from->messages[i];
		if (conversation_append(to, m->role, (struct chat_string){m->text, m->text_length},
								(struct chat_string){m->reasoning, m->reasoning_length}, err) < 0)
			return -1;
	}
	return 0;
}

int compare_keep(struct compare *compare, int i, struct talk *talk, struct error *err)
{
	if (compare->n == 0)
		return fail(err, "nothing is compared: :compare A B names two budgets");
	if (i < 0 || i >= compare->n)
		return fail(err, "there are columns 1 to %d", compare->n);
	if (compare_running(compare) || talk->running)
		return fail(err, "tokens are still being written; Ctrl-C stops that");
	struct compare_column *column = &compare->columns[i];
	if (column->refused[0] || !column->talk.model)
		return fail(err, "column %d: %s", i + 1,
					column->refused[0] ? column->refused : "its checkpoint is still opening");
	struct transcript transcript;
	struct tape tape;
	if (transcript_copy(&transcript, &column->talk.transcript))
		return fail(err, "no memory for the column's text");
	if (tape_copy(&tape, &column->talk.tape)) {
		transcript_free(&transcript);
		return fail(err, "no memory for the column's tokens");
	}
	conversation_select(&talk->conversation, compare->base);
	append(column, &talk->conversation, err);
	transcript_free(&talk->transcript);
	tape_free(&talk->tape);
	branches_free(&talk->branches);
	talk->transcript = transcript;
	talk->tape = tape;
	int result = 0;
	if (column->own_engine) {
		result = talk_open(talk, column->directory, NULL, compare->lenient, err);
		if (result == 0) {
			snprintf(talk->open_with, sizeof talk->open_with, "%s", column->budget);
			talk_say(talk,
					 "column %d is the conversation now; %s opens, %s will write and reads it "
					 "again",
					 i + 1, column->directory, column->budget);
		}
	} else {
		struct request fork = {.type = REQUEST_FORK, .seq = 0, .value = column->talk.seq};
		result = engine_submit(talk->engine, &fork, err);
		if (result == 0)
			result = talk_choose_budget(talk, column->budget, err);
		if (result == 0)
			talk_say(talk, "column %d is the conversation now; %s writes", i + 1, column->budget);
	}
	compare_end(compare, talk);
	return result;
}

/* ---- divergence ---- */

struct walk { // over the written tokens of the last turn
	const struct transcript *transcript;
	size_t entry, token;
	int turn, number;
};

/* What was said before the comparison is no turn of it. */
static struct walk walk_begin(const struct compare_column *column)
{
	const struct transcript *transcript = &column->talk.transcript;
	struct walk walk = {transcript, transcript->n_entries, 0, 0, -1};
	for (size_t i = column->n_entries; i < transcript->n_entries; i++)
		if (transcript->entries[i].kind == ENTRY_USER) {
			walk.entry = i + 1;
			walk.turn++;
		}
	return walk;
}

static bool walk_next(struct walk *walk, struct compare_place *place)
{
	while (walk->entry < walk->transcript->n_entries &&
		   walk->token >= walk->transcript->entries[walk->entry].n_tokens) {
		walk->entry++;
		walk->token = 0;
	}
	if (walk->entry >= walk->transcript->n_entries)
		return false;
	const struct entry *entry = &walk->transcript->entries[walk->entry];
	*place = (struct compare_place){walk->turn, ++walk->number, walk->entry,
									entry->tokens[walk->token++].offset};
	return true;
}

static bool by_ids(const struct compare_column *a, const struct compare_column *b)
{
	return a->talk.model && a->talk.model == b->talk.model;
}

static int32_t id_of(const struct compare_column *column, int number)
{
	const struct tape *tape = &column->talk.tape;
	size_t at = tape->prompt + (size_t)number;
	return at < tape->n ? tape->tokens[at].id : -1;
}

/* Where the text of the token ends. */
static size_t end_of(const struct transcript *transcript, const struct compare_place *place)
{
	const struct entry *entry = &transcript->entries[place->entry];
	for (size_t i = 0; i < entry->n_tokens; i++)
		if (entry->tokens[i].offset > place->offset)
			return entry->tokens[i].offset;
	return entry->text.length;
}

static bool same_text(const struct compare_column *a, const struct compare_place *x,
					  const struct compare_column *b, const struct compare_place *y)
{
	const struct entry *p = &a->talk.transcript.entries[x->entry];
	const struct entry *q = &b->talk.transcript.entries[y->entry];
	size_t n = end_of(&a->talk.transcript, x), m = end_of(&b->talk.transcript, y);
	n -= n < x->offset ? n : x->offset; // the reply may have trimmed what the token wrote
	m -= m < y->offset ? m : y->offset;
	return p->kind == q->kind && n == m &&
		   (n == 0 || memcmp(p->text.data + x->offset, q->text.data + y->offset, n) == 0);
}

bool compare_divergence(const struct compare *compare, int column, struct compare_place *own,
						struct compare_place *base)
{
	const struct compare_column *a = &compare->columns[0], *b = &compare->columns[column];
	struct compare_place x, y;
	if (column <= 0 || column >= compare->n)
		return false;
	if (b->own.turn > 0) {
		*own = b->own;
		*base = b->base;
		return true;
	}
	struct walk of_a = walk_begin(a), of_b = walk_begin(b);
	bool ids = by_ids(a, b);
	while (walk_next(&of_a, &x) && walk_next(&of_b, &y))
		if (ids ? id_of(a, x.token) != id_of(b, y.token) : !same_text(a, &x, b, &y)) {
			*own = y;
			*base = x;
			return true;
		}
	return false;
}
