/*
 * A pass taken apart: bytes and operations of nest-tiny's largest budget in numbers worked out by
 * hand, times and launches that add up, the same logits as without; and the peaks.
 */
#include "kernels/cuda_pass.h"
#include "kernels/profile.h"
#include "tests/golden/golden.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define VOCAB 224

static const struct profiler *profiler;
static const int32_t ids[] = {10, 95, 30, 11, 130, 200, 17};
#define N ((int)(sizeof ids / sizeof *ids))

/* The same tokens one by one; logits of the last. */
static void read_ids(struct golden *g, struct sequence *sequence, float *logits)
{
	struct error err = {0};
	golden_must(sequence_rewind(sequence, 0, &err), &err);
	for (int i = 0; i < N; i++) {
		struct pick_params greedily = {.top_p = 1, .forced = -1};
		struct picked picked;
		struct lane lane = {.sequence = sequence,
							.tokens = &ids[i],
							.n_tokens = 1,
							.logits = i == N - 1 ? LOGITS_ALL : LOGITS_LAST};
		golden_must(forward(g->workspace, &lane, 1, &greedily, &picked, &err), &err);
		if (i == N - 1)
			golden_backend->download(g->device, logits, lane.out, VOCAB * sizeof *logits);
	}
}

// clang-format off
/* Of a token, with KV in F32 and nothing in the cache:
 *   embeddings                                              160 + 320 =    480
 *   nine norms of 80                                          9 * 960 =   8640
 *   three Mamba layers: in_proj 294 x 80, conv of 192, states of 96 x 24,
 *     gated norm of 96, out_proj 80 x 96
 *                    3 * (48536 + 9984 + 19608 + 1536 + 16384) = 288144
 *   attention: q 120, k and v 40 each, cache of one row, o
 *                                      20000 + 13760 + 1600 + 20320 =  55680
 *   three MoE layers: router 10 x 80 in F32, choice, 3 of 10 experts of 48, shared ones
 *                             3 * (3560 + 64 + 48192 + 8192 + 8512) = 205560
 *   the dense FFN of 96                                 16064 + 16384 =  32448
 *   head and choice                                       37056 + 896 =  37952 */
// clang-format on
#define BYTES_OF_TOKEN 628904.0

static void work_adds_up(void)
{
	struct golden g;
	struct sequence sequence;
	struct error err = {0};
	float plain[VOCAB], apart[VOCAB];
	int n_rows;

	golden_open(&g, "nest-tiny", "elastic.json", MATH_EXACT);
	profiler = golden_backend->profiler;
	assert_non_null(profiler);
	golden_sequence(&g, &sequence, "large");
	read_ids(&g, &sequence, plain);
	uint64_t replayed = cuda_graphs_replayed(g.device);
	uint64_t launches = g.device->n_launches;
	golden_must(profiler->start(g.device, 0, &err), &err);
	read_ids(&g, &sequence, apart);
	launches = g.device->n_launches - launches;
	const struct profiled *rows = profiler->stop(g.device, &n_rows);
	struct profiled sum = {.n_groups = 0};
	for (int i = 0; i < n_rows; i++) {
		assert_true(rows[i].name[0] && rows[i].ns > 0 && rows[i].n_groups >= N);
		assert_true(rows[i].n_launches >= rows[i].n_groups);
		assert_true(i == 0 || rows[i].ns <= rows[i - 1].ns);
		sum.n_launches += rows[i].n_launches;
		sum.work.bytes += rows[i].work.bytes;
		sum.work.flops += rows[i].work.flops;
	}
	if (!(fabs(sum.work.bytes - N * BYTES_OF_TOKEN) < 1))
		golden_fail("%.0f bytes a token, expected %.0f", sum.work.bytes / N, BYTES_OF_TOKEN);
	assert_true(sum.work.bytes / N > (double)golden_slice(&g, "large")->cost.bytes_per_token);
	assert_true(sum.work.flops / N > 2 * 240000.0); // a multiplication and an addition a weight
	assert_int_equal(cuda_graphs_replayed(g.device), replayed);
	assert_in_range(launches - (uint64_t)sum.n_launches, 1, 64); // one a list makes it wait
	assert_memory_equal(plain, apart, sizeof plain);

	// from here on passes are recorded again
	read_ids(&g, &sequence, apart);
	cuda_graphs_settle(g.device);
	read_ids(&g, &sequence, apart);
	assert_true(cuda_graphs_replayed(g.device) > replayed);
	assert_memory_equal(plain, apart, sizeof plain);
	g.hash++;
	golden_leave(&g, "a pass apart");
	sequence_close(&sequence);
	golden_close(&g);
}

static void peaks_are_measured(void)
{
	struct golden g;
	struct peaks peaks;
	struct error err = {0};
	struct device_gauges gauges;

	golden_open(&g, "nest-tiny", "elastic.json", MATH_EXACT);
	golden_must(golden_backend->profiler->peaks(g.device, &peaks, &err), &err);
	assert_true(peaks.read_bps > 1e6 && peaks.copy_bps > 1e6);
	assert_true(peaks.bf16_flops > 0); // the shim has a cuBLASLt
	golden_backend->gauges(g.device, &gauges);
	assert_int_equal(gauges.read_bps, -1); // a few weights, no passes: not known
	g.hash++;
	golden_leave(&g, "peaks");
	golden_close(&g);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"work_adds_up", work_adds_up},
		{"peaks_are_measured", peaks_are_measured},
	};
	return golden_main(tests, sizeof tests / sizeof *tests);
}
