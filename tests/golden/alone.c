/* A budget that is alone on a device, packed, says what a view of the whole model says; so do the
 * budgets that are nested in it. */
#include "core/module.h"
#include "core/pack.h"
#include "tests/golden/golden.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define N_IDS 4
#define MAX_VOCAB 4096

static const int32_t ids[N_IDS] = {1, 5, 60, 33};

static void plan(const struct golden *g, const struct budget *budget, struct slice *out)
{
	struct error err = {0};
	golden_must(slice_build(out, &g->model->weights, &g->model->config, budget, NULL, NULL, &err),
				&err);
}

static void read_with(struct golden *g, const struct slice *slice, float *out)
{
	struct sequence sequence;
	struct error err = {0};
	golden_sequence(g, &sequence, NULL);
	golden_must(sequence_use(&sequence, slice, &err), &err);
	golden_read(g, &sequence, ids, N_IDS, 3, out);
	sequence_close(&sequence);
}

static void add_bytes(void *user, const struct module *module)
{
	*(uint64_t *)user += module_bytes(module);
}

/* Every budget of the file alone, and over it all that it holds; returns how many it does not.
 * same: the whole model is read in the same order, one span a row. */
static int each_alone(struct golden *g, bool same)
{
	static float whole[N_IDS * MAX_VOCAB], packed[N_IDS * MAX_VOCAB];
	const struct elastic *elastic = &g->model->elastic;
	struct upload upload = {.backend = golden_backend, .device = g->device};
	size_t n = N_IDS * (size_t)g->model->config.vocab_size;
	struct error err = {0};
	int n_refused = 0;
	for (int base = 0; base < elastic->n_budgets; base++) {
		struct pack pack;
		struct slice of_base;
		uint64_t own = 0;
		plan(g, &elastic->budgets[base], &of_base);
		modules_each(&of_base, add_bytes, &own);
		golden_must(pack_open(&pack, &of_base, &upload, &err), &err);
		assert_true(pack.bytes >= own - own / 100 && pack.bytes < own + own / 2);
		for (int i = 0; i < elastic->n_budgets; i++) {
			struct slice over, planned;
			plan(g, &elastic->budgets[i], &planned);
			bool held = pack_holds(&pack, &planned);
			slice_free(&planned);
			assert_true(held || i != base);
			int built = slice_build_packed(&over, &pack, &elastic->budgets[i], &err);
			assert_int_equal(built, held ? 0 : -1);
			n_refused += !held;
			if (!held)
				continue;
			read_with(g, &over, packed);
			read_with(g, golden_slice(g, elastic->budgets[i].name), whole);
			if (same)
				golden_same(elastic->budgets[i].name, packed, whole, n);
			golden_close_to(g, elastic->budgets[i].name, packed, whole, n, 1e-5);
			slice_free(&over);
		}
		pack_close(&pack);
	}
	return n_refused;
}

static void alone(const char *folder, const char *budgets, bool same)
{
	struct golden g;
	golden_open(&g, folder, budgets, MATH_EXACT);
	assert_true(g.model->config.vocab_size <= MAX_VOCAB);
	assert_true(each_alone(&g, same) > 0);
	golden_leave(&g, folder);
	golden_close(&g);
}

static void prefixes(void)
{
	alone("nest-tiny", "elastic.json", true);
}

static void runs_and_layers(void)
{
	alone("nest-tiny", "elastic-allaxes.json", false);
}

static void quantised(void)
{
	alone("quantised/nest-tiny-nvfp4", "elastic.json", true);
	alone("quantised/nest-tiny-fp8", "elastic.json", true);
}

int main(void)
{
	static const struct golden_test tests[] = {
		{"prefixes", prefixes},
		{"runs_and_layers", runs_and_layers},
		{"quantised", quantised},
	};
	return golden_main(tests, 3);
}
