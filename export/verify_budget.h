/* Which budget of the parent a child's config.json describes: widths as they stand there, layers by
 * their norms. */
#ifndef EXPORT_VERIFY_BUDGET_H
#define EXPORT_VERIFY_BUDGET_H

#include "core/model.h"

/* *named: it is one of the parent's, and has its name; else its name is its widths. Released with
 * budget_free, also on -1. */
int verify_find_budget(struct budget *budget, bool *named, const struct model *parent,
					   const struct checkpoint *child, const struct config *config,
					   struct error *err);

#endif
