/* A lane with another budget's experts (struct routing): stored indices to the slice's packed ones.
 */
#include "base/memory.h"
#include "core/workspace.h"
#include <stdlib.h>

int routing_top_k(const struct routing *routing, const struct moe_slice *moe)
{
	return routing->top_k < moe->n_experts ? routing->top_k : moe->n_experts;
}

/* Packed index of a stored expert, -1 = the slice lacks it. */
static int packed_expert(const struct moe_slice *moe, int32_t stored)
{
	int low = 0, high = moe->n_experts; // moe->expert ascends

	while (low < high) {
		int middle = (low + high) / 2;
		if (moe->expert[middle] < stored)
			low = middle + 1;
		else
			high = middle;
	}
	return low < moe->n_experts && moe->expert[low] == stored ? low : -1;
}

/* Puts id into the n ascending ones, unless it is there. Returns how many there are. */
static int insert(int32_t *ids, int n, int32_t id)
{
	int at = n;

	while (at > 0 && ids[at - 1] > id)
		at--;
	if (at > 0 && ids[at - 1] == id)
		return n;
	for (int i = n; i > at; i--)
		ids[i] = ids[i - 1];
	ids[at] = id;
	return n + 1;
}

/* One layer's rows. Returns whether any expert was chosen there. */
static bool translate(int32_t *to, const int32_t *from, int n, const struct routing *routing,
					  const struct moe_slice *moe)
{
	int top_k = routing->top_k, width = routing_top_k(routing, moe);
	bool any = false;

	for (int t = 0; t < n; t++, from += top_k, to += width) {
		int kept = 0;
		for (int k = 0; k < top_k; k++) {
			int packed = from[k] < 0 ? -1 : packed_expert(moe, from[k]);
			any = any || from[k] >= 0;
			if (packed >= 0)
				kept = insert(to, kept, packed);
		}
		for (; kept < width; kept++)
			to[kept] = -1;
	}
	return any;
}

static int room_for(struct workspace *w, struct lane_room *room, int n_layers, struct error *err)
{
	size_t values = (size_t)n_layers * (size_t)w->max_tokens * (size_t)w->room.top_k;

	if (room->given_layers >= n_layers)
		return 0;
	w->backend->release(w->device, room->given);
	free(room->given_rows);
	free(room->is_given);
	room->given_layers = 0;
	room->given = w->backend->alloc(w->device, values * sizeof *room->given, err);
	room->given_rows = mem_new(values, sizeof *room->given_rows, err);
	room->is_given = mem_new((size_t)n_layers, 1, err);
	if (!room->given || !room->given_rows || !room->is_given)
		return -1;
	room->given_layers = n_layers;
	return 0;
}

static size_t layer_at(const struct workspace *w, int layer)
{
	return (size_t)layer * (size_t)w->max_tokens * (size_t)w->room.top_k;
}

int routing_open(struct workspace *w, struct lane_room *room, const struct lane *lane,
				 struct error *err)
{
	const struct slice *slice = sequence_slice(lane->sequence);
	const struct routing *routing = lane->routing;
	int n_layers = slice->config->n_layers, n = lane->n_tokens;
	size_t rows = (size_t)n * (size_t)routing->top_k;

	if (routing->top_k < 1 || routing->top_k > w->room.top_k)
		return fail(err, "a routing of %d experts a token: the workspace has room for %d",
					routing->top_k, (int)w->room.top_k);
	if (room_for(w, room, n_layers, err))
		return -1;
	for (int i = 0; i < n_layers; i++) {
		const struct layer_slice *layer = &slice->layers[i];
		room->is_given[i] = layer->keep && layer->kind == LAYER_MOE &&
							translate(room->given_rows + layer_at(w, i),
									  routing->ids + rows * (size_t)i, n, routing, &layer->moe);
	}
	w->backend->upload(w->device, room->given, room->given_rows,
					   layer_at(w, n_layers) * sizeof *room->given);
	return 0;
}

const int32_t *routing_given(const struct workspace *w, const struct lane_room *room,
							 const struct lane *lane, int layer)
{
	return lane->routing && room->is_given[layer] ? room->given + layer_at(w, layer) : NULL;
}
