/* A turn as JSON, with the keys that clients of reasoning servers expect (usage, timings) and ours.
 */
#ifndef SESSIONS_REPLY_JSON_H
#define SESSIONS_REPLY_JSON_H

#include "core/reply.h"

struct cJSON;

/* eos is "stop", as everybody calls it; the others are their own names. */
const char *reply_finish_reason(const struct reply *reply);

/* New nodes; NULL without memory. Times are milliseconds of computing (core/metrics.h), so that
 * predicted_per_second = decode_steps / predicted_ms * 1000; the token of the prefill is no step.
 */
struct cJSON *reply_usage_json(const struct reply *reply);
struct cJSON *reply_timings_json(const struct reply *reply);

/* {text, reasoning, finish_reason, usage, timings, segments, switches} */
struct cJSON *reply_json(const struct reply *reply);

#endif
