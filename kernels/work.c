#include "kernels/work.h"
#include <math.h>
#include <stdbool.h>

static void add(struct work *work, double bytes, double flops)
{
	work->bytes += bytes;
	work->flops += flops;
}

static double matrix_bytes(const struct matrix *m)
{
	return (double)dtype_matrix_bytes(m->dtype, (uint64_t)m->n_rows * (uint64_t)m->n_columns);
}

struct work work_embed(const struct embed_op *op, int n_lanes)
{
	struct work work = {0, 0};
	for (const struct embed_op *o = op; o < op + n_lanes; o++) {
		double row = (double)dtype_matrix_bytes(o->table->dtype, (uint64_t)o->table->n_columns);
		add(&work, o->n * (row + 4.0 * o->table->n_columns), 0);
	}
	return work;
}

struct work work_norm(const struct norm_op *op, int n_lanes)
{
	struct work work = {0, 0};
	for (const struct norm_op *o = op; o < op + n_lanes; o++)
		add(&work, 8.0 * o->n * o->width + 4.0 * o->width, 4.0 * o->n * o->width);
	return work;
}

/* Of lanes that share a stored matrix the first that has most of it reads it for all. */
static bool reads_weights(const struct linear_op *op, int n_lanes, const struct linear_op *mine)
{
	double bytes = matrix_bytes(mine->w);
	for (const struct linear_op *o = op; o < op + n_lanes; o++)
		if (o->w->data == mine->w->data && o != mine &&
			(matrix_bytes(o->w) > bytes || (o < mine && !(matrix_bytes(o->w) < bytes))))
			return false;
	return true;
}

struct work work_linear(const struct linear_op *op, int n_lanes)
{
	struct work work = {0, 0};
	for (const struct linear_op *o = op; o < op + n_lanes; o++) {
		double rows = o->w->n_rows, columns = o->w->n_columns;
		if (reads_weights(op, n_lanes, o))
			add(&work, matrix_bytes(o->w), 0);
		add(&work, 4 * o->n * (columns + rows * (o->mode == LINEAR_ADD ? 2 : 1)),
			2 * o->n * rows * columns);
	}
	return work;
}

struct work work_conv(const struct conv_op *op, int n_lanes)
{
	struct work work = {0, 0};
	for (const struct conv_op *o = op; o < op + n_lanes; o++) {
		double channels = o->channels;
		add(&work, 4 * channels * (2.0 * o->n + o->kernel + 1 + 2 * (o->kernel - 1)),
			2 * channels * o->n * o->kernel);
	}
	return work;
}

struct work work_ssm(const struct ssm_op *op, int n_lanes)
{
	struct work work = {0, 0};
	for (const struct ssm_op *o = op; o < op + n_lanes; o++) {
		double inner = (double)o->n_heads * o->head_dim, state = inner * o->state_size;
		double token = 2 * inner + 2.0 * o->n_groups * o->state_size + o->n_heads;
		add(&work, 4 * (o->n * token + 2 * state), 5 * o->n * state);
	}
	return work;
}

struct work work_gated_norm(const struct gated_norm_op *op, int n_lanes)
{
	struct work work = {0, 0};
	for (const struct gated_norm_op *o = op; o < op + n_lanes; o++)
		add(&work, 12.0 * o->n * o->width + 4.0 * o->width, 8.0 * o->n * o->width);
	return work;
}

struct work work_attention(const struct attention_op *op, int n_lanes, enum dtype kv, int rows)
{
	struct work work = {0, 0};
	for (const struct attention_op *o = op; o < op + n_lanes; o++) {
		double q = (double)o->n_heads * o->head_dim, row = (double)o->n_kv_heads * o->head_dim;
		double each = (double)dtype_bytes(kv), seen = rows + (o->n + 1) / 2.0; // on average
		add(&work, 4 * o->n * (2 * q + 2 * row) + 2 * row * each * (rows + o->n),
			4 * q * o->n * seen);
	}
	return work;
}

struct work work_route(const struct route_op *op, int n_lanes)
{
	struct work work = {0, 0};
	for (const struct route_op *o = op; o < op + n_lanes; o++)
		add(&work, 4.0 * o->n * (o->n_experts + 2 * o->top_k), 0);
	return work;
}

struct work work_experts(const struct experts_op *op, int n_lanes)
{
	struct work work = {0, 0};
	for (const struct experts_op *o = op; o < op + n_lanes; o++) {
		double pairs = (double)o->n * o->top_k, tokens = 0;
		bool first = true;
		for (const struct experts_op *other = op; other < op + n_lanes; other++)
			if (other->up->data == o->up->data) {
				tokens += other->n;
				first &= other >= o;
			}
		if (first && o->n_experts > 0) {
			double missed = pow(1 - (double)o->top_k / o->n_experts, tokens);
			double hit = tokens > 1 ? o->n_experts * (1 - missed) : o->top_k;
			add(&work, hit * (matrix_bytes(o->up) + matrix_bytes(o->down)), 0);
		}
		add(&work, 4 * (3.0 * o->n * o->width + 2 * pairs * o->ffn), 4 * pairs * o->width * o->ffn);
	}
	return work;
}

struct work work_pick(const struct pick_op *op, int n_lanes)
{
	struct work work = {0, 0};
	for (const struct pick_op *o = op; o < op + n_lanes; o++)
		add(&work, 4.0 * o->vocab, 0);
	return work;
}
