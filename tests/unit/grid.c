/* The grid: axes as typed, cells that would do the same only once, settings of a cell. */
#include "inspect/grid.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

/* Every axis but think and answer may be left to its default. */
static int parse(struct grid *grid, const char *typed, struct error *err)
{
	*grid = (struct grid){0};
	return grid_parse(grid, typed, err) || grid_complete(grid, NULL, err) ? -1 : 0;
}

static struct cell cell_of(const char *think, const char *answer, const char *handoff,
						   const char *limit)
{
	return (struct cell){.value = {[GRID_READ] = "same",
								   [GRID_THINK] = think,
								   [GRID_ANSWER] = answer,
								   [GRID_HANDOFF] = handoff,
								   [GRID_LIMIT] = limit,
								   [GRID_POLICY] = "none"}};
}

static void is_cell(const struct cell *cell, const char *think, const char *answer,
					const char *handoff, const char *limit)
{
	assert_string_equal(cell->value[GRID_THINK], think);
	assert_string_equal(cell->value[GRID_ANSWER], answer);
	assert_string_equal(cell->value[GRID_HANDOFF], handoff);
	assert_string_equal(cell->value[GRID_LIMIT], limit);
}

static void axes_as_typed(void **state)
{
	struct grid grid;
	struct error err = {0};
	(void)state;
	assert_int_equal(parse(&grid, " think = x", &err), -1);
	grid_free(&grid);
	assert_int_equal(parse(&grid,
						   "think=small, {hidden_size=96,skip=3},small;answer=large;"
						   "think=off;",
						   &err),
					 0);
	assert_int_equal(grid.values[GRID_THINK].n, 3);
	assert_string_equal(grid.values[GRID_THINK].items[1], "hidden_size=96,skip=3");
	assert_string_equal(grid.values[GRID_THINK].items[2], "off");
	assert_int_equal(grid.values[GRID_ANSWER].n, 1);
	assert_int_equal(grid_add(&grid, GRID_LIMIT, "10,20", &err), 0);
	assert_int_equal(grid.values[GRID_LIMIT].n, 3);
	assert_int_equal(grid_add(&grid, GRID_LIMIT, "10;x=20", &err), -1);
	grid_free(&grid);
	static const char *const wrong[] = {
		"size=3", "think", "think=", "think=a,,b", "think={a", "think={a}b"};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		memset(&err, 0, sizeof err);
		assert_int_equal(parse(&grid, wrong[i], &err), -1);
		assert_true(err.text[0] != '\0');
		grid_free(&grid);
	}
}

static void the_same_only_once(void **state)
{
	struct grid grid;
	struct cell *cells;
	struct error err = {0};
	(void)state;
	assert_int_equal(
		parse(&grid, "think=a,b;answer=a,b;handoff=reprefill,carry;think-limit=0", &err), 0);
	assert_int_equal(grid_cells(&grid, NULL, &cells, &err), 6);
	is_cell(&cells[0], "a", "a", "none", "0");
	is_cell(&cells[1], "a", "b", "reprefill", "0");
	is_cell(&cells[2], "a", "b", "carry", "0");
	is_cell(&cells[3], "b", "a", "reprefill", "0");
	is_cell(&cells[5], "b", "b", "none", "0");
	free(cells);
	grid_free(&grid);
	assert_int_equal(
		parse(&grid, "think=off,a;answer=a,b;handoff=reprefill;think-limit=0,30", &err), 0);
	assert_int_equal(grid_cells(&grid, NULL, &cells, &err), 6);
	is_cell(&cells[0], "off", "a", "none", "0");
	is_cell(&cells[1], "off", "b", "none", "0");
	is_cell(&cells[2], "a", "a", "none", "0");
	is_cell(&cells[3], "a", "a", "none", "30");
	is_cell(&cells[5], "a", "b", "reprefill", "30");
	free(cells);
	grid_free(&grid);
}

static void readers_and_policies(void **state)
{
	struct grid grid;
	struct cell *cells;
	struct error err = {0};
	struct turn_settings settings = {0};
	(void)state;
	// b reads, a writes: a handoff; a reads, a writes: none
	assert_int_equal(parse(&grid, "read=same,a,b;think=a;answer=a;handoff=carry", &err), 0);
	assert_int_equal(grid_cells(&grid, NULL, &cells, &err), 2);
	is_cell(&cells[0], "a", "a", "none", "0");
	assert_string_equal(cells[0].value[GRID_READ], "same");
	is_cell(&cells[1], "a", "a", "carry", "0");
	assert_string_equal(cells[1].value[GRID_READ], "b");
	assert_int_equal(grid_settings(&cells[1], &settings, &err), 0);
	assert_string_equal(settings.read, "b");
	assert_string_equal(settings.rule, "");
	free(cells);
	grid_free(&grid);
	// a rule for both phases leaves nothing to choose; one for the thoughts leaves the answer
	assert_int_equal(parse(&grid,
						   "think=a,b;answer=a,b;handoff=carry,repair:16;"
						   "policy=entropy>2 a else b,{think: every 8 a else b}",
						   &err),
					 0);
	assert_int_equal(grid_cells(&grid, NULL, &cells, &err), 6);
	is_cell(&cells[0], "rule", "rule", "carry", "0");
	is_cell(&cells[1], "rule", "a", "carry", "0");
	is_cell(&cells[2], "rule", "rule", "repair:16", "0");
	is_cell(&cells[3], "rule", "a", "repair:16", "0");
	is_cell(&cells[4], "rule", "b", "carry", "0");
	assert_int_equal(grid_settings(&cells[3], &settings, &err), 0);
	assert_string_equal(settings.rule, "think: every 8 a else b");
	assert_string_equal(settings.think, "");
	assert_string_equal(settings.answer, "a");
	assert_int_equal(settings.handoff, HANDOFF_REPAIR);
	assert_int_equal(settings.repair, 16);
	free(cells);
	grid_free(&grid);
	assert_int_equal(parse(&grid, "think=a;answer=a;policy=entropy>x a else b", &err), 0);
	assert_int_equal(grid_cells(&grid, NULL, &cells, &err), -1);
	assert_non_null(strstr(err.text, "policy: "));
	grid_free(&grid);
}

static void values_are_checked(void **state)
{
	struct grid grid;
	struct cell *cells;
	struct error err = {0};
	(void)state;
	assert_int_equal(parse(&grid, "think=a;answer=a;handoff=drop;think-limit=0", &err), 0);
	assert_int_equal(grid_cells(&grid, NULL, &cells, &err), -1);
	assert_non_null(strstr(err.text, "handoff: "));
	assert_non_null(strstr(err.text, "'drop'"));
	grid_free(&grid);
	assert_int_equal(parse(&grid, "think=a;answer=a;handoff=carry;think-limit=-3", &err), 0);
	assert_int_equal(grid_cells(&grid, NULL, &cells, &err), -1);
	assert_string_equal(err.text, "think-limit: '-3': expected tokens, 0 = no limit");
	grid_free(&grid);
}

static void settings_of_a_cell(void **state)
{
	struct error err = {0};
	struct turn_settings settings = {.max_tokens = 7};
	struct cell cell = cell_of("small", "large", "carry", "30");
	(void)state;
	assert_int_equal(grid_settings(&cell, &settings, &err), 0);
	assert_true(settings.thinking && settings.policy);
	assert_string_equal(settings.think, "small");
	assert_string_equal(settings.answer, "large");
	assert_int_equal(settings.handoff, HANDOFF_CARRY);
	assert_int_equal(settings.think_limit, 30);
	assert_int_equal(settings.max_tokens, 7);
	cell = cell_of("off", "medium", "none", "0");
	assert_int_equal(grid_settings(&cell, &settings, &err), 0);
	assert_false(settings.thinking);
	assert_string_equal(settings.think, "medium");
	assert_string_equal(settings.answer, "medium");
	assert_int_equal(settings.handoff, HANDOFF_REPREFILL);
	assert_int_equal(settings.think_limit, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(axes_as_typed),        cmocka_unit_test(the_same_only_once),
		cmocka_unit_test(readers_and_policies), cmocka_unit_test(values_are_checked),
		cmocka_unit_test(settings_of_a_cell),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
