/*
 * The worker's loop: take requests, make one step of all tracks that are generating, and wait where
 * pause, pace or idleness say so.
 */
#include "core/worker.h"
#include "base/clock.h"
#include "core/opening.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_NS 2000000000u // between two EV_MEMORY while generating

/* ---- events ---- */

static int append(struct worker *worker, const struct event *event)
{
	return journal_append(worker->journal, event, NULL); // -1: no memory even for a sentence
}

void worker_emit(struct worker *worker, struct event *event)
{
	struct error err = {0};
	bool failed = false;
	event->at_ns = clock_ns() - worker->opened_ns;
	if (worker->options.record)
		failed = worker->options.record(worker->options.record_user, event, &err) != 0;
	append(worker, event);
	if (failed == worker->log_failed)
		return;
	worker->log_failed = failed;
	pthread_mutex_lock(&worker->shared);
	worker->gauges.log_failed = failed;
	pthread_mutex_unlock(&worker->shared);
	struct event news = {.type = failed ? EV_ERROR : EV_NOTICE, .at_ns = event->at_ns};
	news.text = failed ? err.text : "the session is recorded again";
	news.length = strlen(news.text);
	append(worker, &news);
}

void worker_say(struct worker *worker, enum event_type type, int seq, const char *sentence)
{
	struct event event = {.type = type, .seq = seq, .text = sentence, .length = strlen(sentence)};
	worker_emit(worker, &event);
}

void worker_say_masks(struct worker *worker)
{
	for (size_t i = 0; i < worker->stage.n_slices; i++) {
		struct stage_slice *slice = worker->stage.slices[i];
		const struct budget *budget = &slice->slice.budget;
		if (slice->said || elastic_find(&worker->stage.model->elastic, budget->name) >= 0)
			continue;
		struct event event = {.type = EV_MASK, .text = budget_name_text(budget->name)};
		event.length = strlen(event.text);
		memcpy(event.mask.budget, budget->name, BUDGET_NAME_BYTES);
		slice->said = true;
		worker_emit(worker, &event);
	}
}

void worker_gauge(struct worker *worker, const struct track *track)
{
	const struct slice *slice = track->sequence.config ? sequence_slice(&track->sequence) : NULL;
	bool busy = false;
	for (int i = 0; i < MAX_SEQUENCES; i++)
		busy |= worker->tracks[i].state != TRACK_IDLE;
	pthread_mutex_lock(&worker->shared);
	struct gauges *gauges = &worker->gauges;
	gauges->busy = busy;
	gauges->paused = worker->paused;
	gauges->pace = worker->pace;
	if (track->seq == 0) {
		const char *reader = track->state != TRACK_IDLE ? turn_reader(&track->turn)
							 : slice                    ? slice->budget.name
														: "";
		gauges->phase = track->turn.phase;
		memcpy(gauges->budget, reader, strnlen(reader, BUDGET_NAME_BYTES - 1) + 1);
		gauges->context_used = track->sequence.n_tokens;
		gauges->context_size = worker->stage.context;
		gauges->thought_tokens = track->turn.n_thoughts;
	}
	pthread_mutex_unlock(&worker->shared);
}

/* ---- memory ---- */

static int64_t resident_set(void)
{
	long long pages = -1, all;
	FILE *file = fopen("/proc/self/statm", "re");
	if (file && fscanf(file, "%lld %lld", &all, &pages) != 2)
		pages = -1;
	if (file)
		fclose(file);
	return pages < 0 ? -1 : pages * (int64_t)sysconf(_SC_PAGESIZE);
}

static int n_sequences(const struct worker *worker)
{
	int n = 0;
	for (int i = 0; i < MAX_SEQUENCES; i++)
		n += worker->tracks[i].sequence.config != NULL;
	return n;
}

void worker_memory(struct worker *worker)
{
	const struct stage *stage = &worker->stage;
	struct event event = {.type = EV_MEMORY};
	struct memory_use *use = &event.memory;
	int estimated;
	worker->memory_ns = clock_ns();
	int64_t read_bytes = 0;
	*use = (struct memory_use){.weights_bytes = -1, .resident_bytes = -1, .vram_bytes = -1};
	use->rss_bytes = resident_set();
	use->n_sequences = n_sequences(worker);
	if (stage->model) {
		const struct sequence *chat = &worker->tracks[0].sequence;
		const struct slice *slice = chat->config ? sequence_slice(chat) : NULL;
		use->weights_bytes = (int64_t)stage->model->checkpoint.tensor_bytes;
		use->resident_bytes = (int64_t)checkpoint_resident(&stage->model->checkpoint, &estimated);
		use->scratch_bytes = (int64_t)workspace_bytes(stage->workspace);
		slice = slice ? slice : &stage->slices[0]->slice;
		use->bytes_per_token = (int64_t)slice->cost.bytes_per_token;
		read_bytes = (int64_t)slice->cost.bytes;
	}
	for (int i = 0; i < MAX_SEQUENCES; i++) {
		const struct sequence_bytes *bytes = &worker->tracks[i].sequence.bytes;
		use->sequences[i] = *bytes;
		use->kv_bytes += (int64_t)bytes->kv;
		use->conv_bytes += (int64_t)bytes->conv;
		use->ssm_bytes += (int64_t)bytes->ssm;
		use->snapshot_bytes += (int64_t)bytes->snapshots;
	}
	if (worker->device) {
		struct device_gauges card;
		worker->options.backend->gauges(worker->device, &card);
		if (card.known)
			card.weights_bytes += (int64_t)worker->stage.pack.bytes;
		use->vram_bytes = card.known ? card.ours_bytes : -1;
		use->scratch_bytes += card.scratch_bytes;
		pthread_mutex_lock(&worker->shared);
		worker->gauges.card = card;
		worker->gauges.read_bytes = read_bytes;
		pthread_mutex_unlock(&worker->shared);
	}
	worker_emit(worker, &event);
}

/* ---- requests ---- */

static bool at_once(const struct request *request)
{
	switch (request->type) {
	case REQUEST_OPEN:
	case REQUEST_DEVICE:
	case REQUEST_TURN:
	case REQUEST_COMPLETE:
	case REQUEST_CLEAR:
	case REQUEST_SAY:
	case REQUEST_FORK: return false;
	default: return true;
	}
}

static bool only_at_once(void *user, const struct request *request)
{
	(void)user;
	return at_once(request);
}

struct order { // what must wait, while the queue is searched from its oldest request
	const struct worker *worker;
	bool all, seq[MAX_SEQUENCES];
};

static bool for_all(const struct request *request)
{
	return request->type == REQUEST_OPEN || request->type == REQUEST_DEVICE;
}

/* A turn waits for the one before it on the same sequence, opening for all. */
static bool in_order(void *user, const struct request *request)
{
	struct order *order = user;
	if (at_once(request))
		return true;
	bool wait = order->all;
	int other = request->type == REQUEST_FORK ? (int)request->value : request->seq;
	for (int i = 0; i < MAX_SEQUENCES; i++)
		if (i == request->seq || i == other || for_all(request))
			wait |= order->seq[i] || order->worker->tracks[i].state != TRACK_IDLE;
	if (wait && for_all(request))
		order->all = true;
	if (wait)
		order->seq[request->seq] = order->seq[other] = true;
	return !wait;
}

static void do_at_once(struct worker *worker, const struct request *request)
{
	struct track *track = &worker->tracks[request->seq];
	bool busy = track->state != TRACK_IDLE;
	switch (request->type) {
	case REQUEST_STOP: track->stopping = busy; break;
	case REQUEST_SETTINGS:
		if (busy)
			track_set(track, &request->settings);
		break;
	case REQUEST_END_THINKING:
		if (busy)
			turn_end_thinking(&track->turn);
		break;
	case REQUEST_PACE:
		worker->pace = request->value > 0 ? request->value : 0;
		worker->due_ns = 0;
		break;
	case REQUEST_PAUSE:
		worker->paused = request->value != 0;
		worker->steps = 0;
		break;
	case REQUEST_STEP: worker->steps += worker->paused; break;
	case REQUEST_MEMORY: worker_memory(worker); break;
	default: break;
	}
	worker_gauge(worker, track);
}

void worker_look(struct worker *worker)
{
	struct request_copy *copy;
	while ((copy = queue_take(&worker->queue, only_at_once, NULL))) {
		do_at_once(worker, &copy->request);
		request_free(copy);
	}
}

/* A new conversation, and with it a new log, which names the masks in use again. */
static void clear_conversation(struct worker *worker)
{
	track_clear(&worker->tracks[0]);
	for (size_t i = 0; i < worker->stage.n_slices; i++)
		worker->stage.slices[i]->said = false;
	opening_say(worker, EV_CLEARED);
}

static void fork_track(struct worker *worker, struct track *track, const struct track *from)
{
	struct event event = {.type = EV_KEPT, .kept.turn = track_last_turn(from)};
	if (track_fork(track, from) == 0 && track->seq == 0 && from != track)
		worker_emit(worker, &event);
}

/* Does all that may be done now. */
static void serve_requests(struct worker *worker)
{
	for (;;) {
		struct order order = {.worker = worker};
		struct request_copy *copy = queue_take(&worker->queue, in_order, &order);
		if (!copy)
			return;
		struct track *track = &worker->tracks[copy->request.seq];
		enum request_type type = copy->request.type;
		int n_before = n_sequences(worker);
		if (type == REQUEST_TURN || type == REQUEST_COMPLETE) {
			worker->due_ns = 0;
			track_accept(track, copy);
			continue;
		}
		if (type == REQUEST_OPEN)
			opening_model(worker, &copy->request);
		else if (type == REQUEST_DEVICE)
			opening_move(worker, &copy->request);
		else if (type == REQUEST_CLEAR && track->seq == 0)
			clear_conversation(worker);
		else if (type == REQUEST_CLEAR)
			track_clear(track);
		else if (type == REQUEST_FORK)
			fork_track(worker, track, &worker->tracks[(int)copy->request.value]);
		else if (type == REQUEST_SAY)
			track_say(track, copy->request.conversation);
		else
			do_at_once(worker, &copy->request);
		request_free(copy);
		if (n_sequences(worker) != n_before)
			worker_memory(worker);
	}
}

/* ---- steps ---- */

/* One pass for all tracks that are generating. Returns how many. */
static int step_running(struct worker *worker)
{
	struct track *tracks[MAX_SEQUENCES];
	struct lane lanes[MAX_SEQUENCES];
	struct pick_params params[MAX_SEQUENCES];
	struct picked picked[MAX_SEQUENCES];
	struct error err = {0};
	int n = 0;
	for (int i = 0; i < MAX_SEQUENCES; i++) {
		struct track *track = &worker->tracks[i];
		if (track->state != TRACK_RUNNING || !track_ready(track))
			continue;
		lanes[n] = track_lane(track, &params[n]);
		tracks[n++] = track;
	}
	if (n == 0)
		return 0;
	uint64_t began = clock_ns();
	if (forward(worker->stage.workspace, lanes, n, params, picked, &err)) {
		for (int i = 0; i < n; i++)
			track_stop(tracks[i], STOP_ERROR, &err);
		return n;
	}
	uint64_t pass = clock_ns() - began + 1; // + 1: 0 would mean a prefill
	for (int i = 0; i < n; i++)
		track_take(tracks[i], &picked[i], pass);
	return n;
}

/* What the budgets of all running tracks take, slowed by one factor: the largest budget shows
 * `pace` tokens/s and smaller ones look as much faster as they are. From measured steps, because a
 * step after a pause takes longer (threads wake, caches are cold). */
static void set_due(struct worker *worker, uint64_t began)
{
	struct stage *stage = &worker->stage;
	uint64_t longest = 0;
	worker->due_ns = 0;
	if (worker->pace <= 0 || !stage->model)
		return;
	uint64_t largest = stage_step_ns(stage, stage->slices[0]);
	double factor = largest > 0 ? 1e9 / worker->pace / (double)largest : 1;
	for (int i = 0; i < MAX_SEQUENCES; i++) {
		const struct track *track = &worker->tracks[i];
		struct stage_slice *slice = track->state == TRACK_RUNNING
										? stage_slice(stage, turn_reader(&track->turn), NULL)
										: NULL;
		uint64_t took = slice ? stage_step_ns(stage, slice) : 0;
		longest = took > longest ? took : longest;
	}
	if (factor > 1)
		worker->due_ns = began + (uint64_t)((double)longest * factor);
}

/* Starts the turns that wait, one after the other and without pacing between them: nobody's first
 * token waits for another's pace. While paused one a step. Returns how many. */
static int start_accepted(struct worker *worker)
{
	int n = 0;
	for (int i = 0; i < MAX_SEQUENCES && !(n > 0 && worker->paused); i++) {
		if (worker->tracks[i].state != TRACK_ACCEPTED)
			continue;
		int n_before = n_sequences(worker);
		track_start(&worker->tracks[i]);
		if (n_sequences(worker) != n_before)
			worker_memory(worker);
		worker_look(worker);
		n++;
	}
	return n;
}

static void step(struct worker *worker)
{
	uint64_t began = clock_ns();
	if (worker->paused)
		worker->steps--;
	if (start_accepted(worker)) {
		set_due(worker, clock_ns());
		return; // a first token is a step
	}
	step_running(worker);
	set_due(worker, began);
	if (clock_ns() - worker->memory_ns > MEMORY_NS)
		worker_memory(worker);
}

/* A stop acts at once, whatever else is waited for. */
static void stop_where_asked(struct worker *worker)
{
	for (int i = 0; i < MAX_SEQUENCES; i++)
		if (worker->tracks[i].state != TRACK_IDLE && worker->tracks[i].stopping)
			track_stop(&worker->tracks[i], STOP_STOPPED, NULL);
}

void worker_run(struct worker *worker)
{
	bool was_busy = false;
	while (!queue_closing(&worker->queue)) {
		serve_requests(worker);
		stop_where_asked(worker);
		bool busy = false;
		for (int i = 0; i < MAX_SEQUENCES; i++)
			busy |= worker->tracks[i].state != TRACK_IDLE;
		if (was_busy && !busy)
			worker_memory(worker);
		was_busy = busy;
		if (!busy || (worker->paused && worker->steps == 0))
			queue_wait(&worker->queue, 0);
		else if (worker->due_ns > clock_ns())
			queue_wait(&worker->queue, worker->due_ns);
		else
			step(worker);
	}
	for (int i = 0; i < MAX_SEQUENCES; i++)
		if (worker->tracks[i].state != TRACK_IDLE)
			track_stop(&worker->tracks[i], STOP_STOPPED, NULL);
	for (int i = 0; i < MAX_SEQUENCES; i++)
		track_finish(&worker->tracks[i]);
	stage_close(&worker->stage);
	if (worker->device)
		worker->options.backend->close(worker->device);
}
