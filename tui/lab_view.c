#include "tui/lab_view.h"
#include "base/memory.h"
#include "tui/look.h"
#include "tui/table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define WIDE_COLUMNS 110
#define CURVE_ROWS 4

/* ---- the job ---- */

/* The last switch of the turn that changed who reads. */
static int last_switch(const struct talk *talk, const char **from, const char **to, int *at,
					   struct error *err)
{
	const struct reply *reply = &talk->reply;
	if (reply->n_switches == 0)
		return fail(err, "lab: no budget has changed in this turn; :lab FROM TO [AT] takes any "
						 "place");
	const struct reply_switch *last = &reply->switches[reply->n_switches - 1];
	*from = last->from;
	*to = last->to;
	*at = last->at;
	return 0;
}

int lab_view_ask(struct lab_view *view, const struct talk *talk, const char *from, const char *to,
				 int at, struct error *err)
{
	const struct tape *tape = &talk->tape;
	if (!talk->jobs || !talk->model)
		return fail(err, "lab: no model is open");
	if (!from && last_switch(talk, &from, &to, &at, err))
		return -1;
	if (talk_check_budget(talk, from, err) || talk_check_budget(talk, to, err))
		return -1;
	if (tape->n == 0)
		return fail(err, "lab: nothing was written yet");
	if (!tape->known)
		return fail(err, "lab: the ids of the turn are not known");
	if (at < 1 || (size_t)at > tape->n)
		return fail(err, "lab: position %d; 1 to %zu is expected", at, tape->n);
	int32_t *ids = mem_new(tape->n, sizeof *ids, err);
	if (!ids)
		return -1;
	tape_ids(tape, tape->n, ids);
	struct lab_plan plan = {.model = talk->model,
							.device = {.n_threads = 1, .math = MATH_EXACT, .kv_dtype = DTYPE_F32},
							.ids = ids,
							.n = (int)tape->n,
							.at = at,
							.from = from,
							.to = to};
	struct lab_job *job = lab_job(&plan, err);
	free(ids);
	return errand_send(&view->errand, talk->jobs, job ? &job->job : NULL);
}

bool lab_view_job(struct lab_view *view, struct job *job)
{
	struct lab_job *done = (struct lab_job *)job;
	if (!errand_returns(&view->errand, job))
		return false;
	if (job->state == JOB_DONE) {
		lab_free(&view->lab);
		view->lab = done->lab;
		done->lab = (struct lab){0};
		view->top = 0;
	}
	job->free(job);
	return true;
}

void lab_view_close(struct lab_view *view)
{
	lab_free(&view->lab);
	*view = (struct lab_view){0};
}

/* ---- drawing ---- */

static int draw_costs(const struct lab *lab, const struct canvas *canvas, int row)
{
	canvas_print(canvas, row++, 0, ROLE_HEADING, "Handoff %s > %s before token %d", lab->from,
				 lab->to, lab->at);
	canvas_print(canvas, row++, 1, ROLE_DIM, "measured here, after a warm pass; %d tokens after it",
				 lab->horizon);
	canvas_print(canvas, row++, 1, ROLE_TEXT, "carry     %8.2f ms %5d tokens read again",
				 lab->carry_ms, lab->carry_tokens);
	canvas_print(canvas, row++, 1, ROLE_TEXT, "reprefill %8.2f ms %5d tokens read again",
				 lab->reprefill_ms, lab->reprefill_tokens);
	canvas_print(canvas, row++, 1, ROLE_TEXT, "KL(reprefill || carry) %s, max %s, same top %s",
				 number_fixed(lab->kl_mean, 4).text, number_fixed(lab->kl_max, 3).text,
				 number_percent(lab->top1).text);
	canvas_print(canvas, row++, 1, ROLE_TEXT, "cosine    conv %s  SSM %s  K %s  V %s",
				 number_fixed(lab->conv, 4).text, number_fixed(lab->ssm, 4).text,
				 number_fixed(lab->k, 4).text, number_fixed(lab->v, 4).text);
	return row + 1;
}

static int draw_curve(const struct lab *lab, const struct canvas *canvas, int row)
{
	float values[512];
	int n = lab->horizon < 512 ? lab->horizon : 512;
	for (int i = 0; i < n; i++)
		values[i] = (float)lab->kl[i];
	canvas_text(canvas, row++, 0, ROLE_HEADING, "KL, token by token after the switch");
	if (n == 0 || !(lab->kl_max > 0)) {
		canvas_text(canvas, row, 1, ROLE_DIM, n == 0 ? "N/A" : "0 everywhere");
		return row + 2;
	}
	struct canvas plot = canvas_part(canvas, row, 9, CURVE_ROWS, canvas->columns - 9);
	canvas_print(canvas, row, 0, ROLE_DIM, "%8s", number_fixed(lab->kl_max, 3).text);
	canvas_print(canvas, row + CURVE_ROWS - 1, 0, ROLE_DIM, "%8d", 0);
	if (row >= 0) // cut at the top it would be another curve
		canvas_curve(&plot, values, n, 0, (float)lab->kl_max, ROLE_BAR);
	return row + CURVE_ROWS + 1;
}

static int draw_repairs(const struct lab *lab, const struct canvas *canvas, int row)
{
	struct table table = {0};
	double most = 0;
	canvas_text(canvas, row++, 0, ROLE_HEADING, "repair:N, the last N tokens read again");
	table_add(&table, "N", 5, 0);
	table_add(&table, "again", 6, 2);
	table_add(&table, "ms", 8, 0);
	table_add(&table, "KL", 8, 0);
	table_add(&table, "max", 7, 3);
	table_add(&table, "same", 6, 1);
	table_add(&table, "", -12, 4);
	table_lay(&table, 1, canvas->columns - 1);
	table_head(&table, canvas, row++, -1);
	for (int i = 0; i < lab->n_repairs; i++)
		most = fmax(most, lab->repairs[i].kl_mean);
	for (int i = 0; i < lab->n_repairs; i++, row++) {
		const struct lab_repair *it = &lab->repairs[i];
		char text[32];
		snprintf(text, sizeof text, "%d", it->n);
		table_cell(&table, canvas, row, 0, ROLE_TEXT, text);
		snprintf(text, sizeof text, "%d", it->replayed);
		table_cell(&table, canvas, row, 1, ROLE_TEXT, text);
		table_cell(&table, canvas, row, 2, ROLE_TEXT, number_fixed(it->ms, 2).text);
		table_cell(&table, canvas, row, 3, ROLE_TEXT, number_fixed(it->kl_mean, 4).text);
		table_cell(&table, canvas, row, 4, ROLE_TEXT, number_fixed(it->kl_max, 3).text);
		table_cell(&table, canvas, row, 5, ROLE_TEXT, number_percent(it->top1).text);
		if (most > 0)
			table_bar(&table, canvas, row, 6, ROLE_BAR, it->kl_mean / most);
	}
	return row + 1;
}

static int draw_layers(const struct lab *lab, const struct canvas *canvas, int row)
{
	struct table table = {0};
	canvas_text(canvas, row++, 0, ROLE_HEADING, "Cosine of the two states, by layer");
	table_add(&table, "layer", 5, 0);
	table_add(&table, "", -9, 1);
	table_add(&table, "conv", 7, 0);
	table_add(&table, "SSM", 7, 0);
	table_add(&table, "K", 7, 0);
	table_add(&table, "V", 7, 0);
	table_lay(&table, 1, canvas->columns - 1);
	table_head(&table, canvas, row++, -1);
	for (int i = 0; i < lab->n_layers; i++) {
		const struct lab_layer *it = &lab->layers[i];
		const double cells[] = {it->conv, it->ssm, it->k, it->v};
		char text[16];
		if (isnan(it->conv) && isnan(it->ssm) && isnan(it->k) && isnan(it->v))
			continue; // no state
		snprintf(text, sizeof text, "%d", i);
		table_cell(&table, canvas, row, 0, ROLE_TEXT, text);
		table_cell(&table, canvas, row, 1, ROLE_DIM,
				   it->kind == LAYER_MAMBA ? "Mamba" : "attention");
		for (int c = 0; c < 4; c++)
			if (!isnan(cells[c]))
				table_cell(&table, canvas, row, 2 + c, cells[c] < .9 ? ROLE_WARN : ROLE_TEXT,
						   number_fixed(cells[c], 4).text);
		row++;
	}
	return row + 1;
}

static void draw_state(const struct lab_view *view, const struct talk *talk,
					   const struct canvas *canvas)
{
	if (view->errand.waiting) {
		canvas_print(canvas, 0, 0, ROLE_NOTICE, "taking the switch apart: %d%%",
					 errand_percent(&view->errand, talk->jobs));
	} else if (view->errand.failed[0]) {
		canvas_print(canvas, 0, 0, ROLE_ERROR, "lab: %s", view->errand.failed);
	} else {
		look_say(canvas, 0, ROLE_DIM,
				 "Handoff lab: :lab takes the turn's last change of budget apart, :lab FROM TO "
				 "[AT] any other; :set lab on does it by itself.");
	}
}

static void draw_lab(struct lab_view *view, const struct canvas *canvas)
{
	const struct lab *lab = &view->lab;
	struct canvas left = *canvas, right = *canvas;
	int row = -view->top, other = -view->top;
	bool wide = canvas->columns >= WIDE_COLUMNS;
	if (wide) {
		int half = canvas->columns / 2;
		left = canvas_part(canvas, 0, 0, canvas->rows, half - 1);
		right = canvas_part(canvas, 0, half, canvas->rows, canvas->columns);
	}
	row = draw_costs(lab, &left, row);
	row = draw_curve(lab, &left, row);
	row = draw_repairs(lab, &left, row);
	if (wide)
		other = draw_layers(lab, &right, other);
	else
		row = draw_layers(lab, &left, row);
	view->n_lines = (row > other ? row : other) + view->top;
}

void lab_view_draw(struct lab_view *view, const struct talk *talk, const struct canvas *canvas)
{
	bool done = view->lab.n_layers > 0;
	struct canvas rest = *canvas;
	if (!done || view->errand.waiting || view->errand.failed[0]) {
		draw_state(view, talk, canvas);
		rest = canvas_part(canvas, 1, 0, canvas->rows - 1, canvas->columns);
	}
	view->rows = rest.rows;
	if (!done)
		return;
	draw_lab(view, &rest);
	int last = view->n_lines > rest.rows ? view->n_lines - rest.rows : 0;
	if (view->top > last) { // the room has grown
		view->top = last;
		canvas_blank(&rest, ROLE_TEXT);
		draw_lab(view, &rest);
	}
}
