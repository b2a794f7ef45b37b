/*
 * The pinned probe: fixed tokens read again after every edit, held against a baseline that is read
 * once: what the edit did to the predictions, and the first layer whose residual leaves a
 * tolerance.
 *
 * Opens a device of its own, so that commands and background jobs run it alike. The baseline's
 * logits and residuals are kept: bounded by PROBE_BYTES.
 */
#ifndef INSPECT_PROBE_H
#define INSPECT_PROBE_H

#include "core/model.h"
#include "core/reading.h"

#define PROBE_TOKENS 128         // that the workbench pins, at most
#define PROBE_BYTES (1ull << 30) // logits and residuals of a reading, at most
#define PROBE_TOLERANCE 0.01     // relative, of a residual

struct probe {
	struct model *model; // counted
	struct device_options options;
	struct device *device;
	int32_t *ids; // (n)
	int n;
	double tolerance;
	struct slice slice; // the baseline's
	struct reading base;
	int runs; // readings so far, the baseline's too
	/* Called between chunks; non-zero stops with an error. May be NULL. */
	int (*step)(void *user, int done, int total);
	void *user;
};

/* Residual i is what layer i reads; n_layers = before norm_f. So the layer that leaves is the one
 * before the first residual that does: -1 = the embeddings do already. */
#define PROBE_NO_LAYER (-2)

struct probe_result {
	double ppl, ppl_base; // of the tokens; NAN for a single one
	double kl, kl_max;    // KL(baseline || this) in nats: mean and largest over the positions
	int kl_max_at;
	double same_top; // share of positions
	int first_layer; // that leaves the tolerance, PROBE_NO_LAYER = none does
	double first_distance;
	int n_layers;
	double distance[CONFIG_MAX_LAYERS + 1]; // ||base - this|| / ||base|| of residual i, on the
											// channels that both keep
};

/* ids are copied. options->kv_dtype must be set; no threads = 1. */
int probe_open(struct probe *probe, struct model *model, const int32_t *ids, int n,
			   const struct device_options *options, struct error *err);
void probe_close(struct probe *probe); // takes {0}

/* Reads the baseline; the one before is forgotten, unless this fails. */
int probe_pin(struct probe *probe, const struct budget *budget, struct error *err);

/* Needs a baseline. */
int probe_read(struct probe *probe, const struct budget *budget, struct probe_result *result,
			   struct error *err);
/* The same of a plan that is built already, on the probe's device. */
int probe_read_slice(struct probe *probe, const struct slice *slice, struct probe_result *result,
					 struct error *err);

/* "KL .0123 (max 1.2 at 17), ppl 3.2 -> 3.4 (+6.2 %), top 98 %, leaves 1 % after layer 4 (moe)" */
void probe_line(const struct probe_result *result, const struct config *config, double tolerance,
				struct text *out);

#endif
