/*
 * Whether a budget has room on a device, asked before anything is uploaded, and what to say where
 * it has not: how much is missing and which budget, precision or context would fit. The arithmetic
 * is that of `info --fit`: weights of slices (core/module.h) and the rest (core/footprint.h).
 */
#ifndef CORE_FIT_H
#define CORE_FIT_H

#include "base/text.h"
#include "core/footprint.h"
#include "core/model.h"
#include "core/slice.h"

struct fit {
	const struct model *model;
	const struct slice *plan; // of the budget
	bool whole;               // the whole matrices that it reads, for every budget, else it alone
	uint64_t weight_bytes;    // of these, that must be uploaded
	struct footprint rest;    // {0}: it is there already
	int context;
	uint64_t free_bytes, total_bytes; // of the device
};

bool fit_has_room(const struct fit *fit);

/* "large (BF16) needs 58.8 GiB and 3.1 GiB of state at 8192 tokens, the card has 47.2 GiB of 48.0
 * GiB left: 14.7 GiB are missing". */
void fit_missing(const struct fit *fit, struct text *out);

/* What would fit instead: "; small alone fits with 31.2 GiB, large would fit in fp8 or nvfp4". */
void fit_instead(const struct fit *fit, struct text *out);

#endif
