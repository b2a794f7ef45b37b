#include "tui/talk.h"
#include "core/sampler.h"
#include "core/slice.h"
#include "core/tokenizer.h"
#include "tui/recall.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Below this many active parameters a model is faster than the eye, and the workbench slows it
 * down. */
#define SMALL_MODEL_PARAMETERS 50000000u
#define SMALL_MODEL_PACE 8

#define BEGINS_ANEW                                                                                \
	"it can't read what was said, so a new conversation begins (the log has the old)"

static int submit(struct talk *talk, struct request *request, struct error *err)
{
	request->seq = talk->seq;
	return engine_submit(talk->engine, request, err);
}

static void copy_name(char to[BUDGET_NAME_BYTES], const char *from)
{
	snprintf(to, BUDGET_NAME_BYTES, "%s", from);
}

/* What the new model's files say, for all that names a budget; sampling too. */
static void default_settings(struct talk *talk)
{
	const struct elastic *elastic = &talk->model->elastic;
	struct turn_settings *settings = &talk->settings;
	int last = elastic->n_budgets - 1;
	uint64_t seed = settings->sampling.seed;
	enum handoff handoff = settings->handoff;
	int repair = settings->repair;
	struct turn_settings kept = {.thinking = settings->thinking,
								 .max_tokens = settings->max_tokens,
								 .think_limit = settings->think_limit};
	*settings = kept;
	sampler_defaults(&settings->sampling, &talk->model->config, elastic);
	settings->sampling.forced = -1;
	settings->sampling.seed = talk->seed_fixed ? seed : sampler_new_seed();
	if (elastic->n_budgets > 0) {
		copy_name(settings->budget, elastic_default(elastic));
		copy_name(settings->think,
				  elastic->budgets[elastic->think >= 0 ? elastic->think : last].name);
		copy_name(settings->answer,
				  elastic->budgets[elastic->answer >= 0 ? elastic->answer : 0].name);
	}
	settings->handoff = elastic->carry ? HANDOFF_CARRY : HANDOFF_REPREFILL;
	if (talk->handoff_chosen) {
		settings->handoff = handoff;
		settings->repair = repair;
	}
}

/* Whether one token of the parent uses fewer parameters than that. Only a file whose size leaves it
 * open is looked at more closely. */
static bool is_small(const struct model *model)
{
	uint64_t bytes = model->checkpoint.tensor_bytes;
	if (bytes < SMALL_MODEL_PARAMETERS || bytes > 400ull * SMALL_MODEL_PARAMETERS ||
		model->elastic.n_budgets == 0)
		return bytes < SMALL_MODEL_PARAMETERS;
	struct slice slice = {0};
	int result = slice_build(&slice, &model->weights, &model->config, &model->elastic.budgets[0],
							 NULL, NULL, NULL);
	uint64_t active = slice.cost.active;
	slice_free(&slice);
	return result == 0 && active < SMALL_MODEL_PARAMETERS;
}

/* The same model on another device. */
static void moved(struct talk *talk, const struct event *event)
{
	memcpy(talk->rung, event->opened.rung, sizeof talk->rung);
	talk->n_threads = event->opened.n_threads;
	talk->moving = talk->opening = false;
	talk->progress = (struct progress){0};
	submit(talk, &(struct request){.type = REQUEST_PACE, .value = talk->pace}, NULL);
	talk_say(talk, "%s runs on %s now; the next turn reads the conversation again",
			 talk->model->name, talk->rung);
}

/* Without a tokenizer only ids can be read: said before the line is gone. */
static int check_text(const struct model *model, const char *text, size_t length, struct error *err)
{
	struct id_list ids = {0};
	int result = model->tokenizer ? 0 : model_encode(model, text, length, &ids, err);
	free(ids.ids);
	return result;
}

/* Whether the model that was opened can read what was said before. */
static bool reads(const struct talk *talk)
{
	const struct conversation *conversation = &talk->conversation;
	bool fine = true;
	for (int at = conversation->active; fine && at != NO_MESSAGE;) {
		const struct message *message = &conversation->messages[at];
		fine = message->text_length == 0 ||
			   check_text(talk->model, message->text, message->text_length, NULL) == 0;
		at = message->parent;
	}
	return fine;
}

static void opened(struct talk *talk, const struct event *event)
{
	bool first = !talk->model;
	if (talk->moving && event->opened.model == talk->model) {
		moved(talk, event);
		return;
	}
	model_release(talk->model);
	talk->model = model_retain(event->opened.model);
	talk->math = event->opened.math;
	memcpy(talk->rung, event->opened.rung, sizeof talk->rung);
	talk->n_threads = event->opened.n_threads;
	talk->opening = false;
	talk->progress = (struct progress){0};
	talk->has_memory = false;
	talk->metrics = (struct metrics){0};
	default_settings(talk);
	if (talk->open_with[0] && talk_check_budget(talk, talk->open_with, NULL) == 0)
		copy_name(talk->settings.budget, talk->open_with);
	if (!talk->pace_chosen)
		talk_pace(talk, is_small(talk->model) ? SMALL_MODEL_PACE : 0, NULL);
	submit(talk, &(struct request){.type = REQUEST_MEMORY}, NULL);
	if (talk->open_with[0] && talk->conversation.active != NO_MESSAGE)
		submit(talk, &(struct request){.type = REQUEST_SAY, .conversation = &talk->conversation},
			   NULL);
	if (talk->open_with[0])
		talk_say(talk, "%s is open; %s writes, and reads the conversation again first",
				 talk->model->name, talk->settings.budget);
	else if (!first)
		talk_say(talk, "%s is open; budgets and sampling (temp %g, top-p %g) are its own",
				 talk->model->name, (double)talk->settings.sampling.temperature,
				 (double)talk->settings.sampling.top_p);
	if (talk->model->notices.length > 0 && !talk->open_with[0]) {
		const char *notices = text_chars(&talk->model->notices);
		talk_say(talk, "%.*s", (int)strcspn(notices, "\n"), notices);
	}
	talk->open_with[0] = 0;
	talk->anew = !reads(talk) && talk_new(talk, NULL) == 0;
	if (talk->anew)
		talk_say(talk, "%s is open; " BEGINS_ANEW, talk->model->name);
}

/* A turn without a token would stand in the way of all that follow: too long, or not readable. */
static bool take_back(struct talk *talk, const struct event *event)
{
	struct conversation *conversation = &talk->conversation;
	int last = conversation->active;
	bool wanted = event->stop.reason == STOP_ERROR || event->stop.reason == STOP_STOPPED;
	if (wanted && !talk->replay && talk->branches.fresh && talk->reply.completion_tokens == 0 &&
		talk->branches.items[talk->branches.active].at >=
			0) { // inside an answer: no message is new
		if (talk->reply.answer.length + talk->reply.reasoning.length == 0)
			branches_taken_back(talk);
		return false;
	}
	if (!wanted || talk->replay || talk->reply.completion_tokens > 0 || last == NO_MESSAGE ||
		conversation->messages[last].role != CHAT_USER)
		return false;
	bool again = talk->retried && talk->branches.fresh; // the way before it has the message too
	text_clear(&talk->taken_back);
	text_append(&talk->taken_back, conversation->messages[last].text,
				conversation->messages[last].text_length);
	conversation_undo(conversation);
	transcript_undo(&talk->transcript, false);
	branches_taken_back(talk);
	again = again && branches_show(talk, talk->branches.active, NULL) == 0;
	if (again)
		text_clear(&talk->taken_back);
	if (event->stop.reason == STOP_STOPPED)
		talk_say(talk, "stopped before the first token; the %s",
				 again ? "answer before stays" : "message is taken back");
	else if (strncmp(text_chars(&talk->notice), "error: ", 7) == 0) // what EV_ERROR said
		text_add(&talk->notice,
				 again ? " (the answer before stays)" : " (the message is taken back)");
	return true;
}

/* Which of the two ends it was. */
static void say_length(struct talk *talk)
{
	int most = talk->settings.max_tokens;
	if (most > 0 && talk->reply.completion_tokens >= most)
		talk_say(talk, "stopped: the limit of %d token%s is reached (:set n)", most,
				 most == 1 ? "" : "s");
	else
		talk_say(talk,
				 "stopped: the context is full; :undo or :new makes room, --ctx N holds more");
}

static void stopped(struct talk *talk, const struct event *event)
{
	struct error err = {0};
	struct reply *reply = &talk->reply;
	talk->running = false;
	talk->progress = (struct progress){0};
	transcript_stop(&talk->transcript);
	bool taken_back = take_back(talk, event);
	talk->retried = false;
	if (event->stop.reason == STOP_STOPPED && !taken_back)
		talk_say(talk, "stopped; the text is kept");
	else if (event->stop.reason == STOP_LENGTH)
		say_length(talk);
	if (reply->answer.length + reply->reasoning.length > 0 &&
		conversation_append(
			&talk->conversation, CHAT_ASSISTANT,
			(struct chat_string){text_chars(&reply->answer), reply->answer.length},
			(struct chat_string){text_chars(&reply->reasoning), reply->reasoning.length}, &err) < 0)
		talk_say(talk, "%s", err.text);
	submit(talk, &(struct request){.type = REQUEST_MEMORY}, NULL);
}

static void changed(struct talk *talk, const struct event *event)
{
	char stale[64] = "";
	if (event->n_numbers > 0)
		snprintf(stale, sizeof stale, ", %zu layer%s stale", event->n_numbers,
				 event->n_numbers == 1 ? "" : "s");
	char handoff[HANDOFF_TEXT_BYTES + 32];
	handoff_write(event->change.handoff, event->change.repair, handoff);
	if (event->change.handoff == HANDOFF_REPREFILL && event->change.repair > 0)
		strcat(handoff, ": no state for the repair");
	talk_say(talk, "%s reads from position %d on (%s, %s%s%s, %.1f ms%s)", event->change.to,
			 event->change.at, handoff, switch_reason_name(event->change.reason),
			 event->text ? ": " : "", event->text ? event->text : "",
			 (double)event->change.took_ns / 1e6, stale);
}

/* What a card does to a turn is no reason to lose the conversation. */
static void failed(struct talk *talk, const char *text)
{
	bool card = talk->running && strstr(text, "the card ");
	talk_say(talk, "error: %s%s", text,
			 card ? "; the conversation is kept, :device cpu goes on with it: then :retry" : "");
}

void talk_init(struct talk *talk, struct engine *engine)
{
	*talk = (struct talk){.engine = engine, .settings.thinking = true, .turn = -1};
	conversation_init(&talk->conversation);
}

void talk_free(struct talk *talk)
{
	model_release(talk->model);
	recall_free(talk);
	conversation_free(&talk->conversation);
	transcript_free(&talk->transcript);
	tape_free(&talk->tape);
	branches_free(&talk->branches);
	reply_free(&talk->reply);
	text_free(&talk->notice);
	text_free(&talk->taken_back);
	*talk = (struct talk){0};
}

/* Of a token that a branch began with the tape knows who wrote it. */
static int writer_of(struct talk *talk, const struct event *event)
{
	size_t at = event->token.at < 0 ? SIZE_MAX : (size_t)event->token.at;
	return event->token.given && at < talk->tape.n ? talk->tape.tokens[at].writer
												   : talk_event_writer(talk, event);
}

void talk_event(struct talk *talk, const struct event *event)
{
	if (event->seq != talk->seq)
		return;
	metrics_event(&talk->metrics, event);
	reply_event(&talk->reply, event);
	if (talk->replay)
		recall_event(talk, event);
	tape_event(&talk->tape, event, talk_event_writer(talk, event));
	switch (event->type) {
	case EV_OPENED:
		if (!talk->replay)
			opened(talk, event);
		break;
	case EV_TURN:
		talk->anew = false;
		talk->turn_begun = true;
		talk->turn = event->turn.id;
		break;
	case EV_TOKEN:
		talk->progress = (struct progress){0};
		transcript_token(&talk->transcript, event, &talk->reply, writer_of(talk, event));
		break;
	case EV_SWITCH: changed(talk, event); break;
	case EV_MEMORY:
		talk->memory = event->memory;
		talk->has_memory = true;
		break;
	case EV_STOP: stopped(talk, event); break;
	case EV_ERROR:
		talk->opening = talk->moving = false;
		talk->open_with[0] = 0;
		talk->progress = (struct progress){0};
		failed(talk, event->text ? event->text : "unknown");
		break;
	case EV_NOTICE: // of the model that was just opened, perhaps
		talk_say(talk, "%s%s", talk->anew ? BEGINS_ANEW ". " : "", event->text ? event->text : "");
		break;
	case EV_PROGRESS: progress_event(&talk->progress, event); break;
	default: break;
	}
	branches_event(talk, event);
}

void talk_gauges(struct talk *talk)
{
	talk->engine->table->gauges(talk->engine, &talk->gauges);
}

struct memory_use talk_memory(const struct talk *talk)
{
	struct memory_use use = talk->memory;
	const struct memory_use *beside = &talk->beside;
	use.weights_bytes += beside->weights_bytes;
	use.resident_bytes += beside->resident_bytes;
	use.kv_bytes += beside->kv_bytes;
	use.conv_bytes += beside->conv_bytes;
	use.ssm_bytes += beside->ssm_bytes;
	use.snapshot_bytes += beside->snapshot_bytes;
	use.scratch_bytes += beside->scratch_bytes;
	use.n_sequences += beside->n_sequences;
	return use;
}

void talk_say(struct talk *talk, const char *format, ...)
{
	char line[1024];
	va_list list;
	va_start(list, format);
	vsnprintf(line, sizeof line, format, list);
	va_end(list);
	text_clear(&talk->notice);
	text_append(&talk->notice, line, strcspn(line, "\n"));
	talk->notices++;
}

int talk_open(struct talk *talk, const char *directory, const char *budgets_file, bool lenient,
			  struct error *err)
{
	if (talk->running)
		return fail(err, "the model is still answering; Ctrl-C stops it");
	struct request request = {.type = REQUEST_OPEN,
							  .directory = directory,
							  .budgets_file = budgets_file,
							  .lenient = lenient,
							  .settings = talk->settings};
	if (talk->open_with[0])
		copy_name(request.settings.budget, talk->open_with);
	if (submit(talk, &request, err))
		return -1;
	talk->opening = true;
	talk->progress = (struct progress){0};
	snprintf(talk->progress.what, sizeof talk->progress.what, "opening %s", directory);
	return 0;
}

int talk_device(struct talk *talk, const char *device, struct error *err)
{
	if (talk->running)
		return fail(err, "the model is still answering; Ctrl-C stops it");
	if (!talk->model || talk->replay)
		return fail(err, "no model is open");
	if (!*device)
		return fail(err, "device: %s; expected cpu, cuda, cuda:N or cuda alone", talk->rung);
	struct request request = {.type = REQUEST_DEVICE, .text = device, .settings = talk->settings};
	if (submit(talk, &request, err))
		return -1;
	talk->opening = talk->moving = true;
	talk->progress = (struct progress){0};
	snprintf(talk->progress.what, sizeof talk->progress.what, "moving to %s", device);
	return 0;
}

/* note: what a new way is called, NULL = another message. */
static int send(struct talk *talk, const char *text, size_t length, const char *note,
				struct error *err)
{
	if (talk->replay)
		return fail(err, "this is a replay: there is no model that could answer");
	if (!talk->model)
		return fail(err,
					talk->opening ? "the model is still loading" : "no model is open: :open DIR");
	if (talk->running)
		return fail(err, "the model is still answering; Ctrl-C stops it");
	if (check_text(talk->model, text, length, err))
		return -1;
	int before = talk->conversation.active;
	if (conversation_append(&talk->conversation, CHAT_USER, (struct chat_string){text, length},
							(struct chat_string){0}, err) < 0)
		return -1;
	talk->conversation.enable_thinking = talk->settings.thinking;
	struct request request = {.type = REQUEST_TURN,
							  .conversation = &talk->conversation,
							  .branched = talk->branches.moved,
							  .left = talk->turn,
							  .settings = talk->settings};
	if (submit(talk, &request, err)) {
		conversation_select(&talk->conversation, before);
		return -1;
	}
	struct error other = {0};
	bool lost =
		branches_send(talk, -1, note ? note : "another message", note ? NULL : text, &other);
	transcript_add(&talk->transcript, ENTRY_USER, text, length);
	tape_render(&talk->tape, &talk->conversation, talk->model);
	text_clear(&talk->notice);
	if (lost)
		talk_say(talk, "%s", other.text);
	talk->running = true;
	talk->turn_begun = false;
	return 0;
}

int talk_send(struct talk *talk, const char *text, size_t length, struct error *err)
{
	return send(talk, text, length, NULL, err);
}

int talk_stop(struct talk *talk, struct error *err)
{
	return submit(talk, &(struct request){.type = REQUEST_STOP}, err);
}

int talk_end_thinking(struct talk *talk, struct error *err)
{
	if (!talk->running || talk->gauges.phase == PHASE_ANSWER)
		return fail(err, "nothing is being thought now");
	return submit(talk, &(struct request){.type = REQUEST_END_THINKING}, err);
}

/* The last message and its answers go; the way that they went stays a branch. */
static int undo(struct talk *talk, struct text *out, struct error *err)
{
	if (talk->replay)
		return fail(err, "this is a replay; it goes its own way");
	if (talk->running)
		return fail(err, "the model is still answering; Ctrl-C stops it");
	int before = talk->conversation.active;
	int user = conversation_undo(&talk->conversation);
	if (user == NO_MESSAGE)
		return fail(err, "there is nothing to undo");
	conversation_select(&talk->conversation, before);
	if (branches_part(talk, err))
		return -1;
	conversation_undo(&talk->conversation);
	const struct message *message = &talk->conversation.messages[user];
	if (out)
		text_append(out, message->text, message->text_length);
	transcript_undo(&talk->transcript, false);
	tape_cut(&talk->tape, talk->tape.prompt);
	return 0;
}

int talk_undo(struct talk *talk, struct text *out, struct error *err)
{
	if (undo(talk, out, err))
		return -1;
	tape_keep(&talk->tape, &talk->conversation, talk->model);
	return 0;
}

int talk_retry(struct talk *talk, struct error *err)
{
	struct text text = {0};
	if (!talk->replay && !talk->running && talk->conversation.active == NO_MESSAGE)
		return fail(err, "there is nothing to answer again");
	if (undo(talk, &text, err)) // the prompt stays on the tape, with who read it
		return -1;
	if (!talk->seed_fixed)
		talk->settings.sampling.seed = sampler_new_seed();
	char note[BRANCH_NOTE_BYTES];
	snprintf(note, sizeof note, "again, seed %llu",
			 (unsigned long long)talk->settings.sampling.seed);
	int result = send(talk, text_chars(&text), text.length, note, err);
	talk->retried = result == 0;
	if (result == 0 && talk->seed_fixed)
		talk_say(talk, "the seed is fixed, so the same answer comes again: :set seed random");
	text_free(&text);
	return result;
}

int talk_new(struct talk *talk, struct error *err)
{
	if (talk->running)
		return fail(err, "the model is still answering; Ctrl-C stops it");
	if (submit(talk, &(struct request){.type = REQUEST_CLEAR}, err))
		return -1;
	conversation_clear(&talk->conversation);
	transcript_clear(&talk->transcript);
	tape_clear(&talk->tape);
	branches_free(&talk->branches);
	talk->turn = -1;
	return 0;
}

int talk_pace(struct talk *talk, double tokens_per_second, struct error *err)
{
	struct request request = {.type = REQUEST_PACE, .value = tokens_per_second};
	if (submit(talk, &request, err))
		return -1;
	talk->pace = tokens_per_second;
	return 0;
}

int talk_pause(struct talk *talk, bool pause, struct error *err)
{
	if (submit(talk, &(struct request){.type = REQUEST_PAUSE, .value = pause}, err))
		return -1;
	talk->paused = pause;
	return 0;
}

int talk_step(struct talk *talk, struct error *err)
{
	if (!talk->paused && talk_pause(talk, true, err))
		return -1;
	return submit(talk, &(struct request){.type = REQUEST_STEP}, err);
}

int talk_settings_changed(struct talk *talk, struct error *err)
{
	return submit(talk, &(struct request){.type = REQUEST_SETTINGS, .settings = talk->settings},
				  err);
}

void talk_write(const struct talk *talk, struct text *out)
{
	int *path = NULL,
		n = conversation_path(&talk->conversation, talk->conversation.active, &path, NULL);
	if (talk->conversation.system)
		text_format(out, "## System\n\n%s\n\n", talk->conversation.system);
	for (int i = 0; i < n; i++) {
		const struct message *message = &talk->conversation.messages[path[i]];
		text_format(out, "## %s\n\n", message->role == CHAT_USER ? "User" : "Assistant");
		if (message->reasoning_length > 0) {
			text_add(out, "> *Thinking*\n>\n> ");
			for (size_t j = 0; j < message->reasoning_length; j++) {
				text_add_char(out, message->reasoning[j]);
				if (message->reasoning[j] == '\n')
					text_add(out, "> ");
			}
			text_add(out, "\n\n");
		}
		text_append(out, message->text, message->text_length);
		text_add(out, "\n\n");
	}
	free(path);
}
