/* What a checkpoint's formats cost, as `info` and `inspect nesting` print it. */
#ifndef CLI_MODULES_H
#define CLI_MODULES_H

#include "inspect/modules.h"

struct cJSON;

/* A row a format that says anything (BF16 only of what is quantised) for one budget. */
void print_precisions_head(void);
void print_precisions(const char *budget, const struct precision_cost costs[N_PRECISIONS]);
void print_modules(const char *budget, const struct modules *modules);

/* Arrays "precisions" and "modules". */
void add_precisions(struct cJSON *object, const struct precision_cost costs[N_PRECISIONS]);
void add_modules(struct cJSON *object, const struct modules *modules);

#endif
