#include "tui/nesting_formats.h"
#include "tui/look.h"
#include "tui/table.h"
#include <stdio.h>

static int draw_costs(const struct nesting *nesting, const struct canvas *canvas, int row,
					  int n_named)
{
	struct table table = {0};
	int name = table_add(&table, "format", -8, 0), budget = table_add(&table, "budget", -12, 0);
	int bytes = table_add(&table, "bytes", 9, 0), step = table_add(&table, "MB/token", 9, 3);
	int scales = table_add(&table, "scales", 9, 2), share = table_add(&table, "%", 6, 4);
	int from = table_add(&table, "", -10, 5);
	table_lay(&table, 0, canvas->columns);
	if (row >= 0)
		table_head(&table, canvas, row, -1);
	row++;
	for (int b = 0; b < nesting->n_budgets; b++)
		for (int p = 0; p < N_PRECISIONS; p++) {
			const struct precision_cost *cost = &nesting->costs[b][p];
			if (!precision_says(nesting->costs[b], (enum precision)p))
				continue;
			int at = row++;
			if (at < 0 || at >= canvas->rows)
				continue;
			table_cell(&table, canvas, at, name, ROLE_TEXT, precision_name((enum precision)p));
			table_cell(&table, canvas, at, budget, role_of_budget(b < n_named ? b : -1),
					   nesting->budgets[b].name);
			table_cell(&table, canvas, at, bytes, ROLE_TEXT,
					   number_bytes((int64_t)cost->bytes).text);
			table_cell(&table, canvas, at, step, ROLE_TEXT,
					   number_fixed((double)cost->bytes_per_token / 1e6, 3).text);
			table_cell(&table, canvas, at, scales, ROLE_TEXT,
					   number_bytes((int64_t)cost->scale_bytes).text);
			table_cell(&table, canvas, at, share, ROLE_TEXT,
					   number_percent((double)cost->scale_bytes / (double)cost->bytes).text);
			table_cell(&table, canvas, at, from, ROLE_DIM,
					   origin_name(precision_origin((enum precision)p)));
		}
	return row;
}

static void draw_modules(const struct nesting *nesting, const struct canvas *canvas, int row)
{
	struct table table = {0};
	int what = table_add(&table, "modules", -24, 0), format = table_add(&table, "format", -7, 0);
	int n = table_add(&table, "number", 6, 3), bytes = table_add(&table, "bytes", 9, 1);
	int scales = table_add(&table, "scales", 9, 4);
	int why_width = canvas->columns >= 110 ? 48 : 32, why = table_add(&table, "why", -why_width, 2);
	table_lay(&table, 0, canvas->columns);
	if (row >= 0 && row < canvas->rows)
		table_head(&table, canvas, row, -1);
	for (int i = 0; i < nesting->modules.n; i++) {
		const struct module_group *g = &nesting->modules.groups[i];
		int at = ++row;
		if (at < 0 || at >= canvas->rows)
			continue;
		char number[16];
		struct text reason = {0};
		snprintf(number, sizeof number, "%d", g->n);
		text_format(&reason, "%s%s", g->why, g->n_layers ? "; " : "");
		module_group_layers(g, &reason);
		table_cell(&table, canvas, at, what, ROLE_TEXT, g->what);
		table_cell(&table, canvas, at, format, g->scale_bytes ? ROLE_GOOD : ROLE_TEXT,
				   dtype_name(g->dtype));
		table_cell(&table, canvas, at, n, ROLE_TEXT, number);
		table_cell(&table, canvas, at, bytes, ROLE_TEXT, number_bytes((int64_t)g->bytes).text);
		table_cell(&table, canvas, at, scales, ROLE_TEXT,
				   number_bytes((int64_t)g->scale_bytes).text);
		table_cell(&table, canvas, at, why, ROLE_DIM, text_chars(&reason));
		text_free(&reason);
	}
}

void nesting_formats_draw(const struct nesting *nesting, const struct canvas *canvas, int top,
						  int n_named)
{
	int row = draw_costs(nesting, canvas, -top, n_named);
	draw_modules(nesting, canvas, row + 1);
}

int nesting_formats_lines(const struct nesting *nesting)
{
	int n = 3 + nesting->modules.n; // two heads and a blank
	for (int b = 0; b < nesting->n_budgets; b++)
		for (int p = 0; p < N_PRECISIONS; p++)
			n += precision_says(nesting->costs[b], (enum precision)p);
	return n;
}
