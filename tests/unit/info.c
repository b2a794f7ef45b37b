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
	assert_int_equal(info.state.size.ssm_bytes, 3 * 6 * 16 * 24 * 4);
	assert_int_equal(info.state.size.conv_bytes, 3 * 3 * 192 * 4);
	assert_int_equal(info.state.size.kv_per_token, 2 * 2 * 20);
	budget_free(&typed);
	info_free(&info);
	model_release(model);
}

/* One after the other, until they and a pass of as many lanes take more than there is. */
static int most_sequences(const struct info *info, const struct fit_request *request,
						  uint64_t weights)
{
	for (int n = 1;; n++) {
		struct footprint footprint;
		struct footprint_plan plan = {.n_sequences = n,
									  .context = request->context,
									  .kv_dtype = request->kv_dtype,
									  .n_slices = 1,
									  .n_lanes = n < MAX_LANES ? n : MAX_LANES,
									  .n_tokens = card_chunk(INT16_MAX, request->memory_bytes),
									  .math = request->math,
									  .scratch_bytes = card_scratch_bytes};
		footprint_of(&footprint, &info->model->config, &plan);
		if (weights + footprint_bytes(&footprint) + CARD_DRIVER_BYTES > request->memory_bytes)
			return n - 1;
	}
}

/* What a chat asks a card for before it uploads, but for its sequence. */
static uint64_t chat_bytes(const struct info *info, const struct fit_request *request)
{
	struct footprint f;
	struct footprint_plan plan = {.context = request->context,
								  .kv_dtype = request->kv_dtype,
								  .snapshot_bytes = request->snapshot_bytes,
								  .n_tokens = card_chunk(INT16_MAX, request->memory_bytes),
								  .math = request->math,
								  .scratch_bytes = card_scratch_bytes};
	footprint_plan_chat(&plan);
	footprint_of(&f, &info->model->config, &plan);
	return footprint_bytes(&f) - f.kv - f.conv - f.ssm;
}

static void says_what_fits(void **state)
{
	struct info info;
	struct error err = {0};
	struct info_fit rows[N_PRECISIONS * INFO_MAX_BUDGETS];
	(void)state;
	struct model *model = open_model("golden/nest-tiny");
	assert_int_equal(info_read(&info, model, NULL, &err), 0);
	uint64_t fixed = info.state.size.ssm_bytes + info.state.size.conv_bytes;
	struct fit_request request = {.context = 50, .kv_dtype = DTYPE_BF16};
	assert_int_equal(info_fit(&info, &request, rows), 9);
	uint64_t work = rows[0].work_bytes, weights = 865284 + work;
	assert_true(work > CARD_DRIVER_BYTES && work < CARD_DRIVER_BYTES + (4 << 20));
	assert_true(work == CARD_DRIVER_BYTES + chat_bytes(&info, &request));
	request.snapshot_bytes = 1; // none
	info_fit(&info, &request, rows);
	assert_true(rows[0].work_bytes == CARD_DRIVER_BYTES + chat_bytes(&info, &request));
	assert_true(rows[0].work_bytes == work - 4 * fixed + 1);
	request.snapshot_bytes = 0;
	request.memory_bytes = weights + fixed + 100 * 160 + 159;
	assert_int_equal(info_fit(&info, &request, rows), 9);
	assert_int_equal(rows[0].weight_bytes, 865284);
	assert_int_equal(rows[0].state_bytes, fixed + 50 * 160);
	assert_int_equal(rows[0].longest_context, 100);
	assert_int_equal(rows[0].sequences, most_sequences(&info, &request, rows[0].weight_bytes));
	assert_in_range(rows[0].sequences, 2, 12); // nothing to go back to, one budget
	assert_true(rows[1].sequences > 1 && rows[1].longest_context > 100);
	for (int i = 0; i < 3; i++) { // fewer bits, fewer bytes
		assert_true(rows[3 + i].weight_bytes < rows[i].weight_bytes);
		assert_true(rows[6 + i].weight_bytes < rows[3 + i].weight_bytes);
	}
	request.memory_bytes += (uint64_t)64 << 20; // more than a pass has lanes
	info_fit(&info, &request, rows);
	assert_int_equal(rows[0].sequences, most_sequences(&info, &request, rows[0].weight_bytes));
	assert_true(rows[0].sequences > MAX_LANES);
	request.memory_bytes -= (uint64_t)64 << 20;
	request.kv_dtype = DTYPE_F32;
	info_fit(&info, &request, rows);
	assert_int_equal(rows[0].longest_context, 50);
	request.math = MATH_FAST; // cuBLASLt takes more than is left
	info_fit(&info, &request, rows);
	assert_true(rows[0].work_bytes >= work + CARD_BLAS_BYTES);
	assert_int_equal(rows[0].longest_context, -1);
	request.math = MATH_EXACT;
	request.memory_bytes = weights - 1;
	info_fit(&info, &request, rows);
	assert_int_equal(rows[0].longest_context, -1);
	assert_int_equal(rows[0].sequences, 0);
	assert_true(rows[2].sequences > 0);
	request.memory_bytes = weights + fixed - 1;
	info_fit(&info, &request, rows);
	assert_int_equal(rows[0].longest_context, 0);
	assert_true(info_state_bytes(&info.state, INT64_MAX, DTYPE_F32) == UINT64_MAX);
	info_free(&info);
	model_release(model);
}

static const struct module_group *group_of(const struct info *info, const char *what, int i)
{
	for (int g = 0; g < info->modules.n; g++)
		if (strcmp(info->modules.groups[g].what, what) == 0 && i-- == 0)
			return &info->modules.groups[g];
	fail_msg("no %s", what);
	return NULL;
}

static void check_group(const struct info *info, const char *what, int i, enum dtype dtype, int n,
						const char *why, const char *where)
{
	const struct module_group *g = group_of(info, what, i);
	struct text layers = {0};
	assert_int_equal(g->dtype, dtype);
	assert_int_equal(g->n, n);
	assert_string_equal(g->why, why);
	module_group_layers(g, &layers);
	assert_string_equal(text_chars(&layers), where);
	text_free(&layers);
}

/* What the BF16 fixture would take in other formats is what the others take, to the byte; and the
 * other way round. */
static void precisions_agree_with_the_fixtures(void **state)
{
	static const char *const folders[] = {"golden/nest-tiny", "golden/quantised/nest-tiny-fp8",
										  "golden/quantised/nest-tiny-nvfp4"};
	static const enum precision stored[] = {PRECISION_STORED, PRECISION_FP8, PRECISION_NVFP4};
	struct model *model[3];
	struct info info[3];
	struct error err = {0};
	(void)state;
	for (int i = 0; i < 3; i++) {
		model[i] = open_model(folders[i]);
		assert_int_equal(info_read(&info[i], model[i], NULL, &err), 0);
	}
	for (int i = 1; i < 3; i++)
		assert_int_equal(info[0].budgets[0].costs[stored[i]].bytes,
						 model[i]->checkpoint.tensor_bytes);
	for (int i = 1; i < 3; i++) {
		const struct precision_cost *cost = info[i].budgets[0].costs;
		assert_int_equal(cost[PRECISION_BF16].bytes, model[0]->checkpoint.tensor_bytes);
		assert_int_equal(cost[PRECISION_STORED].bytes, info[i].budgets[0].cost.bytes);
		assert_int_equal(cost[PRECISION_BF16].scale_bytes, 0);
		// every quantised matrix has an input_scale besides, which decoding does not read
		assert_int_equal(cost[PRECISION_STORED].bytes + 4 * 72, model[i]->checkpoint.tensor_bytes);
	}
	uint64_t bytes = 0, scales = 0;
	for (int g = 0; g < info[2].modules.n; g++) {
		bytes += info[2].modules.groups[g].bytes;
		scales += info[2].modules.groups[g].scale_bytes;
	}
	assert_int_equal(scales, info[2].budgets[0].costs[PRECISION_STORED].scale_bytes);
	assert_true(bytes < info[2].budgets[0].cost.bytes); // vectors come on top
	check_group(&info[2], "routed experts up/down", 0, DTYPE_NVFP4, 60, "hf_quant_config.json",
				"all 3 layers");
	check_group(&info[2], "Mamba in_proj/out_proj", 0, DTYPE_NVFP4, 4, "hf_quant_config.json",
				"layers 0, 6");
	check_group(&info[2], "Mamba in_proj/out_proj", 1, DTYPE_BF16, 2,
				"excluded in hf_quant_config.json", "layer 2");
	check_group(&info[2], "embeddings", 0, DTYPE_BF16, 1, "never quantised", "");
	check_group(&info[0], "router", 0, DTYPE_F32, 3, "as stored", "all 3 layers");
	check_group(&info[1], "MLP up/down", 0, DTYPE_F8_E4M3, 2, "hf_quant_config.json", "layer 5");
	struct info_fit rows[N_PRECISIONS * INFO_MAX_BUDGETS];
	struct fit_request request = {
		.memory_bytes = 1 << 20, .context = 50, .kv_dtype = DTYPE_F8_E4M3};
	assert_int_equal(info_fit(&info[2], &request, rows), 12); // with what BF16 would take
	assert_int_equal(rows[0].state_bytes,
					 info[2].state.size.ssm_bytes + info[2].state.size.conv_bytes + 50 * 80);
	for (int i = 0; i < 3; i++) {
		info_free(&info[i]);
		model_release(model[i]);
	}
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
	assert_int_equal(info.state.size.ssm_bytes, 48234496);
	assert_int_equal(info.state.size.kv_per_token, 3072);
	assert_int_equal(info.budgets[2].budget->origin, ORIGIN_PUBLISHED);
	print_message("30b: %.2f GB, fp8 %.2f, nvfp4 %.3f; 12b: %.2f B parameters, %.2f active\n",
				  (double)info.budgets[0].costs[PRECISION_STORED].bytes / 1e9,
				  (double)info.budgets[0].costs[PRECISION_FP8].bytes / 1e9,
				  (double)info.budgets[0].costs[PRECISION_NVFP4].bytes / 1e9,
				  (double)info.budgets[2].cost.total / 1e9,
				  (double)info.budgets[2].cost.active / 1e9);
	// the tensors of the released NVFP4 checkpoint, to the byte (spec: cross-check)
	assert_int_equal(info.budgets[0].costs[PRECISION_NVFP4].bytes, 19339781632);
	info_free(&info);
	model_release(model);
	folder_remove(&folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(counts_the_fixture),
		cmocka_unit_test(says_what_fits),
		cmocka_unit_test(precisions_agree_with_the_fixtures),
		cmocka_unit_test(counts_the_released_30b),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
