/*
 * Weights on their way to a device, before a slice over them is built: who waits sees how far it
 * is and can stop it. Whole matrices serve every budget of the model; `struct pack` (core/pack.h)
 * has one budget's rows and columns alone.
 */
#ifndef CORE_UPLOAD_H
#define CORE_UPLOAD_H

#include "core/slice.h"

struct upload {
	const struct backend *backend;
	struct device *device;
	/* Called before every matrix and at the end with bytes done and in all, on the thread that
	 * uploads; non-zero stops. May be NULL. */
	int (*step)(void *user, const char *budget, uint64_t done, uint64_t total);
	void *user;
};

/* What of the whole matrices that the plan reads is not on the device yet. */
uint64_t upload_missing(const struct upload *upload, const struct slice *plan);

/* Brings these there, if there is room; slice_build() finds them. The plan was built without a
 * backend. What was uploaded before a stop or a failure stays until the model is closed, for the
 * next try. */
int upload_whole(const struct upload *upload, const struct slice *plan, struct error *err);

/* Nobody reads this checkpoint's weights on the device any more. */
void upload_forget(const struct upload *upload, const struct checkpoint *checkpoint);

/* One step of an upload: 0, or -1 and a sentence when it was stopped. */
int upload_step(const struct upload *upload, const char *budget, uint64_t done, uint64_t total,
				struct error *err);

#endif
