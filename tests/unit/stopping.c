/* Stops while weights are on their way to a card, and cards that refuse: as the engine tells of
 * them. The card is the CPU, which says that it has memory of its own and that nothing is there. */
#include "core/engine.h"
#include "core/model.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define WAIT_MS 60000

static struct backend card;
static struct engine *engine;
static int n_brought, stop_at;  // matrices that were uploaded; the one behind which a stop comes
static int n_opened, refuse_at; // devices; the one that is refused

static void stop_when_due(void)
{
	if (++n_brought == stop_at)
		engine_submit(engine, &(struct request){.type = REQUEST_STOP}, NULL);
}

static uint64_t missing(const struct device *device, const void *host, size_t bytes)
{
	(void)device, (void)host;
	return bytes;
}

static const void *adopt(struct device *device, const void *host, size_t bytes, struct error *err)
{
	(void)device, (void)bytes, (void)err;
	stop_when_due();
	return host;
}

static int gather(struct device *device, void *to, const struct portion *portion, struct error *err)
{
	stop_when_due();
	return backend_cpu.gather(device, to, portion, err);
}

static bool room(struct device *device, uint64_t *free_bytes, uint64_t *total_bytes)
{
	(void)device;
	*free_bytes = *total_bytes = (uint64_t)1 << 40;
	return true;
}

static const char *rung(const struct device *device)
{
	(void)device;
	return "card";
}

static struct device *open_card(const struct device_options *options, struct error *err)
{
	if (++n_opened == refuse_at)
		return fail(err, "the card is in use"), NULL;
	return backend_cpu.open(options, err);
}

static void start(struct engine_options options)
{
	struct error err = {0};
	card = backend_cpu;
	card.open = open_card;
	card.rung = rung;
	card.missing = missing;
	card.adopt = adopt;
	card.gather = gather;
	card.room = room;
	n_brought = stop_at = n_opened = refuse_at = 0;
	options.backend = &card;
	options.context = 256;
	options.device.n_threads = 1;
	options.device.kv_dtype = DTYPE_F32;
	engine = engine_local_open(&options, &err);
	assert_non_null(engine);
}

static const struct event *until(enum event_type type, enum event_type or)
{
	for (;;) {
		const struct event *event = engine_wait(engine, WAIT_MS);
		assert_non_null(event);
		if (event->type == type || event->type == or)
			return event;
	}
}

static const struct event *open_model(const char *name)
{
	char path[4096];
	struct error err = {0};
	const char *folder = getenv("ELASTISCOPE_TESTS");
	assert_non_null(folder);
	snprintf(path, sizeof path, "%s/../%s", folder, name);
	struct request request = {.type = REQUEST_OPEN, .directory = path};
	strcpy(request.settings.budget, "small");
	assert_int_equal(engine_submit(engine, &request, &err), 0);
	return until(EV_OPENED, EV_ERROR);
}

static enum stop_reason ask(const char *budget, int *n_generated)
{
	struct conversation conversation;
	struct error err = {0};
	conversation_init(&conversation);
	conversation_append(&conversation, CHAT_USER, (struct chat_string){"Hi", 2},
						(struct chat_string){0}, NULL);
	struct request request = {.type = REQUEST_TURN,
							  .conversation = &conversation,
							  .settings = {.sampling = {.top_p = 1}, .max_tokens = 2}};
	strcpy(request.settings.budget, budget);
	assert_int_equal(engine_submit(engine, &request, &err), 0);
	conversation_free(&conversation);
	const struct event *event = until(EV_STOP, EV_STOP);
	*n_generated = event->stop.tokens;
	return event->stop.reason;
}

static void a_stopped_opening_stops_nothing_else(void **state)
{
	int n;
	(void)state;
	start((struct engine_options){0});
	stop_at = 3;
	const struct event *event = open_model("demo");
	assert_int_equal(event->type, EV_ERROR);
	assert_non_null(strstr(event->text, "was stopped at "));
	assert_int_equal(ask("small", &n), STOP_ERROR); // no model is open
	n_brought = stop_at = 0;
	assert_int_equal(open_model("demo")->type, EV_OPENED);
	int all = n_brought;
	assert_true(all > 3);
	engine_close(engine);
	start((struct engine_options){0}); // behind the last matrix: too late
	stop_at = all;
	assert_int_equal(open_model("demo")->type, EV_OPENED);
	assert_int_equal(ask("no such budget", &n), STOP_ERROR);
	engine_close(engine);
}

static void a_late_stop_stops_the_turn(void **state)
{
	int n;
	(void)state;
	start((struct engine_options){.device.alone = true});
	assert_int_equal(open_model("demo")->type, EV_OPENED);
	n_brought = 0;
	assert_int_equal(ask("medium", &n), STOP_LENGTH);
	assert_int_equal(n, 2);
	int all = n_brought;
	engine_close(engine);
	start((struct engine_options){.device.alone = true});
	assert_int_equal(open_model("demo")->type, EV_OPENED);
	n_brought = 0;
	stop_at = all;
	assert_int_equal(ask("medium", &n), STOP_STOPPED);
	assert_int_equal(n, 0);
	assert_int_equal(ask("medium", &n), STOP_LENGTH);
	engine_close(engine);
}

static void a_wrong_folder_keeps_the_card(void **state)
{
	(void)state;
	start((struct engine_options){.device.automatic = true});
	assert_int_equal(open_model("no such folder")->type, EV_ERROR);
	const struct event *event = open_model("demo");
	assert_int_equal(event->type, EV_OPENED);
	assert_string_equal(event->opened.rung, "card");
	engine_close(engine);
	start((struct engine_options){.device.automatic = true});
	refuse_at = 1;
	event = open_model("demo");
	assert_int_equal(event->type, EV_OPENED);
	assert_string_not_equal(event->opened.rung, "card");
	assert_non_null(strstr(until(EV_NOTICE, EV_ERROR)->text, "on the CPU: the card is in use"));
	engine_close(engine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_stopped_opening_stops_nothing_else),
		cmocka_unit_test(a_late_stop_stops_the_turn),
		cmocka_unit_test(a_wrong_folder_keeps_the_card),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
