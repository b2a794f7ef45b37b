/*
 * How passes are taken apart (kernels/profile.h): an event after every group of operations, read
 * once the pass is over. The host starts kernels more slowly than small ones run, so a list waits
 * on the card until it is written down there whole.
 */
#ifndef KERNELS_CUDA_PROFILE_H
#define KERNELS_CUDA_PROFILE_H

#include "kernels/cuda_pass.h"
#include "kernels/profile.h"

extern const struct profiler cuda_profiler;

#ifdef __cplusplus
extern "C" {
#endif

/* True between start and stop: passes are run as they come. Otherwise list, group and finish do
 * nothing. */
bool cuda_profiling(const struct device *device);
void cuda_profile_list(struct device *device); // a list is about to run
void cuda_profile_group(struct device *device, const struct cuda_list *list, size_t from, size_t n);
void cuda_profile_finish(struct device *device); // the stream has been waited for
void cuda_profile_close(struct device *device);

/* ---- cuda_peak.cu ---- */

void cuda_delay(struct device *device, uint64_t ns); // the stream waits; nothing on the shim
void cuda_fill_random(struct device *device, void *memory, size_t bytes); // BF16 below 2

/* Bytes a second of reading this memory, the best of a few times; 0 and a failed device, or no
 * time at all. Waits for the stream. */
double cuda_read_rate(struct device *device, const void *memory, size_t bytes);

#ifdef __cplusplus
}
#endif

#endif
