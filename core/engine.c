/* Calls through an engine's table: the only functions that the folders above need. */
#include "core/engine.h"
#include "base/clock.h"
#include <errno.h>
#include <poll.h>
#include <stddef.h>

int engine_submit(struct engine *engine, const struct request *request, struct error *err)
{
	return engine->table->submit(engine, request, err);
}

const struct event *engine_next(struct engine *engine)
{
	return engine->table->next(engine);
}

const struct event *engine_wait(struct engine *engine, int timeout_ms)
{
	uint64_t end = clock_ns() + (uint64_t)(timeout_ms > 0 ? timeout_ms : 0) * 1000000;
	for (;;) {
		const struct event *event = engine->table->next(engine);
		if (event)
			return event;
		int left = -1;
		if (timeout_ms >= 0) {
			uint64_t now = clock_ns();
			if (now >= end)
				return NULL;
			left = (int)((end - now + 999999) / 1000000);
		}
		struct pollfd fd = {.fd = engine->table->fd(engine), .events = POLLIN};
		if (poll(&fd, 1, left) < 0 && errno != EINTR)
			return NULL;
	}
}

void engine_close(struct engine *engine)
{
	if (engine)
		engine->table->close(engine);
}
