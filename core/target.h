/*
 * A budget asked for by what it may cost instead of by its widths: "active=2.8B" or "total=20B"
 * parameters, "bytes=8GiB" of weights. The checkpoint's router answers if there is one (a mix of
 * its two neighbours' one-hots, core/router.h), so its answer is near the target, not below it.
 *
 * Without a router the scores of importance.safetensors answer: from the parent down, whichever
 * axis of the file's budgets loses the least retained importance for what the next step saves is
 * cut, until the target is met. That answer costs at most the target. Origin: ORIGIN_DERIVED;
 * source: "router" or "importance".
 */
#ifndef CORE_TARGET_H
#define CORE_TARGET_H

#include "base/text.h"
#include "core/model.h"

struct target {
	char metric[8]; // "active", "total", "bytes"
	double value;
};

bool target_is(const char *typed); // METRIC=...
int target_parse(struct target *target, const char *typed, struct error *err);

/* The budget for a target, called `name`; the caller frees it. */
int target_budget(const struct model *model, const struct target *target, const char *name,
				  struct budget *out, struct error *err);

/* One line for a budget that target_budget() made: "active=2.8B: the router chose hidden_size=96,
 * moe_intermediate_size=64; 2.79B active of 23.57B parameters, 43.91 GiB". */
int target_note(const struct model *model, const struct budget *budget, struct text *out,
				struct error *err);

#endif
