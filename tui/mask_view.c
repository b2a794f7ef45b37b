#include "tui/mask_view.h"
#include "base/file.h"
#include "base/memory.h"
#include "core/tokenizer.h"
#include "tui/look.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define FEWEST_PINNED 8 // tokens of a conversation that are worth a probe

static const char standard[] =
	"Calculate 49 - 88. The answer is 49 - 88 = -39. Multiply 638 by 8: 638 * 8 = 5104.";

static bool is_open(const struct mask_view *view)
{
	return view->mask.base.n_layers > 0;
}

/* What the user chose, not what runs: that lags behind by a token. */
static const char *chosen(const struct talk *talk)
{
	const struct turn_settings *turn = &talk->settings;
	return turn->policy || *turn->rule ? talk_budget_name(talk) : turn->budget;
}

/* The same for as long as nobody chooses another: a policy's budgets count as one. */
static const char *chosen_by_name(const struct talk *talk)
{
	const struct turn_settings *turn = &talk->settings;
	return turn->policy || *turn->rule ? "" : turn->budget;
}

/* Whether the mask is what writes; it is left behind as soon as another budget is chosen. */
static bool is_current(const struct mask_view *view, const struct talk *talk)
{
	struct text text = {0};
	if (!is_open(view) || !talk->model)
		return false;
	bool same = mask_text(&view->mask, &talk->model->config, &text, NULL) == 0 &&
				strcmp(budget_name_text(chosen(talk)), text_chars(&text)) == 0;
	text_free(&text);
	return same;
}

/* ---- the tokens ---- */

/* The first PROBE_TOKENS are kept; a probe that has others goes. */
static int take_pinned(struct mask_view *view, const int32_t *ids, size_t n, struct error *err)
{
	size_t most = n < PROBE_TOKENS ? n : PROBE_TOKENS;
	if (n == 0)
		return fail(err, "probe: no tokens");
	int32_t *copy = mem_new(most, sizeof *copy, err);
	if (!copy)
		return -1;
	memcpy(copy, ids, most * sizeof *ids);
	free(view->pinned);
	view->pinned = copy;
	view->n_pinned = (int)most;
	probe_close(&view->probe);
	text_clear(&view->line);
	return 0;
}

static int pin_conversation(struct mask_view *view, const struct talk *talk, struct error *err)
{
	const struct tape *tape = &talk->tape;
	if (!tape->known || tape->n == 0)
		return fail(err,
					"probe: nothing was said yet whose ids are known; :probe TEXT pins a text");
	int32_t *ids = mem_new(tape->n, sizeof *ids, err);
	if (!ids)
		return -1;
	tape_ids(tape, tape->n, ids);
	int status = take_pinned(view, ids, tape->n, err);
	free(ids);
	return status;
}

static int pin_text(struct mask_view *view, const struct talk *talk, const char *text,
					struct error *err)
{
	struct id_list ids = {0};
	int status = model_encode(talk->model, text, strlen(text), &ids, err);
	if (status == 0)
		status = take_pinned(view, ids.ids, ids.n, err);
	free(ids.ids);
	return status;
}

/* What is read when nobody chose: the conversation if there is one, else a sentence, else ids. */
static int pin_something(struct mask_view *view, const struct talk *talk, struct error *err)
{
	if (view->pinned)
		return 0;
	if (talk->tape.known && talk->tape.n >= FEWEST_PINNED && !talk->running)
		return pin_conversation(view, talk, err);
	return pin_text(view, talk, talk->model->tokenizer ? standard : "1 2 3 4 5 6 7 8", err);
}

/* ---- the job ---- */

bool mask_view_stop(struct mask_view *view, const struct talk *talk)
{
	struct mask_job *job = view->asked ? view->asked : view->waiting;
	if (!job)
		return false;
	jobs_cancel(talk->jobs, &job->job);
	view->wanted &= view->asked != NULL;
	return true;
}

/* The probe of the open model with the pinned tokens, ready to go with a job. */
static int ready_probe(struct mask_view *view, const struct talk *talk, struct error *err)
{
	struct device_options options = {.n_threads = 1, .math = MATH_EXACT, .kv_dtype = DTYPE_F32};
	if (pin_something(view, talk, err))
		return -1;
	if (view->probe.model)
		return 0;
	return probe_open(&view->probe, talk->model, view->pinned, view->n_pinned, &options, err);
}

static int submit(struct mask_view *view, const struct talk *talk, enum mask_task task,
				  const char *base, const char *mask, const char *path, struct error *err)
{
	if (ready_probe(view, talk, err))
		return -1;
	struct mask_job *job = mask_job(task, &view->probe, base, mask, path, err);
	if (!job)
		return -1;
	*(task == MASK_PROBE ? &view->waiting : &view->asked) = job;
	jobs_submit(talk->jobs, &job->job);
	return 0;
}

static const char *baseline(const struct mask_view *view, const struct talk *talk)
{
	return mask_baseline(&view->mask, &talk->model->elastic.budgets[0])->name;
}

/* Probes the mask as it is, or as soon as what runs has made way for it. */
static int want_probe(struct mask_view *view, const struct talk *talk, struct error *err)
{
	struct text text = {0};
	view->wanted = false;
	text_clear(&view->line);
	if (!talk->jobs || !is_current(view, talk))
		return 0;
	if (view->waiting) {
		jobs_cancel(talk->jobs, &view->waiting->job);
		view->wanted = true;
		return 0;
	}
	int status = mask_text(&view->mask, &talk->model->config, &text, err);
	if (status == 0)
		status = submit(view, talk, MASK_PROBE, baseline(view, talk), text_chars(&text), NULL, err);
	text_free(&text);
	return status;
}

static void take_result(struct mask_view *view, const struct talk *talk, struct mask_job *job)
{
	const struct config *config = &talk->model->config;
	struct text *out = job->task == MASK_PROBE ? &view->line : &view->found;
	text_clear(out);
	if (out == &view->found)
		snprintf(view->found_with, sizeof view->found_with, "%s", chosen_by_name(talk));
	if (job->job.state == JOB_FAILED)
		text_format(out, "%s: %s", job->job.name, job->job.error.text);
	else if (job->task == MASK_PROBE) {
		probe_line(&job->result, config, job->probe.tolerance, out);
		if (is_open(view) && strcmp(job->base, view->mask.base.name) != 0)
			text_format(out, ", against %s", job->base);
	} else if (job->task == MASK_BISECT) {
		bisect_line(&job->bisect, out);
		text_format(out, ", %s against %s", job->mask, job->base);
	} else
		against_line(&job->against, config, out);
}

bool mask_view_job(struct mask_view *view, const struct talk *talk, struct job *job)
{
	struct mask_job *it = (struct mask_job *)job;
	struct error err = {0};
	if (it != view->waiting && it != view->asked)
		return false;
	*(it == view->waiting ? &view->waiting : &view->asked) = NULL;
	if (job->state != JOB_CANCELLED)
		take_result(view, talk, it);
	if (!view->probe.model && it->probe.model == talk->model && view->pinned &&
		it->probe.n == view->n_pinned &&
		memcmp(it->probe.ids, view->pinned, (size_t)it->probe.n * sizeof *it->probe.ids) == 0) {
		view->probe = it->probe;
		it->probe = (struct probe){0};
	}
	job->free(job);
	if (view->wanted && !view->waiting && want_probe(view, talk, &err)) {
		text_clear(&view->line);
		text_add(&view->line, err.text);
	}
	return true;
}

void mask_view_forget(struct mask_view *view, const struct talk *talk)
{
	if (view->waiting)
		jobs_cancel(talk->jobs, &view->waiting->job); // nobody's: the app frees it
	if (view->asked)
		jobs_cancel(talk->jobs, &view->asked->job);
	mask_view_close(view);
}

void mask_view_close(struct mask_view *view)
{
	mask_close(&view->mask);
	probe_close(&view->probe);
	free(view->pinned);
	text_free(&view->line);
	text_free(&view->found);
	*view = (struct mask_view){0};
}

/* ---- edits ---- */

/* Begins anew where another budget than the mask was chosen. */
static int settle(struct mask_view *view, struct talk *talk, struct error *err)
{
	struct budget base;
	if (!talk->model)
		return talk_check_budget(talk, chosen(talk), err);
	if (is_current(view, talk))
		return 0;
	if (model_budget(talk->model, chosen(talk), &base, err))
		return -1;
	mask_close(&view->mask);
	text_clear(&view->line);
	int status = mask_open(&view->mask, &base, err);
	budget_free(&base);
	return status;
}

/* Tells the engine, then the probe. */
static int apply(struct mask_view *view, struct talk *talk, struct error *err)
{
	struct text text = {0};
	char name[BUDGET_NAME_BYTES];
	int status = mask_text(&view->mask, &talk->model->config, &text, err);
	if (status == 0)
		status = budget_name_of(name, text_chars(&text), err);
	if (status == 0)
		status = talk_choose_budget(talk, name, err);
	text_free(&text);
	return status ? -1 : want_probe(view, talk, err);
}

/* The terms with those that make whole blocks of the widths, if what they lead to can be built at
 * all: blocks, shapes. */
static int whole(const struct mask_view *view, struct talk *talk, const char *terms,
				 struct text *out, struct error *err)
{
	const struct config *config = &talk->model->config;
	const struct weights *weights = &talk->model->weights;
	struct budget tried;
	struct slice slice;
	struct text rounded = {0};
	if (budget_copy(&tried, &view->mask.now, err))
		return -1;
	int status = budget_edit(&tried, config, terms, err);
	if (status == 0)
		mask_round(&tried, weights, config, &rounded);
	text_add(out, terms);
	if (rounded.length) {
		text_format(out, ",%s", text_chars(&rounded));
		status = budget_edit(&tried, config, text_chars(&rounded), err);
	}
	if (status == 0)
		status = slice_build(&slice, weights, config, &tried, NULL, NULL, err);
	if (status == 0) {
		slice_free(&slice);
		status = text_check(out, err);
	}
	if (status == 0 && rounded.length)
		talk_say(talk, "rounded to whole blocks of the quantisation: %s", text_chars(&rounded));
	text_free(&rounded);
	budget_free(&tried);
	return status;
}

int mask_view_edit(struct mask_view *view, struct talk *talk, const char *terms, struct error *err)
{
	struct text all = {0};
	if (settle(view, talk, err))
		return -1;
	bool waited = view->mask.before && view->mask.n_done > 0;
	int status = whole(view, talk, terms, &all, err);
	if (status == 0)
		status = mask_edit(&view->mask, &talk->model->config, text_chars(&all), err);
	if (status == 0 && waited)
		talk_say(talk,
				 "the mask is no longer flipped: this edit comes on top of those that waited");
	text_free(&all);
	return status ? -1 : apply(view, talk, err);
}

int mask_view_move(struct mask_view *view, struct talk *talk, enum mask_move move,
				   struct error *err)
{
	const struct config *config;
	int status = 0;
	if (!is_open(view) || !talk->model)
		return fail(err, "mask: nothing is edited");
	config = &talk->model->config;
	if (!is_current(view, talk) && move != MASK_UNDO)
		return fail(err, "mask: another budget was chosen; :mask undo goes back to the edits");
	if (!is_current(view, talk)) // undoes that choice
		return apply(view, talk, err);
	switch (move) {
	case MASK_UNDO: status = mask_undo(&view->mask, config, err); break;
	case MASK_REDO: status = mask_redo(&view->mask, config, err); break;
	case MASK_FLIP: view->mask.before = !view->mask.before; break;
	case MASK_CLEAR:
		while (status == 0 && view->mask.n_done > 0)
			status = mask_undo(&view->mask, config, err);
		break;
	}
	return status ? -1 : apply(view, talk, err);
}

int mask_view_apart(struct mask_view *view, struct talk *talk, bool solo, int layer, int kind,
					struct error *err)
{
	if (settle(view, talk, err))
		return -1;
	const struct config *config = &talk->model->config;
	const struct budget *parent = &talk->model->elastic.budgets[0];
	if (solo ? mask_solo(&view->mask, config, parent, layer, kind, err)
			 : mask_all_but(&view->mask, config, parent, layer, kind, err))
		return -1;
	return apply(view, talk, err);
}

/* Of the opened checkpoint, whose file nobody named: not the bundled demo's, nor one that is meant
 * to stay. */
static int check_writable(const char *directory, const char *path, struct error *err)
{
	char *demo = file_shared("demo", NULL);
	char *there = demo ? realpath(demo, NULL) : NULL, *here = realpath(directory, NULL);
	bool bundled = there && here && strcmp(there, here) == 0;
	free(demo);
	free(there);
	free(here);
	if (bundled || (file_exists(path) && access(path, W_OK) != 0))
		return fail(err, "mask save: %s is %s; NAME FILE writes elsewhere, :mask save! NAME there",
					path, bundled ? "the bundled demo's" : "read-only");
	return 0;
}

int mask_view_save(struct mask_view *view, struct talk *talk, const char *name, const char *path,
				   bool replace, struct error *err)
{
	struct text file = {0};
	if (!is_current(view, talk))
		return fail(err, "mask: nothing is edited");
	text_add(&file, *path ? path : talk->model->directory);
	if (!*path)
		text_add(&file, "/elastic.json");
	int status = text_check(&file, err);
	if (status == 0 && !*path && !replace)
		status = check_writable(talk->model->directory, text_chars(&file), err);
	if (status == 0)
		status = mask_save(&view->mask.now, name, text_chars(&file),
						   &talk->model->elastic.budgets[0], &talk->model->config, replace, err);
	if (status == 0)
		talk_say(talk, "saved as %s in %s; :open reads it", name, text_chars(&file));
	text_free(&file);
	return status;
}

void mask_view_list(const struct mask_view *view, const struct talk *talk, struct text *out)
{
	struct text text = {0};
	struct mask_units units;
	if (!is_current(view, talk) || mask_text(&view->mask, &talk->model->config, &text, NULL)) {
		text_add(out, "No mask is edited.\n\n:mask LAYER.AXIS=WIDTH, :mask drop=LAYER.AXIS:3 or "
					  ":mask skip=3 begins one over the budget that writes.\n");
		text_free(&text);
		return;
	}
	text_format(out, "%s%s\n\n", text_chars(&text),
				view->mask.before ? "  (flipped: the edits wait)" : "");
	text_free(&text);
	for (int i = 0; i < view->mask.n_edits; i++)
		text_format(out, "%3d %s%s\n", i + 1, view->mask.edits[i].said,
					i < view->mask.n_done ? "" : "   (undone)");
	text_add(out, "\nfrom the parent:\n");
	if (mask_units(&talk->model->elastic.budgets[0], &view->mask.now, &talk->model->config, &units,
				   NULL))
		return;
	for (int i = 0; i < units.n; i++) {
		const struct mask_unit *unit = &units.units[i];
		enum mask_mark mark = MASK_TRAINED;
		if (unit->kind < N_AXES)
			mark = mask_mark(&view->mask.now, &talk->model->elastic, &talk->model->config,
							 (enum axis)unit->kind, unit->layer < 0 ? 0 : unit->layer);
		text_format(out, "    %s%s\n", unit->term,
					mark == MASK_BROKEN    ? "   ! not nested"
					: mark == MASK_BETWEEN ? "   * between trained widths"
										   : "");
	}
	mask_units_free(&units);
}

/* ---- asking ---- */

static int free_to_ask(struct mask_view *view, const struct talk *talk, const char *what,
					   struct error *err)
{
	if (!talk->jobs || !talk->model)
		return fail(err, "%s: no model is open", what);
	if (!view->asked)
		return 0;
	return fail(err, "%s: a %s is still running; Ctrl-C in the Nesting view stops it", what,
				view->asked->job.name);
}

int mask_view_pin(struct mask_view *view, struct talk *talk, const char *text, struct error *err)
{
	if (!talk->model)
		return talk_check_budget(talk, "", err);
	if ((text ? pin_text(view, talk, text, err) : pin_conversation(view, talk, err)))
		return -1;
	talk_say(talk, "probe: %d tokens are pinned", view->n_pinned);
	return want_probe(view, talk, err);
}

int mask_view_bisect(struct mask_view *view, struct talk *talk, const char *good, const char *bad,
					 struct error *err)
{
	struct text text = {0};
	if (free_to_ask(view, talk, "bisect", err))
		return -1;
	if (!good) {
		if (!is_current(view, talk))
			return fail(err, "bisect: GOOD BAD is expected, or a mask that is edited");
		good = baseline(view, talk);
		if (mask_text(&view->mask, &talk->model->config, &text, err))
			return -1;
		bad = text_chars(&text);
	}
	int status = submit(view, talk, MASK_BISECT, good, bad, NULL, err);
	text_free(&text);
	return status;
}

int mask_view_against(struct mask_view *view, struct talk *talk, const char *path,
					  struct error *err)
{
	if (free_to_ask(view, talk, "against", err))
		return -1;
	return submit(view, talk, MASK_AGAINST, "", talk_budget_name(talk), path, err);
}

/* ---- keys ---- */

bool mask_view_key(const struct talk *talk, const struct budget *shown, enum axis axis, int layer,
				   int key, char *command, size_t size)
{
	const struct model *model = talk->model;
	const struct config *config = &model->config;
	if (key == 'u' || key == 'x' || key == 'r') {
		snprintf(command, size, "mask %s", key == 'u' ? "undo" : key == 'x' ? "flip" : "redo");
		return true;
	}
	bool kept = shown && (layer < 0 || budget_keeps_layer(shown, layer));
	if (shown && key == 'd' && layer >= 0) {
		snprintf(command, size, "mask %s=%d", kept ? "skip" : "keep", layer);
		return true;
	}
	if (!kept || (key != '<' && key != '>'))
		return false;
	int step = mask_step(config, axis, weights_block(&model->weights, config, axis, layer));
	int parent = axis_parent_width(axis, config);
	int width = budget_width(shown, axis, layer < 0 ? 0 : layer) + (key == '<' ? -step : step);
	char where[16] = "";
	if (layer >= 0)
		snprintf(where, sizeof where, "%d.", layer);
	snprintf(command, size, "mask %s%s=%d", where, axis_name(axis),
			 width < step     ? step
			 : width > parent ? parent
							  : width);
	return true;
}

/* ---- drawing ---- */

enum { LINE_MASK, LINE_PROBE, LINE_FOUND, N_LINES };

/* What there is to say, a line each, "" = nothing. */
static void say_lines(const struct mask_view *view, const struct talk *talk,
					  struct text lines[N_LINES])
{
	if (is_current(view, talk)) {
		text_format(&lines[LINE_MASK], "mask %d of %d%s ", view->mask.n_done, view->mask.n_edits,
					view->mask.before ? ", flipped" : "");
		mask_text(&view->mask, &talk->model->config, &lines[LINE_MASK], NULL);
		text_add(&lines[LINE_PROBE], view->waiting       ? "probe ..."
									 : view->line.length ? text_chars(&view->line)
														 : "no probe yet");
	}
	if (view->asked)
		text_format(&lines[LINE_FOUND], "%s ...", view->asked->job.name);
	else if (strcmp(view->found_with, chosen_by_name(talk)) == 0)
		text_add(&lines[LINE_FOUND], text_chars(&view->found));
}

/* Bytes of the first row of a line that takes two, cut behind a comma or a blank. */
static size_t first_part(const char *line, size_t columns)
{
	size_t at = columns;
	if (strlen(line) <= columns)
		return strlen(line);
	while (at > columns / 2 && line[at - 1] != ',' && line[at - 1] != ' ')
		at--;
	return at > columns / 2 ? at : columns;
}

int mask_view_rows(const struct mask_view *view, const struct talk *talk, int columns)
{
	struct text lines[N_LINES] = {0};
	int rows = 0;
	say_lines(view, talk, lines);
	for (int i = 0; i < N_LINES; i++) {
		size_t length = lines[i].length;
		rows += (length > 0) + (length > (size_t)columns);
		text_free(&lines[i]);
	}
	return rows > 0 ? rows + 1 : 0;
}

void mask_view_draw(const struct mask_view *view, const struct talk *talk,
					const struct canvas *canvas)
{
	static const enum role roles[N_LINES] = {ROLE_HEADING, ROLE_TEXT, ROLE_MARK};
	struct text lines[N_LINES] = {0};
	int row = 1;
	canvas_rule(canvas, 0, 0, canvas->columns, ROLE_FRAME);
	say_lines(view, talk, lines);
	for (int i = 0; i < N_LINES; i++) {
		const char *line = text_chars(&lines[i]);
		size_t length = first_part(line, (size_t)canvas->columns);
		if (*line)
			canvas_bytes(canvas, row++, 0, roles[i], line, length);
		line += length + strspn(line + length, " ");
		if (*line)
			canvas_text(canvas, row++, 1, roles[i], line);
		text_free(&lines[i]);
	}
}
