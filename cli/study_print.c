/* What a study found, as a table with a plot, or as JSON. */
#include "cli/print.h"
#include "cli/run.h"
#include "cli/study.h"
#include "inspect/scatter.h"
#include <cjson/cJSON.h>
#include <langinfo.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PLOT_WIDTH 64
#define PLOT_HEIGHT 16

static int column_width(const struct study *study, int axis)
{
	int width = (int)strlen(grid_axis_name((enum grid_axis)axis));
	for (size_t cell = 0; cell < study->n_cells; cell++) {
		int length = (int)strlen(study->cells[cell].value[axis]);
		width = length > width ? length : width;
	}
	return width;
}

/* "-" where nothing is known. */
static const char *number_text(char out[32], const char *format, double value)
{
	if (isfinite(value)) {
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
		snprintf(out, 32, format, value);
#pragma GCC diagnostic pop
	} else {
		strcpy(out, "-");
	}
	return out;
}

static void print_row(const struct study_report *report, size_t cell)
{
	const struct study *study = report->study;
	const struct study_summary *row = &report->summaries[cell];
	char text[7][32], interval[32];
	bool tested = cell != study->baseline && row->n_pairs > 0;
	double same = row->n_twin ? 100.0 * (double)row->n_same / (double)row->n_twin : NAN;
	printf("%c%c ", cell_letter(cell), row->front ? '*' : ' ');
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		if (grid_told(study->cells, study->n_cells, (enum grid_axis)axis))
			printf(" %-*s", column_width(study, axis), study->cells[cell].value[axis]);
	snprintf(interval, sizeof interval, "%.1f-%.1f", 100 * row->interval.low,
			 100 * row->interval.high);
	printf("  %5zu %6s %10s %7s %6s", row->n,
		   number_text(text[0], "%.1f", 100 * (double)row->right / (double)row->n), interval,
		   tested && row->mcnemar.mid < 0.0001
			   ? "<.0001"
			   : number_text(text[1], "%.4f", tested ? row->mcnemar.mid : NAN),
		   number_text(text[2], "%.1f", same));
	printf(" %6s %7s %6s %6s %6s %6s\n", number_text(text[0], "%.1f", row->tokens),
		   number_text(text[1], "%.2f", 1000 * row->median_seconds),
		   number_text(text[2], "%.2f", 1000 * row->first_seconds),
		   number_text(text[3], "%.0f", row->tps), number_text(text[4], "%.2f", row->switch_ms),
		   "N/A"); // nothing here measures it
}

static void print_plot(const struct study_report *report)
{
	const struct study *study = report->study;
	struct scatter_point *points = calloc(study->n_cells, sizeof *points);
	struct text out = {0};
	if (!points)
		return; // the table is there
	for (size_t cell = 0; cell < study->n_cells; cell++) {
		const struct study_summary *row = &report->summaries[cell];
		points[cell] = (struct scatter_point){.x = 1000 * row->median_seconds,
											  .y = 100 * (double)row->right / (double)row->n,
											  .letter = cell_letter(cell),
											  .front = row->front};
	}
	setlocale(LC_CTYPE, "");
	struct scatter scatter = {.points = points,
							  .n = study->n_cells,
							  .width = PLOT_WIDTH,
							  .height = PLOT_HEIGHT,
							  .x_label = "ms an answer (median)",
							  .y_label = "% right",
							  .ascii = strcmp(nl_langinfo(CODESET), "UTF-8") != 0};
	scatter_draw(&scatter, &out);
	printf("\n%s", text_chars(&out));
	text_free(&out);
	free(points);
}

void study_print(const struct study_report *report)
{
	const struct study *study = report->study;
	const struct cell *base = &study->cells[study->baseline];
	size_t failed = 0;
	printf("%s%zu tasks of %s\n", report->interrupted ? "interrupted; " : "", study->tasks->n,
		   report->tasks_file);
	for (size_t i = 0; i < report->n_facts; i++)
		printf("%s%s %s", i ? ", " : "", report->facts[i].name, report->facts[i].value);
	printf("\n\n   ");
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		if (grid_told(study->cells, study->n_cells, (enum grid_axis)axis))
			printf(" %-*s", column_width(study, axis), grid_axis_name((enum grid_axis)axis));
	printf("  %5s %6s %10s %7s %6s %6s %7s %6s %6s %6s %6s\n", "n", "right%", "95%", "mid-p",
		   "same%", "tokens", "ms", "first", "tok/s", "switch", "energy");
	for (size_t cell = 0; cell < study->n_cells; cell++)
		print_row(report, cell);
	for (size_t cell = 0; cell < study->n_cells; cell++)
		failed += report->summaries[cell].failed;
	if (failed > 0)
		printf("\n%zu answers ended in an error and count as wrong.\n", failed);
	printf("\n* on the front: no cell is right as often in less time, or more often in the same.\n"
		   "mid-p: McNemar, paired, against %c (%s > %s). same: equals the answer that reprefill "
		   "gives.\nms: median of an answer, from request to end; first: to the first token; "
		   "switch: the handoff's.\n",
		   cell_letter(study->baseline), base->value[GRID_THINK], base->value[GRID_ANSWER]);
	print_plot(report);
}

/* ---- JSON ---- */

/* Right answers of each kind of task, in the file's order. */
static void add_kinds(cJSON *object, const struct study *study, size_t cell)
{
	cJSON *kinds = cJSON_AddArrayToObject(object, "kinds");
	for (size_t first = 0; first < study->tasks->n; first++) {
		const char *kind = study->tasks->items[first].kind;
		size_t n = 0, right = 0, seen = 0;
		while (strcmp(study->tasks->items[seen].kind, kind))
			seen++;
		if (seen < first || !*kind)
			continue;
		for (size_t task = first; task < study->tasks->n; task++) {
			const struct study_row *row = study_row(study, task, cell);
			bool counts = row->done && strcmp(study->tasks->items[task].kind, kind) == 0;
			n += counts;
			right += counts && row->right;
		}
		cJSON *item = cJSON_CreateObject();
		cJSON_AddStringToObject(item, "kind", kind);
		print_add_number(item, "n", (double)n);
		print_add_number(item, "correct", (double)right);
		cJSON_AddItemToArray(kinds, item);
	}
}

static cJSON *cell_json(const struct study_report *report, size_t cell)
{
	const struct study *study = report->study;
	const struct study_summary *row = &report->summaries[cell];
	cJSON *object = cJSON_CreateObject();
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		cJSON_AddStringToObject(
			object, axis == GRID_LIMIT ? "think_limit" : grid_axis_name((enum grid_axis)axis),
			study->cells[cell].value[axis]);
	print_add_number(object, "n", (double)row->n);
	print_add_number(object, "correct", (double)row->right);
	print_add_number(object, "errors", (double)row->failed);
	print_add_number(object, "accuracy", (double)row->right / (double)row->n);
	print_add_number(object, "low", row->interval.low);
	print_add_number(object, "high", row->interval.high);
	cJSON *test = cJSON_AddObjectToObject(object, "mcnemar");
	print_add_number(test, "pairs", (double)row->n_pairs);
	print_add_number(test, "lost", (double)row->lost);
	print_add_number(test, "won", (double)row->won);
	print_add_number(test, "p", row->mcnemar.exact);
	print_add_number(test, "mid_p", row->mcnemar.mid);
	print_add_number(object, "same_answers",
					 row->n_twin ? (double)row->n_same / (double)row->n_twin : NAN);
	print_add_number(object, "tokens", row->tokens);
	print_add_number(object, "think_tokens", row->think_tokens);
	print_add_number(object, "seconds", row->seconds);
	print_add_number(object, "seconds_median", row->median_seconds);
	print_add_number(object, "first_seconds", row->first_seconds);
	print_add_number(object, "tokens_per_second", row->tps);
	print_add_number(object, "switch_ms", row->switch_ms);
	cJSON_AddNullToObject(object, "energy_joules");
	cJSON_AddBoolToObject(object, "front", row->front);
	add_kinds(object, study, cell);
	return object;
}

int study_print_json(const struct study_report *report, struct error *err)
{
	cJSON *root = cJSON_CreateObject();
	cJSON_AddStringToObject(root, "tasks_file", report->tasks_file);
	print_add_number(root, "tasks", (double)report->study->tasks->n);
	print_add_number(root, "broken_lines", report->study->tasks->n_broken);
	cJSON_AddBoolToObject(root, "interrupted", report->interrupted);
	for (size_t i = 0; i < report->n_facts; i++)
		if (report->facts[i].number)
			print_add_number(root, report->facts[i].name, strtod(report->facts[i].value, NULL));
		else
			cJSON_AddStringToObject(root, report->facts[i].name, report->facts[i].value);
	print_add_number(root, "baseline", (double)report->study->baseline);
	cJSON *cells = cJSON_AddArrayToObject(root, "cells");
	for (size_t cell = 0; cell < report->study->n_cells; cell++)
		cJSON_AddItemToArray(cells, cell_json(report, cell));
	return print_line(root, err);
}
