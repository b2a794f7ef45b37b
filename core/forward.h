/*
 * The forward pass, once, over the backend's table: reads top to bottom like the paper. A pass has
 * 1 to MAX_LANES lanes; a lane is a sequence, whose running slice reads, and n tokens. Chat is one
 * lane; lanes of one slice share every product.
 *
 * The workspace owns the activations of a pass, allocated once for max_tokens, which the lanes
 * share; no allocation later (but for the host copy that the first tapped pass needs).
 */
#ifndef CORE_FORWARD_H
#define CORE_FORWARD_H

#include "core/sequence.h"
#include "core/slice.h"
#include "kernels/backend.h"

/* Tokens at a time for who keeps something of each on the host; prefill.h reads as many as suit the
 * device: workspace_chunk(). */
#define PREFILL_CHUNK 128

enum tap {
	TAP_MIXER_INPUT = 1 << 0, // normed input of layer i: (n, hidden)
	TAP_RESIDUAL = 1 << 1, // residual before layer i; layer = n_layers: before norm_f (n, hidden)
	TAP_LOGITS = 1 << 2,   // (n, vocab) of the rows that wanted logits
	TAP_EXPERTS =
		1 << 3,       // chosen experts, stored indices, ascending, and final weights (n, top_k);
					  // wanted alone, layer by layer after the pass: it costs no device a stop
	TAP_FFN = 1 << 4, // relu2 activation of dense or shared FFN (n, ffn)
	TAP_MAMBA_X = 1 << 5,         // x after conv and SiLU (n, inner)
	TAP_ATTENTION_OUT = 1 << 6,   // input of o_proj (n, n_heads*head_dim)
	TAP_MIXER_OUTPUT = 1 << 7,    // what the layer adds to the residual: after - before (n, hidden)
	TAP_MAMBA_PROJECTED = 1 << 8, // x as in_proj leaves it, before the convolution (n, inner)
	TAP_EXPERT_FFN = 1 << 9,      // relu2 activation of the experts of TAP_EXPERTS (n, top_k*ffn)
	TAP_EXPERT_NORM = 1 << 10,    // L2 norm of what each of them puts out, unweighted (n, top_k)
	TAP_MAMBA_OUT = 1 << 11,      // input of out_proj: y after the gated norm (n, inner)
};

/* What a tap sees. Host memory, valid until the callback returns. Dropped layers fire TAP_RESIDUAL
 * only. */
struct tapped {
	enum tap tap;
	int layer, lane;
	int n, width;        // rows, values a row
	const float *values; // (n, width); of TAP_EXPERTS the weights
	const int32_t *ids;  // TAP_EXPERTS: (n, width), else NULL
	int first;           // position of row 0 in the sequence
};

struct taps {
	unsigned wanted; // or of enum tap
	void (*see)(void *user, const struct tapped *tapped);
	void *user;
};

enum logit_rows { LOGITS_NONE, LOGITS_LAST, LOGITS_ALL };

/* The experts that another budget chose for the same tokens (TAP_EXPERTS), so that a lane runs its
 * own widths with them. Weights are recomputed from the lane's own scores over the experts that it
 * keeps; those that it lacks are dropped. A layer without any ids (left out there) routes by
 * itself. */
struct routing {
	const int32_t *ids; // host, (n_layers, n_tokens, top_k): stored experts, -1 = none
	int top_k;
};

struct lane {
	struct sequence *sequence; // its running slice reads
	const int32_t *tokens;     // host, (n_tokens)
	int n_tokens;
	enum logit_rows logits;
	const struct taps *taps;       // NULL = none
	const struct routing *routing; // NULL = the lane's own experts
	float *out; // set by forward: device logits (rows, vocab), NULL with LOGITS_NONE
};

struct workspace;

/* For passes of up to n_lanes lanes that have at most max_tokens tokens together, of models with at
 * most this config's widths. all_logits: room for a row of logits for every token, else for one a
 * lane. */
struct workspace *workspace_open(const struct config *config, const struct backend *backend,
								 struct device *device, int n_lanes, int max_tokens,
								 bool all_logits, struct error *err);
void workspace_close(struct workspace *workspace); // takes NULL

/* config becomes as wide as the wider of both, for a workspace that lanes of both models share. */
void workspace_widen(struct config *config, const struct config *other);
uint64_t workspace_bytes(const struct workspace *workspace);

/* What workspace_open() would take, without a device. */
uint64_t workspace_bytes_of(const struct config *config, int n_lanes, int max_tokens,
							bool all_logits);

/* Tokens that prefill reads in a pass: as suits the device, within max_tokens. */
int workspace_chunk(const struct workspace *workspace);

/* Reads every lane's tokens: state and tokens of its sequence advance, logits stand in lane->out
 * until the next pass. Fails before anything changes when a context is full or an id is outside the
 * vocabulary; when the device fails midway, the state is unknown, so the sequences of all lanes are
 * reset and the error says so. Picks (see kernels/pick.h) run in the same pass: picks[i] for lane
 * i's last row; NULL = none. */
int forward(struct workspace *workspace, struct lane *lanes, int n_lanes,
			const struct pick_params *picks, struct picked *picked, struct error *err);

#endif
