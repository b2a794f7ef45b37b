/* Whether stored numbers are numbers: every dtype, at every place, and what a NaN that was computed
 * is blamed on. */
#include "core/finite.h"
#include "core/forward.h"
#include "core/model.h"
#include "kernels/convert.h"
#include "tests/unit/folder.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

static struct folder folder;

/* Every E4M3 byte at the places where chunks of a search meet. */
static void codes(void **state)
{
	(void)state;
	static const size_t places[] = {0, 1, 15, 4095, 4096, 8999};
	static uint8_t data[9000];
	assert_int_equal(finite_codes(data, 0, false), 0);
	for (size_t p = 0; p < sizeof places / sizeof places[0]; p++)
		for (int code = 0; code < 256; code++) {
			bool nan = isnan(e4m3_values[code]), low = e4m3_values[code] < 0;
			data[places[p]] = (uint8_t)code;
			assert_int_equal(finite_codes(data, 9000, true), nan ? places[p] : 9000);
			assert_int_equal(finite_codes(data, 9000, false), nan || low ? places[p] : 9000);
			data[places[p]] = 0;
		}
}

static int check_one(const char *name, enum dtype dtype, const void *data, int n, struct error *err)
{
	struct checkpoint checkpoint;
	struct named_tensor t = {name, {.dtype = dtype, .n_dims = 1, .shape = {n}, .data = data}, 0};
	t.tensor.bytes = (uint64_t)n * dtype_bytes(dtype);
	assert_int_equal(checkpoint_write(folder_file(&folder, "t.safetensors"), &t, 1, err), 0);
	assert_int_equal(checkpoint_open_file(&checkpoint, folder_file(&folder, "t.safetensors"), err),
					 0);
	int result = finite_check(&checkpoint, NULL, NULL, err);
	checkpoint_close(&checkpoint);
	return result;
}

static void every_dtype(void **state)
{
	(void)state;
	static const struct {
		enum dtype dtype;
		const char *name;
		uint32_t bits, fine; // the pattern that is found, and one that is not
		const char *says;
	} cases[] = {
		{DTYPE_F32, "a.weight", 0x7fc00000, 0x7f7fffff, "\"a.weight\" is nan at element 5000, "},
		{DTYPE_F32, "a", 0xff800000, 0xff7fffff,
		 "\"a\" is -inf at element 5000, expected a finite"},
		{DTYPE_BF16, "a", 0x7f80, 0x7f7f, "\"a\" is inf at element 5000"},
		{DTYPE_F16, "a", 0x7c01, 0x7bff, "\"a\" is nan at element 5000"},
		{DTYPE_F8_E4M3, "a.weight", 0xff, 0xfe, "\"a.weight\" is nan at element 5000"},
		{DTYPE_F8_E4M3, "a.weight_scale", 0xb8, 0x80,
		 "\"a.weight_scale\" is -1 at element 5000, expected a finite number, not negative"},
		{DTYPE_U8, "a.weight", 0, 0xff, ""},
	};
	static uint32_t data[9001];
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct error err = {0};
		size_t element = dtype_bytes(cases[i].dtype);
		char *at = (char *)data + 5000 * element;
		memcpy(at, &cases[i].fine, element);
		assert_int_equal(check_one(cases[i].name, cases[i].dtype, data, 9001, &err), 0);
		memcpy(at, &cases[i].bits, element);
		int result = check_one(cases[i].name, cases[i].dtype, data, 9001, &err);
		assert_int_equal(result, cases[i].says[0] ? -1 : 0);
		if (!strstr(err.text, cases[i].says))
			fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].says);
		memset(data, 0, sizeof data);
	}
}

static bool stop_at_once(void *user, uint64_t done)
{
	*(uint64_t *)user = done;
	return false;
}

/* One token of a model with a NaN that opening did not see. */
static void blames_the_tensor(void **state)
{
	(void)state;
	struct error err = {0};
	char path[1024];
	snprintf(path, sizeof path, "%s/golden/quantised/nest-tiny-fp8", getenv("ELASTISCOPE_TESTS"));
	struct model *model = model_open(path, NULL, &err);
	assert_non_null(model);
	uint64_t done = 0;
	assert_int_equal(finite_check(&model->checkpoint, stop_at_once, &done, &err), 0); // one step
	struct device *device =
		backend_cpu.open(&(struct device_options){.n_threads = 1, .kv_dtype = DTYPE_F32}, &err);
	/* The file is mapped read-only: the broken matrix is a copy that the weights point to. */
	struct tensor *in_proj = &model->weights.layers[0].in_proj;
	uint8_t *copy = malloc(in_proj->bytes);
	assert_non_null(copy);
	memcpy(copy, in_proj->data, in_proj->bytes);
	memset(copy, 0x7f, in_proj->bytes);
	in_proj->data = copy;
	for (size_t i = 0; i < model->checkpoint.n_tensors; i++)
		if (!strcmp(model->checkpoint.tensors[i].name, "backbone.layers.0.mixer.in_proj.weight"))
			model->checkpoint.tensors[i].tensor.data = copy;
	struct slice slice;
	struct sequence sequence;
	assert_int_equal(slice_build(&slice, &model->weights, &model->config,
								 &model->elastic.budgets[0], &backend_cpu, device, &err),
					 0);
	assert_int_equal(
		sequence_open(&sequence, &model->config, &backend_cpu, device, DTYPE_F32, 8, &err), 0);
	assert_int_equal(sequence_use(&sequence, &slice, &err), 0);
	struct workspace *workspace =
		workspace_open(&model->config, &backend_cpu, device, 1, 8, false, &err);
	struct lane lane = {
		.sequence = &sequence, .tokens = (int32_t[]){5}, .n_tokens = 1, .logits = LOGITS_LAST};
	struct pick_params greedy = {.top_p = 1, .forced = -1};
	struct picked picked;
	assert_int_equal(forward(workspace, &lane, 1, &greedy, &picked, &err), -1);
	assert_non_null(
		strstr(err.text, "tensor \"backbone.layers.0.mixer.in_proj.weight\" is nan at element 0"));
	assert_non_null(strstr(err.text, "is not finite"));
	workspace_close(workspace);
	sequence_close(&sequence);
	slice_free(&slice);
	backend_cpu.close(device);
	model_release(model);
	free(copy);
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
		cmocka_unit_test(codes),
		cmocka_unit_test(every_dtype),
		cmocka_unit_test(blames_the_tensor),
	};
	return cmocka_run_group_tests(tests, make, clean);
}
