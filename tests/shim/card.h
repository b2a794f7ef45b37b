/* What shim.cpp asks of the pretended card (card.cpp). */
#ifndef TESTS_SHIM_CARD_H
#define TESTS_SHIM_CARD_H

#include "cuda_runtime_api.h"

enum shim_call {
	SHIM_MALLOC,
	SHIM_HOST,
	SHIM_COPY,
	SHIM_LAUNCH,
	SHIM_GRAPH,
	SHIM_SYNC,
	N_SHIM_CALLS
};

/* Counts it; anything but cudaSuccess: it must not happen. */
cudaError_t shim_call(enum shim_call what);

void shim_copied(size_t bytes); // from the host to the card: takes its time

#endif
