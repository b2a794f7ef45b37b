/*
 * A model that is ready to run on a device: the counted model, its slices (built when first asked
 * for and kept, because sequences name them in their runs), one workspace, and what its tokens
 * mean. Belongs to the worker.
 */
#ifndef CORE_STAGE_H
#define CORE_STAGE_H

#include "core/engine.h"
#include "core/forward.h"
#include "core/model.h"
#include "core/turn.h"

#define STAGE_MAX_CONTEXT 32768 // tokens, when nobody asks for more

struct stage {
	struct model *model;
	const struct backend *backend;
	struct device *device;
	struct workspace *workspace;
	struct stage_slice {
		struct slice slice;
		bool said;        // EV_MASK was sent for it
		uint64_t step_ns; // of a decode step, see stage_step_ns(); 0 = not measured
	} * *slices;          // in order of first use; the first one is the parent's
	size_t n_slices, slices_capacity;
	struct turn_rules rules;
	int context; // tokens a sequence can hold
	enum dtype kv_dtype;
};

/* Opens the directory of an OPEN request. What the user should know is appended to notices, a line
 * each. On -1 nothing is left open. */
int stage_open(struct stage *stage, const struct engine_options *options, struct device *device,
			   const struct request *request, struct text *notices, struct error *err);
/* The same for a model that is open already: it gets one more count. */
int stage_move(struct stage *stage, const struct engine_options *options, struct device *device,
			   struct model *model, struct text *notices, struct error *err);
void stage_close(struct stage *stage); // takes {0}; no sequence may use its slices any more

/* The slice of a budget as model_budget() takes it ("" = the parent), built if need be. */
struct stage_slice *stage_slice(struct stage *stage, const char *budget, struct error *err);

/* What a decode step of this budget takes when steps follow each other at once: a few of them on a
 * sequence of its own, the first time it is asked for. 0 when that fails. */
uint64_t stage_step_ns(struct stage *stage, struct stage_slice *slice);

#endif
