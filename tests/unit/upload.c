/* Weights on their way to a device: what is missing, a stop, and room; and how it is told. The
 * device is the CPU, which is asked to pretend that nothing is there. */
#include "core/upload.h"
#include "core/fit.h"
#include "core/pack.h"
#include "core/progress.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "tests/unit/opened.h"

static uint64_t n_adopted, room_bytes;

static uint64_t all_missing(const struct device *device, const void *host, size_t bytes)
{
	(void)device, (void)host;
	return bytes;
}

static const void *adopt(struct device *device, const void *host, size_t bytes, struct error *err)
{
	(void)device, (void)err;
	n_adopted += bytes;
	return host;
}

static bool room(struct device *device, uint64_t *free_bytes, uint64_t *total_bytes)
{
	(void)device;
	*free_bytes = room_bytes;
	*total_bytes = 2 * room_bytes;
	return true;
}

struct watch {
	int calls, stop_at;
	uint64_t done, total;
};

static int step(void *user, const char *budget, uint64_t done, uint64_t total)
{
	struct watch *watch = user;
	assert_string_equal(budget, "small");
	assert_true(done >= watch->done && done <= total);
	watch->done = done;
	watch->total = total;
	return ++watch->calls == watch->stop_at;
}

static void plan_of(const struct model *model, const char *name, struct slice *plan)
{
	const struct budget *budget = &model->elastic.budgets[elastic_find(&model->elastic, name)];
	OK(slice_build(plan, &model->weights, &model->config, budget, NULL, NULL, &err));
}

static void uploads_are_seen_and_stopped(void **state)
{
	(void)state;
	struct model model;
	struct slice plan;
	struct backend backend = backend_cpu;
	struct watch watch = {0}, stopped = {.stop_at = 3};
	struct error err = {0};
	opened_open(&model, "golden/nest-tiny", NULL);
	plan_of(&model, "small", &plan);
	backend.missing = all_missing;
	backend.adopt = adopt;
	backend.room = room;
	room_bytes = UINT64_MAX / 2;
	struct upload upload = {&backend, NULL, step, &watch};
	assert_int_equal(upload_whole(&upload, &plan, &err), 0);
	assert_int_equal(watch.done, watch.total);
	assert_int_equal(n_adopted, upload_missing(&upload, &plan));
	assert_true(n_adopted > plan.cost.bytes); // whole matrices
	n_adopted = 0;
	upload.user = &stopped;
	assert_int_equal(upload_whole(&upload, &plan, &err), -1);
	assert_non_null(strstr(err.text, "uploading small was stopped at "));
	assert_true(n_adopted == stopped.done && stopped.done < stopped.total);

	room_bytes = watch.total - 1;
	assert_int_equal(upload_whole(&upload, &plan, &err), -1);
	assert_non_null(strstr(err.text, "small (BF16) needs "));
	assert_non_null(strstr(err.text, "left: 1 B are missing"));
	slice_free(&plan);
	opened_close(&model);
}

static void a_stopped_pack_leaves_nothing(void **state)
{
	(void)state;
	struct model model;
	struct slice plan;
	struct pack pack;
	struct watch watch = {.stop_at = 4};
	struct error err = {0};
	opened_open(&model, "golden/nest-tiny", NULL);
	plan_of(&model, "small", &plan);
	struct upload upload = {&backend_cpu, NULL, step, &watch};
	uint64_t bytes = pack_bytes(&plan);
	assert_int_equal(pack_open(&pack, &plan, &upload, &err), -1);
	assert_non_null(strstr(err.text, "was stopped at "));
	assert_int_equal(watch.total, bytes);
	assert_null(pack.memory);
	assert_null(plan.layers); // taken over
	opened_close(&model);
}

static void channels_are_found_among_packed_ones(void **state)
{
	(void)state;
	const struct span base[] = {{2, 4}, {10, 6}, {20, 1}};
	const struct {
		struct span spans[2];
		int n;
		bool within;
		struct span found[2];
		int n_found;
	} all[] = {
		{{{2, 4}}, 1, true, {{0, 4}}, 1},
		{{{3, 2}, {11, 5}}, 2, true, {{1, 2}, {5, 5}}, 2},
		{{{4, 2}, {10, 1}}, 2, true, {{2, 3}}, 1}, // neighbours when packed
		{{{20, 1}}, 1, true, {{10, 1}}, 1},
		{{{5, 2}}, 1, false, {{0, 0}}, 0},
		{{{0, 3}}, 1, false, {{0, 0}}, 0},
		{{{20, 2}}, 1, false, {{0, 0}}, 0},
		{{{0, 0}}, 0, true, {{0, 0}}, 0},
	};
	for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
		struct span_list list = {0};
		assert_int_equal(spans_within(base, 3, all[i].spans, all[i].n, &list), all[i].within);
		assert_int_equal(spans_within(base, 3, all[i].spans, all[i].n, NULL), all[i].within);
		if (all[i].within) {
			assert_int_equal(list.n, all[i].n_found);
			assert_memory_equal(list.spans ? (void *)list.spans : (void *)all[i].found,
								all[i].found, list.n * sizeof *list.spans);
		}
		free(list.spans);
	}
}

static void what_is_missing_and_what_would_fit(void **state)
{
	(void)state;
	struct model model;
	struct slice plan;
	struct text text = {0};
	opened_open(&model, "golden/nest-tiny", NULL);
	plan_of(&model, "large", &plan);
	struct fit fit = {.model = &model,
					  .plan = &plan,
					  .weight_bytes = pack_bytes(&plan),
					  .rest = {.kv = 1 << 20, .ssm = 1 << 19, .activations = 3 << 20},
					  .context = 1024,
					  .total_bytes = 1 << 25};
	uint64_t needed = fit.weight_bytes + footprint_bytes(&fit.rest);
	fit.free_bytes = needed;
	assert_true(fit_has_room(&fit));
	fit.free_bytes = needed - (1 << 18); // of the KV cache, a quarter
	assert_false(fit_has_room(&fit));
	fit_missing(&fit, &text);
	assert_non_null(strstr(text_chars(&text), "large (BF16) needs "));
	assert_non_null(
		strstr(text_chars(&text),
			   ", 1.50 MiB of state at 1024 tokens and 3.00 MiB to work in, the card has"));
	assert_non_null(strstr(text_chars(&text), " of 32.00 MiB left: 256.00 KiB are missing"));
	text_clear(&text);
	fit_instead(&fit, &text);
	assert_non_null(strstr(text_chars(&text), "alone fits with "));
	assert_non_null(strstr(text_chars(&text), ", --ctx 767 fits"));
	text_clear(&text);
	fit.free_bytes = 1000;
	fit_instead(&fit, &text);
	assert_string_equal(text_chars(&text), "; no budget of the file fits");
	text_free(&text);
	slice_free(&plan);
	opened_close(&model);
}

static void tell(struct progress *progress, uint64_t ms, int64_t done)
{
	struct event event = {.type = EV_PROGRESS, .at_ns = ms * 1000000, .text = "uploading large"};
	event.progress.done = done;
	event.progress.total = (int64_t)4 << 30;
	event.progress.bytes = true;
	progress_event(progress, &event);
}

static void progress_has_a_rate(void **state)
{
	(void)state;
	struct progress progress = {0};
	struct text text = {0};
	tell(&progress, 5000, 0);
	progress_text(&progress, &text);
	assert_string_equal(text_chars(&text), "uploading large: 0 B of 4.00 GiB (0%)");
	tell(&progress, 7000, (int64_t)1 << 30);
	text_clear(&text);
	progress_text(&progress, &text);
	assert_string_equal(text_chars(&text),
						"uploading large: 1.00 GiB of 4.00 GiB (25%), 512.00 MiB/s, 0:06 left");
	progress_event(&progress, &(struct event){.type = EV_TOKEN});
	assert_int_equal(progress.done, (int64_t)1 << 30);
	tell(&progress, 8000, (int64_t)4 << 30);
	assert_int_equal(progress.what[0], 0);
	text_free(&text);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(uploads_are_seen_and_stopped),
		cmocka_unit_test(a_stopped_pack_leaves_nothing),
		cmocka_unit_test(channels_are_found_among_packed_ones),
		cmocka_unit_test(what_is_missing_and_what_would_fit),
		cmocka_unit_test(progress_has_a_rate),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
