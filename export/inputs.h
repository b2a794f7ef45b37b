/*
 * The largest magnitude that every quantised matrix reads over some text, under every budget of the
 * parent, as one static scale an input (spec nemotron-h.md 6.2, 6.3): FP8 amax/448, NVFP4
 * amax/(6*448).
 */
#ifndef EXPORT_INPUTS_H
#define EXPORT_INPUTS_H

#include "export/quantisation.h"
#include "inspect/calibrate.h"

struct inputs_plan {
	const struct calibrate_texts *texts;
	int window; // tokens read from one empty state; 0 = CALIBRATE_WINDOW
	struct device_options device;
	int (*step)(void *user, uint64_t done, uint64_t total); // tokens of all budgets; may be NULL
	void *user;
};

/* Fills input_scale. Experts that no token chose get their layer's largest: *n_unseen matrices. */
int inputs_measure(struct quantisation *quantisation, const struct inputs_plan *plan,
				   size_t *n_unseen, struct error *err);

#endif
