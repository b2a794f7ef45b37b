/* Sampling parameters: what wins over what, and what is refused. */
#include "core/sampler.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

static void the_checkpoint_recommends(void **state)
{
	struct config config = {.temperature = -1, .top_p = -1, .do_sample = -1};
	struct elastic *elastic = test_calloc(1, sizeof *elastic); // too large for a stack
	struct pick_params params;
	(void)state;

	elastic->temperature = elastic->top_p = -1;
	sampler_defaults(&params, &config, elastic);
	assert_true(params.temperature == 1 && params.top_p == 1 && params.min_p == 0);
	assert_true(params.top_k == 0 && params.seed == 0 && params.forced == -1);

	config.temperature = 0.6f;
	config.top_p = 0.95f;
	sampler_defaults(&params, &config, NULL);
	assert_true(params.temperature == 0.6f && params.top_p == 0.95f);

	config.do_sample = 0;
	sampler_defaults(&params, &config, elastic);
	assert_true(params.temperature == 0);

	elastic->temperature = 0.3f;
	elastic->top_p = 0.5f;
	sampler_defaults(&params, &config, elastic);
	assert_true(params.temperature == 0.3f && params.top_p == 0.5f);

	config.do_sample = 1;
	elastic->temperature = 0;
	sampler_defaults(&params, &config, elastic);
	assert_true(params.temperature == 0);
	test_free(elastic);
}

static void nonsense_is_refused(void **state)
{
	const struct pick_params good = {.temperature = 1, .top_p = 1, .forced = -1};
	struct pick_params params = good;
	struct error err = {0};
	(void)state;

	assert_int_equal(sampler_check(&params, &err), 0);
	params.temperature = 100;
	assert_int_equal(sampler_check(&params, &err), 0);
	params.temperature = 101;
	assert_int_equal(sampler_check(&params, &err), -1);
	assert_string_equal(err.text, "temperature 101: expected 0 (greedy) to 100");
	params.temperature = NAN;
	assert_int_equal(sampler_check(&params, &err), -1);
	params.temperature = -0.5f;
	assert_int_equal(sampler_check(&params, &err), -1);
	params = good;
	params.top_p = 0;
	assert_int_equal(sampler_check(&params, &err), -1);
	assert_string_equal(err.text, "top-p 0: expected more than 0, at most 1");
	params.top_p = 1.5f;
	assert_int_equal(sampler_check(&params, &err), -1);
	params = good;
	params.min_p = 1;
	assert_int_equal(sampler_check(&params, &err), -1);
	params = good;
	params.top_k = -1;
	assert_int_equal(sampler_check(&params, &err), -1);
	assert_string_equal(err.text, "top-k -1: expected 0 (off) or more");
}

static void seeds_can_be_typed_again(void **state)
{
	uint64_t first = sampler_new_seed();
	bool differ = false;
	(void)state;

	for (int i = 0; i < 100; i++) {
		uint64_t seed = sampler_new_seed();
		assert_in_range(seed, 1, 0x7fffffff);
		differ = differ || seed != first;
	}
	assert_true(differ);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_checkpoint_recommends),
		cmocka_unit_test(nonsense_is_refused),
		cmocka_unit_test(seeds_can_be_typed_again),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
