/*
 * The matrices of a slice one by one, what they are for, and what a slice costs in each format, as
 * the releases would store it. Bytes count what decoding reads: codes, block scales and F32 scales.
 */
#ifndef CORE_MODULE_H
#define CORE_MODULE_H

#include "base/origin.h"
#include "core/slice.h"

enum module_kind {
	MODULE_EMBEDDINGS,
	MODULE_LM_HEAD,
	MODULE_IN_PROJ,
	MODULE_OUT_PROJ,
	MODULE_Q,
	MODULE_K,
	MODULE_V,
	MODULE_O,
	MODULE_GATE,
	MODULE_UP,
	MODULE_DOWN,
	MODULE_SHARED_UP,
	MODULE_SHARED_DOWN,
	MODULE_MLP_UP,
	MODULE_MLP_DOWN,
	N_MODULE_KINDS
};

struct module {
	enum module_kind kind;
	int layer, expert; // stored ones; -1 = none
	const struct matrix *matrix;
	bool active; // a token reads all of it; of the experts, the first top_k stand for those chosen
};

/* A tied table is listed as the lm_head. */
typedef void module_seen(void *user, const struct module *module);
void modules_each(const struct slice *slice, module_seen *seen, void *user);

#define MODULE_NAME 96
const char *module_kind_name(enum module_kind kind);                  // "experts.*.up_proj"
void module_name(const struct module *module, char out[MODULE_NAME]); // a tensor's, without .weight

uint64_t module_bytes(const struct module *module); // with scales
uint64_t module_scale_bytes(const struct module *module);

/* How the weights of a stand-alone child would be stored. FP8 and NVFP4 follow the released
 * checkpoints' choice of matrices (spec nemotron-h.md 6.4): experts, dense MLPs, and Mamba
 * projections but for the Mamba layer before each attention layer; the rest stays as stored.
 * BF16: what is quantised is widened. */
enum precision { PRECISION_STORED, PRECISION_BF16, PRECISION_FP8, PRECISION_NVFP4, N_PRECISIONS };

/* Whether the released checkpoints quantise a matrix like this one. */
bool module_quantises(const struct module *module, const struct config *config);

const char *precision_name(enum precision precision); // "stored", "bf16", "fp8", "nvfp4"
enum origin
precision_origin(enum precision precision); // derived, but estimated for what is not stored

struct precision_cost {
	uint64_t bytes, bytes_per_token; // of the weights
	uint64_t scale_bytes;            // part of bytes
};

/* Whether a row in this format says anything beside the stored one: BF16 only of what is quantised.
 */
bool precision_says(const struct precision_cost costs[N_PRECISIONS], enum precision precision);

void precision_costs(const struct slice *slice, struct precision_cost out[N_PRECISIONS]);

#endif
