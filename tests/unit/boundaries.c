/* Slice boundaries: Student's t against known values, planted steps found where they are, silence
 * without any: random profiles, trends, sorted channels. */
#include "inspect/boundaries.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define WIDTH 192
#define PROFILES 24

/* Only hidden_size, an even shorter FFN, and Mamba heads in groups. */
static struct config small_config(void)
{
	return (struct config){.n_layers = 2,
						   .kinds = {LAYER_MAMBA, LAYER_MLP},
						   .hidden_size = WIDTH,
						   .intermediate_size = 8,
						   .mamba_num_heads = 48,
						   .n_groups = 2,
						   .mamba_head_dim = 4};
}

static uint64_t state;

static double uniform(void)
{
	state = state * 6364136223846793005u + 1442695040888963407u;
	return ((double)(state >> 11) + 0.5) / 9007199254740992.0;
}

/* A channel's sum of squares over 64 weights: about normal, relative scatter sqrt(2/64). */
static double square(double norm)
{
	double sum = 0;

	for (int i = 0; i < 12; i++)
		sum += uniform();
	return norm * norm * fmax(0.05, 1 + (sum - 6) * sqrt(2 / 64.0));
}

static void must(int result, const struct error *err)
{
	if (result)
		print_error("%s\n", err->text);
	assert_int_equal(result, 0);
}

struct step {
	int at;
	double factor; // of the norms behind it
};

static void fill(struct boundaries *b, enum axis axis, int n, int profiles,
				 const struct step *steps, int n_steps, double trend)
{
	double squares[WIDTH];
	struct error err = {0};

	for (int p = 0; p < profiles; p++) {
		for (int i = 0; i < n; i++) {
			double norm = 1 - trend * i / n;
			for (int s = 0; s < n_steps; s++)
				norm *= i % n >= steps[s].at ? steps[s].factor : 1;
			squares[i] = square(norm);
		}
		must(boundaries_add(b, axis, squares, &err), &err);
	}
}

static void student_is_students(void **unused)
{
	static const struct {
		double t, df, p;
	} known[] = {{0, 5, 1},
				 {12.706204736432095, 1, 0.05},
				 {2.2281388519649385, 10, 0.05},
				 {-3, 2, 1 - 3 / 3.3166247903554}, // closed form: 1 - t / sqrt(2 + t^2)
				 {1, 1, 0.5}};
	(void)unused;
	for (size_t i = 0; i < sizeof known / sizeof *known; i++)
		assert_true(fabs(student_two_sided(known[i].t, known[i].df) - known[i].p) <
					2e-5 * known[i].p + 1e-12);
	assert_true(student_two_sided(INFINITY, 9) == 0);
	assert_true(student_two_sided(40, 60) > 0 && student_two_sided(40, 60) < 1e-40);
}

static void planted_steps_are_found(void **unused)
{
	const struct step steps[] = {{64, 0.9}, {128, 0.9}};
	struct config config = small_config();
	struct error err = {0};
	int more = 0;
	(void)unused;
	for (uint64_t seed = 1; seed <= 20; seed++) {
		struct boundaries b;
		state = seed;
		must(boundaries_open(&b, &config, &err), &err);
		fill(&b, AXIS_HIDDEN, WIDTH, PROFILES, steps, 2, 0.3);
		must(boundaries_search(&b, &err), &err);
		int n = 0;
		for (int i = 0; i < b.n; i++) {
			bool planted = n < 2 && b.list[i].width == steps[n].at;
			assert_int_equal(b.list[i].axis, AXIS_HIDDEN);
			more += b.list[i].found && !planted;
			if (!planted)
				continue;
			assert_true(b.list[i].p < 1e-10);
			assert_true(fabs(b.list[i].step + 0.1) < 0.04);
			n++;
		}
		assert_int_equal(n, 2);
		boundaries_free(&b);
	}
	assert_in_range(more, 0, 2); // of 20 at p 0.01
}

/* Heads by place inside their group, widths as a budget has them; the short axis is not tried. */
static void groups_are_one_profile_each(void **unused)
{
	struct config config = small_config();
	struct error err = {0};
	struct boundaries b;
	double squares[48];
	(void)unused;
	state = 3;
	must(boundaries_open(&b, &config, &err), &err);
	assert_int_equal(b.axes[AXIS_MAMBA_HEADS].n, 24);
	assert_true(b.axes[AXIS_FFN].too_short);
	assert_int_equal(b.axes[AXIS_EXPERTS].n, 0);
	for (int p = 0; p < PROFILES; p++) {
		for (int i = 0; i < 48; i++)
			squares[i] = square(i % 24 < 16 ? 1 : 0.6);
		must(boundaries_add(&b, AXIS_MAMBA_HEADS, squares, &err), &err);
	}
	memset(squares, 0, sizeof squares); // says nothing
	must(boundaries_add(&b, AXIS_MAMBA_HEADS, squares, &err), &err);
	assert_int_equal(b.axes[AXIS_MAMBA_HEADS].profiles, 2 * PROFILES);
	must(boundaries_search(&b, &err), &err);
	assert_int_equal(b.n, 1);
	assert_int_equal(b.list[0].at, 16);
	assert_int_equal(b.list[0].width, 32);
	struct text text = {0};
	must(boundaries_elastic(&b, &config, &text, &err), &err);
	assert_non_null(strstr(text_chars(&text), "\"found-1\", \"hidden_size\": 192"));
	assert_non_null(strstr(text_chars(&text), "\"mamba_num_heads\": 32"));
	assert_null(strstr(text_chars(&text), "found-2"));
	text_free(&text);
	boundaries_free(&b);
}

static int falling(const void *a, const void *b)
{
	const double *x = a, *y = b;
	return (*x < *y) - (*x > *y);
}

/* n seeds of one kind of profile; how many have a step that counts as found. */
static int false_finds(int n, int profiles, double trend, bool sorted)
{
	struct config config = small_config();
	struct error err = {0};
	int found = 0;

	for (int seed = 1; seed <= n; seed++) {
		struct boundaries b;
		double importance[WIDTH], squares[WIDTH];
		state = (uint64_t)seed * 977;
		must(boundaries_open(&b, &config, &err), &err);
		for (int i = 0; i < WIDTH; i++)
			importance[i] = 0.8 + 0.4 * uniform();
		if (sorted)
			qsort(importance, WIDTH, sizeof *importance, falling);
		for (int p = 0; p < profiles; p++) {
			for (int i = 0; i < WIDTH; i++)
				squares[i] = square((sorted ? importance[i] : 1) * (1 - trend * i / WIDTH));
			must(boundaries_add(&b, AXIS_HIDDEN, squares, &err), &err);
		}
		must(boundaries_search(&b, &err), &err);
		for (int i = 0; i < b.n; i++)
			if (b.list[i].found) {
				found++;
				break;
			}
		boundaries_free(&b);
	}
	return found;
}

/* At p 0.01, 200 seeds give 2 on average, more than 7 once in a thousand. */
static void without_a_step_it_is_silent(void **unused)
{
	(void)unused;
	int random = false_finds(200, PROFILES, 0, false), single = false_finds(200, 1, 0, false);
	int trend = false_finds(200, PROFILES, 0.5, false), sorted = false_finds(200, 4, 0, true);
	print_message("false finds of 200: random %d, one profile %d, trend %d, sorted %d\n", random,
				  single, trend, sorted);
	assert_in_range(random, 0, 7);
	assert_in_range(single, 0, 7);
	assert_in_range(trend, 0, 7);
	assert_in_range(sorted, 0, 7);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(student_is_students),
		cmocka_unit_test(planted_steps_are_found),
		cmocka_unit_test(groups_are_one_profile_each),
		cmocka_unit_test(without_a_step_it_is_silent),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
