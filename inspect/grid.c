#include "inspect/grid.h"
#include "base/memory.h"
#include "core/model.h"
#include "core/rule.h"
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

static int apply_read(struct turn_settings *settings, const char *value, struct error *err)
{
	return copy_budget(settings->read, strcmp(value, GRID_SAME) == 0 ? "" : value, err);
}

/* "" lets the checkpoint's own policy name the budget, where the rule never asks for it. */
static int copy_writer(char to[BUDGET_NAME_BYTES], const char *value, struct error *err)
{
	return copy_budget(to, strcmp(value, GRID_RULE) == 0 ? "" : value, err);
}

static int apply_think(struct turn_settings *settings, const char *value, struct error *err)
{
	settings->thinking = strcmp(value, GRID_OFF) != 0;
	settings->policy = true;
	return settings->thinking ? copy_writer(settings->think, value, err) : 0;
}

/* Comes after think: without thoughts the answer's budget does everything. */
static int apply_answer(struct turn_settings *settings, const char *value, struct error *err)
{
	if (!settings->thinking && copy_writer(settings->think, value, err))
		return -1;
	return copy_writer(settings->answer, value, err);
}

static int apply_handoff(struct turn_settings *settings, const char *value, struct error *err)
{
	bool none = strcmp(value, GRID_NONE) == 0;
	return handoff_parse(none ? handoff_name(HANDOFF_REPREFILL) : value, &settings->handoff,
						 &settings->repair, err);
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

static int apply_policy(struct turn_settings *settings, const char *value, struct error *err)
{
	const char *text = strcmp(value, GRID_NONE) == 0 ? "" : value;
	struct rule rule;
	size_t length = strlen(text);
	if (length >= RULE_BYTES)
		return fail(err, "%zu characters, at most %d", length, RULE_BYTES - 1);
	memcpy(settings->rule, text, length + 1);
	return rule_parse(&rule, text, err);
}

static const struct axis_row {
	const char *name;
	const char *defaults; // a list; NULL = every budget of the model
	const char *word;     // the value that is no budget; NULL = values are no budgets
	int (*apply)(struct turn_settings *settings, const char *value, struct error *err);
} rows[N_GRID_AXES] = {
	[GRID_READ] = {"read", GRID_SAME, GRID_SAME, apply_read},
	[GRID_THINK] = {"think", NULL, GRID_OFF, apply_think},
	[GRID_ANSWER] = {"answer", NULL, "", apply_answer},
	[GRID_HANDOFF] = {"handoff", "reprefill,carry", NULL, apply_handoff},
	[GRID_LIMIT] = {"think-limit", "0", NULL, apply_limit},
	[GRID_POLICY] = {"policy", GRID_NONE, NULL, apply_policy},
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
			return fail(err,
						"'%.*s': expected read=, think=, answer=, handoff=, think-limit= or "
						"policy=",
						(int)length, at);
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
		if (grid->values[axis].n > 0)
			continue;
		const char *defaults = rows[axis].defaults;
		if (axis == GRID_THINK && !model->tokenizer)
			defaults = GRID_OFF; // ids have no format, so no thoughts
		if (defaults) {
			if (grid_add(grid, (enum grid_axis)axis, defaults, err))
				return -1;
			continue;
		}
		for (int i = 0; i < model->elastic.n_budgets; i++) {
			const char *name = model->elastic.budgets[i].name;
			if (add_value(grid, (enum grid_axis)axis, name, strlen(name), err))
				return -1;
		}
	}
	return 0;
}

bool grid_told(const struct cell *cells, size_t n_cells, enum grid_axis axis)
{
	static const char *const plain[N_GRID_AXES] = {
		[GRID_READ] = GRID_SAME,    [GRID_THINK] = "",  [GRID_ANSWER] = "",
		[GRID_HANDOFF] = GRID_NONE, [GRID_LIMIT] = "0", [GRID_POLICY] = GRID_NONE};
	for (size_t cell = 0; cell < n_cells; cell++)
		if (strcmp(cells[cell].value[axis], plain[axis]))
			return true;
	return false;
}

char cell_letter(size_t cell)
{
	static const char letters[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";
	return cell < sizeof letters - 1 ? letters[cell] : '#';
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
	const char **value = cell->value;
	bool off = strcmp(value[GRID_THINK], GRID_OFF) == 0;
	struct turn_settings settings = {0};
	struct rule rule = {0};
	apply_policy(&settings, value[GRID_POLICY], NULL); // was checked
	rule_parse(&rule, settings.rule, NULL);
	if (off)
		value[GRID_LIMIT] = "0";
	if (off && rule.answer.kind == RULE_NONE)
		value[GRID_POLICY] = GRID_NONE;
	if (!off && rule.think.kind != RULE_NONE)
		value[GRID_THINK] = GRID_RULE;
	if (rule.answer.kind != RULE_NONE)
		value[GRID_ANSWER] = GRID_RULE;
	const char *first = value[off ? GRID_ANSWER : GRID_THINK];
	if (strcmp(value[GRID_READ], first) == 0)
		value[GRID_READ] = GRID_SAME;
	bool one = strcmp(first, value[GRID_ANSWER]) == 0 && strcmp(first, GRID_RULE) != 0;
	if (one && strcmp(value[GRID_READ], GRID_SAME) == 0)
		value[GRID_HANDOFF] = GRID_NONE;
}

/* Names the axis, unless the sentence does. */
static int fail_axis(int axis, struct error *err)
{
	size_t length = strlen(rows[axis].name);
	bool named = err && !strncmp(err->text, rows[axis].name, length) && err->text[length] == ':';
	return named ? -1 : fail_in(err, "%s", rows[axis].name);
}

static int check_budget(const struct model *model, const char *value, struct error *err)
{
	struct budget budget = {0};
	int result = *value && model ? model_budget(model, value, &budget, err) : 0;
	budget_free(&budget);
	return result;
}

static int check_value(int axis, const char *value, const struct model *model, struct error *err)
{
	struct turn_settings scratch = {0};
	struct rule rule;
	if (rows[axis].word && strcmp(value, rows[axis].word) && check_budget(model, value, err))
		return -1;
	if (rows[axis].apply(&scratch, value, err) || rule_parse(&rule, scratch.rule, err))
		return -1;
	return check_budget(model, rule.think.then, err) ||
				   check_budget(model, rule.think.otherwise, err) ||
				   check_budget(model, rule.answer.then, err) ||
				   check_budget(model, rule.answer.otherwise, err)
			   ? -1
			   : 0;
}

static int check(const struct grid *grid, const struct model *model, struct error *err)
{
	for (int axis = 0; axis < N_GRID_AXES; axis++)
		for (size_t i = 0; i < grid->values[axis].n; i++)
			if (check_value(axis, grid->values[axis].items[i], model, err))
				return fail_axis(axis, err);
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
			return fail_axis(axis, err);
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
