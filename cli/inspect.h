/* Inside `inspect`: what its views share. Each prints to stdout as a table, JSON or CSV. */
#ifndef CLI_INSPECT_H
#define CLI_INSPECT_H

#include "cli/command.h"
#include <cjson/cJSON.h>

int inspect_nesting(const struct cli *cli, const struct model *model, struct error *err);
int inspect_masks(const struct cli *cli, const struct model *model, struct error *err);
int inspect_importance(const struct cli *cli, const struct model *model, struct error *err);
int inspect_experts(const struct cli *cli, const struct model *model, struct error *err);
int inspect_router(const struct cli *cli, const struct model *model, struct error *err);

/* --budget, if it is not one of the model's own: *extra is then to be freed and *has true. */
int inspect_extra_budget(const struct cli *cli, const struct model *model, struct budget *extra,
						 bool *has, struct error *err);

/* A list of numbers, or null. */
cJSON *inspect_numbers(const float *values, int n);

/* A layer's index, or null / "-" for the whole model. */
void inspect_add_layer(cJSON *object, int layer);
const char *inspect_layer(int layer, char out[16]);

#endif
