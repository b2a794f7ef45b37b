/*
 * What running a model takes of a device's memory besides its weights, as arithmetic on the config:
 * the same numbers whether a device was opened or not. `info --fit` prints them, and who is about
 * to upload asks here first whether all of it will fit.
 *
 * Weights are the slices' (slice_cost.bytes, or what adopt() is asked for): they come on top.
 */
#ifndef CORE_FOOTPRINT_H
#define CORE_FOOTPRINT_H

#include "core/config.h"
#include "kernels/backend.h"

struct footprint_plan {
	int n_sequences, context; // of so many tokens each
	enum dtype kv_dtype;
	int n_snapshots;         // of conv and SSM state, of all sequences together
	uint64_t snapshot_bytes; // what they may take instead, whatever their number; 0 = all of them
	int n_slices;            // budgets that are built
	int n_lanes, n_tokens;   // of a pass: decode, prefill (backend's chunk)
	enum math math;
	uint64_t (*scratch_bytes)(const struct pass_shape *shape); // a backend's
};

struct footprint {
	uint64_t kv, conv, ssm, snapshots; // of all sequences
	uint64_t vectors;                  // what slices pack on the device, estimated from above
	uint64_t activations;              // workspace_open()
	uint64_t scratch;                  // the backend's own
};

/* The rest of a plan (its context, kv_dtype, snapshot_bytes, chunk and backend are set) as a chat
 * opens a model: one sequence and what it goes back to, a policy's budgets, a lane a column. */
void footprint_plan_chat(struct footprint_plan *plan);

void footprint_of(struct footprint *footprint, const struct config *config,
				  const struct footprint_plan *plan);
uint64_t footprint_bytes(const struct footprint *footprint); // all of it; saturates

/* How many sequences of plan->context tokens `bytes` have room for when all of them decode together
 * (in passes of up to MAX_LANES): states, activations, scratch. n_sequences and n_lanes of the plan
 * are not read. INT32_MAX: no end. */
int footprint_sequences(const struct config *config, const struct footprint_plan *plan,
						uint64_t bytes);

/* What one sequence keeps at the parent's full width, whatever budget runs. */
struct state_size {
	uint64_t ssm_bytes, conv_bytes; // F32, whatever the length
	uint64_t kv_per_token;          // values (not bytes) a token: all attention layers, K and V
};

struct state_size state_size_of(const struct config *config);

/* The largest passes that forward() will ask a device for. */
struct pass_shape pass_shape_of(const struct config *config, int n_lanes, int n_tokens,
								enum math math);

#endif
