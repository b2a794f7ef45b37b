#include "core/opening.h"
#include "base/clock.h"
#include "core/finite.h"
#include "core/progress.h"
#include "kernels/gpu.h"
#include <stdlib.h>
#include <string.h>

#define PROGRESS_NS 100000000u // between two EV_PROGRESS

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

void opening_say(struct worker *worker, enum event_type type)
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

static bool only_stop(void *user, const struct request *request)
{
	(void)user;
	return request->type == REQUEST_STOP;
}

static bool settings_of(void *user, const struct request *request)
{
	return request->type == REQUEST_SETTINGS && request->seq == *(const int *)user;
}

/* A stop ends the upload, and settings that wait would begin it again. */
static bool is_stopped(struct worker *worker)
{
	struct request_copy *stop = queue_take(&worker->queue, only_stop, NULL), *settings;
	if (!stop)
		return false;
	while ((settings = queue_take(&worker->queue, settings_of, &stop->request.seq)))
		request_free(settings);
	request_free(stop);
	return true;
}

/* Between two matrices; all but a stop waits. */
static int watch_upload(void *user, const char *budget, uint64_t done, uint64_t total)
{
	struct worker *worker = user;
	uint64_t now = clock_ns();
	worker->upload_stopped |= is_stopped(worker);
	if (done == total || now - worker->upload_said_ns > PROGRESS_NS) {
		struct text what = {0};
		struct event event = progress_upload(budget, done, total, &what);
		worker->upload_said_ns = now;
		worker_emit(worker, &event);
		text_free(&what);
	}
	return worker->upload_stopped || queue_closing(&worker->queue);
}

bool opening_stopped(struct worker *worker)
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
	if (!stage_sequence(stage, stage->context, sequence, err) &&
		!reset_experts(worker, &stage->model->config, err))
		return 0;
	fail_in(err, "state for a context of %d tokens", stage->context);
	sequence_close(sequence);
	stage_close(stage);
	return -1;
}

/* For the next device that is opened; nothing is on the old one. */
static void use_backend(struct worker *worker, const struct backend *backend)
{
	if (worker->device)
		worker->options.backend->close(worker->device);
	worker->device = NULL;
	worker->options.backend = backend;
}

/* The card was nobody's wish: the CPU does as well, and the user is told why. Where the CPU cannot
 * open it either, the model is to blame: the next one finds the card again. */
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
	const struct backend *card = worker->options.backend;
	use_backend(worker, &backend_cpu);
	text_clear(notices);
	failed = open_stage(worker, request, stage, sequence, notices, err);
	if (failed)
		use_backend(worker, card);
	text_format(notices, "on the CPU: %s\n", why.text);
	return failed;
}

void opening_model(struct worker *worker, const struct request *request)
{
	struct stage stage;
	struct sequence sequence = {0};
	struct text notices = {0};
	struct error err = {0};
	int failed = open_anywhere(worker, request, &stage, &sequence, &notices, &err);
	opening_stopped(worker); // or it came too late: no turn is meant
	if (failed) {
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
	opening_say(worker, EV_OPENED);
	emit_lines(worker, &stage.model->notices);
	emit_lines(worker, &notices);
	text_free(&notices);
	if (worker->options.warm)
		warm(worker);
	worker_memory(worker);
}

/* Everything that the new device needs is made before the old one goes. */
static int move_stage(struct worker *worker, const struct stage_wish *wish, struct text *notices,
					  struct error *err)
{
	struct stage stage;
	struct sequence sequence = {0};
	if (stage_open(&stage, wish, notices, err))
		return -1;
	if (stage_sequence(&stage, stage.context, &sequence, err)) {
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

void opening_move(struct worker *worker, const struct request *request)
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
	failed = !device || move_stage(worker, &wish, &notices, &err);
	opening_stopped(worker);
	if (failed) {
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
	opening_say(worker, EV_OPENED);
	emit_lines(worker, &notices);
	text_free(&notices);
	worker_memory(worker);
}
