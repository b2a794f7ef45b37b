#include "tui/study_view.h"
#include "base/clock.h"
#include "base/memory.h"
#include "inspect/scatter.h"
#include "tui/look.h"
#include "tui/table.h"
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define LEAST_PLOT_ROWS 8
#define MOST_PLOT_ROWS 16
#define MOST_PLOT_COLUMNS 100
#define PLOT_FRAME 3   // rows around the inside
#define NOTES 3        // rows below it
#define PLOT_LABELS 10 // columns left of the frame

/* ---- the job ---- */

/* The study that is drawn. */
static struct study_job *drawn(const struct study_view *view)
{
	return view->waiting ? view->waiting : view->shown;
}

static void drop(struct study_view *view)
{
	if (view->shown)
		view->shown->job.free(&view->shown->job);
	free(view->summaries);
	free(view->order);
	*view = (struct study_view){.sort = view->sort};
}

/* Room for the cells of what will be drawn. */
static int make_room(struct study_view *view, size_t n_cells, struct error *err)
{
	view->summaries = mem_new(n_cells, sizeof *view->summaries, err);
	view->order = mem_new(n_cells, sizeof *view->order, err);
	return view->summaries && view->order ? 0 : -1;
}

/* Cuts the next word off; "" = there is none. */
static char *next_word(char **line)
{
	char *word = *line += strspn(*line, " \t");
	*line += strcspn(*line, " \t");
	if (**line)
		*(*line)++ = 0;
	return word;
}

/* A limit, rows or the grid, which goes on to the end of the line. */
static int read_words(char *line, struct study_ask *ask, struct error *err)
{
	ask->tasks = next_word(&line);
	ask->grid = "";
	for (line += strspn(line, " \t"); *line; line += strspn(line, " \t")) {
		if (line[strcspn(line, "= \t")] == '=') {
			ask->grid = line;
			return 0;
		}
		char *end, *word = next_word(&line);
		size_t length = strlen(word);
		errno = 0;
		long limit = strtol(word, &end, 10);
		if (length > 4 && strcmp(word + length - 4, ".csv") == 0)
			ask->rows = word;
		else if (!*end && !errno && limit > 0)
			ask->limit = (size_t)limit;
		else
			return fail(err,
						"study: '%s'; after the tasks FILE.csv, how many of them, or a grid "
						"(think=small,large;answer=large) is expected",
						word);
	}
	return 0;
}

static void set_turn(struct turn_settings *settings, const struct talk *talk)
{
	const char *largest = talk->model->elastic.budgets[0].name;
	*settings = (struct turn_settings){.sampling = talk->settings.sampling,
									   .max_tokens = talk->settings.max_tokens,
									   .thinking = true};
	snprintf(settings->budget, sizeof settings->budget, "%s", largest);
	if (!talk->seed_fixed)
		settings->sampling.seed = 0; // as `study`: to be repeated
}

int study_view_ask(struct study_view *view, const struct talk *talk,
				   const struct engine_options *engine, const char *arguments, struct error *err)
{
	struct study_ask ask = {
		.model = talk->model, .device = engine->device, .context = engine->context};
	if (!talk->jobs || !talk->model)
		return fail(err, "study: no model is open");
	if (view->waiting)
		return fail(err, "study: one is running; Ctrl-C stops it and keeps its rows");
	char *line = strdup(arguments);
	if (!line)
		return fail(err, "no memory for a command");
	set_turn(&ask.settings, talk);
	struct study_job *job = read_words(line, &ask, err) ? NULL : study_job(&ask, err);
	free(line);
	if (!job)
		return -1;
	drop(view);
	if (make_room(view, job->plan.study.n_cells, err)) {
		job->job.free(&job->job);
		return -1;
	}
	view->waiting = job;
	jobs_submit(talk->jobs, &job->job);
	return 0;
}

int study_view_write(const struct study_view *view, const char *path, struct error *err)
{
	if (!view->shown)
		return fail(err, "study: there are no rows yet that have all been written");
	return study_plan_write(&view->shown->plan, path, err);
}

bool study_view_job(struct study_view *view, struct job *job)
{
	if (!view->waiting || job != &view->waiting->job)
		return false;
	view->shown = view->waiting;
	view->waiting = NULL;
	view->stopping = false;
	view->ended = job->state;
	snprintf(view->failed, sizeof view->failed, "%.250s",
			 job->state == JOB_FAILED ? job->error.text : "");
	return true;
}

bool study_view_stop(struct study_view *view, const struct talk *talk)
{
	if (!view->waiting || view->stopping)
		return false;
	jobs_cancel(talk->jobs, &view->waiting->job); // it comes back with its rows
	view->stopping = true;
	return true;
}

void study_view_close(struct study_view *view)
{
	drop(view); // what is waiting was the queue's
}

/* ---- sorting ---- */

static double value_of(const struct study_view *view, int sort, size_t cell)
{
	const struct study_summary *row = &view->summaries[cell];
	switch (sort) {
	case 1: return -(double)row->right / (double)row->n;
	case 2: return row->mcnemar.mid;
	case 3: return row->tokens;
	case 4: return row->median_seconds;
	case 5: return -row->tps;
	default: return (double)cell;
	}
}
#define N_SORTS 6

/* NAN goes last; equals stay in the cells' order. */
static void sort_cells(struct study_view *view, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		double value = value_of(view, view->sort, i);
		size_t at = i;
		for (; at > 0; at--) {
			double before = value_of(view, view->sort, view->order[at - 1]);
			if (!(value < before || (isnan(before) && !isnan(value))))
				break;
			view->order[at] = view->order[at - 1];
		}
		view->order[at] = i;
	}
}

bool study_view_action(struct study_view *view, enum action action)
{
	if (action == ACTION_SORT)
		view->sort = (view->sort + 1) % N_SORTS;
	return action == ACTION_SORT || pane_scroll(&view->top, view->n_lines, view->rows, action);
}

/* ---- drawing ---- */

static void draw_progress(const struct study_view *view, const struct canvas *canvas, int row)
{
	const struct study_state *state = &view->state;
	double ran = (double)(state->n_done - state->n_had);
	double seconds = state->began_ns ? (double)(clock_ns() - state->began_ns) / 1e9 : 0;
	double rate = seconds > 0 ? ran / seconds : 0;
	long left = rate > 0 ? (long)((double)(state->n_all - state->n_done) / rate) : 0;
	if (view->stopping)
		canvas_text(canvas, row, 0, ROLE_NOTICE, "study: stops after this token, rows stay");
	else if (!state->began_ns)
		canvas_text(canvas, row, 0, ROLE_NOTICE, "study: waits for its turn; Ctrl-C stops");
	else if (rate > 0)
		canvas_print(canvas, row, 0, ROLE_NOTICE,
					 "study: %zu of %zu answers, %s a second, %ld:%02ld left; Ctrl-C stops and "
					 "keeps them",
					 state->n_done, state->n_all, number_rate(rate).text, left / 60, left % 60);
	else
		canvas_print(canvas, row, 0, ROLE_NOTICE,
					 "study: %zu of %zu answers were there; Ctrl-C stops", state->n_done,
					 state->n_all);
}

/* What it is about, how far it came, where its rows are. */
static int draw_head(const struct study_view *view, const struct study_job *job,
					 const struct canvas *canvas, int row)
{
	const struct study_plan *plan = &job->plan;
	canvas_print(canvas, row++, 0, ROLE_HEADING, "%zu tasks of %s, %zu cells", plan->tasks.n,
				 plan->tasks_file, plan->study.n_cells);
	if (view->waiting) {
		draw_progress(view, canvas, row++);
		return row;
	}
	if (view->failed[0])
		canvas_print(canvas, row++, 0, ROLE_ERROR, "study: %s", view->failed);
	canvas_print(
		canvas, row++, 0, view->ended == JOB_CANCELLED ? ROLE_WARN : ROLE_DIM,
		"%s%zu of %zu answers, seed %s, temperature %s, math %s, threads %s; w writes them",
		view->ended == JOB_CANCELLED ? "stopped: " : "", view->state.n_done, view->state.n_all,
		plan->facts[FACT_SEED].value, plan->facts[FACT_TEMPERATURE].value,
		plan->facts[FACT_MATH].value, plan->facts[FACT_THREADS].value);
	if (job->note[0])
		canvas_text(canvas, row++, 0, ROLE_WARN, job->note);
	if (plan->tasks.n_broken > 0)
		canvas_print(canvas, row++, 0, ROLE_WARN, "left out %d lines; %.*s", plan->tasks.n_broken,
					 (int)strcspn(text_chars(&plan->tasks.broken), "\n"),
					 text_chars(&plan->tasks.broken));
	return row;
}

enum column {
	C_N,
	C_RIGHT,
	C_INTERVAL,
	C_P,
	C_SAME,
	C_TOKENS,
	C_MS,
	C_FIRST,
	C_TPS,
	C_SWITCH,
	C_ENERGY
};

static void draw_cell(const struct study_view *view, const struct study *study,
					  const struct table *table, const struct canvas *canvas, int row, size_t cell)
{
	const struct study_summary *it = &view->summaries[cell];
	enum role role = it->front ? ROLE_GOOD : ROLE_TEXT;
	bool tested = cell != study->baseline && it->n_pairs > 0;
	char letter[3] = {cell_letter(cell), it->front ? '*' : ' ', 0}, interval[32];
	int column = 0;
	table_cell(table, canvas, row, column++, role, letter);
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		if (grid_told(study->cells, study->n_cells, (enum grid_axis)axis))
			table_cell(table, canvas, row, column++, role, study->cells[cell].value[axis]);
	snprintf(interval, sizeof interval, "%.1f-%.1f", 100 * it->interval.low,
			 100 * it->interval.high);
	double same = it->n_twin ? 100.0 * (double)it->n_same / (double)it->n_twin : (double)NAN;
	const struct number numbers[] = {
		[C_N] = number_fixed((double)it->n, 0),
		[C_RIGHT] = number_fixed(100 * (double)it->right / (double)it->n, 1),
		[C_P] = number_fixed(tested ? it->mcnemar.mid : (double)NAN, 4),
		[C_SAME] = number_fixed(same, 1),
		[C_TOKENS] = number_fixed(it->tokens, 1),
		[C_MS] = number_fixed(1000 * it->median_seconds, 2),
		[C_FIRST] = number_fixed(1000 * it->first_seconds, 2),
		[C_TPS] = number_fixed(it->tps, 0),
		[C_SWITCH] = number_fixed(it->switch_ms, 2),
		[C_ENERGY] = {"N/A"}, // nothing measures it
	};
	for (int i = 0; i <= C_ENERGY; i++) {
		const char *text = i == C_INTERVAL ? interval : numbers[i].text;
		bool known = strcmp(text, "N/A") != 0 || i == C_ENERGY;
		if (i == C_P && tested && it->mcnemar.mid < 0.0001)
			text = "<.0001";
		table_cell(table, canvas, row, column++, known ? role : ROLE_DIM, known ? text : "-");
	}
}

static void add_axes(struct table *table, const struct study *study)
{
	for (int axis = 0; axis < N_GRID_AXES; axis++) {
		const char *name = grid_axis_name((enum grid_axis)axis);
		size_t width = strlen(name);
		if (!grid_told(study->cells, study->n_cells, (enum grid_axis)axis))
			continue;
		for (size_t cell = 0; cell < study->n_cells; cell++) {
			size_t length = strlen(study->cells[cell].value[axis]);
			width = length > width ? length : width;
		}
		table_add(table, name, -(int)(width < 24 ? width : 24), 0);
	}
}

static int draw_table(const struct study_view *view, const struct study *study,
					  const struct canvas *canvas, int row)
{
	static const int sorted[N_SORTS] = {-1, C_RIGHT, C_P, C_TOKENS, C_MS, C_TPS};
	struct table table = {0};
	table_add(&table, "", -2, 0);
	add_axes(&table, study);
	int first = table.n;
	table_add(&table, "n", 5, 6);
	table_add(&table, "right%", 7, 0);
	table_add(&table, "95%", 10, 1);
	table_add(&table, "mid-p", 7, 2);
	table_add(&table, "same%", 6, 7);
	table_add(&table, "tokens", 7, 4);
	table_add(&table, "ms", 8, 0);
	table_add(&table, "first", 7, 8);
	table_add(&table, "tok/s", 6, 3);
	table_add(&table, "switch", 7, 9);
	table_add(&table, "energy", 6, 5);
	table_lay(&table, 0, canvas->columns);
	table_head(&table, canvas, row++, view->sort > 0 ? first + sorted[view->sort] : -1);
	for (size_t i = 0; i < study->n_cells; i++)
		draw_cell(view, study, &table, canvas, row++, view->order[i]);
	return row + 1;
}

static int draw_plot(const struct study_view *view, const struct study *study,
					 const struct canvas *canvas, int row, int height)
{
	struct scatter_point *points = mem_new(study->n_cells, sizeof *points, NULL);
	struct text out = {0};
	int width = canvas->columns - PLOT_LABELS;
	if (!points || width < 10) {
		free(points);
		return row;
	}
	for (size_t cell = 0; cell < study->n_cells; cell++) {
		const struct study_summary *it = &view->summaries[cell];
		points[cell] = (struct scatter_point){.x = 1000 * it->median_seconds,
											  .y = 100 * (double)it->right / (double)it->n,
											  .letter = cell_letter(cell),
											  .front = it->front};
	}
	struct scatter scatter = {.points = points,
							  .n = study->n_cells,
							  .width = width < MOST_PLOT_COLUMNS ? width : MOST_PLOT_COLUMNS,
							  .height = height,
							  .x_label = "ms an answer (median)",
							  .y_label = "% right",
							  .ascii = canvas->theme->ascii};
	scatter_draw(&scatter, &out);
	const char *line = text_chars(&out), *end;
	for (; (end = strchr(line, '\n')); line = end + 1)
		canvas_bytes(canvas, row++, 0, ROLE_TEXT, line, (size_t)(end - line));
	text_free(&out);
	free(points);
	return row;
}

static int draw_all(struct study_view *view, const struct canvas *canvas)
{
	const struct study_job *job = drawn(view);
	const struct study *study = &job->plan.study;
	const char *const *base = study->cells[study->baseline].value;
	int row = draw_head(view, job, canvas, -view->top);
	row = draw_table(view, study, canvas, row);
	int height = canvas->rows - (row + view->top) - PLOT_FRAME - NOTES;
	height = height < LEAST_PLOT_ROWS  ? LEAST_PLOT_ROWS
			 : height > MOST_PLOT_ROWS ? MOST_PLOT_ROWS
									   : height;
	row = draw_plot(view, study, canvas, row, height);
	canvas_text(canvas, row++, 0, ROLE_DIM, "* on the front: none is right as often in less time");
	canvas_print(canvas, row++, 0, ROLE_DIM, "mid-p: McNemar, paired, against %c (%s > %s)",
				 cell_letter(study->baseline), base[GRID_THINK], base[GRID_ANSWER]);
	if (job == view->shown && job->rows)
		canvas_print(canvas, row++, 0, ROLE_DIM, "rows: %s", job->rows);
	return row + view->top;
}

void study_view_draw(struct study_view *view, const struct canvas *canvas)
{
	struct study_job *job = drawn(view);
	view->rows = canvas->rows;
	if (!job) {
		look_say(canvas, 0, ROLE_DIM,
				 "Study: :study FILE [LIMIT] [GRID] asks every task of FILE (JSON lines: prompt, "
				 "answer, match) in every think x answer pair, in the background.");
		return;
	}
	study_job_look(job, view->summaries, &view->state);
	sort_cells(view, job->plan.study.n_cells);
	view->n_lines = draw_all(view, canvas);
	int last = view->n_lines > canvas->rows ? view->n_lines - canvas->rows : 0;
	if (view->top > last) { // the room has grown
		view->top = last;
		canvas_blank(canvas, ROLE_TEXT);
		draw_all(view, canvas);
	}
}
