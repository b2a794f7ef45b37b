#include "tui/columns_view.h"
#include "base/memory.h"
#include "tui/cells.h"
#include "tui/look.h"
#include "tui/status.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define RECENT_STEPS 32
#define HEAD_ROWS 4
#define GUTTER 2 // of a line: the mark where columns part

static void add(struct column_lines *lines, struct column_line line)
{
	if (mem_grow(&lines->items, &lines->capacity, lines->n + 1, sizeof *lines->items, NULL) == 0)
		lines->items[lines->n++] = line;
}

static void wrap(struct column_lines *lines, const struct transcript *transcript, int columns)
{
	lines->n = 0;
	for (size_t i = 0; i < transcript->n_entries; i++) {
		const struct entry *entry = &transcript->entries[i];
		add(lines, (struct column_line){i, 0, 0, true});
		for (size_t at = 0, next; at < entry->text.length; at += next) {
			size_t n = cells_wrap(entry->text.data + at, entry->text.length - at,
								  columns > 1 ? columns : 1, &next);
			add(lines, (struct column_line){i, at, n, false});
		}
	}
}

/* The line in which a place stands. */
static int line_of(const struct column_lines *lines, const struct compare_place *place)
{
	int found = 0;
	for (size_t i = 0; i < lines->n; i++) {
		const struct column_line *line = &lines->items[i];
		if (line->entry > place->entry)
			break;
		if (line->entry == place->entry && !line->label && line->offset <= place->offset)
			found = (int)i;
	}
	return found;
}

static int last_top(const struct columns_view *v, int i)
{
	int top = (int)v->lines[i].n - v->rows;
	return top > 0 ? top : 0;
}

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

void columns_view_parting(const struct compare_column *column, const struct compare_place *own,
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
static int head_rows(const struct columns_view *v, const struct canvas *canvas, int width)
{
	int head = canvas->rows >= 16 ? HEAD_ROWS : canvas->rows >= 12 ? 3 : canvas->rows >= 8 ? 2 : 1;
	for (int i = 0; i < v->compare->n; i++) {
		int wanted = 1 + error_rows(&v->compare->columns[i], width, NULL);
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
static void draw_head(const struct columns_view *v, const struct canvas *canvas, int i, int rows)
{
	const struct compare_column *column = &v->compare->columns[i];
	const struct metrics *metrics = &column->talk.metrics;
	const struct elastic *elastic = elastic_of(column);
	int index = index_of(column);
	double rate = rate_of(column);
	struct compare_place own, base;
	struct text text = {0}, state = {0};
	text_format(&text, "%s%d ", i == v->focus ? ">" : " ", i + 1);
	if (elastic && index >= 0)
		text_format(&text, "%c ", talk_mark(&column->talk, index));
	text_add(&text, column->budget);
	if (column->directory && column->talk.model)
		text_format(&text, " (%s)", column->talk.model->name);
	state_of(column, &state);
	if (state.length > 0)
		text_format(&text, " %s", text_chars(&state));
	if (i > 0 && compare_divergence(v->compare, i, &own, &base)) {
		text_add(&text, ", ");
		columns_view_parting(column, &own, &text);
	}
	if (rows == 1)
		text_format(&text, " %s", number_rate(rate).text);
	put(canvas, 0, i == v->focus ? ROLE_MARK : role_of_budget(index), &text);
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
					  const struct column_line *line, const struct compare_place *parts)
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

static void draw_body(const struct columns_view *v, const struct canvas *canvas, int i,
					  const struct compare_place *parts)
{
	const struct transcript *transcript = &v->compare->columns[i].talk.transcript;
	const struct column_lines *lines = &v->lines[i];
	int marked = parts ? line_of(lines, parts) : -1;
	for (int row = 0; row < canvas->rows && (size_t)(v->top[i] + row) < lines->n; row++) {
		const struct column_line *line = &lines->items[v->top[i] + row];
		const struct entry *entry = &transcript->entries[line->entry];
		bool here = v->top[i] + row == marked;
		if (here)
			canvas_text(canvas, row, 0, ROLE_WARN, "!");
		if (line->label)
			draw_label(canvas, row, entry);
		else
			draw_line(canvas, row, entry, line, here ? parts : NULL);
	}
}

static bool place_of(const struct columns_view *v, int i, struct compare_place *place)
{
	struct compare_place own, base;
	if (i > 0) {
		if (!compare_divergence(v->compare, i, &own, &base))
			return false;
		*place = own;
		return true;
	}
	bool any = false;
	for (int k = 1; k < v->compare->n; k++) // of the first column: where any of them leaves it
		if (compare_divergence(v->compare, k, &own, &base) &&
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

void columns_view_draw(struct columns_view *v, struct canvas *canvas)
{
	int n = v->compare->n;
	if (n == 0) {
		draw_nothing(canvas);
		return;
	}
	if (v->focus >= n)
		v->focus = 0;
	int width = (canvas->columns - (n - 1)) / n, head = head_rows(v, canvas, width);
	v->rows = canvas->rows > head ? canvas->rows - head : 0;
	for (int i = 0; i < n; i++) {
		int at = i * (width + 1);
		struct canvas top = canvas_part(canvas, 0, at, head, width);
		struct canvas body = canvas_part(canvas, head, at, v->rows, width);
		struct compare_place place;
		wrap(&v->lines[i], &v->compare->columns[i].talk.transcript, width - GUTTER);
		if (v->follow || v->top[i] > last_top(v, i))
			v->top[i] = last_top(v, i);
		draw_head(v, &top, i, head);
		draw_body(v, &body, i, place_of(v, i, &place) ? &place : NULL);
		if (i > 0)
			canvas_column_rule(canvas, 0, at - 1, canvas->rows, ROLE_FRAME);
	}
}

bool columns_view_jump(struct columns_view *v)
{
	bool any = false;
	for (int i = 0; i < v->compare->n; i++) {
		struct compare_place place;
		if (!place_of(v, i, &place) && !place_of(v, 0, &place)) // one that agrees goes with them
			continue;
		int line = line_of(&v->lines[i], &place), top = line - v->rows / 3;
		v->top[i] = top < 0 ? 0 : top > last_top(v, i) ? last_top(v, i) : top;
		any = true;
	}
	v->follow &= !any;
	return any;
}

bool columns_view_scroll(struct columns_view *v, enum action action)
{
	bool taken = false;
	for (int i = 0; i < v->compare->n; i++)
		taken |= pane_scroll(&v->top[i], (int)v->lines[i].n, v->rows, action);
	if (taken)
		v->follow = action == ACTION_BOTTOM;
	return taken;
}

void columns_view_close(struct columns_view *v)
{
	for (int i = 0; i < COMPARE_COLUMNS; i++)
		free(v->lines[i].items);
	*v = (struct columns_view){0};
}
