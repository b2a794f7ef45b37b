/*
 * The smallest budget that config.json can say and that holds another one: per-layer widths become
 * their largest, runs of unequal length the whole axis. A child with per-layer widths is stored as
 * its hull, with an elastic.json that tells elastiscope what of it to read.
 */
#ifndef EXPORT_HULL_H
#define EXPORT_HULL_H

#include "export/cut.h"

/* A budget that config.json can say is its own hull. Released with budget_free. */
int hull_make(const struct model *model, const struct budget *budget, struct budget *hull,
			  struct error *err);

/* What elastic.json calls a budget that was stored in its hull. */
const char *hull_name(const struct budget *budget);

/* elastic.json of a child that was cut by the hull: the hull, then the budget in it, which runs
 * where none is asked for. */
int hull_elastic(const struct cuts *cuts, const struct budget *budget, struct text *out,
				 struct error *err);

#endif
