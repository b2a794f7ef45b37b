/*
 * Compare: the columns side by side as they are written, each with what it costs, and where they
 * part. What is typed while this is the view goes to the columns.
 */
#include "tui/pane_compare.h"
#include "base/memory.h"
#include "core/tokenizer.h"
#include "tui/cells.h"
#include "tui/fidelity_view.h"
#include "tui/lab_view.h"
#include "tui/look.h"
#include "tui/status.h"
#include "tui/study_view.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECENT_STEPS 32
#define HEAD_ROWS 4
#define MAX_TEXT_TOKENS 4096
#define GUTTER 2 // of a line: the mark where columns part

struct line {
	size_t entry, offset, length;
	bool label;
};

struct lines {
	struct line *items;
	size_t n, capacity;
};

enum section { SECTION_TEXT, SECTION_KL, SECTION_LAYERS, SECTION_LAB, SECTION_STUDY, N_SECTIONS };
static const char *const section_names[] = {"answers", "token by token", "layer by layer",
											"handoff lab", "study"};

struct pane_compare {
	struct pane pane;
	struct compare compare;
	enum section section;
	struct fidelity_view fidelity;
	struct lab_view lab;
	struct study_view study;
	bool asked; // for the comparison of what column 1 wrote last
	struct lines lines[COMPARE_COLUMNS];
	int top[COMPARE_COLUMNS];
	bool follow;
	int focus, rows; // rows of text in the last drawing
};

/* ---- lines ---- */

static void add(struct lines *lines, struct line line)
{
	if (mem_grow(&lines->items, &lines->capacity, lines->n + 1, sizeof *lines->items, NULL) == 0)
		lines->items[lines->n++] = line;
}

static void wrap(struct lines *lines, const struct transcript *transcript, int columns)
{
	lines->n = 0;
	for (size_t i = 0; i < transcript->n_entries; i++) {
		const struct entry *entry = &transcript->entries[i];
		add(lines, (struct line){i, 0, 0, true});
		for (size_t at = 0, next; at < entry->text.length; at += next) {
			size_t n = cells_wrap(entry->text.data + at, entry->text.length - at,
								  columns > 1 ? columns : 1, &next);
			add(lines, (struct line){i, at, n, false});
		}
	}
}

/* The line in which a place stands. */
static int line_of(const struct lines *lines, const struct compare_place *place)
{
	int found = 0;
	for (size_t i = 0; i < lines->n; i++) {
		const struct line *line = &lines->items[i];
		if (line->entry > place->entry)
			break;
		if (line->entry == place->entry && !line->label && line->offset <= place->offset)
			found = (int)i;
	}
	return found;
}

static int last_top(const struct pane_compare *c, int i)
{
	int top = (int)c->lines[i].n - c->rows;
	return top > 0 ? top : 0;
}

/* ---- drawing ---- */

static const struct elastic *elastic_of(const struct compare_column *column)
{
	return column->talk.model ? &column->talk.model->elastic : NULL;
}

static int index_of(const struct compare_column *column)
{
	const struct elastic *elastic = elastic_of(column);
	return elastic ? talk_find_writer(&column->talk, column->budget) : -1;
}

static void state_of(const struct compare_column *column, struct text *out)
{
	const struct talk *talk = &column->talk;
	const struct reply *reply = &talk->reply;
	int answer = reply->completion_tokens - reply->reasoning_tokens;
	if (!talk->model || column->refused[0])
		text_add(out, talk->opening ? "opening" : talk->model ? "refused" : "not open");
	else if (talk->running && !talk->turn_begun)
		text_add(out, "waiting");
	else if (talk->running && reply->completion_tokens == 0)
		text_add(out, "PREFILL");
	else if (talk->running)
		text_format(out, answer > 0 ? "ANSWER %d" : "THINK %d",
					answer > 0 ? answer : reply->reasoning_tokens);
	else if (reply->done)
		text_format(out, "%s", reply->failed ? "failed" : stop_reason_name(reply->reason));
}

/* Computing time only: while it writes of the newest steps, then of the whole turn. */
static double rate_of(const struct compare_column *column)
{
	const struct metrics *metrics = &column->talk.metrics;
	double steps = 0, ns = 0;
	for (int i = 0; i < metrics->n_rows && !column->talk.running; i++)
		if (metrics->rows[i].phase != PHASE_PREFILL) {
			steps += metrics->rows[i].steps;
			ns += (double)metrics->rows[i].took_ns;
		}
	return ns > 0 ? steps * 1e9 / ns : metrics_recent_tps(metrics, RECENT_STEPS);
}

static void put(const struct canvas *canvas, int row, enum role role, struct text *text)
{
	canvas_text(canvas, row, 0, role, text_chars(text));
	text_clear(text);
}

/* Where the column left the first one: of this turn the token, of an earlier one the turn. */
static void add_parting(const struct compare_column *column, const struct compare_place *own,
						struct text *out)
{
	if (column->own.turn > 0)
		text_format(out, "parted in turn %d @%d", own->turn, own->token + 1);
	else
		text_format(out, "parts @%d", own->token + 1);
}

/* How many rows the column's error wants, 0 = there is none; below the first row of canvas, if one
 * is given, it is drawn. */
static int error_rows(const struct compare_column *column, int columns, const struct canvas *canvas)
{
	const char *error = column->refused;
	int rows = 0;
	if (!*error && strncmp(text_chars(&column->talk.notice), "error: ", 7) == 0)
		error = text_chars(&column->talk.notice);
	for (size_t at = 0, next, length = strlen(error); at < length; at += next) {
		size_t n = cells_wrap(error + at, length - at, columns > 1 ? columns : 1, &next);
		rows++;
		if (canvas)
			canvas_bytes(canvas, rows, 0, ROLE_ERROR, error + at, n);
	}
	return rows;
}

/* Rows above the texts: an error takes what it needs, if half of the view is enough. */
static int head_rows(const struct pane_compare *c, const struct canvas *canvas, int width)
{
	int head = canvas->rows >= 16 ? HEAD_ROWS : canvas->rows >= 12 ? 3 : canvas->rows >= 8 ? 2 : 1;
	for (int i = 0; i < c->compare.n; i++) {
		int wanted = 1 + error_rows(&c->compare.columns[i], width, NULL);
		head = wanted > head && wanted <= canvas->rows / 2 ? wanted : head;
	}
	return head;
}

static int64_t state_bytes(const struct sequence_bytes *state)
{
	return (int64_t)(state->kv + state->conv + state->ssm + state->snapshots);
}

static void add_part(struct text *out, const char *name, int64_t bytes)
{
	text_add(out, name);
	status_bytes(bytes, out);
}

/* What a column's memory is made of, as far as there is room: the weights of its budget and the
 * state of its sequence; s = conv and SSM, + = snapshots. */
static void add_parts(const struct compare_column *column, int columns, struct text *out)
{
	const struct sequence_bytes *state = &column->state;
	add_part(out, "w", column->weights_bytes);
	add_part(out, " KV", (int64_t)state->kv);
	add_part(out, " conv", (int64_t)state->conv);
	add_part(out, " SSM", (int64_t)state->ssm);
	add_part(out, " snap", (int64_t)state->snapshots);
	if ((int)out->length <= columns)
		return;
	text_clear(out);
	add_part(out, "w", column->weights_bytes);
	add_part(out, " k", (int64_t)state->kv);
	add_part(out, " s", (int64_t)(state->conv + state->ssm));
	add_part(out, " +", (int64_t)state->snapshots);
	if ((int)out->length > columns)
		text_clear(out);
}

/* rows: 1 = the most important only. */
static void draw_head(const struct pane_compare *c, const struct canvas *canvas, int i, int rows)
{
	const struct compare_column *column = &c->compare.columns[i];
	const struct metrics *metrics = &column->talk.metrics;
	const struct elastic *elastic = elastic_of(column);
	int index = index_of(column);
	double rate = rate_of(column);
	struct compare_place own, base;
	struct text text = {0}, state = {0};
	text_format(&text, "%s%d ", i == c->focus ? ">" : " ", i + 1);
	if (elastic && index >= 0)
		text_format(&text, "%c ", talk_mark(&column->talk, index));
	text_add(&text, column->budget);
	if (column->directory && column->talk.model)
		text_format(&text, " (%s)", column->talk.model->name);
	state_of(column, &state);
	if (state.length > 0)
		text_format(&text, " %s", text_chars(&state));
	if (i > 0 && compare_divergence(&c->compare, i, &own, &base)) {
		text_add(&text, ", ");
		add_parting(column, &own, &text);
	}
	if (rows == 1)
		text_format(&text, " %s", number_rate(rate).text);
	put(canvas, 0, i == c->focus ? ROLE_MARK : role_of_budget(index), &text);
	bool failed = rows > 1 && error_rows(column, canvas->columns, canvas) > 0;
	if (rows > 1 && !failed) {
		double ttft = metrics->first_ns ? (double)metrics->first_ns / 1e6 : (double)NAN;
		text_format(&text, "%s tok/s TTFT %s ms", number_rate(rate).text,
					number_fixed(ttft, ttft < 9.95 ? 1 : 0).text);
		put(canvas, 1, ROLE_TEXT, &text);
	}
	if (rows > 2 && !failed) {
		double bytes =
			column->bytes_per_token < 0 ? (double)NAN : (double)column->bytes_per_token / 1e6;
		text_format(&text, "%d tok %s MB/tok ", column->talk.reply.completion_tokens,
					number_fixed(bytes, 2).text);
		if (state_bytes(&column->state) == 0)
			text_add(&text, "w "); // alone: the engine has not told the rest
		status_bytes(column->weights_bytes + state_bytes(&column->state), &text);
		put(canvas, 2, ROLE_DIM, &text);
	}
	if (rows > 3 && !failed && state_bytes(&column->state) > 0) {
		add_parts(column, canvas->columns, &text);
		put(canvas, 3, ROLE_DIM, &text);
	}
	text_free(&state);
	text_free(&text);
}

static void draw_label(const struct canvas *canvas, int row, const struct entry *entry)
{
	static const enum role roles[] = {[ENTRY_USER] = ROLE_USER,
									  [ENTRY_THOUGHT] = ROLE_THOUGHT,
									  [ENTRY_ANSWER] = ROLE_HEADING,
									  [ENTRY_NOTE] = ROLE_DIM};
	static const char *const names[] = {[ENTRY_USER] = "User",
										[ENTRY_THOUGHT] = "Thinking",
										[ENTRY_ANSWER] = "Answer",
										[ENTRY_NOTE] = "Note"};
	canvas_text(canvas, row, 0, roles[entry->kind], names[entry->kind]);
}

static void draw_line(const struct canvas *canvas, int row, const struct entry *entry,
					  const struct line *line, const struct compare_place *parts)
{
	static const enum role roles[] = {[ENTRY_USER] = ROLE_TEXT,
									  [ENTRY_THOUGHT] = ROLE_THOUGHT,
									  [ENTRY_ANSWER] = ROLE_ANSWER,
									  [ENTRY_NOTE] = ROLE_DIM};
	const char *bytes = entry->text.data + line->offset;
	canvas_bytes(canvas, row, GUTTER, roles[entry->kind], bytes, line->length);
	if (!parts || parts->offset >= line->offset + line->length)
		return;
	size_t from = parts->offset - line->offset, end = line->length;
	for (size_t i = 0; i < entry->n_tokens; i++)
		if (entry->tokens[i].offset > parts->offset &&
			entry->tokens[i].offset - line->offset < end) {
			end = entry->tokens[i].offset - line->offset;
			break;
		}
	canvas_bytes(canvas, row, GUTTER + canvas_width(bytes, from), ROLE_MARK, bytes + from,
				 end - from);
}

static void draw_body(const struct pane_compare *c, const struct canvas *canvas, int i,
					  const struct compare_place *parts)
{
	const struct transcript *transcript = &c->compare.columns[i].talk.transcript;
	const struct lines *lines = &c->lines[i];
	int marked = parts ? line_of(lines, parts) : -1;
	for (int row = 0; row < canvas->rows && (size_t)(c->top[i] + row) < lines->n; row++) {
		const struct line *line = &lines->items[c->top[i] + row];
		const struct entry *entry = &transcript->entries[line->entry];
		bool here = c->top[i] + row == marked;
		if (here)
			canvas_text(canvas, row, 0, ROLE_WARN, "!");
		if (line->label)
			draw_label(canvas, row, entry);
		else
			draw_line(canvas, row, entry, line, here ? parts : NULL);
	}
}

static bool place_of(const struct pane_compare *c, int i, struct compare_place *place)
{
	struct compare_place own, base;
	if (i > 0) {
		if (!compare_divergence(&c->compare, i, &own, &base))
			return false;
		*place = own;
		return true;
	}
	bool any = false;
	for (int k = 1; k < c->compare.n; k++) // of the first column: where any of them leaves it
		if (compare_divergence(&c->compare, k, &own, &base) &&
			(!any || base.turn < place->turn ||
			 (base.turn == place->turn && base.token < place->token))) {
			*place = base;
			any = true;
		}
	return any;
}

static void draw_nothing(const struct canvas *canvas)
{
	canvas_text(canvas, 0, 1, ROLE_HEADING, "Nothing is compared yet");
	look_say(canvas, 1, ROLE_TEXT,
			 ":compare large small    two or three budgets; what is typed here then goes to all");
	look_say(canvas, 2, ROLE_TEXT, ":compare large DIR#large    another checkpoint beside it");
	look_say(canvas, 4, ROLE_DIM,
			 "then: h l choose a column, d goes where they part, Enter keeps it (:keep N), v shows "
			 "KL, layers, the handoff lab, a study");
}

static void draw_columns(struct pane_compare *c, struct canvas *canvas)
{
	int n = c->compare.n;
	if (n == 0) {
		draw_nothing(canvas);
		return;
	}
	if (c->focus >= n)
		c->focus = 0;
	int width = (canvas->columns - (n - 1)) / n, head = head_rows(c, canvas, width);
	c->rows = canvas->rows > head ? canvas->rows - head : 0;
	for (int i = 0; i < n; i++) {
		int at = i * (width + 1);
		struct canvas top = canvas_part(canvas, 0, at, head, width);
		struct canvas body = canvas_part(canvas, head, at, c->rows, width);
		struct compare_place place;
		wrap(&c->lines[i], &c->compare.columns[i].talk.transcript, width - GUTTER);
		if (c->follow || c->top[i] > last_top(c, i))
			c->top[i] = last_top(c, i);
		draw_head(c, &top, i, head);
		draw_body(c, &body, i, place_of(c, i, &place) ? &place : NULL);
		if (i > 0)
			canvas_column_rule(canvas, 0, at - 1, canvas->rows, ROLE_FRAME);
	}
}

static void compare_draw(struct pane *pane, struct canvas *canvas)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	if (!look_ready(pane, canvas))
		return;
	switch (c->section) {
	case SECTION_KL: fidelity_view_draw(&c->fidelity, pane->talk, canvas, c->focus); break;
	case SECTION_LAYERS:
		fidelity_view_draw_layers(&c->fidelity, pane->talk, canvas, c->focus);
		break;
	case SECTION_LAB: lab_view_draw(&c->lab, pane->talk, canvas); break;
	case SECTION_STUDY: study_view_draw(&c->study, canvas); break;
	default: draw_columns(c, canvas); break;
	}
}

/* ---- jobs ---- */

static int compare_ids(struct pane_compare *c, const int32_t *ids, int n, int first,
					   struct error *err)
{
	struct fidelity_side_plan sides[COMPARE_COLUMNS];
	if (c->compare.text_only)
		return fail(err, "compare: text-only columns have no probabilities in common");
	for (int i = 0; i < c->compare.n; i++) {
		const struct compare_column *column = &c->compare.columns[i];
		if (column->refused[0])
			return fail(err, "column %d: %s", i + 1, column->refused);
		if (!column->talk.model)
			return fail(err, "column %d is still opening", i + 1);
		sides[i] = (struct fidelity_side_plan){column->talk.model, column->budget};
	}
	return fidelity_view_ask(&c->fidelity, c->pane.talk, sides, c->compare.n, ids, n, first, err);
}

/* What column 1 wrote, once all have. */
static void ask_when_done(struct pane_compare *c)
{
	const struct tape *tape = &c->compare.columns[0].talk.tape;
	struct error err = {0};
	if (c->asked || c->compare.n == 0 || c->compare.text_only || compare_running(&c->compare) ||
		!c->pane.talk->jobs || !c->compare.columns[0].talk.reply.done)
		return;
	c->asked = true;
	int32_t *ids = mem_new(tape->n + 1, sizeof *ids, NULL);
	if (ids && tape->prompt > 0 && tape->n > tape->prompt && tape_ids(tape, tape->n, ids) &&
		compare_ids(c, ids, (int)tape->n, (int)tape->prompt - 1, &err))
		snprintf(c->pane.message, sizeof c->pane.message, "error: %.140s", err.text);
	free(ids);
}

int pane_compare_text(struct pane *pane, const struct text *text, struct error *err)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	struct id_list ids = {0};
	if (c->compare.n == 0)
		return fail(err, "compare: :compare A B names the budgets first");
	const struct model *model = c->compare.columns[0].talk.model;
	if (!model)
		return fail(err, "column 1 is still opening");
	int result = model_encode(model, text_chars(text), text->length, &ids, err);
	size_t n = ids.n < MAX_TEXT_TOKENS ? ids.n : MAX_TEXT_TOKENS;
	if (result == 0)
		result = compare_ids(c, ids.ids, (int)n, 0, err);
	if (result == 0 && n < ids.n)
		snprintf(pane->message, sizeof pane->message, "the first %zu of %zu tokens are compared", n,
				 ids.n);
	free(ids.ids);
	c->section = SECTION_KL;
	c->asked = true;
	return result;
}

int pane_compare_lab(struct pane *pane, const char *from, const char *to, int at, struct error *err)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	if (lab_view_ask(&c->lab, pane->talk, from, to, at, err))
		return -1;
	c->section = SECTION_LAB;
	pane->dirty = true;
	return 0;
}

int pane_compare_study(struct pane *pane, const struct engine_options *engine,
					   const char *arguments, struct error *err)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	pane->dirty = true;
	if (strncmp(arguments, "write ", 6) == 0) {
		const char *path = arguments + 6 + strspn(arguments + 6, " \t");
		if (study_view_write(&c->study, path, err))
			return -1;
		snprintf(pane->message, sizeof pane->message, "%.120s written", path);
	} else if (*arguments && study_view_ask(&c->study, pane->talk, engine, arguments, err)) {
		return -1;
	}
	c->section = SECTION_STUDY;
	return 0;
}

static bool compare_job(struct pane *pane, struct job *job)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	pane->dirty = true;
	return fidelity_view_job(&c->fidelity, job) || lab_view_job(&c->lab, job) ||
		   study_view_job(&c->study, job);
}

/* ---- keys ---- */

static void jump(struct pane_compare *c)
{
	bool any = false;
	for (int i = 0; i < c->compare.n; i++) {
		struct compare_place place;
		if (!place_of(c, i, &place) && !place_of(c, 0, &place)) // one that agrees goes with them
			continue;
		int line = line_of(&c->lines[i], &place), top = line - c->rows / 3;
		c->top[i] = top < 0 ? 0 : top > last_top(c, i) ? last_top(c, i) : top;
		any = true;
	}
	c->follow &= !any;
	if (!any)
		snprintf(c->pane.message, sizeof c->pane.message, "the columns have not parted%s",
				 compare_running(&c->compare) ? " so far" : "");
}

static bool scroll(struct pane_compare *c, enum action action)
{
	bool taken = false;
	for (int i = 0; i < c->compare.n; i++)
		taken |= pane_scroll(&c->top[i], (int)c->lines[i].n, c->rows, action);
	if (taken)
		c->follow = action == ACTION_BOTTOM;
	return taken;
}

static bool compare_action(struct pane *pane, enum action action, int key)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	int n = c->compare.n;
	if (key == 'v' && action == ACTION_NONE) {
		c->section = (enum section)((c->section + 1) % N_SECTIONS);
		return true;
	}
	if (c->section == SECTION_LAB)
		return pane_scroll(&c->lab.top, c->lab.n_lines, c->lab.rows, action);
	if (c->section == SECTION_STUDY)
		return study_view_action(&c->study, action);
	if (n == 0 && c->section == SECTION_TEXT)
		return false;
	bool text = c->section == SECTION_TEXT;
	if (!text && fidelity_view_action(&c->fidelity, action, c->section == SECTION_LAYERS))
		return true;
	if (n == 0)
		return false;
	if (action == ACTION_LEFT || action == ACTION_RIGHT)
		c->focus = (c->focus + (action == ACTION_RIGHT ? 1 : n - 1)) % n;
	else if (action == ACTION_ENTER)
		snprintf(pane->command, sizeof pane->command, "keep %d", c->focus + 1);
	else if (key == 'd' && action == ACTION_NONE)
		jump(c);
	else
		return text && scroll(c, action);
	return true;
}

static void compare_event_pane(struct pane *pane, const struct event *event)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	if (event->type == EV_OPENED &&
		event->seq == 0) { // columns and numbers of a model that is gone
		compare_close(&c->compare);
		fidelity_view_forget(&c->fidelity, pane->talk);
	}
	if (event->type == EV_SWITCH && event->seq == 0 && pane->talk->lab && !c->lab.waiting)
		lab_view_ask(&c->lab, pane->talk, event->change.from, event->change.to, event->change.at,
					 NULL);
	pane->dirty |= compare_event(&c->compare, event);
	pane->dirty |= event->type == EV_OPENED;
	if (event->type == EV_STOP)
		ask_when_done(c);
}

static void compare_title(const struct pane *pane, struct text *out)
{
	const struct pane_compare *c = (const struct pane_compare *)pane;
	text_format(out, "%s  ", section_names[c->section]);
	for (int i = 1; i < c->compare.n && c->section == SECTION_TEXT; i++) {
		struct compare_place own, base;
		text_format(out, "%s%d ", i > 1 ? ", " : "", i + 1);
		if (!compare_divergence(&c->compare, i, &own, &base))
			text_add(out, "agrees");
		else if (c->compare.columns[i].own.turn > 0) // short: the model's name stands behind it
			text_format(out, "turn %d", own.turn);
		else
			add_parting(&c->compare.columns[i], &own, out);
	}
}

static int compare_send_pane(struct pane *pane, const char *text, size_t length, struct error *err)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	if (compare_send(&c->compare, pane->talk, text, length, err))
		return -1;
	c->follow = true;
	c->asked = false;
	c->section = SECTION_TEXT;
	pane->dirty = true;
	return 0;
}

static bool compare_stop_pane(struct pane *pane)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	return compare_stop(&c->compare) || fidelity_view_stop(&c->fidelity, pane->talk) ||
		   lab_view_stop(&c->lab, pane->talk) || study_view_stop(&c->study, pane->talk);
}

static bool compare_busy(const struct pane *pane)
{
	const struct pane_compare *c = (const struct pane_compare *)pane;
	const struct compare *compare = &c->compare;
	return compare_running(compare) || compare_opening(compare) || c->fidelity.waiting ||
		   c->lab.waiting || c->study.waiting;
}

static int compare_watch(const struct pane *pane, int *fds, int max)
{
	const struct compare *compare = &((const struct pane_compare *)pane)->compare;
	int n = 0;
	for (int i = 0; i < compare->n && n < max; i++) {
		struct engine *engine = compare->columns[i].talk.engine;
		if (compare->columns[i].own_engine)
			fds[n++] = engine->table->fd(engine);
	}
	return n;
}

static void compare_wake(struct pane *pane)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	pane->dirty |= c->study.waiting && c->section == SECTION_STUDY; // its rows come meanwhile
	if (!compare_drain(&c->compare))
		return;
	pane->dirty = true;
	ask_when_done(c);
}

static const char *compare_write(const struct pane *pane)
{
	const struct pane_compare *c = (const struct pane_compare *)pane;
	return c->section == SECTION_STUDY && c->study.shown ? ":study write " : NULL;
}

static void compare_close_pane(struct pane *pane)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	compare_close(&c->compare);
	fidelity_view_close(&c->fidelity);
	lab_view_close(&c->lab);
	study_view_close(&c->study);
	for (int i = 0; i < COMPARE_COLUMNS; i++)
		free(c->lines[i].items);
	free(c);
}

static const struct pane_table table = {compare_event_pane, compare_draw, compare_action,
										compare_title, compare_close_pane};
static const struct pane_more more = {.send = compare_send_pane,
									  .stop = compare_stop_pane,
									  .busy = compare_busy,
									  .job = compare_job,
									  .watch = compare_watch,
									  .wake = compare_wake,
									  .write = compare_write};

bool pane_compare_running(const struct pane *pane)
{
	return compare_running(&((const struct pane_compare *)pane)->compare);
}

bool pane_compare_opening(const struct pane *pane)
{
	return compare_opening(&((const struct pane_compare *)pane)->compare);
}

struct memory_use pane_compare_memory(const struct pane *pane)
{
	return compare_memory(&((const struct pane_compare *)pane)->compare);
}

struct compare *pane_compare_of(struct pane *pane)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	c->follow = true;
	c->section = SECTION_TEXT;
	pane->dirty = true;
	return &c->compare;
}

struct pane *pane_compare_open(const struct talk *talk, struct error *err)
{
	struct pane_compare *c = mem_new(1, sizeof *c, err);
	if (!c)
		return NULL;
	c->pane = (struct pane){.table = &table, .more = &more, .talk = talk, .dirty = true};
	c->follow = true;
	c->fidelity.side = -1;
	return &c->pane;
}
