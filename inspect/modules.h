/*
 * The matrices of a slice in groups: what they are for ("routed experts up/down"), in which format
 * they are stored, and why: because hf_quant_config.json says so, because it excludes them, or
 * because the tensors say otherwise.
 */
#ifndef INSPECT_MODULES_H
#define INSPECT_MODULES_H

#include "core/model.h"
#include "core/module.h"

/* Matrices of one purpose, format and reason. */
struct module_group {
	enum module_kind kind; // the first of those joined
	char what[48];         // "routed experts up/down", "Mamba in_proj"
	enum dtype dtype;
	char why[96]; // "hf_quant_config.json", "excluded in hf_quant_config.json", ...
	int n;
	uint64_t parameters, bytes, scale_bytes; // scale_bytes are part of bytes
	int *layers;                             // ascending
	int n_layers;
	bool all_layers; // all of that kind
};

struct modules {
	struct module_group *groups; // by kind, then first layer
	int n;
	size_t capacity;
};

int modules_open(struct modules *modules, const struct model *model, const struct slice *slice,
				 struct error *err);
void modules_close(struct modules *modules); // takes {0}

/* Appends "layers 4, 11", "all 23 layers", or nothing for a group outside the layers. */
void module_group_layers(const struct module_group *group, struct text *out);

#endif
