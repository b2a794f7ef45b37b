#include "core/kept.h"

#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

#define BLOCK_BYTES ((size_t)64 << 10)

void *plan_take(struct builder *b, bool on_device, size_t bytes)
{
	struct slice *slice = b->slice;
	on_device = on_device && slice->backend;
	struct slice_memory *memory = on_device ? &slice->lists : &slice->host;
	bytes = (bytes + 63) & ~(size_t)63;
	if (memory->size - memory->used < bytes) {
		size_t size = bytes > BLOCK_BYTES ? bytes : BLOCK_BYTES;
		if (mem_grow(&memory->blocks, &memory->capacity, memory->n_blocks + 1, sizeof(void *),
					 b->err) < 0)
			return NULL;
		void *block = on_device ? slice->backend->alloc(slice->device, size, b->err)
								: mem_new_aligned(size, 1, b->err);
		if (!block)
			return NULL;
		memory->blocks[memory->n_blocks++] = block;
		memory->size = size;
		memory->used = 0;
	}
	char *block = memory->blocks[memory->n_blocks - 1];
	void *out = block + memory->used;
	memory->used += bytes;
	return out;
}

const void *plan_put(struct builder *b, const void *from, size_t bytes)
{
	void *to = plan_take(b, true, bytes);
	if (to && b->slice->backend)
		b->slice->backend->upload(b->slice->device, to, from, bytes);
	else if (to)
		memcpy(to, from, bytes);
	return to;
}

int64_t kept_end(struct kept kept)
{
	return kept.n ? (int64_t)kept.spans[kept.n - 1].start + kept.spans[kept.n - 1].length : 0;
}

int keep_list(struct builder *b, struct span_list *list, struct kept *out)
{
	struct span *spans = plan_take(b, false, (list->n ? list->n : 1) * sizeof *spans);
	*out = (struct kept){.spans = spans, .n = (int)list->n};
	for (size_t i = 0; spans && i < list->n; i++) {
		spans[i] = list->spans[i];
		out->total += spans[i].length;
	}
	if (spans)
		out->on_device = plan_put(b, spans, (list->n ? list->n : 1) * sizeof *spans);
	free(list->spans);
	*list = (struct span_list){0};
	return out->on_device ? 0 : -1;
}

int keep_axis(struct builder *b, enum axis axis, struct kept *out)
{
	struct span_list list = {0};
	if (budget_spans(&b->slice->budget, b->config, axis, b->layer < 0 ? 0 : b->layer, &list,
					 b->err) < 0) {
		free(list.spans);
		return -1;
	}
	return keep_list(b, &list, out);
}

int keep_nested(struct builder *b, struct span_list *list, int from, struct kept units,
				struct kept inside, int stride)
{
	for (int u = 0; u < units.n; u++) {
		struct span span = units.spans[u];
		for (int unit = span.start; unit < span.start + span.length; unit++) {
			for (int i = 0; i < inside.n; i++)
				if (span_list_add(list, from + unit * stride + inside.spans[i].start,
								  inside.spans[i].length, b->err) < 0)
					return -1;
		}
	}
	return 0;
}

int keep_all(struct builder *b, int n, struct kept *out)
{
	struct span_list list = {0};
	return span_list_add(&list, 0, n, b->err) < 0 ? -1 : keep_list(b, &list, out);
}

int keep_units(struct builder *b, struct kept units, int stride, struct kept *out)
{
	struct span_list list = {0};
	struct span whole = {0, stride};
	struct kept inside = {.spans = &whole, .n = 1, .total = stride};
	if (keep_nested(b, &list, 0, units, inside, stride) < 0) {
		free(list.spans);
		return -1;
	}
	return keep_list(b, &list, out);
}

int32_t *kept_indices(struct builder *b, struct kept kept)
{
	int32_t *list = mem_new((size_t)kept.total, sizeof *list, b->err);
	for (int s = 0, n = 0; list && s < kept.n; s++)
		for (int i = 0; i < kept.spans[s].length; i++)
			list[n++] = kept.spans[s].start + i;
	return list;
}

const int32_t *kept_put(struct builder *b, struct kept kept, bool on_device)
{
	int32_t *list = kept_indices(b, kept);
	size_t bytes = (size_t)kept.total * sizeof *list;
	const void *out = NULL;
	if (list && on_device) {
		out = plan_put(b, list, bytes);
	} else if (list) {
		void *to = plan_take(b, false, bytes);
		out = to ? memcpy(to, list, bytes) : NULL;
	}
	free(list);
	return out;
}
