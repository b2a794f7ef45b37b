#include "core/weights.h"
#include "base/text.h"
#include "tests/unit/folder.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

/* A model with one layer of each kind, small enough to be written anew for every case. Sizes
 * differ, so that no two axes can be mistaken for each other. */
static const char config_text[] =
	"{\"hybrid_override_pattern\": \"M*E-\", \"hidden_size\": 6, \"vocab_size\": 9,"
	"\"max_position_embeddings\": 8, \"norm_eps\": 1e-5, \"mamba_num_heads\": 4, "
	"\"mamba_head_dim\": 2,"
	"\"ssm_state_size\": 3, \"n_groups\": 2, \"conv_kernel\": 4, \"num_attention_heads\": 4,"
	"\"num_key_value_heads\": 2, \"head_dim\": 5, \"n_routed_experts\": 2, "
	"\"num_experts_per_tok\": 1,"
	"\"moe_intermediate_size\": 7, \"moe_shared_expert_intermediate_size\": 11,"
	"\"intermediate_size\": 13, \"use_conv_bias\": %s, \"tie_word_embeddings\": %s}";

struct row {
	const char *name, *dtype, *shape;
	int n; // elements
};

static const struct row rows[] = {
	{"backbone.embeddings.weight", "BF16", "[9,6]", 54},
	{"backbone.norm_f.weight", "BF16", "[6]", 6},
	{"lm_head.weight", "BF16", "[9,6]", 54},
	{"backbone.layers.0.norm.weight", "BF16", "[6]", 6},
	{"backbone.layers.0.mixer.in_proj.weight", "BF16", "[32,6]", 192}, // 8 + 20 + 4
	{"backbone.layers.0.mixer.out_proj.weight", "F16", "[6,8]", 48},
	{"backbone.layers.0.mixer.conv1d.weight", "BF16", "[20,1,4]", 80},
	{"backbone.layers.0.mixer.conv1d.bias", "BF16", "[20]", 20},
	{"backbone.layers.0.mixer.A_log", "BF16", "[4]", 4},
	{"backbone.layers.0.mixer.D", "F32", "[4]", 4},
	{"backbone.layers.0.mixer.dt_bias", "BF16", "[4]", 4},
	{"backbone.layers.0.mixer.norm.weight", "BF16", "[8]", 8},
	{"backbone.layers.1.norm.weight", "BF16", "[6]", 6},
	{"backbone.layers.1.mixer.q_proj.weight", "BF16", "[20,6]", 120},
	{"backbone.layers.1.mixer.k_proj.weight", "BF16", "[10,6]", 60},
	{"backbone.layers.1.mixer.v_proj.weight", "BF16", "[10,6]", 60},
	{"backbone.layers.1.mixer.o_proj.weight", "BF16", "[6,20]", 120},
	{"backbone.layers.2.norm.weight", "BF16", "[6]", 6},
	{"backbone.layers.2.mixer.gate.weight", "F32", "[2,6]", 12},
	{"backbone.layers.2.mixer.gate.e_score_correction_bias", "F32", "[2]", 2},
	{"backbone.layers.2.mixer.experts.0.up_proj.weight", "BF16", "[7,6]", 42},
	{"backbone.layers.2.mixer.experts.1.up_proj.weight", "BF16", "[7,6]", 42},
	{"backbone.layers.2.mixer.experts.0.down_proj.weight", "BF16", "[6,7]", 42},
	{"backbone.layers.2.mixer.experts.1.down_proj.weight", "BF16", "[6,7]", 42},
	{"backbone.layers.2.mixer.shared_experts.up_proj.weight", "BF16", "[11,6]", 66},
	{"backbone.layers.2.mixer.shared_experts.down_proj.weight", "BF16", "[6,11]", 66},
	{"backbone.layers.3.norm.weight", "BF16", "[6]", 6},
	{"backbone.layers.3.mixer.up_proj.weight", "BF16", "[13,6]", 78},
	{"backbone.layers.3.mixer.down_proj.weight", "BF16", "[6,13]", 78},
};
enum { N_ROWS = sizeof rows / sizeof rows[0] };

/* Replaces the row `from` (a part of its name, "" = none) by `to` (name NULL: leaves it out), adds
 * `more`. */
struct change {
	const char *from;
	struct row to;
	struct row more[3];
};

static int row_bytes(const struct row *row)
{
	return row->n * (strcmp(row->dtype, "F32") == 0    ? 4
					 : strcmp(row->dtype, "BF16") == 0 ? 2
					 : strcmp(row->dtype, "F16") == 0  ? 2
													   : 1);
}

static void add_row(struct text *header, const struct row *row, long *at)
{
	text_format(header, "%s\"%s\":{\"dtype\":\"%s\",\"shape\":%s,\"data_offsets\":[%ld,%ld]}",
				header->length == 1 ? "" : ",", row->name, row->dtype, row->shape, *at,
				*at + row_bytes(row));
	*at += row_bytes(row);
}

/* v5: "backbone." and "embeddings" take transformers v5's names. */
static void write_model(const struct folder *folder, const struct change *change, bool v5)
{
	struct text header = {0};
	long at = 0;
	text_add(&header, "{");
	for (int size = 4; size; size /= 2) { // large elements first, for alignment
		for (size_t i = 0; i < N_ROWS + 3; i++) {
			struct row row = i < N_ROWS ? rows[i]
							 : change   ? change->more[i - N_ROWS]
										: (struct row){0};
			char name[128];
			if (i < N_ROWS && change && change->from[0] && strstr(row.name, change->from))
				row = change->to;
			if (!row.name || row_bytes(&row) != row.n * size)
				continue;
			if (v5 && strncmp(row.name, "backbone.", 9) == 0) {
				snprintf(name, sizeof name, "model.%s",
						 strstr(row.name, "embeddings") ? "embed_tokens.weight" : row.name + 9);
				row.name = name;
			}
			add_row(&header, &row, &at);
		}
	}
	text_add(&header, "}");
	while (header.length % 8)
		text_add_char(&header, ' ');
	struct text file = {0};
	for (int i = 0; i < 8; i++)
		text_add_char(&file, (char)(header.length >> (8 * i) & 0xff));
	text_append(&file, header.data, header.length);
	for (long i = 0; i < at; i++)
		text_add_char(&file, (char)i);
	struct folder writing = *folder;
	folder_write(&writing, "model.safetensors", file.data, file.length);
	text_free(&header);
	text_free(&file);
}

struct bound {
	struct config config;
	struct checkpoint checkpoint;
	struct weights weights;
};

static struct folder folder;

static int bind(struct bound *b, const struct change *change, bool v5, const char *options[2],
				struct error *err)
{
	char text[1024];
	*b = (struct bound){0};
	snprintf(text, sizeof text, config_text, options ? options[0] : "true",
			 options ? options[1] : "false");
	write_model(&folder, change, v5);
	if (config_parse(&b->config, text, NULL, err) != 0 ||
		checkpoint_open(&b->checkpoint, folder.path, err) != 0)
		fail_msg("%s", err->text);
	return weights_bind(&b->weights, &b->checkpoint, &b->config, err);
}

static void release(struct bound *b)
{
	weights_free(&b->weights);
	checkpoint_close(&b->checkpoint);
}

static void refuses_wrong_tensors(void **state)
{
	static const struct {
		struct change change;
		const char *says;
	} cases[] = {
		{{"backbone.embeddings", {0}, {{0}}}, "tensor \"backbone.embeddings.weight\" is missing"},
		{{"norm_f", {0}, {{0}}}, "tensor \"backbone.norm_f.weight\" is missing"},
		{{"lm_head", {0}, {{0}}}, "tensor \"lm_head.weight\" is missing"},
		{{"layers.0.norm", {0}, {{0}}},
		 "tensor \"backbone.layers.0.norm.weight\" is missing (layer 0 is mamba)"},
		{{"conv1d.bias", {0}, {{0}}}, "0.mixer.conv1d.bias\" is missing"},
		{{"A_log", {0}, {{0}}}, "0.mixer.A_log\" is missing"},
		{{"mixer.D", {0}, {{0}}}, "0.mixer.D\" is missing"},
		{{"dt_bias", {0}, {{0}}}, "0.mixer.dt_bias\" is missing"},
		{{"v_proj", {0}, {{0}}}, "1.mixer.v_proj.weight\" is missing (layer 1 is attention)"},
		{{"correction_bias", {0}, {{0}}}, "gate.e_score_correction_bias\" is missing"},
		{{"experts.1.up", {0}, {{0}}}, "experts.1.up_proj.weight\" is missing (layer 2 is moe)"},
		{{"shared_experts.down", {0}, {{0}}}, "shared_experts.down_proj.weight\" is missing"},
		{{"layers.3.mixer.down", {0}, {{0}}},
		 "3.mixer.down_proj.weight\" is missing (layer 3 is mlp)"},
		{{"in_proj", {"backbone.layers.0.mixer.in_proj.weight", "BF16", "[28,6]", 168}, {{0}}},
		 "in_proj.weight\" has shape [28, 6], config.json asks for [32, 6]"},
		{{"in_proj", {"backbone.layers.0.mixer.in_proj.weight", "BF16", "[6,32]", 192}, {{0}}},
		 "has shape [6, 32], config.json asks for [32, 6]"},
		{{"in_proj", {"backbone.layers.0.mixer.in_proj.weight", "BF16", "[192]", 192}, {{0}}},
		 "has shape [192], config.json asks for [32, 6]"},
		{{"A_log", {"backbone.layers.0.mixer.A_log", "BF16", "[4,1]", 4}, {{0}}},
		 "A_log\" has shape [4, 1], config.json asks for [4]"},
		{{"A_log", {"backbone.layers.0.mixer.A_log", "BF16", "[]", 1}, {{0}}}, "has shape []"},
		{{"conv1d.weight",
		  {"backbone.layers.0.mixer.conv1d.weight", "BF16", "[20,4,1]", 80},
		  {{0}}},
		 "has shape [20, 4, 1], config.json asks for [20, 1, 4]"},
		{{"lm_head", {"lm_head.weight", "BF16", "[10,6]", 60}, {{0}}},
		 "\"lm_head.weight\" has shape [10, 6], config.json asks for [9, 6]"},
		{{"gate.weight", {"backbone.layers.2.mixer.gate.weight", "F32", "[3,6]", 18}, {{0}}},
		 "has shape [3, 6], config.json asks for [2, 6]"},
		{{"", {0}, {{"backbone.layers.2.mixer.experts.up_proj", "BF16", "[2,6,7]", 84}}},
		 "experts.up_proj\" has shape [2, 6, 7], config.json asks for [2, 7, 6]"},
		{{"", {0}, {{"backbone.layers.2.mixer.experts.up_proj", "F8_E4M3", "[2,7,6]", 84}}},
		 "experts.up_proj\" is F8_E4M3: experts stacked into one tensor are read in F32"},
		{{"A_log", {"backbone.layers.0.mixer.A_log", "I32", "[1]", 4}, {{0}}},
		 "A_log\" has dtype I32, expected F32, BF16 or F16"},
		{{"o_proj", {"backbone.layers.1.mixer.o_proj.weight", "F8_E4M3", "[6,20]", 120}, {{0}}},
		 "o_proj.weight\" is F8_E4M3, but its scale "
		 "\"backbone.layers.1.mixer.o_proj.weight_scale\" is missing"},
		{{"experts.0.up",
		  {"backbone.layers.2.mixer.experts.0.up_proj.weight", "U8", "[7,3]", 21},
		  {{0}}},
		 "experts.0.up_proj.weight\" is U8, but its scale"},
		{{"", {0}, {{"backbone.layers.0.mixer.in_proj.weight_scale", "F32", "[]", 1}}},
		 "in_proj.weight\" is BF16, but has a weight_scale: expected F8_E4M3 or U8"},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
		struct bound b;
		struct error err = {0};
		if (bind(&b, &cases[i].change, false, NULL, &err) == 0)
			fail_msg("accepted: %s", cases[i].says);
		if (!strstr(err.text, cases[i].says))
			fail_msg("\"%s\" does not say \"%s\"", err.text, cases[i].says);
		assert_null(b.weights.layers);
		release(&b);
	}
}

static void expect_bound(struct bound *b, const struct change *change, bool v5,
						 const char *options[2])
{
	struct error err = {0};
	if (bind(b, change, v5, options, &err) != 0)
		fail_msg("%s", err.text);
}

static void expect_same(const struct tensor *a, const struct tensor *b)
{
	assert_int_equal(a->dtype, b->dtype);
	assert_int_equal(a->bytes, b->bytes);
	assert_int_equal(a->n_dims, b->n_dims);
	assert_memory_equal(a->shape, b->shape, sizeof a->shape);
	assert_memory_equal(a->data, b->data, a->bytes);
}

static void binds_both_spellings(void **state)
{
	struct bound hub, v5;
	(void)state;
	expect_bound(&hub, NULL, false, NULL);
	const struct layer_weights *w = hub.weights.layers;
	assert_int_equal(hub.weights.n_unused, 0);
	assert_ptr_equal(hub.weights.embeddings.data,
					 checkpoint_find(&hub.checkpoint, rows[0].name)->data);
	assert_int_equal(w[0].in_proj.shape[0], 32);
	assert_int_equal(w[0].out_proj.dtype, DTYPE_F16);
	assert_int_equal(w[0].d.dtype, DTYPE_F32);
	assert_int_equal(w[1].o.shape[1], 20);
	assert_int_equal(w[2].up[1].shape[0], 7);
	assert_int_equal(w[2].shared_down.shape[1], 11);
	assert_int_equal(w[3].mlp_up.shape[0], 13);
	struct folder other = folder;
	folder_make(&folder);
	expect_bound(&v5, NULL, true, NULL);
	assert_int_equal(v5.weights.n_unused, 0);
	expect_same(&hub.weights.embeddings, &v5.weights.embeddings);
	expect_same(&hub.weights.layers[2].down[1], &v5.weights.layers[2].down[1]);
	folder_remove(&folder);
	folder = other;
	release(&hub);
	release(&v5);
}

static void binds_fused_experts(void **state)
{
	static const struct change fused = {
		"backbone.layers.2.mixer.experts",
		{0},
		{{"backbone.layers.2.mixer.experts.up_proj", "BF16", "[2,7,6]", 84},
		 {"backbone.layers.2.mixer.experts.down_proj", "BF16", "[2,6,7]", 84}},
	};
	struct bound b;
	(void)state;
	expect_bound(&b, &fused, false, NULL);
	assert_int_equal(b.weights.n_unused, 0);
	const struct tensor *whole =
		checkpoint_find(&b.checkpoint, "backbone.layers.2.mixer.experts.down_proj");
	const struct tensor *second = &b.weights.layers[2].down[1];
	assert_int_equal(second->n_dims, 2);
	assert_int_equal(second->shape[0], 6);
	assert_int_equal(second->bytes, 84);
	assert_ptr_equal(second->data, (const char *)whole->data + 84);
	release(&b);
}

static void binds_what_may_differ(void **state)
{
	struct bound b;
	(void)state;
	// no conv bias: what is there then is left over
	expect_bound(&b, NULL, false, (const char *[]){"false", "false"});
	assert_null(b.weights.layers[0].conv_bias.data);
	assert_int_equal(b.weights.n_unused, 1);
	assert_string_equal(b.weights.first_unused, "backbone.layers.0.mixer.conv1d.bias");
	release(&b);
	// tied: the head's own tensor is left over
	expect_bound(&b, NULL, false, (const char *[]){"true", "true"});
	assert_ptr_equal(b.weights.lm_head.data, b.weights.embeddings.data);
	assert_int_equal(b.weights.n_unused, 1);
	release(&b);
	// a bias that nobody uses is reported, the heads of mtp are not; the conv weight may lack its
	// middle axis
	static const struct change more = {
		"conv1d.weight",
		{"backbone.layers.0.mixer.conv1d.weight", "BF16", "[20,4]", 80},
		{{"backbone.layers.1.mixer.q_proj.bias", "BF16", "[20]", 20},
		 {"mtp.layers.0.norm.weight", "BF16", "[6]", 6},
		 {"mtp.x", "U8", "[3]", 3}},
	};
	expect_bound(&b, &more, false, NULL);
	assert_int_equal(b.weights.n_unused, 1);
	assert_string_equal(b.weights.first_unused, "backbone.layers.1.mixer.q_proj.bias");
	release(&b);
	// scales of a KV cache in FP8, of which a layer may have some or none
	assert_true(b.weights.layers == NULL);
	static const struct change scales = {
		"", {0}, {{"backbone.layers.1.mixer.v_proj.v_scale", "F32", "[]", 1}}};
	expect_bound(&b, &scales, false, NULL);
	const struct tensor *v_scale =
		checkpoint_find(&b.checkpoint, "backbone.layers.1.mixer.v_proj.v_scale");
	assert_memory_equal(&b.weights.layers[1].v_scale, v_scale->data, sizeof(float));
	assert_true(b.weights.layers[1].k_scale == 1 && b.weights.layers[1].kv_scales);
	assert_int_equal(b.weights.n_unused, 0);
	release(&b);
	// the router's gate in BF16
	static const struct change gate = {
		"gate.weight", {"backbone.layers.2.mixer.gate.weight", "BF16", "[2,6]", 12}, {{0}}};
	expect_bound(&b, &gate, false, NULL);
	assert_int_equal(b.weights.layers[2].gate.dtype, DTYPE_BF16);
	release(&b);
}

static void binds_the_fixtures(void **state)
{
	static const char *const folders[] = {"golden/nest-tiny", "golden/nest-tiny/children/odd",
										  "golden/nest-tiny/children/small", "../demo"};
	(void)state;
	for (size_t i = 0; i < sizeof folders / sizeof folders[0]; i++) {
		struct bound b = {0};
		struct error err = {0};
		char path[1024];
		snprintf(path, sizeof path, "%s/%s", getenv("ELASTISCOPE_TESTS"), folders[i]);
		if (config_read(&b.config, path, &err) != 0 ||
			checkpoint_open(&b.checkpoint, path, &err) != 0 ||
			weights_bind(&b.weights, &b.checkpoint, &b.config, &err) != 0)
			fail_msg("%s: %s", folders[i], err.text);
		assert_int_equal(b.weights.n_unused, 0);
		assert_int_equal(b.weights.embeddings.shape[1], b.config.hidden_size);
		release(&b);
	}
}

static int setup(void **state)
{
	(void)state;
	folder_make(&folder);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	folder_remove(&folder);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(refuses_wrong_tensors), cmocka_unit_test(binds_both_spellings),
		cmocka_unit_test(binds_fused_experts),   cmocka_unit_test(binds_what_may_differ),
		cmocka_unit_test(binds_the_fixtures),
	};
	return cmocka_run_group_tests(tests, setup, teardown);
}
