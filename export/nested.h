/*
 * What makes a checkpoint a parent: elastic.json, and the router and the importance that it names.
 * The target's elastic.json is the file that the budgets came from; it names no file that the
 * target does not have.
 */
#ifndef EXPORT_NESTED_H
#define EXPORT_NESTED_H

#include "core/model.h"
#include "export/staging.h"

/* budgets_file: where the model's budgets were read from; NULL = its directory's elastic.json, and
 * nothing is written where there is none. *n_files grows by what is. */
int nested_write(const struct staging *staging, const struct model *model, const char *budgets_file,
				 int *n_files, struct error *err);

#endif
