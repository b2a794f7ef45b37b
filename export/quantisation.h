/*
 * Which matrices of a parent become FP8 or NVFP4, and their scales (spec nemotron-h.md 6). Scales
 * are the parent's: one for a whole matrix from all of it, one for a block of 16 columns from that
 * block. So a slice of the quantised parent and the quantised slice of the parent are the same
 * bytes, and every budget stays a slice; budgets that would cut a block are refused.
 */
#ifndef EXPORT_QUANTISATION_H
#define EXPORT_QUANTISATION_H

#include "export/cut.h"

struct quantisation {
	enum dtype format; // DTYPE_F8_E4M3 or DTYPE_NVFP4
	const struct model *model;
	/* By tensor of the parent's checkpoint. scale: weight_scale of FP8, weight_scale_2 of NVFP4; 0
	 * = the tensor stays as it is. input_scale: 0 = not measured. */
	float *scale, *input_scale;
	size_t n_modules;
	size_t n_excluded;    // matrices that only the patterns keep
	struct text excluded; // modules that stay, a line each, in the parent's order
};

struct quantisation_plan {
	const struct model *model;
	enum dtype format;
	const char *const *exclude; // patterns of fnmatch: "*.layers.3.*"; what the releases keep stays
	size_t n_exclude;
	int (*step)(void *user, uint64_t done, uint64_t total); // as in child_plan
	void *user;
};

/* Reads every matrix that is to be quantised once. */
int quantisation_open(struct quantisation *quantisation, const struct quantisation_plan *plan,
					  struct error *err);
void quantisation_close(struct quantisation *quantisation); // takes {0}

/* Whether the cuts leave every block of 16 whole. */
int quantisation_check(const struct quantisation *quantisation, const struct cuts *cuts,
					   struct error *err);

/* hf_quant_config.json as ModelOpt writes it. version: of this program. */
int quantisation_config(const struct quantisation *quantisation, const struct cuts *cuts,
						const char *version, struct text *out, struct error *err);

#endif
