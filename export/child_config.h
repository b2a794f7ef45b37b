/*
 * A child's config.json and hf_quant_config.json: the parent's text with the widths, the layers and
 * the names of modules that the budget changes, everything else byte for byte.
 */
#ifndef EXPORT_CHILD_CONFIG_H
#define EXPORT_CHILD_CONFIG_H

#include "export/cut.h"

/* Whether config.json can say what the budget keeps: one width an axis for all layers, and as many
 * heads in every group. The error names the axis and two layers. Left-out layers and runs of equal
 * length can be said. */
int child_config_check(const struct model *model, const struct budget *budget, struct error *err);

/* The width of an axis where all kept layers agree, -1 where they don't, the parent's where no kept
 * layer has it. */
int child_config_width(const struct model *model, const struct budget *budget, enum axis axis);

int child_config_text(const struct cuts *cuts, struct text *out, struct error *err);

/* hf_quant_config.json; nothing is appended where the parent has none. */
int child_config_quantisation(const struct cuts *cuts, struct text *out, struct error *err);

#endif
