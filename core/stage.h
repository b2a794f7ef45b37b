/*
 * A model that is ready to run on a device: the counted model, its slices (built when first asked
 * for and kept, because sequences name them in their runs), one workspace, and what its tokens
 * mean. Belongs to the worker.
 */
#ifndef CORE_STAGE_H
#define CORE_STAGE_H

#include "core/engine.h"
#include "core/fit.h"
#include "core/forward.h"
#include "core/model.h"
#include "core/pack.h"
#include "core/turn.h"

#define STAGE_MAX_CONTEXT 32768 // tokens, when nobody asks for more

struct stage {
	struct model *model;
	const struct backend *backend;
	struct device *device;
	struct workspace *workspace;
	struct upload upload; // who watches, and stops
	/* On a card that has no room for all budgets, one is there alone; slices that are not part of
	 * it are plans, without a backend, until they are asked for again. */
	bool alone;
	struct pack pack;
	struct fit room; // as it was before anything of this model was there
	struct stage_slice {
		struct slice slice;
		bool said;        // EV_MASK was sent for it
		uint64_t step_ns; // of a decode step, see stage_step_ns(); 0 = not measured
	} * *slices;          // in order of first use; the first one is the parent's, or the one alone
	size_t n_slices, slices_capacity;
	struct turn_rules rules;
	int context; // tokens a sequence can hold
	enum dtype kv_dtype;
	struct snapshot_room *snapshot_room; // on a card: what the fit has counted; else NULL
};

/* What stage_open() is told. */
struct stage_wish {
	const struct engine_options *options;
	struct upload upload;
	/* The model, which gets one more count, or (NULL) an OPEN request's. */
	struct model *model;
	const struct request *request; // its settings name the budget that will write
};

/* Room on the device is looked at before weights are uploaded. What the user should know is
 * appended to notices, a line each. On -1 nothing is left open. */
int stage_open(struct stage *stage, const struct stage_wish *wish, struct text *notices,
			   struct error *err);
void stage_close(struct stage *stage); // takes {0}; its sequences are closed, or read no more

/* A sequence for `context` tokens. */
int stage_sequence(const struct stage *stage, int context, struct sequence *out, struct error *err);

/* The slice of a budget as model_budget() takes it ("" = the parent), built, and what it lacks
 * uploaded, if need be. Where one budget is alone on the card it may take its place: all slices
 * keep their addresses, so sequences stay as they are. */
struct stage_slice *stage_slice(struct stage *stage, const char *budget, struct error *err);

/* What a decode step of this budget takes when steps follow each other at once: a few of them on a
 * sequence of its own, the first time it is asked for. 0 when that fails. */
uint64_t stage_step_ns(struct stage *stage, struct stage_slice *slice);

#endif
