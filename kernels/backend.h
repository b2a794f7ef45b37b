/*
 * Whole-tensor operations behind a const table: core/forward.c is written once over it. The CPU
 * table (cpu.c) is complete and is the reference for any other, operation by operation.
 *
 * An operation gets the arguments of all lanes of a pass at once (1..MAX_LANES: one for chat,
 * several for variants side by side, many for a batch), and reads every stored weight row once for
 * all lanes that share the matrix. Activations are F32 and packed to the lane's own width, so no
 * operation knows about slicing except through `struct matrix` and index lists. Pointers are device
 * memory from alloc() or adopt().
 *
 * Operations return nothing: the device keeps its first failure and finish() returns it, so that
 * the forward pass reads as mathematics. Results for a token do not depend on the number of
 * threads, on the number of tokens in the call, nor on the other lanes: prefill and decode agree
 * bit for bit.
 */
#ifndef KERNELS_BACKEND_H
#define KERNELS_BACKEND_H

#include "base/error.h"
#include "kernels/card.h"
#include "kernels/operation.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MAX_LANES 256

struct device; // one opened backend: threads or a card, its scratch, its first failure

/* FAST: products with activations rounded to BF16 where the processor gains by them. What KV is
 * kept in is said apart (kv_dtype). */
enum math { MATH_EXACT, MATH_FAST };

struct device_options {
	int n_threads; // 0 = all CPUs the process may use
	enum math math;
	enum dtype kv_dtype; // F32, BF16 or F8_E4M3
	int card;            // which of several, counted from 0
	bool alone;          // what core/ uploads: the chosen budget only, whether or not all has room
	bool automatic;      // nobody asked for the card: the CPU will do as well
	uint64_t snapshot_bytes; // what core/ keeps there to go back to; 0 = as a chat counts on
};

/* What a card does; -1 = not known. */
struct device_gauges {
	bool known;                         // false: not a card
	int64_t ours_bytes, weights_bytes;  // of its memory: all that we took; of it weights,
	int64_t scratch_bytes, graph_bytes; // the backend's own scratch, recorded passes
	int64_t used_bytes, total_bytes;    // by everybody
	int power_mw, clock_mhz, temperature_c, busy_percent;
	int64_t read_bps; // bytes a second that its memory gives when it is only read: measured once
};

/* Some rows of a stored matrix, and of each of them some runs of bytes. */
struct portion {
	const void *host;                // stored row 0
	size_t stride;                   // bytes from one stored row to the next
	const struct span *rows, *bytes; // host memory
	int n_rows, n_bytes;             // spans
};

struct profiler; // kernels/profile.h

enum step { STEP_RUN, STEP_REPLAYED };

struct backend {
	const char *name; // "cpu"

	struct device *(*open)(const struct device_options *options, struct error *err);
	void (*close)(struct device *device); // takes NULL
	const char *(*rung)(
		const struct device *device); // which kernels run: "c", "avx2", "avx512", ...
	int (*threads)(const struct device *device);

	void (*gauges)(struct device *device, struct device_gauges *out);
	const struct profiler *profiler; // NULL: a pass cannot be taken apart

	/* Tokens that prefill should read in a pass: what the device is fast with, a stop is answered
	 * between two of them. */
	int (*chunk)(const struct device *device);
	/* What passes of this shape take of the device's memory besides what alloc() and adopt() are
	 * asked for; 0: nothing that would have to be planned. */
	uint64_t (*scratch_bytes)(const struct pass_shape *shape);

	/* Memory: zeroed; NULL and err without memory. adopt gives the device's address of weights that
	 * lie in a mapping (the CPU: the same address), once for all who ask; abandon says that nobody
	 * reads what was adopted of these bytes any more. */
	void *(*alloc)(struct device *device, size_t bytes, struct error *err);
	void (*release)(struct device *device, void *memory); // takes NULL
	const void *(*adopt)(struct device *device, const void *host, size_t bytes, struct error *err);
	void (*abandon)(struct device *device, const void *host, size_t bytes);
	/* What adopt would upload of it: 0 = it is there, or need not be (the CPU). */
	uint64_t (*missing)(const struct device *device, const void *host, size_t bytes);
	/* Packs a portion of a mapping, row behind row, into memory from alloc(). */
	int (*gather)(struct device *device, void *to, const struct portion *portion,
				  struct error *err);
	/* The device's memory that is free now; false: nothing that must be planned (the CPU). */
	bool (*room)(struct device *device, uint64_t *free_bytes, uint64_t *total_bytes);
	void (*upload)(struct device *device, void *to, const void *from, size_t bytes);
	void (*download)(struct device *device, void *to, const void *from, size_t bytes);
	void (*copy)(struct device *device, void *to, const void *from, size_t bytes);
	void (*zero)(struct device *device, void *memory, size_t bytes);

	/* A pass: begin, operations, finish. A device that recorded this pass (key) may answer
	 * REPLAYED: the caller goes straight to finish. finish waits and returns the device's first
	 * failure, once. */
	enum step (*begin)(struct device *device, uint64_t key);
	int (*finish)(struct device *device, struct error *err);

	void (*embed)(struct device *device, int n_lanes, const struct embed_op *op);
	void (*norm)(struct device *device, int n_lanes, const struct norm_op *op);
	void (*linear)(struct device *device, int n_lanes, const struct linear_op *op);
	void (*conv)(struct device *device, int n_lanes, const struct conv_op *op);
	void (*ssm)(struct device *device, int n_lanes, const struct ssm_op *op);
	void (*gated_norm)(struct device *device, int n_lanes, const struct gated_norm_op *op);
	void (*attention)(struct device *device, int n_lanes, const struct attention_op *op);
	void (*route)(struct device *device, int n_lanes, const struct route_op *op);
	void (*experts)(struct device *device, int n_lanes, const struct experts_op *op);
	void (*pick)(struct device *device, int n_lanes, const struct pick_op *op);
};

extern const struct backend backend_cpu;

/* What "cpu", "cuda", "cuda:N", "cuda,alone" or "auto" (a card that can be used, else the CPU)
 * stands for; card, alone and automatic are set. NULL and a sentence where it is none of these, or
 * can't be used. */
const struct backend *backend_choose(const char *device, struct device_options *options,
									 struct error *err);

#endif
