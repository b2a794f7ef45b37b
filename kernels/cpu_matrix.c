/*
 * Walking the kept rows of a matrix and multiplying a tile of them: what cpu_linear.c and cpu_moe.c
 * share.
 */
#include "kernels/cpu_device.h"
#include <string.h>

#define SHARE_GRAIN 16 // rows: a cache line of outputs belongs to one thread

int matrix_boundary(const struct matrix *m, int part, int n_parts)
{
	if (part == 0)
		return 0;
	if (part >= n_parts)
		return INT32_MAX;
	int from, to;
	pool_share(part, n_parts, m->n_rows, SHARE_GRAIN, &from, &to);
	for (int s = 0; s < m->n_row_spans; s++) {
		if (from < m->rows[s].length)
			return m->rows[s].start + from;
		from -= m->rows[s].length;
	}
	return INT32_MAX;
}

void run_seek(struct run_cursor *at, const struct matrix *m, int stored)
{
	*at = (struct run_cursor){0};
	for (; at->span < m->n_row_spans; at->span++) {
		const struct span *span = &m->rows[at->span];
		if (span->start + span->length > stored) {
			at->done = stored > span->start ? stored - span->start : 0;
			at->packed += at->done;
			return;
		}
		at->packed += span->length;
	}
}

bool run_next(struct run_cursor *at, const struct matrix *m, int to, struct run *run)
{
	while (at->span < m->n_row_spans && at->done == m->rows[at->span].length) {
		at->span++;
		at->done = 0;
	}
	if (at->span == m->n_row_spans || m->rows[at->span].start + at->done >= to)
		return false;
	run->stored = m->rows[at->span].start + at->done;
	run->packed = at->packed;
	run->n = m->rows[at->span].length - at->done;
	if (run->n > to - run->stored)
		run->n = to - run->stored;
	if (run->n > TILE_ROWS)
		run->n = TILE_ROWS;
	at->done += run->n;
	at->packed += run->n;
	return true;
}

int matrix_end(const struct matrix *m)
{
	if (!m->n_row_spans)
		return 0;
	return m->rows[m->n_row_spans - 1].start + m->rows[m->n_row_spans - 1].length;
}

bool matrix_narrow(const struct device *device, const struct matrix *m)
{
	return (m->dtype == DTYPE_BF16 || m->dtype == DTYPE_NVFP4) && device->rung->dot_bf16_bf16;
}

double matrix_work(const struct matrix *m)
{
	return (double)m->n_rows * m->n_columns;
}

static void multiply(const struct cpu_rung *rung, enum dtype dtype, bool narrow,
					 const struct product *p)
{
	if (dtype == DTYPE_F32)
		rung->dot_f32(p);
	else if (dtype == DTYPE_F16)
		rung->dot_f16(p);
	else if (dtype == DTYPE_F8_E4M3)
		rung->dot_f8(p);
	else if (dtype == DTYPE_NVFP4 && narrow)
		rung->dot_nvfp4_bf16(p);
	else if (dtype == DTYPE_NVFP4)
		rung->dot_nvfp4(p);
	else if (narrow)
		rung->dot_bf16_bf16(p);
	else
		rung->dot_bf16(p);
}

/* The plain path: any number of column spans (none gives 0). */
static void tile_of_spans(const struct cpu_rung *rung, const struct matrix *m,
						  const struct product *whole, bool narrow,
						  float tile[TILE_TOKENS][TILE_ROWS])
{
	float part[TILE_TOKENS][TILE_ROWS];
	const void *rows[TILE_TOKENS];
	struct product p = *whole;
	size_t packed = 0;
	p.x = rows;
	p.out = part[0];
	memset(tile, 0, sizeof part);
	for (int s = 0; s < m->n_column_spans; s++) {
		size_t start = (size_t)m->columns[s].start;
		p.w = (const char *)whole->w + dtype_span_bytes(m->dtype, start);
		p.scales = whole->scales ? whole->scales + start / NVFP4_BLOCK : NULL;
		p.n = m->columns[s].length;
		for (int t = 0; t < p.n_x; t++)
			rows[t] = (const char *)whole->x[t] + packed * (narrow ? 2 : 4);
		multiply(rung, m->dtype, narrow, &p);
		for (int t = 0; t < p.n_x; t++)
			for (int r = 0; r < p.n_w; r++)
				tile[t][r] += part[t][r];
		packed += (size_t)m->columns[s].length;
	}
}

void matrix_tile(const struct cpu_rung *rung, const struct matrix *m, const struct run *run,
				 const void *const *x, int n_x, bool narrow, float tile[TILE_TOKENS][TILE_ROWS])
{
	int column = m->n_column_spans == 1 ? m->columns[0].start : 0;
	struct product p = {.w = matrix_at(m, run->stored, column),
						.x = x,
						.out = tile[0],
						.w_stride = m->stride,
						.out_stride = TILE_ROWS,
						.n_w = run->n,
						.n_x = n_x,
						.scales = matrix_scales_at(m, run->stored, column),
						.scale_stride = m->stride / NVFP4_BLOCK,
						.scale = m->scale};
	if (m->n_column_spans != 1) {
		tile_of_spans(rung, m, &p, narrow, tile);
		return;
	}
	p.n = m->columns[0].length;
	multiply(rung, m->dtype, narrow, &p);
}
