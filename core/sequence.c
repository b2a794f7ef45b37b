#include "core/sequence.h"
#include "base/memory.h"
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const handoff_names[] = {"reprefill", "carry", "repair"};

const char *handoff_name(enum handoff handoff)
{
	return handoff_names[handoff];
}

int handoff_find(const char *name)
{
	for (int i = 0; i < HANDOFF_REPAIR; i++)
		if (!strcmp(name, handoff_names[i]))
			return i;
	return -1;
}

int handoff_parse(const char *text, enum handoff *handoff, int *repair, struct error *err)
{
	static const char prefix[] = "repair:";
	int found = handoff_find(text);
	if (!strncmp(text, prefix, sizeof prefix - 1)) {
		const char *digits = text + sizeof prefix - 1;
		char *end;
		long n = strtol(digits, &end, 10);
		if (*digits < '0' || *digits > '9' || *end || n < 1 || n > HANDOFF_MAX_REPAIR)
			return fail(err, "'%s': expected repair:N with N from 1 to %d", text,
						HANDOFF_MAX_REPAIR);
		*handoff = HANDOFF_REPAIR;
		*repair = (int)n;
		return 0;
	}
	if (found < 0)
		return fail(err, "'%s': expected reprefill, carry or repair:N", text);
	*handoff = (enum handoff)found;
	*repair = 0;
	return 0;
}

void handoff_write(enum handoff handoff, int repair, char out[HANDOFF_TEXT_BYTES])
{
	if (handoff == HANDOFF_REPAIR)
		snprintf(out, HANDOFF_TEXT_BYTES, "repair:%d", repair);
	else
		snprintf(out, HANDOFF_TEXT_BYTES, "%s", handoff_name(handoff));
}

static const struct {
	enum dtype dtype;
	const char *name;
} kv_formats[] = {{DTYPE_F32, "f32"}, {DTYPE_BF16, "bf16"}, {DTYPE_F8_E4M3, "fp8"}};
enum { N_KV_FORMATS = sizeof kv_formats / sizeof kv_formats[0] };

const char *kv_name(enum dtype dtype)
{
	for (int i = 0; i < N_KV_FORMATS; i++)
		if (kv_formats[i].dtype == dtype)
			return kv_formats[i].name;
	return "?";
}

int kv_find(const char *name)
{
	for (int i = 0; i < N_KV_FORMATS; i++)
		if (!strcmp(name, kv_formats[i].name))
			return (int)kv_formats[i].dtype;
	return -1;
}

/* Sizes of one layer's state, bytes at the parent's full width. */
static size_t conv_bytes(const struct config *config)
{
	return (size_t)(config->conv_kernel - 1) * (size_t)config_conv_channels(config) * sizeof(float);
}

static size_t ssm_bytes(const struct config *config)
{
	return (size_t)config_inner(config) * (size_t)config->ssm_state_size * sizeof(float);
}

static size_t kv_row_bytes(const struct config *config, enum dtype dtype)
{
	return (size_t)config->num_key_value_heads * (size_t)config->head_dim * dtype_bytes(dtype);
}

static bool is_mamba(const struct sequence *sequence, int layer)
{
	return sequence->config->kinds[layer] == LAYER_MAMBA;
}

static bool is_attention(const struct sequence *sequence, int layer)
{
	return sequence->config->kinds[layer] == LAYER_ATTENTION;
}

/* Device memory for a state; counts it. */
static void *state_new(struct sequence *sequence, size_t bytes, uint64_t *count, struct error *err)
{
	void *memory = sequence->backend->alloc(sequence->device, bytes, err);
	if (memory)
		*count += bytes;
	return memory;
}

static int layer_open(struct sequence *sequence, int layer, struct error *err)
{
	struct layer_state *state = &sequence->layers[layer];
	const struct config *config = sequence->config;
	struct sequence_bytes *bytes = &sequence->bytes;
	size_t kv;

	if (is_mamba(sequence, layer)) {
		state->conv = state_new(sequence, conv_bytes(config), &bytes->conv, err);
		state->ssm = state_new(sequence, ssm_bytes(config), &bytes->ssm, err);
		return state->conv && state->ssm ? 0 : -1;
	}
	if (is_attention(sequence, layer)) {
		if (!mem_multiply((size_t)sequence->capacity, kv_row_bytes(config, sequence->kv_dtype),
						  &kv))
			return fail(err, "a context of %d tokens: the KV cache does not fit the address space",
						sequence->capacity);
		state->k = state_new(sequence, kv, &bytes->kv, err);
		state->v = state_new(sequence, kv, &bytes->kv, err);
		state->length = state_new(sequence, sizeof *state->length, &bytes->kv, err);
		return state->k && state->v && state->length ? 0 : -1;
	}
	return 0;
}

int sequence_open(struct sequence *sequence, const struct config *config,
				  const struct backend *backend, struct device *device, enum dtype kv_dtype,
				  int capacity, struct error *err)
{
	*sequence = (struct sequence){.config = config,
								  .backend = backend,
								  .device = device,
								  .capacity = capacity,
								  .kv_dtype = kv_dtype};
	if (capacity < 1)
		return fail(err, "a context of %d tokens: expected at least 1", capacity);
	if (kv_find(kv_name(kv_dtype)) < 0)
		return fail(err, "KV cache in %s: expected F32, BF16 or F8_E4M3", dtype_name(kv_dtype));
	sequence->tokens = mem_new((size_t)capacity, sizeof *sequence->tokens, err);
	sequence->layers = mem_new((size_t)config->n_layers, sizeof *sequence->layers, err);
	if (!sequence->tokens || !sequence->layers)
		goto out;
	for (int i = 0; i < config->n_layers; i++)
		if (layer_open(sequence, i, err))
			goto out;
	return 0;
out:
	sequence_close(sequence);
	return -1;
}

void sequence_close(struct sequence *sequence)
{
	if (!sequence->config)
		return;
	for (int i = 0; i < MAX_SNAPSHOTS; i++)
		snapshot_release(sequence, &sequence->snapshots[i]);
	for (int i = 0; sequence->layers && i < sequence->config->n_layers; i++) {
		struct layer_state *state = &sequence->layers[i];
		sequence->backend->release(sequence->device, state->conv);
		sequence->backend->release(sequence->device, state->ssm);
		sequence->backend->release(sequence->device, state->k);
		sequence->backend->release(sequence->device, state->v);
		sequence->backend->release(sequence->device, state->length);
	}
	free(sequence->layers);
	free(sequence->tokens);
	free(sequence->runs);
	*sequence = (struct sequence){0};
}

/* Sets an attention layer's KV length on both sides. */
static void set_rows(struct sequence *sequence, struct layer_state *state, int32_t rows)
{
	state->rows = rows;
	sequence->backend->upload(sequence->device, state->length, &rows, sizeof rows);
}

void sequence_reset(struct sequence *sequence)
{
	for (int i = 0; i < sequence->config->n_layers; i++) {
		struct layer_state *state = &sequence->layers[i];
		if (is_mamba(sequence, i)) {
			sequence->backend->zero(sequence->device, state->conv, conv_bytes(sequence->config));
			sequence->backend->zero(sequence->device, state->ssm, ssm_bytes(sequence->config));
		} else if (is_attention(sequence, i)) {
			set_rows(sequence, state, 0);
		}
	}
	for (int i = 0; i < MAX_SNAPSHOTS; i++)
		sequence->snapshots[i].n_tokens = 0;
	sequence->n_tokens = 0;
	sequence->n_runs = 0;
}

const struct slice *sequence_slice(const struct sequence *sequence)
{
	return sequence->n_runs ? sequence->runs[sequence->n_runs - 1].slice : NULL;
}

int runs_below(const struct sequence_run *runs, int n_runs, int n_tokens)
{
	while (n_runs && runs[n_runs - 1].from >= n_tokens)
		n_runs--;
	return n_runs;
}

int sequence_use(struct sequence *sequence, const struct slice *slice, struct error *err)
{
	struct sequence_run *last;

	if (slice->config != sequence->config)
		return fail(err, "budget %s: it belongs to another model than the sequence",
					slice->budget.name);
	if (slice->backend != sequence->backend || slice->device != sequence->device)
		return fail(err, "budget %s: its slice was built for another device than the sequence's",
					slice->budget.name);
	if (sequence_slice(sequence) == slice)
		return 0;
	if (mem_grow(&sequence->runs, &sequence->runs_capacity, (size_t)sequence->n_runs + 1,
				 sizeof *sequence->runs, err))
		return -1;
	last = sequence->n_runs ? &sequence->runs[sequence->n_runs - 1] : NULL;
	if (last && last->from == sequence->n_tokens)
		sequence->n_runs--; // it read nothing
	if (sequence_slice(sequence) != slice)
		sequence->runs[sequence->n_runs++] = (struct sequence_run){sequence->n_tokens, slice};
	return 0;
}

void sequence_advance(struct sequence *sequence, const int32_t *tokens, int n)
{
	const struct slice *slice = sequence_slice(sequence);

	assert(slice && n <= sequence->capacity - sequence->n_tokens);
	memmove(sequence->tokens + sequence->n_tokens, tokens, (size_t)n * sizeof *tokens);
	sequence->n_tokens += n;
	for (int i = 0; i < sequence->config->n_layers; i++)
		if (is_attention(sequence, i) && slice->layers[i].keep)
			sequence->layers[i].rows += n;
}

/* ---- snapshots ---- */

/* The one at n_tokens, else a free one, else the least recently used. */
static struct snapshot *snapshot_place(struct sequence *sequence, int n_tokens, bool rolling)
{
	const int first = rolling ? MAX_SNAPSHOTS - N_ROLLING : 0;
	const int end = rolling ? MAX_SNAPSHOTS : MAX_SNAPSHOTS - N_ROLLING;
	struct snapshot *best = &sequence->snapshots[first];

	for (int i = first; i < end; i++)
		if (sequence->snapshots[i].n_tokens == n_tokens)
			return &sequence->snapshots[i];
	for (int i = first; i < end; i++) {
		struct snapshot *snapshot = &sequence->snapshots[i];
		if (!snapshot->n_tokens)
			return snapshot;
		if (snapshot->used < best->used)
			best = snapshot;
	}
	return best;
}

static int take_snapshot(struct sequence *sequence, bool rolling, struct error *err)
{
	struct snapshot *to = snapshot_place(sequence, sequence->n_tokens, rolling);

	if (!sequence->n_tokens)
		return 0;
	to->used = ++sequence->clock;
	if (to->n_tokens == sequence->n_tokens)
		return 0; // rewinding drops what lies above, so this is the same state
	return snapshot_take(sequence, to, NULL, err);
}

int sequence_snapshot(struct sequence *sequence, struct error *err)
{
	return take_snapshot(sequence, false, err);
}

int sequence_roll_step(int repair)
{
	return (repair + 1) / 2;
}

int sequence_roll(struct sequence *sequence, int repair, struct error *err)
{
	return repair > 0 && sequence->n_tokens % sequence_roll_step(repair) == 0
			   ? take_snapshot(sequence, true, err)
			   : 0;
}

static bool read_by(const struct sequence_run *runs, int n_runs, const struct slice *slice)
{
	for (int i = 0; i < n_runs; i++)
		if (runs[i].slice != slice)
			return false;
	return true;
}

int sequence_reusable(const struct sequence *sequence, const int32_t *ids, int n,
					  const struct slice *slice, bool exact)
{
	int live = sequence->n_tokens, common = 0, best = 0;

	while (common < n && common < live && ids[common] == sequence->tokens[common])
		common++;
	if (common == live &&
		(!exact ||
		 read_by(sequence->runs, runs_below(sequence->runs, sequence->n_runs, live), slice)))
		return live;
	for (int i = 0; i < MAX_SNAPSHOTS; i++) {
		const struct snapshot *snapshot = &sequence->snapshots[i];
		if (snapshot->n_tokens > best && snapshot->n_tokens <= common &&
			(!exact || read_by(snapshot->runs, snapshot->n_runs, slice)))
			best = snapshot->n_tokens;
	}
	return best;
}

/* Puts a snapshot's state in place of the live one. */
static void put_back(struct sequence *sequence, struct snapshot *from)
{
	for (int i = 0; i < sequence->config->n_layers; i++)
		if (is_attention(sequence, i))
			set_rows(sequence, &sequence->layers[i], from->rows[i]);
	snapshot_restore(sequence, from);
	memcpy(sequence->runs, from->runs, (size_t)from->n_runs * sizeof *from->runs);
	sequence->n_runs = from->n_runs;
	sequence->n_tokens = from->n_tokens;
	from->used = ++sequence->clock;
}

int sequence_rewind(struct sequence *sequence, int n_tokens, struct error *err)
{
	const struct slice *running = sequence_slice(sequence);
	struct snapshot *from = NULL;

	if (n_tokens == sequence->n_tokens)
		return 0;
	if (!n_tokens) {
		sequence_reset(sequence);
		return running ? sequence_use(sequence, running, err) : 0;
	}
	for (int i = 0; i < MAX_SNAPSHOTS; i++)
		if (sequence->snapshots[i].n_tokens == n_tokens)
			from = &sequence->snapshots[i];
	if (!from)
		return fail(err, "no snapshot at %d tokens: the sequence cannot go back there", n_tokens);
	// room for the runs of the snapshot and the one that sequence_use adds
	if (mem_grow(&sequence->runs, &sequence->runs_capacity, (size_t)from->n_runs + 1,
				 sizeof *sequence->runs, err))
		return -1;
	put_back(sequence, from);
	for (int i = 0; i < MAX_SNAPSHOTS; i++)
		if (sequence->snapshots[i].n_tokens > n_tokens)
			sequence->snapshots[i].n_tokens = 0; // the KV rows above will be written again
	return running ? sequence_use(sequence, running, err) : 0;
}

/* ---- who read ---- */

/* Whether every channel of `needed` is among those of `had`; both ascend. */
static bool covers(const struct mamba_slice *had, const struct mamba_slice *needed)
{
	int at = 0;

	for (int i = 0; i < needed->channels; i++) {
		while (at < had->channels && had->host_channel[at] < needed->host_channel[i])
			at++;
		if (at == had->channels || had->host_channel[at] != needed->host_channel[i])
			return false;
	}
	return true;
}

/* Whether what `had` did to a layer's state is all that `needed` uses of it. */
static bool layer_covers(const struct layer_slice *had, const struct layer_slice *needed)
{
	if (!had->keep)
		return false;
	return needed->kind != LAYER_MAMBA || covers(&had->mamba, &needed->mamba); // K, V are never cut
}

int sequence_stale(const struct sequence *sequence, const struct slice *slice, int *layers)
{
	int n = 0, n_runs = runs_below(sequence->runs, sequence->n_runs, sequence->n_tokens);

	for (int i = 0; i < sequence->config->n_layers; i++) {
		bool fresh = true;
		if (!slice->layers[i].keep || !(is_mamba(sequence, i) || is_attention(sequence, i)))
			continue;
		for (int r = 0; r < n_runs && fresh; r++)
			fresh = layer_covers(&sequence->runs[r].slice->layers[i], &slice->layers[i]);
		if (!fresh)
			layers[n++] = i;
	}
	return n;
}

int sequence_fork(struct sequence *to, const struct sequence *from, struct error *err)
{
	const struct config *config = from->config;
	size_t row = kv_row_bytes(config, from->kv_dtype);

	if (to->config != config || to->device != from->device || to->kv_dtype != from->kv_dtype)
		return fail(err, "fork: the copy was opened for another model, device or KV format");
	if (to->capacity < from->n_tokens)
		return fail(err, "fork: %d tokens do not fit a context of %d", from->n_tokens,
					to->capacity);
	if (mem_grow(&to->runs, &to->runs_capacity, (size_t)from->n_runs, sizeof *to->runs, err))
		return -1;
	for (int i = 0; i < MAX_SNAPSHOTS; i++)
		to->snapshots[i].n_tokens = 0;
	for (int i = 0; i < MAX_SNAPSHOTS - N_ROLLING; i++)
		if (from->snapshots[i].n_tokens &&
			snapshot_take(to, &to->snapshots[i], &from->snapshots[i], err))
			return -1;
	for (int i = 0; i < config->n_layers; i++) {
		const struct layer_state *source = &from->layers[i];
		struct layer_state *state = &to->layers[i];
		if (is_mamba(from, i)) {
			to->backend->copy(to->device, state->conv, source->conv, conv_bytes(config));
			to->backend->copy(to->device, state->ssm, source->ssm, ssm_bytes(config));
		} else if (is_attention(from, i)) {
			to->backend->copy(to->device, state->k, source->k, (size_t)source->rows * row);
			to->backend->copy(to->device, state->v, source->v, (size_t)source->rows * row);
			set_rows(to, state, source->rows);
		}
	}
	memcpy(to->tokens, from->tokens, (size_t)from->n_tokens * sizeof *to->tokens);
	if (from->n_runs)
		memcpy(to->runs, from->runs, (size_t)from->n_runs * sizeof *to->runs);
	to->n_tokens = from->n_tokens;
	to->n_runs = from->n_runs;
	return 0;
}
