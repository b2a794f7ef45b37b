/*
 * The bundled demo: six chat prompts, three budgets, greedy to the stop id, against
 * tests/golden/demo/golden.json (float32 on sliced children, an independent implementation); and
 * that three budgets opened cost the memory of one.
 */
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "golden.h"
#include <malloc.h>
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

static const struct pick_params greedily = {.top_p = 1, .forced = -1};

static int64_t whole(const struct json *json, const struct json_node *node)
{
	int64_t value = 0;
	struct error err = {0};
	if (json_integer(json, node, "id", &value, &err))
		golden_fail("%s", err.text);
	return value;
}

/* The ids of an array into out, which has room for GOLDEN_CONTEXT. */
static int read_ids(const struct json *json, const struct json_node *array, int32_t *out)
{
	int n = 0;

	assert_non_null(array);
	assert_true(array->n_children <= GOLDEN_CONTEXT);
	for (const struct json_node *id = json_first(json, array); id; id = json_next(json, array, id))
		out[n++] = (int32_t)whole(json, id);
	return n;
}

static void check_first(const struct json *json, const struct json_node *top,
						const struct picked *picked, double *worst)
{
	int k = 0;

	for (const struct json_node *pair = json_first(json, top); pair;
		 pair = json_next(json, top, pair), k++) {
		const struct json_node *id = json_first(json, pair);
		struct error err = {0};
		double logprob, d;
		if (json_number(json, json_next(json, pair, id), "logprob", &logprob, &err))
			golden_fail("%s", err.text);
		assert_int_equal(picked->top[k].id, whole(json, id));
		d = fabs((double)picked->top[k].logprob - logprob);
		*worst = d > *worst ? d : *worst;
	}
	assert_int_equal(k, 5);
}

static void check_prompt(struct golden *g, const char *budget, const struct json *json,
						 const struct json_node *prompt, double *worst)
{
	const struct json_node *expected =
		json_member(json, json_member(json, prompt, "budgets"), budget);
	struct prefill prefill = {.workspace = g->workspace};
	int32_t ids[GOLDEN_CONTEXT], greedy[GOLDEN_CONTEXT];
	int n = read_ids(json, json_member(json, prompt, "prompt_ids"), ids);
	int n_greedy = read_ids(json, json_member(json, expected, "greedy_ids"), greedy);
	struct sequence sequence;
	struct picked picked;
	struct error err = {0};

	golden_sequence(g, &sequence, budget);
	for (int i = 0; i < n_greedy; i++) {
		if (prefill_extend(&prefill, &sequence, ids, n + i, &greedily, &picked, &err))
			golden_fail("%s", err.text);
		assert_int_equal(prefill.read, i ? 1 : n);
		if (!i)
			check_first(json, json_member(json, expected, "first_top5"), &picked, worst);
		if (picked.id != greedy[i])
			golden_fail("%s: token %d: %d, expected %d", budget, i, picked.id, greedy[i]);
		g->hash = hash_mix(g->hash ^ hash_bytes(&picked, sizeof picked));
		ids[n + i] = picked.id;
	}
	sequence_close(&sequence);
}

struct answers {
	struct text source;
	struct json json;
	const struct json_node *prompts;
};

static void open_answers(struct answers *file)
{
	char *path = golden_path("demo/golden.json");
	struct error err = {0};

	*file = (struct answers){.prompts = NULL};
	golden_must(file_read(path, 1 << 20, &file->source, &err), &err);
	golden_must(json_parse(&file->json, text_chars(&file->source), file->source.length, &err),
				&err);
	file->prompts = json_member(&file->json, file->json.nodes, "prompts");
	assert_non_null(file->prompts);
	free(path);
}

static void close_answers(struct answers *file)
{
	json_free(&file->json);
	text_free(&file->source);
}

static void answers(void)
{
	static const char *const budgets[] = {"large", "medium", "small"};
	struct answers file;
	struct golden g;
	double worst = 0;
	int n = 0;

	open_answers(&file);
	golden_open(&g, "demo", NULL, MATH_EXACT);
	for (const struct json_node *prompt = json_first(&file.json, file.prompts); prompt;
		 prompt = json_next(&file.json, file.prompts, prompt))
		for (int i = 0; i < 3; i++, n++)
			check_prompt(&g, budgets[i], &file.json, prompt, &worst);
	assert_int_equal(n, 18);
	assert_true(worst < 1e-4);
	if (golden_run.threads == 1)
		golden_note("demo, %s: first step's logprobs differ by %.2g at most", golden_run.rung,
					worst);
	golden_leave(&g, "demo");
	golden_close(&g);
	close_answers(&file);
}

/* Resident bytes of the mappings of `file`, and how many there are. */
static size_t resident(const char *file, int *n_mappings)
{
	FILE *maps = fopen("/proc/self/smaps", "r");
	char line[1024];
	size_t total = 0, kib;
	bool inside = false;

	assert_non_null(maps);
	*n_mappings = 0;
	while (fgets(line, sizeof line, maps)) {
		unsigned long from, to;
		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			inside = strstr(line, file) != NULL;
			*n_mappings += inside;
		} else if (inside && sscanf(line, "Rss: %zu kB", &kib) == 1) {
			total += kib * 1024;
		}
	}
	fclose(maps);
	return total;
}

static size_t heap(void)
{
	struct mallinfo2 info = mallinfo2();
	return info.uordblks + info.hblkhd;
}

static void run_budget(struct golden *g, const char *budget)
{
	static const int32_t ids[] = {10, 295, 30, 11, 30, 10, 286, 30, 350, 300, 52, 72};
	struct sequence sequence;
	golden_sequence(g, &sequence, budget);
	golden_read(g, &sequence, ids, 12, 12, NULL);
	sequence_close(&sequence);
}

static void three_budgets_cost_one(void)
{
	struct golden g;
	size_t before, one, three, grown, weights;
	volatile unsigned char touched = 0;
	int n_mappings;

	golden_open(&g, "demo", NULL, MATH_EXACT);
	const struct shard *shard = &g.model->checkpoint.shards[0];
	weights = shard->bytes;
	for (size_t i = 0; i < weights; i += 4096) // --warm: large alone may leave an expert unread
		touched = touched ^ shard->data[i];
	run_budget(&g, "large");
	before = heap();
	one = resident("demo/model.safetensors", &n_mappings);
	assert_int_equal(n_mappings, 1);
	assert_true(one >= weights);
	run_budget(&g, "medium");
	run_budget(&g, "small");
	run_budget(&g, "large");
	three = resident("demo/model.safetensors", &n_mappings);
	grown = heap() - before;
	assert_int_equal(n_mappings, 1);
	assert_int_equal(three, one);
	assert_true(grown < weights / 10); // vectors, spans and lists of two slices
	if (golden_run.threads == 1)
		golden_note("weights resident: one budget %zu, three %zu bytes; heap of two more slices "
					"%zu bytes",
					one, three, grown);
	golden_close(&g);
}

/* Logits of a prompt and its golden answer, read at once. */
static int read_dialogue(struct golden *g, const char *budget, const struct json *json,
						 const struct json_node *prompt, float *logits)
{
	const struct json_node *answer =
		json_member(json, json_member(json, prompt, "budgets"), budget);
	int32_t ids[2 * GOLDEN_CONTEXT];
	struct sequence sequence;
	int n = read_ids(json, json_member(json, prompt, "prompt_ids"), ids);

	n += read_ids(json, json_member(json, answer, "greedy_ids"), ids + n);
	golden_sequence(g, &sequence, budget);
	golden_read(g, &sequence, ids, n, PREFILL_CHUNK, logits);
	sequence_close(&sequence);
	return n;
}

static size_t largest(const float *values, size_t n)
{
	size_t best = 0;
	for (size_t i = 1; i < n; i++)
		best = values[i] > values[best] ? i : best;
	return best;
}

/* What fewer bits cost, held against --math exact: mean KL below `limit`, the same top id. */
static void check_cost(const char *what, enum math math, enum dtype kv_dtype, double limit)
{
	static const char *const budgets[] = {"large", "medium", "small"};
	struct answers file;
	struct golden exact, fast;

	open_answers(&file);
	golden_open(&exact, "demo", NULL, MATH_EXACT);
	golden_open_kv(&fast, "demo", NULL, math, kv_dtype);
	size_t vocab = (size_t)exact.model->config.vocab_size;
	float *a = test_calloc(GOLDEN_CONTEXT * vocab, sizeof *a);
	float *b = test_calloc(GOLDEN_CONTEXT * vocab, sizeof *b);
	for (int i = 0; i < 3; i++) {
		double kl = 0, error = 0;
		size_t n_tokens = 0, n_same = 0;
		for (const struct json_node *prompt = json_first(&file.json, file.prompts); prompt;
			 prompt = json_next(&file.json, file.prompts, prompt)) {
			size_t n = (size_t)read_dialogue(&exact, budgets[i], &file.json, prompt, a);
			read_dialogue(&fast, budgets[i], &file.json, prompt, b);
			error = fmax(error, golden_error(b, a, n * vocab));
			fast.hash = hash_mix(fast.hash ^ hash_bytes(b, n * vocab * sizeof *b));
			for (size_t t = 0; t < n; t++) {
				kl += logits_kl(a + t * vocab, b + t * vocab, (int)vocab);
				n_same += largest(a + t * vocab, vocab) == largest(b + t * vocab, vocab);
			}
			n_tokens += n;
		}
		assert_true(n_tokens > 400);
		assert_true(kl / (double)n_tokens < limit);
		assert_true((double)n_same > 0.98 * (double)n_tokens);
		if (golden_run.threads == 1)
			golden_note(
				"demo, %s, %s, %s: relative error %.2g, mean KL %.2g, same top id %zu of %zu", what,
				golden_run.rung, budgets[i], error, kl / (double)n_tokens, n_same, n_tokens);
	}
	golden_leave(&fast, what);
	test_free(b);
	test_free(a);
	golden_close(&fast);
	golden_close(&exact);
	close_answers(&file);
}

/* BF16 KV and, where it pays, BF16 products. */
static void fast_math(void)
{
	check_cost("fast", MATH_FAST, DTYPE_BF16, 1e-3);
}

static void kv_in_fp8(void)
{
	check_cost("kv fp8", MATH_EXACT, DTYPE_F8_E4M3, 1e-2);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"answers", answers},
		{"three_budgets_cost_one", three_budgets_cost_one},
		{"fast_math", fast_math},
		{"kv_in_fp8", kv_in_fp8},
	};
	return golden_main(tests, sizeof tests / sizeof *tests);
}
