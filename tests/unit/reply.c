/* A turn put together from a scripted engine's events. */
#include "core/reply.h"
#include "tests/engine/script.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

static void drain(struct script *script, struct reply *reply)
{
	const struct event *event;
	while ((event = engine_next(&script->engine)))
		reply_event(reply, event);
}

static void a_turn_with_thoughts_and_a_switch(void **state)
{
	struct script *script = script_open(NULL);
	struct turn_settings settings = {.thinking = true};
	struct reply reply = {0};
	int32_t stale[] = {3, 7};
	(void)state;
	script_turn(script, 0, &settings);
	script_prefill(script, 5, 20, 8, "small", 4000000);
	script_token(script, 6, "small", PHASE_THINK, "7+6", 0);
	script_token(script, 7, "small", PHASE_THINK, "=13\n", 1000000);
	script_token(script, 8, "small", PHASE_THINK, "</think>", 1500000);
	struct event event = {.type = EV_SWITCH, .numbers = stale, .n_numbers = 2};
	event.change.at = 30;
	event.change.took_ns = 77;
	event.change.handoff = HANDOFF_CARRY;
	event.change.reason = SWITCH_PHASE;
	strcpy(event.change.from, "small");
	strcpy(event.change.to, "large");
	script_event(script, &event);
	script_token(script, 9, "large", PHASE_ANSWER, "\n", 2000000);
	script_token(script, 10, "large", PHASE_ANSWER, "\n13", 2000000);
	script_token(script, 11, "large", PHASE_ANSWER, "", 2000000);
	event = (struct event){.type = EV_STOP};
	event.stop.reason = STOP_EOS;
	event.stop.phase = PHASE_ANSWER;
	event.stop.took_ns = 11000000;
	event.stop.first_ns = 6000000;
	script_event(script, &event);
	drain(script, &reply);
	assert_string_equal(text_chars(&reply.reasoning), "7+6=13");
	assert_string_equal(text_chars(&reply.answer), "\n13");
	assert_true(reply.done);
	assert_false(reply.failed);
	assert_int_equal(reply.prompt_tokens, 28);
	assert_int_equal(reply.cached_tokens, 8);
	assert_int_equal(reply.reasoning_tokens, 3);
	assert_int_equal(reply.completion_tokens, 6);
	assert_int_equal(reply.decode_steps, 5);
	assert_int_equal(reply.decode_ns, 8500000);
	assert_int_equal(reply.first_ns, 6000000);
	assert_int_equal(reply.n_segments, 2);
	assert_int_equal(reply.segments[0].tokens, 3);
	assert_int_equal(reply.segments[0].steps, 2);
	assert_string_equal(reply.segments[1].budget, "large");
	assert_int_equal(reply.n_switches, 1);
	assert_int_equal(reply.switches[0].n_stale, 2);
	assert_int_equal(reply.switches[0].stale[1], 7);
	assert_int_equal(reply.switches[0].at, 30);

	// the next turn starts anew; without thoughts a newline in front stays, as the template keeps
	// it
	settings.thinking = false;
	script_turn(script, 20, &settings);
	script_token(script, 21, "large", PHASE_ANSWER, "\nHi", 0);
	script_stop(script, 22, STOP_LENGTH);
	drain(script, &reply);
	assert_string_equal(text_chars(&reply.reasoning), "");
	assert_string_equal(text_chars(&reply.answer), "\nHi");
	assert_int_equal(reply.n_switches, 0);
	assert_int_equal(reply.n_segments, 1);
	assert_int_equal(reply.prompt_tokens, 0);
	assert_int_equal(reply.reason, STOP_LENGTH);
	reply_free(&reply);
	engine_close(&script->engine);
}

static void stopped_inside_its_thoughts_and_failed(void **state)
{
	struct script *script = script_open(NULL);
	struct turn_settings settings = {.thinking = true};
	struct reply reply = {0};
	struct event event = {.type = EV_STOP};
	(void)state;
	script_turn(script, 0, &settings);
	script_token(script, 1, "small", PHASE_THINK, "hm\n", 0);
	event.stop.reason = STOP_STOPPED;
	event.stop.phase = PHASE_THINK;
	script_event(script, &event);
	drain(script, &reply);
	assert_string_equal(text_chars(&reply.reasoning), "hm");
	assert_string_equal(text_chars(&reply.answer), "");
	assert_false(reply.failed);

	script_turn(script, 5, &settings);
	script_error(script, 6, "the prompt has 9 tokens, the context 8");
	script_stop(script, 7, STOP_ERROR);
	drain(script, &reply);
	assert_true(reply.done && reply.failed);
	assert_string_equal(reply.error, "the prompt has 9 tokens, the context 8");
	reply_free(&reply);
	reply_free(&reply);
	engine_close(&script->engine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_turn_with_thoughts_and_a_switch),
		cmocka_unit_test(stopped_inside_its_thoughts_and_failed),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
