/*
 * The Mamba-2 mixer's own operations: convolution, recurrence, gated norm (spec: Mamba-2 mixer).
 * Tokens go one after the other inside a channel or head; threads divide channels, heads and
 * groups.
 */
#include "kernels/cpu_device.h"
#include <math.h>
#include <string.h>

#define CONV_BLOCK 64 // channels whose history lies on the stack
#define CONV_MAX_KERNEL 16
#define GATE_BLOCK 128

struct conv_job {
	const struct cpu_rung *rung;
	const struct conv_op *op;
	int n_lanes;
};

/* n (<= CONV_BLOCK) channels from c on, all tokens. */
static void conv_block(const struct cpu_rung *rung, const struct conv_op *o, int c, int n)
{
	float weight[CONV_MAX_KERNEL][CONV_BLOCK], history[CONV_MAX_KERNEL][CONV_BLOCK];
	int past = o->kernel - 1;
	for (int k = 0; k < o->kernel; k++)
		for (int i = 0; i < n; i++)
			weight[k][i] = o->weight[(int64_t)(c + i) * o->kernel + k];
	for (int k = 0; k < past; k++)
		for (int i = 0; i < n; i++)
			history[k][i] = o->state[(int64_t)k * o->state_channels + o->channel[c + i]];
	for (int t = 0; t < o->n; t++) {
		float *y = o->y + (int64_t)t * o->channels + c, sum[CONV_BLOCK];
		memcpy(sum, o->bias + c, (size_t)n * sizeof *sum);
		for (int k = 0; k < o->kernel; k++) {
			int row = t - past + k; // of x; before it lies the history
			const float *x = row < 0 ? history[past + row] : o->x + row * o->x_stride + c;
			for (int i = 0; i < n; i++)
				sum[i] += weight[k][i] * x[i];
		}
		rung->silu(y, sum, n);
	}
	for (int k = 0; k < past; k++) {
		int row = o->n - past + k;
		const float *x = row < 0 ? history[past + row] : o->x + row * o->x_stride + c;
		for (int i = 0; i < n; i++)
			o->state[(int64_t)k * o->state_channels + o->channel[c + i]] = x[i];
	}
}

static void conv_task(void *argument, int part, int n_parts)
{
	const struct conv_job *job = argument;
	for (const struct conv_op *o = job->op; o < job->op + job->n_lanes; o++) {
		int from, to;
		pool_share(part, n_parts, o->channels, 16, &from, &to);
		for (int c = from; c < to; c += CONV_BLOCK)
			conv_block(job->rung, o, c, to - c < CONV_BLOCK ? to - c : CONV_BLOCK);
	}
}

void cpu_conv(struct device *device, int n_lanes, const struct conv_op *op)
{
	if (device->failed)
		return;
	double work = 0;
	for (int l = 0; l < n_lanes; l++) {
		if (op[l].kernel < 1 || op[l].kernel > CONV_MAX_KERNEL) {
			fail(device_failure(device), "convolution over %d inputs, expected 1 to %d",
				 op[l].kernel, CONV_MAX_KERNEL);
			return;
		}
		work += (double)op[l].n * op[l].channels * (op[l].kernel + WORK_EXP);
	}
	struct conv_job job = {device->rung, op, n_lanes};
	device_run(device, work, conv_task, &job);
}

struct ssm_job {
	const struct cpu_rung *rung;
	const struct ssm_op *op;
	int n_lanes;
};

static void ssm_head(const struct cpu_rung *rung, const struct ssm_op *o, int h)
{
	int inner = o->n_heads * o->head_dim, g = o->head_group[h];
	int64_t xbc_stride = inner + 2 * (int64_t)o->n_groups * o->state_size;
	const int32_t *rows = o->state_row + (int64_t)h * o->head_dim;
	for (int t = 0; t < o->n; t++) {
		const float *x = o->xbc + t * xbc_stride + (int64_t)h * o->head_dim;
		const float *b = o->xbc + t * xbc_stride + inner + (int64_t)g * o->state_size;
		const float *c = b + (int64_t)o->n_groups * o->state_size;
		float *y = o->y + (int64_t)t * inner + (int64_t)h * o->head_dim;
		float v = o->dt[t * o->dt_stride + h] + o->dt_bias[h];
		float d = v > 20 ? v : log1pf(expf(v)); // softplus
		float decay = expf(d * o->a[h]);
		for (int p = 0; p < o->head_dim; p++) {
			float *s = o->state + (int64_t)rows[p] * o->state_size;
			y[p] = rung->ssm_row(s, b, c, decay, d * x[p], o->state_size) + o->d[h] * x[p];
		}
	}
}

static void ssm_task(void *argument, int part, int n_parts)
{
	const struct ssm_job *job = argument;
	for (const struct ssm_op *o = job->op; o < job->op + job->n_lanes; o++) {
		int from, to;
		pool_share(part, n_parts, o->n_heads, 1, &from, &to);
		for (int h = from; h < to; h++)
			ssm_head(job->rung, o, h);
	}
}

void cpu_ssm(struct device *device, int n_lanes, const struct ssm_op *op)
{
	if (device->failed)
		return;
	double work = 0;
	for (int l = 0; l < n_lanes; l++)
		work += 2.0 * op[l].n * op[l].n_heads * op[l].head_dim * op[l].state_size;
	struct ssm_job job = {device->rung, op, n_lanes};
	device_run(device, work, ssm_task, &job);
}

struct gated_norm_job {
	const struct cpu_rung *rung;
	const struct gated_norm_op *op;
	int n_lanes;
};

static void gated_norm_group(const struct cpu_rung *rung, const struct gated_norm_op *o, int t,
							 int g)
{
	int start = o->group_start[g], n = o->group_start[g + 1] - start;
	float *y = o->y + (int64_t)t * o->width + start;
	const float *z = o->z + t * o->z_stride + start, *weight = o->weight + start;
	for (int i = 0; i < n; i += GATE_BLOCK) {
		float gate[GATE_BLOCK];
		int m = n - i < GATE_BLOCK ? n - i : GATE_BLOCK;
		rung->silu(gate, z + i, m);
		for (int j = 0; j < m; j++)
			y[i + j] *= gate[j];
	}
	float sum = cpu_sum_of_squares(rung, y, n);
	float r = o->scale / sqrtf(sum / o->count[g] + o->eps);
	for (int i = 0; i < n; i++)
		y[i] = y[i] * r * weight[i];
}

static void gated_norm_task(void *argument, int part, int n_parts)
{
	const struct gated_norm_job *job = argument;
	for (const struct gated_norm_op *o = job->op; o < job->op + job->n_lanes; o++) {
		int from, to;
		pool_share(part, n_parts, o->n * o->n_groups, 1, &from, &to);
		for (int i = from; i < to; i++)
			gated_norm_group(job->rung, o, i / o->n_groups, i % o->n_groups);
	}
}

void cpu_gated_norm(struct device *device, int n_lanes, const struct gated_norm_op *op)
{
	if (device->failed)
		return;
	double work = 0;
	for (int l = 0; l < n_lanes; l++)
		work += (double)op[l].n * op[l].width * (WORK_EXP + 3);
	struct gated_norm_job job = {device->rung, op, n_lanes};
	device_run(device, work, gated_norm_task, &job);
}
