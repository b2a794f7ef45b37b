#include "inspect/scales.h"

#include "base/memory.h"
#include "kernels/convert.h"
#include "kernels/quantise.h"
#include <math.h>
#include <stdlib.h>
#include <string.h>

#define MIN_NORMAL_CODE 8 // E4M3 codes below are subnormal

struct looking {
	struct scales *scales;
	const struct model *model;
	int budget;
	struct scales_row *parents; // largest magnitudes of whole matrices
	size_t n_parents, parents_capacity, at;
	float *row;     // a kept row, widened
	uint8_t *codes; // of it
	size_t row_capacity, codes_capacity;
	int (*step)(void *user, int done, int total);
	void *user;
	int done, total;
	int result;
	struct error *err;
};

/* ---- one matrix ---- */

static const float *kept_row(struct looking *l, const struct matrix *m, int64_t stored)
{
	int n = 0;
	for (int i = 0; i < m->n_column_spans; i++) {
		matrix_widen(m, stored, m->columns[i].start, m->columns[i].length, l->row + n);
		n += m->columns[i].length;
	}
	return l->row;
}

static float largest(struct looking *l, const struct matrix *m)
{
	float amax = 0;
	for (int s = 0; s < m->n_row_spans; s++)
		for (int i = 0; i < m->rows[s].length; i++) {
			const float *row = kept_row(l, m, m->rows[s].start + i);
			for (int c = 0; c < m->n_columns; c++)
				amax = fabsf(row[c]) > amax ? fabsf(row[c]) : amax;
		}
	return amax;
}

struct sum {
	double error, energy;
	int64_t blocks, subnormal;
};

/* All numbers of a block became 0: its scale would have been. */
static bool is_lost(const uint8_t *codes)
{
	for (int i = 0; i < NVFP4_BLOCK / 2; i++)
		if (codes[i] & 0x77)
			return false;
	return true;
}

static void add_row(struct looking *l, const float *row, int n, enum dtype format, float scale,
					struct sum *sum)
{
	uint8_t *scales = l->codes + n;
	quantise_row(format, scale, row, n, l->codes, scales);
	for (int i = 0; i < n; i++) {
		double q = format == DTYPE_F8_E4M3
					   ? (double)e4m3_values[l->codes[i]]
					   : (double)e2m1_values[i % 2 ? l->codes[i / 2] >> 4 : l->codes[i / 2] & 15] *
							 (double)e4m3_values[scales[i / NVFP4_BLOCK]];
		double d = (double)row[i] - q * (double)scale;
		sum->error += d * d;
		sum->energy += (double)row[i] * (double)row[i];
	}
	for (int b = 0; format == DTYPE_NVFP4 && b < n / NVFP4_BLOCK; b++) {
		sum->blocks++;
		sum->subnormal += scales[b] < MIN_NORMAL_CODE || is_lost(l->codes + b * NVFP4_BLOCK / 2);
	}
}

static int64_t stored_row(const struct matrix *m, int64_t row)
{
	for (int i = 0; i < m->n_row_spans; i++) {
		if (row < m->rows[i].length)
			return m->rows[i].start + row;
		row -= m->rows[i].length;
	}
	return -1;
}

static double relative(const struct sum *sum)
{
	return sum->energy > 0 ? sqrt(sum->error / sum->energy) : 0;
}

static bool on_blocks(const struct matrix *m)
{
	for (int i = 0; i < m->n_column_spans; i++)
		if (m->columns[i].start % NVFP4_BLOCK || m->columns[i].length % NVFP4_BLOCK)
			return false;
	return true;
}

static void measure_errors(struct looking *l, const struct matrix *m, struct scales_row *out)
{
	static const enum dtype formats[N_SCALES_FORMATS] = {DTYPE_F8_E4M3, DTYPE_NVFP4};
	int64_t some = m->n_rows < SCALES_ROWS ? m->n_rows : SCALES_ROWS;
	for (int f = 0; f < N_SCALES_FORMATS; f++) {
		struct sum nested = {0}, own = {0};
		out->error[f] = (struct scales_error){NAN, NAN};
		if (formats[f] == DTYPE_NVFP4)
			out->subnormal_nested = out->subnormal_own = NAN;
		if (l->scales->stored || (formats[f] == DTYPE_NVFP4 && !on_blocks(m)))
			continue;
		for (int64_t i = 0; i < some; i++) {
			const float *row = kept_row(l, m, stored_row(m, i * m->n_rows / some));
			add_row(l, row, m->n_columns, formats[f], quantise_scale(formats[f], out->parent),
					&nested);
			add_row(l, row, m->n_columns, formats[f], quantise_scale(formats[f], out->slice), &own);
		}
		out->error[f] = (struct scales_error){relative(&nested), relative(&own)};
		if (nested.blocks) {
			out->subnormal_nested = (double)nested.subnormal / (double)nested.blocks;
			out->subnormal_own = (double)own.subnormal / (double)own.blocks;
		}
	}
}

/* ---- all matrices ---- */

static bool is_looked_at(const struct looking *l, const struct module *module)
{
	enum dtype dtype = module->matrix->dtype;
	return dtype == DTYPE_F8_E4M3 || dtype == DTYPE_NVFP4 ||
		   module_quantises(module, &l->model->config);
}

static int make_room(struct looking *l, const struct matrix *m)
{
	size_t n = (size_t)m->n_columns;
	if (mem_grow(&l->row, &l->row_capacity, n, sizeof *l->row, l->err) != 0)
		return -1;
	return mem_grow(&l->codes, &l->codes_capacity, 2 * n + NVFP4_BLOCK, 1, l->err);
}

static void look_at_parent(void *user, const struct module *module)
{
	struct looking *l = user;
	if (l->result != 0 || !is_looked_at(l, module))
		return;
	enum dtype dtype = module->matrix->dtype;
	l->scales->stored = l->scales->stored || dtype == DTYPE_F8_E4M3 || dtype == DTYPE_NVFP4;
	l->result = make_room(l, module->matrix) != 0 ||
						mem_grow(&l->parents, &l->parents_capacity, l->n_parents + 1,
								 sizeof *l->parents, l->err) != 0
					? -1
					: 0;
	if (l->result == 0)
		l->parents[l->n_parents++] = (struct scales_row){.kind = module->kind,
														 .layer = module->layer,
														 .expert = module->expert,
														 .parent = largest(l, module->matrix)};
}

/* The parent's entry: budgets keep some of its matrices, in the same order. */
static const struct scales_row *find_parent(struct looking *l, const struct module *module)
{
	for (; l->at < l->n_parents; l->at++) {
		const struct scales_row *p = &l->parents[l->at];
		if (p->kind == module->kind && p->layer == module->layer && p->expert == module->expert)
			return p;
	}
	return NULL;
}

static void look(void *user, const struct module *module)
{
	struct looking *l = user;
	struct scales *s = l->scales;
	const struct scales_row *parent =
		l->result == 0 && is_looked_at(l, module) ? find_parent(l, module) : NULL;
	if (!parent)
		return;
	if (mem_grow(&s->rows, &s->capacity, s->n + 1, sizeof *s->rows, l->err) != 0) {
		l->result = -1;
		return;
	}
	struct scales_row *row = &s->rows[s->n++];
	*row = *parent;
	row->budget = l->budget;
	row->slice = largest(l, module->matrix);
	measure_errors(l, module->matrix, row);
	if (l->step && l->step(l->user, ++l->done, l->total) != 0)
		l->result = fail(l->err, "stopped");
}

static int look_at_budget(struct looking *l, const struct budget *budget)
{
	struct slice slice;
	if (slice_build(&slice, &l->model->weights, &l->model->config, budget, NULL, NULL, l->err) != 0)
		return -1;
	l->at = 0;
	modules_each(&slice, l->n_parents ? look : look_at_parent, l);
	slice_free(&slice);
	return l->result;
}

int scales_open(struct scales *scales, const struct model *model, const struct budget *extra,
				int (*step)(void *user, int done, int total), void *user, struct error *err)
{
	const struct elastic *elastic = &model->elastic;
	struct budget parent = {0};
	*scales = (struct scales){0};
	struct looking l = {.scales = scales, .model = model, .step = step, .user = user, .err = err};
	int result = budget_init(&parent, &model->config, "parent", err);
	if (result == 0)
		result = look_at_budget(&l, &parent); // largest numbers of whole matrices first
	if (result == 0 && l.n_parents == 0)
		result = fail(err, "no matrix of this model is one that is quantised");
	l.total = (int)l.n_parents * (elastic->n_budgets + (extra != NULL));
	for (int i = 0; i < elastic->n_budgets && result == 0; i++, l.budget++)
		result = look_at_budget(&l, &elastic->budgets[i]);
	if (result == 0 && extra)
		result = look_at_budget(&l, extra);
	budget_free(&parent);
	free(l.parents);
	free(l.row);
	free(l.codes);
	if (result != 0)
		scales_close(scales);
	return result;
}

void scales_close(struct scales *scales)
{
	free(scales->rows);
	*scales = (struct scales){0};
}

bool scales_sum(const struct scales *scales, enum module_kind kind, int budget,
				struct scales_sum *out)
{
	*out = (struct scales_sum){.least_ratio = 1};
	for (size_t i = 0; i < scales->n; i++) {
		const struct scales_row *row = &scales->rows[i];
		if (row->kind != kind || row->budget != budget)
			continue;
		double ratio = row->parent > 0 ? (double)row->slice / (double)row->parent : 1;
		out->n++;
		out->ratio += ratio;
		out->least_ratio = ratio < out->least_ratio ? ratio : out->least_ratio;
		for (int f = 0; f < N_SCALES_FORMATS; f++) {
			out->error[f].nested += row->error[f].nested * row->error[f].nested;
			out->error[f].own += row->error[f].own * row->error[f].own;
		}
		out->subnormal_nested += row->subnormal_nested;
		out->subnormal_own += row->subnormal_own;
	}
	if (out->n == 0)
		return false;
	double n = (double)out->n;
	out->ratio /= n;
	out->subnormal_nested /= n;
	out->subnormal_own /= n;
	for (int f = 0; f < N_SCALES_FORMATS; f++) {
		out->error[f].nested = sqrt(out->error[f].nested / n);
		out->error[f].own = sqrt(out->error[f].own / n);
	}
	return true;
}
