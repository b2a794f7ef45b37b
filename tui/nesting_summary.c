#include "tui/nesting_summary.h"
#include "tui/table.h"
#include <stdio.h>

int nesting_index(const struct model *model, int budget)
{
	return budget < model->elastic.n_budgets ? budget : -1;
}

struct number nesting_label(const struct nesting *nesting, const struct model *model, int budget,
							int columns)
{
	return budget_label(&model->elastic, nesting_index(model, budget),
						nesting->budgets[budget].name, columns);
}

enum mask_mark nesting_mark(const struct nesting *nesting, const struct model *model,
							const struct nesting_row *row, int budget)
{
	if (nesting_index(model, budget) >= 0)
		return MASK_TRAINED;
	return mask_mark(&nesting->budgets[budget], &model->elastic, &model->config, row->axis,
					 row->layer < 0 ? 0 : row->layer);
}

static int draw_totals(const struct nesting *nesting, const struct model *model,
					   const struct canvas *canvas, int most)
{
	struct table table = {0};
	int name = table_add(&table, "budget", -12, 0), total = table_add(&table, "total", 7, 0);
	int share = table_add(&table, "%", 6, 2), active = table_add(&table, "active", 7, 0);
	int part = table_add(&table, "%", 6, 3), bytes = table_add(&table, "bytes", 8, 5);
	int step = table_add(&table, "MB/token", 8, 4), inside = table_add(&table, "inside", -10, 6);
	int from = table_add(&table, "widths from", canvas->columns >= 110 ? -32 : -24, 7);
	table_lay(&table, 0, canvas->columns);
	table_head(&table, canvas, 0, -1);
	int row = 1;
	for (int b = 0; b < nesting->n_budgets && row < most; b++, row++) {
		const struct slice_cost *cost = &nesting->cost[b];
		const struct budget *budget = &nesting->budgets[b];
		char text[160];
		table_cell(&table, canvas, row, name, role_of_budget(nesting_index(model, b)),
				   nesting_label(nesting, model, b, 12).text);
		table_cell(&table, canvas, row, total, ROLE_TEXT, number_count((double)cost->total).text);
		table_cell(&table, canvas, row, share, ROLE_TEXT,
				   number_percent(nesting_share(nesting, b, false)).text);
		table_cell(&table, canvas, row, active, ROLE_TEXT, number_count((double)cost->active).text);
		table_cell(&table, canvas, row, part, ROLE_TEXT,
				   number_percent(nesting_share(nesting, b, true)).text);
		table_cell(&table, canvas, row, bytes, ROLE_TEXT, number_bytes((int64_t)cost->bytes).text);
		table_cell(&table, canvas, row, step, ROLE_TEXT,
				   number_fixed((double)cost->bytes_per_token / 1e6, 3).text);
		if (b > 0) {
			bool holds = nesting->contained[b];
			snprintf(text, sizeof text, "%s %.64s",
					 canvas_glyph(canvas, holds ? GLYPH_CHECK : GLYPH_CROSS),
					 nesting->budgets[nesting->container[b]].name);
			table_cell(&table, canvas, row, inside, holds ? ROLE_GOOD : ROLE_ERROR, text);
		} else {
			table_cell(&table, canvas, row, inside, ROLE_DIM, "parent");
		}
		snprintf(text, sizeof text, "%s: %s", origin_name(budget->origin), budget->source);
		table_cell(&table, canvas, row, from, ROLE_DIM, text);
	}
	return row;
}

/* Of the file's budgets: a mask stands beside them. */
static bool only_leading(const struct nesting *nesting, int n_budgets)
{
	for (int i = 0; i < nesting->n_rows; i++)
		for (int b = 0; b < n_budgets; b++)
			if (nesting->rows[i].runs[b])
				return false;
	return true;
}

static const char *proof_sentence(bool leading, bool roomy)
{
	if (leading)
		return roomy ? "nested by construction: each budget is a leading part of the one before"
					 : "nested by construction (leading parts)";
	return roomy ? "nested, checked run by run: each budget lies inside the one before"
				 : "nested, checked run by run";
}

/* The file's budgets nest; where a mask stands beside them, whether it does too. */
static void draw_nested(const struct nesting *nesting, const struct model *model,
						const struct canvas *canvas, int row)
{
	int file = model->elastic.n_budgets, last = nesting->n_budgets - 1, broken = 0;
	bool mask = nesting_index(model, last) < 0,
		 leading = only_leading(nesting, mask ? file : last + 1);
	const char *check = canvas_glyph(canvas, GLYPH_CHECK);
	if (!mask) {
		canvas_print(canvas, row, 0, ROLE_GOOD, "%s %s", check,
					 proof_sentence(leading, canvas->columns >= 76));
		return;
	}
	for (int i = 0; i < nesting->n_rows; i++)
		broken += nesting_mark(nesting, model, &nesting->rows[i], last) == MASK_BROKEN;
	int at = file < 2
				 ? 0
				 : canvas_print(canvas, row, 0, ROLE_GOOD, "%s the file's budgets are nested%s; ",
								check, !leading ? "" : " (leading parts)");
	if (broken)
		canvas_print(canvas, row, at, ROLE_ERROR, "%s the mask is not, on %d row%s (!, n next)",
					 canvas_glyph(canvas, GLYPH_CROSS), broken, broken == 1 ? "" : "s");
	else
		canvas_text(canvas, row, at, ROLE_GOOD, "the mask nests with each, row by row");
}

static void draw_proof(const struct nesting *nesting, const struct model *model,
					   const struct canvas *canvas, int row)
{
	if (nesting->n_violations > 0)
		canvas_print(canvas, row, 0, ROLE_ERROR,
					 "%s NOT NESTED: %d violation%s (v shows them, n next)",
					 canvas_glyph(canvas, GLYPH_CROSS), nesting->n_violations,
					 nesting->n_violations == 1 ? "" : "s");
	else if (nesting->n_budgets < 2)
		canvas_text(canvas, row, 0, ROLE_DIM, "One budget: nothing is nested in this checkpoint.");
	else
		draw_nested(nesting, model, canvas, row);
}

static void draw_saving(const struct nesting *nesting, const struct canvas *canvas, int row)
{
	double saved = 1 - (double)nesting->file_bytes / (double)nesting->separate_bytes;
	char text[160];
	snprintf(text, sizeof text, "%s %s, this file %s",
			 canvas->columns >= 60 ? "separate children" : "children",
			 number_bytes((int64_t)nesting->separate_bytes).text,
			 number_bytes((int64_t)nesting->file_bytes).text);
	int at = canvas_text(canvas, row, 0, ROLE_TEXT, text);
	if (nesting->n_budgets > 1 && saved > 0)
		at += canvas_print(canvas, row, at, ROLE_TEXT, ": saves %s", number_percent(saved).text);
	if (at + 36 <= canvas->columns)
		canvas_text(canvas, row, at, ROLE_DIM, "  (derived from shapes; f: formats)");
	else if (at + 14 <= canvas->columns)
		canvas_text(canvas, row, at, ROLE_DIM, "  (f: formats)");
}

/* One line where there is no room for the table of totals. */
static void draw_summary(const struct nesting *nesting, const struct model *model,
						 const struct canvas *canvas)
{
	bool holds = nesting->n_violations == 0;
	int at = canvas_print(canvas, 0, 0, holds ? ROLE_GOOD : ROLE_ERROR, "%s %s ",
						  canvas_glyph(canvas, holds ? GLYPH_CHECK : GLYPH_CROSS),
						  holds ? "nested" : "NOT NESTED");
	for (int b = 0; b < nesting->n_budgets; b++)
		at +=
			canvas_print(canvas, 0, at, role_of_budget(nesting_index(model, b)), " %s %s",
						 nesting_label(nesting, model, b, nesting_index(model, b) < 0 ? 5 : 1).text,
						 number_percent(nesting_share(nesting, b, true)).text);
	if (at + 7 <= canvas->columns)
		canvas_text(canvas, 0, at, ROLE_DIM, " active");
}

int nesting_summary_draw(const struct nesting *nesting, const struct model *model,
						 const struct canvas *canvas)
{
	int wanted = 1 + nesting->n_budgets, most = canvas->rows / 3;
	if (canvas->rows < 12) {
		draw_summary(nesting, model, canvas);
		return 1;
	}
	int row = draw_totals(nesting, model, canvas, wanted < most ? wanted : most);
	draw_saving(nesting, canvas, row++);
	draw_proof(nesting, model, canvas, row++);
	return row;
}
