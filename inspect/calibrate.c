#include "inspect/calibrate.h"

#include "base/clock.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/memory.h"
#include "inspect/sums.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LANES 4             // that read side by side: the parent, and without a layer
#define SKIPPED (LANES - 1) // layers that a group leaves out, one each
#define KEEP_NS 3000000000u // between two writes of what is done

struct work {
	const struct calibrate_plan *plan;
	const struct config *config;
	int window, n_groups;
	int64_t n_windows, tokens;
	char text[17], names[SCORES_NAME_BYTES];
	char *part;             // PATH.part
	struct sums done, unit; // of finished windows; of the one that is read
	int group;              // the next
	int64_t at;             // its next window
	uint64_t kept_ns;
	struct device *device;
	struct workspace *workspace;
	struct slice slices[LANES]; // the parent, then without a layer
	struct sequence sequences[LANES];
	int n_lanes;
	float *logits, *other; // (chunk, vocab): the parent's, another's
	bool stopped;
};

/* ---- who they are ---- */

static int64_t windows_of(const struct calibrate_text *text, int window)
{
	return (text->n + (int64_t)window - 1) / window;
}

/* Window w of all texts, in their order. */
static const int32_t *find_window(const struct work *w, int64_t index, int *n)
{
	const struct calibrate_text *text = w->plan->texts->items;
	for (; index >= windows_of(text, w->window); text++)
		index -= windows_of(text, w->window);
	int first = (int)(index * w->window);
	*n = text->n - first < w->window ? text->n - first : w->window;
	return text->ids + first;
}

/* The identity of what is read: ids, borders, the window. And names for people. */
static int name_texts(struct work *w, struct error *err)
{
	const struct calibrate_texts *texts = w->plan->texts;
	struct text all = {0}, names = {0};
	char digest[65];
	text_format(&all, "%d %s", w->window, dtype_name(w->plan->device.kv_dtype));
	for (size_t i = 0; i < texts->n; i++) {
		const struct calibrate_text *text = &texts->items[i];
		text_format(&all, " %d ", text->n);
		text_append(&all, (const char *)text->ids, (size_t)text->n * sizeof *text->ids);
		w->n_windows += windows_of(text, w->window);
		w->tokens += text->n;
		if (i < 3)
			text_format(&names, "%s%s", i ? ", " : "", text->name);
	}
	if (texts->n > 3)
		text_format(&names, " and %zu more", texts->n - 3);
	int status = text_check(&all, err) < 0 || text_check(&names, err) < 0 ? -1 : 0;
	if (status == 0) { // half a text would pass for another's scores
		hash_sha256(text_chars(&all), all.length, digest);
		snprintf(w->text, sizeof w->text, "%.16s", digest);
		snprintf(w->names, sizeof w->names, "%s", text_chars(&names));
	}
	text_free(&all);
	text_free(&names);
	return status;
}

static const char *math_name(const struct work *w)
{
	return w->plan->device.math == MATH_FAST ? "fast" : "exact";
}

static char *make_path(const struct work *w, struct error *err)
{
	char name[96], *folder = scores_folder(err), *path = NULL;
	snprintf(name, sizeof name, "%s-%s-%s.safetensors", w->plan->model->hash, w->text,
			 math_name(w));
	if (folder && file_make_directories(folder, err) == 0)
		path = file_join(folder, name, err);
	free(folder);
	return path;
}

/* ---- what is done is kept ---- */

static int keep(struct work *w, struct error *err)
{
	char group[16], at[24];
	snprintf(group, sizeof group, "%d", w->group);
	snprintf(at, sizeof at, "%lld", (long long)w->at);
	const struct checkpoint_note notes[] = {{"group", group}, {"window", at}};
	int64_t bytes = (int64_t)(w->done.n * sizeof *w->done.all);
	struct named_tensor sums = {.name = "sums",
								.tensor = {.dtype = DTYPE_U8,
										   .n_dims = 1,
										   .shape = {bytes},
										   .data = w->done.all,
										   .bytes = (uint64_t)bytes}};
	w->kept_ns = clock_ns();
	return checkpoint_write_noted(w->part, &sums, 1, notes, 2, err);
}

static int64_t read_number(const struct checkpoint *file, const char *key)
{
	struct text text = {0};
	checkpoint_note(file, key, &text);
	int64_t number = strtoll(text_chars(&text), NULL, 10);
	text_free(&text);
	return number;
}

/* Where a stopped run goes on; one that cannot be read is as good as none. */
static void resume(struct work *w)
{
	struct checkpoint file = {0};
	if (!file_exists(w->part))
		return;
	const struct tensor *t =
		checkpoint_open_file(&file, w->part, NULL) == 0 ? checkpoint_find(&file, "sums") : NULL;
	int64_t group = t ? read_number(&file, "group") : 0, at = t ? read_number(&file, "window") : 0;
	if (t && t->bytes == w->done.n * sizeof *w->done.all && group >= 0 && group < w->n_groups &&
		at >= 0 && at <= w->n_windows) {
		memcpy(w->done.all, t->data, t->bytes);
		w->group = (int)group;
		w->at = at;
	}
	checkpoint_close(&file);
}

static int write_scores(const struct work *w, const char *path, struct error *err)
{
	struct score_row *rows;
	int n = scores_table(w->config, &rows, err), status = n < 0 ? -1 : 0;
	struct named_tensor *tensors = n < 0 ? NULL : mem_new((size_t)n, sizeof *tensors, err);
	float *values[4 * CONFIG_MAX_LAYERS + 3] = {0};
	char tokens[24], samples[24];
	for (int i = 0; tensors && i < n && status == 0; i++) {
		int64_t count = rows[i].shape[0] * (rows[i].n_dims == 2 ? rows[i].shape[1] : 1);
		values[i] = mem_new((size_t)count, sizeof *values[i], err);
		status = values[i] ? sums_score(&w->done, &rows[i], values[i], err) : -1;
		tensors[i] = (struct named_tensor){
			.name = rows[i].name,
			.tensor = {.dtype = DTYPE_F32,
					   .n_dims = rows[i].n_dims,
					   .shape = {rows[i].shape[0], rows[i].n_dims == 2 ? rows[i].shape[1] : 0},
					   .data = values[i],
					   .bytes = (uint64_t)count * sizeof *values[i]}};
	}
	snprintf(tokens, sizeof tokens, "%lld", (long long)w->tokens);
	snprintf(samples, sizeof samples, "%lld", (long long)w->n_windows);
	const struct checkpoint_note notes[] = {{"checkpoint", w->plan->model->hash},
											{"text_hash", w->text},
											{"text", w->names},
											{"tokens", tokens},
											{"samples", samples},
											{"math", math_name(w)}};
	if (tensors && status == 0)
		status = checkpoint_write_noted(path, tensors, (size_t)n, notes,
										sizeof notes / sizeof *notes, err);
	for (int i = 0; i < n; i++)
		free(values[i]);
	free(tensors);
	free(rows);
	return tensors ? status : -1;
}

/* ---- reading ---- */

/* Lane 0 keeps all layers, lane k leaves layer `skip` out. */
static int open_lane(struct work *w, int lane, int skip, struct error *err)
{
	const struct model *model = w->plan->model;
	struct budget budget = {0};
	int status = budget_init(&budget, w->config, "parent", err);
	if (status == 0 && skip >= 0)
		status = budget_set_keep(&budget, skip, false, err);
	if (status == 0)
		status = slice_build(&w->slices[lane], &model->weights, w->config, &budget, &backend_cpu,
							 w->device, err);
	budget_free(&budget);
	return status;
}

static int open_group(struct work *w, struct error *err)
{
	for (int k = 1; k < LANES; k++) {
		sequence_reset(&w->sequences[k]);
		slice_free(&w->slices[k]);
	}
	w->n_lanes = 1;
	for (int k = 0; k < SKIPPED; k++) {
		int layer = w->group * SKIPPED + k;
		if (w->config->n_layers < 2 || layer >= w->config->n_layers)
			break;
		if (open_lane(w, w->n_lanes, layer, err) < 0)
			return -1;
		w->n_lanes++;
	}
	return 0;
}

static int open_device(struct work *w, struct error *err)
{
	const struct device_options *options = &w->plan->device;
	size_t chunk = (size_t)PREFILL_CHUNK * (size_t)w->config->vocab_size;
	if (!(w->device = backend_cpu.open(options, err)) || open_lane(w, 0, -1, err) < 0)
		return -1;
	w->workspace =
		workspace_open(w->config, &backend_cpu, w->device, LANES, LANES * PREFILL_CHUNK, true, err);
	if (!w->workspace || !(w->logits = mem_new(chunk, sizeof *w->logits, err)) ||
		!(w->other = mem_new(chunk, sizeof *w->other, err)))
		return -1;
	for (int k = 0; k < LANES; k++)
		if (sequence_open(&w->sequences[k], w->config, &backend_cpu, w->device, options->kv_dtype,
						  w->window, err) < 0)
			return -1;
	return sums_open(&w->unit, w->config, err);
}

/* The squared difference of each lane's logits from the parent's. */
static void add_logits(struct work *w, const struct lane *lanes, int n)
{
	size_t values = (size_t)n * (size_t)w->config->vocab_size;
	backend_cpu.download(w->device, w->logits, lanes[0].out, values * sizeof(float));
	for (size_t i = 0; w->group == 0 && i < values; i++)
		*w->unit.energy += (double)w->logits[i] * (double)w->logits[i];
	for (int k = 1; k < w->n_lanes; k++) {
		double sum = 0;
		backend_cpu.download(w->device, w->other, lanes[k].out, values * sizeof(float));
		for (size_t i = 0; i < values; i++) {
			double d = (double)w->logits[i] - (double)w->other[i];
			sum += d * d;
		}
		w->unit.difference[w->group * SKIPPED + k - 1] += sum;
	}
}

static int read_chunk(struct work *w, const int32_t *ids, int n, struct error *err)
{
	struct taps taps = {.wanted = SUMS_TAPS, .see = sums_see, .user = &w->unit};
	struct lane lanes[LANES];
	for (int k = 0; k < w->n_lanes; k++)
		lanes[k] = (struct lane){.sequence = &w->sequences[k],
								 .tokens = ids,
								 .n_tokens = n,
								 .logits = LOGITS_ALL,
								 .taps = k == 0 && w->group == 0 ? &taps : NULL};
	if (forward(w->workspace, lanes, w->n_lanes, NULL, NULL, err) < 0)
		return -1;
	add_logits(w, lanes, n);
	if (w->group == 0)
		*w->unit.tokens += n;
	return 0;
}

/* Tokens read before this window of this group. */
static int64_t tokens_before(const struct work *w)
{
	int64_t before = w->group * w->tokens;
	int n;
	for (int64_t i = 0; i < w->at; i++) {
		find_window(w, i, &n);
		before += n;
	}
	return before;
}

static int read_window(struct work *w, int64_t *done, struct error *err)
{
	int n, status = 0;
	const int32_t *ids = find_window(w, w->at, &n);
	sums_clear(&w->unit);
	for (int k = 0; k < w->n_lanes && status == 0; k++) {
		sequence_reset(&w->sequences[k]);
		status = sequence_use(&w->sequences[k], &w->slices[k], err);
	}
	for (int at = 0; at < n && status == 0; at += PREFILL_CHUNK) {
		int chunk = n - at < PREFILL_CHUNK ? n - at : PREFILL_CHUNK;
		status = read_chunk(w, ids + at, chunk, err);
		*done += chunk;
		if (status == 0 && w->plan->step &&
			w->plan->step(w->plan->user, *done, w->tokens * w->n_groups)) {
			w->stopped = true;
			return fail(
				err,
				"stopped after %lld of %lld tokens, %d times %lld; what was read is kept, the "
				"same command goes on",
				(long long)*done, (long long)(w->tokens * w->n_groups), w->n_groups,
				(long long)w->tokens);
		}
	}
	if (status == 0) {
		sums_add(&w->done, &w->unit);
		w->at++;
	}
	return status;
}

static int read_all(struct work *w, struct error *err)
{
	int64_t done = tokens_before(w);
	int status = open_device(w, err);
	for (; w->group < w->n_groups && status == 0; w->group++, w->at = 0) {
		status = open_group(w, err);
		while (w->at < w->n_windows && status == 0) {
			status = read_window(w, &done, err);
			if (w->stopped || (status == 0 && clock_ns() - w->kept_ns > KEEP_NS))
				status = keep(w, status < 0 ? NULL : err) < 0 ? -1 : status;
		}
		if (status < 0)
			return -1;
	}
	return status;
}

static void work_close(struct work *w)
{
	for (int k = 0; k < LANES; k++)
		sequence_close(&w->sequences[k]);
	for (int k = 0; k < LANES; k++)
		slice_free(&w->slices[k]);
	workspace_close(w->workspace);
	backend_cpu.close(w->device);
	sums_close(&w->done);
	sums_close(&w->unit);
	free(w->logits);
	free(w->other);
	free(w->part);
}

/* ---- public ---- */

static int measure(struct work *w, const char *path, struct error *err)
{
	struct text part = {0};
	text_format(&part, "%s.part", path);
	if (!(w->part = text_take(&part)))
		return fail(err, "no memory for a path");
	if (sums_open(&w->done, w->config, err) < 0)
		return -1;
	w->kept_ns = clock_ns();
	resume(w);
	if (read_all(w, err) < 0 || write_scores(w, path, err) < 0)
		return -1;
	unlink(w->part);
	return 0;
}

/* A file that is there and can't be read is measured again, and replaced. */
static bool is_cached(struct calibration *c, const struct model *model)
{
	struct scores scores;
	if (!file_exists(c->path) || scores_open(&scores, c->path, model, &c->damaged) < 0)
		return false;
	scores_close(&scores);
	return true;
}

int calibrate_run(struct calibration *c, const struct calibrate_plan *plan, struct error *err)
{
	struct work w = {.plan = plan, .config = &plan->model->config, .window = plan->window};
	int most = w.config->max_position_embeddings;
	uint64_t start = clock_ns();
	*c = (struct calibration){0};
	if (plan->texts->n == 0)
		return fail(err, "nothing to measure on: a text is expected");
	if (w.window == 0)
		w.window = most > 0 && most < CALIBRATE_WINDOW ? most : CALIBRATE_WINDOW;
	w.n_groups = w.config->n_layers < 2 ? 1 : (w.config->n_layers + SKIPPED - 1) / SKIPPED;
	if (name_texts(&w, err) < 0 || !(c->path = make_path(&w, err)))
		return -1;
	c->tokens = w.tokens;
	c->samples = w.n_windows;
	c->from_cache = is_cached(c, plan->model);
	int status = c->from_cache ? 0 : measure(&w, c->path, err);
	c->took_ns = clock_ns() - start;
	work_close(&w);
	if (status < 0)
		calibration_free(c);
	return status;
}

void calibration_free(struct calibration *c)
{
	free(c->path);
	*c = (struct calibration){0};
}
