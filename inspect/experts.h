/*
 * Which experts the tokens went to: live counts of the engine (ORIGIN_MEASURED), their entropy, and
 * what fell outside a budget; beside them REAP and frequency of the calibration
 * (importance.safetensors).
 */
#ifndef INSPECT_EXPERTS_H
#define INSPECT_EXPERTS_H

#include "core/engine.h"
#include "core/model.h"

#define EXPERTS_TOP 8

/* Phases to add up: bits 1 << PHASE_PREFILL, ... */
#define EXPERTS_ALL ((1u << N_PHASES) - 1)
#define EXPERTS_DECODE (EXPERTS_ALL & ~(1u << PHASE_PREFILL))

struct experts_row { // one MoE layer
	int layer;
	uint64_t routed;             // choices counted: tokens times top-k
	uint64_t *counts;            // (n_experts), stored experts
	double entropy;              // bits of the counts' shares; 0 with nothing routed
	double normalised;           // entropy / log2(experts that the budget keeps), 0..1
	int top[EXPERTS_TOP], n_top; // most used first, only those used
	bool *kept;                  // (n_experts): in the budget; all false if it leaves the layer out
	int n_kept;
	double outside; // share of the choices that went to experts outside the budget, 0..1
	const float *reap,
		*frequency; // (n_experts) of the file, NULL = not there; borrowed from the model
};

struct experts_view {
	int n_rows, n_experts;
	struct experts_row *rows; // MoE layers, ascending
};

/* counts NULL or empty: rows with nothing routed (REAP and budget still shown). */
int experts_open(struct experts_view *view, const struct model *model,
				 const struct expert_counts *counts, unsigned phases, const struct budget *budget,
				 struct error *err);
void experts_close(struct experts_view *view); // takes {0}

#endif
