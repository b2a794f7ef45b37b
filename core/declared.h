/*
 * What a checkpoint's files say about how it is quantised (spec nemotron-h.md 6.5):
 * hf_quant_config.json, else quantization_config of config.json. The tensors decide how a weight is
 * read (quantised.h); this is what they are held against, and the reason that is shown. Owns its
 * names; never changes.
 */
#ifndef CORE_DECLARED_H
#define CORE_DECLARED_H

#include "base/text.h"
#include "core/checkpoint.h"
#include <stdbool.h>
#include <stddef.h>

struct declared_module {
	char *name;
	char algorithm[16];
};

struct declared {
	const char *file; // "hf_quant_config.json", "config.json"; NULL = nothing is said
	char algorithm[24], kv_algorithm[24]; // "NVFP4", "FP8", "MIXED_PRECISION"; "" = not said
	char **excluded;                      // modules, and what is below them; sorted
	char **patterns; // the same with wildcards: "model.layers.*.mixer.in_proj", "*lm_head*"
	struct declared_module *modules; // of MIXED_PRECISION; sorted
	size_t n_excluded, n_patterns, n_modules;
};

/* A file that cannot be read is a line in notices, not an error. */
int declared_read(struct declared *declared, const char *directory, struct text *notices,
				  struct error *err);
void declared_free(struct declared *declared); // takes {0}

/* "NVFP4" or "FP8"; "" if the module (a tensor's name without ".weight", under either prefix:
 * backbone. or model.) is excluded, or nothing is said. *excluded: by name or pattern. */
const char *declared_algorithm(const struct declared *declared, const char *module, bool *excluded);

/* A line for each way in which the tensors contradict it, with the first module and how many. */
void declared_check(const struct declared *declared, const struct checkpoint *checkpoint,
					struct text *notices);

#endif
