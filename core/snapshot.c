#include "core/snapshot.h"
#include "base/memory.h"
#include "core/footprint.h"
#include "core/sequence.h"
#include <stdlib.h>
#include <string.h>

/* All Mamba layers' state. */
static size_t state_bytes(const struct sequence *sequence)
{
	struct state_size size = state_size_of(sequence->config);
	return (size_t)(size.conv_bytes + size.ssm_bytes);
}

/* ---- moving states ---- */

/* From or to the live state of a layer. */
static void move_layer(struct sequence *sequence, const struct snapshot *snapshot, size_t at,
					   float *live, size_t bytes, bool save)
{
	const struct backend *b = sequence->backend;
	unsigned char *state = snapshot->state, *host = snapshot->host;
	if (state && save)
		b->copy(sequence->device, state + at, live, bytes);
	else if (state)
		b->copy(sequence->device, live, state + at, bytes);
	else if (save)
		b->download(sequence->device, host + at, live, bytes);
	else
		b->upload(sequence->device, live, host + at, bytes);
}

static void move_live(struct sequence *sequence, const struct snapshot *snapshot, bool save)
{
	const struct config *config = sequence->config;
	int n = config_layers_of(config, LAYER_MAMBA);
	size_t at = 0;
	for (int i = 0; i < config->n_layers; i++) {
		struct state_size size = state_size_of(config);
		if (config->kinds[i] != LAYER_MAMBA)
			continue;
		size_t conv = (size_t)size.conv_bytes / (size_t)n, ssm = (size_t)size.ssm_bytes / (size_t)n;
		move_layer(sequence, snapshot, at, sequence->layers[i].conv, conv, save);
		move_layer(sequence, snapshot, at + conv, sequence->layers[i].ssm, ssm, save);
		at += conv + ssm;
	}
}

static void move_block(struct sequence *sequence, const struct snapshot *to,
					   const struct snapshot *from)
{
	const struct backend *b = sequence->backend;
	size_t bytes = state_bytes(sequence);
	if (to->state && from->state)
		b->copy(sequence->device, to->state, from->state, bytes);
	else if (to->state && from->host)
		b->upload(sequence->device, to->state, from->host, bytes);
	else if (from->state)
		b->download(sequence->device, to->host, from->state, bytes);
	else if (from->host)
		memcpy(to->host, from->host, bytes);
}

/* ---- where a state lies ---- */

/* On the device, within the room for that: -1 if there is none left. */
static int place_on_device(struct sequence *sequence, struct snapshot *to, struct error *err)
{
	struct snapshot_room *room = sequence->snapshot_room;
	size_t bytes = state_bytes(sequence);
	if (room && (bytes > room->limit_bytes || room->used_bytes > room->limit_bytes - bytes))
		return -1;
	to->state = sequence->backend->alloc(sequence->device, bytes, err);
	if (!to->state)
		return -1;
	sequence->bytes.snapshots += bytes;
	if (room)
		room->used_bytes += bytes;
	return 0;
}

/* Of the others on the device: a free one, or the least recently used. */
static struct snapshot *find_victim(struct sequence *sequence, const struct snapshot *to)
{
	struct snapshot *best = NULL;
	for (int i = 0; i < MAX_SNAPSHOTS; i++) {
		struct snapshot *other = &sequence->snapshots[i];
		if (other == to || !other->state)
			continue;
		if (!best || (best->n_tokens && (!other->n_tokens || other->used < best->used)))
			best = other;
	}
	return best;
}

/* `to` takes over the place of another one, whose state goes to the host, or goes there itself. */
static int place_on_host(struct sequence *sequence, struct snapshot *to, struct error *err)
{
	struct snapshot *victim = find_victim(sequence, to);
	size_t bytes = state_bytes(sequence);
	void *block = to->host;
	if (victim && !victim->n_tokens) {
		to->state = victim->state;
		victim->state = NULL;
		return 0;
	}
	if (!block && !(block = mem_new(bytes, 1, err)))
		return -1;
	to->host = block;
	if (victim) {
		struct snapshot moved = {.host = block};
		move_block(sequence, &moved, victim);
		to->host = NULL;
		to->state = victim->state;
		victim->state = NULL;
		victim->host = block;
	}
	return 0;
}

/* A block for the state, whatever it has. */
static int place(struct sequence *sequence, struct snapshot *to, struct error *err)
{
	if (to->state || !state_bytes(sequence))
		return 0;
	if (place_on_device(sequence, to, err) == 0 || !sequence->snapshot_room)
		return to->state ? 0 : -1;
	return place_on_host(sequence, to, err);
}

/* ---- snapshots ---- */

void snapshot_release(struct sequence *sequence, struct snapshot *snapshot)
{
	if (snapshot->state) {
		size_t bytes = state_bytes(sequence);
		sequence->bytes.snapshots -= bytes;
		if (sequence->snapshot_room)
			sequence->snapshot_room->used_bytes -= bytes;
		sequence->backend->release(sequence->device, snapshot->state);
	}
	free(snapshot->host);
	free(snapshot->rows);
	free(snapshot->runs);
	*snapshot = (struct snapshot){0};
}

/* Everything but the state itself. */
static int describe(struct sequence *sequence, struct snapshot *to, const struct snapshot *from,
					struct error *err)
{
	int n_layers = sequence->config->n_layers;
	int n = from ? from->n_runs : runs_below(sequence->runs, sequence->n_runs, sequence->n_tokens);
	struct sequence_run *runs = mem_new((size_t)n, sizeof *runs, err);
	if (!to->rows)
		to->rows = mem_new((size_t)n_layers, sizeof *to->rows, err);
	if (!runs || !to->rows) {
		free(runs);
		return -1;
	}
	memcpy(runs, from ? from->runs : sequence->runs, (size_t)n * sizeof *runs);
	free(to->runs);
	to->runs = runs;
	to->n_runs = n;
	for (int i = 0; i < n_layers; i++)
		to->rows[i] = from ? from->rows[i] : sequence->layers[i].rows;
	return 0;
}

int snapshot_take(struct sequence *sequence, struct snapshot *to, const struct snapshot *from,
				  struct error *err)
{
	to->n_tokens = 0;
	if (place(sequence, to, err) || describe(sequence, to, from, err)) {
		snapshot_release(sequence, to);
		return -1;
	}
	if (from)
		move_block(sequence, to, from);
	else
		move_live(sequence, to, true);
	if (to->state) { // the newest
		free(to->host);
		to->host = NULL;
	}
	to->used = ++sequence->clock;
	to->n_tokens = from ? from->n_tokens : sequence->n_tokens;
	return 0;
}

void snapshot_restore(struct sequence *sequence, const struct snapshot *from)
{
	move_live(sequence, from, false);
}
