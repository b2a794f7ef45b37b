/*
 * The local engine on the bundled demo: golden answers, budgets changed between tokens, limits,
 * stop, pause and step, what goes wrong. Nothing waits for a clock: tests drive the engine by pause
 * and step, or wait for its events.
 */
#include "core/engine.h"
#include "base/clock.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "core/model.h"
#include "core/reply.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define MAX_TOKENS 256
#define WAIT_MS 60000

static const char question[] = "What is 4827 + 396?";

struct seen { // of one sequence, from EV_TURN to EV_STOP
	int32_t ids[MAX_TOKENS];
	int at[MAX_TOKENS];
	char budgets[MAX_TOKENS][BUDGET_NAME_BYTES];
	enum phase phases[MAX_TOKENS];
	int n, closing; // tokens; index of </think>, -1 = none
	int switch_at, n_switches;
	enum switch_reason reason;
	enum stop_reason stop;
	enum phase stop_phase;
	int errors, notices;
	struct reply reply;
};

static char *path_of(const char *file)
{
	char *path = file_join(getenv("ELASTISCOPE_TESTS"), file, NULL);
	assert_non_null(path);
	return path;
}

static void note(struct seen *seen, const struct event *event)
{
	reply_event(&seen->reply, event);
	if (event->type == EV_TOKEN && seen->n < MAX_TOKENS) {
		int i = seen->n++;
		seen->ids[i] = event->token.id;
		seen->at[i] = event->token.at;
		seen->phases[i] = event->token.phase;
		strcpy(seen->budgets[i], event->token.budget);
		if (event->token.thinking_ends)
			seen->closing = i;
	} else if (event->type == EV_SWITCH) {
		seen->n_switches++;
		seen->switch_at = event->change.at;
		seen->reason = event->change.reason;
	} else if (event->type == EV_STOP) {
		seen->stop = event->stop.reason;
		seen->stop_phase = event->stop.phase;
	}
	seen->errors += event->type == EV_ERROR;
	seen->notices += event->type == EV_NOTICE;
}

/* Events until one of this type; all are noted. */
static const struct event *until(struct engine *engine, enum event_type type, struct seen *seen)
{
	for (;;) {
		const struct event *event = engine_wait(engine, WAIT_MS);
		assert_non_null(event);
		if (seen && event->type == EV_TURN) {
			reply_free(&seen->reply);
			*seen = (struct seen){.closing = -1, .switch_at = -1};
		}
		if (seen)
			note(seen, event);
		if (event->type == type)
			return event;
	}
}

static void ask_for(struct engine *engine, struct request request)
{
	struct error err = {0};
	if (engine_submit(engine, &request, &err)) {
		print_error("%s\n", err.text);
		assert_true(false);
	}
}

static void do_simple(struct engine *engine, enum request_type type, double value)
{
	ask_for(engine, (struct request){.type = type, .value = value});
}

static struct engine *open_with(struct engine_options options)
{
	struct error err = {0};
	options.backend = &backend_cpu;
	options.device.kv_dtype = DTYPE_F32;
	if (options.device.n_threads == 0)
		options.device.n_threads = 2;
	struct engine *engine = engine_local_open(&options, &err);
	assert_non_null(engine);
	return engine;
}

static struct engine *open_demo(struct engine_options options)
{
	struct engine *engine = open_with(options);
	char *demo = path_of("../demo");
	ask_for(engine, (struct request){.type = REQUEST_OPEN, .directory = demo});
	const struct event *event = until(engine, EV_OPENED, NULL);
	assert_string_equal(event->opened.model->name, "demo");
	free(demo);
	return engine;
}

static struct turn_settings use(const char *budget)
{
	struct turn_settings settings = {.sampling = {.top_p = 1}, .thinking = true};
	strcpy(settings.budget, budget);
	return settings;
}

static struct turn_settings think_and_answer(const char *think, const char *answer)
{
	struct turn_settings settings = use("");
	settings.policy = true;
	strcpy(settings.think, think);
	strcpy(settings.answer, answer);
	return settings;
}

static void submit_turn(struct engine *engine, int seq, const char *text,
						struct turn_settings settings)
{
	struct conversation conversation;
	conversation_init(&conversation);
	conversation_append(&conversation, CHAT_USER, (struct chat_string){text, strlen(text)},
						(struct chat_string){0}, NULL);
	ask_for(engine, (struct request){.type = REQUEST_TURN,
									 .seq = seq,
									 .conversation = &conversation,
									 .settings = settings});
	conversation_free(&conversation);
}

static void turn(struct engine *engine, const char *text, struct turn_settings settings,
				 struct seen *seen)
{
	submit_turn(engine, 0, text, settings);
	until(engine, EV_STOP, seen);
}

/* ---- golden.json ---- */

struct golden_file {
	struct text text;
	struct json json;
};

static void golden_read(struct golden_file *golden)
{
	char *path = path_of("golden/demo/golden.json");
	struct error err = {0};
	*golden = (struct golden_file){0};
	assert_int_equal(file_read(path, 1 << 24, &golden->text, &err), 0);
	assert_int_equal(json_parse(&golden->json, golden->text.data, golden->text.length, &err), 0);
	free(path);
}

static void golden_free(struct golden_file *golden)
{
	json_free(&golden->json);
	text_free(&golden->text);
}

/* Greedy ids of prompt number `prompt` (or its prompt_ids, budget NULL); how many. */
static int golden_ids(const struct golden_file *golden, int prompt, const char *budget,
					  int32_t ids[MAX_TOKENS])
{
	const struct json *json = &golden->json;
	const struct json_node *prompts = json_member(json, json->nodes, "prompts");
	const struct json_node *node = json_first(json, prompts);
	while (prompt-- > 0)
		node = json_next(json, prompts, node);
	node = budget ? json_member(json, json_member(json, json_member(json, node, "budgets"), budget),
								"greedy_ids")
				  : json_member(json, node, "prompt_ids");
	int n = 0;
	for (const struct json_node *id = json_first(json, node); id; id = json_next(json, node, id)) {
		int64_t value;
		assert_int_equal(json_integer(json, id, "id", &value, NULL), 0);
		ids[n++] = (int32_t)value;
	}
	assert_true(n > 0);
	return n;
}

static void equals_golden(const struct seen *seen, int prompt, const char *budget)
{
	struct golden_file golden;
	int32_t ids[MAX_TOKENS];
	golden_read(&golden);
	int n = golden_ids(&golden, prompt, budget, ids);
	assert_int_equal(seen->n, n);
	assert_memory_equal(seen->ids, ids, (size_t)n * sizeof *ids);
	golden_free(&golden);
}

static const char *const names[] = {"large", "medium", "small"};

/* ---- tests ---- */

static void every_budget_answers_as_the_reference(void **state)
{
	struct seen seen = {0};
	(void)state;
	for (int threads = 1; threads <= 2; threads++) {
		struct engine *engine = open_demo((struct engine_options){.device.n_threads = threads});
		for (int i = 0; i < 3; i++) {
			turn(engine, question, use(names[i]), &seen);
			equals_golden(&seen, 0, names[i]);
			assert_int_equal(seen.stop, STOP_EOS);
			assert_int_equal(seen.errors, 0);
			assert_string_equal(text_chars(&seen.reply.answer), "4827 + 396 = 5223.");
			assert_string_equal(seen.budgets[seen.n - 1], names[i]);
			assert_int_equal(seen.at[0], 28);
			assert_int_equal(seen.reply.prompt_tokens, 28);
			assert_int_equal(seen.reply.decode_steps, seen.n - 1);
		}
		struct turn_settings settings = use("small");
		settings.thinking = false;
		turn(engine, "How many r in strawberry?", settings, &seen);
		equals_golden(&seen, 5, "small");
		assert_int_equal(seen.reply.reasoning_tokens, 0);
		engine_close(engine);
	}
	reply_free(&seen.reply);
}

/* The rest of an answer whose beginning another budget wrote, from the tokens themselves. */
static void the_policy_switches_at_the_end_of_thoughts(void **state)
{
	struct engine *engine = open_demo((struct engine_options){0});
	struct seen seen = {0}, again = {0};
	(void)state;
	for (int i = 0; i < 2; i++) {
		struct turn_settings settings = think_and_answer("small", "large");
		settings.handoff = i ? HANDOFF_CARRY : HANDOFF_REPREFILL;
		do_simple(engine, REQUEST_CLEAR, 0);
		turn(engine, question, settings, &seen);
		assert_int_equal(seen.n_switches, 1);
		assert_int_equal(seen.reason, SWITCH_PHASE);
		assert_true(seen.closing > 0);
		assert_int_equal(seen.switch_at, seen.at[seen.closing]);
		assert_string_equal(seen.budgets[seen.closing], "small");
		assert_int_equal(seen.phases[seen.closing], PHASE_THINK);
		assert_string_equal(seen.budgets[seen.closing + 1], "large");
		assert_int_equal(seen.phases[seen.closing + 1], PHASE_ANSWER);
		assert_int_equal(seen.reply.switches[0].handoff, settings.handoff);
		assert_string_equal(seen.reply.switches[0].from, "small");
		assert_int_equal(seen.reply.n_segments, 2);
	}
	// re-prefill means: as if the answer's budget had read everything
	struct golden_file golden;
	int32_t ids[2 * MAX_TOKENS];
	struct turn_settings settings = think_and_answer("small", "large");
	turn(engine, question, settings, &seen);
	golden_read(&golden);
	int n = golden_ids(&golden, 0, NULL, ids);
	memcpy(ids + n, seen.ids, (size_t)(seen.closing + 1) * sizeof *ids);
	ask_for(engine, (struct request){.type = REQUEST_COMPLETE,
									 .tokens = ids,
									 .n_tokens = n + seen.closing + 1,
									 .stop_eos = true,
									 .settings = use("large")});
	until(engine, EV_STOP, &again);
	assert_int_equal(again.n, seen.n - seen.closing - 1);
	assert_memory_equal(again.ids, seen.ids + seen.closing + 1, (size_t)again.n * sizeof *ids);
	golden_free(&golden);
	engine_close(engine);
	reply_free(&seen.reply);
	reply_free(&again.reply);
}

static void a_budget_changes_between_any_two_tokens(void **state)
{
	struct engine *engine = open_demo((struct engine_options){0});
	struct seen seen = {0};
	struct turn_settings settings = think_and_answer("small", "large");
	(void)state;
	do_simple(engine, REQUEST_PAUSE, 1);
	submit_turn(engine, 0, question, settings);
	for (int i = 0; i < 5; i++) {
		do_simple(engine, REQUEST_STEP, 0);
		until(engine, EV_TOKEN, &seen);
	}
	assert_int_equal(seen.n, 5);
	settings = use("medium"); // by hand: the policy is off
	ask_for(engine, (struct request){.type = REQUEST_SETTINGS, .settings = settings});
	do_simple(engine, REQUEST_STEP, 0);
	until(engine, EV_TOKEN, &seen);
	assert_int_equal(seen.n_switches, 1);
	assert_int_equal(seen.reason, SWITCH_USER);
	assert_int_equal(seen.switch_at, seen.at[4]); // the pending token is the first one it reads
	assert_string_equal(seen.budgets[4], "small");
	assert_string_equal(seen.budgets[5], "medium");
	settings = use("hidden_size=112,n_routed_experts=12"); // typed, and carried
	settings.handoff = HANDOFF_CARRY;
	ask_for(engine, (struct request){.type = REQUEST_SETTINGS, .settings = settings});
	do_simple(engine, REQUEST_STEP, 0);
	until(engine, EV_TOKEN, &seen);
	assert_int_equal(seen.n_switches, 2);
	assert_string_equal(seen.budgets[6], settings.budget);
	settings = use("enormous");
	ask_for(engine, (struct request){.type = REQUEST_SETTINGS, .settings = settings});
	const struct event *event = until(engine, EV_ERROR, &seen);
	assert_non_null(strstr(event->text, "enormous"));
	do_simple(engine, REQUEST_PAUSE, 0);
	until(engine, EV_STOP, &seen);
	assert_int_equal(seen.stop, STOP_EOS);
	assert_int_equal(seen.n_switches, 2);
	assert_int_equal(seen.closing >= 0, true);
	engine_close(engine);
	reply_free(&seen.reply);
}

static void a_carried_prompt_says_so(void **state)
{
	struct engine *engine = open_demo((struct engine_options){0});
	struct seen seen = {0};
	struct turn_settings settings = use("large");
	(void)state;
	settings.handoff = HANDOFF_CARRY;
	turn(engine, question, settings, &seen);
	assert_int_equal(seen.n_switches, 0);
	strcpy(settings.budget, "small");
	turn(engine, question, settings, &seen);
	assert_int_equal(seen.n_switches, 1);
	assert_int_equal(seen.switch_at, seen.reply.cached_tokens);
	assert_int_equal(seen.reply.cached_tokens, 23); // up to the last <|im_start|>
	settings.handoff = HANDOFF_REPREFILL;           // exact: nothing that large read may stay
	strcpy(settings.budget, "medium");
	turn(engine, question, settings, &seen);
	assert_int_equal(seen.n_switches, 0);
	assert_int_equal(seen.reply.cached_tokens, 0);
	equals_golden(&seen, 0, "medium");
	turn(engine, question, settings, &seen);
	assert_int_equal(seen.reply.cached_tokens, 23);
	equals_golden(&seen, 0, "medium");
	engine_close(engine);
	reply_free(&seen.reply);
}

static void thoughts_have_a_limit_and_an_end(void **state)
{
	struct engine *engine = open_demo((struct engine_options){0});
	struct seen seen = {0};
	struct turn_settings settings = use("large");
	(void)state;
	settings.think_limit = 20;
	turn(engine, question, settings, &seen);
	assert_true(seen.closing >= 20 && seen.closing <= 22 + 3); // ".\n", "\n", </think> on the demo
	assert_int_equal(seen.stop, STOP_EOS);
	assert_true(seen.reply.answer.length > 0);
	settings.think_limit = 0;
	do_simple(engine, REQUEST_PAUSE, 1);
	submit_turn(engine, 0, question, settings);
	do_simple(engine, REQUEST_STEP, 0);
	until(engine, EV_TOKEN, &seen);
	do_simple(engine, REQUEST_END_THINKING, 0);
	do_simple(engine, REQUEST_PAUSE, 0);
	until(engine, EV_STOP, &seen);
	assert_int_equal(seen.closing, 3); // one of its own, two forced, </think>
	engine_close(engine);
	reply_free(&seen.reply);
}

static void a_stop_leaves_a_usable_state(void **state)
{
	struct engine *engine = open_demo((struct engine_options){0});
	struct seen seen = {0};
	struct text longer = {0};
	struct gauges gauges;
	(void)state;
	do_simple(engine, REQUEST_PAUSE, 1);
	submit_turn(engine, 0, question, use("large"));
	for (int i = 0; i < 4; i++) {
		do_simple(engine, REQUEST_STEP, 0);
		until(engine, EV_TOKEN, &seen);
	}
	do_simple(engine, REQUEST_STOP, 0);
	until(engine, EV_STOP, &seen);
	assert_int_equal(seen.stop, STOP_STOPPED);
	assert_int_equal(seen.stop_phase, PHASE_THINK);
	assert_int_equal(seen.n, 4);
	submit_turn(engine, 0, question, use("large")); // stopped before anything is read
	do_simple(engine, REQUEST_STOP, 0);
	until(engine, EV_STOP, &seen);
	assert_int_equal(seen.n, 0);
	engine->table->gauges(engine, &gauges);
	assert_true(gauges.paused && !gauges.busy);
	do_simple(engine, REQUEST_PAUSE, 0);
	for (int i = 0; i < 150; i++)
		text_add(&longer, "What is 1 + 2? ");
	submit_turn(engine, 0, text_chars(&longer), use("large")); // most likely within the prefill
	until(engine, EV_TURN, &seen);
	do_simple(engine, REQUEST_STOP, 0);
	until(engine, EV_STOP, &seen);
	assert_int_equal(seen.stop, STOP_STOPPED);
	do_simple(engine, REQUEST_STOP, 0); // nothing runs: nothing happens
	turn(engine, question, use("large"), &seen);
	equals_golden(&seen, 0, "large");
	text_free(&longer);
	engine_close(engine);
	reply_free(&seen.reply);
}

static void sequences_run_side_by_side(void **state)
{
	struct engine *engine = open_demo((struct engine_options){0});
	struct seen seen[2] = {{.closing = -1}, {.closing = -1}};
	int stops = 0;
	(void)state;
	do_simple(engine, REQUEST_PAUSE, 1); // so that both are there before the first step
	submit_turn(engine, 0, question, use("large"));
	submit_turn(engine, 1, question, use("small"));
	do_simple(engine, REQUEST_PAUSE, 0);
	while (stops < 2) {
		const struct event *event = engine_wait(engine, WAIT_MS);
		assert_non_null(event);
		assert_in_range(event->seq, 0, 1);
		note(&seen[event->seq], event);
		stops += event->type == EV_STOP;
	}
	equals_golden(&seen[0], 0, "large");
	equals_golden(&seen[1], 0, "small");
	struct request request = {.type = REQUEST_STOP, .seq = 99};
	assert_int_equal(engine_submit(engine, &request, NULL), -1);
	engine_close(engine);
	reply_free(&seen[0].reply);
	reply_free(&seen[1].reply);
}

static void a_full_context_is_said(void **state)
{
	struct engine *engine = open_demo((struct engine_options){.context = 40});
	struct seen seen = {0};
	(void)state;
	turn(engine, question, use("large"), &seen);
	assert_int_equal(seen.stop, STOP_LENGTH);
	assert_int_equal(seen.n, 13); // 28 + 12 are read, one more is chosen
	assert_int_equal(seen.notices, 1);
	turn(engine, "What is 1234567890123456789 + 9876543210987654321?", use("large"), &seen);
	assert_int_equal(seen.stop, STOP_ERROR);
	assert_true(seen.reply.failed);
	assert_non_null(strstr(seen.reply.error, "the context holds 40"));
	struct turn_settings settings = use("large");
	settings.max_tokens = 3;
	turn(engine, question, settings, &seen);
	assert_int_equal(seen.stop, STOP_LENGTH);
	assert_int_equal(seen.n, 3);
	engine_close(engine);
	reply_free(&seen.reply);
}

static void a_bad_open_keeps_the_model(void **state)
{
	struct engine *engine = open_with((struct engine_options){0});
	struct seen seen = {0};
	(void)state;
	turn(engine, question, use(""), &seen);
	assert_int_equal(seen.stop, STOP_ERROR);
	assert_non_null(strstr(seen.reply.error, "no model is open"));
	engine_close(engine);

	engine = open_demo((struct engine_options){0});
	ask_for(engine, (struct request){.type = REQUEST_OPEN, .directory = "/nowhere/at/all"});
	const struct event *event = until(engine, EV_ERROR, NULL);
	assert_non_null(strstr(event->text, "/nowhere/at/all"));
	turn(engine, question, use(""), &seen);
	equals_golden(&seen, 0, "large");
	turn(engine, question, use("huge"), &seen);
	assert_int_equal(seen.stop, STOP_ERROR);
	assert_non_null(strstr(seen.reply.error, "medium")); // names those that exist

	char *demo = path_of("../demo"); // opened again: all is new, and the old one goes
	ask_for(engine, (struct request){.type = REQUEST_OPEN, .directory = demo});
	event = until(engine, EV_OPENED, NULL);
	struct model *model = model_retain(event->opened.model);
	turn(engine, question, use("medium"), &seen);
	assert_int_equal(seen.reply.cached_tokens, 0);
	equals_golden(&seen, 0, "medium");
	engine_close(engine);
	assert_int_equal(model->references, 1);
	model_release(model);
	free(demo);
	reply_free(&seen.reply);
}

/* The open model goes on elsewhere and reads again; where it can't, everything stays. */
static void a_model_moves_to_another_device(void **state)
{
	struct engine *engine = open_demo((struct engine_options){0});
	struct seen seen = {0};
	(void)state;
	turn(engine, question, use("large"), &seen);
	turn(engine, question, use("large"), &seen);
	assert_true(seen.reply.cached_tokens > 0);
	ask_for(engine, (struct request){.type = REQUEST_DEVICE, .text = "tpu"});
	const struct event *event = until(engine, EV_ERROR, NULL);
	assert_non_null(strstr(event->text, "'tpu': expected auto, cpu, cuda or cuda:N"));
	ask_for(engine, (struct request){.type = REQUEST_DEVICE, .text = "cuda:999"});
	event = until(engine, EV_ERROR, NULL); // whatever the machine has
	assert_non_null(strstr(event->text, "--device cuda:999: "));
	turn(engine, question, use("large"), &seen);
	assert_true(seen.reply.cached_tokens > 0);
	ask_for(engine, (struct request){.type = REQUEST_DEVICE, .text = "cpu"});
	event = until(engine, EV_OPENED, NULL);
	assert_string_equal(event->opened.model->name, "demo");
	turn(engine, question, use("large"), &seen);
	assert_int_equal(seen.reply.cached_tokens, 0);
	equals_golden(&seen, 0, "large");
	reply_free(&seen.reply);
	engine_close(engine);
}

static void without_a_tokenizer_tokens_can_be_completed(void **state)
{
	static const char *const files[] = {"config.json",        "generation_config.json",
										"elastic.json",       "model.safetensors",
										"router.safetensors", "importance.safetensors"};
	char folder[] = "/tmp/elastiscope-engine-XXXXXX",
		 *real = realpath(getenv("ELASTISCOPE_TESTS"), NULL);
	struct engine *engine = open_with((struct engine_options){0});
	struct seen seen = {0};
	struct golden_file golden;
	int32_t ids[MAX_TOKENS];
	char from[4200], to[100];
	(void)state;
	assert_non_null(mkdtemp(folder));
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(from, sizeof from, "%s/../demo/%s", real, files[i]);
		snprintf(to, sizeof to, "%s/%s", folder, files[i]);
		assert_int_equal(symlink(from, to), 0);
	}
	ask_for(engine, (struct request){.type = REQUEST_OPEN, .directory = folder});
	until(engine, EV_OPENED, NULL);
	turn(engine, question, use("large"), &seen);
	assert_int_equal(seen.stop, STOP_ERROR);
	assert_non_null(strstr(seen.reply.error, "tokenizer.json"));
	turn(engine, "1 2,3", use("small"), &seen); // a prompt of ids
	assert_int_not_equal(seen.stop, STOP_ERROR);
	assert_int_equal(seen.reply.prompt_tokens, 3);
	snprintf(from, sizeof from, " %d", seen.ids[0]);
	assert_memory_equal(text_chars(&seen.reply.answer), from, strlen(from));
	golden_read(&golden);
	int n = golden_ids(&golden, 0, NULL, ids);
	ask_for(engine, (struct request){.type = REQUEST_COMPLETE,
									 .tokens = ids,
									 .n_tokens = n,
									 .stop_eos = true,
									 .settings = use("small")});
	until(engine, EV_STOP, &seen);
	equals_golden(&seen, 0, "small");
	assert_int_equal(seen.phases[0], PHASE_ANSWER);
	ids[0] = 5120000;
	ask_for(engine,
			(struct request){
				.type = REQUEST_COMPLETE, .tokens = ids, .n_tokens = n, .settings = use("small")});
	until(engine, EV_STOP, &seen);
	assert_int_equal(seen.stop, STOP_ERROR);
	assert_non_null(strstr(seen.reply.error, "5120000"));
	engine_close(engine);
	for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
		snprintf(to, sizeof to, "%s/%s", folder, files[i]);
		unlink(to);
	}
	assert_int_equal(rmdir(folder), 0);
	golden_free(&golden);
	free(real);
	reply_free(&seen.reply);
}

static void experts_memory_and_pace_are_told(void **state)
{
	struct engine *engine = open_demo((struct engine_options){0});
	struct expert_counts counts = {0};
	struct seen seen = {0};
	struct gauges gauges;
	uint64_t sums[N_PHASES] = {0};
	(void)state;
	turn(engine, question, use("medium"), &seen);
	const struct event *event = until(engine, EV_MEMORY, NULL);
	assert_true(event->memory.weights_bytes > 4000000);
	assert_true(event->memory.kv_bytes > 0 && event->memory.ssm_bytes > 0);
	assert_int_equal(event->memory.vram_bytes, -1);
	assert_int_equal(engine->table->experts(engine, &counts, NULL), 0);
	assert_int_equal(counts.n_layers, 9);
	assert_int_equal(counts.n_experts, 16);
	for (int phase = 0; phase < N_PHASES; phase++)
		for (int i = 0; i < 9 * 16; i++) {
			sums[phase] += counts.counts[phase * 9 * 16 + i];
			assert_true(i % 16 < 12 || counts.counts[phase * 9 * 16 + i] == 0); // medium keeps 12
		}
	// four MoE layers, two experts a token; the last token is never read
	assert_int_equal(sums[PHASE_PREFILL], 28 * 8);
	assert_int_equal(sums[PHASE_THINK], (unsigned)seen.closing * 8);
	assert_int_equal(sums[PHASE_ANSWER], (unsigned)(seen.n - 1 - seen.closing) * 8);

	do_simple(engine, REQUEST_PACE, 500);
	uint64_t began = clock_ns();
	turn(engine, question, use("large"), &seen);
	assert_true(clock_ns() - began > (uint64_t)(seen.n - 1) * 1000000); // half of what it should be
	engine->table->gauges(engine, &gauges);
	assert_true(gauges.pace == 500);
	equals_golden(&seen, 0, "large");
	free(counts.counts);
	engine_close(engine);
	reply_free(&seen.reply);
}

struct recorder {
	bool broken;
	int events;
};

static int record(void *user, const struct event *event, struct error *err)
{
	struct recorder *recorder = user;
	recorder->events++;
	if (event->type == EV_TURN)
		recorder->broken = !recorder->broken;
	return recorder->broken ? fail(err, "the disk is full") : 0;
}

static void a_log_that_fails_is_said_once(void **state)
{
	struct recorder recorder = {0};
	struct engine *engine =
		open_demo((struct engine_options){.record = record, .record_user = &recorder});
	struct seen seen = {0};
	struct gauges gauges;
	(void)state;
	turn(engine, question, use("small"), &seen);
	assert_int_equal(seen.errors, 1);
	assert_string_equal(seen.reply.error, "the disk is full");
	assert_false(seen.reply.failed);
	engine->table->gauges(engine, &gauges);
	assert_true(gauges.log_failed);
	turn(engine, question, use("small"), &seen);
	assert_int_equal(seen.errors, 0);
	assert_int_equal(seen.notices, 1);
	engine->table->gauges(engine, &gauges);
	assert_false(gauges.log_failed);
	engine_close(engine);
	assert_true(recorder.events > 2 * seen.n);
	reply_free(&seen.reply);
}

static void turns_know_what_was_said(void **state)
{
	struct engine *engine = open_demo((struct engine_options){0});
	struct conversation conversation;
	struct seen seen = {0};
	int messages = 0;
	(void)state;
	conversation_init(&conversation);
	assert_int_equal(conversation_set_system(&conversation, "Be brief.", NULL), 0);
	for (int i = 0; i < 2; i++) {
		conversation_append(&conversation, CHAT_USER,
							(struct chat_string){question, sizeof question - 1},
							(struct chat_string){0}, NULL);
		ask_for(engine, (struct request){.type = REQUEST_TURN,
										 .conversation = &conversation,
										 .settings = use("large")});
		const struct event *event = until(engine, EV_TURN, NULL);
		assert_int_equal(event->turn.id, i);
		assert_int_equal(event->turn.parent, i - 1);
		seen.reply = (struct reply){0};
		for (;;) {
			event = engine_wait(engine, WAIT_MS);
			note(&seen, event);
			messages += event->type == EV_MESSAGE;
			if (event->type == EV_STOP)
				break;
		}
		conversation_append(
			&conversation, CHAT_ASSISTANT,
			(struct chat_string){text_chars(&seen.reply.answer), seen.reply.answer.length},
			(struct chat_string){text_chars(&seen.reply.reasoning), seen.reply.reasoning.length},
			NULL);
		assert_int_equal(messages, i ? 3 : 2); // system and question, then the question alone
		if (i)
			assert_true(seen.reply.cached_tokens > 0);
		reply_free(&seen.reply);
	}
	conversation_free(&conversation);
	engine_close(engine);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(every_budget_answers_as_the_reference),
		cmocka_unit_test(the_policy_switches_at_the_end_of_thoughts),
		cmocka_unit_test(a_budget_changes_between_any_two_tokens),
		cmocka_unit_test(a_carried_prompt_says_so),
		cmocka_unit_test(thoughts_have_a_limit_and_an_end),
		cmocka_unit_test(a_stop_leaves_a_usable_state),
		cmocka_unit_test(sequences_run_side_by_side),
		cmocka_unit_test(a_full_context_is_said),
		cmocka_unit_test(a_bad_open_keeps_the_model),
		cmocka_unit_test(a_model_moves_to_another_device),
		cmocka_unit_test(without_a_tokenizer_tokens_can_be_completed),
		cmocka_unit_test(experts_memory_and_pace_are_told),
		cmocka_unit_test(a_log_that_fails_is_said_once),
		cmocka_unit_test(turns_know_what_was_said),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
