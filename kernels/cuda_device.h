/*
 * Inside the CUDA backend: the device and the operations, one file a family (cuda_*.cu; what needs
 * no kernel is plain C). One card, one stream. A pass is a list of operations that is run when a
 * result is needed (cuda_pass.h); nothing waits before finish(). The device keeps its first
 * failure, and what follows it does nothing.
 *
 * Kernels report what they find wrong (an id outside the vocabulary, logits without a maximum) in
 * the mailbox, host memory that the card writes; finish() turns it into a sentence. What a pick
 * found comes the same way: nothing else crosses the bus for a token.
 *
 * Every kernel also compiles for the host (tests/shim), so a .cu file keeps to what cuda_kernel.cuh
 * offers.
 */
#ifndef KERNELS_CUDA_DEVICE_H
#define KERNELS_CUDA_DEVICE_H

#include "kernels/backend.h"
#include <cuda_runtime_api.h>

enum cuda_fault_kind { FAULT_NONE, FAULT_TOKEN, FAULT_EXPERT, FAULT_LOGITS, FAULT_FORCED };

struct cuda_fault {
	int kind;             // enum cuda_fault_kind
	int32_t found, limit; // the id and how many there are
	int64_t position;
};

struct mailbox {
	struct cuda_fault fault; // the first one (or one of several at once)
	struct picked picked[MAX_LANES];
};

enum cuda_scratch_use {
	CUDA_SCRATCH_ATTENTION,
	CUDA_SCRATCH_OUTPUTS,
	CUDA_SCRATCH_PICK,
	CUDA_SCRATCH_HIDDEN, // experts' activations in BF16
	CUDA_SCRATCH_PLAN,   // pairs of token and choice by expert
	CUDA_SCRATCH_X,      // activations and weights in BF16
	CUDA_SCRATCH_WEIGHTS,
	CUDA_SCRATCH_BLAS, // cuBLASLt's own
	CUDA_SCRATCH_TICKETS,
	N_CUDA_SCRATCH
};

struct cuda_uploads; // weights on the card by host address, cuda_upload.c
struct cuda_pass;    // the pass that is being written, cuda_pass.c
struct cuda_graphs;  // recorded passes, cuda_graph.c
struct cuda_profile; // a pass taken apart, cuda_profile.c

struct device {
	struct device_options options;
	char rung[32]; // "H200 sm_90"
	char bus_id[32];
	int capability; // 90
	int n_sms;
	bool overlaps;       // a kernel may start while the one before it ends: AWAIT_EARLIER()
	uint64_t n_launches; // kernels started one by one: no replay of a recorded pass counts
	bool one_by_one;     // tests: nothing is fused
	size_t total_bytes;
	cudaStream_t stream;
	bool failed;
	struct error failure;           // the first
	struct mailbox *mailbox;        // host memory that the card writes
	struct picked *outs[MAX_LANES]; // where the pass's picks go
	int n_outs;
	unsigned char *ring; // small uploads wait here, host memory
	size_t ring_at;
	struct {
		void *memory;
		size_t bytes;
	} scratch[N_CUDA_SCRATCH];
	struct {
		void *memory;
		size_t bytes;
	} * blocks; // taken by alloc() and scratch, to count them
	size_t n_blocks, blocks_capacity;
	uint64_t allocated_bytes; // their sum
	struct cuda_uploads *uploads;
	struct cuda_pass *pass;
	struct cuda_graphs *graphs;
	struct cuda_profile *profile; // NULL: never asked for
	uint64_t n_passes;            // finished
	double read_bps;              // of its memory, 0 = not measured yet, -1 = failed
	struct cuda_blas *blas;       // NULL: no cuBLASLt, or exact math
};

#ifdef __cplusplus
extern "C" {
#endif

/* Where a failure's sentence goes: fail(cuda_failure(device), "...") keeps only the first. */
struct error *cuda_failure(struct device *device);

/* Keeps an error of the runtime; true: it was one. `what` names what was tried. */
bool cuda_failed(struct device *device, cudaError_t error, const char *what);

/* After a failure: whether the card has gone for good. Not while a stream captures. */
void cuda_look_lost(struct device *device);
const char *cuda_lost(void); // by what; NULL = not

/* Device memory for n * size bytes, contents undefined; NULL (and the device has failed) without
 * memory. It may grow while a list runs, though recorded passes and kernels that were started hold
 * its address: releasing waits for these kernels and drops those passes. */
void *cuda_scratch(struct device *device, enum cuda_scratch_use use, size_t n, size_t size);

/* n counters that stand at 0 before every kernel, or NULL: blocks of a launch take a number there,
 * and the last one sets it back (atomicInc). */
unsigned *cuda_tickets(struct device *device, size_t n);

/* A `struct matrix` by value: what a kernel reads of it. */
struct cuda_view {
	struct placed at;
	int64_t stride;
	const struct span *rows, *columns; // device memory; read where there is not exactly one
	int n_row_spans, n_column_spans;
	int row_start, column_start; // of the one span
	int n_rows, n_columns;
	bool aligned; // loads of 16 bytes (NVFP4 and FP8: 8): every span of every row allows them
};

struct cuda_view cuda_view(const struct matrix *m);

/* The compute capability that kernels were compiled for: 90, or 80 where a newer card runs what its
 * driver made of that. */
int cuda_compiled_for(void);

/* ---- weights: cuda_upload.c ---- */

const void *cuda_adopt(struct device *device, const void *host, size_t bytes, struct error *err);
void cuda_abandon(struct device *device, const void *host, size_t bytes);
uint64_t cuda_missing(const struct device *device, const void *host, size_t bytes);
int cuda_gather(struct device *device, void *to, const struct portion *portion, struct error *err);
uint64_t cuda_uploaded_bytes(const struct device *device);
/* The largest piece of memory that weights lie in; NULL without weights. */
const void *cuda_uploaded_block(const struct device *device, size_t *bytes);
void cuda_uploads_wait(struct device *device); // before the first pass reads them
void cuda_uploads_close(struct device *device);

/* cuda_gauge.c; what NVML knows of a card, without opening it: used_bytes, power, clock,
 * temperature, utilisation, -1 where it does not. One thread. */
void cuda_gauges(struct device *device, struct device_gauges *out);
void cuda_read_card(const char *bus_id, struct device_gauges *out);

extern const struct backend backend_cuda;

/* ---- operations: these start kernels at once ---- */

void cuda_embed(struct device *device, int n_lanes, const struct embed_op *op);
void cuda_norm(struct device *device, int n_lanes, const struct norm_op *op);
void cuda_linear(struct device *device, int n_lanes, const struct linear_op *op);
void cuda_conv(struct device *device, int n_lanes, const struct conv_op *op);
void cuda_ssm(struct device *device, int n_lanes, const struct ssm_op *op);
/* Both at once, where ssm reads what conv writes and nobody else does (y stays as it is); false:
 * not of one piece, or too many tokens, and nothing is done. */
bool cuda_conv_ssm(struct device *device, int n_lanes, const struct conv_op *conv,
				   const struct ssm_op *ssm);
void cuda_gated_norm(struct device *device, int n_lanes, const struct gated_norm_op *op);
void cuda_attention(struct device *device, int n_lanes, const struct attention_op *op);
void cuda_route(struct device *device, int n_lanes, const struct route_op *op);
void cuda_experts(struct device *device, int n_lanes, const struct experts_op *op);
void cuda_pick(struct device *device, int n_lanes, const struct pick_op *op);

#ifdef __cplusplus
}
#endif

#endif
