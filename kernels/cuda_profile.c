#include "kernels/cuda_profile.h"
#include "base/memory.h"
#include "kernels/cuda_blas.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_ROWS 96
#define LIST_NS 4000000 // starting a list of some hundred kernels takes the host less
#define PEAK_SHARE 64   // of the card's memory is read and copied
#define PEAK_BYTES_MAX ((size_t)1 << 30)
#define PRODUCT_RUNS 10

struct mark {
	cudaEvent_t event;
	int row; // of the group that ends here; -1: a list begins
	int n_launches;
};

struct cuda_profile {
	bool on;
	int rows_before; // in every KV cache
	struct mark *marks;
	size_t n_marks, n_events, capacity; // events are made once
	uint64_t n_launches;                // at the last mark
	struct profiled rows[MAX_ROWS];     // the last one: all that found no place
	int n_rows;
};

/* ---- names and work of a group ---- */

static const char *const kinds[] = {
	[CUDA_EMBED] = "embed",         [CUDA_NORM] = "norm",   [CUDA_LINEAR] = "linear",
	[CUDA_CONV] = "conv",           [CUDA_SSM] = "ssm",     [CUDA_GATED_NORM] = "gated norm",
	[CUDA_ATTENTION] = "attention", [CUDA_ROUTE] = "route", [CUDA_EXPERTS] = "experts",
	[CUDA_PICK] = "pick",
};

static struct work work_of(const struct device *device, const struct cuda_list *list,
						   const struct cuda_note *note)
{
	const void *ops = cuda_list_ops(list, note);
	int n = note->n_lanes;
	switch (note->kind) {
	case CUDA_EMBED: return work_embed(ops, n);
	case CUDA_NORM: return work_norm(ops, n);
	case CUDA_LINEAR: return work_linear(ops, n);
	case CUDA_CONV: return work_conv(ops, n);
	case CUDA_SSM: return work_ssm(ops, n);
	case CUDA_GATED_NORM: return work_gated_norm(ops, n);
	case CUDA_ATTENTION:
		return work_attention(ops, n, device->options.kv_dtype, device->profile->rows_before);
	case CUDA_ROUTE: return work_route(ops, n);
	case CUDA_EXPERTS: return work_experts(ops, n);
	case CUDA_PICK: return work_pick(ops, n);
	}
	return (struct work){0, 0};
}

/* The shape that tells groups of the same operations apart: of the matrices, side by side. */
struct outline {
	const struct matrix *matrix;
	int rows; // of all that are as wide
	const struct experts_op *experts;
};

static void outline_add(struct outline *outline, const struct cuda_list *list,
						const struct cuda_note *note)
{
	if (note->kind == CUDA_EXPERTS)
		outline->experts = cuda_list_ops(list, note);
	if (note->kind != CUDA_LINEAR)
		return;
	const struct linear_op *op = cuda_list_ops(list, note);
	if (!outline->matrix)
		outline->matrix = op->w;
	if (op->w->n_columns == outline->matrix->n_columns)
		outline->rows += op->w->n_rows;
}

/* "norm + 3 linear BF16 4608x2688" */
static void name_group(const struct cuda_list *list, size_t from, size_t n,
					   char name[sizeof((struct profiled *)0)->name])
{
	const size_t size = sizeof((struct profiled *)0)->name;
	struct outline outline = {NULL, 0, NULL};
	size_t at = 0;
	name[0] = 0;
	for (size_t i = from, same; i < from + n; i += same) {
		const struct cuda_note *note = &list->notes[i];
		for (same = 0; i + same < from + n && list->notes[i + same].kind == note->kind; same++)
			outline_add(&outline, list, &list->notes[i + same]);
		const char *joint = i > from ? " + " : "";
		if (same > 1)
			snprintf(name + at, size - at, "%s%zu %s", joint, same, kinds[note->kind]);
		else
			snprintf(name + at, size - at, "%s%s", joint, kinds[note->kind]);
		at = strlen(name);
	}
	if (outline.experts)
		snprintf(name + at, size - at, " %s %d/%d %dx%d", dtype_name(outline.experts->up->dtype),
				 outline.experts->top_k, outline.experts->n_experts, outline.experts->ffn,
				 outline.experts->width);
	else if (outline.matrix)
		snprintf(name + at, size - at, " %s %dx%d", dtype_name(outline.matrix->dtype), outline.rows,
				 outline.matrix->n_columns);
}

/* The row of this name, or a new one. */
static int find_row(struct cuda_profile *p, const char *name)
{
	for (int i = 0; i < p->n_rows; i++)
		if (!strcmp(p->rows[i].name, name))
			return i;
	if (p->n_rows == MAX_ROWS)
		return MAX_ROWS - 1;
	p->rows[p->n_rows] = (struct profiled){.n_groups = 0};
	snprintf(p->rows[p->n_rows].name, sizeof p->rows[0].name, "%s",
			 p->n_rows == MAX_ROWS - 1 ? "others" : name);
	return p->n_rows++;
}

/* ---- marks ---- */

static void mark(struct device *device, int row)
{
	struct cuda_profile *p = device->profile;
	struct error err = {0};
	if (mem_grow(&p->marks, &p->capacity, p->n_marks + 1, sizeof *p->marks, &err)) {
		fail(cuda_failure(device), "a profile: %s", err.text);
		return;
	}
	struct mark *m = &p->marks[p->n_marks];
	if (p->n_marks == p->n_events) {
		if (cuda_failed(device, cudaEventCreateWithFlags(&m->event, cudaEventDefault), "an event"))
			return;
		p->n_events++;
	}
	m->row = row;
	m->n_launches = (int)(device->n_launches - p->n_launches);
	p->n_launches = device->n_launches;
	p->n_marks++;
	cuda_failed(device, cudaEventRecord(m->event, device->stream), "an event");
}

bool cuda_profiling(const struct device *device)
{
	return device->profile && device->profile->on;
}

void cuda_profile_list(struct device *device)
{
	if (!cuda_profiling(device))
		return;
	cuda_delay(device, LIST_NS);
	mark(device, -1);
}

void cuda_profile_group(struct device *device, const struct cuda_list *list, size_t from, size_t n)
{
	char name[sizeof((struct profiled *)0)->name];
	if (!cuda_profiling(device) || device->failed)
		return;
	name_group(list, from, n, name);
	int row = find_row(device->profile, name);
	for (size_t i = from; i < from + n; i++) {
		struct work work = work_of(device, list, &list->notes[i]);
		device->profile->rows[row].work.bytes += work.bytes;
		device->profile->rows[row].work.flops += work.flops;
	}
	device->profile->rows[row].n_groups++;
	mark(device, row);
}

void cuda_profile_finish(struct device *device)
{
	struct cuda_profile *p = device->profile;
	if (!cuda_profiling(device))
		return;
	for (size_t i = 1; i < p->n_marks && !device->failed; i++) {
		float ms = 0;
		if (p->marks[i].row < 0)
			continue;
		cuda_failed(device, cudaEventElapsedTime(&ms, p->marks[i - 1].event, p->marks[i].event),
					"timing a pass");
		p->rows[p->marks[i].row].ns += (double)ms * 1e6;
		p->rows[p->marks[i].row].n_launches += p->marks[i].n_launches;
	}
	p->n_marks = 0;
}

void cuda_profile_close(struct device *device)
{
	struct cuda_profile *p = device->profile;
	if (!p)
		return;
	for (size_t i = 0; i < p->n_events; i++)
		cudaEventDestroy(p->marks[i].event);
	free(p->marks);
	free(p);
	device->profile = NULL;
}

/* ---- the table ---- */

static int start(struct device *device, int rows, struct error *err)
{
	if (!device->profile && !(device->profile = mem_new(1, sizeof *device->profile, err)))
		return -1;
	struct cuda_profile *p = device->profile;
	p->on = true;
	p->rows_before = rows;
	p->n_rows = 0;
	p->n_marks = 0;
	p->n_launches = device->n_launches;
	return 0;
}

static int by_time(const void *a, const void *b)
{
	double x = ((const struct profiled *)a)->ns, y = ((const struct profiled *)b)->ns;
	return x < y ? 1 : x > y ? -1 : 0;
}

static const struct profiled *stop(struct device *device, int *n)
{
	struct cuda_profile *p = device->profile;
	p->on = false;
	qsort(p->rows, (size_t)p->n_rows, sizeof *p->rows, by_time);
	*n = p->n_rows;
	return p->rows;
}

/* ---- peaks ---- */

/* Nanoseconds of one of n calls, 0 where they could not be timed. */
static double time_calls(struct device *device, void (*call)(struct device *, void *), void *arg,
						 int n)
{
	cudaEvent_t from = NULL, to = NULL;
	float ms = 0;
	if (cudaEventCreateWithFlags(&from, cudaEventDefault) == cudaSuccess &&
		cudaEventCreateWithFlags(&to, cudaEventDefault) == cudaSuccess) {
		call(device, arg); // warms up
		cudaEventRecord(from, device->stream);
		for (int i = 0; i < n; i++)
			call(device, arg);
		cudaEventRecord(to, device->stream);
		cuda_failed(device, cudaStreamSynchronize(device->stream), "measuring the card's peaks");
		if (cudaEventElapsedTime(&ms, from, to) != cudaSuccess)
			ms = 0;
	}
	if (from)
		cudaEventDestroy(from);
	if (to)
		cudaEventDestroy(to);
	return (double)ms * 1e6 / n;
}

struct room {
	unsigned char *memory;
	size_t bytes;
	int side; // of square matrices
	bool multiplied;
};

static void copy_half(struct device *device, void *arg)
{
	struct room *room = arg;
	cuda_failed(device,
				cudaMemcpyAsync(room->memory, room->memory + room->bytes / 2, room->bytes / 2,
								cudaMemcpyDeviceToDevice, device->stream),
				"a copy");
}

static void multiply(struct device *device, void *arg)
{
	struct room *room = arg;
	size_t each = (size_t)room->side * (size_t)room->side * 2;
	room->multiplied = cuda_blas_multiply(
		device, &(struct blas_product){.type = BLAS_BF16,
									   .w = room->memory,
									   .w_stride = room->side,
									   .x = room->memory + each,
									   .y = (float *)(void *)(room->memory + 2 * each),
									   .y_stride = room->side,
									   .n = room->side,
									   .rows = room->side,
									   .columns = room->side,
									   .scale = 1});
}

static double product_rate(struct device *device, struct room *room)
{
	struct cuda_blas *blas = device->blas;
	double side = room->side;
	if (!blas)
		device->blas = cuda_blas_open(); // exact math has none
	double ns = time_calls(device, multiply, room, PRODUCT_RUNS);
	if (!blas)
		cuda_blas_close(device->blas);
	device->blas = blas;
	return room->multiplied && ns > 0 ? 2 * side * side * side / (ns / 1e9) : 0;
}

static int peaks(struct device *device, struct peaks *out, struct error *err)
{
	struct room room = {.bytes = device->total_bytes / PEAK_SHARE, .side = 128};
	void *memory = NULL;
	*out = (struct peaks){0};
	cuda_flush(device);
	if (room.bytes > PEAK_BYTES_MAX)
		room.bytes = PEAK_BYTES_MAX;
	room.bytes &= ~(size_t)4095;
	while (room.side < 64 * device->n_sms / 2) // a large product: 8192 wide on a large card
		room.side *= 2;
	if (room.bytes < 8 * (size_t)room.side * (size_t)room.side) // two in BF16, one in F32
		return 0;
	cudaError_t error = cudaMalloc(&memory, room.bytes);
	if (error != cudaSuccess) {
		cudaGetLastError();
		return fail(err, "measuring the card's peaks needs %zu MB of it: %s", room.bytes / 1000000,
					cudaGetErrorString(error));
	}
	room.memory = memory;
	cuda_fill_random(device, memory, room.bytes);
	double ns = time_calls(device, copy_half, &room, 5);
	out->copy_bps = ns > 0 ? (double)room.bytes / (ns / 1e9) : 0;
	out->read_bps = cuda_read_rate(device, memory, room.bytes);
	cuda_fill_random(device, memory, room.bytes);
	out->bf16_flops = product_rate(device, &room);
	cuda_failed(device, cudaStreamSynchronize(device->stream), "measuring the card's peaks");
	cudaFree(memory);
	if (!device->failed)
		return 0;
	device->failed = false;
	return fail(err, "%s", device->failure.text);
}

const struct profiler cuda_profiler = {.peaks = peaks, .start = start, .stop = stop};
