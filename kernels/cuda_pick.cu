/*
 * Choosing an id where the logits are: the same steps as pick.c, and the same id for the same seed
 * and position. Blocks find maxima and sums of their parts of the vocabulary; one block puts them
 * together and finds where the filters end (a radix select over the scaled logits, sums in fixed
 * point so that their order does not matter); blocks look for the largest z + noise; the last of
 * them writes the result into the mailbox.
 */
#include "kernels/cuda_kernel.cuh"

#define PARTS 64     // blocks that divide the vocabulary, at most
#define LEAST 1024   // ids of a block, unless there are fewer
#define THREADS 256  // of each
#define FILTER 512   // threads of the block that finds the filters' end
#define FIXED 0x1p44 // of e^z, at most 1
#define DIGITS 256

/* An id's place in the order: by value, ties by id. */
struct entry {
	float z;
	int32_t id; // -1 = none
};

struct pick_part {
	struct entry top[N_ALTERNATIVES];
	float sum, weighted; // of e^x and x e^x, x = logit - this part's maximum
	double score;        // largest z + noise, -1: none
	int32_t id;
};

struct pick_state {
	bool over; // the id is chosen already
	float max, temperature, end_z;
	int32_t end_id, first;
	double total; // log of the sum of e^(logit - max)
	unsigned arrived;
	struct pick_part parts[PARTS];
};

struct pick_task {
	const float *logits;
	int vocab, n_parts;
	const struct pick_ask *ask;
	struct pick_state *state;
	struct picked *out; // in the mailbox
	struct cuda_fault *fault;
};

/* ---- the top and the sums ---- */

static __device__ __forceinline__ bool before(struct entry a, struct entry b)
{
	if (a.id < 0 || b.id < 0)
		return b.id < 0 && a.id >= 0;
	return a.z > b.z || (a.z == b.z && a.id < b.id);
}

static __device__ __forceinline__ void insert(struct entry top[N_ALTERNATIVES], struct entry e)
{
	if (isnan(e.z) || !before(e, top[N_ALTERNATIVES - 1]))
		return;
	top[N_ALTERNATIVES - 1] = e;
#pragma unroll
	for (int k = N_ALTERNATIVES - 1; k > 0; k--)
		if (before(top[k], top[k - 1])) {
			struct entry swap = top[k];
			top[k] = top[k - 1];
			top[k - 1] = swap;
		}
}

static __device__ __forceinline__ struct entry warp_best(struct entry e)
{
	for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
		struct entry other;
		other.z = __shfl_xor_sync(FULL_WARP, e.z, lanes);
		other.id = __shfl_xor_sync(FULL_WARP, e.id, lanes);
		if (before(other, e))
			e = other;
	}
	return e;
}

/* The best of the block's lists, in order; every thread gets them. */
static __device__ void block_top(struct entry mine[N_ALTERNATIVES],
								 struct entry top[N_ALTERNATIVES])
{
	__shared__ struct entry best[WARP];
	int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, n_warps = blockDim.x / WARP;
#pragma unroll
	for (int k = 0; k < N_ALTERNATIVES; k++) {
		struct entry none = {0, -1}, e = warp_best(mine[0]);
		__syncthreads();
		if (lane == 0)
			best[warp] = e;
		__syncthreads();
		e = warp_best(lane < n_warps ? best[lane] : none);
		top[k] = e;
		if (e.id >= 0 && mine[0].id == e.id) {
#pragma unroll
			for (int i = 0; i + 1 < N_ALTERNATIVES; i++)
				mine[i] = mine[i + 1];
			mine[N_ALTERNATIVES - 1] = none;
		}
	}
}

static __device__ void clear(struct entry top[N_ALTERNATIVES])
{
#pragma unroll
	for (int k = 0; k < N_ALTERNATIVES; k++) {
		top[k].z = 0;
		top[k].id = -1;
	}
}

static __global__ void parts_kernel(struct pick_task task)
{
	AWAIT_EARLIER();
	struct pick_part *part = &task.state->parts[blockIdx.x];
	struct entry mine[N_ALTERNATIVES], top[N_ALTERNATIVES];
	int each = (task.vocab + task.n_parts - 1) / task.n_parts, from = (int)blockIdx.x * each;
	int to = from + each < task.vocab ? from + each : task.vocab;
	float sum = 0, weighted = 0;
	clear(mine);
	for (int i = from + (int)threadIdx.x; i < to; i += THREADS) {
		struct entry e = {task.logits[i], i};
		insert(mine, e);
	}
	block_top(mine, top);
	for (int i = from + (int)threadIdx.x; i < to && top[0].id >= 0; i += THREADS) {
		float x = task.logits[i] - top[0].z, p = expf(x);
		sum += p > 0 ? p : 0; // not NaN, and no 0 * -inf
		weighted += p > 0 ? p * x : 0;
	}
	sum = block_sum(sum);
	weighted = block_sum(weighted);
	if (threadIdx.x > 0)
		return;
	for (int k = 0; k < N_ALTERNATIVES; k++)
		part->top[k] = top[k];
	part->sum = sum;
	part->weighted = weighted;
}

/* ---- where the filters end ---- */

/* z ascends as this descends; 0 for the most probable id. */
static __device__ __forceinline__ uint32_t key_of(float z)
{
	return __float_as_uint(fabsf(z));
}

static __device__ __forceinline__ float scaled(const struct pick_task &task, float max,
											   float temperature, int i)
{
	float z = (task.logits[i] - max) / temperature;
	return z <= 0 ? z : -INFINITY; // NaN too
}

struct limit {
	uint32_t key;
	int32_t id; // the last that is kept
};

struct digits {
	unsigned long long mass[DIGITS];
	unsigned count[DIGITS];
};

/* Adds up what stands below `prefix` (the key's, or with `ids` the id's higher digits) by its next
 * digit. */
static __device__ void count_digits(const struct pick_task &task, float max, float temperature,
									struct limit limit, uint32_t prefix, int shift, bool ids,
									uint32_t key, struct digits *digits)
{
	__syncthreads();
	for (int d = threadIdx.x; d < DIGITS; d += FILTER) {
		digits->mass[d] = 0;
		digits->count[d] = 0;
	}
	__syncthreads();
	for (int i = threadIdx.x; i < task.vocab; i += FILTER) {
		float z = scaled(task, max, temperature, i);
		uint32_t k = key_of(z), v = ids ? (uint32_t)i : k;
		bool inside = k < limit.key || (k == limit.key && i <= limit.id);
		if (z == -INFINITY || !inside || (ids && k != key) ||
			(shift < 24 && v >> (shift + 8) != prefix))
			continue;
		atomicAdd(&digits->mass[v >> shift & 255], (unsigned long long)((double)expf(z) * FIXED));
		atomicAdd(&digits->count[v >> shift & 255], 1u);
	}
	__syncthreads();
}

/* The digit in which count or mass reaches its target, else the last one in use; what lies before
 * it is added to *count and *mass. */
static __device__ int find_digit(const struct digits *digits, unsigned target_count,
								 unsigned long long target_mass, unsigned *count,
								 unsigned long long *mass)
{
	int last = 0;
	for (int d = 0; d < DIGITS; d++)
		if (digits->count[d])
			last = d;
	int d = 0;
	for (; d < last; d++) {
		if (*count + digits->count[d] >= target_count || *mass + digits->mass[d] >= target_mass)
			break;
		*count += digits->count[d];
		*mass += digits->mass[d];
	}
	return d;
}

/* The prefix that ends where count or mass reaches its target. All threads call it and get it. */
static __device__ struct limit select(const struct pick_task &task, float max, float temperature,
									  struct limit limit, unsigned target_count,
									  unsigned long long target_mass, struct digits *digits)
{
	unsigned count = 0;
	unsigned long long mass = 0;
	uint32_t key = 0, id = 0;
	for (int shift = 24; shift >= 0; shift -= 8) {
		count_digits(task, max, temperature, limit, key, shift, false, 0, digits);
		key = key << 8 | (uint32_t)find_digit(digits, target_count, target_mass, &count, &mass);
	}
	for (int shift = 24; shift >= 0; shift -= 8) {
		count_digits(task, max, temperature, limit, id, shift, true, key, digits);
		id = id << 8 | (uint32_t)find_digit(digits, target_count, target_mass, &count, &mass);
	}
	struct limit end = {key, (int32_t)id};
	return end;
}

/* Sum of e^z up to `end`, fixed point; all threads get it. */
static __device__ unsigned long long mass_up_to(const struct pick_task &task, float max,
												float temperature, struct limit end,
												struct digits *digits)
{
	unsigned long long mass = 0;
	count_digits(task, max, temperature, end, 0, 24, false, 0, digits);
	for (int d = 0; d < DIGITS; d++)
		mass += digits->mass[d];
	return mass;
}

static __device__ void find_end(const struct pick_task &task, struct pick_state *state, float max)
{
	__shared__ struct digits digits;
	const struct pick_params *p = &task.ask->params;
	struct limit end = {0xffffffffu, INT32_MAX};
	bool by_count = p->top_k > 0 && p->top_k < task.vocab, by_mass = p->top_p < 1;
	if (by_count)
		end = select(task, max, p->temperature, end, (unsigned)p->top_k, ~0ull, &digits);
	if (by_mass) {
		double target =
			(double)p->top_p * (double)mass_up_to(task, max, p->temperature, end, &digits);
		end =
			select(task, max, p->temperature, end, ~0u, (unsigned long long)ceil(target), &digits);
	}
	float z = end.key == 0xffffffffu ? -INFINITY : -__uint_as_float(end.key);
	float least = p->min_p > 0 ? logf(p->min_p < 1 ? p->min_p : 1) : -INFINITY;
	if (least > z) {
		z = least;
		end.id = INT32_MAX;
	}
	if (threadIdx.x == 0) {
		state->end_z = z;
		state->end_id = end.id;
	}
}

/* ---- together ---- */

static __device__ void finish(const struct pick_task &task, int32_t id)
{
	struct pick_state *state = task.state;
	task.out->id = id;
	task.out->logprob = (float)((double)task.logits[id] - (double)state->max - state->total);
	state->over = true;
}

static __device__ void complain(const struct pick_task &task, int kind, int32_t found)
{
	if (atomicCAS(&task.fault->kind, (int)FAULT_NONE, kind) != FAULT_NONE)
		return;
	task.fault->found = found;
	task.fault->limit = task.vocab;
	task.fault->position = task.ask->position;
}

/* One thread: sums of all parts, and the most probable ids. */
static __device__ void put_together(const struct pick_task &task,
									const struct entry top[N_ALTERNATIVES])
{
	struct pick_state *state = task.state;
	double sum = 0, weighted = 0, max = (double)top[0].z;
	for (int b = 0; b < task.n_parts; b++) {
		const struct pick_part *part = &state->parts[b];
		if (part->top[0].id < 0 || !(part->sum > 0))
			continue;
		double less = (double)part->top[0].z - max, factor = exp(less);
		sum += (double)part->sum * factor;
		weighted += factor > 0 ? ((double)part->weighted + (double)part->sum * less) * factor : 0;
	}
	state->max = top[0].z;
	state->first = top[0].id;
	state->total = log(sum);
	task.out->entropy = (float)(state->total - weighted / sum);
	for (int k = 0; k < N_ALTERNATIVES; k++) {
		task.out->top[k].id = top[k].id;
		task.out->top[k].logprob =
			top[k].id < 0 ? -INFINITY : (float)((double)top[k].z - max - state->total);
	}
}

static __global__ void filter_kernel(struct pick_task task)
{
	AWAIT_EARLIER();
	__shared__ bool over;
	struct pick_state *state = task.state;
	const struct pick_params *p = &task.ask->params;
	struct entry mine[N_ALTERNATIVES], top[N_ALTERNATIVES];
	clear(mine);
	for (int i = threadIdx.x; i < task.n_parts; i += FILTER)
		for (int k = 0; k < N_ALTERNATIVES; k++)
			insert(mine, state->parts[i].top[k]);
	block_top(mine, top);
	if (threadIdx.x == 0) {
		state->arrived = 0;
		state->over = true;
		if (top[0].id < 0 || !isfinite(top[0].z)) {
			complain(task, FAULT_LOGITS, 0);
		} else if (p->forced >= task.vocab) {
			complain(task, FAULT_FORCED, p->forced);
		} else {
			put_together(task, top);
			if (p->forced >= 0)
				finish(task, p->forced);
			else if (p->temperature > 0 && p->top_k != 1)
				state->over = false;
			else
				finish(task, top[0].id);
		}
		over = state->over;
	}
	__syncthreads();
	if (!over)
		find_end(task, state, top[0].z);
}

/* ---- noise ---- */

/* base/hash.h: hash_mix. */
static __device__ __forceinline__ uint64_t mix(uint64_t value)
{
	value = (value ^ (value >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	value = (value ^ (value >> 27)) * UINT64_C(0x94d049bb133111eb);
	return value ^ (value >> 31);
}

static __device__ __forceinline__ double gumbel(uint64_t hash)
{
	double u = ((double)(hash >> 11) + 0.5) * 0x1p-53;
	return -log(-log(u));
}

static __device__ __forceinline__ void keep_better(double *score, int32_t *id, double other_score,
												   int32_t other)
{
	if (other >= 0 && (*id < 0 || other_score > *score || (other_score == *score && other < *id))) {
		*score = other_score;
		*id = other;
	}
}

static __device__ void warp_argmax(double *score, int32_t *id)
{
	for (int lanes = WARP / 2; lanes > 0; lanes /= 2) {
		double other_score = __shfl_xor_sync(FULL_WARP, *score, lanes);
		int32_t other = __shfl_xor_sync(FULL_WARP, *id, lanes);
		keep_better(score, id, other_score, other);
	}
}

/* argmax of z + noise over the prefix. An id whose noise cannot beat the thread's best is left
 * without the two logs, as in pick.c. */
static __global__ void draw_kernel(struct pick_task task)
{
	AWAIT_EARLIER();
	__shared__ double scores[THREADS / WARP];
	__shared__ int32_t ids[THREADS / WARP];
	__shared__ bool last;
	struct pick_state *state = task.state;
	if (state->over)
		return;
	int each = (task.vocab + task.n_parts - 1) / task.n_parts, from = (int)blockIdx.x * each;
	int to = from + each < task.vocab ? from + each : task.vocab;
	int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
	float max = state->max, temperature = task.ask->params.temperature, ratio = INFINITY;
	float end_z = state->end_z;
	int32_t end_id = state->end_id, best_id = -1;
	uint64_t base = mix(mix(task.ask->params.seed) + (uint64_t)task.ask->position);
	double best = 0;
	for (int i = from + (int)threadIdx.x; i < to; i += THREADS) {
		float z = scaled(task, max, temperature, i);
		if (z == -INFINITY || z < end_z || (z == end_z && i > end_id))
			continue;
		uint64_t hash = mix(base + (uint64_t)i);
		float rest = 1 - (float)(hash >> 40) * 0x1p-24f - 0x1p-24f; // at most 1 - u
		if (best_id >= 0 && rest > expf(z) * ratio)
			continue;
		double score = (double)z + gumbel(hash);
		keep_better(&best, &best_id, score, i);
		ratio = (float)exp(-best) * 1.0001f;
	}
	warp_argmax(&best, &best_id);
	if (lane == 0) {
		scores[warp] = best;
		ids[warp] = best_id;
	}
	__syncthreads();
	if (threadIdx.x == 0) {
		for (int w = 1; w < THREADS / WARP; w++)
			keep_better(&best, &best_id, scores[w], ids[w]);
		state->parts[blockIdx.x].score = best;
		state->parts[blockIdx.x].id = best_id;
		__threadfence();
		last = atomicAdd(&state->arrived, 1u) == (unsigned)task.n_parts - 1;
	}
	__syncthreads();
	if (!last || threadIdx.x > 0)
		return;
	__threadfence();
	best_id = -1;
	for (int b = 0; b < task.n_parts; b++)
		keep_better(&best, &best_id, ((volatile struct pick_part *)state->parts)[b].score,
					((volatile struct pick_part *)state->parts)[b].id);
	finish(task, best_id >= 0 ? best_id : state->first);
}

extern "C" void cuda_pick(struct device *device, int n_lanes, const struct pick_op *op)
{
	struct pick_state *states =
		(struct pick_state *)cuda_scratch(device, CUDA_SCRATCH_PICK, MAX_LANES, sizeof *states);
	for (int l = 0; l < n_lanes && states && !device->failed; l++) {
		int at = device->n_outs++; // lanes of several models pick one model after the other
		int parts = op[l].vocab / LEAST < 1       ? 1
					: op[l].vocab / LEAST < PARTS ? op[l].vocab / LEAST
												  : PARTS;
		struct pick_task task = {op[l].logits,
								 op[l].vocab,
								 parts,
								 op[l].ask,
								 &states[at],
								 &device->mailbox->picked[at],
								 &device->mailbox->fault};
		device->outs[at] = op[l].out;
		LAUNCH(device, parts_kernel, parts, THREADS, 0, task);
		LAUNCH(device, filter_kernel, 1, FILTER, 0, task);
		LAUNCH(device, draw_kernel, parts, THREADS, 0, task);
	}
}
