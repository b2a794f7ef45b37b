#include "inspect/grid.h"
#include "base/memory.h"
#include "core/model.h"
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#define MAX_CELLS 4096

static int copy_budget(char to[BUDGET_NAME_BYTES], const char *value, struct error *err)
{
	size_t length = strlen(value);
	if (length >= BUDGET_NAME_BYTES)
		return fail(err, "%zu characters, at most %d", length, BUDGET_NAME_BYTES - 1);
	memcpy(to, value, length + 1);
	return 0;
}

static int apply_think(struct turn_settings *settings, const char *value, struct error *err)
{
	settings->thinking = strcmp(value, GRID_OFF) != 0;
	settings->policy = true;
	return settings->thinking ? copy_budget(settings->think, value, err) : 0;
}

/* Comes after think: without thoughts the answer's budget does everything. */
static int apply_answer(struct turn_settings *settings, const char *value, struct error *err)
{
	if (!settings->thinking && copy_budget(settings->think, value, err))
		return -1;
	return copy_budget(settings->answer, value, err) || copy_budget(settings->budget, value, err)
			   ? -1
			   : 0;
}

static int apply_handoff(struct turn_settings *settings, const char *value, struct error *err)
{
	int handoff = strcmp(value, GRID_NONE) == 0 ? HANDOFF_REPREFILL : handoff_find(value);
	if (handoff < 0)
		return fail(err, "'%s': expected reprefill or carry", value);
	settings->handoff = (enum handoff)handoff;
	return 0;
}

static int apply_limit(struct turn_settings *settings, const char *value, struct error *err)
{
	char *end;
	errno = 0;
	long limit = strtol(value, &end, 10);
	if (end == value || *end || errno || limit < 0 || limit > INT_MAX)
		return fail(err, "'%s': expected tokens, 0 = no limit", value);
	settings->think_limit = (int)limit;
	return 0;
}

static const struct axis_row {
	const char *name;
	bool budget;      // values are budgets of the model
	const char *idle; // value where nobody thinks; NULL = stays
	int (*apply)(struct turn_settings *settings, const char *value, struct error *err);
} rows[N_GRID_AXES] = {
	[GRID_THINK] = {"think", true, NULL, apply_think},
	[GRID_ANSWER] = {"answer", true, NULL, apply_answer},
	[GRID_HANDOFF] = {"handoff", false, GRID_NONE, apply_handoff},
	[GRID_LIMIT] = {"think-limit", false, "0", apply_limit},
};

const char *grid_axis_name(enum grid_axis axis)
{
	return rows[axis].name;
}

static int add_value(struct grid *grid, enum grid_axis axis, const char *value, size_t length,
					 struct error *err)
{
	struct grid_values *values = &grid->values[axis];
	while (length > 0 && value[0] == ' ') {
		value++;
		length--;
	}
	while (length > 0 && value[length - 1] == ' ')
		length--;
	if (length == 0)
		return fail(err, "%s: a value is empty", rows[axis].name);
	for (size_t i = 0; i < values->n; i++)
		if (strlen(values->items[i]) == length && !memcmp(values->items[i], value, length))
			return 0;
	if (mem_grow(&values->items, &values->capacity, values->n + 1, sizeof *values->items, err))
		return -1;
	char *copy = mem_string(value, length, err);
	if (!copy)
		return -1;
	values->items[values->n++] = copy;
	return 0;
}

/* Adds the values of a list up to ';' or its end; *at moves there. */
static int add_list(struct grid *grid, enum grid_axis axis, const char **at, struct error *err)
{
	for (const char *list = *at;;) {
		list += strspn(list, " ");
		bool braced = *list == '{';
		size_t length = braced ? strcspn(++list, "}") : strcspn(list, ",;");
		if (braced && list[length] != '}')
			return fail(err, "%s: '{' without '}'", rows[axis].name);
		if (add_value(grid, axis, list, length, err))
			return -1;
		list += length + braced;
		list += strspn(list, " ");
		*at = list;
		if (*list != ',')
			return 0;
		list++;
	}
}

int grid_add(struct grid *grid, enum grid_axis axis, const char *list, struct error *err)
{
	if (add_list(grid, axis, &list, err))
		return -1;
	return *list ? fail(err, "%s: '%s' after the values", rows[axis].name, list) : 0;
}

int grid_parse(struct grid *grid, const char *typed, struct error *err)
{
	for (const char *at = typed + strspn(typed, " ;"); *at; at += strspn(at, " ;")) {
		size_t length = strcspn(at, "=;");
		int axis = 0;
		while (axis < N_GRID_AXES &&
			   (strlen(rows[axis].name) != length || memcmp(rows[axis].name, at, length)))
			axis++;
		if (axis == N_GRID_AXES || at[length] != '=')
			return fail(
				err, "'%.*s': expected think=, answer=, handoff= or think-limit=", (int)length, at);
		at += length + 1;
		if (add_list(grid, (enum grid_axis)axis, &at, err))
			return -1;
		if (*at && *at != ';')
			return fail(err, "%s: '%s' after a value, expected ',' or ';'", rows[axis].name, at);
	}
	return 0;
}

int grid_complete(struct grid *grid, const struct model *model, struct error *err)
{
	for (int axis = 0; axis < N_GRID_AXES; axis++) {
		if (grid->values[axis].n > 0 || !rows[axis].budget)
			continue;
		for (int i = 0; i < model->elastic.n_budgets; i++) {
			const char *name = model->elastic.budgets[i].name;
			if (add_value(grid, (enum grid_axis)axis, name, strlen(name), err))
				return -1;
		}
	}
	if (grid->values[GRID_HANDOFF].n == 0 && grid_add(grid, GRID_HANDOFF, "reprefill,carry", err))
		return -1;
	return grid->values[GRID_LIMIT].n == 0 ? grid_add(grid, GRID_LIMIT, "0", err) : 0;
}

bool cell_equal(const struct cell *a, const struct cell *b)
{
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		if (strcmp(a->value[axis], b->value[axis]))
			return false;
	return true;
}

/* What can't matter gets the value that says so, so that cells that do the same compare equal. */
static void normalise(struct cell *cell)
{
	bool off = strcmp(cell->value[GRID_THINK], GRID_OFF) == 0;
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		if (off && rows[axis].idle)
			cell->value[axis] = rows[axis].idle;
	if (strcmp(cell->value[GRID_THINK], cell->value[GRID_ANSWER]) == 0)
		cell->value[GRID_HANDOFF] = GRID_NONE;
}

static int check(const struct grid *grid, const struct model *model, struct error *err)
{
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		for (size_t i = 0; i < grid->values[axis].n; i++) {
			const char *value = grid->values[axis].items[i];
			struct turn_settings scratch = {0};
			struct budget budget = {0};
			bool named = rows[axis].budget && (axis != GRID_THINK || strcmp(value, GRID_OFF));
			if ((named && model && model_budget(model, value, &budget, err)) ||
				rows[axis].apply(&scratch, value, err))
				return fail_in(err, "%s", rows[axis].name);
			budget_free(&budget);
		}
	return 0;
}

int grid_cells(const struct grid *grid, const struct model *model, struct cell **cells,
			   struct error *err)
{
	size_t all = 1, n = 0;
	*cells = NULL;
	if (check(grid, model, err))
		return -1;
	for (int axis = 0; axis < N_GRID_AXES; axis++) {
		if (!mem_multiply(all, grid->values[axis].n, &all) || all > MAX_CELLS)
			return fail(err, "the grid has more than %d cells", MAX_CELLS);
	}
	struct cell *list = mem_new(all, sizeof *list, err);
	if (!list)
		return -1;
	for (size_t i = 0; i < all; i++) {
		size_t rest = i; // the last axis counts fastest
		for (int axis = N_GRID_AXES; axis-- > 0;) {
			const struct grid_values *values = &grid->values[axis];
			list[n].value[axis] = values->items[rest % values->n];
			rest /= values->n;
		}
		normalise(&list[n]);
		size_t same = 0;
		while (!cell_equal(&list[same], &list[n]))
			same++;
		n += same == n;
	}
	*cells = list;
	return (int)n;
}

int grid_settings(const struct cell *cell, struct turn_settings *settings, struct error *err)
{
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		if (rows[axis].apply(settings, cell->value[axis], err))
			return fail_in(err, "%s", rows[axis].name);
	return 0;
}

void grid_free(struct grid *grid)
{
	for (int axis = 0; axis < N_GRID_AXES; axis++) {
		for (size_t i = 0; i < grid->values[axis].n; i++)
			free(grid->values[axis].items[i]);
		free(grid->values[axis].items);
	}
	*grid = (struct grid){0};
}
