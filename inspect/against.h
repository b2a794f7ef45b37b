/*
 * This engine's residuals and logits against a file from elsewhere (safetensors, F32, as `logits
 * --taps hidden` writes): the first layer, then the first channel, that differs.
 */
#ifndef INSPECT_AGAINST_H
#define INSPECT_AGAINST_H

#include "inspect/probe.h"

#define AGAINST_TOLERANCE 1e-3 // of the largest magnitude of a tensor

struct against {
	int n, n_layers;
	int n_residuals; // hidden.{i} that the file has
	bool has_logits;
	double tolerance;
	bool differs;
	int residual; // the first that differs: hidden.{residual}, n_layers + 1 = logits
	int channel;  // the lowest that differs (of logits: the id), at its first position
	int position;
	float here, there;
	double largest; // magnitude in this engine's tensor: |here - there| > tolerance * largest
	int n_channels, width; // of the tensor: that differ, of how many
	double worst;          // relative, over everything that was compared up to there
};

/* Reads the probe's tokens with the budget and compares; needs no baseline. */
int against_run(struct against *against, struct probe *probe, const struct budget *budget,
				const char *path, double tolerance, struct error *err);

/* "hidden.5, written by layer 4 (moe): channel 17 of 64 at position 3 is 0.51 here, 0.48 there" */
void against_line(const struct against *against, const struct config *config, struct text *out);

#endif
