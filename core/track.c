#include "core/track.h"
#include "base/clock.h"
#include "base/memory.h"
#include "core/opening.h"
#include "core/said.h"
#include "core/sampler.h"
#include "core/worker.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- expert counts ---- */

static void count_experts(void *user, const struct tapped *tapped)
{
	struct track *track = user;
	struct expert_counts *experts = &track->worker->experts;
	size_t row = (size_t)track->tapped * (size_t)experts->n_layers + (size_t)tapped->layer;
	uint32_t *counts = experts->counts + row * (size_t)experts->n_experts;
	pthread_mutex_lock(&track->worker->shared);
	for (int i = 0; i < tapped->n * tapped->width; i++)
		counts[tapped->ids[i]]++;
	experts->version++;
	pthread_mutex_unlock(&track->worker->shared);
}

/* ---- life ---- */

void track_init(struct track *track, struct worker *worker, int seq)
{
	*track = (struct track){.worker = worker, .seq = seq};
	track->taps = (struct taps){.wanted = TAP_EXPERTS, .see = count_experts, .user = track};
}

void track_finish(struct track *track)
{
	sequence_close(&track->sequence);
	request_free(track->request);
	text_free(&track->text);
	free(track->ids.ids);
	free(track->cuts);
	free(track->said);
	track_init(track, track->worker, track->seq);
}

void track_clear(struct track *track)
{
	if (track->seq != 0)
		sequence_close(&track->sequence);
	else if (track->sequence.config)
		sequence_reset(&track->sequence);
	track->n_said = 0;
	track->system_hash = 0;
	worker_gauge(track->worker, track);
}

static int copy_track(struct track *track, const struct track *from, struct error *err)
{
	struct stage *stage = &track->worker->stage;
	if (!from->sequence.config)
		return 0;
	if (!track->sequence.config && stage_sequence(stage, stage->context, &track->sequence, err))
		return fail_in(err, "state for a context of %d tokens", stage->context);
	if (sequence_fork(&track->sequence, &from->sequence, err) ||
		mem_grow(&track->said, &track->said_capacity, from->n_said + 1, sizeof *track->said, err))
		return -1;
	if (from->n_said > 0)
		memcpy(track->said, from->said, from->n_said * sizeof *from->said);
	track->n_said = from->n_said;
	track->system_hash = from->system_hash;
	return 0;
}

int track_fork(struct track *track, const struct track *from)
{
	struct error err = {0};
	if (track == from)
		return 0;
	track_clear(track);
	if (!copy_track(track, from, &err))
		return 0;
	track_clear(track);
	worker_say(track->worker, EV_ERROR, track->seq, err.text);
	return -1;
}

/* ---- accepting ---- */

static int canonical(struct stage *stage, char name[BUDGET_NAME_BYTES], int standard,
					 struct error *err)
{
	const struct elastic *elastic = &stage->model->elastic;
	const char *wanted = *name ? name : elastic->budgets[standard > 0 ? standard : 0].name;
	const struct stage_slice *found = stage_slice(stage, wanted, err);
	if (!found)
		return -1;
	memcpy(name, found->slice.budget.name, BUDGET_NAME_BYTES);
	return 0;
}

static int check_clause(struct stage *stage, struct rule_clause *clause, struct error *err)
{
	if (clause->kind == RULE_NONE)
		return 0;
	if (canonical(stage, clause->then, 0, err))
		return -1;
	return clause->kind == RULE_ALWAYS ? 0 : canonical(stage, clause->otherwise, 0, err);
}

/* Budgets become the names that the file gives them, unset ones the file's policy; their slices
 * exist. */
static int check_settings(struct stage *stage, struct turn_settings *settings, struct rule *rule,
						  struct error *err)
{
	const struct elastic *elastic = &stage->model->elastic;
	if (settings->handoff != HANDOFF_REPAIR)
		settings->repair = 0;
	else if (settings->repair < 1 || settings->repair > HANDOFF_MAX_REPAIR)
		return fail(err, "handoff repair of %d tokens: expected 1 to %d", settings->repair,
					HANDOFF_MAX_REPAIR);
	if (sampler_check(&settings->sampling, err) || rule_parse(rule, settings->rule, err) ||
		check_clause(stage, &rule->think, err) || check_clause(stage, &rule->answer, err) ||
		(*settings->read && canonical(stage, settings->read, 0, err)))
		return -1;
	if (settings->policy)
		return canonical(stage, settings->think, elastic->think, err) ||
					   canonical(stage, settings->answer, elastic->answer, err)
				   ? -1
				   : 0;
	return canonical(stage, settings->budget, 0, err);
}

static void emit_turn(struct track *track, int parent, size_t known)
{
	struct worker *worker = track->worker;
	const struct request *asked = &track->request->request;
	struct event event = {.type = EV_TURN, .seq = track->seq};
	event.turn.branched = asked->branched;
	event.turn.left = asked->branched && asked->left >= worker->first_turn ? asked->left : -1;
	if (asked->type == REQUEST_TURN && asked->tokens) {
		event.numbers = asked->tokens;
		event.n_numbers = (size_t)asked->n_tokens;
	}
	event.turn.id = track->id;
	event.turn.parent = parent;
	event.turn.known = (int)known;
	event.turn.settings = track->turn.settings;
	event.turn.math = worker->options.device.math;
	if (worker->device)
		strncpy(event.turn.rung, worker->options.backend->rung(worker->device),
				sizeof event.turn.rung - 1);
	worker_emit(worker, &event);
}

/* A stop that came when the last of an upload was done stops the turn. */
static bool heed_stop(struct track *track)
{
	track->stopping |= opening_stopped(track->worker);
	return track->stopping;
}

/* Ends the turn; whoever stopped its upload has stopped it too. */
static void fail_turn(struct track *track, const struct error *err)
{
	if (!opening_stopped(track->worker)) {
		track_stop(track, STOP_ERROR, err);
		return;
	}
	worker_say(track->worker, EV_NOTICE, track->seq, err->text);
	track_stop(track, STOP_STOPPED, NULL);
}

void track_accept(struct track *track, struct request_copy *request)
{
	struct worker *worker = track->worker;
	const struct request *asked = &request->request;
	bool chat = asked->type == REQUEST_TURN;
	struct turn_settings settings = asked->settings;
	struct rule rule = {0};
	struct error err = {0};
	int parent;
	track->state = TRACK_ACCEPTED;
	track->request = request;
	track->stopping = false;
	track->first_ns = 0;
	track->id = worker->n_turns++;
	track->decode = (struct decode_state){0};
	int failed = worker->stage.model ? check_settings(&worker->stage, &settings, &rule, &err)
									 : fail(&err, "no model is open");
	if (!chat)
		settings.thinking = false;
	if (!failed) {
		heed_stop(track);
		worker_say_masks(worker);
	}
	turn_begin(&track->turn, &worker->stage.rules, &settings, chat || asked->stop_eos);
	track->turn.rule = rule;
	size_t known = said_place(track, &parent);
	emit_turn(track, parent, known);
	if (chat && asked->conversation && !failed)
		failed = said_messages(track, asked->conversation, known, &err);
	if (chat && asked->conversation && !failed)
		track->said[track->n_said++] = (struct said){.turn = track->id};
	worker_gauge(worker, track);
	if (failed)
		fail_turn(track, &err);
}

/* ---- the prompt ---- */

/* The ids to be read, into track->ids. */
static int encode(struct track *track, struct error *err)
{
	const struct request *request = &track->request->request;
	const struct model *model = track->worker->stage.model;
	struct conversation *conversation = &track->request->conversation;
	bool text = !request->tokens;
	track->ids.n = 0;
	conversation->enable_thinking = track->turn.settings.thinking;
	if (text && request->type == REQUEST_TURN)
		return conversation_encode(conversation, model, true, &track->ids, err);
	if (text)
		return model_encode(model, request->text ? request->text : "",
							request->text ? strlen(request->text) : 0, &track->ids, err);
	for (int i = 0; i < request->n_tokens; i++)
		if (id_list_add(&track->ids, request->tokens[i], err))
			return -1;
	return 0;
}

/* Before the last <|im_start|>: there the next turn's prompt still agrees with this one's. With
 * repair:N another N tokens before, because so many are read again. */
static int snapshot_place(const struct track *track)
{
	const struct tokenizer *tokenizer = track->worker->stage.model->tokenizer;
	int32_t start = tokenizer_special(tokenizer, "<|im_start|>");
	size_t at = track->ids.n;
	while (at > 0 && track->ids.ids[at - 1] != start)
		at--;
	int place = (int)at - 1 - track->turn.settings.repair;
	return track->request->request.type == REQUEST_TURN && place > 0 ? place : 0;
}

static int between_chunks(void *user, int done, int total)
{
	struct track *track = user;
	struct worker *worker = track->worker;
	int position = track->sequence.n_tokens;
	if (!mem_grow(&track->cuts, &track->cuts_capacity, track->n_cuts + 1, sizeof *track->cuts,
				  NULL))
		track->cuts[track->n_cuts++] = position;
	pthread_mutex_lock(&worker->shared);
	if (track->seq == 0) {
		worker->gauges.prefill_done = done;
		worker->gauges.prefill_total = total;
		worker->gauges.context_used = position;
	}
	pthread_mutex_unlock(&worker->shared);
	worker_look(worker);
	return track->stopping || queue_closing(&worker->queue);
}

static struct prefill prefill_of(struct track *track, const struct taps *taps)
{
	track->n_cuts = 0;
	return (struct prefill){.workspace = track->worker->stage.workspace,
							.step = between_chunks,
							.user = track,
							.taps = taps,
							.handoff = track->turn.settings.handoff,
							.repair = track->turn.settings.repair,
							.snapshot_at = snapshot_place(track)};
}

static void prefilling(struct track *track, bool now)
{
	if (track->seq != 0)
		return;
	pthread_mutex_lock(&track->worker->shared);
	track->worker->gauges.prefilling = now;
	track->worker->gauges.prefill_done = track->worker->gauges.prefill_total = 0;
	pthread_mutex_unlock(&track->worker->shared);
}

/* As what it came to: a repair that found no state to go back to has read everything again. */
static void emit_switch(struct track *track, const char *from, int at, int replayed,
						uint64_t took_ns)
{
	const struct turn *turn = &track->turn;
	const struct slice *slice = sequence_slice(&track->sequence);
	struct event event = {.type = EV_SWITCH, .seq = track->seq};
	int stale[CONFIG_MAX_LAYERS];
	int32_t numbers[CONFIG_MAX_LAYERS];
	int n = sequence_stale(&track->sequence, slice, stale);
	for (int i = 0; i < n; i++)
		numbers[i] = stale[i];
	event.change.at = at;
	bool all = turn->settings.handoff == HANDOFF_REPAIR && replayed == at;
	event.change.handoff = all ? HANDOFF_REPREFILL : turn->settings.handoff;
	event.change.repair = turn->settings.repair;
	event.change.reason = turn->reason;
	event.change.replayed = replayed;
	event.change.took_ns = took_ns;
	memcpy(event.change.from, from, strnlen(from, BUDGET_NAME_BYTES - 1));
	memcpy(event.change.to, slice->budget.name, sizeof event.change.to);
	event.numbers = numbers;
	event.n_numbers = (size_t)n;
	if (turn->reason != SWITCH_USER && *turn->why) {
		event.text = turn->why;
		event.length = strlen(turn->why);
	}
	worker_emit(track->worker, &event);
}

static void emit_prefill(struct track *track, const struct prefill *prefill)
{
	struct event event = {.type = EV_PREFILL, .seq = track->seq};
	int end = track->sequence.n_tokens;
	if ((track->n_cuts == 0 || track->cuts[track->n_cuts - 1] != end) &&
		!mem_grow(&track->cuts, &track->cuts_capacity, track->n_cuts + 1, sizeof *track->cuts,
				  NULL))
		track->cuts[track->n_cuts++] = end;
	event.prefill.from = prefill->cached;
	event.prefill.tokens = prefill->read;
	event.prefill.cached = prefill->cached;
	event.prefill.took_ns = prefill->took_ns;
	memcpy(event.prefill.budget, sequence_slice(&track->sequence)->budget.name,
		   sizeof event.prefill.budget);
	event.numbers = track->cuts;
	event.n_numbers = track->n_cuts;
	worker_emit(track->worker, &event);
}

/* Opens the sequence if need be and makes the turn's first reader the running slice. */
static int prepare_sequence(struct track *track, struct error *err)
{
	struct stage *stage = &track->worker->stage;
	struct stage_slice *reader = stage_slice(stage, turn_prompt_reader(&track->turn), err);
	if (!reader)
		return -1;
	heed_stop(track);
	if (track->ids.n == 0)
		return fail(err, "the prompt has no tokens");
	const struct request_copy *request = track->request;
	bool several = request->request.type == REQUEST_TURN && request->conversation.n_messages > 1;
	if (track->ids.n > (size_t)stage->context)
		return fail(err,
					several ? "the conversation has %zu tokens, the context holds %d: nothing was "
							  "cut; say less, :undo turns, begin a :new one, or open the model "
							  "with a larger --ctx"
							: "the prompt has %zu tokens, the context holds %d: nothing was cut, "
							  "say less or open the model with a larger --ctx",
					track->ids.n, stage->context);
	if (!track->sequence.config && stage_sequence(stage, stage->context, &track->sequence, err))
		return fail_in(err, "state for a context of %d tokens", stage->context);
	return sequence_use(&track->sequence, &reader->slice, err);
}

/* With carry the prompt may go on where another budget stopped, with repair N tokens before: that
 * is a switch too. */
static void say_carried(struct track *track, int cached, int replayed)
{
	const struct sequence *sequence = &track->sequence;
	for (int i = 1; i < sequence->n_runs; i++)
		if (cached > 0 && sequence->runs[i].from == cached)
			emit_switch(track, sequence->runs[i - 1].slice->budget.name, cached + replayed,
						replayed, 0);
}

static void warn_when_nearly_full(struct track *track)
{
	int used = track->sequence.n_tokens, size = track->sequence.capacity;
	char sentence[128];
	if (used < size - size / 10)
		return;
	snprintf(sentence, sizeof sentence, "the context is nearly full: %d of %d tokens, %d left",
			 used, size, size - used);
	worker_say(track->worker, EV_NOTICE, track->seq, sentence);
}

/* What may be shown of the token; a tail that no token will complete comes out as U+FFFD. */
static void decode(struct track *track, const struct tokenizer *tokenizer, int32_t id,
				   const struct turn_step *step)
{
	text_clear(&track->text);
	if (!step->hidden)
		tokenizer_decode_step(tokenizer, &track->decode, id, &track->text);
	if (step->hidden || step->over)
		tokenizer_decode_flush(&track->decode, &track->text);
}

/* Tells the tokens of the answer that a turn goes on from. True: with them it is over. */
static bool give(struct track *track)
{
	const struct request *asked = &track->request->request;
	const struct tokenizer *tokenizer = track->worker->stage.model->tokenizer;
	struct turn turn = track->turn; // runs beside the turn's own, from where the answer began
	struct turn_step step = {0};
	if (asked->type != REQUEST_TURN || !asked->tokens)
		return false;
	int from = asked->n_prompt > 0 ? asked->n_prompt : asked->n_tokens;
	turn.settings.max_tokens = turn.settings.think_limit = 0;
	turn_prompt(&turn, asked->tokens, (size_t)from);
	for (int i = from; i < asked->n_tokens && !step.over; i++) {
		struct event event = {.type = EV_TOKEN, .seq = track->seq};
		int32_t id = asked->tokens[i];
		step = turn_take(&turn, id, false, asked->n_tokens);
		decode(track, tokenizer, id, &step);
		event.token.at = i;
		event.token.id = event.token.picked.id = id;
		event.token.picked.top[0].id = -1;
		event.token.phase = step.phase;
		event.token.given = true;
		event.token.thinking_ends = step.thinking_ends;
		if (i + 1 == asked->n_tokens)
			memcpy(event.token.budget, turn_reader(&track->turn), BUDGET_NAME_BYTES);
		event.text = text_chars(&track->text);
		event.length = track->text.length;
		worker_emit(track->worker, &event);
	}
	return step.over;
}

void track_start(struct track *track)
{
	struct error err = {0};
	struct picked picked;
	if (track->stopping) {
		track_stop(track, STOP_STOPPED, NULL);
		return;
	}
	if (encode(track, &err)) {
		track_stop(track, STOP_ERROR, &err);
		return;
	}
	if (track->request->request.type == REQUEST_TURN && track->request->request.tokens)
		turn_resume(&track->turn, track->ids.ids, track->ids.n);
	else if (track->request->request.type == REQUEST_TURN)
		turn_prompt(&track->turn, track->ids.ids, track->ids.n);
	turn_judge(&track->turn, NULL);
	if (prepare_sequence(track, &err)) {
		fail_turn(track, &err);
		return;
	}
	if (give(track)) {
		track_stop(track, STOP_EOS, NULL);
		return;
	}
	struct prefill prefill = prefill_of(track, &track->taps);
	struct pick_params params = turn_pick(&track->turn);
	track->tapped = PHASE_PREFILL;
	prefilling(track, true);
	int failed = prefill_extend(&prefill, &track->sequence, track->ids.ids, (int)track->ids.n,
								&params, &picked, &err);
	prefilling(track, false);
	if (failed) {
		track_stop(track, STOP_ERROR, &err);
		return;
	}
	say_carried(track, prefill.cached, prefill.repair > 0 ? prefill.again : 0);
	emit_prefill(track, &prefill);
	if (prefill.stopped) {
		track_stop(track, STOP_STOPPED, NULL);
		return;
	}
	track->state = TRACK_RUNNING;
	warn_when_nearly_full(track);
	track_take(track, &picked, 0);
}

/* ---- tokens ---- */

void track_set(struct track *track, const struct turn_settings *settings)
{
	struct turn_settings checked = *settings;
	struct error err = {0};
	struct rule rule;
	if (check_settings(&track->worker->stage, &checked, &rule, &err)) {
		bool stopped = opening_stopped(track->worker);
		worker_say(track->worker, stopped ? EV_NOTICE : EV_ERROR, track->seq, err.text);
	} else {
		heed_stop(track);
		worker_say_masks(track->worker);
		turn_set(&track->turn, &checked);
		track->turn.rule = rule;
		if (track->state == TRACK_RUNNING)
			turn_judge(&track->turn, &track->pending);
	}
	worker_gauge(track->worker, track);
}

bool track_ready(struct track *track)
{
	struct error err = {0};
	struct sequence *sequence = &track->sequence;
	const struct slice *had = sequence_slice(sequence);
	const char *reader = turn_reader(&track->turn);
	if (track->stopping) {
		track_stop(track, STOP_STOPPED, NULL);
		return false;
	}
	bool same = !strcmp(reader, had->budget.name);
	if (same && had->backend)
		return true;
	struct stage_slice *next = stage_slice(&track->worker->stage, reader, &err);
	if (next && heed_stop(track)) {
		track_stop(track, STOP_STOPPED, NULL);
		return false;
	}
	if (same && next)
		return true; // it was not on the card for a while
	struct prefill prefill = prefill_of(track, NULL);
	int at = sequence->n_tokens;
	prefilling(track, true);
	int failed = !next || prefill_switch(&prefill, sequence, &next->slice, &err);
	prefilling(track, false);
	if (failed) {
		fail_turn(track, &err);
		return false;
	}
	emit_switch(track, had->budget.name, at, prefill.read, prefill.took_ns);
	if (prefill.stopped) {
		track_stop(track, STOP_STOPPED, NULL);
		return false;
	}
	worker_gauge(track->worker, track);
	return true;
}

struct lane track_lane(struct track *track, struct pick_params *params)
{
	*params = turn_pick(&track->turn);
	track->tapped = track->turn.phase;
	return (struct lane){.sequence = &track->sequence,
						 .tokens = &track->pending.id,
						 .n_tokens = 1,
						 .logits = LOGITS_LAST,
						 .taps = &track->taps};
}

static bool has_newline(const struct tokenizer *tokenizer, int32_t id)
{
	size_t length = 0;
	const char *bytes = tokenizer_bytes(tokenizer, id, &length);
	return bytes && memchr(bytes, '\n', length);
}

void track_take(struct track *track, const struct picked *picked, uint64_t pass_ns)
{
	uint64_t began = clock_ns();
	struct worker *worker = track->worker;
	const struct tokenizer *tokenizer = worker->stage.model->tokenizer;
	const struct slice *slice = sequence_slice(&track->sequence);
	struct event event = {.type = EV_TOKEN, .seq = track->seq};
	int at = track->sequence.n_tokens, room = track->sequence.capacity - at;
	event.token.forced = track->turn.forced >= 0;
	struct turn_step step =
		turn_take(&track->turn, picked->id, has_newline(tokenizer, picked->id), room);
	struct error err = {0};
	int failed = sequence_roll(&track->sequence, track->turn.settings.repair, &err);
	turn_judge(&track->turn, picked);
	decode(track, tokenizer, picked->id, &step);
	uint64_t now = clock_ns();
	track->pending = *picked;
	event.token.at = at;
	event.token.id = picked->id;
	event.token.logprob = picked->logprob;
	memcpy(event.token.budget, slice->budget.name, sizeof event.token.budget);
	event.token.phase = step.phase;
	event.token.took_ns = pass_ns ? pass_ns + now - began : 0;
	event.token.picked = *picked;
	event.token.thinking_ends = step.thinking_ends;
	event.text = text_chars(&track->text);
	event.length = track->text.length;
	if (!pass_ns)
		track->first_ns = now - track->request->submitted_ns;
	worker_emit(worker, &event);
	if (step.full)
		worker_say(worker, EV_NOTICE, track->seq,
				   "the context is full: nothing was forgotten, but no token follows");
	if (failed)
		track_stop(track, STOP_ERROR, &err);
	else if (step.over)
		track_stop(track, step.reason, NULL);
	else
		worker_gauge(worker, track);
}

void track_stop(struct track *track, enum stop_reason reason, const struct error *error)
{
	struct event event = {.type = EV_STOP, .seq = track->seq};
	if (error)
		worker_say(track->worker, EV_ERROR, track->seq, error->text);
	event.stop.reason = reason;
	event.stop.tokens = track->turn.n_tokens;
	event.stop.phase = track->turn.phase;
	event.stop.took_ns = clock_ns() - track->request->submitted_ns;
	event.stop.first_ns = track->first_ns;
	track->state = TRACK_IDLE;
	request_free(track->request);
	track->request = NULL;
	worker_gauge(track->worker, track);
	worker_emit(track->worker, &event);
}
