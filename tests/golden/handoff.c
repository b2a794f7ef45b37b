/*
 * Changing budget between two tokens: the state carried over, and re-prefilled, against values of
 * an independent implementation; which layers are stale and how long each KV cache is
 * (golden/handoff*.json).
 */
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "golden.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define LIMIT 1e-4
#define N 150 // tokens of every prompt

struct chain {
	const char *budgets[3];
	const char *slices[3]; // how this model names them
	int n;
	char name[80]; // "large-noattn-small": the suffix of the tensors
};

/* Where each phase begins; starts[n] = N. */
static void phase_starts(const struct checkpoint *values, const struct chain *chain, int *starts)
{
	const int32_t *k;
	char name[100];

	starts[0] = 0;
	if (chain->n == 2) {
		starts[1] = golden_ids(values, "k", 1)[0];
	} else {
		snprintf(name, sizeof name, "k.%s", chain->name);
		k = golden_ids(values, name, 2);
		starts[1] = k[0];
		starts[2] = k[0] + k[1];
	}
	starts[chain->n] = N;
}

/* The state carried through the chain; logits (N, vocab). */
static void carry(struct golden *g, struct sequence *sequence, const struct chain *chain,
				  const int32_t *ids, const int *starts, float *logits)
{
	struct prefill prefill = {.workspace = g->workspace, .handoff = HANDOFF_CARRY};
	struct error err = {0};
	size_t vocab = (size_t)g->model->config.vocab_size;

	for (int i = 0; i < chain->n; i++) {
		golden_must(prefill_switch(&prefill, sequence, golden_slice(g, chain->slices[i]), &err),
					&err);
		assert_int_equal(prefill.read, 0);
		golden_read(g, sequence, ids + starts[i], starts[i + 1] - starts[i], 11,
					logits + (size_t)starts[i] * vocab);
	}
}

/* Each phase re-prefilled by its own budget; must be what that budget says from scratch. */
static void reprefill(struct golden *g, const struct chain *chain, const int32_t *ids,
					  const int *starts, float *logits)
{
	struct prefill prefill = {.workspace = g->workspace};
	struct error err = {0};
	size_t vocab = (size_t)g->model->config.vocab_size;
	float *scratch = test_calloc(N * vocab, sizeof *scratch);
	struct sequence sequence, fresh;

	golden_sequence(g, &sequence, NULL);
	for (int i = 0; i < chain->n; i++) {
		size_t from = (size_t)starts[i] * vocab;
		int n = starts[i + 1] - starts[i];
		golden_must(prefill_switch(&prefill, &sequence, golden_slice(g, chain->slices[i]), &err),
					&err);
		assert_int_equal(prefill.read, starts[i]);
		assert_int_equal(sequence.n_tokens, starts[i]);
		golden_read(g, &sequence, ids + starts[i], n, 11, logits + from);
		golden_sequence(g, &fresh, chain->slices[i]);
		golden_read(g, &fresh, ids, starts[i + 1], 128, scratch);
		golden_same(chain->name, logits + from, scratch + from, (size_t)n * vocab);
		sequence_close(&fresh);
	}
	assert_memory_equal(sequence.tokens, ids, N * sizeof *ids);
	sequence_close(&sequence);
	test_free(scratch);
}

/* An entry of the JSON: stale layers, KV lengths. */
static void check_state(const struct json *json, const struct json_node *entry,
						const struct sequence *sequence)
{
	const struct json_node *node = json_member(json, entry, "stale_rows");
	int stale[CONFIG_MAX_LAYERS], at = 0;
	int n = sequence_stale(sequence, sequence_slice(sequence), stale);
	int64_t number;

	assert_non_null(node);
	assert_int_equal(n > 0, json_is(node, JSON_TRUE));
	node = json_member(json, entry, "stale_layers");
	for (const struct json_node *layer = node ? json_first(json, node) : NULL; layer;
		 layer = json_next(json, node, layer)) {
		golden_must(json_integer(json, layer, "layer", &number, NULL),
					&(struct error){"stale_layers"});
		assert_true(at < n);
		assert_int_equal(stale[at++], number);
	}
	if (node)
		assert_int_equal(at, n);
	node = json_member(json, entry, "kv_length");
	for (const struct json_node *key = node ? json_first(json, node) : NULL; key;
		 key = json_next(json, node, key)) {
		struct text layer = {0};
		int32_t length;
		json_string(json, key, &layer);
		const struct layer_state *state = &sequence->layers[atoi(text_chars(&layer))];
		golden_must(json_integer(json, json_value(key), "length", &number, NULL),
					&(struct error){"kv_length"});
		sequence->backend->download(sequence->device, &length, state->length, sizeof length);
		assert_int_equal(length, number);
		assert_int_equal(state->rows, number);
		text_free(&layer);
	}
}

static void check_chain(struct golden *g, const struct checkpoint *values,
						const struct chain *chain, const struct json *json,
						const struct json_node *entry)
{
	size_t vocab = (size_t)g->model->config.vocab_size, n;
	float *carried = test_calloc(N * vocab, sizeof *carried);
	float *exact = test_calloc(N * vocab, sizeof *exact);
	const int32_t *ids = golden_ids(values, "tokens", N);
	struct sequence sequence;
	const float *kl;
	char name[100];
	int starts[4];

	phase_starts(values, chain, starts);
	n = (size_t)(N - starts[1]);
	golden_sequence(g, &sequence, NULL);
	carry(g, &sequence, chain, ids, starts, carried);
	snprintf(name, sizeof name, "logits.%s", chain->name);
	golden_close_to(g, name, carried + (size_t)starts[1] * vocab,
					golden_floats(values, name, n * vocab), n * vocab, LIMIT);
	reprefill(g, chain, ids, starts, exact);
	snprintf(name, sizeof name, "kl.%s", chain->name);
	kl = golden_floats(values, name, n);
	for (size_t i = 0; i < n; i++) {
		size_t row = ((size_t)starts[1] + i) * vocab;
		double found = logits_kl(exact + row, carried + row, (int)vocab);
		if (!(fabs(found - (double)kl[i]) < 1e-4))
			golden_fail("%s: row %zu: KL %.6f, expected %.6f", name, i, found, (double)kl[i]);
	}
	check_state(json, entry, &sequence);
	sequence_close(&sequence);
	test_free(exact);
	test_free(carried);
}

static void read_chain(const struct json *json, const struct json_node *entry, struct chain *chain,
					   struct text names[3])
{
	const struct json_node *list = json_member(json, entry, "chain");

	*chain = (struct chain){.n = 0};
	if (list) {
		for (const struct json_node *name = json_first(json, list); name;
			 name = json_next(json, list, name))
			json_string(json, name, &names[chain->n++]);
	} else {
		json_string(json, json_member(json, entry, "from"), &names[chain->n++]);
		json_string(json, json_member(json, entry, "to"), &names[chain->n++]);
	}
	for (int i = 0; i < chain->n; i++) {
		size_t length = strlen(chain->name);
		chain->budgets[i] = chain->slices[i] = text_chars(&names[i]);
		snprintf(chain->name + length, sizeof chain->name - length, "%s%s", i ? "-" : "",
				 chain->budgets[i]);
	}
}

/* Every entry of `list` whose golden values lie in `values_file`. */
static void check_file(const char *budgets, const char *values_file, const char *list, int expected)
{
	struct golden g;
	struct checkpoint values;
	struct error err = {0};
	struct text source = {0};
	struct json json;
	char *path = golden_path(values_file);
	int n_checked = 0;

	golden_open(&g, "nest-tiny", budgets, MATH_EXACT);
	golden_must(checkpoint_open_file(&values, path, &err), &err);
	free(path);
	path = golden_path(list);
	golden_must(file_read(path, 1 << 20, &source, &err), &err);
	free(path);
	golden_must(json_parse(&json, text_chars(&source), source.length, &err), &err);
	for (const struct json_node *entry = json_first(&json, json.nodes); entry;
		 entry = json_next(&json, json.nodes, entry)) {
		struct text names[3] = {{0}};
		struct chain chain;
		char tensor[100];
		read_chain(&json, entry, &chain, names);
		snprintf(tensor, sizeof tensor, "logits.%s", chain.name);
		if (checkpoint_find(&values, tensor)) {
			// small does not nest with noattn, so it is typed there
			if (chain.n == 3)
				chain.slices[2] = "hidden_size=48,moe_intermediate_size=16";
			check_chain(&g, &values, &chain, &json, entry);
			n_checked++;
		}
		for (int i = 0; i < 3; i++)
			text_free(&names[i]);
	}
	assert_int_equal(n_checked, expected);
	golden_leave(&g, values_file);
	json_free(&json);
	text_free(&source);
	checkpoint_close(&values);
	golden_close(&g);
}

static void widths(void)
{
	check_file("elastic.json", "nest-tiny/golden/handoff.safetensors",
			   "nest-tiny/golden/handoff.json", 6);
}

static void all_axes(void)
{
	check_file("elastic-allaxes.json", "nest-tiny/golden/handoff-allaxes.safetensors",
			   "nest-tiny/golden/handoff.json", 2);
}

static void skipped_attention(void)
{
	check_file("elastic-skip.json", "nest-tiny/golden/handoff-skip.safetensors",
			   "nest-tiny/golden/handoff-skip.json", 3);
}

/* Logits behind a switch at AT: small reads token by token as in a chat, then large, which goes
 * back `replayed` tokens first. */
#define AT 100
static void switched(struct golden *g, const int32_t *ids, int replayed, float *logits)
{
	struct sequence sequence;
	struct error err = {0};

	golden_sequence(g, &sequence, "small");
	golden_read(g, &sequence, ids, AT - replayed, 11, NULL);
	golden_must(sequence_use(&sequence, golden_slice(g, "large"), &err), &err);
	golden_read(g, &sequence, ids + AT - replayed, replayed, 128, NULL);
	golden_read(g, &sequence, ids + AT, N - AT, 11, logits);
	sequence_close(&sequence);
}

/* repair:N leaves exactly the state of a switch that many tokens ago. */
static void repaired(void)
{
	static const int repairs[] = {1, 5, 40, 100};
	struct golden g;
	struct checkpoint values;
	struct error err = {0};
	char *path = golden_path("nest-tiny/golden/handoff.safetensors");

	golden_open(&g, "nest-tiny", "elastic.json", MATH_EXACT);
	golden_must(checkpoint_open_file(&values, path, &err), &err);
	free(path);
	const int32_t *ids = golden_ids(&values, "tokens", N);
	size_t vocab = (size_t)g.model->config.vocab_size, n = (size_t)(N - AT) * vocab;
	float *found = test_calloc(n, sizeof *found), *expected = test_calloc(n, sizeof *found);
	for (size_t i = 0; i < sizeof repairs / sizeof *repairs; i++) {
		struct prefill prefill = {
			.workspace = g.workspace, .handoff = HANDOFF_REPAIR, .repair = repairs[i]};
		struct sequence sequence;
		golden_sequence(&g, &sequence, "small");
		golden_must(prefill_extend(&prefill, &sequence, ids, 50, NULL, NULL, &err), &err);
		for (int at = 50; at < AT; at++) {
			golden_read(&g, &sequence, ids + at, 1, 1, NULL);
			golden_must(sequence_roll(&sequence, repairs[i], &err), &err);
		}
		golden_must(prefill_switch(&prefill, &sequence, golden_slice(&g, "large"), &err), &err);
		if (repairs[i] >= AT)
			assert_int_equal(prefill.read, AT);
		else // the prompt was read in one piece: the last of its snapshots may be needed
			assert_in_range(prefill.read, repairs[i], repairs[i] + (repairs[i] + 1) / 2 - 1);
		assert_int_equal(sequence.n_tokens, AT);
		golden_read(&g, &sequence, ids + AT, N - AT, 11, found);
		switched(&g, ids, prefill.read, expected);
		golden_same("repaired", found, expected, n);
		sequence_close(&sequence);
	}
	test_free(found);
	test_free(expected);
	checkpoint_close(&values);
	golden_close(&g);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"widths", widths},
		{"all_axes", all_axes},
		{"skipped_attention", skipped_attention},
		{"repaired", repaired},
	};
	return golden_main(tests, sizeof tests / sizeof *tests);
}
