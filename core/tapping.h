/*
 * What of a pass is shown to those who asked (struct taps of a lane): values are copied from the
 * device to the workspace's host memory and handed to the callback, in the middle of the pass. A
 * lane without taps costs a test.
 */
#ifndef CORE_TAPPING_H
#define CORE_TAPPING_H

#include "core/pass.h"

bool tap_wanted(const struct reader *r, enum tap tap);

/* rows of `width` values that lie `stride` apart on the device. */
void tap(const struct pass *p, const struct reader *r, enum tap which, const float *values,
		 int rows, int width, int stride);

/* Around a mixer: it adds into the residual in place, so what it added (TAP_MIXER_OUTPUT) is a
 * difference. */
void tap_mixer_start(const struct pass *p, const struct reader *r);
void tap_mixer_output(const struct pass *p, const struct reader *r);

/* What the current layer's router chose; where nothing else is wanted (tap_can_wait) it waits for
 * the end of the pass, and tap_experts_late() shows all layers from the choices, which lie side by
 * side. */
bool tap_can_wait(const struct taps *taps);
void tap_experts(const struct pass *p, const struct reader *r);
void tap_experts_late(const struct pass *p, const struct reader *r);

#endif
