/*
 * What `info` says of a model: dims, layers, dtypes, what each budget costs, what the file saves
 * against separate children, how much of it is in memory, and what fits into a given memory.
 * Everything is arithmetic on shapes and dtypes in the file (no device); where a fact comes from
 * stands beside it. Strings and budgets are borrowed from the
 * model.
 */
#ifndef INSPECT_INFO_H
#define INSPECT_INFO_H

#include "core/event.h"
#include "core/footprint.h"
#include "core/model.h"
#include "core/slice.h"
#include "inspect/modules.h"

enum { INFO_MAX_DIMS = 32, INFO_MAX_BUDGETS = MAX_BUDGETS + 1 };

struct info_dim {
	const char *name; // the config key
	int64_t value;
};

struct info_dtype {
	enum dtype dtype;
	size_t n_tensors;
	uint64_t bytes;
};

struct info_budget {
	const struct budget *budget;               // name, widths, origin and source of the widths
	int n_layers;                              // that run
	struct slice_cost cost;                    // parameters and bytes: origin derived
	struct precision_cost costs[N_PRECISIONS]; // [PRECISION_STORED].bytes = cost.bytes
};

/* What one sequence keeps, at the parent's full width whatever budget runs. */
struct info_state {
	struct state_size size;
	int n_kv_layers, n_kv_scales; // attention layers; those with scales for a cache in FP8
};

struct info {
	const struct model *model;
	struct info_dim dims[INFO_MAX_DIMS]; // from config.json
	int n_dims;
	int layers_of[4];                   // by enum layer_kind
	struct info_dtype dtypes[N_DTYPES]; // those that occur, most bytes first
	int n_dtypes;
	struct info_budget budgets[INFO_MAX_BUDGETS];
	int n_budgets;
	struct modules modules; // of the first budget
	struct info_state state;
	uint64_t file_bytes; // all shards
	uint64_t tensor_bytes;
	uint64_t children_bytes; // every budget of the file as a stand-alone checkpoint, together
	uint64_t resident_bytes; // of the mapping, now: measured, or estimated from samples
	enum origin resident_origin;
};

/* typed: one more budget, listed last; NULL = none. Borrowed, like the model, as long as info is
 * used. */
int info_read(struct info *info, const struct model *model, const struct budget *typed,
			  struct error *err);
void info_free(struct info *info); // takes {0}

struct fit_request {
	uint64_t memory_bytes;
	int context;         // tokens
	enum dtype kv_dtype; // F32, BF16 or F8_E4M3
	enum math math;
	uint64_t snapshot_bytes; // of a chat; 0 = as it counts on
};

struct info_fit {
	enum precision precision;
	const struct info_budget *budget;
	uint64_t weight_bytes;
	uint64_t state_bytes;    // one sequence of `context` tokens
	uint64_t work_bytes;     // activations, scratch, snapshots, vectors and what the driver keeps
	int64_t longest_context; // tokens of one sequence beside the weights; -1 = the weights do not
							 // fit, INT64_MAX = no attention layer, so no limit
	int64_t sequences;       // of `context` tokens that decode together beside the weights
};

/* In the memory of a card (kernels/card.h), which the model has for itself. Rows: budgets inside
 * precisions that say anything; returns how many. */
int info_fit(const struct info *info, const struct fit_request *request,
			 struct info_fit rows[N_PRECISIONS * INFO_MAX_BUDGETS]);

uint64_t info_state_bytes(const struct info_state *state, int64_t tokens, enum dtype kv_dtype);

#endif
