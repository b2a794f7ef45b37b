/*
 * The worker's loop: take requests, make one step of all tracks that are generating, and wait where
 * pause, pace or idleness say so.
 */
#include "core/worker.h"
#include "base/clock.h"
#include "core/finite.h"
#include "kernels/gpu.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MEMORY_NS 2000000000u  // between two EV_MEMORY while generating
#define PROGRESS_NS 100000000u // between two EV_PROGRESS

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

static void emit_memory(struct worker *worker)
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

/* ---- opening ---- */

struct warming {
	struct worker *worker;
	struct event event;
	uint64_t said_ns;
};

static bool warm_step(void *user, uint64_t done)
{
	struct warming *w = user;
	w->event.progress.done = (int64_t)done;
	if (clock_ns() - w->said_ns > PROGRESS_NS) {
		w->said_ns = clock_ns();
		worker_emit(w->worker, &w->event);
	}
	return !queue_closing(&w->worker->queue);
}

/* Reads all weights, so that the first token does not wait for the disk; what is no number among
 * them is said at once. */
static void warm(struct worker *worker)
{
	const struct checkpoint *checkpoint = &worker->stage.model->checkpoint;
	struct warming w = {.worker = worker,
						.event = {.type = EV_PROGRESS, .text = "reading weights", .length = 15}};
	struct error err = {0};
	w.event.progress.total = (int64_t)checkpoint->tensor_bytes;
	int status = finite_check(checkpoint, warm_step, &w, &err);
	if (queue_closing(&worker->queue))
		return;
	w.event.progress.done = w.event.progress.total;
	worker_emit(worker, &w.event);
	if (status != 0)
		worker_say(worker, EV_ERROR, 0, err.text);
}

/* New counts for a model of this many layers and experts. */
static int reset_experts(struct worker *worker, const struct config *config, struct error *err)
{
	size_t n = (size_t)N_PHASES * (size_t)config->n_layers * (size_t)config->n_routed_experts;
	uint32_t *counts = calloc(n + 1, sizeof *counts);
	if (!counts)
		return fail(err, "no memory for %zu expert counts", n);
	pthread_mutex_lock(&worker->shared);
	free(worker->experts.counts);
	worker->experts.counts = counts;
	worker->experts.n_layers = config->n_layers;
	worker->experts.n_experts = config->n_routed_experts;
	worker->experts.version++;
	pthread_mutex_unlock(&worker->shared);
	return 0;
}

static void emit_opened(struct worker *worker, enum event_type type)
{
	const struct backend *backend = worker->options.backend;
	struct event event = {.type = type};
	event.opened.model = worker->stage.model;
	event.opened.math = worker->options.device.math;
	event.opened.kv_dtype = worker->stage.kv_dtype;
	if (worker->device) {
		strncpy(event.opened.rung, backend->rung(worker->device), sizeof event.opened.rung - 1);
		event.opened.n_threads = backend->threads(worker->device);
	}
	event.opened.context = worker->stage.context;
	worker->first_turn = worker->n_turns;
	worker_emit(worker, &event);
}

static void emit_lines(struct worker *worker, const struct text *lines)
{
	const char *line = text_chars(lines), *end;
	for (; (end = strchr(line, '\n')); line = end + 1) {
		struct event event = {.type = EV_NOTICE, .text = line, .length = (size_t)(end - line)};
		worker_emit(worker, &event);
	}
	if (*line)
		worker_say(worker, EV_NOTICE, 0, line);
}

/* ---- uploads ---- */

static bool only_stop(void *user, const struct request *request)
{
	(void)user;
	return request->type == REQUEST_STOP;
}

/* Between two matrices. A stop ends the upload; all else waits. */
static int watch_upload(void *user, const char *budget, uint64_t done, uint64_t total)
{
	struct worker *worker = user;
	struct request_copy *stop = queue_take(&worker->queue, only_stop, NULL);
	uint64_t now = clock_ns();
	worker->upload_stopped |= stop != NULL;
	request_free(stop);
	if (done == total || now - worker->upload_said_ns > PROGRESS_NS) {
		struct event event = {.type = EV_PROGRESS};
		struct text what = {0};
		text_format(&what, "uploading %s", budget_name_text(budget));
		event.text = text_chars(&what);
		event.length = what.length;
		event.progress.done = (int64_t)done;
		event.progress.total = (int64_t)total;
		event.progress.bytes = true;
		worker->upload_said_ns = now;
		worker_emit(worker, &event);
		text_free(&what);
	}
	return worker->upload_stopped || queue_closing(&worker->queue);
}

bool worker_stopped_upload(struct worker *worker)
{
	bool stopped = worker->upload_stopped;
	worker->upload_stopped = false;
	return stopped;
}

static struct stage_wish wish_for(struct worker *worker, const struct engine_options *options,
								  struct device *device, const struct request *request)
{
	worker->upload_stopped = false;
	return (struct stage_wish){.options = options,
							   .upload = {options->backend, device, watch_upload, worker},
							   .request = request};
}

/* The state of the conversation's sequence is part of opening, so that a context that does not fit
 * is said while the old model is still there. */
static int open_stage(struct worker *worker, const struct request *request, struct stage *stage,
					  struct sequence *sequence, struct text *notices, struct error *err)
{
	const struct engine_options *options = &worker->options;
	if (!worker->device && !(worker->device = options->backend->open(&options->device, err)))
		return -1;
	struct stage_wish wish = wish_for(worker, options, worker->device, request);
	if (stage_open(stage, &wish, notices, err))
		return -1;
	if (!sequence_open(sequence, &stage->model->config, stage->backend, stage->device,
					   stage->kv_dtype, stage->context, err) &&
		!reset_experts(worker, &stage->model->config, err))
		return 0;
	fail_in(err, "state for a context of %d tokens", stage->context);
	sequence_close(sequence);
	stage_close(stage);
	return -1;
}

/* The card was nobody's wish: the CPU does as well, and the user is told why. */
static int open_anywhere(struct worker *worker, const struct request *request, struct stage *stage,
						 struct sequence *sequence, struct text *notices, struct error *err)
{
	struct error why = {0};
	int failed = open_stage(worker, request, stage, sequence, notices, &why);
	bool first = worker->options.device.automatic && !worker->stage.model;
	bool on_cpu = worker->options.backend == &backend_cpu;
	if (!failed && first && on_cpu && gpu_passed_over(&why))
		text_format(notices, "on the CPU: %s\n", why.text);
	if (!failed || !first || on_cpu || worker->upload_stopped || queue_closing(&worker->queue)) {
		*err = why;
		return failed;
	}
	if (worker->device)
		worker->options.backend->close(worker->device);
	worker->device = NULL;
	worker->options.backend = &backend_cpu;
	text_clear(notices);
	failed = open_stage(worker, request, stage, sequence, notices, err);
	text_format(notices, "on the CPU: %s\n", why.text);
	return failed;
}

static void open_model(struct worker *worker, const struct request *request)
{
	struct stage stage;
	struct sequence sequence = {0};
	struct text notices = {0};
	struct error err = {0};
	if (open_anywhere(worker, request, &stage, &sequence, &notices, &err)) {
		worker_say(worker, EV_ERROR, request->seq, err.text);
		text_free(&notices);
		return;
	}
	for (int i = 0; i < MAX_SEQUENCES; i++)
		track_finish(&worker->tracks[i]);
	stage_close(&worker->stage);
	worker->stage = stage;
	worker->tracks[0].sequence = sequence;
	worker_gauge(worker, &worker->tracks[0]);
	emit_opened(worker, EV_OPENED);
	emit_lines(worker, &stage.model->notices);
	emit_lines(worker, &notices);
	text_free(&notices);
	if (worker->options.warm)
		warm(worker);
	emit_memory(worker);
}

/* Everything that the new device needs is made before the old one goes. */
static int move_stage(struct worker *worker, const struct stage_wish *wish, struct text *notices,
					  struct error *err)
{
	struct stage stage;
	struct sequence sequence = {0};
	if (stage_open(&stage, wish, notices, err))
		return -1;
	if (sequence_open(&sequence, &stage.model->config, stage.backend, stage.device, stage.kv_dtype,
					  stage.context, err)) {
		stage_close(&stage);
		return -1;
	}
	for (int i = 0; i < MAX_SEQUENCES; i++)
		track_finish(&worker->tracks[i]);
	stage_close(&worker->stage);
	worker->stage = stage;
	worker->tracks[0].sequence = sequence;
	return 0;
}

static void move_model(struct worker *worker, const struct request *request)
{
	struct engine_options options = worker->options;
	struct device *device = NULL;
	struct text notices = {0};
	struct error err = {0};
	int failed = worker->stage.model ? 0 : fail(&err, "no model is open");
	if (!failed)
		options.backend = backend_choose(request->text ? request->text : "", &options.device, &err);
	if (!failed && options.backend)
		device = options.backend->open(&options.device, &err);
	struct stage_wish wish = wish_for(worker, &options, device, request);
	wish.model = worker->stage.model;
	if (!device || move_stage(worker, &wish, &notices, &err)) {
		if (device)
			options.backend->close(device);
		text_free(&notices);
		worker_say(worker, EV_ERROR, request->seq, err.text);
		return;
	}
	worker->options.backend->close(worker->device);
	worker->options.backend = options.backend;
	worker->options.device = options.device;
	worker->device = device;
	worker_gauge(worker, &worker->tracks[0]);
	emit_opened(worker, EV_OPENED);
	emit_lines(worker, &notices);
	text_free(&notices);
	emit_memory(worker);
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
	case REQUEST_MEMORY: emit_memory(worker); break;
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
	emit_opened(worker, EV_CLEARED);
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
			open_model(worker, &copy->request);
		else if (type == REQUEST_DEVICE)
			move_model(worker, &copy->request);
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
			emit_memory(worker);
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
			emit_memory(worker);
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
		emit_memory(worker);
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
			emit_memory(worker);
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
