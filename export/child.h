/*
 * A budget written as a checkpoint of its own: its tensors, byte for byte the parent's (cut.h),
 * config.json and hf_quant_config.json adjusted, tokenizer, template, code, licence copied.
 * Streams: memory is bounded by a buffer, whatever the size. Nothing is there under the target's
 * name until all of it is (staging.h).
 */
#ifndef EXPORT_CHILD_H
#define EXPORT_CHILD_H

#include "core/model.h"
#include "export/quantisation.h"

#define CHILD_SHARD_BYTES ((uint64_t)5000000000)

struct child_plan {
	const struct model *model;
	const struct budget *budget;
	const char *target;
	bool force;
	uint64_t max_shard_bytes; // 0 = CHILD_SHARD_BYTES
	/* A budget that config.json cannot say is written at its widest, with an elastic.json that only
	 * elastiscope reads; else it is refused. */
	bool elastic;
	/* NULL = as stored; else weights are quantised on the way, with the parent's scales. version:
	 * of this program, for hf_quant_config.json. */
	const struct quantisation *quantisation;
	const char *version;
	bool nested; // with elastic.json, router and importance (nested.h): the budget is the parent
	const char *budgets_file; // of nested: what becomes elastic.json; NULL = the source's own
	/* Called between chunks; non-zero stops with an error. May be NULL. */
	int (*step)(void *user, uint64_t done, uint64_t total);
	void *user;
};

struct child_report {
	size_t n_tensors;
	uint64_t bytes;        // of tensors
	int n_shards, n_files; // files: beside the shards
	size_t n_left_out;
	char first_left_out[128]; // "" = none
	bool elastic;             // has an elastic.json
};

int child_write(const struct child_plan *plan, struct child_report *report, struct error *err);

#endif
