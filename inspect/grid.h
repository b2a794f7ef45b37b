/*
 * The cells of a study: every combination of the axes' values, those that would do the same thing
 * only once. A value is text; an axis is a row of the table in grid.c, which says how the value
 * becomes a setting of the turn.
 */
#ifndef INSPECT_GRID_H
#define INSPECT_GRID_H

#include "core/event.h"

struct model;

enum grid_axis {
	GRID_READ,
	GRID_THINK,
	GRID_ANSWER,
	GRID_HANDOFF,
	GRID_LIMIT,
	GRID_POLICY,
	N_GRID_AXES
};

#define GRID_SAME "same" // of read: who writes first
#define GRID_OFF "off"   // of think: no thoughts
#define GRID_RULE "rule" // of think and answer: the policy says who
#define GRID_NONE "none" // of policy; of handoff: one budget does everything

struct grid {
	struct grid_values {
		char **items; // owned
		size_t n, capacity;
	} values[N_GRID_AXES];
};

struct cell {
	const char *value[N_GRID_AXES]; // the grid's own, or constants
};

const char *grid_axis_name(enum grid_axis axis); // as typed, as a column is headed

/* "think=small,large;answer=large": these values and no others. A value with a comma in it stands
 * in braces: think={hidden_size=96,skip=3}. An axis named twice keeps both lists. */
int grid_parse(struct grid *grid, const char *typed, struct error *err);

/* The same for one axis: "small,large". */
int grid_add(struct grid *grid, enum grid_axis axis, const char *list, struct error *err);

/* Axes without values get the default: every budget thinks (having read the prompt; nobody without
 * a tokenizer), every budget answers, reprefill and carry, no limit, no policy. */
int grid_complete(struct grid *grid, const struct model *model, struct error *err);

/* The cells, in the axes' order, in *cells (free()); every value is checked. Returns how many, -1
 * on a value that means nothing. */
int grid_cells(const struct grid *grid, const struct model *model, struct cell **cells,
			   struct error *err);

/* What a cell asks of a turn; the rest stays as it is. */
int grid_settings(const struct cell *cell, struct turn_settings *settings, struct error *err);

/* Whether a table needs the axis: its values differ or say something; think and answer always. */
bool grid_told(const struct cell *cells, size_t n_cells, enum grid_axis axis);

char cell_letter(size_t cell); // a to z, A to Z, then #: tables and plots name cells by it

bool cell_equal(const struct cell *a, const struct cell *b);

void grid_free(struct grid *grid); // takes {0}

#endif
