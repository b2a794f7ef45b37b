/*
 * Children of a checkpoint with one seeded fault each, as slicers make them, for tests of what
 * finds faults (bisection by behaviour, verification by bytes):
 *
 *   none       a correct child
 *   norm       the weights of every RMSNorm times sqrt(parent / kept): the count of all channels
 *   heads      the first k heads of all instead of the first of every group (needs a budget that
 *              cuts heads)
 *   experts    experts 1 and 2 of the last MoE layer but one exchanged, the router's rows not
 *   width      channels 16.. of the routed experts of that layer instead of 0..
 *   scaled     the rows of the first mixer's output projection after layer 1 times 2
 *   permuted   the rows of that layer's first routed up_proj moved by one, down_proj's columns not
 *
 * test_faults DIR BUDGET KIND OUT writes one from the command line. Bytes are copied from the
 * parent but where the fault says otherwise; config.json is the parent's with the new widths. Only
 * budgets without lists, runs or left-out layers; BF16, F16 and F32.
 */
#ifndef TESTS_FAULTS_H
#define TESTS_FAULTS_H

#include "core/model.h"

enum fault {
	FAULT_NONE,
	FAULT_NORM,
	FAULT_HEADS,
	FAULT_EXPERTS,
	FAULT_WIDTH,
	FAULT_SCALED,
	FAULT_PERMUTED,
	N_FAULTS
};

const char *fault_name(enum fault fault);
int fault_find(const char *name); // enum fault, or -1

/* Into a folder that exists: model.safetensors and config.json, and tokenizer.json if there is one.
 */
int fault_write(const struct model *parent, const char *budget, enum fault fault,
				const char *directory, struct error *err);

/* The layer that `experts`, `width` and `permuted` touch, and the one of `scaled`; -1 = none. */
int fault_moe_layer(const struct config *config);
int fault_scaled_layer(const struct config *config);

#endif
