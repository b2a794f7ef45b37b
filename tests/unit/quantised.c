/* Which tensors make a quantised weight, and which are refused: one matrix, its tensors in memory.
 */
#include "core/quantised.h"
#include "tests/unit/folder.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#define ROWS 4
#define COLUMNS 32
#define WEIGHT "m.weight"

/* One stored tensor: bytes repeat `fill` (an F32 if dtype says so). */
struct row {
	const char *name;
	enum dtype dtype;
	int n_dims;
	int64_t shape[2];
	float fill;
};

static const struct row fp8[] = {{WEIGHT, DTYPE_F8_E4M3, 2, {ROWS, COLUMNS}, 0x38},
								 {"m.weight_scale", DTYPE_F32, 0, {0}, 0.5f},
								 {"m.input_scale", DTYPE_F32, 0, {0}, 2}};
static const struct row nvfp4[] = {
	{WEIGHT, DTYPE_U8, 2, {ROWS, COLUMNS / 2}, 0x21},
	{"m.weight_scale", DTYPE_F8_E4M3, 2, {ROWS, COLUMNS / NVFP4_BLOCK}, 0x40},
	{"m.weight_scale_2", DTYPE_F32, 0, {0}, 0.25f},
	{"m.input_scale", DTYPE_F32, 0, {0}, 2}};

static struct folder folder;

/* rows, with the one called like `instead` replaced (dtype N_DTYPES: left out) or added. */
static int bind(const struct row *rows, int n, const struct row *instead, struct tensor *out,
				size_t *n_used, struct error *err)
{
	static float data[8][ROWS * COLUMNS];
	struct named_tensor tensors[8] = {0};
	struct row row[8];
	int n_tensors = 0;
	bool placed = instead == NULL;
	for (int i = 0; i < n || !placed; i++) {
		bool replace = instead && (i >= n || strcmp(rows[i].name, instead->name) == 0);
		row[n_tensors] = replace ? *instead : rows[i];
		placed = placed || replace;
		n_tensors += row[n_tensors].dtype != N_DTYPES;
	}
	for (int i = 0; i < n_tensors; i++) {
		struct tensor *t = &tensors[i].tensor;
		size_t elements = 1;
		for (int d = 0; d < row[i].n_dims; d++)
			elements *= (size_t)(t->shape[d] = row[i].shape[d]);
		t->dtype = row[i].dtype;
		t->n_dims = row[i].n_dims;
		t->data = data[i];
		t->bytes = elements * dtype_bytes(t->dtype);
		if (t->dtype == DTYPE_F32)
			data[i][0] = data[i][1] = row[i].fill;
		else
			memset(data[i], (int)row[i].fill, t->bytes);
		tensors[i].name = row[i].name;
	}
	char path[300];
	struct checkpoint checkpoint;
	snprintf(path, sizeof path, "%s/m.safetensors", folder.path);
	assert_int_equal(checkpoint_write(path, tensors, (size_t)n_tensors, err), 0);
	assert_int_equal(checkpoint_open_file(&checkpoint, path, err), 0);
	uint8_t used[8] = {0};
	const struct tensor *weight = checkpoint_find(&checkpoint, WEIGHT);
	*out = weight ? *weight : (struct tensor){0};
	int result = quantised_bind(out, &checkpoint, used, WEIGHT, (int64_t[]){ROWS, COLUMNS}, err);
	*n_used = 0;
	for (int i = 0; i < 8; i++)
		*n_used += used[i];
	checkpoint_close(&checkpoint);
	remove(path);
	return result;
}

static void binds_both_formats(void **state)
{
	(void)state;
	struct error err = {0};
	struct tensor t;
	size_t n_used;
	assert_int_equal(bind(fp8, 3, NULL, &t, &n_used, &err), 0);
	assert_int_equal(t.dtype, DTYPE_F8_E4M3);
	assert_int_equal(t.shape[1], COLUMNS);
	assert_true(t.scale == 0.5f && !t.scales);
	assert_int_equal(n_used, 2); // the weight itself is the caller's
	assert_int_equal(bind(nvfp4, 4, NULL, &t, &n_used, &err), 0);
	assert_int_equal(t.dtype, DTYPE_NVFP4);
	assert_int_equal(t.shape[0], ROWS);
	assert_int_equal(t.shape[1], COLUMNS);
	assert_true(t.scale == 0.25f && t.scales);
	assert_int_equal(n_used, 3);
	// weight-only: without input_scale; a plain weight stays what it is
	assert_int_equal(bind(nvfp4, 3, NULL, &t, &n_used, &err), 0);
	assert_int_equal(t.dtype, DTYPE_NVFP4);
	struct row plain = {WEIGHT, DTYPE_BF16, 2, {ROWS, COLUMNS}, 0};
	assert_int_equal(bind(&plain, 1, NULL, &t, &n_used, &err), 0);
	assert_int_equal(t.dtype, DTYPE_BF16);
	assert_true(t.scale == 0 && n_used == 0);
}

static void refuses_bad_tensors(void **state)
{
	(void)state;
	static const struct {
		bool blocks; // NVFP4
		struct row instead;
		const char *says;
	} cases[] = {
		{false, {"m.weight_scale", DTYPE_F32, 0, {0}, NAN}, "m.weight_scale\" is nan, expected a"},
		{false, {"m.weight_scale", DTYPE_F32, 0, {0}, INFINITY}, "\" is inf, expected a finite"},
		{false, {"m.weight_scale", DTYPE_F32, 0, {0}, -1}, "\" is -1, expected a finite number"},
		{false, {"m.weight_scale", DTYPE_F32, 0, {0}, 0}, "\" is 0, expected a finite number"},
		{false, {"m.input_scale", DTYPE_F32, 0, {0}, NAN}, "m.input_scale\" is nan"},
		{false,
		 {"m.weight_scale", DTYPE_F32, 1, {ROWS}, 1},
		 "\"m.weight_scale\" is F32 [4], expected one F32 for the whole matrix"},
		{false, {WEIGHT, DTYPE_BF16, 2, {ROWS, COLUMNS}, 0}, "is BF16, but has a weight_scale"},
		{false,
		 {WEIGHT, DTYPE_F8_E4M3, 2, {ROWS, COLUMNS / 2}, 0},
		 "is F8_E4M3 [4, 16], expected F8_E4M3 [4, 32]"},
		{false,
		 {WEIGHT, DTYPE_F8_E4M3, 2, {ROWS, COLUMNS}, 0xff},
		 "\"m.weight\" has a NaN (E4M3 byte 0xff) at element 0"},
		{false,
		 {"m.weight_scale", N_DTYPES, 0, {0}, 0},
		 "is F8_E4M3, but its scale \"m.weight_scale\" is missing"},
		{true,
		 {"m.weight_scale_2", N_DTYPES, 0, {0}, 0},
		 "is U8 with a weight_scale, but its weight_scale_2 is missing"},
		{true, {"m.weight_scale_2", DTYPE_F32, 0, {0}, -0.5f}, "weight_scale_2\" is -0.5"},
		{true, {"m.weight_scale", N_DTYPES, 0, {0}, 0}, "\"m.weight_scale\" is missing"},
		{true,
		 {"m.weight_scale", DTYPE_F8_E4M3, 2, {ROWS, 3}, 0x40},
		 "\"m.weight_scale\" is F8_E4M3 [4, 3], expected F8_E4M3 [4, 2]"},
		{true,
		 {"m.weight_scale", DTYPE_F8_E4M3, 2, {ROWS, 2}, 0x7f},
		 "\"m.weight_scale\" has a NaN (E4M3 byte 0x7f)"},
		{true,
		 {"m.weight_scale", DTYPE_F8_E4M3, 2, {ROWS, 2}, 0xb8},
		 "\"m.weight_scale\" is -1 at element 0, expected no negative scale"},
		{true,
		 {WEIGHT, DTYPE_U8, 2, {ROWS, 15}, 0},
		 "\"m.weight\" is U8 [4, 15], expected U8 [4, 16]"},
		{true,
		 {WEIGHT, DTYPE_BF16, 2, {ROWS, COLUMNS}, 0},
		 "\"m.weight\" is BF16 [4, 32], expected U8 [4, 16]"},
		{true,
		 {"m.weight_packed", DTYPE_U8, 2, {ROWS, 16}, 0},
		 "\"m.weight_packed\": the checkpoint is stored as compressed-tensors"},
		{false,
		 {"m.weight_scale_inv", DTYPE_F32, 0, {0}, 1},
		 "stored as FP8 with a scale per block of 128 x 128"},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct error err = {0};
		struct tensor t;
		size_t n_used;
		int result = bind(cases[i].blocks ? nvfp4 : fp8, cases[i].blocks ? 4 : 3, &cases[i].instead,
						  &t, &n_used, &err);
		if (result == 0)
			fail_msg("accepted: %s", cases[i].says);
		if (!strstr(err.text, cases[i].says))
			fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].says);
	}
}

static int make(void **state)
{
	(void)state;
	folder_make(&folder);
	return 0;
}

static int clean(void **state)
{
	(void)state;
	folder_remove(&folder);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(binds_both_formats),
		cmocka_unit_test(refuses_bad_tensors),
	};
	return cmocka_run_group_tests(tests, make, clean);
}
