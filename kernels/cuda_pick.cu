/*
 * Choosing an id where the logits are: the same steps as pick.c, and the same id for the same seed
 * and position. Three launches for all lanes, of blocks that divide the vocabulary and the last of
 * which goes on alone:
 *
 *   parts  the most probable ids and the sums; then a greedy or forced id is chosen, and the two
 *          others have nothing to do
 *   bins   count and mass of the scaled logits by their distance from the largest one, in steps of
 *          1/64 of a power of two; then the bins in which the filters end
 *   draw   the largest z + noise of what surely stays, and a list of the ids in those bins; then
 *          the filters' end among these (a radix select), and the result, in the mailbox
 *
 * Masses are summed in fixed point, so that their order does not matter.
 */
#include "kernels/cuda_masses.cuh"

#define PARTS 128       // blocks that divide the vocabulary, at most THREADS
#define LEAST 1024      // ids of a block, unless there are fewer
#define DIGITS 256      // at most BINS
#define CANDIDATES 4096 // ids on the list; with more of them the whole vocabulary is looked through
#define LOW (119u << 23) // bits of 2^-8, where the second bin starts
#define STEP 17          // bits of a key below its bin

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
	float max;
	int32_t first;
	double total; // log of the sum of e^(logit - max)
	/* What surely stays: bins below `certain`. Where the filters end: bin `last` for top-k (-1 =
	 * off), one of from..to for top-p (none: off); what lies before these bins. */
	int certain, last, from, to;
	struct sum before_last, before_from;
	unsigned long long mass; // of everything
	unsigned n_candidates;
	int32_t candidates[CANDIDATES]; // ids in those bins
	unsigned count[BINS];
	unsigned long long masses[BINS];
	struct pick_part parts[PARTS];
};

struct pick_task {
	const float *logits;
	int vocab, n_parts;
	const struct pick_ask *ask;
	struct pick_state *state;
	struct picked *out; // in the mailbox
	struct cuda_fault *fault;
	unsigned *ticket;
};

/* The block's ids. */
static __device__ __forceinline__ struct span part_of(const struct pick_task &task)
{
	int each = (task.vocab + task.n_parts - 1) / task.n_parts, from = (int)blockIdx.x * each;
	int left = task.vocab - from;
	struct span span = {from, left < 0 ? 0 : left < each ? left : each};
	return span;
}

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

static __device__ void sum_up(const struct pick_task &task, struct pick_part *part)
{
	struct entry mine[N_ALTERNATIVES], top[N_ALTERNATIVES];
	struct span ids = part_of(task);
	const float *logits = task.logits + ids.start;
	float sum = 0, weighted = 0;
	clear(mine);
	for (int i = threadIdx.x; i < ids.length; i += THREADS) {
		struct entry e = {logits[i], ids.start + i};
		insert(mine, e);
	}
	block_top(mine, top);
	for (int i = threadIdx.x; i < ids.length && top[0].id >= 0; i += THREADS) {
		float x = logits[i] - top[0].z, p = expf(x);
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

/* Everything that does not depend on filters. The last block. */
static __device__ void conclude(const struct pick_task &task)
{
	struct pick_state *state = task.state;
	const struct pick_params *p = &task.ask->params;
	struct entry mine[N_ALTERNATIVES], top[N_ALTERNATIVES];
	clear(mine);
	for (int i = threadIdx.x; i < task.n_parts; i += THREADS)
		for (int k = 0; k < N_ALTERNATIVES; k++)
			insert(mine, state->parts[i].top[k]);
	block_top(mine, top);
	if (threadIdx.x > 0)
		return;
	state->over = true;
	state->certain = BINS;
	state->last = state->to = -1;
	state->from = 0;
	state->n_candidates = 0;
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
}

/* Block (part, lane). */
static __global__ void __launch_bounds__(THREADS)
	parts_kernel(const __grid_constant__ struct lanes<pick_task> lanes)
{
	AWAIT_EARLIER();
	const struct pick_task &task = lanes.at[blockIdx.y];
	if ((int)blockIdx.x >= task.n_parts)
		return;
	for (int i = blockIdx.x * THREADS + threadIdx.x; i < BINS; i += task.n_parts * THREADS) {
		task.state->count[i] = 0;
		task.state->masses[i] = 0;
	}
	sum_up(task, &task.state->parts[blockIdx.x]);
	if (last_of(task.ticket, (unsigned)task.n_parts))
		conclude(task);
}

/* ---- bins ---- */

/* z ascends as this descends; 0 for the most probable id. */
static __device__ __forceinline__ uint32_t key_of(float z)
{
	return __float_as_uint(fabsf(z));
}

static __device__ __forceinline__ int bin_of(uint32_t key)
{
	uint32_t bin = key < LOW ? 0 : (key - LOW) >> STEP;
	return bin < BINS ? (int)bin : BINS - 1;
}

static __device__ __forceinline__ float scaled(const struct pick_task &task, float max,
											   float temperature, int i)
{
	float z = (task.logits[i] - max) / temperature;
	return z <= 0 ? z : -INFINITY; // NaN too
}

static __device__ __forceinline__ bool by_count(const struct pick_task &task)
{
	return task.ask->params.top_k > 0 && task.ask->params.top_k < task.vocab;
}

static __device__ __forceinline__ unsigned long long share(float top_p, unsigned long long mass)
{
	unsigned long long target = (unsigned long long)ceil((double)top_p * (double)mass);
	return target > 0 ? target : 1;
}

/* In which bins the filters end. How much top-k leaves is known but for its own bin, and so is
 * what top-p asks for. The last block. */
static __device__ void find_bins(const struct pick_task &task)
{
	const int EACH = BINS / THREADS;
	const struct pick_params *p = &task.ask->params;
	struct pick_state *state = task.state;
	struct sum own[EACH], mine = {0, 0}, all;
	for (int i = 0; i < EACH; i++) {
		own[i].count = state->count[threadIdx.x * EACH + i];
		own[i].mass = state->masses[threadIdx.x * EACH + i];
		add(&mine, own[i]);
	}
	struct sum before = scan(mine, &all);
	struct place last = {BINS, {0, 0}, {0, 0}}, from = last, to = last;
	unsigned long long least = all.mass, most = all.mass;
	if (by_count(task)) {
		unsigned k = (unsigned)p->top_k;
		struct goal goal = {k < all.count ? k : all.count, ~0ull};
		last = find(before, own, EACH, goal);
		least = last.before.mass;
		most = least + last.own.mass;
	}
	if (p->top_p < 1) {
		struct goal low = {~0u, share(p->top_p, least)}, high = {~0u, share(p->top_p, most)};
		from = find(before, own, EACH, low);
		to = find(before, own, EACH, high);
	}
	if (threadIdx.x > 0)
		return;
	state->mass = all.mass;
	state->before_last = last.before;
	state->before_from = from.before;
	state->certain = from.at < last.at ? from.at : last.at;
	if (by_count(task))
		state->last = last.at;
	if (p->top_p < 1) {
		state->from = from.at;
		state->to = to.at;
	}
}

/* Block (part, lane). */
static __global__ void __launch_bounds__(THREADS)
	bins_kernel(const __grid_constant__ struct lanes<pick_task> lanes)
{
	AWAIT_EARLIER();
	__shared__ struct masses masses;
	const struct pick_task &task = lanes.at[blockIdx.y];
	struct pick_state *state = task.state;
	struct span ids = part_of(task);
	if ((int)blockIdx.x >= task.n_parts || state->over ||
		!(by_count(task) || task.ask->params.top_p < 1))
		return;
	float max = state->max, temperature = task.ask->params.temperature;
	masses_clear(&masses, BINS);
	for (int i = threadIdx.x; i < ids.length; i += THREADS) {
		float z = scaled(task, max, temperature, ids.start + i);
		if (z != -INFINITY)
			masses_add(&masses, bin_of(key_of(z)), z);
	}
	__syncthreads();
	for (int i = threadIdx.x; i < BINS; i += THREADS) {
		struct sum sum = masses_at(&masses, i);
		if (sum.count == 0)
			continue;
		atomicAdd(&state->count[i], sum.count);
		atomicAdd(&state->masses[i], sum.mass);
	}
	if (last_of(task.ticket, (unsigned)task.n_parts))
		find_bins(task);
}

/* ---- where the filters end ---- */

struct limit {
	uint32_t key;
	int32_t id; // the last that is kept
};

static __device__ __forceinline__ bool inside(struct limit limit, uint32_t key, int32_t id)
{
	return key < limit.key || (key == limit.key && id <= limit.id);
}

/* A search among the candidates in bins from..to that are inside a limit. */
struct search {
	const struct pick_task *task;
	struct masses *masses;
	float max, temperature;
	int from, to;
	struct limit within;
	struct goal goal;
};

/* The candidates: the list or, when it is too short for them, all ids. */
static __device__ __forceinline__ int n_candidates(const struct pick_task &task)
{
	return task.state->n_candidates <= CANDIDATES ? (int)task.state->n_candidates : task.vocab;
}

static __device__ __forceinline__ int32_t candidate(const struct pick_task &task, int i)
{
	return task.state->n_candidates <= CANDIDATES ? task.state->candidates[i] : i;
}

/* Digit by digit to the place where the goal is reached, from at->before on: among keys, which
 * start at `start` and go on for `range`, or among the ids of the key `start`. */
static __device__ uint32_t descend(const struct search &s, bool ids, uint32_t start, uint32_t range,
								   struct place *at)
{
	int left = 1, n = n_candidates(*s.task);
	uint32_t value = 0;
	while (left < 32 && range >> left)
		left++;
	while (left > 0) {
		int width = left < 8 ? left : 8;
		left -= width;
		masses_clear(s.masses, DIGITS);
		for (int i = threadIdx.x; i < n; i += THREADS) {
			int32_t id = candidate(*s.task, i);
			float z = scaled(*s.task, s.max, s.temperature, id);
			uint32_t key = key_of(z), v = ids ? (uint32_t)id : key - start;
			int bin = bin_of(key);
			if (z != -INFINITY && bin >= s.from && bin <= s.to && inside(s.within, key, id) &&
				(!ids || key == start) && (uint64_t)v >> (left + width) == value)
				masses_add(s.masses, v >> left & ((1u << width) - 1), z);
		}
		__syncthreads();
		struct sum own = masses_at(s.masses, threadIdx.x), all, before = scan(own, &all);
		add(&before, at->before);
		*at = find(before, &own, 1, s.goal);
		value = value << width | (uint32_t)at->at;
	}
	return value;
}

/* The prefix that ends where the goal is reached; *sum: what it holds, of which the bins before
 * `from` hold so much at first. */
static __device__ struct limit select(const struct search &s, struct sum *sum)
{
	uint32_t start = s.from == 0 ? 0 : LOW + ((uint32_t)s.from << STEP);
	uint32_t end = s.to == BINS - 1 ? 0x7f7fffffu : LOW + ((uint32_t)(s.to + 1) << STEP) - 1;
	struct place at = {0, *sum, {0, 0}};
	struct limit limit = {start + descend(s, false, start, end - start, &at), INT32_MAX};
	if (at.own.count > 1) // ties
		limit.id = (int32_t)descend(s, true, limit.key, (uint32_t)s.task->vocab, &at);
	*sum = at.before;
	add(sum, at.own);
	return limit;
}

/* The last block. */
static __device__ struct limit find_end(const struct pick_task &task)
{
	__shared__ struct masses masses;
	const struct pick_state *state = task.state;
	const struct pick_params *p = &task.ask->params;
	struct limit end = {0xffffffffu, INT32_MAX};
	struct sum sum = state->before_last;
	struct search s = {&task,       &masses,     state->max, p->temperature,
					   state->last, state->last, end,        {0, ~0ull}};
	unsigned long long mass = state->mass;
	if (state->last >= 0) {
		/* all that there are, where there are fewer: nothing lies behind the bin then */
		unsigned most = sum.count + state->count[state->last], k = (unsigned)p->top_k;
		s.goal.count = k < most ? k : most;
		end = select(s, &sum);
		mass = sum.mass;
	}
	if (state->to >= 0) {
		s.from = state->from;
		s.to = state->to;
		s.within = end;
		s.goal.count = ~0u;
		s.goal.mass = share(p->top_p, mass);
		sum = state->before_from;
		end = select(s, &sum);
	}
	return end;
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

/* What a thread, then a block has found. An id whose noise cannot beat the best is left without the
 * two logs, as in pick.c. */
struct best {
	double score;
	int32_t id;
	float ratio;
};

static __device__ __forceinline__ void consider(struct best *best, uint64_t base, int32_t id,
												float z)
{
	uint64_t hash = mix(base + (uint64_t)id);
	float rest = 1 - (float)(hash >> 40) * 0x1p-24f - 0x1p-24f; // at most 1 - u
	if (best->id >= 0 && rest > expf(z) * best->ratio)
		return;
	double score = (double)z + gumbel(hash);
	keep_better(&best->score, &best->id, score, id);
	best->ratio = (float)exp(-best->score) * 1.0001f;
}

/* Thread 0 gets the block's. */
static __device__ void block_best(struct best *best)
{
	__shared__ double scores[WARPS];
	__shared__ int32_t ids[WARPS];
	int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
	warp_argmax(&best->score, &best->id);
	__syncthreads(); // whoever reads those of a call before
	if (lane == 0) {
		scores[warp] = best->score;
		ids[warp] = best->id;
	}
	__syncthreads();
	for (int w = 1; w < WARPS && threadIdx.x == 0; w++)
		keep_better(&best->score, &best->id, scores[w], ids[w]);
}

/* z of the least probable id that min-p leaves. */
static __device__ __forceinline__ float least_of(const struct pick_params *p)
{
	return p->min_p > 0 ? logf(p->min_p < 1 ? p->min_p : 1) : -INFINITY;
}

/* The candidates that stay, and what all blocks have found. The last block. */
static __device__ void decide(const struct pick_task &task, uint64_t base)
{
	struct pick_state *state = task.state;
	const struct pick_params *p = &task.ask->params;
	struct best best = {0, -1, INFINITY};
	float least = least_of(p);
	if ((int)threadIdx.x < task.n_parts) {
		best.score = state->parts[threadIdx.x].score;
		best.id = state->parts[threadIdx.x].id;
		best.ratio = best.id >= 0 ? (float)exp(-best.score) * 1.0001f : INFINITY;
	}
	if (state->last >= 0 || state->to >= 0) {
		struct limit end = find_end(task);
		for (int i = threadIdx.x; i < n_candidates(task); i += THREADS) {
			int32_t id = candidate(task, i);
			float z = scaled(task, state->max, p->temperature, id);
			if (z != -INFINITY && z >= least && inside(end, key_of(z), id))
				consider(&best, base, id, z);
		}
	}
	block_best(&best);
	if (threadIdx.x == 0)
		finish(task, best.id >= 0 ? best.id : state->first);
}

/* Block (part, lane): argmax of z + noise over what is left. */
static __global__ void __launch_bounds__(THREADS)
	draw_kernel(const __grid_constant__ struct lanes<pick_task> lanes)
{
	AWAIT_EARLIER();
	const struct pick_task &task = lanes.at[blockIdx.y];
	struct pick_state *state = task.state;
	const struct pick_params *p = &task.ask->params;
	struct span ids = part_of(task);
	if ((int)blockIdx.x >= task.n_parts || state->over)
		return;
	uint64_t base = mix(mix(p->seed) + (uint64_t)task.ask->position);
	int certain = state->certain, last = state->last, from = state->from, to = state->to;
	float max = state->max, temperature = p->temperature, least = least_of(p);
	struct best best = {0, -1, INFINITY};
	for (int i = threadIdx.x; i < ids.length; i += THREADS) {
		int32_t id = ids.start + i;
		float z = scaled(task, max, temperature, id);
		int bin = bin_of(key_of(z));
		if (z == -INFINITY)
			continue;
		if (bin < certain) {
			if (z >= least)
				consider(&best, base, id, z);
		} else if (bin == last || (bin >= from && bin <= to)) {
			unsigned at = atomicAdd(&state->n_candidates, 1u);
			if (at < CANDIDATES)
				state->candidates[at] = id;
		}
	}
	block_best(&best);
	if (threadIdx.x == 0) {
		state->parts[blockIdx.x].score = best.score;
		state->parts[blockIdx.x].id = best.id;
	}
	if (last_of(task.ticket, (unsigned)task.n_parts))
		decide(task, base);
}

extern "C" void cuda_pick(struct device *device, int n_lanes, const struct pick_op *op)
{
	int most = n_lanes < LANES ? n_lanes : LANES;
	struct pick_state *states =
		(struct pick_state *)cuda_scratch(device, CUDA_SCRATCH_PICK, most, sizeof *states);
	unsigned *tickets = cuda_tickets(device, LANES);
	for (int done = 0, n; done < n_lanes && states && tickets && !device->failed; done += n) {
		struct lanes<pick_task> lanes;
		int blocks = 1;
		n = n_lanes - done < LANES ? n_lanes - done : LANES;
		for (int l = 0; l < n; l++) {
			const struct pick_op *o = &op[done + l];
			int at = device->n_outs++; // lanes of several models pick one model after the other
			int parts = o->vocab / LEAST < 1 ? 1 : o->vocab / LEAST;
			parts = parts < PARTS ? parts : PARTS;
			struct pick_task task = {o->logits,
									 o->vocab,
									 parts,
									 o->ask,
									 &states[l],
									 &device->mailbox->picked[at],
									 &device->mailbox->fault,
									 &tickets[l]};
			lanes.at[l] = task;
			device->outs[at] = o->out;
			blocks = parts > blocks ? parts : blocks;
		}
		LAUNCH(device, parts_kernel, dim3(blocks, n), THREADS, 0, lanes);
		LAUNCH(device, bins_kernel, dim3(blocks, n), THREADS, 0, lanes);
		LAUNCH(device, draw_kernel, dim3(blocks, n), THREADS, 0, lanes);
	}
}
