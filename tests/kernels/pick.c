/* Choosing an id against the plain way: sort everything, filter, take the argmax of logit + noise.
 */
#include "kernels/pick.h"
#include "tests/kernels/case.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct entry {
	double z, p;
	int32_t id;
};

static int by_logit(const void *left, const void *right)
{
	const struct entry *a = left, *b = right;
	return a->z > b->z ? -1 : a->z < b->z ? 1 : a->id - b->id;
}

static struct pick_ask *ask; // where the device reads it

static struct picked pick(const float *logits, int vocab, int64_t position,
						  struct pick_params params)
{
	struct picked out;
	*ask = (struct pick_ask){position, params};
	struct pick_op op = {logits, vocab, ask, &out};
	case_backend->pick(case_device(1), 1, &op);
	case_finish(case_device(1));
	return out;
}

/* The kept prefix of the sorted ids and their probabilities; its length. */
static int sorted_prefix(const float *logits, int vocab, const struct pick_params *p,
						 struct entry *e)
{
	for (int i = 0; i < vocab; i++)
		e[i] = (struct entry){(double)logits[i], 0, i};
	qsort(e, (size_t)vocab, sizeof *e, by_logit);
	double max = e[0].z, total = 0, sum = 0;
	for (int i = 0; i < vocab; i++)
		e[i].z = (e[i].z - max) / (double)p->temperature;
	int n = p->top_k > 0 && p->top_k < vocab ? p->top_k : vocab, kept = 0;
	for (int i = 0; i < n; i++)
		total += e[i].p = exp(e[i].z);
	while (kept < n && (p->top_p >= 1 || sum < (double)p->top_p * total))
		sum += e[kept++].p;
	n = kept > 1 ? kept : 1;
	for (kept = 1; kept < n && e[kept].p >= (double)p->min_p;)
		kept++;
	return kept;
}

static int32_t plain_way(const float *logits, int vocab, int64_t position,
						 const struct pick_params *p)
{
	struct entry *e = malloc((size_t)vocab * sizeof *e);
	int n = sorted_prefix(logits, vocab, p, e);
	int best = 0;
	double best_score = -INFINITY;
	for (int i = 0; i < n; i++) {
		double score = e[i].z + pick_noise(p->seed, position, e[i].id);
		if (score > best_score) {
			best = i;
			best_score = score;
		}
	}
	int32_t id = e[best].id;
	free(e);
	return id;
}

static void filters_agree_with_a_full_sort(void **state)
{
	(void)state;
	for (int round = 0; round < case_rounds(400, 1); round++) {
		case_seed((uint64_t)round);
		ask = case_new_bytes(sizeof *ask);
		int vocab = case_int(1, round % 20 ? 300 : 20000);
		float *logits = case_new((size_t)vocab), spread = (float)case_int(1, 40);
		for (int i = 0; i < vocab; i++) // some rounds with many ties
			logits[i] = round % 3 ? logits[i] * spread : (float)(int)(logits[i] * 3);
		struct pick_params p = {.seed = (uint64_t)round,
								.temperature = 0.1f * (float)case_int(1, 20),
								.top_p = 1,
								.forced = -1};
		if (case_int(0, 1))
			p.top_p = 0.05f * (float)case_int(1, 19) + 0.001f;
		if (case_int(0, 1))
			p.top_k = case_int(1, 60);
		if (case_int(0, 1))
			p.min_p = 0.0317f * (float)case_int(1, 20);
		for (int64_t position = 0; position < 5; position++)
			assert_int_equal(pick(logits, vocab, position, p).id,
							 plain_way(logits, vocab, position, &p));
		case_done();
	}
}

#define N_AT_ONCE 34 // more than a launch takes

/* Lanes of any vocabulary and parameters side by side; flat logits with thousands of ties. */
static void lanes_pick_apart(void **state)
{
	(void)state;
	for (int round = 0; round < case_rounds(80, 2); round++) {
		struct pick_op op[N_AT_ONCE];
		struct picked out[N_AT_ONCE];
		int n = round % 2 ? 3 : N_AT_ONCE;
		case_seed(9000 + (uint64_t)round);
		struct pick_ask *asks = case_new_bytes((size_t)n * sizeof *asks);
		for (int l = 0; l < n; l++) {
			int vocab = round % 2 ? case_int(5000, 9000) : case_int(1, 400);
			float *logits = case_new((size_t)vocab);
			for (int i = 0; i < vocab; i++) // a few values, most of them below the best
				logits[i] = round % 2 ? (float)(int)(logits[i] * (l ? 2 : 0)) : logits[i] * 9;
			asks[l] = (struct pick_ask){
				case_int(0, 999),
				{.seed = (uint64_t)l,
				 .temperature = 0.3f * (float)case_int(0, 5),
				 .top_p = case_int(0, 2) ? 0.05f * (float)case_int(1, 19) + 0.001f : 1,
				 .top_k = case_int(0, 1) ? case_int(1, vocab) : 0,
				 .forced = case_int(0, 9) ? -1 : 0}};
			op[l] = (struct pick_op){logits, vocab, &asks[l], &out[l]};
		}
		case_backend->pick(case_device(1), n, op);
		case_finish(case_device(1));
		for (int l = 0; l < n; l++) {
			struct pick_params p = asks[l].params;
			int32_t id = 0;
			if (p.forced < 0 && p.temperature > 0)
				id = plain_way(op[l].logits, op[l].vocab, asks[l].position, &p);
			else
				for (int i = 1; i < op[l].vocab && p.forced < 0; i++)
					id = op[l].logits[i] > op[l].logits[id] ? i : id;
			assert_int_equal(out[l].id, id);
		}
		case_done();
	}
}

static void greedy_and_logprobs(void **state)
{
	(void)state;
	for (int round = 0; round < case_rounds(40, 10); round++) {
		case_seed(5000 + (uint64_t)round);
		ask = case_new_bytes(sizeof *ask);
		int vocab = case_int(1, round % 8 ? 50 : 5000);
		float *logits = case_new((size_t)vocab);
		for (int i = 0; i < vocab; i++)
			logits[i] = (float)(int)(logits[i] * 8) * 0.7f;
		struct entry *e = malloc((size_t)vocab * sizeof *e);
		struct pick_params greedy = {.temperature = 0, .top_p = 1, .forced = -1};
		struct pick_params sort = {.temperature = 1, .top_p = 1};
		sorted_prefix(logits, vocab, &sort, e);
		double total = 0, weighted = 0;
		for (int i = 0; i < vocab; i++) {
			total += e[i].p;
			weighted += e[i].p * e[i].z;
		}
		struct picked out = pick(logits, vocab, 7, greedy);
		case_near(log(total) - weighted / total, (double)out.entropy, 1e-6, "entropy");
		assert_int_equal(out.id, e[0].id);
		case_near(-log(total), (double)out.logprob, 1e-6, "logprob");
		for (int k = 0; k < N_ALTERNATIVES; k++) {
			assert_int_equal(out.top[k].id, k < vocab ? e[k].id : -1);
			if (k < vocab)
				case_near(e[k].z - log(total), (double)out.top[k].logprob, 1e-6, "top");
		}
		greedy.forced = vocab - 1;
		out = pick(logits, vocab, 7, greedy);
		assert_int_equal(out.id, vocab - 1);
		case_near((double)(logits[vocab - 1] - logits[e[0].id]) - log(total), (double)out.logprob,
				  1e-6, "logprob of the forced id");
		free(e);
		case_done();
	}
}

/* Frequencies follow softmax: 3 sigma of 20,000 draws. */
static void samples_follow_the_distribution(void **state)
{
	(void)state;
	float *logits = case_new(4);
	int count[4] = {0}, n = case_rounds(20000, 1);
	struct pick_params p = {.seed = 42, .temperature = 1, .top_p = 1, .forced = -1};
	double total = 0;
	ask = case_new_bytes(sizeof *ask);
	for (int i = 0; i < 4; i++)
		logits[i] = i < 3 ? (float)i : -1;
	for (int i = 0; i < n; i++)
		count[pick(logits, 4, i, p).id]++;
	for (int i = 0; i < 4; i++)
		total += exp((double)logits[i]);
	for (int i = 0; i < 4; i++) {
		double q = exp((double)logits[i]) / total;
		assert_true(fabs(count[i] - n * q) < 3 * sqrt(n * q * (1 - q)));
	}
	case_done();
}

static void bad_logits_are_an_error(void **state)
{
	(void)state;
	float *logits = case_new(3);
	struct picked out;
	struct error err = {0};
	ask = case_new_bytes(sizeof *ask);
	*ask = (struct pick_ask){12, {.temperature = 1, .top_p = 1, .forced = -1}};
	struct pick_op op = {logits, 3, ask, &out};
	logits[0] = logits[1] = logits[2] = NAN;
	case_backend->pick(case_device(1), 1, &op);
	assert_int_equal(case_backend->finish(case_device(1), &err), -1);
	assert_string_equal(err.text, "position 12: the largest logit of 3 is not finite");
	logits[1] = 1;
	assert_int_equal(pick(logits, 3, 12, ask->params).id, 1);
	ask->params.forced = 3;
	case_backend->pick(case_device(1), 1, &op);
	assert_int_equal(case_backend->finish(case_device(1), &err), -1);
	assert_string_equal(err.text, "forced token 3, expected below 3");
	case_done();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(filters_agree_with_a_full_sort),
		cmocka_unit_test(lanes_pick_apart),
		cmocka_unit_test(greedy_and_logprobs),
		cmocka_unit_test(samples_follow_the_distribution),
		cmocka_unit_test(bad_logits_are_an_error),
	};
	return cmocka_run_group_tests(tests, case_open, case_close);
}
