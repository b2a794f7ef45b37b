/*
 * Routing and experts (spec: MoE). The (token, choice) pairs of all lanes are sorted by expert into
 * a list of steps, a step being one stored expert; a part owns stored rows of every expert, first
 * of up, then of down, and reads them once. Steps ascend by expert within a lane as ids do within a
 * token, so a token's sum is over ascending choices whatever the call.
 */
#include "kernels/convert.h"
#include "kernels/cpu_device.h"
#include <math.h>
#include <string.h>

/* ---- routing ---- */

static float sigmoid(float v)
{
	return 1 / (1 + expf(-v));
}

/* Whether a is chosen rather than b; NaN loses to all. */
static bool better(float a, float b)
{
	return a > b || (isnan(b) && !isnan(a));
}

/* The top_k largest of s + bias, ascending by id. */
static void choose(const struct route_op *o, const float *logits, int32_t *ids)
{
	for (int k = 0; k < o->top_k; k++) {
		int best = -1, slot = 0;
		float best_score = 0;
		for (int e = 0; e < o->n_experts; e++) {
			/* ids[0..k) ascend: step over those chosen already */
			while (slot < k && ids[slot] < e)
				slot++;
			if (slot < k && ids[slot] == e)
				continue;
			float score = sigmoid(logits[e]) + o->bias[e];
			if (best < 0 || better(score, best_score)) {
				best = e;
				best_score = score;
			}
		}
		int at = k;
		for (; at > 0 && ids[at - 1] > best; at--)
			ids[at] = ids[at - 1];
		ids[at] = best;
	}
}

/* The given experts, ascending; the lowest others fill the list. Returns the sum of their s. */
static float take_given(const struct route_op *o, const int32_t *given, const float *logits,
						int32_t *ids, float *weights)
{
	int n_given = 0, missing, k = 0;
	float sum = 0;
	while (n_given < o->top_k && given[n_given] >= 0)
		n_given++;
	missing = o->top_k - n_given;
	for (int e = 0, g = 0; k < o->top_k; e++) {
		bool is_given = g < n_given && given[g] == e;
		if (!is_given && missing == 0)
			continue;
		ids[k] = e;
		weights[k] = is_given ? sigmoid(logits[e]) : 0;
		sum += weights[k++];
		g += is_given;
		missing -= !is_given;
	}
	return sum;
}

static void route_token(const struct route_op *o, int t)
{
	const float *logits = o->logits + (int64_t)t * o->n_experts;
	int32_t *ids = o->ids + (int64_t)t * o->top_k;
	float *weights = o->weights + (int64_t)t * o->top_k, sum = 0;
	if (o->given) {
		sum = take_given(o, o->given + (int64_t)t * o->top_k, logits, ids, weights);
	} else {
		choose(o, logits, ids);
		for (int k = 0; k < o->top_k; k++) {
			/* too few are allowed: a forbidden one fills the list and counts for nothing */
			weights[k] = o->bias[ids[k]] == -INFINITY ? 0 : sigmoid(logits[ids[k]]);
			sum += weights[k];
		}
	}
	float scale = o->normalise ? o->scale / (sum + 1e-20f) : o->scale;
	for (int k = 0; k < o->top_k; k++)
		weights[k] *= scale;
}

struct route_job {
	const struct route_op *op;
	int n_lanes;
};

static void route_task(void *argument, int part, int n_parts)
{
	const struct route_job *job = argument;
	for (const struct route_op *o = job->op; o < job->op + job->n_lanes; o++) {
		int from, to;
		pool_share(part, n_parts, o->n, 1, &from, &to);
		for (int t = from; t < to; t++)
			route_token(o, t);
	}
}

void cpu_route(struct device *device, int n_lanes, const struct route_op *op)
{
	if (device->failed)
		return;
	double work = 0;
	for (int l = 0; l < n_lanes; l++) {
		if (op[l].top_k < 1 || op[l].top_k > op[l].n_experts) {
			fail(device_failure(device), "router: %d of %d experts", op[l].top_k, op[l].n_experts);
			return;
		}
		work += (double)op[l].n * op[l].n_experts * op[l].top_k * WORK_EXP;
	}
	struct route_job job = {op, n_lanes};
	device_run(device, op[0].n > 1 ? work : 0, route_task, &job);
}

/* ---- experts ---- */

struct experts_lane {
	int32_t *start;   // (n_experts + 1) into pair
	int32_t *pair;    // (n * top_k): token * top_k + k, grouped by expert, tokens ascending
	uint16_t *x;      // (n, width) rounded to BF16, or NULL
	uint16_t *hidden; // (n, top_k, ffn) rounded to BF16, or NULL
	float *outputs;   // (n, top_k, width) of every expert, where their norms are asked for, or NULL
	int expert;       // next in the plan
};

struct experts_job {
	const struct cpu_rung *rung;
	const struct experts_op *op;
	struct experts_lane *lane; // (n_lanes)
	int32_t *step;             // (n_steps, n_lanes): each lane's expert, or -1
	int n_lanes, n_steps;
};

static int group_by_expert(const struct experts_op *o, struct experts_lane *lane)
{
	int n_pairs = o->n * o->top_k;
	for (int e = 0; e <= o->n_experts; e++)
		lane->start[e] = 0;
	for (int i = 0; i < n_pairs; i++) {
		if (o->ids[i] < 0 || o->ids[i] >= o->n_experts)
			return i;
		lane->start[o->ids[i] + 1]++;
	}
	for (int e = 0; e < o->n_experts; e++)
		lane->start[e + 1] += lane->start[e];
	for (int i = 0; i < n_pairs; i++)
		lane->pair[lane->start[o->ids[i]]++] = i;
	for (int e = o->n_experts; e > 0; e--)
		lane->start[e] = lane->start[e - 1];
	lane->start[0] = 0;
	return -1;
}

static int next_used(const struct experts_op *o, const struct experts_lane *lane, int e)
{
	while (e < o->n_experts && lane->start[e] == lane->start[e + 1])
		e++;
	return e;
}

/* Whether the stored expert `data` comes later in a lane's order than where the lane is. */
static bool comes_later(const struct experts_op *o, const struct experts_lane *lane,
						const void *data)
{
	for (int e = lane->expert + 1; e < o->n_experts; e++)
		if (o->up[e].data == data && lane->start[e] < lane->start[e + 1])
			return true;
	return false;
}

/* The lane whose expert is next: one that no other lane meets later, so that they meet. */
static int next_lane(const struct experts_job *job)
{
	int first = -1;
	for (int l = 0; l < job->n_lanes; l++) {
		if (job->lane[l].expert == job->op[l].n_experts)
			continue;
		first = first < 0 ? l : first;
		const void *data = job->op[l].up[job->lane[l].expert].data;
		bool later = false;
		for (int other = 0; other < job->n_lanes && !later; other++)
			later = other != l && job->lane[other].expert < job->op[other].n_experts &&
					comes_later(&job->op[other], &job->lane[other], data);
		if (!later)
			return l;
	}
	return first;
}

static void plan_steps(struct experts_job *job)
{
	for (int l = 0; l < job->n_lanes; l++)
		job->lane[l].expert = next_used(&job->op[l], &job->lane[l], 0);
	for (int lead; (lead = next_lane(job)) >= 0; job->n_steps++) {
		const void *data = job->op[lead].up[job->lane[lead].expert].data;
		int32_t *step = job->step + (size_t)job->n_steps * (size_t)job->n_lanes;
		for (int l = 0; l < job->n_lanes; l++) {
			const struct experts_op *o = &job->op[l];
			struct experts_lane *lane = &job->lane[l];
			step[l] = -1;
			if (lane->expert < o->n_experts && o->up[lane->expert].data == data) {
				step[l] = lane->expert;
				lane->expert = next_used(o, lane, lane->expert + 1);
			}
		}
	}
}

static void up_store(const struct experts_op *o, struct experts_lane *lane, const struct run *run,
					 int pair, const float *v)
{
	float *hidden = o->hidden + (int64_t)pair * o->ffn + run->packed;
	for (int r = 0; r < run->n; r++)
		hidden[r] = v[r] > 0 ? v[r] * v[r] : 0;
	if (!lane->hidden)
		return;
	uint16_t *narrow = lane->hidden + (int64_t)pair * o->ffn + run->packed;
	convert_to_bf16(hidden, (size_t)run->n, narrow);
}

static void down_store(const struct experts_op *o, const struct experts_lane *lane,
					   const struct run *run, int pair, const float *v)
{
	float *y = o->y + (int64_t)(pair / o->top_k) * o->width + run->packed;
	float weight = o->weights[pair];
	for (int r = 0; r < run->n; r++)
		y[r] += weight * v[r];
	if (lane->outputs)
		memcpy(lane->outputs + (int64_t)pair * o->width + run->packed, v,
			   (size_t)run->n * sizeof *v);
}

/* One run of rows of one expert for the tokens that chose it. */
static void expert_run(struct experts_job *job, int l, int expert, bool down, const struct run *run)
{
	const struct experts_op *o = &job->op[l];
	struct experts_lane *lane = &job->lane[l];
	float tile[TILE_TOKENS][TILE_ROWS];
	const void *x[TILE_TOKENS];
	const uint16_t *narrow = down ? lane->hidden : lane->x;
	for (int first = lane->start[expert]; first < lane->start[expert + 1]; first += TILE_TOKENS) {
		int n_x = lane->start[expert + 1] - first;
		n_x = n_x < TILE_TOKENS ? n_x : TILE_TOKENS;
		const int32_t *pair = lane->pair + first;
		for (int i = 0; i < n_x; i++) {
			int64_t at =
				down ? (int64_t)pair[i] * o->ffn : (int64_t)(pair[i] / o->top_k) * o->width;
			const float *wide = down ? o->hidden : o->x;
			x[i] = narrow ? (const void *)(narrow + at) : (const void *)(wide + at);
		}
		matrix_tile(job->rung, down ? &o->down[expert] : &o->up[expert], run, x, n_x,
					narrow != NULL, tile);
		for (int i = 0; i < n_x; i++)
			if (down)
				down_store(o, lane, run, pair[i], tile[i]);
			else
				up_store(o, lane, run, pair[i], tile[i]);
	}
}

/* A part's rows of up (or down) of the experts of one step. The rows of down are the residual's
 * channels, the same for all experts of a lane; one pair of boundaries for all steps keeps a
 * channel's sum in one part. */
static void step_rows(struct experts_job *job, const int32_t *step, bool down, int from, int to)
{
	const struct matrix *m[MAX_LANES];
	struct run_cursor at[MAX_LANES];
	int end = 0;
	for (int l = 0; l < job->n_lanes; l++) {
		if (step[l] < 0)
			continue;
		m[l] = down ? &job->op[l].down[step[l]] : &job->op[l].up[step[l]];
		end = matrix_end(m[l]) > end ? matrix_end(m[l]) : end;
		run_seek(&at[l], m[l], from);
	}
	to = to < end ? to : end;
	int block_rows = job->n_lanes > 1 ? TILE_ROWS : INT32_MAX;
	for (int block = from; block < to;) {
		int block_to = to - block > block_rows ? block + block_rows : to;
		for (int l = 0; l < job->n_lanes; l++) {
			struct run run;
			while (step[l] >= 0 && run_next(&at[l], m[l], block_to, &run))
				expert_run(job, l, step[l], down, &run);
		}
		block = block_to;
	}
}

static void steps_task(struct experts_job *job, bool down, int part, int n_parts)
{
	const struct matrix *widest = NULL;
	for (int l = 0; l < job->n_lanes; l++) {
		const struct matrix *m = down ? &job->op[l].down[0] : &job->op[l].up[0];
		if (!widest || m->n_rows > widest->n_rows)
			widest = m;
	}
	int from = matrix_boundary(widest, part, n_parts);
	int to = matrix_boundary(widest, part + 1, n_parts);
	for (int s = 0; s < job->n_steps; s++)
		step_rows(job, job->step + (size_t)s * (size_t)job->n_lanes, down, from, to);
}

static void up_task(void *argument, int part, int n_parts)
{
	steps_task(argument, false, part, n_parts);
}

static void down_task(void *argument, int part, int n_parts)
{
	steps_task(argument, true, part, n_parts);
}

/* In doubles and in one part a pair, so that threads change nothing. */
static void norms_task(void *argument, int part, int n_parts)
{
	const struct experts_job *job = argument;
	for (int l = 0; l < job->n_lanes; l++) {
		const struct experts_op *o = &job->op[l];
		int from = 0, to = 0;
		if (o->norms)
			pool_share(part, n_parts, o->n * o->top_k, 1, &from, &to);
		for (int pair = from; pair < to; pair++) {
			const float *v = job->lane[l].outputs + (int64_t)pair * o->width;
			double sum = 0;
			for (int i = 0; i < o->width; i++)
				sum += (double)v[i] * (double)v[i];
			o->norms[pair] = (float)sqrt(sum);
		}
	}
}

/* Experts of one layer may be stored differently; one that is not narrow keeps them all from narrow
 * activations. */
static bool all_narrow(const struct device *device, const struct matrix *m, int n)
{
	while (n > 0 && matrix_narrow(device, &m[n - 1]))
		n--;
	return n == 0;
}

/* Scratch of all lanes: the plan, and activations rounded to BF16 where the device multiplies so.
 */
static int experts_prepare(struct device *device, struct experts_job *job)
{
	size_t n_plan = 0, n_x = 0, n_hidden = 0, n_outputs = 0, n_steps = 0;
	bool narrow = device->rung->dot_bf16_bf16 != NULL;
	for (const struct experts_op *o = job->op; o < job->op + job->n_lanes; o++) {
		size_t n_pairs = (size_t)o->n * (size_t)o->top_k;
		n_plan += n_pairs + (size_t)o->n_experts + 1;
		n_steps += (size_t)o->n_experts;
		n_x += narrow ? (size_t)o->n * (size_t)o->width : 0;
		n_hidden += narrow ? n_pairs * (size_t)o->ffn : 0;
		n_outputs += o->norms ? n_pairs * (size_t)o->width : 0;
	}
	size_t n_lanes = (size_t)job->n_lanes;
	n_steps *= n_lanes;
	job->lane = device_scratch(device, SCRATCH_LANES, n_lanes, sizeof *job->lane);
	int32_t *plan = device_scratch(device, SCRATCH_PLAN, n_plan + n_steps, sizeof *plan);
	uint16_t *x = narrow ? device_scratch(device, SCRATCH_X, n_x, sizeof *x) : NULL;
	uint16_t *hidden =
		narrow ? device_scratch(device, SCRATCH_HIDDEN, n_hidden, sizeof *hidden) : NULL;
	float *outputs =
		n_outputs ? device_scratch(device, SCRATCH_OUTPUTS, n_outputs, sizeof *outputs) : NULL;
	if (device->failed)
		return -1;
	job->step = plan;
	plan += n_steps;
	for (int l = 0; l < job->n_lanes; l++) {
		const struct experts_op *o = &job->op[l];
		struct experts_lane *lane = &job->lane[l];
		size_t n_pairs = (size_t)o->n * (size_t)o->top_k;
		*lane = (struct experts_lane){.start = plan, .pair = plan + o->n_experts + 1};
		plan = lane->pair + n_pairs;
		int bad = group_by_expert(o, lane);
		if (bad >= 0)
			return fail(device_failure(device), "expert %d, expected 0 to %d", (int)o->ids[bad],
						o->n_experts - 1);
		if (narrow && all_narrow(device, o->up, o->n_experts)) {
			lane->x = x;
			convert_to_bf16(o->x, (size_t)o->n * (size_t)o->width, x);
			x += (size_t)o->n * (size_t)o->width;
		}
		if (narrow && all_narrow(device, o->down, o->n_experts)) {
			lane->hidden = hidden;
			hidden += n_pairs * (size_t)o->ffn;
		}
		if (o->norms) {
			lane->outputs = outputs;
			outputs += n_pairs * (size_t)o->width;
		}
	}
	return 0;
}

void cpu_experts(struct device *device, int n_lanes, const struct experts_op *op)
{
	struct experts_job job = {.rung = device->rung, .op = op, .n_lanes = n_lanes};
	if (device->failed || experts_prepare(device, &job) < 0)
		return;
	plan_steps(&job);
	double work = 0, norms_work = 0;
	for (const struct experts_op *o = op; o < op + n_lanes; o++) {
		work += (double)o->n * o->top_k * o->width * o->ffn;
		norms_work += o->norms ? (double)o->n * o->top_k * o->width : 0;
	}
	device_run(device, work, up_task, &job);
	device_run(device, work, down_task, &job);
	if (norms_work > 0)
		device_run(device, norms_work, norms_task, &job);
}
