#include "core/config.h"
#include "base/text.h"
#include "tests/unit/folder.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

/* A valid file, a member a line, so that a case can replace or remove one. */
static const char *const base[][2] = {
	{"model_type", "\"nemotron_h\""},
	{"hybrid_override_pattern", "\"M*E-\""},
	{"num_hidden_layers", "4"},
	{"hidden_size", "64"},
	{"vocab_size", "100"},
	{"max_position_embeddings", "4096"},
	{"layer_norm_epsilon", "1e-05"},
	{"mamba_num_heads", "4"},
	{"mamba_head_dim", "8"},
	{"ssm_state_size", "16"},
	{"n_groups", "2"},
	{"conv_kernel", "4"},
	{"num_attention_heads", "4"},
	{"num_key_value_heads", "2"},
	{"head_dim", "16"},
	{"n_routed_experts", "8"},
	{"num_experts_per_tok", "2"},
	{"moe_intermediate_size", "32"},
	{"moe_shared_expert_intermediate_size", "48"},
	{"intermediate_size", "96"},
	{"routed_scaling_factor", "2.5"},
	{"eos_token_id", "2"},
	{"torch_dtype", "\"bfloat16\""},
};
enum { N_BASE = sizeof base / sizeof base[0] };

/* The valid file without key `without`, and with `more` ("\"a\": 1, \"b\": 2") behind it. */
static void make(struct text *out, const char *without, const char *more)
{
	text_add(out, "{");
	for (size_t i = 0; i < N_BASE; i++)
		if (!without || strcmp(without, base[i][0]) != 0)
			text_format(out, "\"%s\": %s,\n", base[i][0], base[i][1]);
	text_format(out, "%s}", more && *more ? more : "\"x\": 0");
}

static void parse_ok(struct config *config, const char *without, const char *more)
{
	struct text text = {0};
	struct error err = {0};
	make(&text, without, more);
	if (config_parse(config, text.data, NULL, &err) != 0)
		fail_msg("without %s, with %s: %s", without ? without : "nothing", more ? more : "nothing",
				 err.text);
	text_free(&text);
}

static void refuses_wrong_values(void **state)
{
	static const struct {
		const char *without, *more, *says;
	} cases[] = {
		{"hidden_size", "", "hidden_size is missing"},
		{"vocab_size", "", "vocab_size is missing"},
		{"max_position_embeddings", "", "max_position_embeddings is missing"},
		{"layer_norm_epsilon", "", "layer_norm_epsilon (or norm_eps) is missing"},
		{"mamba_num_heads", "", "mamba_num_heads is missing, but layers of kind mamba need it"},
		{"head_dim", "", "head_dim is missing, but layers of kind attention need it"},
		{"num_experts_per_tok", "",
		 "num_experts_per_tok is missing, but layers of kind moe need it"},
		{"intermediate_size", "", "intermediate_size is missing, but layers of kind mlp need it"},
		{"hidden_size", "\"hidden_size\": 0", "hidden_size is 0, expected 1 to"},
		{"hidden_size", "\"hidden_size\": -5", "hidden_size is -5, expected"},
		{"hidden_size", "\"hidden_size\": 64.5", "hidden_size"},
		{"hidden_size", "\"hidden_size\": \"64\"", "hidden_size"},
		{"hidden_size", "\"hidden_size\": null", "hidden_size is missing"},
		{"hidden_size", "\"hidden_size\": 2147483648", "hidden_size is 2147483648, expected"},
		{"hidden_size", "\"hidden_size\": 1e30", "hidden_size"},
		{"hidden_size", "\"hidden_size\": 99999999999999999999", "hidden_size"},
		{"vocab_size", "\"vocab_size\": 0", "vocab_size is 0"},
		{"conv_kernel", "\"conv_kernel\": 1", "conv_kernel is 1, expected 2 to 64"},
		{"n_routed_experts", "\"n_routed_experts\": 100000", "n_routed_experts is 100000"},
		{"mamba_num_heads", "\"mamba_num_heads\": 5",
		 "mamba_num_heads 5 is not a multiple of n_groups 2"},
		{"num_key_value_heads", "\"num_key_value_heads\": 3",
		 "num_attention_heads 4 is not a multiple of num_key_value_heads 3"},
		{"num_key_value_heads", "\"num_key_value_heads\": 8", "is not a multiple"},
		{"num_experts_per_tok", "\"num_experts_per_tok\": 9",
		 "num_experts_per_tok 9 is more than n_routed_experts 8"},
		{NULL, "\"num_local_experts\": 9", "n_routed_experts is 8, but num_local_experts is 9"},
		{"n_groups", "\"n_groups\": 4, \"mamba_n_groups\": 2",
		 "n_groups is 4, but mamba_n_groups is 2"},
		{"layer_norm_epsilon", "\"layer_norm_epsilon\": 0", "layer_norm_epsilon is 0"},
		{"layer_norm_epsilon", "\"layer_norm_epsilon\": \"x\"", "layer_norm_epsilon"},
		{NULL, "\"norm_eps\": 1e-6", "layer_norm_epsilon is 1e-05, but norm_eps is 1e-06"},
		{"routed_scaling_factor", "\"routed_scaling_factor\": -1", "routed_scaling_factor is -1"},
		{"hybrid_override_pattern", "",
		 "hybrid_override_pattern (or layers_block_type) is missing"},
		{"hybrid_override_pattern", "\"hybrid_override_pattern\": \"\"", "is empty"},
		{"hybrid_override_pattern", "\"hybrid_override_pattern\": 4", "is not a string"},
		{"hybrid_override_pattern", "\"hybrid_override_pattern\": \"M*E\"",
		 "describes 3 layers, but num_hidden_layers is 4"},
		{"hybrid_override_pattern", "\"hybrid_override_pattern\": \"M*EX\"",
		 "layer 3 has an unknown letter; known are M, *, E and -: 'X'"},
		{"hybrid_override_pattern", "\"hybrid_override_pattern\": \"M*\\u0000E\"",
		 "layer 2 has an unknown letter"},
		{"hybrid_override_pattern", "\"layers_block_type\": [\"mamba\", \"rwkv\"]",
		 "layers_block_type: layer 1 is rwkv"},
		{"hybrid_override_pattern", "\"layers_block_type\": [1]",
		 "layers_block_type: layer 0 is 1"},
		{"hybrid_override_pattern", "\"layer_types\": []", "layer_types is empty"},
		{"hybrid_override_pattern", "\"layer_types\": {}", "layer_types is not a list"},
		{NULL, "\"layer_types\": [\"mamba\", \"moe\", \"moe\", \"mlp\"]",
		 "describe different layers"},
		{NULL, "\"attention_bias\": true", "attention_bias is true"},
		{NULL, "\"mlp_bias\": true", "mlp_bias is true"},
		{NULL, "\"use_bias\": true", "use_bias is true"},
		{NULL, "\"mamba_proj_bias\": true", "mamba_proj_bias is true"},
		{NULL, "\"use_bias\": 1", "use_bias is neither true nor false"},
		{NULL, "\"tie_word_embeddings\": \"no\"", "tie_word_embeddings is neither"},
		{NULL, "\"mlp_hidden_act\": \"gelu\"",
		 "mlp_hidden_act is gelu; this family has only \"relu2\""},
		{NULL, "\"mamba_hidden_act\": \"gelu\"", "mamba_hidden_act is gelu"},
		{"model_type", "\"model_type\": \"llama\"", "model_type is llama"},
		{NULL, "\"sliding_window\": 4096", "sliding_window is set"},
		{NULL, "\"moe_latent_size\": 1024", "moe_latent_size is set"},
		{NULL, "\"n_group\": 2", "n_group is 2"},
		{NULL, "\"topk_group\": 4", "topk_group is 4"},
		{NULL, "\"time_step_limit\": [0.001, 0.1]", "time_step_limit is [0.001, 0.1]"},
		{NULL, "\"time_step_limit\": [0, 1]", "is clamped"},
		{NULL, "\"mamba_dt_limit\": [0.001, Infinity]", "mamba_dt_limit"},
		{NULL, "\"time_step_limit\": 3", "time_step_limit is not a list of two numbers"},
		{"eos_token_id", "\"eos_token_id\": 100",
		 "eos_token_id 100 is outside the vocabulary of 100"},
		{"eos_token_id", "\"eos_token_id\": [2, -1]", "eos_token_id -1"},
		{"eos_token_id", "\"eos_token_id\": \"</s>\"", "eos_token_id"},
		{"eos_token_id", "\"eos_token_id\": [0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16]",
		 "more than 16"},
		{NULL, "\"bos_token_id\": 100", "bos_token_id is outside"},
		{NULL, "\"hidden_size\": 64", "config.json: line "},
		{NULL, "\"a\": NaN", "config.json: line "},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct config config;
		struct error err = {0};
		struct text text = {0};
		make(&text, cases[i].without, cases[i].more);
		if (config_parse(&config, text.data, NULL, &err) == 0)
			fail_msg("accepted: without %s, with %s", cases[i].without, cases[i].more);
		if (!strstr(err.text, cases[i].says) || strncmp(err.text, "config.json: ", 13) != 0)
			fail_msg("without %s, with %s: \"%s\" does not say \"%s\"", cases[i].without,
					 cases[i].more, err.text, cases[i].says);
		text_free(&text);
	}
}

/* Sizes that pass one by one, but whose products do not. */
static void refuses_products_that_do_not_fit(void **state)
{
	static const struct {
		const char *sizes, *says;
	} cases[] = {
		{"\"mamba_num_heads\": 65536, \"mamba_head_dim\": 16384, \"n_groups\": 1, "
		 "\"ssm_state_size\": 1",
		 "an in_proj of more than"},
		{"\"mamba_num_heads\": 16384, \"mamba_head_dim\": 1, \"n_groups\": 16384, "
		 "\"ssm_state_size\": 16384",
		 "an in_proj of more than"},
		{"\"mamba_num_heads\": 8192, \"mamba_head_dim\": 1024, \"n_groups\": 1, "
		 "\"ssm_state_size\": 16384",
		 "mamba_num_heads * mamba_head_dim * ssm_state_size"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct config config;
		struct error err = {0};
		struct text text = {0};
		text_format(
			&text,
			"{\"hybrid_override_pattern\": \"M\", \"hidden_size\": 1048576, \"vocab_size\": 9,"
			"\"max_position_embeddings\": 1, \"norm_eps\": 1e-5, \"conv_kernel\": 4, %s}",
			cases[i].sizes);
		assert_int_equal(config_parse(&config, text.data, NULL, &err), -1);
		if (!strstr(err.text, cases[i].says))
			fail_msg("%s: %s", cases[i].sizes, err.text);
		text_free(&text);
	}
	struct config config;
	struct error err = {0};
	struct text text = {0};
	text_add(&text,
			 "{\"hybrid_override_pattern\": \"*\", \"hidden_size\": 64, \"vocab_size\": 9,"
			 "\"max_position_embeddings\": 1, \"norm_eps\": 1e-5, \"num_attention_heads\": 16384,"
			 "\"num_key_value_heads\": 1, \"head_dim\": 16384}");
	assert_int_equal(config_parse(&config, text.data, NULL, &err), -1);
	assert_non_null(strstr(err.text, "num_attention_heads 16384 * head_dim 16384 is more than"));
	text_free(&text);
}

static void reads_both_spellings(void **state)
{
	struct config config;
	(void)state;
	parse_ok(&config, NULL, NULL);
	assert_int_equal(config.n_layers, 4);
	assert_memory_equal(config.kinds,
						((uint8_t[]){LAYER_MAMBA, LAYER_ATTENTION, LAYER_MOE, LAYER_MLP}), 4);
	assert_int_equal(config.hidden_size, 64);
	assert_int_equal(config_inner(&config), 32);
	assert_int_equal(config_conv_channels(&config), 32 + 2 * 2 * 16);
	assert_int_equal(config_layers_of(&config, LAYER_MOE), 1);
	assert_float_equal(config.norm_eps, 1e-5, 1e-12);
	assert_float_equal(config.routed_scaling_factor, 2.5, 0);
	assert_true(config.norm_topk_prob && config.use_conv_bias && !config.tie_word_embeddings);
	assert_int_equal(config.eos_token_id, 2);
	assert_int_equal(config.bos_token_id, -1);
	assert_int_equal(config.n_stop_ids, 1);
	assert_string_equal(config.torch_dtype, "bfloat16");
	assert_float_equal(config.temperature, -1, 0);

	struct config other;
	static const char *const lists[] = {
		"\"layers_block_type\": [\"mamba\", \"attention\", \"moe\", \"mlp\"]",
		"\"layers_block_type\": [\"linear_attention\", \"full_attention\", \"moe\", \"mlp\"]",
		"\"layer_types\": [\"mamba\", \"full_attention\", \"moe\", \"mlp\"]",
	};
	for (size_t i = 0; i < 3; i++) {
		parse_ok(&other, "hybrid_override_pattern", lists[i]);
		assert_memory_equal(&config, &other, sizeof config);
	}
	static const char *const spelled[][2] = {
		{"n_groups", "\"mamba_n_groups\": 2"},
		{"conv_kernel", "\"mamba_d_conv\": 4.0"},
		{"n_routed_experts", "\"num_local_experts\": 8"},
		{"layer_norm_epsilon", "\"norm_eps\": 0.00001"},
		{"head_dim", "\"attention_head_dim\": 16"},
		{"num_hidden_layers", ""},
		{"torch_dtype", "\"dtype\": \"bfloat16\""},
		{"eos_token_id", "\"eos_token_id\": [2, 2]"},
		{NULL, "\"time_step_limit\": [0.0, Infinity], \"say\": \"Infinity \\\" Infinity\""},
		{NULL, "\"mamba_dt_limit\": [0.0, {\"__float__\": \"Infinity\"}]"},
		{NULL, "\"time_step_limit\": null, \"sliding_window\": null, \"moe_latent_size\": null"},
		{NULL,
		 "\"mlp_hidden_act\": \"relu2\", \"n_group\": 1, \"topk_group\": 1, \"use_bias\": false"},
		{NULL, "\"bos_token_id\": null, \"pad_token_id\": -1, \"n_shared_experts\": 1"},
	};
	for (size_t i = 0; i < sizeof spelled / sizeof spelled[0]; i++) {
		parse_ok(&other, spelled[i][0], spelled[i][1]);
		if (memcmp(&config, &other, sizeof config) != 0)
			fail_msg("%s changes the values", spelled[i][1]);
	}
	parse_ok(&other, NULL, "\"mamba_conv_bias\": false");
	assert_false(other.use_conv_bias);
	parse_ok(&other, NULL, "\"n_shared_experts\": 0");
	assert_int_equal(other.moe_shared_expert_intermediate_size, 0);
}

/* Kinds of layers that are not there need no sizes, and nobody divides by their groups. */
static void reads_models_of_one_kind(void **state)
{
	struct config config;
	struct error err = {0};
	(void)state;
	static const char text[] =
		"{\"hybrid_override_pattern\": \"--\", \"hidden_size\": 8, \"vocab_size\": 9,"
		"\"max_position_embeddings\": 1, \"norm_eps\": 1e-5, \"intermediate_size\": 12,"
		"\"n_groups\": 0, \"n_routed_experts\": 0}";
	if (config_parse(&config, text, NULL, &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(config.n_layers, 2);
	assert_int_equal(config.n_groups, 1);
	assert_int_equal(config.num_key_value_heads, 1);
	assert_int_equal(config.mamba_num_heads, 0);
	assert_int_equal(config_conv_channels(&config), 0);
}

static void reads_generation_config(void **state)
{
	struct text text = {0};
	struct config config;
	struct error err = {0};
	(void)state;
	make(&text, NULL, NULL);
	assert_int_equal(config_parse(&config, text.data,
								  "{\"eos_token_id\": [2, 11], \"do_sample\": true, "
								  "\"temperature\": 0.6, \"top_p\": 0.95}",
								  &err),
					 0);
	assert_int_equal(config.n_stop_ids, 2);
	assert_int_equal(config.stop_ids[1], 11);
	assert_int_equal(config.eos_token_id, 2);
	assert_int_equal(config.do_sample, 1);
	assert_float_equal(config.temperature, 0.6f, 0);
	assert_float_equal(config.top_p, 0.95f, 0);
	static const char *const wrong[][2] = {
		{"[]", "is not a JSON object"},
		{"{\"temperature\": -1}", "temperature is -1"},
		{"{\"temperature\": \"hot\"}", "temperature"},
		{"{\"top_p\": 0}", "top_p is 0"},
		{"{\"top_p\": 1.5}", "top_p is 1.5"},
		{"{\"do_sample\": 1}", "do_sample is neither"},
		{"{\"eos_token_id\": [2, 100]}", "eos_token_id 100 is outside"},
		{"{", "line 1"},
	};
	for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
		assert_int_equal(config_parse(&config, text.data, wrong[i][0], &err), -1);
		if (!strstr(err.text, wrong[i][1]) ||
			strncmp(err.text, "generation_config.json: ", 24) != 0)
			fail_msg("%s: %s", wrong[i][0], err.text);
	}
	text_free(&text);
}

static void reads_the_fixtures(void **state)
{
	static const char *const folders[] = {"golden/nest-tiny", "golden/nest-tiny/children/odd",
										  "../demo"};
	struct config config;
	struct error err = {0};
	(void)state;
	for (size_t i = 0; i < 3; i++) {
		char path[1024];
		snprintf(path, sizeof path, "%s/%s", getenv("ELASTISCOPE_TESTS"), folders[i]);
		if (config_read(&config, path, &err) != 0)
			fail_msg("%s", err.text);
		assert_int_equal(config.stop_ids[0], 2);
	}
	assert_int_equal(config.n_layers, 9);
	assert_int_equal(config.n_stop_ids, 2); // 2 and 11
	assert_int_equal(config.do_sample, 0);
	struct folder folder;
	folder_make(&folder);
	assert_int_equal(config_read(&config, folder.path, &err), -1);
	assert_non_null(strstr(err.text, "config.json: No such file"));
	assert_int_equal(mkdir(folder_file(&folder, "config.json"), 0700), 0);
	assert_int_equal(config_read(&config, folder.path, &err), -1);
	assert_non_null(strstr(err.text, "config.json is a directory"));
	folder_remove(&folder);
}

static void survives_mutations(void **state)
{
	static const char telling[] = "{}[]\",:0123456789-.eE\\n I";
	uint64_t random = 88172645463325252u;
	int opened = 0;
	struct text original = {0};
	(void)state;
	make(&original, NULL, "\"time_step_limit\": [0.0, Infinity]");
	for (int i = 0; i < 4000; i++) {
		char copy[1024];
		struct config config;
		struct error err = {0};
		assert_true(original.length < sizeof copy);
		memcpy(copy, original.data, original.length + 1);
		for (int k = 0; k < 1 + i % 3; k++) {
			random ^= random << 13, random ^= random >> 7, random ^= random << 17;
			copy[random % original.length] = random >> 40 & 1
												 ? telling[(random >> 41) % (sizeof telling - 1)]
												 : (char)(random >> 48);
		}
		if (config_parse(&config, copy, NULL, &err) == 0) {
			opened++;
			assert_in_range(config.n_layers, 1, CONFIG_MAX_LAYERS);
			assert_true(config.hidden_size > 0 && config.n_groups > 0 && config.norm_eps > 0);
		} else {
			assert_true(err.text[0]);
		}
	}
	assert_true(opened > 100 && opened < 3900);
	text_free(&original);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_wrong_values),
		cmocka_unit_test(refuses_products_that_do_not_fit),
		cmocka_unit_test(reads_both_spellings),
		cmocka_unit_test(reads_models_of_one_kind),
		cmocka_unit_test(reads_generation_config),
		cmocka_unit_test(reads_the_fixtures),
		cmocka_unit_test(survives_mutations),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
