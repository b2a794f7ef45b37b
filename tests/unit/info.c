#include "inspect/info.h"
#include "base/text.h"
#include "tests/unit/folder.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>

#include <cmocka.h>

static struct model *open_model(const char *name)
{
	char path[1024];
	struct error err = {0};
	snprintf(path, sizeof path, "%s/%s", getenv("ELASTISCOPE_TESTS"), name);
	struct model *model = model_open(path, NULL, &err);
	if (!model)
		fail_msg("%s", err.text);
	return model;
}

static void counts_the_fixture(void **state)
{
	struct info info;
	struct error err = {0};
	struct budget typed;
	(void)state;
	struct model *model = open_model("golden/nest-tiny");
	assert_int_equal(model_budget(model, "hidden_size=32,skip=3", &typed, &err), 0);
	if (info_read(&info, model, &typed, &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(info.tensor_bytes, 865284);
	assert_int_equal(info.n_budgets, 4);
	assert_int_equal(info.budgets[0].cost.bytes, 865284); // the parent is the file
	assert_int_equal(info.budgets[0].n_layers, 8);
	assert_int_equal(info.budgets[3].n_layers, 7);
	assert_ptr_equal(info.budgets[3].budget, &typed);
	assert_int_equal(info.layers_of[LAYER_MAMBA], 3);
	assert_int_equal(info.n_dtypes, 2);
	assert_int_equal(info.dtypes[0].dtype, DTYPE_BF16);
	assert_int_equal(info.dtypes[0].bytes + info.dtypes[1].bytes, 865284);
	assert_int_equal(info.resident_origin, ORIGIN_MEASURED);
	// children: the tensors of the stand-alone files that a slicer wrote
	static const char *const children[] = {NULL, "medium", "small"};
	uint64_t together = 865284;
	for (int i = 1; i < 3; i++) {
		char path[1024];
		struct checkpoint child;
		snprintf(path, sizeof path, "%s/golden/nest-tiny/children/%s", getenv("ELASTISCOPE_TESTS"),
				 children[i]);
		assert_int_equal(checkpoint_open(&child, path, &err), 0);
		assert_int_equal(info.budgets[i].cost.bytes, child.tensor_bytes);
		together += child.tensor_bytes;
		checkpoint_close(&child);
	}
	assert_int_equal(info.children_bytes, together);
	// 3 layers x 6 heads x 16 x 24 and 3 x 3 rows x 192, in F32; one attention layer of 2 x 20
	assert_int_equal(info.state.ssm_bytes, 3 * 6 * 16 * 24 * 4);
	assert_int_equal(info.state.conv_bytes, 3 * 3 * 192 * 4);
	assert_int_equal(info.state.kv_per_token, 2 * 2 * 20);
	budget_free(&typed);
	model_release(model);
}

static void says_what_fits(void **state)
{
	struct info info;
	struct error err = {0};
	struct info_fit rows[N_PRECISIONS * INFO_MAX_BUDGETS];
	(void)state;
	struct model *model = open_model("golden/nest-tiny");
	assert_int_equal(info_read(&info, model, NULL, &err), 0);
	uint64_t fixed = info.state.ssm_bytes + info.state.conv_bytes;
	struct fit_request request = {
		.memory_bytes = 865284 + fixed + 100 * 160 + 159, .context = 50, .kv_dtype = DTYPE_BF16};
	assert_int_equal(info_fit(&info, &request, rows), 9);
	assert_int_equal(rows[0].weight_bytes, 865284);
	assert_int_equal(rows[0].state_bytes, fixed + 50 * 160);
	assert_int_equal(rows[0].longest_context, 100);
	assert_int_equal(rows[0].sequences, 1);
	assert_true(rows[1].sequences > 1 && rows[1].longest_context > 100);
	for (int i = 0; i < 3; i++) { // fewer bits, fewer bytes
		assert_true(rows[3 + i].weight_bytes < rows[i].weight_bytes);
		assert_true(rows[6 + i].weight_bytes < rows[3 + i].weight_bytes);
	}
	request.kv_dtype = DTYPE_F32;
	info_fit(&info, &request, rows);
	assert_int_equal(rows[0].longest_context, 50);
	request.memory_bytes = 865283;
	info_fit(&info, &request, rows);
	assert_int_equal(rows[0].longest_context, -1);
	assert_int_equal(rows[0].sequences, 0);
	assert_true(rows[2].sequences > 0);
	request.memory_bytes = 865284 + fixed - 1;
	info_fit(&info, &request, rows);
	assert_int_equal(rows[0].longest_context, 0);
	assert_true(info_state_bytes(&info.state, INT64_MAX, DTYPE_F32) == UINT64_MAX);
	model_release(model);
}

/* ---- the released 30B: its names, shapes and dtypes in a sparse file ---- */

struct big {
	struct text header;
	long long at;
	bool vectors; // which tensors this pass adds: vectors lie together in front
	int n;
};

static void add(struct big *b, const char *dtype, int rows, int columns, const char *format, ...)
	__attribute__((format(printf, 5, 6)));

static void add(struct big *b, const char *dtype, int rows, int columns, const char *format, ...)
{
	char name[128], shape[64];
	va_list arguments;
	if ((columns <= 4) != b->vectors)
		return;
	va_start(arguments, format);
	vsnprintf(name, sizeof name, format, arguments);
	va_end(arguments);
	if (columns == 4)
		snprintf(shape, sizeof shape, "%d,1,4", rows);
	else if (columns == 1)
		snprintf(shape, sizeof shape, "%d", rows);
	else
		snprintf(shape, sizeof shape, "%d,%d", rows, columns);
	long long end = b->at + (long long)rows * columns * (strcmp(dtype, "F32") == 0 ? 4 : 2);
	text_format(&b->header,
				"%s\"%s\":{\"dtype\":\"%s\",\"shape\":[%s],\"data_offsets\":[%lld,%lld]}",
				b->n++ ? "," : "{", name, dtype, shape, b->at, end);
	b->at = end;
}

static void add_layer(struct big *b, int i, char kind)
{
	add(b, "BF16", 2688, 1, "backbone.layers.%d.norm.weight", i);
	if (kind == 'M') {
		add(b, "BF16", 10304, 2688, "backbone.layers.%d.mixer.in_proj.weight", i);
		add(b, "BF16", 6144, 4, "backbone.layers.%d.mixer.conv1d.weight", i);
		add(b, "BF16", 6144, 1, "backbone.layers.%d.mixer.conv1d.bias", i);
		add(b, "BF16", 64, 1, "backbone.layers.%d.mixer.A_log", i);
		add(b, "BF16", 64, 1, "backbone.layers.%d.mixer.D", i);
		add(b, "BF16", 64, 1, "backbone.layers.%d.mixer.dt_bias", i);
		add(b, "BF16", 4096, 1, "backbone.layers.%d.mixer.norm.weight", i);
		add(b, "BF16", 2688, 4096, "backbone.layers.%d.mixer.out_proj.weight", i);
	} else if (kind == '*') {
		add(b, "BF16", 4096, 2688, "backbone.layers.%d.mixer.q_proj.weight", i);
		add(b, "BF16", 256, 2688, "backbone.layers.%d.mixer.k_proj.weight", i);
		add(b, "BF16", 256, 2688, "backbone.layers.%d.mixer.v_proj.weight", i);
		add(b, "BF16", 2688, 4096, "backbone.layers.%d.mixer.o_proj.weight", i);
	} else {
		add(b, "F32", 128, 2688, "backbone.layers.%d.mixer.gate.weight", i);
		add(b, "F32", 128, 1, "backbone.layers.%d.mixer.gate.e_score_correction_bias", i);
		for (int e = 0; e < 128; e++) {
			add(b, "BF16", 1856, 2688, "backbone.layers.%d.mixer.experts.%d.up_proj.weight", i, e);
			add(b, "BF16", 2688, 1856, "backbone.layers.%d.mixer.experts.%d.down_proj.weight", i,
				e);
		}
		add(b, "BF16", 3712, 2688, "backbone.layers.%d.mixer.shared_experts.up_proj.weight", i);
		add(b, "BF16", 2688, 3712, "backbone.layers.%d.mixer.shared_experts.down_proj.weight", i);
	}
}

static const char big_config[] =
	"{\"model_type\": \"nemotron_h\", \"hybrid_override_pattern\": "
	"\"MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME\", \"num_hidden_layers\": 52,"
	"\"hidden_size\": 2688, \"vocab_size\": 131072, \"max_position_embeddings\": 262144,"
	"\"layer_norm_epsilon\": 1e-05, \"mamba_num_heads\": 64, \"mamba_head_dim\": 64,"
	"\"ssm_state_size\": 128, \"n_groups\": 8, \"conv_kernel\": 4, \"num_attention_heads\": 32,"
	"\"num_key_value_heads\": 2, \"head_dim\": 128, \"n_routed_experts\": 128,"
	"\"num_experts_per_tok\": 6, \"moe_intermediate_size\": 1856,"
	"\"moe_shared_expert_intermediate_size\": 3712, \"intermediate_size\": 1856,"
	"\"routed_scaling_factor\": 2.5, \"eos_token_id\": 2}";

/* 0, or -1 where the file system has no sparse files of 63 GB. */
static int write_big(struct folder *folder)
{
	static const char pattern[] = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME";
	struct big b = {.vectors = true};
	for (int pass = 0; pass < 2; pass++, b.vectors = false) {
		for (int i = 0; i < 52; i++)
			add_layer(&b, i, pattern[i]);
		add(&b, "BF16", 2688, 1, "backbone.norm_f.weight");
		add(&b, "BF16", 131072, 2688, "backbone.embeddings.weight");
		add(&b, "BF16", 131072, 2688, "lm_head.weight");
	}
	assert_int_equal(b.n, 6243);
	text_add_char(&b.header, '}');
	while (b.header.length % 8)
		text_add_char(&b.header, ' ');
	struct text file = {0};
	for (int i = 0; i < 8; i++)
		text_add_char(&file, (char)(b.header.length >> (8 * i) & 0xff));
	text_append(&file, b.header.data, b.header.length);
	folder_write(folder, "config.json", big_config, strlen(big_config));
	folder_write(folder, "model.safetensors", file.data, file.length);
	int result = truncate(folder->file, (off_t)file.length + (off_t)b.at);
	text_free(&b.header);
	text_free(&file);
	return result;
}

static void counts_the_released_30b(void **state)
{
	struct folder folder;
	struct error err = {0};
	struct info info;
	(void)state;
	folder_make(&folder);
	if (write_big(&folder) != 0) {
		folder_remove(&folder);
		skip();
	}
	struct model *model = model_open(folder.path, NULL, &err);
	if (!model || info_read(&info, model, NULL, &err) != 0)
		fail_msg("%s", err.text);
	assert_int_equal(model->weights.n_unused, 0);
	assert_int_equal(info.n_budgets, 3); // the built-in table
	assert_int_equal(info.budgets[0].cost.total, 31577940288);
	assert_int_equal(info.budgets[0].cost.active, 3227754816);
	assert_int_equal(info.state.ssm_bytes, 48234496);
	assert_int_equal(info.state.kv_per_token, 3072);
	assert_int_equal(info.budgets[2].budget->origin, ORIGIN_PUBLISHED);
	print_message("30b: %.2f GB, fp8 %.2f, nvfp4 %.3f; 12b: %.2f B parameters, %.2f active\n",
				  (double)info.budgets[0].bytes[0] / 1e9, (double)info.budgets[0].bytes[1] / 1e9,
				  (double)info.budgets[0].bytes[2] / 1e9, (double)info.budgets[2].cost.total / 1e9,
				  (double)info.budgets[2].cost.active / 1e9);
	// the tensors of the released NVFP4 checkpoint, to the byte (spec: cross-check)
	assert_int_equal(info.budgets[0].bytes[PRECISION_NVFP4], 19339781632);
	model_release(model);
	folder_remove(&folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_the_fixture),
		cmocka_unit_test(says_what_fits),
		cmocka_unit_test(counts_the_released_30b),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
