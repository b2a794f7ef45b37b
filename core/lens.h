/*
 * The logit lens: what the model would say if it stopped at a layer, lm_head RMSNorm(h; norm_f) of
 * the residual before it. Owns its buffers on the device and the host, bounded by max_rows.
 */
#ifndef CORE_LENS_H
#define CORE_LENS_H

#include "core/slice.h"

struct lens {
	const struct backend *backend;
	struct device *device;
	int max_rows, max_width, vocab;
	float *x, *y;  // device: (max_rows, max_width), (max_rows, vocab)
	float *rows;   // host: (max_rows, max_width), packed
	float *logits; // host: (max_rows, vocab), what lens_look() leaves
};

/* For slices on this device, at most max_width wide. */
int lens_open(struct lens *lens, const struct backend *backend, struct device *device, int max_rows,
			  int max_width, int vocab, struct error *err);
void lens_close(struct lens *lens); // takes {0}

/* n <= max_rows residuals of the slice's width, `stride` values apart, into lens->logits. */
int lens_look(struct lens *lens, const struct slice *slice, const float *residual, size_t stride,
			  int n, struct error *err);

#endif
