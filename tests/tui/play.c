#include "tests/tui/play.h"
#include "core/model.h"
#include "tests/engine/script.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct turn_settings settings = {
	.budget = "large", .think = "small", .answer = "large", .thinking = true};

static double at_ms;
static struct model *model;

static void word(struct script *script, const char *budget, enum phase phase, const char *text,
				 uint64_t took_ns)
{
	at_ms += 10;
	script_token(script, at_ms, budget, phase, text, took_ns);
}

static void memory(struct script *script)
{
	struct event event = {.type = EV_MEMORY,
						  .memory = {.weights_bytes = 4700000,
									 .resident_bytes = 4600000,
									 .kv_bytes = 100000,
									 .conv_bytes = 10000,
									 .ssm_bytes = 40000,
									 .snapshot_bytes = 0,
									 .scratch_bytes = 200000,
									 .rss_bytes = 61 << 20,
									 .vram_bytes = -1,
									 .bytes_per_token = 1812000}};
	script_event(script, &event);
}

static void first_turn(struct script *script)
{
	static const char *const thoughts[] = {"49",  " -",        " 88",  ":",    " 49",
										   " is", " smaller",  ", so", " the", " result",
										   " is", " negative", ".\n"};
	static const char *const answer[] = {"\n49", " -", " 88", " =", " -39", "."};
	script_on(script, REQUEST_TURN);
	script_turn(script, at_ms, &settings);
	script_prefill(script, at_ms += 4, 28, 0, "large", 4000000);
	for (size_t i = 0; i < sizeof thoughts / sizeof *thoughts; i++) {
		if (i == 6)
			script_switch(script, at_ms, "large", "small", HANDOFF_CARRY, SWITCH_USER, 0);
		word(script, i < 6 ? "large" : "small", PHASE_THINK, thoughts[i],
			 i == 0  ? 0
			 : i < 6 ? 10000000
					 : 4000000);
	}
	word(script, "small", PHASE_THINK, "</think>", 4000000);
	script_switch(script, at_ms, "small", "large", HANDOFF_REPREFILL, SWITCH_PHASE, 3500000);
	for (size_t i = 0; i < sizeof answer / sizeof *answer; i++)
		word(script, "large", PHASE_ANSWER, answer[i], 10000000);
	script_stop(script, at_ms, STOP_EOS);
}

static void second_turn(struct script *script)
{
	char text[64];
	script_on(script, REQUEST_TURN);
	script_turn(script, at_ms += 1000, &settings);
	script_prefill(script, at_ms += 4, 12, 28, "large", 2000000);
	word(script, "large", PHASE_THINK, "One step at a time.", 0);
	word(script, "large", PHASE_THINK, "</think>", 10000000);
	word(script, "large", PHASE_ANSWER,
		 "\nWide: \xe4\xbd\xa0\xe5\xa5\xbd, accents: e\xcc\x81\xc3\xa9, ", 10000000);
	word(script, "large", PHASE_ANSWER, "escape: \x1b[31mred\x1b[0m, tab:\there.\n", 10000000);
	for (int i = 1; i <= 30; i++) {
		snprintf(text, sizeof text, "Line %d of thirty, with some words to wrap.\n", i);
		word(script, i % 3 ? "large" : "medium", PHASE_ANSWER, text, 10000000);
	}
	script_stop(script, at_ms, STOP_EOS);
}

struct engine *play_open(const struct engine_options *options, struct error *err)
{
	(void)options;
	const char *tests = getenv("ELASTISCOPE_TESTS");
	char demo[4096];
	snprintf(demo, sizeof demo, "%s/../demo", tests ? tests : "tests");
	model = model_open(demo, &(struct model_options){0}, err);
	if (!model)
		return NULL;
	struct script *script = script_open(err);
	if (!script)
		return NULL;
	at_ms = 0;
	script_on(script, REQUEST_OPEN);
	script_opened(script, at_ms += 20, model, 4096);
	memory(script);
	first_turn(script);
	second_turn(script);
	script_on(script, REQUEST_TURN);
	script_turn(script, at_ms += 1000, &settings);
	script_error(script, at_ms, "the device has failed: out of memory");
	script_stop(script, at_ms, STOP_ERROR);
	script->gauges =
		(struct gauges){.phase = PHASE_ANSWER, .context_used = 287, .context_size = 4096};
	strcpy(script->gauges.budget, "large");
	return &script->engine;
}

void play_close(void)
{
	model_release(model);
	model = NULL;
}
