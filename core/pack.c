#include "core/pack.h"
#include "base/hash.h"
#include "base/memory.h"
#include "core/module.h"
#include <stdlib.h>

#define ALIGNMENT 256

static uint64_t aligned(uint64_t bytes)
{
	return (bytes + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
}

static uint64_t data_bytes(const struct matrix *m)
{
	return aligned(dtype_span_bytes(m->dtype, (size_t)m->n_rows * (size_t)m->n_columns));
}

static uint64_t scale_bytes(const struct matrix *m)
{
	return m->scales ? aligned((uint64_t)m->n_rows * (uint64_t)m->n_columns / NVFP4_BLOCK) : 0;
}

static struct packed *slot_of(const struct pack *pack, const void *host)
{
	size_t i = (size_t)hash_mix((uintptr_t)host) & (pack->n_slots - 1);
	while (pack->table[i].host && pack->table[i].host != host)
		i = (i + 1) & (pack->n_slots - 1);
	return &pack->table[i];
}

/* ---- what it takes ---- */

struct size {
	uint64_t bytes;
	size_t n;
};

static void add(void *user, const struct module *module)
{
	struct size *size = user;
	size->bytes += data_bytes(module->matrix) + scale_bytes(module->matrix);
	size->n++;
}

uint64_t pack_bytes(const struct slice *plan)
{
	struct size size = {0};
	modules_each(plan, add, &size);
	return size.bytes;
}

/* ---- packing ---- */

struct packing {
	struct pack *pack;
	const struct upload *upload;
	uint64_t used, done;
	struct span_list bytes; // of the columns of one matrix
	bool failed;
	struct error *err;
};

/* The kept rows of m (scales: of its scales) to `to`. */
static int gather(struct packing *p, const struct matrix *m, bool scales, void *to)
{
	p->bytes.n = 0;
	for (int i = 0; i < m->n_column_spans; i++) {
		struct span s = m->columns[i];
		int start =
			scales ? s.start / NVFP4_BLOCK : (int)dtype_span_bytes(m->dtype, (size_t)s.start);
		int length =
			scales ? s.length / NVFP4_BLOCK : (int)dtype_span_bytes(m->dtype, (size_t)s.length);
		if (span_list_add(&p->bytes, start, length, p->err))
			return -1;
	}
	struct portion portion = {
		.host = scales ? (const void *)m->scales : m->data,
		.stride = scales ? (size_t)m->stride / NVFP4_BLOCK
						 : dtype_span_bytes(m->dtype, (size_t)m->stride),
		.rows = m->rows,
		.bytes = p->bytes.spans,
		.n_rows = m->n_row_spans,
		.n_bytes = (int)p->bytes.n,
	};
	return p->pack->backend->gather(p->pack->device, to, &portion, p->err);
}

static void pack_matrix(void *user, const struct module *module)
{
	struct packing *p = user;
	struct pack *pack = p->pack;
	const struct matrix *m = module->matrix;
	if (p->failed)
		return;
	struct packed *packed = slot_of(pack, m->data);
	*packed = (struct packed){.host = m->data,
							  .data = pack->memory + p->used,
							  .rows = m->rows,
							  .columns = m->columns,
							  .n_row_spans = m->n_row_spans,
							  .n_column_spans = m->n_column_spans,
							  .stride = m->n_columns};
	void *scales = pack->memory + p->used + data_bytes(m);
	packed->scales = m->scales ? scales : NULL;
	p->failed = upload_step(p->upload, pack->plan.budget.name, p->used, pack->bytes, p->err) ||
				gather(p, m, false, pack->memory + p->used) ||
				(m->scales && gather(p, m, true, scales));
	p->used += data_bytes(m) + scale_bytes(m);
}

static int pack_all(struct pack *pack, const struct upload *upload, struct error *err)
{
	struct size size = {0};
	modules_each(&pack->plan, add, &size);
	pack->bytes = size.bytes;
	for (pack->n_slots = 64; pack->n_slots < 2 * size.n;)
		pack->n_slots *= 2;
	pack->table = mem_new(pack->n_slots, sizeof *pack->table, err);
	pack->memory = pack->table ? pack->backend->alloc(pack->device, pack->bytes, err) : NULL;
	if (!pack->memory)
		return -1;
	struct packing packing = {.pack = pack, .upload = upload, .err = err};
	modules_each(&pack->plan, pack_matrix, &packing);
	free(packing.bytes.spans);
	return packing.failed
			   ? -1
			   : upload_step(upload, pack->plan.budget.name, pack->bytes, pack->bytes, err);
}

int pack_open(struct pack *pack, struct slice *plan, const struct upload *upload, struct error *err)
{
	*pack = (struct pack){.plan = *plan, .backend = upload->backend, .device = upload->device};
	*plan = (struct slice){0};
	if (pack_all(pack, upload, err) == 0)
		return 0;
	pack_close(pack);
	return -1;
}

void pack_close(struct pack *pack)
{
	if (pack->memory)
		pack->backend->release(pack->device, pack->memory);
	free(pack->table);
	slice_free(&pack->plan);
	*pack = (struct pack){0};
}

/* ---- looking ---- */

bool spans_within(const struct span *base, int n_base, const struct span *spans, int n,
				  struct span_list *out)
{
	int at = 0; // packed channels before base[k]
	for (int i = 0, k = 0; i < n; i++)
		for (int start = spans[i].start, end = start + spans[i].length; start < end;) {
			while (k < n_base && base[k].start + base[k].length <= start)
				at += base[k++].length;
			if (k == n_base || base[k].start > start)
				return false;
			int stop = base[k].start + base[k].length;
			stop = stop < end ? stop : end;
			if (out && span_list_add(out, at + start - base[k].start, stop - start, NULL))
				return false;
			start = stop;
		}
	return true;
}

const struct packed *pack_find(const struct pack *pack, const void *host)
{
	const struct packed *packed = pack->n_slots ? slot_of(pack, host) : NULL;
	return packed && packed->host ? packed : NULL;
}

struct looking {
	const struct pack *pack;
	bool all;
};

static void look(void *user, const struct module *module)
{
	struct looking *l = user;
	const struct matrix *m = module->matrix;
	const struct packed *p = l->all ? pack_find(l->pack, m->data) : NULL;
	l->all = p && spans_within(p->rows, p->n_row_spans, m->rows, m->n_row_spans, NULL) &&
			 spans_within(p->columns, p->n_column_spans, m->columns, m->n_column_spans, NULL);
}

bool pack_holds(const struct pack *pack, const struct slice *plan)
{
	struct looking looking = {pack, pack->memory != NULL};
	modules_each(plan, look, &looking);
	return looking.all;
}
