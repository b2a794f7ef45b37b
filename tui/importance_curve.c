/* The importance pane's curve of scores with every budget's cut through it, and what each keeps. */
#include "base/memory.h"
#include "tui/pane_importance.h"
#include "tui/table.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define SCALE_COLUMNS 8

/* A line wherever a budget stops keeping, or its letter, which goes over the curve. */
static void draw_cuts(const struct pane_importance *p, const struct canvas *canvas, bool letters)
{
	const struct elastic *elastic = &p->pane.talk->model->elastic;
	int n = p->curve.n, last_at = -1, depth = 0;
	for (int b = elastic->n_budgets - 1; b >= 0; b--) {
		char letter[2] = {elastic_mark(elastic, b)};
		for (int i = 0; i < n; i++) {
			if (!(p->kept[i] >> b & 1) || (i + 1 < n && p->kept[i + 1] >> b & 1))
				continue;
			int at = (int)((int64_t)(i + 1) * canvas->columns / n);
			at = at >= canvas->columns ? canvas->columns - 1 : at;
			depth = at == last_at ? depth + 1 : 0;
			last_at = at;
			if (letters)
				canvas_text(canvas, depth, at, role_of_budget(b), letter);
			else
				canvas_column_rule(canvas, 0, at, canvas->rows, role_of_budget(b));
		}
	}
}

void importance_curve_draw(const struct pane_importance *p, const struct canvas *canvas)
{
	int n = p->curve.n, rows = canvas->rows - 1;
	float high = 0, *values = mem_new((size_t)n, sizeof *values, NULL);
	struct canvas plot = canvas_part(canvas, 0, SCALE_COLUMNS, rows, canvas->columns);
	if (!values || rows < 2) {
		free(values);
		return;
	}
	for (int i = 0; i < n; i++) {
		values[i] = p->cumulated ? (float)p->cumulative[i] : p->curve.score[i];
		high = values[i] > high ? values[i] : high;
	}
	draw_cuts(p, &plot, false);
	canvas_curve(&plot, values, n, 0, high, ROLE_BAR);
	draw_cuts(p, &plot, true);
	canvas_print(canvas, 0, 0, ROLE_DIM, "%7.3g", (double)high);
	if (rows > 2)
		canvas_print(canvas, rows / 2, 0, ROLE_DIM, "%7.3g", (double)high / 2);
	canvas_print(canvas, rows - 1, 0, ROLE_DIM, "%7d", 0);
	canvas_print(canvas, rows, 0, ROLE_DIM, "%7s 0", p->query.axis == N_AXES ? "layer" : "channel");
	char end[16];
	snprintf(end, sizeof end, "%d", n);
	canvas_right(canvas, rows, canvas->columns, ROLE_DIM, end);
	free(values);
}

void importance_budgets_draw(const struct pane_importance *p, const struct canvas *canvas)
{
	const struct elastic *elastic = &p->pane.talk->model->elastic;
	struct table table = {0};
	int name = table_add(&table, "budget", -12, 0), keeps = table_add(&table, "keeps", 6, 0);
	int of = table_add(&table, "of all", 7, 2), retained = table_add(&table, "retained", 9, 0);
	int best = table_add(&table, "of best", 8, 2), bar = table_add(&table, "", -30, 1);
	if (canvas->columns < 70)
		table.columns[bar].width = canvas->columns > 46 ? -(canvas->columns - 40) : -1;
	table_lay(&table, 0, canvas->columns);
	table_head(&table, canvas, 0, -1);
	for (int b = 0; b < elastic->n_budgets && 1 + b < canvas->rows; b++) {
		enum role role = role_of_budget(b);
		char count[16];
		snprintf(count, sizeof count, "%d", p->curve.width[b]);
		table_cell(&table, canvas, b + 1, name, role,
				   budget_label(elastic, b, elastic->budgets[b].name, 12).text);
		if (p->curve.width[b] == 0) {
			table_cell(&table, canvas, b + 1, keeps, ROLE_DIM, "-");
			table_cell(&table, canvas, b + 1, retained, ROLE_DIM, "left out");
			continue;
		}
		table_cell(&table, canvas, b + 1, keeps, ROLE_TEXT, count);
		table_cell(&table, canvas, b + 1, of, ROLE_TEXT,
				   number_percent((double)p->curve.width[b] / p->curve.n).text);
		table_cell(&table, canvas, b + 1, retained, ROLE_TEXT,
				   number_percent(p->curve.retained[b]).text);
		// how much of what the best channels would keep
		double share = p->curve.best[b] > 0 ? p->curve.retained[b] / p->curve.best[b] : (double)NAN;
		table_cell(&table, canvas, b + 1, best, share < .95 ? ROLE_WARN : ROLE_TEXT,
				   number_percent(share).text);
		table_bar(&table, canvas, b + 1, bar, role, p->curve.retained[b]);
	}
}
