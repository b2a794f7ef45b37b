/* BF16, F16, E4M3 and E2M1 against tests/golden/formats/formats.json (made by searching tables of
 * magnitudes).
 */
#include "kernels/convert.h"
#include "base/file.h"
#include "base/json.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

/* A member of a golden row: a pattern, or -1 for "any NaN". */
static int64_t pattern(const struct json *json, const struct json_node *row, const char *key)
{
	const struct json_node *node = json_member(json, row, key);
	int64_t bits = -1;
	assert_non_null(node);
	if (!json_is(node, JSON_STRING))
		assert_int_equal(json_integer(json, node, key, &bits, NULL), 0);
	return bits;
}

static void encoding_is_golden(void **state)
{
	(void)state;
	struct error err = {0};
	struct text source = {0};
	struct json json;
	char *path = file_join(getenv("ELASTISCOPE_TESTS"), "golden/formats/formats.json", &err);
	assert_int_equal(file_read(path, 1 << 20, &source, &err), 0);
	assert_int_equal(json_parse(&json, source.data, source.length, &err), 0);
	const struct json_node *rows = json_member(&json, &json.nodes[0], "encode");
	int n = 0;
	for (const struct json_node *row = json_first(&json, rows); row; n++) {
		const struct json_node *f32 = json_member(&json, row, "f32");
		uint32_t bits = (uint32_t)strtoul(json.source + f32->start, NULL, 16);
		float value;
		memcpy(&value, &bits, sizeof value);
		int64_t bf16 = pattern(&json, row, "bf16"), f16 = pattern(&json, row, "f16");
		if (bf16 < 0)
			assert_true(isnan(bf16_to_f32(f32_to_bf16(value))));
		else
			assert_int_equal(f32_to_bf16(value), bf16);
		const float many[19] = {[3] = value, [17] = value, [18] = -value};
		uint16_t narrow[19];
		convert_to_bf16(many, 19, narrow);
		for (int i = 0; i < 19; i++)
			assert_int_equal(narrow[i], f32_to_bf16(many[i]));
		if (f16 < 0)
			assert_true(isnan(f16_to_f32(f32_to_f16(value))));
		else
			assert_int_equal(f32_to_f16(value), f16);
		assert_int_equal(f32_to_e4m3(value), pattern(&json, row, "e4m3"));
		if (!isnan(value))
			assert_int_equal(f32_to_e2m1(value), pattern(&json, row, "e2m1"));
		row = json_next(&json, rows, row);
	}
	assert_int_equal(n, 222);
	json_free(&json);
	text_free(&source);
	free(path);
}

/* Every pattern decodes to a value that encodes to it, and decoding agrees with the definition. */
static void every_pattern_survives(void **state)
{
	(void)state;
	for (uint32_t bits = 0; bits < 0x10000; bits++) {
		uint16_t pattern16 = (uint16_t)bits;
		float wide[2];
		assert_true(convert_to_f32(&pattern16, DTYPE_BF16, 1, &wide[0]));
		assert_true(convert_to_f32(&pattern16, DTYPE_F16, 1, &wide[1]));
		if (isnan(wide[0]))
			assert_true((bits & 0x7f80) == 0x7f80 && (bits & 0x7f));
		else
			assert_int_equal(f32_to_bf16(wide[0]), bits);
		int exponent = bits >> 10 & 31, mantissa = bits & 0x3ff;
		if (isnan(wide[1])) {
			assert_true(exponent == 31 && mantissa);
			continue;
		}
		assert_int_equal(f32_to_f16(wide[1]), bits);
		double value = exponent == 31  ? INFINITY
					   : exponent == 0 ? ldexp(mantissa, -24)
									   : ldexp(1024 + mantissa, exponent - 25);
		assert_true((double)wide[1] == (bits & 0x8000 ? -value : value));
	}
	assert_false(convert_to_f32("", DTYPE_I64, 0, NULL));
}

/* Every E4M3 code encodes to itself; what lies between two goes to the nearer, halves to the even
 * code. */
static void every_e4m3_code_survives(void **state)
{
	(void)state;
	for (int code = 0; code < 256; code++) {
		float value = e4m3_values[code];
		if (isnan(value)) {
			assert_int_equal(f32_to_e4m3(value), 0x7f);
			continue;
		}
		assert_int_equal(f32_to_e4m3(value), code);
		float next = e4m3_values[(code + 1) & 0x7f], half = (value + next) / 2;
		if (code >= 0x7e)
			continue;
		assert_int_equal(f32_to_e4m3(half), code + code % 2);
		assert_int_equal(f32_to_e4m3(nextafterf(half, 0)), code);
		assert_int_equal(f32_to_e4m3(nextafterf(half, INFINITY)), code + 1);
		assert_int_equal(f32_to_e4m3(-half), 0x80 + code + code % 2);
	}
	assert_int_equal(f32_to_e4m3(1e30f), 0x7e);
	assert_int_equal(f32_to_e4m3(-INFINITY), 0xfe);
}

/* A list of numbers against the table, null = NaN. */
static void compare_table(const struct json *json, const char *key, const float *table, int n)
{
	const struct json_node *list = json_member(json, &json->nodes[0], key);
	int i = 0;
	for (const struct json_node *node = json_first(json, list); node; i++) {
		double value = NAN;
		assert_true(i < n);
		if (!json_is(node, JSON_NULL))
			assert_int_equal(json_number(json, node, key, &value, NULL), 0);
		if (isnan(value))
			assert_true(isnan(table[i]));
		else
			assert_true((double)table[i] == value && !signbit(table[i]) == (i < n / 2));
		node = json_next(json, list, node);
	}
	assert_int_equal(i, n);
}

/* Every E4M3 and E2M1 code, from the tables and through a matrix. */
static void small_formats_are_golden(void **state)
{
	(void)state;
	struct error err = {0};
	struct text source = {0};
	struct json json;
	char *path = file_join(getenv("ELASTISCOPE_TESTS"), "golden/formats/formats.json", &err);
	assert_int_equal(file_read(path, 1 << 20, &source, &err), 0);
	assert_int_equal(json_parse(&json, source.data, source.length, &err), 0);
	compare_table(&json, "e4m3_decode", e4m3_values, 256);
	compare_table(&json, "e2m1_decode", e2m1_values, 16);
	uint8_t codes[256], pairs[8], scale = 0x38 + 8; // 2
	float wide[256];
	for (int i = 0; i < 256; i++)
		codes[i] = (uint8_t)i;
	for (int i = 0; i < 8; i++)
		pairs[i] = (uint8_t)(2 * i | (2 * i + 1) << 4);
	struct matrix m = {.data = codes, .dtype = DTYPE_F8_E4M3, .stride = 256, .scale = 1};
	matrix_widen(&m, 0, 0, 256, wide);
	compare_table(&json, "e4m3_decode", wide, 256);
	m = (struct matrix){
		.data = pairs, .dtype = DTYPE_NVFP4, .stride = 16, .scales = &scale, .scale = 0.5f};
	matrix_widen(&m, 0, 0, 16, wide);
	compare_table(&json, "e2m1_decode", wide, 16);
	json_free(&json);
	text_free(&source);
	free(path);
}

static void dtypes_have_names_and_sizes(void **state)
{
	(void)state;
	assert_string_equal(dtype_name(DTYPE_BF16), "BF16");
	assert_string_equal(dtype_name(DTYPE_F8_E4M3), "F8_E4M3");
	assert_int_equal(dtype_bytes(DTYPE_F16), 2);
	assert_int_equal(dtype_bytes(DTYPE_I64), 8);
	assert_int_equal(dtype_span_bytes(DTYPE_NVFP4, 48), 24);
	assert_int_equal(dtype_span_bytes(DTYPE_F16, 48), 96);
	assert_int_equal(dtype_matrix_bytes(DTYPE_NVFP4, 64), 32 + 4 + 4);
	assert_int_equal(dtype_matrix_bytes(DTYPE_F8_E4M3, 64), 64 + 4);
	assert_int_equal(dtype_matrix_bytes(DTYPE_BF16, 64), 128);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(encoding_is_golden),          cmocka_unit_test(every_pattern_survives),
		cmocka_unit_test(every_e4m3_code_survives),    cmocka_unit_test(small_formats_are_golden),
		cmocka_unit_test(dtypes_have_names_and_sizes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
