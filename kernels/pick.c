#include "kernels/pick.h"
#include "base/hash.h"
#include "kernels/cpu_device.h"
#include <math.h>
#include <stdlib.h>

#define N_BUCKETS 1024
#define BUCKET_WIDTH 0.0625f // of (max - logit) / temperature; the last bucket holds the rest

/* The last id of the prefix that is kept: (z, id) with z >= end's, ties up to end's id. */
struct prefix {
	float z;
	int32_t id;
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

static int compare(const void *left, const void *right)
{
	const struct prefix *a = left, *b = right;
	return before(a->z, a->id, *b) ? -1 : before(b->z, b->id, *a) ? 1 : 0;
}

static int bucket_of(float z)
{
	float at = -z / BUCKET_WIDTH;
	return at < N_BUCKETS - 1 ? (int)at : N_BUCKETS - 1;
}

/* The top N_ALTERNATIVES, best first, ties: the lower id. NaN never enters. */
static void find_top(const struct pick_op *op, struct prefix top[N_ALTERNATIVES])
{
	for (int k = 0; k < N_ALTERNATIVES; k++)
		top[k] = (struct prefix){-INFINITY, -1};
	int n = 0;
	for (int32_t i = 0; i < op->vocab; i++) {
		float v = op->logits[i];
		if (n == N_ALTERNATIVES ? !(v > top[n - 1].z) : isnan(v))
			continue;
		int k = n < N_ALTERNATIVES ? n++ : n - 1;
		for (; k > 0 && v > top[k - 1].z; k--)
			top[k] = top[k - 1];
		top[k] = (struct prefix){v, i};
	}
}

/* log(sum(exp(logit - max))) */
static double log_sum(const struct pick_op *op, float max)
{
	double sum = 0;
	for (int block = 0; block < op->vocab; block += 1024) {
		int end = op->vocab - block < 1024 ? op->vocab : block + 1024;
		float part[16] = {0};
		for (int i = block; i < end; i++) // below e^-40 nothing is left of it
			part[i % 16] += op->logits[i] > max - 40 ? expf(op->logits[i] - max) : 0;
		for (int i = 0; i < 16; i++)
			sum += (double)part[i];
	}
	return log(sum);
}

/* The prefix that ends where the running count or mass of bucket `b`'s ids, on top of what lies
 * before, reaches its target; ids past `limit` are not counted. z = scaled logits. */
static struct prefix end_in_bucket(const float *z, int vocab, int b, struct bucket before_it,
								   struct bucket target, struct prefix limit, struct prefix *list)
{
	int n = 0;
	for (int32_t i = 0; i < vocab; i++)
		if (z[i] > -INFINITY && bucket_of(z[i]) == b && inside(z[i], i, limit))
			list[n++] = (struct prefix){z[i], i};
	qsort(list, (size_t)n, sizeof *list, compare);
	for (int i = 0; i < n; i++) {
		before_it.count++;
		before_it.mass += exp((double)list[i].z);
		if (before_it.count >= target.count || before_it.mass >= target.mass)
			return list[i];
	}
	return n ? list[n - 1] : limit;
}

/* Where the sorted prefix reaches target.count ids or target.mass, whichever is first. */
static struct prefix end_of(const float *z, int vocab, const struct bucket *buckets,
							struct bucket target, struct prefix limit, struct prefix *list)
{
	struct bucket sum = {0};
	int last = bucket_of(limit.z > -INFINITY ? limit.z : -1e30f), b = 0;
	for (; b < last; b++) {
		if (sum.count + buckets[b].count >= target.count ||
			sum.mass + buckets[b].mass >= target.mass)
			break;
		sum.count += buckets[b].count;
		sum.mass += buckets[b].mass;
	}
	return end_in_bucket(z, vocab, b, sum, target, limit, list);
}

/* Mass of softmax's numerators up to `end`. */
static double mass_up_to(const float *z, int vocab, const struct bucket *buckets, struct prefix end)
{
	int b = bucket_of(end.z > -INFINITY ? end.z : -1e30f);
	double mass = 0;
	for (int i = 0; i < b; i++)
		mass += buckets[i].mass;
	for (int32_t i = 0; i < vocab; i++)
		if (z[i] > -INFINITY && bucket_of(z[i]) == b && inside(z[i], i, end))
			mass += exp((double)z[i]);
	return mass;
}

/* The kept prefix. z = (logit - max) / temperature, NaN as -inf. */
static struct prefix filter(const struct pick_params *p, const float *z, int vocab,
							struct prefix *list)
{
	struct prefix end = {-INFINITY, INT32_MAX};
	bool by_count = p->top_k > 0 && p->top_k < vocab, by_mass = p->top_p < 1;
	if (by_count || by_mass) {
		struct bucket buckets[N_BUCKETS] = {0};
		for (int i = 0; i < vocab; i++) {
			if (!(z[i] > -INFINITY))
				continue;
			struct bucket *b = &buckets[bucket_of(z[i])];
			b->count++;
			b->mass += (double)expf(z[i]);
		}
		if (by_count)
			end = end_of(z, vocab, buckets, (struct bucket){p->top_k, INFINITY}, end, list);
		if (by_mass) {
			double target = (double)p->top_p * mass_up_to(z, vocab, buckets, end);
			end = end_of(z, vocab, buckets, (struct bucket){INT32_MAX, target}, end, list);
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
static int32_t sample(const struct pick_op *op, const float *z, struct prefix end, int32_t first)
{
	uint64_t base = noise_base(op->params.seed, op->position);
	int32_t best_id = first;
	double best = (double)z[first] + gumbel(hash_mix(base + (uint64_t)first));
	/* z + noise > best needs u > exp(-exp(z - best)) >= 1 - exp(z - best): one exp (or less)
	 * instead of two logs for almost every id. The slack covers expf's rounding. */
	float ratio = (float)exp(-best) * 1.0001f;
	for (int32_t i = 0; i < op->vocab; i++) {
		if (!inside(z[i], i, end) || i == first || z[i] == -INFINITY)
			continue;
		uint64_t hash = hash_mix(base + (uint64_t)i);
		float rest = 1 - (float)(hash >> 40) * 0x1p-24f - 0x1p-24f; // at most 1 - u
		if (rest > ratio || rest > expf(z[i]) * ratio)
			continue;
		double score = (double)z[i] + gumbel(hash);
		if (score > best || (score == best && i < best_id)) {
			best = score;
			best_id = i;
			ratio = (float)exp(-best) * 1.0001f;
		}
	}
	return best_id;
}

int pick_one(const struct pick_op *op, float *scratch, struct error *err)
{
	const struct pick_params *p = &op->params;
	struct picked *out = op->out;
	struct prefix top[N_ALTERNATIVES];
	find_top(op, top);
	float max = top[0].z;
	if (op->vocab < 1 || top[0].id < 0 || !isfinite(max))
		return fail(err, "position %lld: the largest logit of %d is not finite",
					(long long)op->position, op->vocab);
	if (p->forced >= op->vocab)
		return fail(err, "forced token %d, expected below %d", (int)p->forced, op->vocab);
	double total = log_sum(op, max);
	out->id = top[0].id;
	if (p->forced >= 0) {
		out->id = p->forced;
	} else if (p->temperature > 0 && p->top_k != 1) {
		float *z = scratch;
		for (int i = 0; i < op->vocab; i++) {
			z[i] = (op->logits[i] - max) / p->temperature;
			if (isnan(z[i]))
				z[i] = -INFINITY;
		}
		struct prefix end = filter(p, z, op->vocab, (struct prefix *)(scratch + op->vocab));
		out->id = sample(op, z, end, top[0].id);
	}
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
		/* scaled logits, then a bucket's list: at worst the whole vocabulary */
		size_t n = o->vocab > 0 ? (size_t)o->vocab : 0;
		float *scratch =
			device_scratch(device, SCRATCH_PICK, n, sizeof(float) + sizeof(struct prefix));
		struct error err = {0};
		if (scratch && pick_one(o, scratch, &err) < 0)
			fail(device_failure(device), "%s", err.text);
	}
}
