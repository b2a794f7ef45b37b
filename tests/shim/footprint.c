/* What core/footprint.h says a model takes is what the device has taken in the end: never less, and
 * not much more. */
#include "core/footprint.h"
#include "tests/golden/golden.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define N_TOKENS 70 // a chunk of the prompt, and 6 more
#define CHUNK 64
#define CONTEXT 320
#define LANES 4
#define SLACK_BYTES ((uint64_t)3 << 20) // splits of attention that were not needed, blocks of lists

/* A prompt of two chunks and a few tokens of the parent, as a chat opens them. */
static void run(const char *folder, enum math math, uint64_t *said, uint64_t *taken)
{
	struct golden g;
	struct sequence sequence;
	struct error err = {0};
	struct picked picked;
	struct device_gauges gauges;
	struct footprint footprint;
	const struct pick_params params = {.top_p = 1, .forced = -1};
	static int32_t ids[N_TOKENS];
	golden_open(&g, folder, NULL, math);
	const struct config *config = &g.model->config;
	workspace_close(g.workspace);
	g.workspace = workspace_open(config, golden_backend, g.device, LANES, CHUNK, false, &err);
	golden_must(g.workspace ? 0 : -1, &err);
	struct prefill prefill = {.workspace = g.workspace, .snapshot_at = CHUNK + 2};
	for (int i = 0; i < N_TOKENS; i++)
		ids[i] = (i * 79 + 13) % config->vocab_size;
	golden_must(
		sequence_open(&sequence, config, golden_backend, g.device, g.kv_dtype, CONTEXT, &err),
		&err);
	const char *parent = g.model->elastic.budgets[0].name;
	golden_must(sequence_use(&sequence, golden_slice(&g, parent), &err), &err);
	golden_must(prefill_extend(&prefill, &sequence, ids, N_TOKENS, &params, &picked, &err), &err);
	struct lane lane = {
		.sequence = &sequence, .tokens = &picked.id, .n_tokens = 1, .logits = LOGITS_LAST};
	for (int i = 0; i < 2; i++)
		golden_must(forward(g.workspace, &lane, 1, &params, &picked, &err), &err);
	struct footprint_plan plan = {.n_sequences = 1,
								  .context = CONTEXT,
								  .kv_dtype = g.kv_dtype,
								  .n_snapshots = 1,
								  .n_slices = 1,
								  .n_lanes = LANES,
								  .n_tokens = CHUNK,
								  .math = math,
								  .scratch_bytes = golden_backend->scratch_bytes};
	footprint_of(&footprint, config, &plan);
	golden_backend->gauges(g.device, &gauges);
	*said = footprint_bytes(&footprint);
	*taken = (uint64_t)(gauges.ours_bytes - gauges.weights_bytes);
	assert_true(gauges.scratch_bytes > 0 && (uint64_t)gauges.scratch_bytes <= footprint.scratch);
#if defined(TEST_SHIM)
	assert_int_equal(gauges.power_mw, 612400); // nvml.cpp
	assert_int_equal(gauges.busy_percent, 97);
	assert_true(gauges.used_bytes > gauges.ours_bytes && gauges.used_bytes < gauges.total_bytes);
#endif
	assert_int_equal(footprint.activations, workspace_bytes(g.workspace));
	assert_int_equal(footprint.kv, sequence.bytes.kv);
	assert_int_equal(footprint.conv, sequence.bytes.conv);
	assert_int_equal(footprint.ssm, sequence.bytes.ssm);
	assert_int_equal(footprint.snapshots, sequence.bytes.snapshots);
	golden_note("%s: %.2f MB said (slices %.2f, activations %.2f, scratch %.2f), %.2f taken",
				folder, (double)*said / 1e6, (double)footprint.vectors / 1e6,
				(double)footprint.activations / 1e6, (double)footprint.scratch / 1e6,
				(double)*taken / 1e6);
	sequence_close(&sequence);
	golden_close(&g);
}

static void is_what_is_taken(void)
{
	static const char *const folders[] = {"nest-tiny", "quantised/nest-tiny-fp8",
										  "quantised/nest-tiny-nvfp4"};
	uint64_t said, taken;
	for (int math = MATH_EXACT; math <= MATH_FAST; math++)
		for (size_t i = 0; i < (math == MATH_EXACT ? 1 : sizeof folders / sizeof *folders); i++) {
			run(folders[i], (enum math)math, &said, &taken);
			assert_true(taken <= said);
			assert_true(said <= taken + taken * 3 / 10 + SLACK_BYTES);
		}
	run("demo", MATH_FAST, &said, &taken);
	assert_true(taken <= said);
	assert_true(said <= taken + taken * 3 / 10 + SLACK_BYTES);
}

int main(void)
{
	static const struct golden_test tests[] = {{"is_what_is_taken", is_what_is_taken}};
	setenv("SHIM_NVML", "1", 1);
	return golden_main(tests, 1);
}
