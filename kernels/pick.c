#include "kernels/pick.h"
#include "base/hash.h"
#include "kernels/cpu_device.h"
#include <math.h>

#define N_BUCKETS 1024
#define BUCKET_WIDTH 0.0625f // of (max - logit) / temperature; the last bucket holds the rest
#define BLOCK 256

/* The last id of the prefix that is kept: (z, id) with z >= end's, ties up to end's id. */
struct prefix {
	float z;
	int32_t id;
};

/* What the filters see: z = (logit - max) / temperature, NaN as -inf, and e^z. */
struct scaled {
	const float *z, *e;
	int vocab;
};

struct bucket {
	int32_t count;
	double mass;
};

static bool before(float z, int32_t id, struct prefix b)
{
	return z > b.z || (z == b.z && id < b.id);
}

static bool inside(float z, int32_t id, struct prefix end)
{
	return z > end.z || (z == end.z && id <= end.id);
}

/* list[i] sinks until no child comes before it: a heap with the best at list[0]. */
static void sink(struct prefix *list, int n, int i)
{
	for (int child; (child = 2 * i + 1) < n; i = child) {
		if (child + 1 < n && before(list[child + 1].z, list[child + 1].id, list[child]))
			child++;
		if (!before(list[child].z, list[child].id, list[i]))
			return;
		struct prefix swap = list[i];
		list[i] = list[child];
		list[child] = swap;
	}
}

static int bucket_of(float z)
{
	float at = -z / BUCKET_WIDTH;
	return at < N_BUCKETS - 1 ? (int)at : N_BUCKETS - 1;
}

static void insert_top(struct prefix top[N_ALTERNATIVES], int *n, float v, int32_t id)
{
	if (*n == N_ALTERNATIVES ? !(v > top[*n - 1].z) : isnan(v))
		return;
	int k = *n < N_ALTERNATIVES ? (*n)++ : *n - 1;
	for (; k > 0 && v > top[k - 1].z; k--)
		top[k] = top[k - 1];
	top[k] = (struct prefix){v, id};
}

/* The top N_ALTERNATIVES, best first, ties: the lower id. NaN never enters. */
static void find_top(const struct pick_op *op, struct prefix top[N_ALTERNATIVES])
{
	int n = 0;
	for (int k = 0; k < N_ALTERNATIVES; k++)
		top[k] = (struct prefix){-INFINITY, -1};
	for (int32_t block = 0; block < op->vocab; block += BLOCK) {
		int32_t end = op->vocab - block < BLOCK ? op->vocab : block + BLOCK;
		float least = top[N_ALTERNATIVES - 1].z;
		int any = n < N_ALTERNATIVES; // a block without a candidate, nearly all, is one vector loop
		for (int32_t i = block; i < end; i++)
			any |= op->logits[i] > least;
		for (int32_t i = block; any && i < end; i++)
			insert_top(top, &n, op->logits[i], i);
	}
}

/* log(sum(exp(x))), x = logit - max. entropy: -sum p ln p = log(sum) - sum(x exp(x)) / sum, where
 * 0 ln 0 = 0. */
static double log_sum(const struct cpu_rung *rung, const struct pick_op *op, float max,
					  float *entropy)
{
	double sum = 0, weighted = 0;
	for (int block = 0; block < op->vocab; block += BLOCK) {
		int n = op->vocab - block < BLOCK ? op->vocab - block : BLOCK;
		float x[BLOCK], p[BLOCK], part[16] = {0}, parts[16] = {0};
		for (int i = 0; i < n; i++)
			p[i] = x[i] = op->logits[block + i] - max;
		rung->exp(p, n);
		for (int i = 0; i < n; i++) {
			bool any = p[i] > 0; // not NaN, and no 0 * -inf
			part[i % 16] += any ? p[i] : 0;
			parts[i % 16] += any ? p[i] * x[i] : 0;
		}
		for (int i = 0; i < 16; i++) {
			sum += (double)part[i];
			weighted += (double)parts[i];
		}
	}
	*entropy = (float)(log(sum) - weighted / sum);
	return log(sum);
}

/* Whether an id stands in bucket b and not past `limit`. */
static bool counts(const struct scaled *s, int32_t i, int b, struct prefix limit)
{
	return s->z[i] > -INFINITY && bucket_of(s->z[i]) == b && inside(s->z[i], i, limit);
}

/* The prefix that ends where count or mass reaches its target, in bucket b; `sum` lies before it.
 * Ids past `limit` are not counted. list has room for the vocabulary. */
static struct prefix end_in_bucket(const struct scaled *s, int b, struct bucket sum,
								   struct bucket target, struct prefix limit, struct prefix *list)
{
	int n = 0;
	for (int32_t i = 0; i < s->vocab; i++)
		if (counts(s, i, b, limit))
			list[n++] = (struct prefix){s->z[i], i};
	for (int i = n / 2 - 1; i >= 0; i--)
		sink(list, n, i);
	while (n > 0) {
		struct prefix best = list[0];
		sum.count++;
		sum.mass += (double)s->e[best.id];
		if (n == 1 || sum.count >= target.count || sum.mass >= target.mass)
			return best;
		list[0] = list[--n];
		sink(list, n, 0);
	}
	return limit;
}

/* The same over all buckets. */
static struct prefix end_of(const struct scaled *s, const struct bucket *buckets,
							struct bucket target, struct prefix limit, struct prefix *list)
{
	struct bucket sum = {0};
	int b = 0;
	for (; b < bucket_of(limit.z); b++) {
		if (sum.count + buckets[b].count >= target.count ||
			sum.mass + buckets[b].mass >= target.mass)
			break;
		sum.count += buckets[b].count;
		sum.mass += buckets[b].mass;
	}
	return end_in_bucket(s, b, sum, target, limit, list);
}

/* Sum of e^z up to `end`. */
static double mass_up_to(const struct scaled *s, const struct bucket *buckets, struct prefix end)
{
	int b = bucket_of(end.z);
	double mass = 0;
	for (int i = 0; i < b; i++)
		mass += buckets[i].mass;
	if (end.z == -INFINITY) // everything
		return mass + buckets[b].mass;
	for (int32_t i = 0; i < s->vocab; i++)
		if (counts(s, i, b, end))
			mass += (double)s->e[i];
	return mass;
}

/* The kept prefix; list has room for the vocabulary. */
static struct prefix filter(const struct pick_params *p, const struct scaled *s,
							struct prefix *list)
{
	struct prefix end = {-INFINITY, INT32_MAX};
	bool by_count = p->top_k > 0 && p->top_k < s->vocab, by_mass = p->top_p < 1;
	if (by_count || by_mass) {
		struct bucket buckets[N_BUCKETS] = {0};
		for (int i = 0; i < s->vocab; i++) {
			if (!(s->z[i] > -INFINITY))
				continue;
			struct bucket *b = &buckets[bucket_of(s->z[i])];
			b->count++;
			b->mass += (double)s->e[i];
		}
		if (by_count)
			end = end_of(s, buckets, (struct bucket){p->top_k, INFINITY}, end, list);
		if (by_mass) {
			double target = (double)p->top_p * mass_up_to(s, buckets, end);
			end = end_of(s, buckets, (struct bucket){INT32_MAX, target}, end, list);
		}
	}
	float least = p->min_p > 0 ? logf(p->min_p < 1 ? p->min_p : 1) : -INFINITY;
	if (least > end.z)
		end = (struct prefix){least, INT32_MAX};
	return end;
}

static uint64_t noise_base(uint64_t seed, int64_t position)
{
	return hash_mix(hash_mix(seed) + (uint64_t)position);
}

static double gumbel(uint64_t hash)
{
	double u = ((double)(hash >> 11) + 0.5) * 0x1p-53;
	return -log(-log(u));
}

double pick_noise(uint64_t seed, int64_t position, int32_t id)
{
	return gumbel(hash_mix(noise_base(seed, position) + (uint64_t)id));
}

/* argmax of z + noise over the prefix; `first` is the most probable id. */
static int32_t sample(const struct pick_op *op, const struct scaled *s, struct prefix end,
					  int32_t first)
{
	uint64_t base = noise_base(op->ask->params.seed, op->ask->position);
	int32_t best_id = first;
	double best = (double)s->z[first] + gumbel(hash_mix(base + (uint64_t)first));
	/* z + noise > best needs u > exp(-exp(z - best)) >= 1 - exp(z - best): a product instead of two
	 * logs for almost every id. The slack covers the rounding of e^z. */
	float ratio = (float)exp(-best) * 1.0001f;
	for (int32_t i = 0; i < op->vocab; i++) {
		if (s->z[i] < end.z || (s->z[i] == end.z && i > end.id))
			continue;
		uint64_t hash = hash_mix(base + (uint64_t)i);
		float rest = 1 - (float)(hash >> 40) * 0x1p-24f - 0x1p-24f; // at most 1 - u
		if (rest > s->e[i] * ratio)
			continue;
		double score = (double)s->z[i] + gumbel(hash);
		if (score > best || (score == best && i < best_id)) {
			best = score;
			best_id = i;
			ratio = (float)exp(-best) * 1.0001f;
		}
	}
	return best_id;
}

/* scratch: the scaled logits, their exponentials, a list of the vocabulary. */
static int32_t draw(const struct cpu_rung *rung, const struct pick_op *op, struct prefix first,
					float *scratch)
{
	const float *logits = op->logits;
	float *restrict z = scratch, *restrict e = z + op->vocab;
	float temperature = op->ask->params.temperature;
	for (int i = 0; i < op->vocab; i++) {
		float v = (logits[i] - first.z) / temperature;
		z[i] = v <= 0 ? v : -INFINITY; // NaN too
		e[i] = z[i];
	}
	rung->exp(e, op->vocab);
	struct scaled s = {z, e, op->vocab};
	struct prefix end = filter(&op->ask->params, &s, (struct prefix *)(e + op->vocab));
	return sample(op, &s, end, first.id);
}

/* scratch: (PICK_SCRATCH_FLOATS, vocab). -1 and a sentence when the logits have no finite maximum.
 */
#define PICK_SCRATCH_FLOATS 4
static int pick_one(const struct cpu_rung *rung, const struct pick_op *op, float *scratch,
					struct error *err)
{
	const struct pick_params *p = &op->ask->params;
	struct picked *out = op->out;
	struct prefix top[N_ALTERNATIVES];
	find_top(op, top);
	float max = top[0].z;
	if (op->vocab < 1 || top[0].id < 0 || !isfinite(max))
		return fail(err, "position %lld: the largest logit of %d is not finite",
					(long long)op->ask->position, op->vocab);
	if (p->forced >= op->vocab)
		return fail(err, "forced token %d, expected below %d", (int)p->forced, op->vocab);
	double total = log_sum(rung, op, max, &out->entropy);
	out->id = top[0].id;
	if (p->forced >= 0)
		out->id = p->forced;
	else if (p->temperature > 0 && p->top_k != 1)
		out->id = draw(rung, op, top[0], scratch);
	out->logprob = (float)((double)op->logits[out->id] - (double)max - total);
	for (int k = 0; k < N_ALTERNATIVES; k++) {
		out->top[k].id = top[k].id;
		out->top[k].logprob =
			top[k].id < 0 ? -INFINITY : (float)((double)top[k].z - (double)max - total);
	}
	return 0;
}

void cpu_pick(struct device *device, int n_lanes, const struct pick_op *op)
{
	for (const struct pick_op *o = op; o < op + n_lanes && !device->failed; o++) {
		size_t n = o->vocab > 0 ? (size_t)o->vocab : 0;
		float *scratch =
			device_scratch(device, SCRATCH_PICK, n, PICK_SCRATCH_FLOATS * sizeof *scratch);
		struct error err = {0};
		if (scratch && pick_one(device->rung, o, scratch, &err) < 0)
			fail(device_failure(device), "%s", err.text);
	}
}
