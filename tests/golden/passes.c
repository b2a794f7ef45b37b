/*
 * What must not change a result: which lanes run side by side, taps, snapshots, going back, forks.
 * And what a pass refuses, or does when the device fails midway.
 */
#include "base/hash.h"
#include "golden.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define MAX_VOCAB 512

static int32_t ids[200]; // any tokens will do

static void make_ids(void)
{
	for (int i = 0; i < 200; i++)
		ids[i] = (int32_t)(hash_mix((uint64_t)i) % 224);
}

/* Logits after the last of n tokens, read at once by one budget. */
static void alone(struct golden *g, const char *budget, const int32_t *tokens, int n, float *out)
{
	struct sequence sequence;
	struct error err = {0};
	struct lane lane = {
		.sequence = &sequence, .tokens = tokens, .n_tokens = n, .logits = LOGITS_LAST};

	golden_sequence(g, &sequence, budget);
	golden_must(forward(g->workspace, &lane, 1, NULL, NULL, &err), &err);
	golden_backend->download(g->device, out, lane.out,
							 (size_t)g->model->config.vocab_size * sizeof *out);
	sequence_close(&sequence);
}

/* Four lanes: three budgets of one model and another model, 40 tokens and then one. */
static void lanes_do_not_see_each_other(void)
{
	enum { LANES = 4 };
	static const char *const budgets[LANES] = {"large", "small", "large", "odd"};
	static const int lengths[LANES] = {40, 3, 17, 40};
	struct golden tiny, demo;
	struct golden *models[LANES] = {&tiny, &tiny, &demo, &tiny};
	struct sequence sequences[LANES];
	struct lane lanes[LANES];
	struct picked picked[LANES];
	struct pick_params picks[LANES];
	struct slice foreign;
	struct budget budget = {0};
	struct error err = {0};
	float expected[MAX_VOCAB], found[MAX_VOCAB];

	golden_open(&tiny, "nest-tiny", "elastic-allaxes.json", MATH_EXACT);
	golden_open(&demo, "demo", NULL, MATH_EXACT);
	// one workspace, on one device, for both models
	struct config widest = demo.model->config;
	widest.num_experts_per_tok = tiny.model->config.num_experts_per_tok;
	struct workspace *both =
		workspace_open(&widest, golden_backend, tiny.device, LANES, 256, false, &err);
	assert_non_null(both);
	golden_must(model_budget(demo.model, "large", &budget, &err), &err);
	golden_must(slice_build(&foreign, &demo.model->weights, &demo.model->config, &budget,
							golden_backend, tiny.device, &err),
				&err);
	for (int i = 0; i < LANES; i++) {
		golden_must(sequence_open(&sequences[i], &models[i]->model->config, golden_backend,
								  tiny.device, DTYPE_F32, 64, &err),
					&err);
		const char *name = i == 1 ? "hidden_size=48,moe_intermediate_size=16" : budgets[i];
		golden_must(
			sequence_use(&sequences[i], i == 2 ? &foreign : golden_slice(&tiny, name), &err), &err);
		lanes[i] = (struct lane){.sequence = &sequences[i],
								 .tokens = ids,
								 .n_tokens = lengths[i],
								 .logits = LOGITS_LAST};
		picks[i] = (struct pick_params){.top_p = 1, .forced = -1};
	}
	golden_must(forward(both, lanes, LANES, picks, picked, &err), &err);
	for (int i = 0; i < LANES; i++) {
		assert_int_equal(sequences[i].n_tokens, lengths[i]);
		lanes[i].tokens = &ids[lengths[i]];
		lanes[i].n_tokens = 1;
	}
	golden_must(forward(both, lanes, LANES, picks, picked, &err), &err);
	for (int i = 0; i < LANES; i++) {
		struct golden *g = models[i];
		size_t vocab = (size_t)g->model->config.vocab_size, best = 0;
		alone(g, i == 1 ? "hidden_size=48,moe_intermediate_size=16" : budgets[i], ids,
			  lengths[i] + 1, expected);
		golden_backend->download(tiny.device, found, lanes[i].out, vocab * sizeof *found);
		golden_same("a lane of several", found, expected, vocab);
		for (size_t k = 1; k < vocab; k++)
			best = expected[k] > expected[best] ? k : best;
		assert_int_equal(picked[i].id, best);
		tiny.hash = hash_mix(tiny.hash ^ hash_bytes(expected, vocab * sizeof *expected));
	}
	golden_leave(&tiny, "lanes");
	for (int i = 0; i < LANES; i++)
		sequence_close(&sequences[i]);
	slice_free(&foreign);
	budget_free(&budget);
	workspace_close(both);
	golden_close(&demo);
	golden_close(&tiny);
}

enum { CROWD = 40, CROWD_OF_CARD = 20, CROWD_STEPS = 3 };

static void ignore(void *user, const struct tapped *tapped)
{
	*(int *)user += tapped->n;
}

static const char *crowd_budget(int i)
{
	static const char *const others[] = {"hidden_size=48,moe_intermediate_size=16", "odd",
										 "hetero"};
	return i % 5 == 4 ? others[i / 5 % 3] : "large";
}

/* Forty sequences, 32 of them (on the shim 16 of 20: as many as go through a card's tiles) of one
 * budget and the others of three, each with a prompt of its own, in passes together: prompts of
 * several lengths, then a token each. Lane 4 has taps, and lane 9 wants no logits of its prompt. */
static void a_crowd_decodes_as_each_alone(void)
{
	int n = golden_backend == &backend_cpu ? CROWD : CROWD_OF_CARD, n_seen = 0;
	static struct sequence sequences[CROWD];
	struct lane lanes[CROWD];
	struct picked picked[CROWD];
	struct pick_params picks[CROWD];
	struct golden g;
	struct error err = {0};
	float expected[MAX_VOCAB], found[MAX_VOCAB];
	struct taps taps = {.wanted = TAP_RESIDUAL | TAP_EXPERTS, .see = ignore, .user = &n_seen};

	golden_open(&g, "nest-tiny", "elastic-allaxes.json", MATH_EXACT);
	size_t vocab = (size_t)g.model->config.vocab_size;
	struct workspace *w =
		workspace_open(&g.model->config, golden_backend, g.device, n, 5 * n, false, &err);
	golden_must(w ? 0 : -1, &err);
	for (int i = 0; i < n; i++) {
		golden_sequence(&g, &sequences[i], crowd_budget(i));
		lanes[i] = (struct lane){.sequence = &sequences[i],
								 .tokens = ids + i,
								 .n_tokens = 1 + i % 7,
								 .logits = i == 9 ? LOGITS_NONE : LOGITS_LAST,
								 .taps = i == 4 ? &taps : NULL};
		picks[i] = (struct pick_params){.top_p = 1, .forced = -1};
	}
	golden_must(forward(w, lanes, n, NULL, NULL, &err), &err);
	assert_null(lanes[9].out);
	lanes[9].logits = LOGITS_LAST;
	for (int step = 0; step < CROWD_STEPS; step++) {
		for (int i = 0; i < n; i++) {
			lanes[i].tokens = ids + i + sequences[i].n_tokens;
			lanes[i].n_tokens = 1;
		}
		golden_must(forward(w, lanes, n, picks, picked, &err), &err);
	}
	for (int i = 0; i < n; i++) {
		size_t best = 0;
		golden_backend->download(g.device, found, lanes[i].out, vocab * sizeof *found);
		alone(&g, crowd_budget(i), ids + i, 1 + i % 7 + CROWD_STEPS, expected);
		golden_same("a lane of a crowd", found, expected, vocab);
		for (size_t k = 1; k < vocab; k++)
			best = expected[k] > expected[best] ? k : best;
		assert_int_equal(picked[i].id, best);
		g.hash = hash_mix(g.hash ^ hash_bytes(expected, vocab * sizeof *expected));
		sequence_close(&sequences[i]);
	}
	assert_true(n_seen > 0);
	golden_leave(&g, "a crowd");
	workspace_close(w);
	golden_close(&g);
}

struct count {
	unsigned seen; // or of enum tap
	int by_tap[32];
	const struct config *config;
	float last[MAX_VOCAB];
};

static void see(void *user, const struct tapped *t)
{
	struct count *count = user;
	const struct config *c = count->config;
	int kind = t->layer < c->n_layers ? c->kinds[t->layer] : -1, bit = 0;

	while (1 << bit != (int)t->tap)
		bit++;
	count->seen |= t->tap;
	count->by_tap[bit]++;
	for (int i = 0; i < t->n * t->width; i++)
		assert_true(isfinite(t->values[i]));
	switch (t->tap) {
	case TAP_MIXER_INPUT:
	case TAP_MIXER_OUTPUT:
	case TAP_RESIDUAL: assert_int_equal(t->width, c->hidden_size); break;
	case TAP_LOGITS:
		assert_int_equal(t->layer, c->n_layers);
		assert_int_equal(t->n, 1);
		assert_int_equal(t->first, 19);
		assert_int_equal(t->width, c->vocab_size);
		memcpy(count->last, t->values, (size_t)t->width * sizeof(float));
		break;
	case TAP_EXPERTS: assert_int_equal(kind, LAYER_MOE); break;
	case TAP_FFN:
		assert_int_equal(t->width, kind == LAYER_MOE ? c->moe_shared_expert_intermediate_size
													 : c->intermediate_size);
		for (int i = 0; i < t->n * t->width; i++)
			assert_true(t->values[i] >= 0);
		break;
	case TAP_MAMBA_X:
		assert_int_equal(kind, LAYER_MAMBA);
		assert_int_equal(t->width, config_inner(c));
		break;
	case TAP_MAMBA_OUT:
	case TAP_MAMBA_PROJECTED:
		assert_int_equal(kind, LAYER_MAMBA);
		assert_int_equal(t->width, config_inner(c));
		break;
	case TAP_EXPERT_FFN:
		assert_int_equal(t->width, c->num_experts_per_tok * c->moe_intermediate_size);
		break;
	case TAP_EXPERT_NORM:
		assert_int_equal(t->width, c->num_experts_per_tok);
		for (int i = 0; i < t->n * t->width; i++)
			assert_true(t->values[i] > 0);
		break;
	case TAP_ATTENTION_OUT:
		assert_int_equal(kind, LAYER_ATTENTION);
		assert_int_equal(t->width, c->num_attention_heads * c->head_dim);
		break;
	}
	if (t->tap != TAP_LOGITS)
		assert_int_equal(t->n, 20);
}

static void taps_change_nothing(void)
{
	struct golden g;
	struct sequence sequence;
	struct error err = {0};
	float expected[MAX_VOCAB], found[MAX_VOCAB];
	// residual 9, input and output 8 layers, logits, experts 3, FFN 3 + 1, mamba 3, attention 1,
	// x of in_proj 3, experts 3 twice, input of out_proj 3
	static const int times[] = {8, 9, 1, 3, 4, 3, 1, 8, 3, 3, 3, 3};

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	struct count *count = test_calloc(1, sizeof *count);
	struct taps taps = {0xfff, see, count};
	count->config = &g.model->config;
	alone(&g, "large", ids, 20, expected);
	golden_sequence(&g, &sequence, "large");
	struct lane lane = {
		.sequence = &sequence, .tokens = ids, .n_tokens = 20, .logits = LOGITS_LAST, .taps = &taps};
	golden_must(forward(g.workspace, &lane, 1, NULL, NULL, &err), &err);
	size_t bytes = (size_t)g.model->config.vocab_size * sizeof *expected;
	golden_backend->download(g.device, found, lane.out, bytes);
	assert_memory_equal(found, expected, bytes);
	assert_memory_equal(count->last, expected, bytes);
	assert_int_equal(count->seen, 0xfff);
	for (int i = 0; i < 12; i++)
		assert_int_equal(count->by_tap[i], times[i]);
	sequence_close(&sequence);
	test_free(count);
	golden_close(&g);
}

static int stop_at_second(void *user, int done, int total)
{
	int *calls = user;
	assert_true(done < total);
	return ++*calls == 2;
}

/* A conversation: 150 tokens with a snapshot at 140, another ending, then the first again. */
static void going_back_changes_nothing(void)
{
	struct golden g;
	struct sequence sequence, copy;
	struct error err = {0};
	struct picked picked, fresh, again;
	const struct pick_params params = {.seed = 7, .temperature = 1, .top_p = 0.9f, .forced = -1};
	struct prefill prefill;
	struct snapshot_room no_room = {0};
	int32_t other[200];
	int calls = 0;

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	// a card would read the whole text in one pass
	struct workspace *chunked =
		workspace_open(&g.model->config, golden_backend, g.device, 1, PREFILL_CHUNK, false, &err);
	assert_non_null(chunked);
	prefill = (struct prefill){.workspace = chunked, .snapshot_at = 140};
	memcpy(other, ids, sizeof ids);
	other[145] = (ids[145] + 1) % 224;
	golden_sequence(&g, &sequence, "medium");
	golden_sequence(&g, &copy, "medium");
	sequence.snapshot_room = &no_room; // its snapshots lie on the host

	golden_must(prefill_extend(&prefill, &sequence, ids, 150, &params, &picked, &err), &err);
	assert_int_equal(sequence.bytes.snapshots, 0);
	assert_int_equal(prefill.cached, 0);
	assert_int_equal(prefill.read, 150);
	golden_must(prefill_extend(&prefill, &sequence, other, 150, &params, &again, &err), &err);
	assert_int_equal(prefill.cached, 140); // the snapshot
	assert_int_equal(prefill.read, 10);
	prefill.snapshot_at = 0;
	golden_must(prefill_extend(&prefill, &copy, other, 150, &params, &fresh, &err), &err);
	golden_same_picked("going back", &again, &fresh);
	golden_must(prefill_extend(&prefill, &sequence, ids, 150, &params, &again, &err), &err);
	assert_int_equal(prefill.cached, 140);
	golden_same_picked("going back", &again, &picked);

	// the whole again: at least the last token is read, from the snapshot
	golden_must(prefill_extend(&prefill, &sequence, ids, 150, &params, &again, &err), &err);
	assert_int_equal(prefill.cached, 140);
	golden_same_picked("going back", &again, &picked);

	// a fork goes on as the original does
	golden_must(sequence_fork(&copy, &sequence, &err), &err);
	golden_must(prefill_extend(&prefill, &copy, ids, 180, &params, &again, &err), &err);
	assert_int_equal(prefill.cached, 150);
	golden_must(prefill_extend(&prefill, &sequence, ids, 180, &params, &picked, &err), &err);
	golden_same_picked("going back", &again, &picked);

	// another budget read the state: exact starts over, carry does not
	prefill.handoff = HANDOFF_CARRY;
	golden_must(prefill_switch(&prefill, &sequence, golden_slice(&g, "small"), &err), &err);
	golden_must(prefill_extend(&prefill, &sequence, ids, 190, &params, &picked, &err), &err);
	assert_int_equal(prefill.cached, 180);
	prefill.step = stop_at_second;
	prefill.user = &calls;
	prefill.handoff = HANDOFF_REPREFILL;
	golden_must(prefill_switch(&prefill, &sequence, golden_slice(&g, "large"), &err), &err);
	assert_false(prefill.stopped);
	assert_int_equal(prefill.read, 190);
	assert_int_equal(sequence.n_tokens, 190);
	assert_int_equal(calls, 1);
	golden_must(prefill_extend(&prefill, &sequence, other, 150, &params, &picked, &err), &err);
	assert_true(prefill.stopped); // one chunk of 128 was read
	assert_int_equal(sequence.n_tokens, 128);
	prefill.step = NULL;
	golden_must(prefill_extend(&prefill, &sequence, other, 150, &params, &picked, &err), &err);
	assert_int_equal(prefill.cached, 128);
	sequence_reset(&copy);
	golden_must(sequence_use(&copy, golden_slice(&g, "large"), &err), &err);
	golden_must(prefill_extend(&prefill, &copy, other, 150, &params, &fresh, &err), &err);
	golden_same_picked("going back", &picked, &fresh);
	g.hash = hash_mix(g.hash ^ hash_bytes(&fresh, sizeof fresh));
	golden_leave(&g, "going back");
	sequence_close(&copy);
	sequence_close(&sequence);
	workspace_close(chunked);
	golden_close(&g);
}

static void refuse(struct golden *g, struct lane lane, int n_lanes, const char *sentence)
{
	struct lane lanes[4] = {lane, lane, lane, lane};
	struct error err = {0};
	int n_tokens = lane.sequence->n_tokens;

	assert_int_equal(forward(g->workspace, lanes, n_lanes, NULL, NULL, &err), -1);
	assert_string_equal(err.text, sentence);
	assert_int_equal(lane.sequence->n_tokens, n_tokens);
}

static void nonsense_is_refused(void)
{
	struct golden g;
	struct sequence s;
	struct error err = {0};
	const int32_t bad[] = {1, 2, 224}, negative[] = {-1};
	struct picked picked;
	const struct pick_params params = {.top_p = 1, .forced = -1};
	struct prefill prefill = {0};

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	prefill.workspace = g.workspace;
	golden_sequence(&g, &s, NULL);
	struct lane lane = {.sequence = &s, .tokens = ids, .n_tokens = 3, .logits = LOGITS_LAST};
	refuse(&g, lane, 1, "no budget was chosen for the sequence");
	assert_int_equal(prefill_extend(&prefill, &s, ids, 5, &params, &picked, &err), -1);
	golden_must(sequence_use(&s, golden_slice(&g, "large"), &err), &err);
	golden_read(&g, &s, ids, 150, 128, NULL);
	refuse(&g, (struct lane){.sequence = &s, .tokens = bad, .n_tokens = 3}, 1,
		   "token 224 at position 152: the vocabulary has ids 0 to 223");
	refuse(&g, (struct lane){.sequence = &s, .tokens = negative, .n_tokens = 1}, 1,
		   "token -1 at position 150: the vocabulary has ids 0 to 223");
	refuse(&g, (struct lane){.sequence = &s, .tokens = ids, .n_tokens = 107}, 1,
		   "context full: 150 tokens and 107 more, room for 256");
	refuse(&g, (struct lane){.sequence = &s, .tokens = ids, .n_tokens = 513}, 1,
		   "a pass of 513 tokens: expected 1 to 512");
	refuse(&g, (struct lane){.sequence = &s, .tokens = ids}, 1,
		   "a pass of 0 tokens: expected 1 to 512");
	refuse(&g, lane, 2, "lanes 0 and 1: the same sequence twice in one pass");
	refuse(&g, lane, 0, "a pass of 0 lanes: expected 1 to 4");
	golden_must(sequence_use(&s, golden_slice(&g, "num_experts_per_tok=4"), &err), &err);
	refuse(&g, lane, 1,
		   "budget num_experts_per_tok=4: 4 experts a token, the workspace has room for 3");
	assert_int_equal(prefill_extend(&prefill, &s, ids, 0, &params, &picked, &err), -1);
	assert_int_equal(prefill_extend(&prefill, &s, ids, 257, &params, &picked, &err), -1);
	assert_string_equal(err.text, "prefill: 257 tokens do not fit a context of 256");
	assert_int_equal(s.n_tokens, 150);
	sequence_close(&s);
	golden_close(&g);
}

static int failing_finish(struct device *device, struct error *err)
{
	(void)device;
	return fail(err, "the card fell off the bus");
}

static void a_failing_device_empties_the_sequence(void)
{
	struct golden g;
	struct sequence s;
	struct error err = {0};
	struct backend failing = *golden_backend;
	struct budget budget = {0};
	struct slice slice;

	golden_open(&g, "nest-tiny", NULL, MATH_EXACT);
	failing.finish = failing_finish;
	struct workspace *w = workspace_open(&g.model->config, &failing, g.device, 1, 8, false, &err);
	assert_non_null(w);
	golden_must(model_budget(g.model, "large", &budget, &err), &err);
	golden_must(
		slice_build(&slice, &g.model->weights, &g.model->config, &budget, &failing, g.device, &err),
		&err);
	golden_must(sequence_open(&s, &g.model->config, &failing, g.device, DTYPE_F32, 16, &err), &err);
	golden_must(sequence_use(&s, &slice, &err), &err);
	struct lane lane = {.sequence = &s, .tokens = ids, .n_tokens = 3};
	assert_int_equal(forward(w, &lane, 1, NULL, NULL, &err), -1);
	assert_string_equal(err.text, "the pass failed midway, its sequences were emptied: the card "
								  "fell off the bus");
	assert_int_equal(s.n_tokens, 0);
	assert_null(sequence_slice(&s));
	for (int i = 0; i < g.model->config.n_layers; i++)
		assert_int_equal(s.layers[i].rows, 0);
	sequence_close(&s);
	slice_free(&slice);
	budget_free(&budget);
	workspace_close(w);
	golden_close(&g);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"lanes_do_not_see_each_other", lanes_do_not_see_each_other},
		{"a_crowd_decodes_as_each_alone", a_crowd_decodes_as_each_alone},
		{"taps_change_nothing", taps_change_nothing},
		{"going_back_changes_nothing", going_back_changes_nothing},
		{"nonsense_is_refused", nonsense_is_refused},
		{"a_failing_device_empties_the_sequence", a_failing_device_empties_the_sequence},
	};
	make_ids();
	return golden_main(tests, sizeof tests / sizeof *tests);
}
