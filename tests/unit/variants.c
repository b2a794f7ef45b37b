/*
 * Experiments through the local engine on the bundled demo: who reads the prompt, rules, repair,
 * branches from given tokens, forks, and columns that decode together.
 */
#include "base/file.h"
#include "core/engine.h"
#include "core/model.h"
#include "core/tokenizer.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define MAX_TOKENS 256
#define PROMPT 28 // tokens of the question

static const char question[] = "What is 4827 + 396?";
static const char *const names[] = {"large", "medium", "small"};

struct change {
	int at, replayed, repair;
	enum handoff handoff;
	enum switch_reason reason;
	char from[BUDGET_NAME_BYTES], to[BUDGET_NAME_BYTES], why[RULE_REASON_BYTES];
};

struct seen { // of one sequence, since EV_TURN
	int32_t ids[MAX_TOKENS];
	struct picked picked[MAX_TOKENS];
	char budgets[MAX_TOKENS][BUDGET_NAME_BYTES];
	enum phase phases[MAX_TOKENS];
	int n;
	struct change changes[MAX_TOKENS];
	int n_changes;
	int cached, read;
	char prompt_reader[BUDGET_NAME_BYTES], error[256];
	bool done;
};

static void note(struct seen *seen, const struct event *event)
{
	if (event->type == EV_TURN)
		*seen = (struct seen){0};
	if (event->type == EV_TOKEN && seen->n < MAX_TOKENS) {
		int i = seen->n++;
		seen->ids[i] = event->token.id;
		seen->picked[i] = event->token.picked;
		seen->phases[i] = event->token.phase;
		strcpy(seen->budgets[i], event->token.budget);
	} else if (event->type == EV_SWITCH && seen->n_changes < MAX_TOKENS) {
		struct change *change = &seen->changes[seen->n_changes++];
		change->at = event->change.at;
		change->replayed = event->change.replayed;
		change->repair = event->change.repair;
		change->handoff = event->change.handoff;
		change->reason = event->change.reason;
		strcpy(change->from, event->change.from);
		strcpy(change->to, event->change.to);
		snprintf(change->why, sizeof change->why, "%s", event->text ? event->text : "");
	} else if (event->type == EV_PREFILL) {
		seen->cached = event->prefill.cached;
		seen->read = event->prefill.tokens;
		strcpy(seen->prompt_reader, event->prefill.budget);
	} else if (event->type == EV_ERROR) {
		snprintf(seen->error, sizeof seen->error, "%s", event->text);
	}
	seen->done |= event->type == EV_STOP;
}

static const struct event *next_event(struct engine *engine)
{
	const struct event *event = engine_wait(engine, 60000);
	assert_non_null(event);
	return event;
}

static void ask_for(struct engine *engine, struct request request)
{
	struct error err = {0};
	if (engine_submit(engine, &request, &err)) {
		print_error("%s\n", err.text);
		assert_true(false);
	}
}

static void until_stop(struct engine *engine, struct seen *seen)
{
	const struct event *event;
	do {
		event = next_event(engine);
		note(seen, event);
	} while (event->type != EV_STOP);
}

static struct engine *open_demo(void)
{
	struct engine_options options = {.backend = &backend_cpu,
									 .device = {.kv_dtype = DTYPE_F32, .n_threads = 2}};
	struct error err = {0};
	struct engine *engine = engine_local_open(&options, &err);
	char *demo = file_join(getenv("ELASTISCOPE_TESTS"), "../demo", NULL);
	assert_non_null(engine);
	ask_for(engine, (struct request){.type = REQUEST_OPEN, .directory = demo});
	while (next_event(engine)->type != EV_OPENED)
		continue;
	free(demo);
	return engine;
}

static struct turn_settings use(const char *budget, const char *handoff)
{
	struct turn_settings settings = {.sampling = {.top_p = 1}, .thinking = true};
	assert_int_equal(handoff_parse(handoff, &settings.handoff, &settings.repair, NULL), 0);
	strcpy(settings.budget, budget);
	return settings;
}

/* tokens NULL: the question is rendered. */
static void submit_turn(struct engine *engine, int seq, const int32_t *tokens, int n,
						struct turn_settings settings)
{
	struct conversation conversation;
	conversation_init(&conversation);
	conversation_append(&conversation, CHAT_USER, (struct chat_string){question, strlen(question)},
						(struct chat_string){0}, NULL);
	ask_for(engine, (struct request){.type = REQUEST_TURN,
									 .seq = seq,
									 .conversation = &conversation,
									 .tokens = tokens,
									 .n_tokens = n,
									 .settings = settings});
	conversation_free(&conversation);
}

static void turn(struct engine *engine, struct turn_settings settings, struct seen *seen)
{
	ask_for(engine, (struct request){.type = REQUEST_CLEAR});
	submit_turn(engine, 0, NULL, 0, settings);
	until_stop(engine, seen);
	assert_string_equal(seen->error, "");
}

/* The ids of the rendered question. */
static void prompt_ids(int32_t ids[PROMPT])
{
	char *demo = file_join(getenv("ELASTISCOPE_TESTS"), "../demo", NULL);
	struct model *model = model_open(demo, &(struct model_options){0}, NULL);
	struct conversation conversation;
	struct prompt prompt = {0};
	struct id_list list = {0};
	conversation_init(&conversation);
	conversation.enable_thinking = true;
	conversation_append(&conversation, CHAT_USER, (struct chat_string){question, strlen(question)},
						(struct chat_string){0}, NULL);
	assert_non_null(model);
	assert_int_equal(conversation_render(&conversation, true, &prompt, NULL), 0);
	assert_int_equal(tokenizer_encode(model->tokenizer, &prompt, &list, NULL), 0);
	assert_int_equal(list.n, PROMPT);
	memcpy(ids, list.ids, sizeof *ids * PROMPT);
	prompt_free(&prompt);
	free(list.ids);
	conversation_free(&conversation);
	model_release(model);
	free(demo);
}

static void large_reads_and_small_writes(void **state)
{
	struct engine *engine = open_demo();
	struct turn_settings settings = use("small", "carry");
	struct seen seen = {0}, again = {0};
	int32_t ids[PROMPT + 1];
	(void)state;
	strcpy(settings.read, "large");
	turn(engine, settings, &seen);
	assert_string_equal(seen.prompt_reader, "large");
	assert_int_equal(seen.n_changes, 1);
	assert_int_equal(seen.changes[0].at, PROMPT);
	assert_int_equal(seen.changes[0].reason, SWITCH_PHASE);
	assert_int_equal(seen.changes[0].replayed, 0);
	assert_string_equal(seen.budgets[0], "large"); // it read the last token of the prompt
	for (int i = 1; i < seen.n; i++)
		assert_string_equal(seen.budgets[i], "small");

	// with reprefill small has read everything in the end
	strcpy(settings.budget, "medium");
	settings.handoff = HANDOFF_REPREFILL;
	turn(engine, settings, &seen);
	assert_int_equal(seen.changes[0].replayed, PROMPT);
	prompt_ids(ids);
	ids[PROMPT] = seen.ids[0];
	ask_for(engine, (struct request){.type = REQUEST_COMPLETE,
									 .tokens = ids,
									 .n_tokens = PROMPT + 1,
									 .stop_eos = true,
									 .settings = use("medium", "reprefill")});
	until_stop(engine, &again);
	assert_int_equal(again.n, seen.n - 1);
	assert_memory_equal(again.ids, seen.ids + 1, (size_t)again.n * sizeof *ids);

	strcpy(settings.read, "enormous");
	submit_turn(engine, 0, NULL, 0, settings);
	until_stop(engine, &seen);
	assert_non_null(strstr(seen.error, "enormous"));
	engine_close(engine);
}

static void rules_say_who_writes_and_why(void **state)
{
	struct engine *engine = open_demo();
	struct turn_settings settings = use("medium", "carry");
	struct seen seen = {0};
	(void)state;
	strcpy(settings.rule, "think: every 3 large else small; answer: large");
	turn(engine, settings, &seen);
	int thoughts = 0;
	while (thoughts < seen.n && seen.phases[thoughts] == PHASE_THINK)
		thoughts++;
	assert_true(thoughts > 6);
	for (int i = 0; i < seen.n; i++)
		assert_string_equal(seen.budgets[i], i < thoughts && i / 3 % 2 ? "small" : "large");
	assert_true(seen.n_changes >= thoughts / 3 - 1);
	assert_int_equal(seen.changes[0].at, PROMPT + 2); // the pending token is the first it reads
	assert_int_equal(seen.changes[0].reason, SWITCH_POLICY);
	assert_string_equal(seen.changes[0].why, "every 3: token 3");

	memset(settings.rule, 0, sizeof settings.rule);
	strcpy(settings.rule, "entropy>0.05 large else small");
	turn(engine, settings, &seen);
	int n_large = 0;
	for (int i = 0; i < seen.n; i++) {
		bool large = i > 0 && seen.picked[i - 1].entropy > 0.05f;
		assert_string_equal(seen.budgets[i], large ? "large" : "small");
		n_large += large;
	}
	assert_true(n_large > 0 && n_large < seen.n - 1);
	assert_int_equal(seen.changes[0].reason, SWITCH_POLICY);
	char why[RULE_REASON_BYTES];
	snprintf(why, sizeof why, "entropy %.3g > 0.05",
			 (double)seen.picked[seen.changes[0].at - PROMPT].entropy);
	assert_string_equal(seen.changes[0].why, why);

	strcpy(settings.rule, "entropy>0.05 large else nobody");
	submit_turn(engine, 0, NULL, 0, settings);
	until_stop(engine, &seen);
	assert_non_null(strstr(seen.error, "nobody"));
	engine_close(engine);
}

static void repair_replays_the_last_tokens(void **state)
{
	struct engine *engine = open_demo();
	struct seen seen = {0}, reprefilled = {0};
	(void)state;
	for (int n = 1; n <= 64; n = n * 2 + 1) {
		struct turn_settings settings = use("", "reprefill");
		char handoff[HANDOFF_TEXT_BYTES];
		handoff_write(HANDOFF_REPAIR, n, handoff);
		settings.policy = true;
		strcpy(settings.think, "small");
		strcpy(settings.answer, "large");
		handoff_parse(handoff, &settings.handoff, &settings.repair, NULL);
		turn(engine, settings, &seen);
		assert_int_equal(seen.n_changes, 1);
		assert_int_equal(seen.changes[0].repair, n);
		int at = seen.changes[0].at, replayed = seen.changes[0].replayed;
		enum handoff handoff_now = seen.changes[0].handoff;
		assert_int_equal(handoff_now, replayed == at ? HANDOFF_REPREFILL : HANDOFF_REPAIR);
		if (n >= at)
			assert_int_equal(replayed, at);
		else
			assert_in_range(replayed, n, n + (n + 1) / 2 - 1);
	}
	// more than there is: re-prefill
	struct turn_settings settings = use("", "repair:4096");
	settings.policy = true;
	strcpy(settings.think, "small");
	strcpy(settings.answer, "large");
	turn(engine, settings, &seen);
	assert_int_equal(seen.changes[0].replayed, seen.changes[0].at);
	assert_int_equal(seen.changes[0].handoff, HANDOFF_REPREFILL); // what it was, not what was asked
	assert_int_equal(seen.changes[0].repair, 4096);
	settings.handoff = HANDOFF_REPREFILL;
	turn(engine, settings, &reprefilled);
	assert_int_equal(seen.n, reprefilled.n);
	assert_memory_equal(seen.ids, reprefilled.ids, (size_t)seen.n * sizeof *seen.ids);
	settings.handoff = HANDOFF_REPAIR;
	settings.repair = 0;
	submit_turn(engine, 0, NULL, 0, settings);
	until_stop(engine, &seen);
	assert_string_equal(seen.error, "handoff repair of 0 tokens: expected 1 to 65536");
	engine_close(engine);
}

static void a_branch_goes_on_from_given_tokens(void **state)
{
	struct engine *engine = open_demo();
	struct seen seen = {0}, branch = {0};
	int32_t ids[PROMPT + MAX_TOKENS];
	(void)state;
	prompt_ids(ids);
	turn(engine, use("large", "reprefill"), &seen);
	memcpy(ids + PROMPT, seen.ids, (size_t)seen.n * sizeof *ids);
	int kept = 7;
	for (int seq = 1; seq <= 2; seq++) { // as it was, then with another last token
		ask_for(engine, (struct request){.type = REQUEST_FORK, .seq = seq, .value = 0});
		ids[PROMPT + kept - 1] = seq == 1 ? seen.ids[kept - 1] : seen.picked[kept - 1].top[1].id;
		submit_turn(engine, seq, ids, PROMPT + kept, use("large", "reprefill"));
		until_stop(engine, &branch);
		assert_string_equal(branch.error, "");
		assert_true(branch.cached > 0); // warm: the fork brought the snapshot
		assert_int_equal(branch.cached + branch.read, PROMPT + kept);
		assert_int_equal(branch.phases[0], PHASE_THINK);
		assert_int_equal(branch.phases[branch.n - 1], PHASE_ANSWER);
		if (seq == 2)
			continue;
		assert_int_equal(branch.n, seen.n - kept);
		assert_memory_equal(branch.ids, seen.ids + kept, (size_t)branch.n * sizeof *ids);
	}
	// behind </think> it answers
	int closing = 0;
	while (seen.phases[closing + 1] == PHASE_THINK)
		closing++;
	ids[PROMPT + kept - 1] = seen.ids[kept - 1];
	submit_turn(engine, 3, ids, PROMPT + closing + 2, use("large", "reprefill"));
	until_stop(engine, &branch);
	assert_int_equal(branch.cached, 0);
	assert_int_equal(branch.phases[0], PHASE_ANSWER);
	assert_memory_equal(branch.ids, seen.ids + closing + 2, (size_t)branch.n * sizeof *ids);
	struct error err = {0};
	struct request bad = {.type = REQUEST_FORK, .seq = 1, .value = 9};
	assert_int_equal(engine_submit(engine, &bad, &err), -1);
	assert_string_equal(err.text, "fork of sequence 9: expected 0 to 3");
	engine_close(engine);
}

/* Three budgets side by side say what they say alone. */
static void columns_decode_together(void **state)
{
	struct engine *engine = open_demo();
	struct seen alone[3] = {0}, columns[3] = {0};
	int together = 0;
	(void)state;
	for (int i = 0; i < 3; i++)
		turn(engine, use(names[i], "reprefill"), &alone[i]);
	ask_for(engine, (struct request){.type = REQUEST_PAUSE, .value = 1});
	for (int i = 0; i < 3; i++)
		submit_turn(engine, i, NULL, 0, use(names[i], "reprefill"));
	ask_for(engine, (struct request){.type = REQUEST_PAUSE});
	while (!(columns[0].done && columns[1].done && columns[2].done)) {
		const struct event *event = next_event(engine);
		if (event->type == EV_MEMORY)
			continue;
		note(&columns[event->seq], event);
		together += !columns[0].done && columns[0].n > 5 && columns[1].n > 5 && columns[2].n > 5;
	}
	assert_true(together > 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(columns[i].n, alone[i].n);
		assert_memory_equal(columns[i].ids, alone[i].ids, (size_t)alone[i].n * sizeof(int32_t));
		assert_string_equal(columns[i].budgets[3], names[i]);
	}
	engine_close(engine);
}

/* ---- memory ---- */

static struct { // of one device; read when the worker has told what it did
	void *blocks[4096];
	size_t bytes[4096];
	size_t sum;
} taken;

static void *counting_alloc(struct device *device, size_t bytes, struct error *err)
{
	void *memory = backend_cpu.alloc(device, bytes, err);
	size_t i = 0;
	while (i < 4095 && taken.blocks[i])
		i++;
	taken.blocks[i] = memory;
	taken.bytes[i] = bytes;
	taken.sum += bytes;
	return memory;
}

static void counting_release(struct device *device, void *memory)
{
	for (size_t i = 0; memory && i < 4096; i++)
		if (taken.blocks[i] == memory) {
			taken.sum -= taken.bytes[i];
			taken.blocks[i] = NULL;
		}
	backend_cpu.release(device, memory);
}

static struct memory_use memory_of(struct engine *engine)
{
	const struct event *event;
	ask_for(engine, (struct request){.type = REQUEST_MEMORY});
	while ((event = next_event(engine))->type != EV_MEMORY)
		continue;
	return event->memory;
}

static size_t sum_of(const struct sequence_bytes *bytes)
{
	return bytes->kv + bytes->conv + bytes->ssm + bytes->snapshots;
}

/* Every sequence counts, as long as it is there, and with what was allocated for it. */
static void memory_is_that_of_all_sequences(void **state)
{
	struct backend counting = backend_cpu;
	struct engine_options options = {
		.backend = &counting, .device = {.kv_dtype = DTYPE_F32, .n_threads = 1}, .context = 512};
	char *demo = file_join(getenv("ELASTISCOPE_TESTS"), "../demo", NULL);
	struct seen seen = {0};
	(void)state;
	counting.alloc = counting_alloc;
	counting.release = counting_release;
	struct engine *engine = engine_local_open(&options, NULL);
	ask_for(engine, (struct request){.type = REQUEST_OPEN, .directory = demo});
	turn(engine, use("large", "reprefill"), &seen);
	struct memory_use one = memory_of(engine);
	size_t before = taken.sum;
	assert_int_equal(one.n_sequences, 1);
	assert_int_equal(sum_of(&one.sequences[1]), 0);
	for (int seq = 1; seq <= 2; seq++)
		ask_for(engine, (struct request){.type = REQUEST_FORK, .seq = seq, .value = 0});
	struct turn_settings settings = use("large", "repair:8"); // takes rolling snapshots
	settings.max_tokens = 24;
	submit_turn(engine, 2, NULL, 0, settings);
	until_stop(engine, &seen);
	struct memory_use three = memory_of(engine);
	assert_int_equal(three.n_sequences, 3);
	assert_int_equal(taken.sum - before, sum_of(&three.sequences[1]) + sum_of(&three.sequences[2]));
	assert_int_equal(sum_of(&three.sequences[0]), sum_of(&one.sequences[0]));
	assert_int_equal(sum_of(&three.sequences[1]), sum_of(&three.sequences[0]));
	assert_true(three.sequences[2].snapshots > three.sequences[1].snapshots);
	assert_int_equal(three.kv_bytes, 3 * one.kv_bytes);
	assert_int_equal(three.conv_bytes + three.ssm_bytes, 3 * (one.conv_bytes + one.ssm_bytes));
	for (int seq = 1; seq <= 2; seq++)
		ask_for(engine, (struct request){.type = REQUEST_CLEAR, .seq = seq});
	const struct event *event;
	do
		event = next_event(engine); // said without being asked
	while (event->type != EV_MEMORY || event->memory.n_sequences != 1);
	assert_int_equal(event->memory.kv_bytes, one.kv_bytes);
	assert_int_equal(taken.sum, before);
	engine_close(engine);
	assert_int_equal(taken.sum, 0);
	free(demo);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(large_reads_and_small_writes),
		cmocka_unit_test(rules_say_who_writes_and_why),
		cmocka_unit_test(repair_replays_the_last_tokens),
		cmocka_unit_test(a_branch_goes_on_from_given_tokens),
		cmocka_unit_test(columns_decode_together),
		cmocka_unit_test(memory_is_that_of_all_sequences),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
