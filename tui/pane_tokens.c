/*
 * Tokens: the ids of the last turn with a cursor, and for the one under it what every budget would
 * have said there. Enter on an alternative lets the conversation go on from it. What budgets say is
 * computed in the background, once for the whole turn; until then the writer's own alternatives
 * stand there.
 */
#include "base/memory.h"
#include "core/job.h"
#include "core/tokenizer.h"
#include "inspect/outlook.h"
#include "tui/cells.h"
#include "tui/errand.h"
#include "tui/look.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COLUMN_WIDTH 22 // of one budget, at least
#define MAX_BRANCH_ROWS 4
#define PAGE_TOKENS 20

struct pane_tokens {
	struct pane pane;
	int cursor, top; // token; first row of the strip
	bool follow;     // the cursor is the last token
	int row, column; // alternative and budget that Enter takes
	struct outlook outlook;
	int32_t *ids; // that the outlook is of
	int n_ids;
	struct errand errand; // an outlook_job
	bool declined;        // the user stopped it, or it failed: not again for these ids
	int32_t *declined_ids;
};

static const struct tape *tape_of(const struct pane_tokens *t)
{
	return &t->pane.talk->tape;
}

/* ---- whose columns ---- */

/* The typed widths that wrote or read last, -1 = none did. */
static int typed_of(const struct pane_tokens *t)
{
	const struct tape *tape = tape_of(t);
	const struct talk *talk = t->pane.talk;
	for (size_t i = tape->n; talk->model && i-- > 0;) {
		const struct tape_token *token = &tape->tokens[i];
		int last = token->reader > token->writer ? token->reader : token->writer;
		if (last >= talk->model->elastic.n_budgets)
			return last;
	}
	return -1;
}

/* Columns: the file's budgets, then the typed one. */
static int n_named(const struct pane_tokens *t)
{
	const struct model *model = t->pane.talk->model;
	int n = model ? model->elastic.n_budgets : 0, most = OUTLOOK_BUDGETS - (typed_of(t) >= 0);
	return n < most ? n : most;
}

static int n_columns(const struct pane_tokens *t)
{
	return n_named(t) + (typed_of(t) >= 0);
}

static int writer_of(const struct pane_tokens *t, int column)
{
	return column < n_named(t) ? column : typed_of(t);
}

static const char *name_of(const struct pane_tokens *t, int writer)
{
	return writer == TAPE_NOBODY ? "nobody" : talk_writer_name(t->pane.talk, writer);
}

/* ---- the job ---- */

static void forget(struct pane_tokens *t)
{
	outlook_free(&t->outlook);
	free(t->ids);
	t->ids = NULL;
	t->n_ids = 0;
}

static bool same_ids(const struct tape *tape, const int32_t *ids, int n)
{
	if (!ids || (size_t)n != tape->n)
		return false;
	for (int i = 0; i < n; i++)
		if (tape->tokens[i].id != ids[i])
			return false;
	return true;
}

static bool is_current(const struct pane_tokens *t)
{
	return t->outlook.n_budgets > 0 && same_ids(tape_of(t), t->ids, t->n_ids);
}

static void submit(struct pane_tokens *t)
{
	const struct tape *tape = tape_of(t);
	struct error err = {0};
	int32_t *ids = mem_new(tape->n, sizeof *ids, NULL);
	if (!ids || !tape_ids(tape, tape->n, ids)) {
		free(ids);
		return;
	}
	int typed = typed_of(t);
	struct outlook_plan plan = {
		.typed = typed >= 0 ? talk_writer_name(t->pane.talk, typed) : NULL,
		.model = t->pane.talk->model,
		.device = {.n_threads = 1, .math = MATH_EXACT, .kv_dtype = DTYPE_F32},
		.ids = ids,
		.n = (int)tape->n,
		.first = 1};
	struct outlook_job *job = outlook_job(&plan, &err);
	free(ids);
	t->declined = errand_send(&t->errand, t->pane.talk->jobs, job ? &job->job : NULL) < 0;
}

/* Asks for what the present tokens lack. */
static void want(struct pane_tokens *t)
{
	const struct talk *talk = t->pane.talk;
	const struct tape *tape = tape_of(t);
	if (!talk->jobs || !talk->model || talk->running || tape->n < 2 || !tape->known)
		return;
	const struct outlook_job *under_way = (struct outlook_job *)t->errand.waiting;
	if (under_way && !same_ids(tape, under_way->plan.ids, under_way->plan.n))
		errand_give_up(&t->errand, talk->jobs); // the newest tokens win
	if (t->errand.waiting || is_current(t))
		return;
	if (t->declined && same_ids(tape, t->declined_ids, t->n_ids))
		return;
	submit(t);
}

/* Never again for these ids. */
static void decline(struct pane_tokens *t)
{
	const struct tape *tape = tape_of(t);
	forget(t);
	free(t->declined_ids);
	t->declined_ids = mem_new(tape->n, sizeof *t->declined_ids, NULL);
	t->n_ids = (int)tape->n;
	t->declined = true;
	for (size_t i = 0; t->declined_ids && i < tape->n; i++)
		t->declined_ids[i] = tape->tokens[i].id;
}

static bool tokens_job(struct pane *pane, struct job *job)
{
	struct pane_tokens *t = (struct pane_tokens *)pane;
	struct outlook_job *done = (struct outlook_job *)job;
	if (!errand_returns(&t->errand, job))
		return false;
	pane->dirty = true;
	if (job->state == JOB_DONE) {
		forget(t);
		t->outlook = done->outlook;
		t->ids = (int32_t *)done->plan.ids;
		t->n_ids = done->plan.n;
		done->outlook = (struct outlook){0};
		done->plan.ids = NULL;
		t->declined = false;
	} else {
		decline(t);
	}
	job->free(job);
	return true;
}

static bool tokens_stop(struct pane *pane)
{
	struct pane_tokens *t = (struct pane_tokens *)pane;
	if (!t->errand.waiting)
		return false;
	jobs_cancel(pane->talk->jobs, t->errand.waiting); // it comes back and is declined
	return true;
}

static bool tokens_busy(const struct pane *pane)
{
	return ((const struct pane_tokens *)pane)->errand.waiting != NULL;
}

/* ---- what stands there ---- */

/* A token as it is shown: newlines and tabs in two characters. */
static void token_text(const struct pane_tokens *t, int32_t id, struct text *out)
{
	const struct model *model = t->pane.talk->model;
	size_t length = 0;
	const char *bytes = id >= 0 && model && model->tokenizer
							? tokenizer_bytes(model->tokenizer, id, &length)
							: NULL;
	if (!bytes) {
		text_format(out, id < 0 ? "?" : "[%d]", id);
		return;
	}
	for (size_t i = 0; i < length; i++) {
		if (bytes[i] == '\n')
			text_add(out, "\\n");
		else if (bytes[i] == '\t')
			text_add(out, "\\t");
		else
			text_add_char(out, bytes[i]);
	}
}

struct choice { // an alternative
	int32_t id;
	double p;
};

/* Row i of a column's alternatives; false = there is none. */
static bool choice_at(const struct pane_tokens *t, int column, int row, struct choice *out)
{
	const struct tape *tape = tape_of(t);
	const struct tape_token *token =
		t->cursor >= 0 && (size_t)t->cursor < tape->n ? &tape->tokens[t->cursor] : NULL;
	const struct outlook_view *view =
		is_current(t) ? outlook_at(&t->outlook, column, t->cursor) : NULL;
	if (!token || row < 0)
		return false;
	if (view) {
		if (row >= OUTLOOK_TOP || view->top[row] < 0)
			return false;
		*out = (struct choice){view->top[row], (double)view->p[row]};
		return true;
	}
	if (token->writer != writer_of(t, column) || column < 0 || row >= N_ALTERNATIVES ||
		(size_t)t->cursor < tape->prompt || token->picked.top[row].id < 0)
		return false;
	*out = (struct choice){token->picked.top[row].id, exp((double)token->picked.top[row].logprob)};
	return true;
}

/* ---- drawing ---- */

static enum role role_of_token(const struct pane_tokens *t, int i)
{
	const struct tape_token *token = &tape_of(t)->tokens[i];
	if (i == t->cursor)
		return ROLE_MARK;
	return token->writer == TAPE_NOBODY ? ROLE_DIM : role_of_budget(token->writer);
}

/* Lays the tokens out in rows; draws those from `top` on if a canvas is given. Returns the row of
 * the cursor. */
static int flow(const struct pane_tokens *t, const struct canvas *canvas, int columns, int top)
{
	const struct tape *tape = tape_of(t);
	struct text text = {0};
	int row = 0, column = 0, found = 0;
	for (size_t i = 0; i < tape->n; i++) {
		text_clear(&text);
		token_text(t, tape->tokens[i].id, &text);
		int width = canvas_width(text_chars(&text), text.length);
		bool border = i == tape->prompt && i > 0;
		if (border || (column > 0 && column + width > columns)) {
			row++;
			column = 0;
		}
		if ((int)i == t->cursor)
			found = row;
		if (canvas && row >= top && row - top < canvas->rows)
			canvas_text(canvas, row - top, column, role_of_token(t, (int)i), text_chars(&text));
		column += width;
		if (strncmp(text_chars(&text) + (text.length > 2 ? text.length - 2 : 0), "\\n", 2) == 0)
			column = columns; // a line of the text ends here
	}
	text_free(&text);
	return found;
}

static void draw_strip(struct pane_tokens *t, const struct canvas *canvas)
{
	int row = flow(t, NULL, canvas->columns, 0);
	if (t->top > row)
		t->top = row;
	if (row - t->top >= canvas->rows)
		t->top = row - canvas->rows + 1;
	flow(t, canvas, canvas->columns, t->top);
}

/* Where the numbers come from, or what is under way. */
static void source_of(const struct pane_tokens *t, struct text *out)
{
	const struct tape *tape = tape_of(t);
	if (tape->n == 0)
		return;
	if (t->errand.waiting) {
		text_format(out, "computing %d%%", errand_percent(&t->errand, t->pane.talk->jobs));
	} else if (is_current(t)) {
		text_add(out, "every budget");
	} else if (t->errand.failed[0]) {
		text_add(out, t->errand.failed);
	} else {
		text_add(out, tape->known ? "the writer only" : "ids of the prompt not known");
	}
}

static void draw_facts(const struct pane_tokens *t, const struct canvas *canvas, int row)
{
	const struct tape *tape = tape_of(t);
	const struct tape_token *token = &tape->tokens[t->cursor];
	struct text text = {0};
	text_format(&text, "token %d/%zu '", t->cursor, tape->n);
	token_text(t, token->id, &text);
	text_format(&text, "' id %d, ", token->id);
	if (token->writer == TAPE_NOBODY)
		text_add(&text, "prompt");
	else
		text_format(&text, "%s by %s", phase_name(token->phase), name_of(t, token->writer));
	if (token->reader != TAPE_NOBODY)
		text_format(&text, ", read by %s", name_of(t, token->reader));
	int end = canvas_text(canvas, row, 0, ROLE_HEADING, text_chars(&text));
	text_clear(&text);
	source_of(t, &text);
	if (end + 2 + (int)text.length <= canvas->columns)
		canvas_right(canvas, row, canvas->columns, ROLE_DIM, text_chars(&text));
	text_free(&text);
}

static void head_of(const struct pane_tokens *t, int column, struct text *out)
{
	int writer = writer_of(t, column);
	const struct tape_token *token = &tape_of(t)->tokens[t->cursor];
	const struct outlook_view *view =
		is_current(t) ? outlook_at(&t->outlook, column, t->cursor) : NULL;
	text_format(out, "%c %.10s ", talk_mark(t->pane.talk, writer), name_of(t, writer));
	if (view)
		text_format(out, "#%d %s H%.2f", view->rank, number_percent((double)view->p_actual).text,
					(double)view->entropy);
	else if (token->writer == writer)
		text_format(out, "%s H%.2f", number_percent(exp((double)token->picked.logprob)).text,
					(double)token->picked.entropy);
}

static void draw_budget(const struct pane_tokens *t, const struct canvas *canvas, int column)
{
	const struct tape_token *token = &tape_of(t)->tokens[t->cursor];
	struct text text = {0};
	struct choice choice;
	head_of(t, column, &text);
	canvas_text(canvas, 0, 0, role_of_budget(writer_of(t, column)), text_chars(&text));
	for (int row = 0; row + 1 < canvas->rows && choice_at(t, column, row, &choice); row++) {
		bool here = row == t->row && column == t->column;
		text_clear(&text);
		text_format(&text, "%s%s%5.1f%% '", here ? ">" : " ", choice.id == token->id ? "*" : " ",
					100 * choice.p);
		token_text(t, choice.id, &text);
		text_add(&text, "'");
		canvas_text(canvas, row + 1, 0, here ? ROLE_MARK : ROLE_TEXT, text_chars(&text));
	}
	text_free(&text);
}

static void draw_budgets(const struct pane_tokens *t, const struct canvas *canvas)
{
	int n = n_columns(t), fit = canvas->columns / COLUMN_WIDTH;
	fit = fit < 1 ? 1 : fit > n ? n : fit;
	int first = t->column >= fit ? t->column - fit + 1 : 0;
	for (int i = 0; i < fit; i++) {
		int width = canvas->columns / fit;
		struct canvas part = canvas_part(canvas, 0, i * width, canvas->rows, width - 1);
		draw_budget(t, &part, first + i);
	}
}

/* The rows of the tree around the active way. */
static void draw_branches(const struct pane_tokens *t, const struct canvas *canvas)
{
	const struct branches *branches = &t->pane.talk->branches;
	size_t rows = (size_t)canvas->rows, first = 0, here = 0;
	size_t *order = branches_order(branches);
	while (order && order[here] != branches->active)
		here++;
	if (here > rows / 2)
		first = here - rows / 2;
	if (first + rows > branches->n)
		first = branches->n > rows ? branches->n - rows : 0;
	for (size_t i = first; order && i < branches->n && i - first < rows; i++) {
		struct text text = {0};
		text_add(&text, i == here ? "> " : "  ");
		branches_line(branches, order[i], canvas->theme->ascii, &text);
		canvas_text(canvas, (int)(i - first), 0, i == here ? ROLE_MARK : ROLE_DIM,
					text_chars(&text));
		text_free(&text);
	}
	free(order);
}

static void settle(struct pane_tokens *t)
{
	int n = (int)tape_of(t)->n, columns = n_columns(t);
	struct choice choice;
	if (t->follow || t->cursor >= n)
		t->cursor = n - 1;
	if (t->cursor < 0)
		t->cursor = 0;
	if (t->column >= columns)
		t->column = columns - 1;
	if (t->column < 0)
		t->column = 0;
	while (t->row > 0 && !choice_at(t, t->column, t->row, &choice))
		t->row--;
}

static void tokens_draw(struct pane *pane, struct canvas *canvas)
{
	struct pane_tokens *t = (struct pane_tokens *)pane;
	const struct tape *tape = tape_of(t);
	if (!look_ready(pane, canvas))
		return;
	if (tape->n == 0) {
		look_say(canvas, 0, ROLE_DIM, "No token yet: the tokens of the last turn stand here.");
		return;
	}
	settle(t);
	want(t);
	int branches = (int)pane->talk->branches.n;
	branches = branches > MAX_BRANCH_ROWS ? MAX_BRANCH_ROWS : branches;
	if (canvas->rows < 14)
		branches = branches > 0;
	int table = OUTLOOK_TOP + 1, strip = canvas->rows - 1 - table - branches;
	if (strip < 2) {
		strip = canvas->rows > 5 ? 2 : 1;
		table = canvas->rows - 1 - strip - branches;
	}
	struct canvas top = canvas_part(canvas, 0, 0, strip, canvas->columns);
	struct canvas middle = canvas_part(canvas, strip + 1, 0, table, canvas->columns);
	struct canvas bottom =
		canvas_part(canvas, canvas->rows - branches, 0, branches, canvas->columns);
	draw_strip(t, &top);
	draw_facts(t, canvas, strip);
	if (table > 0)
		draw_budgets(t, &middle);
	if (branches > 0)
		draw_branches(t, &bottom);
}

/* ---- keys ---- */

static void search(struct pane_tokens *t, int direction, bool here)
{
	const struct tape *tape = tape_of(t);
	int n = (int)tape->n;
	struct text text = {0};
	bool found = false;
	for (int k = here ? 0 : 1; k <= n && n > 0 && t->pane.search[0] && !found; k++) {
		int i = ((t->cursor + direction * k) % n + n) % n;
		text_clear(&text);
		token_text(t, tape->tokens[i].id, &text);
		found = strcasestr(text_chars(&text), t->pane.search) != NULL;
		if (found) {
			t->cursor = i;
			t->follow = false;
		}
	}
	text_free(&text);
	if (!found)
		snprintf(t->pane.message, sizeof t->pane.message, "no token has '%.100s'", t->pane.search);
}

static void move(struct pane_tokens *t, int step)
{
	int n = (int)tape_of(t)->n;
	t->cursor += step;
	if (t->cursor >= n)
		t->cursor = n - 1;
	if (t->cursor < 0)
		t->cursor = 0;
	t->follow = t->cursor == n - 1;
	t->row = 0;
}

static bool choose(struct pane_tokens *t)
{
	struct choice choice;
	if (tape_of(t)->n == 0)
		return false;
	if (choice_at(t, t->column, t->row, &choice))
		snprintf(t->pane.command, sizeof t->pane.command, "branch %d %d %s", t->cursor, choice.id,
				 name_of(t, writer_of(t, t->column)));
	else
		snprintf(t->pane.message, sizeof t->pane.message, "%s's alternatives are not known here%s",
				 name_of(t, writer_of(t, t->column)), t->errand.waiting ? " yet" : "");
	return true;
}

static bool tokens_key(struct pane_tokens *t, int key)
{
	switch (key) {
	case '<': t->column -= t->column > 0; return true;
	case '>': t->column += t->column + 1 < n_columns(t); return true;
	case 'b': snprintf(t->pane.command, sizeof t->pane.command, "branch next"); return true;
	case 'B': snprintf(t->pane.command, sizeof t->pane.command, "branch previous"); return true;
	case 'u': snprintf(t->pane.command, sizeof t->pane.command, "branch undo"); return true;
	case 'U': snprintf(t->pane.command, sizeof t->pane.command, "branch redo"); return true;
	case '^': snprintf(t->pane.command, sizeof t->pane.command, "branch parent"); return true;
	default: return false;
	}
}

static bool tokens_action(struct pane *pane, enum action action, int key)
{
	struct pane_tokens *t = (struct pane_tokens *)pane;
	struct choice choice;
	switch (action) {
	case ACTION_LEFT: move(t, -1); break;
	case ACTION_RIGHT: move(t, 1); break;
	case ACTION_UP: t->row -= t->row > 0; break;
	case ACTION_DOWN: t->row += choice_at(t, t->column, t->row + 1, &choice); break;
	case ACTION_PAGE_UP:
	case ACTION_HALF_UP: move(t, -PAGE_TOKENS); break;
	case ACTION_PAGE_DOWN:
	case ACTION_HALF_DOWN: move(t, PAGE_TOKENS); break;
	case ACTION_TOP: move(t, -(int)tape_of(t)->n); break;
	case ACTION_BOTTOM: move(t, (int)tape_of(t)->n); break;
	case ACTION_SEARCH: search(t, 1, true); break;
	case ACTION_SEARCH_NEXT: search(t, 1, false); break;
	case ACTION_SEARCH_PREVIOUS: search(t, -1, false); break;
	case ACTION_ENTER: return choose(t);
	case ACTION_NONE: return tokens_key(t, key);
	default: return false;
	}
	pane->dirty = true;
	return true;
}

static void tokens_event(struct pane *pane, const struct event *event)
{
	struct pane_tokens *t = (struct pane_tokens *)pane;
	if (event->seq != pane->talk->seq)
		return;
	if (event->type == EV_OPENED)
		forget(t);
	if (event->type == EV_TURN)
		t->follow = true;
	pane->dirty = true;
}

static void tokens_title(const struct pane *pane, struct text *out)
{
	source_of((const struct pane_tokens *)pane, out);
}

static void tokens_close(struct pane *pane)
{
	struct pane_tokens *t = (struct pane_tokens *)pane;
	forget(t);
	free(t->declined_ids);
	free(t);
}

static const struct pane_table table = {tokens_event, tokens_draw, tokens_action, tokens_title,
										tokens_close};
static const struct pane_more more = {.stop = tokens_stop, .busy = tokens_busy, .job = tokens_job};

struct pane *pane_tokens_open(const struct talk *talk, struct error *err)
{
	struct pane_tokens *t = mem_new(1, sizeof *t, err);
	if (!t)
		return NULL;
	t->pane = (struct pane){.table = &table, .more = &more, .talk = talk, .dirty = true};
	t->follow = true;
	return &t->pane;
}
