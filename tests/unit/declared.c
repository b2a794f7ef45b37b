/* What hf_quant_config.json and quantization_config say of modules, and which tensors contradict
 * them. */
#include "core/declared.h"
#include "tests/unit/folder.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static struct folder folder;

static void write_json(const char *file, const char *text)
{
	folder_write(&folder, file, text, strlen(text));
}

static void read_declared(struct declared *d, struct text *notices)
{
	struct error err = {0};
	if (declared_read(d, folder.path, notices, &err) != 0)
		fail_msg("%s", err.text);
}

#define HF(members) "{\"quantization\": {" members "}}"

/* Names, modules around them, wildcards and both prefixes. */
static void excludes(void **state)
{
	(void)state;
	static const struct {
		const char *list, *module;
		bool excluded;
	} cases[] = {
		{"\"backbone.layers.4.mixer.in_proj\"", "backbone.layers.4.mixer.in_proj", true},
		{"\"model.layers.4.mixer.in_proj\"", "backbone.layers.4.mixer.in_proj", true},
		{"\"backbone.layers.4.mixer.in_proj\"", "model.layers.4.mixer.in_proj", true},
		{"\"backbone.layers.4.mixer.in_proj\"", "backbone.layers.41.mixer.in_proj", false},
		{"\"backbone.layers.4\"", "backbone.layers.4.mixer.in_proj", true},
		{"\"backbone.layers.4\"", "backbone.layers.41.mixer.in_proj", false},
		{"\"model.layers.*.mixer.in_proj\"", "backbone.layers.4.mixer.in_proj", true},
		{"\"model.layers.*.mixer.in_proj\"", "backbone.layers.4.mixer.out_proj", false},
		{"\"*.mixer.[qkvo]_proj\"", "backbone.layers.5.mixer.k_proj", true},
		{"\"*lm_head*\"", "lm_head", true},
		{"\"x\", \"lm_head\", \"a\"", "lm_head", true},
		{"\"*.in_proj*\"", "lm_head", false},
		{"7, null, \"lm_head\"", "lm_head", true},
	};
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct declared d;
		struct text notices = {0};
		char text[300];
		bool excluded;
		snprintf(text, sizeof text, HF("\"quant_algo\": \"NVFP4\", \"exclude_modules\": [%s]"),
				 cases[i].list);
		write_json("hf_quant_config.json", text);
		read_declared(&d, &notices);
		assert_string_equal(d.file, "hf_quant_config.json");
		const char *said = declared_algorithm(&d, cases[i].module, &excluded);
		if (excluded != cases[i].excluded)
			fail_msg("[%s] and %s", cases[i].list, cases[i].module);
		assert_string_equal(said, excluded ? "" : "NVFP4");
		assert_int_equal(notices.length, 0);
		declared_free(&d);
	}
	folder_empty(&folder);
}

static void reads_both_files(void **state)
{
	(void)state;
	struct declared d;
	struct text notices = {0};
	bool excluded;
	// nothing
	write_json("config.json", "{\"hidden_size\": 6}");
	read_declared(&d, &notices);
	assert_null(d.file);
	assert_string_equal(declared_algorithm(&d, "lm_head", &excluded), "");
	assert_false(excluded);
	declared_free(&d);
	// newer exports
	write_json(
		"config.json",
		"{\"quantization_config\": {\"quant_method\": \"modelopt\", \"ignore\": [\"lm_head\"],"
		"\"config_groups\": {\"group_0\": {\"weights\": {\"num_bits\": 4, \"type\": \"float\"}}},"
		"\"kv_cache_scheme\": {\"num_bits\": 8, \"type\": \"float\"}}}");
	read_declared(&d, &notices);
	assert_string_equal(d.file, "config.json");
	assert_string_equal(d.algorithm, "NVFP4");
	assert_string_equal(d.kv_algorithm, "FP8");
	declared_algorithm(&d, "lm_head", &excluded);
	assert_true(excluded);
	declared_free(&d);
	// mixed, and hf_quant_config.json goes first
	write_json("hf_quant_config.json",
			   HF("\"quant_algo\": \"MIXED_PRECISION\", \"kv_cache_quant_algo\": null, "
				  "\"quantized_layers\": {\"backbone.b.up_proj\": {\"quant_algo\": \"NVFP4\"},"
				  "\"backbone.a.in_proj\": {\"quant_algo\": \"FP8\"}}"));
	read_declared(&d, &notices);
	assert_string_equal(d.algorithm, "MIXED_PRECISION");
	assert_string_equal(d.kv_algorithm, "");
	assert_string_equal(declared_algorithm(&d, "model.a.in_proj", &excluded), "FP8");
	assert_string_equal(declared_algorithm(&d, "backbone.b.up_proj", &excluded), "NVFP4");
	assert_string_equal(declared_algorithm(&d, "backbone.c", &excluded), "");
	declared_free(&d);
	assert_int_equal(notices.length, 0);
	// not JSON: a notice; not an object: nothing said
	write_json("hf_quant_config.json", "{");
	write_json("config.json", "[]");
	read_declared(&d, &notices);
	assert_null(d.file);
	assert_non_null(strstr(text_chars(&notices), "hf_quant_config.json: "));
	declared_free(&d);
	text_free(&notices);
	folder_empty(&folder);
}

static void contradictions(void **state)
{
	(void)state;
	static float data[64];
	static const char *const names[] = {
		"backbone.layers.0.mixer.in_proj.weight",
		"backbone.layers.0.mixer.in_proj.weight_scale",
		"backbone.layers.1.mixer.q_proj.weight",
		"backbone.layers.1.mixer.gate.weight",
		"backbone.embeddings.weight",
	};
	static const struct {
		const char *hf, *says;
	} cases[] = {
		{HF("\"quant_algo\": \"FP8\", \"exclude_modules\": [\"*q_proj\"]"), ""},
		{HF("\"quant_algo\": \"FP8\", \"exclude_modules\": [\"model.layers.*.mixer.*_proj\"]"),
		 "excludes backbone.layers.0.mixer.in_proj (1 such) from quantisation, its tensors are "
		 "quantised"},
		{HF("\"quant_algo\": \"NVFP4\", \"exclude_modules\": [\"*q_proj\"]"),
		 "says NVFP4 of backbone.layers.0.mixer.in_proj (1 such), the tensors say FP8"},
		{HF("\"quant_algo\": \"FP8\""),
		 "says FP8 of backbone.layers.1.mixer.q_proj (1 such) and does not exclude it"},
		{HF("\"quant_algo\": \"MIXED_PRECISION\", \"quantized_layers\": "
			"{\"backbone.layers.0.mixer.in_proj\": {\"quant_algo\": \"FP8\"}}"),
		 ""},
		{HF("\"quant_algo\": \"W4A8_AWQ\""), ""},
	};
	struct named_tensor tensors[5];
	for (int i = 0; i < 5; i++)
		tensors[i] =
			(struct named_tensor){names[i], {.n_dims = 2, .shape = {4, 4}, .data = data}, 0};
	for (int i = 0; i < 5; i++) {
		tensors[i].tensor.dtype = i == 0 ? DTYPE_F8_E4M3 : DTYPE_F32;
		tensors[i].tensor.bytes = i == 0 ? 16 : 64;
	}
	struct error err = {0};
	struct checkpoint checkpoint;
	assert_int_equal(checkpoint_write(folder_file(&folder, "model.safetensors"), tensors, 5, &err),
					 0);
	assert_int_equal(checkpoint_open(&checkpoint, folder.path, &err), 0);
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct declared d;
		struct text notices = {0};
		write_json("hf_quant_config.json", cases[i].hf);
		read_declared(&d, &notices);
		declared_check(&d, &checkpoint, &notices);
		if (!strstr(text_chars(&notices), cases[i].says) ||
			(notices.length > 0) != (cases[i].says[0] != '\0'))
			fail_msg("case %zu: \"%s\"", i, text_chars(&notices));
		text_free(&notices);
		declared_free(&d);
	}
	checkpoint_close(&checkpoint);
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
		cmocka_unit_test(excludes),
		cmocka_unit_test(reads_both_files),
		cmocka_unit_test(contradictions),
	};
	return cmocka_run_group_tests(tests, make, clean);
}
