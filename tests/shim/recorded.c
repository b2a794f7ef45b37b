/*
 * Recorded passes against golden values: every budget of nest-tiny and of its quantised forms
 * writes greedily from graphs alone; lanes of several budgets are one graph; and a pass that taps
 * take apart, whose operations run one by one, leaves the same bits as a recorded one, whose
 * neighbours are run together.
 */
#include "kernels/cuda_pass.h"
#include "tests/golden/golden.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define N_GREEDY 24
#define MAX_VOCAB 512
#define BUDGETS 3

static const struct pick_params greedily = {.top_p = 1, .forced = -1};

static void open_values(struct checkpoint *values, const char *folder, const char *name)
{
	struct error err = {0};
	char file[100], *path;

	snprintf(file, sizeof file, "%s/golden/%s.safetensors", folder, name);
	path = golden_path(file);
	golden_must(checkpoint_open_file(values, path, &err), &err);
	free(path);
}

/* A pass, and what it recorded is ready before the next one. */
static void pass(struct golden *g, struct lane *lanes, int n, struct picked *picked)
{
	struct pick_params picks[BUDGETS] = {greedily, greedily, greedily};
	struct error err = {0};

	golden_must(forward(g->workspace, lanes, n, picks, picked, &err), &err);
	cuda_graphs_settle(g->device);
}

/* Twice over the golden continuation: in the second round every token is a replay. */
static void write_greedily(struct golden *g, const char *folder, const char *budget)
{
	struct checkpoint values;
	struct sequence sequence;
	struct picked picked;
	struct error err = {0};

	open_values(&values, folder, budget);
	golden_sequence(g, &sequence, budget);
	const int32_t *prompt = golden_ids(&values, "tokens.7", 7);
	const int32_t *greedy = golden_ids(&values, "greedy.ids", N_GREEDY);
	for (int round = 0; round < 2; round++) {
		struct lane lane = {
			.sequence = &sequence, .tokens = prompt, .n_tokens = 7, .logits = LOGITS_LAST};
		uint64_t replayed = cuda_graphs_replayed(g->device);
		golden_must(sequence_rewind(&sequence, 0, &err), &err);
		for (int i = 0; i < N_GREEDY; i++) {
			pass(g, &lane, 1, &picked);
			if (picked.id != greedy[i])
				golden_fail("%s, %s: token %d is %d, expected %d", folder, budget, i, picked.id,
							greedy[i]);
			lane.tokens = &picked.id;
			lane.n_tokens = 1;
		}
		replayed = cuda_graphs_replayed(g->device) - replayed;
		/* of the first round the prompt, the token that brings scratch memory, the one that is
		 * noted and the one that is recorded are not */
		assert_in_range(replayed, round ? N_GREEDY - 1 : N_GREEDY - 4,
						round ? N_GREEDY - 1 : N_GREEDY - 3);
	}
	g->hash++;
	sequence_close(&sequence);
	checkpoint_close(&values);
}

static void check(const char *folder, const char *file, const char *const *budgets, int n)
{
	struct golden g;

	golden_open(&g, folder, file, MATH_EXACT);
	for (int i = 0; i < n; i++)
		write_greedily(&g, folder, budgets[i]);
	golden_leave(&g, folder);
	golden_close(&g);
}

static void every_budget_writes_from_graphs(void)
{
	static const char *const widths[] = {"large", "medium", "small"};
	static const char *const axes[] = {"odd", "hetero"};
	static const char *const skipped[] = {"noattn"};

	check("nest-tiny", "elastic.json", widths, 3);
	check("nest-tiny", "elastic-allaxes.json", axes, 2);
	check("nest-tiny", "elastic-skip.json", skipped, 1);
	check("quantised/nest-tiny-fp8", "elastic.json", widths, 3);
	check("quantised/nest-tiny-fp8", "elastic-allaxes.json", axes, 1);
	check("quantised/nest-tiny-nvfp4", "elastic.json", widths, 3);
	check("quantised/nest-tiny-nvfp4", "elastic-allaxes.json", axes, 1);
}

/* Three budgets side by side: each lane writes what its budget writes alone. */
static void lanes_write_from_one_graph(void)
{
	static const char *const budgets[BUDGETS] = {"large", "medium", "small"};
	struct golden g;
	struct checkpoint values[BUDGETS];
	struct sequence sequences[BUDGETS];
	struct lane lanes[BUDGETS];
	struct picked picked[BUDGETS];

	golden_open(&g, "nest-tiny", "elastic.json", MATH_EXACT);
	for (int i = 0; i < BUDGETS; i++) {
		open_values(&values[i], "nest-tiny", budgets[i]);
		golden_sequence(&g, &sequences[i], budgets[i]);
		lanes[i] = (struct lane){.sequence = &sequences[i],
								 .tokens = golden_ids(&values[i], "tokens.7", 7),
								 .n_tokens = 7,
								 .logits = LOGITS_LAST};
	}
	for (int t = 0; t < N_GREEDY; t++) {
		pass(&g, lanes, BUDGETS, picked);
		for (int i = 0; i < BUDGETS; i++) {
			assert_int_equal(picked[i].id, golden_ids(&values[i], "greedy.ids", N_GREEDY)[t]);
			lanes[i].tokens = &picked[i].id;
			lanes[i].n_tokens = 1;
		}
	}
	assert_in_range(cuda_graphs_replayed(g.device), N_GREEDY - 4, N_GREEDY - 3);
	g.hash++;
	golden_leave(&g, "lanes from one graph");
	for (int i = 0; i < BUDGETS; i++) {
		sequence_close(&sequences[i]);
		checkpoint_close(&values[i]);
	}
	golden_close(&g);
}

static void look(void *user, const struct tapped *tapped)
{
	*(int *)user += tapped->n;
}

/* The same token at the same place twice: from a graph, and taken apart by taps. */
static void compare_bits(struct golden *g, struct sequence *sequence, const int32_t *ids, int n)
{
	size_t bytes = (size_t)g->model->config.vocab_size * sizeof(float);
	float recorded[MAX_VOCAB], apart[MAX_VOCAB];
	int seen = 0;
	struct taps taps = {0xfff, look, &seen};
	struct picked picked;
	struct error err = {0};
	struct lane lane = {.sequence = sequence, .n_tokens = 1, .logits = LOGITS_LAST};

	assert_true(bytes <= sizeof recorded);
	for (int round = 0; round < 2; round++) {
		uint64_t replayed = cuda_graphs_replayed(g->device);
		lane.taps = round ? &taps : NULL;
		golden_must(sequence_rewind(sequence, 0, &err), &err);
		for (int i = 0; i < n; i++) {
			lane.tokens = &ids[i];
			pass(g, &lane, 1, &picked);
		}
		replayed = cuda_graphs_replayed(g->device) - replayed;
		assert_true(round ? replayed == 0 : replayed >= (uint64_t)n - 3);
		golden_backend->download(g->device, round ? apart : recorded, lane.out, bytes);
	}
	assert_true(seen > 0);
	assert_memory_equal(recorded, apart, bytes);
	g->hash++;
}

static void a_recorded_pass_has_the_same_bits(void)
{
	static const struct {
		const char *folder, *file, *budget;
		enum math math;
		enum dtype kv;
	} cases[] = {
		{"nest-tiny", "elastic.json", "large", MATH_EXACT, DTYPE_F32},
		{"nest-tiny", "elastic.json", "small", MATH_FAST, DTYPE_BF16},
		{"nest-tiny", "elastic-allaxes.json", "odd", MATH_EXACT, DTYPE_F8_E4M3},
		{"nest-tiny", "elastic-allaxes.json", "hetero", MATH_EXACT, DTYPE_F32},
		{"nest-tiny", "elastic-skip.json", "noattn", MATH_FAST, DTYPE_F32},
		{"quantised/nest-tiny-fp8", "elastic.json", "medium", MATH_FAST, DTYPE_BF16},
		{"quantised/nest-tiny-nvfp4", "elastic-allaxes.json", "odd", MATH_FAST, DTYPE_F8_E4M3},
	};
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct golden g;
		struct checkpoint values;
		struct sequence sequence;
		open_values(&values, cases[i].folder, cases[i].budget);
		golden_open_kv(&g, cases[i].folder, cases[i].file, cases[i].math, cases[i].kv);
		golden_sequence(&g, &sequence, cases[i].budget);
		compare_bits(&g, &sequence, golden_ids(&values, "tokens.150", 150), 12);
		golden_leave(&g, cases[i].budget);
		sequence_close(&sequence);
		golden_close(&g);
		checkpoint_close(&values);
	}
}

/* Budgets in turn on one carried state, as the handoff's golden values have it once: each has its
 * graph, and going back to one replays it. */
static void a_switch_selects_another_graph(void)
{
	static const char *const budgets[BUDGETS] = {"large", "small", "medium"};
	struct golden g;
	struct checkpoint values;
	struct sequence sequence;
	struct picked picked;
	struct error err = {0};
	uint64_t before = 0;
	float graphs[MAX_VOCAB], plain[MAX_VOCAB];

	golden_open(&g, "nest-tiny", "elastic.json", MATH_EXACT);
	open_values(&values, "nest-tiny", "large");
	const int32_t *ids = golden_ids(&values, "tokens.150", 150);
	size_t bytes = (size_t)g.model->config.vocab_size * sizeof(float);
	golden_sequence(&g, &sequence, "large");
	for (int way = 0; way < 2; way++) {
		struct prefill prefill = {.workspace = g.workspace, .handoff = HANDOFF_CARRY};
		struct lane lane = {.sequence = &sequence, .n_tokens = 1, .logits = LOGITS_LAST};
		int seen = 0;
		struct taps taps = {TAP_RESIDUAL, look, &seen};
		lane.taps = way ? &taps : NULL;
		sequence_reset(&sequence);
		for (int i = 0; i < 36; i++) { // three tokens a budget, four times round
			if (i % 3 == 0)
				golden_must(prefill_switch(&prefill, &sequence,
										   golden_slice(&g, budgets[i / 3 % BUDGETS]), &err),
							&err);
			assert_int_equal(prefill.read, 0);
			if (i == 9) // every budget has its graph by now
				before = cuda_graphs_replayed(g.device);
			lane.tokens = &ids[i];
			pass(&g, &lane, 1, &picked);
		}
		if (!way)
			assert_int_equal(cuda_graphs_replayed(g.device) - before, 36 - 9);
		golden_backend->download(g.device, way ? plain : graphs, lane.out, bytes);
	}
	assert_memory_equal(graphs, plain, bytes);
	g.hash++;
	golden_leave(&g, "switches from graphs");
	sequence_close(&sequence);
	checkpoint_close(&values);
	golden_close(&g);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"every_budget_writes_from_graphs", every_budget_writes_from_graphs},
		{"lanes_write_from_one_graph", lanes_write_from_one_graph},
		{"a_recorded_pass_has_the_same_bits", a_recorded_pass_has_the_same_bits},
		{"a_switch_selects_another_graph", a_switch_selects_another_graph},
	};
	return golden_main(tests, sizeof tests / sizeof *tests);
}
