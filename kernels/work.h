/*
 * What operations have to move and to compute at least, from their shapes: each weight, state and
 * cached row once for all lanes that share it, each lane's activations in and out once. Measured
 * times are held against it, so it knows nothing of how a backend does it: what is read twice, or
 * kept in a cache, shows as a rate that is too low or too high.
 */
#ifndef KERNELS_WORK_H
#define KERNELS_WORK_H

#include "kernels/operation.h"

struct work {
	double bytes, flops; // a multiplication and an addition: 2
};

struct work work_embed(const struct embed_op *op, int n_lanes);
struct work work_norm(const struct norm_op *op, int n_lanes);
struct work work_linear(const struct linear_op *op, int n_lanes);
struct work work_conv(const struct conv_op *op, int n_lanes);
struct work work_ssm(const struct ssm_op *op, int n_lanes);
struct work work_gated_norm(const struct gated_norm_op *op, int n_lanes);
/* rows: what the cache holds before, which the operation itself has in device memory only. */
struct work work_attention(const struct attention_op *op, int n_lanes, enum dtype kv, int rows);
struct work work_route(const struct route_op *op, int n_lanes);
/* Several tokens choose some experts together: as many are counted as even choices would hit. */
struct work work_experts(const struct experts_op *op, int n_lanes);
struct work work_pick(const struct pick_op *op, int n_lanes);

#endif
