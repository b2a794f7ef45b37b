/*
 * Compare: its sections (the columns' answers, what they make of a text, the handoff lab, a study)
 * and the jobs behind them. What is typed while this is the view goes to the columns.
 */
#include "tui/pane_compare.h"
#include "base/memory.h"
#include "core/tokenizer.h"
#include "tui/columns_view.h"
#include "tui/fidelity_view.h"
#include "tui/lab_view.h"
#include "tui/look.h"
#include "tui/study_view.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_TEXT_TOKENS 4096

enum section { SECTION_TEXT, SECTION_KL, SECTION_LAYERS, SECTION_LAB, SECTION_STUDY, N_SECTIONS };
static const char *const section_names[] = {"answers", "token by token", "layer by layer",
											"handoff lab", "study"};

struct pane_compare {
	struct pane pane;
	struct compare compare;
	enum section section;
	struct columns_view columns;
	struct fidelity_view fidelity;
	struct lab_view lab;
	struct study_view study;
	bool asked; // for the comparison of what column 1 wrote last
};

/* ---- drawing ---- */

static void compare_draw(struct pane *pane, struct canvas *canvas)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	if (!look_ready(pane, canvas))
		return;
	switch (c->section) {
	case SECTION_KL: fidelity_view_draw(&c->fidelity, pane->talk, canvas, c->columns.focus); break;
	case SECTION_LAYERS:
		fidelity_view_draw_layers(&c->fidelity, pane->talk, canvas, c->columns.focus);
		break;
	case SECTION_LAB: lab_view_draw(&c->lab, pane->talk, canvas); break;
	case SECTION_STUDY: study_view_draw(&c->study, canvas); break;
	default: columns_view_draw(&c->columns, canvas); break;
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
	if (!columns_view_jump(&c->columns))
		snprintf(c->pane.message, sizeof c->pane.message, "the columns have not parted%s",
				 compare_running(&c->compare) ? " so far" : "");
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
		c->columns.focus = (c->columns.focus + (action == ACTION_RIGHT ? 1 : n - 1)) % n;
	else if (action == ACTION_ENTER)
		snprintf(pane->command, sizeof pane->command, "keep %d", c->columns.focus + 1);
	else if (key == 'd' && action == ACTION_NONE)
		jump(c);
	else
		return text && columns_view_scroll(&c->columns, action);
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
	if (event->type == EV_SWITCH && event->seq == 0 && pane->talk->lab && !c->lab.errand.waiting)
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
			columns_view_parting(&c->compare.columns[i], &own, out);
	}
}

static int compare_send_pane(struct pane *pane, const char *text, size_t length, struct error *err)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	if (compare_send(&c->compare, pane->talk, text, length, err))
		return -1;
	c->columns.follow = true;
	c->asked = false;
	c->section = SECTION_TEXT;
	pane->dirty = true;
	return 0;
}

static bool compare_stop_pane(struct pane *pane)
{
	struct pane_compare *c = (struct pane_compare *)pane;
	return compare_stop(&c->compare) || errand_give_up(&c->fidelity.errand, pane->talk->jobs) ||
		   errand_give_up(&c->lab.errand, pane->talk->jobs) ||
		   study_view_stop(&c->study, pane->talk);
}

static bool compare_busy(const struct pane *pane)
{
	const struct pane_compare *c = (const struct pane_compare *)pane;
	const struct compare *compare = &c->compare;
	return compare_running(compare) || compare_opening(compare) || c->fidelity.errand.waiting ||
		   c->lab.errand.waiting || c->study.waiting;
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
	columns_view_close(&c->columns);
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
	c->columns.follow = true;
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
	c->columns = (struct columns_view){.compare = &c->compare, .follow = true};
	c->fidelity.side = -1;
	return &c->pane;
}
