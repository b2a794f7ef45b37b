/*
 * Embedding, RMSNorm and matrix products. A part owns stored rows; for each block of them it serves
 * all lanes and all tokens, so that a weight is read from memory once a call.
 */
#include "kernels/convert.h"
#include "kernels/cpu_device.h"
#include <math.h>

static int stored_row(const struct matrix *m, int id)
{
	const struct span *span = m->rows;
	while (id >= span->length)
		id -= span++->length;
	return span->start + id;
}

void cpu_embed(struct device *device, int n_lanes, const struct embed_op *op)
{
	if (device->failed)
		return;
	for (const struct embed_op *o = op; o < op + n_lanes; o++) {
		const struct matrix *m = o->table;
		float *y = o->y;
		for (int t = 0; t < o->n; t++) {
			if (o->ids[t] < 0 || o->ids[t] >= m->n_rows) {
				fail(device_failure(device), "token id %d, expected 0 to %d", (int)o->ids[t],
					 m->n_rows - 1);
				return;
			}
			int row = stored_row(m, o->ids[t]);
			for (int s = 0; s < m->n_column_spans; s++) {
				matrix_widen(m, row, m->columns[s].start, m->columns[s].length, y);
				y += m->columns[s].length;
			}
		}
	}
}

struct norm_job {
	const struct cpu_rung *rung;
	const struct norm_op *op;
	int n_lanes;
};

static void norm_task(void *argument, int part, int n_parts)
{
	const struct norm_job *job = argument;
	for (const struct norm_op *o = job->op; o < job->op + job->n_lanes; o++) {
		int from, to;
		pool_share(part, n_parts, o->n, 1, &from, &to);
		for (int t = from; t < to; t++) {
			const float *x = o->x + (int64_t)t * o->width;
			float *y = o->y + (int64_t)t * o->width;
			float sum = cpu_sum_of_squares(job->rung, x, o->width);
			float r = o->scale / sqrtf(sum / o->count + o->eps);
			for (int i = 0; i < o->width; i++)
				y[i] = x[i] * r * o->weight[i];
		}
	}
}

void cpu_norm(struct device *device, int n_lanes, const struct norm_op *op)
{
	if (device->failed)
		return;
	double work = 0;
	for (int l = 0; l < n_lanes; l++)
		work += 2.0 * op[l].n * op[l].width;
	struct norm_job job = {device->rung, op, n_lanes};
	device_run(device, op[0].n > 1 ? work : 0, norm_task, &job);
}

struct linear_job {
	const struct cpu_rung *rung;
	const struct linear_op *op;
	const uint16_t *narrow[MAX_LANES]; // x rounded to BF16, or NULL
	const struct matrix *widest;       // whose boundaries divide the rows
	int n_lanes;
};

static void linear_store(const struct linear_op *o, const struct run *run, int first, int n_x,
						 float tile[TILE_TOKENS][TILE_ROWS])
{
	for (int t = 0; t < n_x; t++) {
		float *y = o->y + (int64_t)(first + t) * o->w->n_rows + run->packed;
		const float *v = tile[t];
		switch (o->mode) {
		case LINEAR_SET:
			for (int r = 0; r < run->n; r++)
				y[r] = v[r];
			break;
		case LINEAR_ADD:
			for (int r = 0; r < run->n; r++)
				y[r] += v[r];
			break;
		case LINEAR_RELU2:
			for (int r = 0; r < run->n; r++)
				y[r] = v[r] > 0 ? v[r] * v[r] : 0;
			break;
		}
	}
}

static void linear_run(const struct linear_job *job, int lane, const struct run *run)
{
	const struct linear_op *o = &job->op[lane];
	const uint16_t *narrow = job->narrow[lane];
	float tile[TILE_TOKENS][TILE_ROWS];
	const void *x[TILE_TOKENS];
	for (int first = 0; first < o->n; first += TILE_TOKENS) {
		int n_x = o->n - first < TILE_TOKENS ? o->n - first : TILE_TOKENS;
		for (int t = 0; t < n_x; t++) {
			int64_t at = (int64_t)(first + t) * o->w->n_columns;
			x[t] = narrow ? (const void *)(narrow + at) : (const void *)(o->x + at);
		}
		matrix_tile(job->rung, o->w, run, x, n_x, narrow != NULL, tile);
		linear_store(o, run, first, n_x, tile);
	}
}

static void linear_task(void *argument, int part, int n_parts)
{
	const struct linear_job *job = argument;
	int from = matrix_boundary(job->widest, part, n_parts);
	int to = matrix_boundary(job->widest, part + 1, n_parts), end = 0;
	struct run_cursor at[MAX_LANES];
	for (int l = 0; l < job->n_lanes; l++) {
		run_seek(&at[l], job->op[l].w, from);
		int lane_end = matrix_end(job->op[l].w);
		end = lane_end > end ? lane_end : end;
	}
	to = to < end ? to : end;
	int step = job->n_lanes > 1 ? TILE_ROWS : INT32_MAX;
	for (int block = from; block < to;) {
		int block_to = to - block > step ? block + step : to;
		for (int l = 0; l < job->n_lanes; l++) {
			struct run run;
			while (run_next(&at[l], job->op[l].w, block_to, &run))
				linear_run(job, l, &run);
		}
		block = block_to;
	}
}

void cpu_linear(struct device *device, int n_lanes, const struct linear_op *op)
{
	if (device->failed)
		return;
	struct linear_job job = {.rung = device->rung, .op = op, .n_lanes = n_lanes};
	size_t narrow = 0;
	double work = 0;
	for (int l = 0; l < n_lanes; l++) {
		if (!job.widest || op[l].w->n_rows > job.widest->n_rows)
			job.widest = op[l].w;
		work += matrix_work(op[l].w) * op[l].n;
		if (!op[l].precise && matrix_narrow(device, op[l].w))
			narrow += (size_t)op[l].n * (size_t)op[l].w->n_columns;
	}
	if (narrow) {
		uint16_t *x = device_scratch(device, SCRATCH_X, narrow, sizeof *x);
		if (!x)
			return;
		for (int l = 0; l < n_lanes; l++) {
			if (op[l].precise || !matrix_narrow(device, op[l].w))
				continue;
			size_t n = (size_t)op[l].n * (size_t)op[l].w->n_columns;
			convert_to_bf16(op[l].x, n, x);
			job.narrow[l] = x;
			x += n;
		}
	}
	device_run(device, work, linear_task, &job);
}
