/*
 * A pass is a list. The table's operations only write themselves down; whoever needs a result
 * (finish, download, everything that touches memory) flushes, and the list is run: neighbours that
 * belong together make a group, and each group is one launch or a few. A pass that comes again is
 * the same list, run once more under capture: plain and recorded passes are bit for bit the same.
 *
 * The list copies the operations' arguments, not what they point to: matrices (host memory) stay
 * where they are until the pass is over, and while a recorded pass may still be captured.
 */
#ifndef KERNELS_CUDA_PASS_H
#define KERNELS_CUDA_PASS_H

#include "kernels/cuda_device.h"

enum cuda_kind {
	CUDA_EMBED,
	CUDA_NORM,
	CUDA_LINEAR,
	CUDA_CONV,
	CUDA_SSM,
	CUDA_GATED_NORM,
	CUDA_ATTENTION,
	CUDA_ROUTE,
	CUDA_EXPERTS,
	CUDA_PICK,
};

/* One operation of n_lanes lanes. */
struct cuda_note {
	enum cuda_kind kind;
	int n_lanes;
	size_t at; // of its arguments in the list's memory: a struct NAME_op a lane
};

/* Memory moves while the list is written, and stays while it is run. */
struct cuda_list {
	struct cuda_note *notes;
	size_t n, notes_capacity;
	unsigned char *memory;
	size_t used_bytes, memory_capacity;
};

static inline const void *cuda_list_ops(const struct cuda_list *list, const struct cuda_note *note)
{
	return list->memory + note->at;
}

void cuda_list_free(struct cuda_list *list);

/* Starts the operations from the `from`th on, in their order: the one place where kernels start. */
void cuda_run_pass(struct device *device, const struct cuda_list *list, size_t from);

/* Starts the operations from here on that belong together, in fewer launches than they are: how
 * many, 0 = the first one stands for itself. cuda_fuse.c */
size_t cuda_start_fused(struct device *device, const struct cuda_list *list, size_t from);

/* ---- the pass that is being written: cuda_pass.c ---- */

enum step cuda_begin(struct device *device, uint64_t key);
int cuda_finish(struct device *device, struct error *err);
void cuda_flush(struct device *device); // runs what is written down and was not run yet
void cuda_pass_close(struct device *device);

/* ---- recorded passes: cuda_graph.c ---- */

/* Launches what was recorded of this pass: REPLAYED. Else *record says whether the caller should
 * give the list to cuda_graph_record() once it has run. */
enum step cuda_graph_replay(struct device *device, uint64_t key, bool *record);

/* Takes the list, leaves an empty one, and returns at once: a thread captures it. */
void cuda_graph_record(struct device *device, uint64_t key, struct cuda_list *list);

void cuda_graphs_drop(struct device *device); // memory that they may name goes away
void cuda_graphs_close(struct device *device);
void cuda_graphs_settle(struct device *device); // waits for what is being captured: for tests
uint64_t cuda_graphs_replayed(const struct device *device);
uint64_t cuda_graphs_bytes(const struct device *device); // of the card, as far as it is known

/* ---- the table's rows: the operation is written down ---- */

void cuda_note_embed(struct device *device, int n_lanes, const struct embed_op *op);
void cuda_note_norm(struct device *device, int n_lanes, const struct norm_op *op);
void cuda_note_linear(struct device *device, int n_lanes, const struct linear_op *op);
void cuda_note_conv(struct device *device, int n_lanes, const struct conv_op *op);
void cuda_note_ssm(struct device *device, int n_lanes, const struct ssm_op *op);
void cuda_note_gated_norm(struct device *device, int n_lanes, const struct gated_norm_op *op);
void cuda_note_attention(struct device *device, int n_lanes, const struct attention_op *op);
void cuda_note_route(struct device *device, int n_lanes, const struct route_op *op);
void cuda_note_experts(struct device *device, int n_lanes, const struct experts_op *op);
void cuda_note_pick(struct device *device, int n_lanes, const struct pick_op *op);

#endif
