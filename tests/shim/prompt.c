/* nest-tiny's prompt of 7 tokens on its largest budget, and what follows it, through forward():
 * once as the golden values have it, and again from recorded passes. */
#include "kernels/cuda_pass.h"
#include "tests/golden/golden.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_GREEDY 5
#define MAX_VOCAB 4096

static void count(void *user, const struct tapped *tapped)
{
	*(int *)user += tapped->n * tapped->width;
}

/* A token of one lane: embedding, head and a pick's three apart, every layer is three launches (an
 * MLP two). */
static uint64_t launches_a_token(const struct config *config)
{
	uint64_t n = 1 + 1 + 3;
	for (int i = 0; i < config->n_layers; i++)
		n += config->kinds[i] == LAYER_MLP ? 2 : 3;
	return n;
}

static void prompt_and_greedy_tokens(void)
{
	struct golden g;
	struct checkpoint values;
	struct sequence sequence;
	struct error err = {0};
	struct picked picked;
	const struct pick_params greedily = {.top_p = 1, .forced = -1};
	int n_chosen = 0;
	struct taps taps = {.wanted = TAP_EXPERTS, .see = count, .user = &n_chosen};
	char *path = golden_path("nest-tiny/golden/large.safetensors");
	static float found[7 * MAX_VOCAB];

	golden_must(checkpoint_open_file(&values, path, &err), &err);
	golden_open(&g, "nest-tiny", "elastic.json", MATH_EXACT);
	size_t vocab = (size_t)g.model->config.vocab_size;
	const int32_t *prompt = golden_ids(&values, "tokens.7", 7);
	const int32_t *greedy = golden_ids(&values, "greedy.ids", 24);
	assert_true(vocab <= MAX_VOCAB);
	golden_sequence(&g, &sequence, "large");
	golden_read(&g, &sequence, prompt, 7, PREFILL_CHUNK, found);
	golden_close_to(&g, "logits.7", found, golden_floats(&values, "logits.7", 7 * vocab), 7 * vocab,
					1e-4);
	for (int round = 0; round < 2; round++) { // the second one finds passes recorded
		struct lane lane = {.sequence = &sequence,
							.tokens = prompt,
							.n_tokens = 7,
							.logits = LOGITS_LAST,
							.taps = &taps};
		golden_must(sequence_rewind(&sequence, 0, &err), &err);
		for (int i = 0; i < N_GREEDY; i++) {
			uint64_t launches = g.device->n_launches;
			golden_must(forward(g.workspace, &lane, 1, &greedily, &picked, &err), &err);
			assert_int_equal(picked.id, greedy[i]);
			if (round == 0 && i == 1) // not recorded yet
				assert_int_equal(g.device->n_launches - launches,
								 launches_a_token(&g.model->config));
			cuda_graphs_settle(g.device);
			lane.tokens = &picked.id;
			lane.n_tokens = 1;
		}
	}
	/* seen, noted, then replayed: tokens 3.. of the first round, all of the second (its prompt too
	 * is a pass that came before) */
	assert_true(cuda_graphs_replayed(g.device) >= 2 * N_GREEDY - 5);
	int top_k = g.model->config.num_experts_per_tok;
	assert_int_equal(n_chosen, 2 * (7 + N_GREEDY - 1) * 3 * top_k); // three MoE layers
	golden_leave(&g, "7 tokens and what follows");
	sequence_close(&sequence);
	golden_close(&g);
	checkpoint_close(&values);
	free(path);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"prompt_and_greedy_tokens", prompt_and_greedy_tokens},
	};
	return golden_main(tests, 1);
}
