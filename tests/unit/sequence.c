/*
 * Sequences: runs, snapshots, what can be kept, what is stale, forks. The state is bytes here: a
 * device of plain memory and hand-made slices; what the bytes mean is the golden tests' business.
 */
#include "core/sequence.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

struct device {
	int blocks; // allocated and not released
	size_t bytes;
	int room; // allocations left before memory runs out
};

static void *memory_alloc(struct device *device, size_t bytes, struct error *err)
{
	max_align_t *memory = device->room-- > 0 ? calloc(1, sizeof *memory + bytes) : NULL;
	if (!memory) {
		fail(err, "no memory for %zu bytes", bytes);
		return NULL;
	}
	memcpy(memory, &bytes, sizeof bytes);
	device->blocks++;
	device->bytes += bytes;
	return memory + 1;
}

static void memory_release(struct device *device, void *memory)
{
	max_align_t *block = memory;
	size_t bytes;
	if (!block)
		return;
	memcpy(&bytes, block - 1, sizeof bytes);
	device->bytes -= bytes;
	device->blocks--;
	free(block - 1);
}

static void memory_copy(struct device *device, void *to, const void *from, size_t bytes)
{
	(void)device;
	memcpy(to, from, bytes);
}

static void memory_zero(struct device *device, void *memory, size_t bytes)
{
	(void)device;
	memset(memory, 0, bytes);
}

static const struct backend memory_backend = {.name = "memory",
											  .alloc = memory_alloc,
											  .release = memory_release,
											  .upload = memory_copy,
											  .download = memory_copy,
											  .copy = memory_copy,
											  .zero = memory_zero};

/* M * E: 2 heads x 2 channels, 1 group, state 1; so 4 x-channels, B and C. */
static const struct config config = {.n_layers = 3,
									 .kinds = {LAYER_MAMBA, LAYER_ATTENTION, LAYER_MOE},
									 .mamba_num_heads = 2,
									 .mamba_head_dim = 2,
									 .ssm_state_size = 1,
									 .n_groups = 1,
									 .conv_kernel = 4,
									 .num_attention_heads = 2,
									 .num_key_value_heads = 1,
									 .head_dim = 2,
									 .vocab_size = 100};

static const int32_t all_channels[] = {0, 1, 2, 3, 4, 5}, some_channels[] = {0, 2, 4, 5};

struct world {
	struct device device;
	struct layer_slice layers[3][3];
	struct slice large, narrow, skipping;
	struct sequence sequence;
};

static void make_slice(struct world *w, struct slice *slice, int which, const char *name)
{
	struct layer_slice *layers = w->layers[which];
	for (int i = 0; i < 3; i++)
		layers[i] = (struct layer_slice){.keep = true, .kind = config.kinds[i]};
	layers[0].mamba.channels = 6;
	layers[0].mamba.host_channel = all_channels;
	*slice = (struct slice){
		.config = &config, .layers = layers, .backend = &memory_backend, .device = &w->device};
	strcpy(slice->budget.name, name);
}

static int open_world(void **state)
{
	struct world *w = calloc(1, sizeof *w);
	struct error err = {0};
	if (!w)
		return -1;
	w->device.room = 1000;
	make_slice(w, &w->large, 0, "large");
	make_slice(w, &w->narrow, 1, "narrow");
	w->layers[1][0].mamba.channels = 4;
	w->layers[1][0].mamba.host_channel = some_channels;
	make_slice(w, &w->skipping, 2, "skipping");
	w->layers[2][1].keep = false;
	*state = w;
	return sequence_open(&w->sequence, &config, &memory_backend, &w->device, DTYPE_F32, 64, &err);
}

static int close_world(void **state)
{
	struct world *w = *state;
	int left;
	sequence_close(&w->sequence);
	sequence_close(&w->sequence); // takes {0}
	left = w->device.blocks;
	free(w);
	return left; // everything went back to the device
}

/* What forward() would do: the state after a token depends on all tokens and the slice. */
static void read_tokens(struct sequence *s, const int32_t *ids, int n)
{
	for (int i = 0; i < n; i++) {
		struct layer_state *attention = &s->layers[1];
		s->layers[0].conv[0] = s->layers[0].conv[0] * 3 + (float)ids[i];
		s->layers[0].ssm[3] = s->layers[0].ssm[3] * 5 + (float)ids[i];
		if (sequence_slice(s)->layers[1].keep) {
			((float *)attention->k)[*attention->length * 2] = (float)ids[i];
			((float *)attention->v)[*attention->length * 2 + 1] = (float)-ids[i];
			++*attention->length;
		}
		sequence_advance(s, &ids[i], 1);
	}
}

static void use(struct sequence *s, const struct slice *slice)
{
	struct error err = {0};
	assert_int_equal(sequence_use(s, slice, &err), 0);
	assert_ptr_equal(sequence_slice(s), slice);
}

static const int32_t ids[] = {5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18};

static void runs_say_who_read_what(void **state)
{
	struct world *w = *state;
	struct sequence *s = &w->sequence;

	assert_null(sequence_slice(s));
	use(s, &w->large);
	use(s, &w->narrow); // large read nothing
	assert_int_equal(s->n_runs, 1);
	read_tokens(s, ids, 3);
	use(s, &w->large);
	use(s, &w->narrow); // back before a token: one run again
	assert_int_equal(s->n_runs, 1);
	use(s, &w->skipping);
	read_tokens(s, ids + 3, 2);
	assert_int_equal(s->n_runs, 2);
	assert_int_equal(s->runs[1].from, 3);
	assert_int_equal(s->n_tokens, 5);
	assert_int_equal(s->layers[1].rows, 3);
	assert_int_equal(*s->layers[1].length, 3);
	assert_memory_equal(s->tokens, ids, 5 * sizeof *ids);
}

static void strangers_are_refused(void **state)
{
	struct world *w = *state;
	struct config other = config;
	struct device elsewhere = {0};
	struct error err = {0};

	w->narrow.config = &other;
	assert_int_equal(sequence_use(&w->sequence, &w->narrow, &err), -1);
	assert_string_equal(err.text, "budget narrow: it belongs to another model than the sequence");
	w->large.device = &elsewhere;
	assert_int_equal(sequence_use(&w->sequence, &w->large, &err), -1);
	assert_string_equal(err.text,
						"budget large: its slice was built for another device than the sequence's");
	assert_null(sequence_slice(&w->sequence));
}

static void what_can_be_kept(void **state)
{
	struct world *w = *state;
	struct sequence *s = &w->sequence;
	int32_t other[sizeof ids / sizeof *ids];
	struct error err = {0};

	memcpy(other, ids, sizeof ids);
	other[6] = 99;
	use(s, &w->large);
	read_tokens(s, ids, 4);
	assert_int_equal(sequence_snapshot(s, &err), 0);
	read_tokens(s, ids + 4, 4);
	assert_int_equal(sequence_reusable(s, ids, 12, &w->large, true), 8); // the live position
	assert_int_equal(sequence_reusable(s, ids, 8, &w->large, true), 8);
	assert_int_equal(sequence_reusable(s, ids, 7, &w->large, true), 4); // only the snapshot
	assert_int_equal(sequence_reusable(s, other, 12, &w->large, true), 4);
	assert_int_equal(sequence_reusable(s, other, 3, &w->large, true), 0);
	assert_int_equal(sequence_reusable(s, ids, 12, &w->narrow, true), 0); // large read them
	assert_int_equal(sequence_reusable(s, ids, 12, &w->narrow, false), 8);

	use(s, &w->narrow);
	assert_int_equal(sequence_reusable(s, ids, 12, &w->large, true), 8); // narrow read nothing yet
	read_tokens(s, ids + 8, 2);
	assert_int_equal(sequence_reusable(s, ids, 12, &w->large, true), 4);
	assert_int_equal(sequence_reusable(s, ids, 12, &w->narrow, true), 0);
	assert_int_equal(sequence_reusable(s, ids, 12, &w->narrow, false), 10);
}

static void going_back_restores_the_state(void **state)
{
	struct world *w = *state;
	struct sequence *s = &w->sequence;
	struct error err = {0};
	float conv, ssm;

	use(s, &w->large);
	read_tokens(s, ids, 4);
	use(s, &w->skipping);
	read_tokens(s, ids + 4, 1);
	assert_int_equal(sequence_snapshot(s, &err), 0);
	conv = s->layers[0].conv[0];
	ssm = s->layers[0].ssm[3];
	use(s, &w->narrow);
	read_tokens(s, ids + 5, 4);
	assert_int_equal(sequence_snapshot(s, &err), 0);
	assert_int_equal(s->layers[1].rows, 8);

	assert_int_equal(sequence_rewind(s, 3, &err), -1);
	assert_string_equal(err.text, "no snapshot at 3 tokens: the sequence cannot go back there");
	assert_int_equal(s->n_tokens, 9);
	assert_int_equal(sequence_rewind(s, 5, &err), 0);
	assert_int_equal(s->n_tokens, 5);
	assert_true(s->layers[0].conv[0] == conv && s->layers[0].ssm[3] == ssm);
	assert_int_equal(s->layers[1].rows, 4);
	assert_int_equal(*s->layers[1].length, 4);
	assert_ptr_equal(sequence_slice(s), &w->narrow); // the running slice stays
	assert_int_equal(s->n_runs, 3);
	assert_int_equal(s->runs[1].from, 4);
	assert_int_equal(sequence_rewind(s, 9, &err), -1); // dropped: its KV rows are written again

	assert_int_equal(sequence_rewind(s, 0, &err), 0);
	assert_int_equal(s->n_tokens, 0);
	assert_int_equal(s->layers[1].rows, 0);
	assert_true(s->layers[0].conv[0] == 0 && s->layers[0].ssm[3] == 0);
	assert_ptr_equal(sequence_slice(s), &w->narrow);
	assert_int_equal(s->n_runs, 1);
	sequence_reset(s);
	assert_null(sequence_slice(s));
}

static void the_least_recently_used_snapshot_goes(void **state)
{
	struct world *w = *state;
	struct sequence *s = &w->sequence;
	struct error err = {0};
	uint64_t bytes;

	use(s, &w->large);
	assert_int_equal(sequence_snapshot(s, &err), 0); // nothing to keep
	assert_int_equal(s->bytes.snapshots, 0);
	for (int i = 0; i < 4; i++) {
		read_tokens(s, ids + 2 * i, 2);
		assert_int_equal(sequence_snapshot(s, &err), 0);
		assert_int_equal(sequence_snapshot(s, &err), 0); // again: the same place
	}
	bytes = s->bytes.snapshots;
	assert_int_equal(bytes, 4 * (3 * 6 + 4) * sizeof(float));
	assert_int_equal(sequence_reusable(s, ids, 3, &w->large, true), 2);
	read_tokens(s, ids + 8, 2);
	assert_int_equal(sequence_snapshot(s, &err), 0); // the one at 2 goes
	assert_int_equal(s->bytes.snapshots, bytes);
	assert_int_equal(sequence_reusable(s, ids, 3, &w->large, true), 0);
	assert_int_equal(sequence_reusable(s, ids, 5, &w->large, true), 4);
	assert_int_equal(sequence_rewind(s, 4, &err), 0); // used: 10, 8, 6 went with the rows above
	for (int i = 2; i < 6; i++) {
		read_tokens(s, ids + 2 * i, 2);
		assert_int_equal(sequence_snapshot(s, &err), 0);
	}
	assert_int_equal(sequence_reusable(s, ids, 5, &w->large, true), 0); // 4 was the oldest
	assert_int_equal(sequence_reusable(s, ids, 7, &w->large, true), 6);
}

/* With room for two on the device, the newest two are there, and all can be gone back to. */
static void snapshots_without_room_lie_on_the_host(void **state)
{
	struct world *w = *state;
	struct sequence *s = &w->sequence, copy = {0};
	struct error err = {0};
	const uint64_t each = (3 * 6 + 4) * sizeof(float);
	struct snapshot_room room = {.limit_bytes = 2 * each + 8};
	float conv[5], ssm[5];

	s->snapshot_room = &room;
	use(s, &w->large);
	for (int i = 1; i < 5; i++) {
		read_tokens(s, ids + 2 * i - 2, 2);
		assert_int_equal(sequence_snapshot(s, &err), 0);
		conv[i] = s->layers[0].conv[17];
		ssm[i] = s->layers[0].ssm[3];
		assert_true(i == 1 || ssm[i] != ssm[i - 1]);
	}
	assert_int_equal(s->bytes.snapshots, 2 * each);
	assert_int_equal(room.used_bytes, 2 * each);
	for (int i = 0; i < 4; i++)
		assert_true((s->snapshots[i].host != NULL) == (i < 2));

	// a copy has room for nothing but gets all of them
	assert_int_equal(
		sequence_open(&copy, &config, &memory_backend, &w->device, DTYPE_F32, 16, &err), 0);
	copy.snapshot_room = &room;
	assert_int_equal(sequence_fork(&copy, s, &err), 0);
	assert_int_equal(copy.bytes.snapshots, 0);
	struct sequence *both[] = {s, &copy};
	for (int k = 0; k < 2; k++)
		for (int i = 3; i > 0; i--) {
			assert_int_equal(sequence_rewind(both[k], 2 * i, &err), 0);
			assert_true(both[k]->layers[0].conv[17] == conv[i]);
			assert_true(both[k]->layers[0].ssm[3] == ssm[i]);
		}

	// free places give their room away
	read_tokens(s, ids + 2, 1);
	assert_int_equal(sequence_snapshot(s, &err), 0);
	assert_int_equal(s->bytes.snapshots, 2 * each);
	assert_int_equal(sequence_rewind(s, 2, &err), 0);
	assert_true(s->layers[0].ssm[3] == ssm[1]);

	sequence_close(&copy);
	w->device.room = 0; // others have taken the card
	room.limit_bytes = 9 * each;
	read_tokens(s, ids + 2, 4);
	assert_int_equal(sequence_snapshot(s, &err), 0);
	s->snapshot_room = NULL;
	room = (struct snapshot_room){0};
}

static void stale_is_what_an_earlier_run_left_out(void **state)
{
	struct world *w = *state;
	struct sequence *s = &w->sequence;
	int layers[3];

	use(s, &w->large);
	use(s, &w->skipping);
	assert_int_equal(sequence_stale(s, &w->large, layers), 0); // nothing was read
	read_tokens(s, ids, 2);
	assert_int_equal(sequence_stale(s, &w->skipping, layers), 0);
	assert_int_equal(sequence_stale(s, &w->large, layers), 1);
	assert_int_equal(layers[0], 1);
	use(s, &w->narrow);
	assert_int_equal(sequence_stale(s, &w->large, layers), 1); // narrow read nothing yet
	read_tokens(s, ids + 2, 2);
	assert_int_equal(sequence_stale(s, &w->large, layers), 2);
	assert_int_equal(layers[0], 0);
	assert_int_equal(layers[1], 1);
	assert_int_equal(sequence_stale(s, &w->narrow, layers), 1); // its channels were all read
	assert_int_equal(layers[0], 1);
}

static void a_fork_goes_its_own_way(void **state)
{
	struct world *w = *state;
	struct sequence *s = &w->sequence, copy, small;
	struct error err = {0};
	float conv;

	use(s, &w->large);
	read_tokens(s, ids, 4);
	conv = s->layers[0].conv[0];
	assert_int_equal(
		sequence_open(&copy, &config, &memory_backend, &w->device, DTYPE_F32, 16, &err), 0);
	assert_int_equal(sequence_fork(&copy, s, &err), 0);
	use(&copy, &w->skipping);
	read_tokens(&copy, ids + 4, 3);
	assert_int_equal(s->n_tokens, 4);
	assert_true(s->layers[0].conv[0] == conv);
	assert_int_equal(copy.n_tokens, 7);
	assert_int_equal(copy.layers[1].rows, 4);
	assert_memory_equal(copy.layers[1].k, s->layers[1].k, 4 * 2 * sizeof(float));
	assert_memory_equal(copy.layers[1].v, s->layers[1].v, 4 * 2 * sizeof(float));
	assert_ptr_equal(sequence_slice(s), &w->large);
	assert_int_equal(
		sequence_open(&small, &config, &memory_backend, &w->device, DTYPE_F32, 3, &err), 0);
	assert_int_equal(sequence_fork(&small, s, &err), -1);
	assert_string_equal(err.text, "fork: 4 tokens do not fit a context of 3");
	sequence_close(&small);
	// snapshots come along and are its own
	assert_int_equal(sequence_snapshot(s, &err), 0);
	read_tokens(s, ids + 4, 2);
	assert_int_equal(sequence_fork(&copy, s, &err), 0);
	sequence_reset(s);
	assert_int_equal(sequence_reusable(&copy, ids, 5, &w->large, true), 4);
	assert_int_equal(sequence_rewind(&copy, 4, &err), 0);
	assert_true(copy.layers[0].conv[0] == conv);
	assert_int_equal(copy.layers[1].rows, 4);
	sequence_close(&copy);
}

/* There is always a state that is N to N + ceil(N/2) - 1 tokens old, and no more than three. */
static void rolling_snapshots_follow(void **state)
{
	struct world *w = *state;
	struct sequence *s = &w->sequence;
	struct error err = {0};

	for (int repair = 1; repair <= 6; repair++) {
		int step = sequence_roll_step(repair);
		sequence_reset(s);
		use(s, &w->large);
		for (int n = 1; n <= 14; n++) {
			read_tokens(s, ids + n - 1, 1);
			assert_int_equal(sequence_roll(s, repair, &err), 0);
			int found = sequence_reusable(s, ids, n - repair, &w->narrow, false);
			if (n >= repair + step)
				assert_in_range(n - found, repair, repair + step - 1);
		}
		int taken = 0;
		for (int i = 0; i < MAX_SNAPSHOTS; i++)
			taken += s->snapshots[i].n_tokens > 0;
		assert_int_equal(taken, 14 / step < N_ROLLING ? 14 / step : N_ROLLING);
	}
	assert_int_equal(sequence_roll(s, 0, &err), 0); // no repair, nothing rolls
}

static void memory_may_run_out(void **state)
{
	struct world *w = *state;
	struct sequence *s = &w->sequence, other;
	struct error err = {0};
	int blocks = w->device.blocks;

	for (int room = 0; room < 5; room++) {
		w->device.room = room;
		assert_int_equal(
			sequence_open(&other, &config, &memory_backend, &w->device, DTYPE_BF16, 8, &err), -1);
		assert_int_equal(w->device.blocks, blocks);
	}
	w->device.room = 0;
	use(s, &w->large);
	read_tokens(s, ids, 4);
	assert_int_equal(sequence_snapshot(s, &err), -1);
	assert_int_equal(s->n_tokens, 4);
	assert_int_equal(sequence_reusable(s, ids, 5, &w->large, true), 4);
	w->device.room = 100;
	assert_int_equal(sequence_snapshot(s, &err), 0);
	assert_int_equal(
		sequence_open(&other, &config, &memory_backend, &w->device, DTYPE_F32, 0, &err), -1);
	assert_string_equal(err.text, "a context of 0 tokens: expected at least 1");
	assert_int_equal(
		sequence_open(&other, &config, &memory_backend, &w->device, DTYPE_F16, 1, &err), -1);
}

static size_t counted(const struct sequence *s)
{
	return s->bytes.kv + s->bytes.conv + s->bytes.ssm + s->bytes.snapshots;
}

/* What a sequence says it takes is what the device gave: snapshots, copies and failures included.
 */
static void bytes_are_those_of_the_device(void **state)
{
	struct world *w = *state;
	struct sequence *s = &w->sequence, fork;
	struct error err = {0};
	assert_int_equal(counted(s), w->device.bytes);
	assert_int_equal(s->bytes.kv, 2 * 64 * 2 * sizeof(float) + sizeof(int32_t));
	use(s, &w->large);
	for (int i = 0; i < 8; i++) {
		read_tokens(s, &ids[i], 1);
		assert_int_equal(i < 6 ? sequence_snapshot(s, &err) : sequence_roll(s, 4, &err), 0);
		assert_int_equal(counted(s), w->device.bytes);
	}
	assert_true(s->bytes.snapshots > 0);
	assert_int_equal(
		sequence_open(&fork, &config, &memory_backend, &w->device, DTYPE_F32, 64, &err), 0);
	w->device.room = 0; // not enough for a snapshot
	assert_int_equal(sequence_fork(&fork, s, &err), -1);
	assert_int_equal(counted(s) + counted(&fork), w->device.bytes);
	w->device.room = 100;
	assert_int_equal(sequence_fork(&fork, s, &err), 0);
	assert_int_equal(counted(s) + counted(&fork), w->device.bytes);
	sequence_close(&fork);
	assert_int_equal(counted(s), w->device.bytes);
}

static void handoffs_have_names(void **state)
{
	(void)state;
	assert_int_equal(handoff_find("carry"), HANDOFF_CARRY);
	assert_int_equal(handoff_find("reprefill"), HANDOFF_REPREFILL);
	assert_int_equal(handoff_find("Carry"), -1);
	assert_int_equal(handoff_find("repair"), -1); // of how many tokens?
	assert_string_equal(handoff_name(HANDOFF_CARRY), "carry");
}

#define WITH_WORLD(test) cmocka_unit_test_setup_teardown(test, open_world, close_world)

int main(void)
{
	const struct CMUnitTest tests[] = {
		WITH_WORLD(runs_say_who_read_what),
		WITH_WORLD(strangers_are_refused),
		WITH_WORLD(what_can_be_kept),
		WITH_WORLD(going_back_restores_the_state),
		WITH_WORLD(the_least_recently_used_snapshot_goes),
		WITH_WORLD(snapshots_without_room_lie_on_the_host),
		WITH_WORLD(stale_is_what_an_earlier_run_left_out),
		WITH_WORLD(a_fork_goes_its_own_way),
		WITH_WORLD(rolling_snapshots_follow),
		WITH_WORLD(memory_may_run_out),
		WITH_WORLD(bytes_are_those_of_the_device),
		cmocka_unit_test(handoffs_have_names),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
