/*
 * Inside fidelity: what a chunk of positions leaves of the layers of each side, and what that adds
 * up to. Streams: only one chunk's residuals, experts and logits are in memory.
 */
#ifndef INSPECT_LAYERWISE_H
#define INSPECT_LAYERWISE_H

#include "core/distribution.h"
#include "core/forward.h"
#include "core/lens.h"
#include "inspect/fidelity.h"

/* One lane's chunk on the host. */
struct capture {
	int rows, n_layers, width, top_k; // room; residuals lie `width` apart
	float *hidden;                    // (n_layers + 1, rows, width), NULL = not wanted
	int32_t *ids;                     // (n_layers, n, top_k) of n tokens, -1 = none; NULL
	float *weights;                   // the same
	int n;                            // tokens of the running chunk
	struct taps taps;                 // .user is this
};

int capture_open(struct capture *capture, const struct slice *slice, int rows, bool hidden,
				 bool experts, struct error *err);
void capture_close(struct capture *capture);        // takes {0}
void capture_begin(struct capture *capture, int n); // before a pass of n tokens

/* Sums over the positions so far of one side against A. */
struct layerwise {
	const struct slice *base, *slice;
	int *both_base, *both, n_both; // packed channels that both keep, in A and in the side
	int *only_base, n_only;        // packed channels of A that the side lacks
	uint8_t *keeps;                // (n_layers, n_experts): stored experts that the side keeps
	struct comoment *metrics;      // (n_layers + 1, N_FIDELITY_METRICS): with KL
	struct lens_sums {
		double top, kl, same, apart;
	} * lens; // (n_layers + 1)
	size_t n_lens;
};

int layerwise_open(struct layerwise *l, const struct slice *base, const struct slice *slice,
				   struct error *err);
void layerwise_close(struct layerwise *l); // takes {0}

/* Rows [from, to) of a chunk; kl[row] is KL(A || side). */
void layerwise_add(struct layerwise *l, const struct capture *base, const struct capture *side,
				   int from, int to, const double *kl);

/* What the lens says, of up to max_rows rows; final logits and their distributions a row. lens of A
 * comes first and is kept by the caller. */
struct lens_rows {
	const float *logits; // (n, vocab)
	const struct distribution *of;
};
void layerwise_add_lens(struct layerwise *l, int layer, const struct lens_rows *base,
						const struct lens_rows *lens, const struct lens_rows *final, int n,
						int vocab);

/* is_base: the side is A itself, which has only a lens. NAN where nothing was added. */
void layerwise_result(const struct layerwise *l, struct fidelity_layer *layers, bool is_base);

#endif
