/*
 * Every child under golden/nest-tiny/children holds the exact bytes that an independent slicer
 * wrote: here each of its tensors is gathered again from the parent through the slice's spans.
 */
#include "core/slice.h"

#include "base/clock.h"
#include "core/elastic.h"
#include "kernels/convert.h"
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

struct loaded {
	struct checkpoint checkpoint;
	struct config config;
	struct weights weights;
	struct elastic elastic;
};

static void path_of(char out[4096], const char *name)
{
	const char *folder = getenv("ELASTISCOPE_TESTS");
	assert_non_null(folder);
	snprintf(out, 4096, "%s/%s", folder, name);
}

#define OK(call)                                                                                   \
	do {                                                                                           \
		struct error err = {0};                                                                    \
		if ((call) < 0) {                                                                          \
			fail_msg("%s", err.text);                                                              \
		}                                                                                          \
	} while (0)

static void load(struct loaded *l, const char *folder, const char *budgets)
{
	char path[4096], budgets_path[4096];
	path_of(path, folder);
	path_of(budgets_path, budgets ? budgets : "");
	OK(checkpoint_open(&l->checkpoint, path, &err));
	OK(config_read(&l->config, path, &err));
	OK(weights_bind(&l->weights, &l->checkpoint, &l->config, &err));
	OK(elastic_read(&l->elastic, &l->config, path, budgets ? budgets_path : NULL, false, &err));
}

static void unload(struct loaded *l)
{
	elastic_free(&l->elastic);
	weights_free(&l->weights);
	checkpoint_close(&l->checkpoint);
}

struct child {
	struct checkpoint checkpoint;
	int layer;         // of the child
	size_t n_compared; // tensors
};

static const struct tensor *tensor_of(struct child *child, bool in_layer, const char *name)
{
	char full[160];
	if (in_layer) {
		snprintf(full, sizeof full, "backbone.layers.%d.%s", child->layer, name);
	} else {
		snprintf(full, sizeof full, "%s", name);
	}
	const struct tensor *tensor = checkpoint_find(&child->checkpoint, full);
	if (!tensor) {
		fail_msg("the child has no %s", full);
	}
	child->n_compared++;
	return tensor;
}

static void same_matrix(struct child *child, bool in_layer, const char *name,
						const struct matrix *m)
{
	const struct tensor *t = tensor_of(child, in_layer, name);
	assert_int_equal(t->n_dims, 2);
	assert_int_equal(t->shape[0], m->n_rows);
	assert_int_equal(t->shape[1], m->n_columns);
	assert_int_equal(t->dtype, m->dtype);
	size_t size = dtype_bytes(m->dtype);
	const char *expected = t->data;
	for (int r = 0; r < m->n_row_spans; r++) {
		for (int i = 0; i < m->rows[r].length; i++) {
			const char *row =
				(const char *)m->data + (size_t)(m->rows[r].start + i) * (size_t)m->stride * size;
			for (int c = 0; c < m->n_column_spans; c++) {
				size_t bytes = (size_t)m->columns[c].length * size;
				assert_memory_equal(row + (size_t)m->columns[c].start * size, expected, bytes);
				expected += bytes;
			}
		}
	}
	assert_ptr_equal(expected, (const char *)t->data + t->bytes);
}

static void same_vector(struct child *child, bool in_layer, const char *name, const float *packed)
{
	const struct tensor *t = tensor_of(child, in_layer, name);
	size_t n = t->bytes / dtype_bytes(t->dtype);
	float *wide = malloc(n * sizeof *wide);
	assert_true(convert_to_f32(t->data, t->dtype, n, wide));
	for (size_t i = 0; i < n && strcmp(name, "mixer.A_log") == 0; i++) {
		wide[i] = -expf(wide[i]);
	}
	assert_memory_equal(wide, packed, n * sizeof *wide);
	free(wide);
}

static void same_layer(struct child *child, const struct layer_slice *l)
{
	char name[80];
	same_vector(child, true, "norm.weight", l->norm);
	switch (l->kind) {
	case LAYER_MAMBA:
		same_matrix(child, true, "mixer.in_proj.weight", &l->mamba.in_proj);
		same_matrix(child, true, "mixer.out_proj.weight", &l->mamba.out_proj);
		same_vector(child, true, "mixer.conv1d.weight", l->mamba.conv_weight);
		same_vector(child, true, "mixer.conv1d.bias", l->mamba.conv_bias);
		same_vector(child, true, "mixer.A_log", l->mamba.a);
		same_vector(child, true, "mixer.D", l->mamba.d);
		same_vector(child, true, "mixer.dt_bias", l->mamba.dt_bias);
		same_vector(child, true, "mixer.norm.weight", l->mamba.norm);
		break;
	case LAYER_ATTENTION:
		same_matrix(child, true, "mixer.q_proj.weight", &l->attention.q);
		same_matrix(child, true, "mixer.k_proj.weight", &l->attention.k);
		same_matrix(child, true, "mixer.v_proj.weight", &l->attention.v);
		same_matrix(child, true, "mixer.o_proj.weight", &l->attention.o);
		break;
	case LAYER_MOE:
		same_matrix(child, true, "mixer.gate.weight", &l->moe.gate);
		same_vector(child, true, "mixer.gate.e_score_correction_bias", l->moe.bias);
		for (int e = 0; e < l->moe.n_experts; e++) {
			snprintf(name, sizeof name, "mixer.experts.%d.up_proj.weight", e);
			same_matrix(child, true, name, &l->moe.up[e]);
			snprintf(name, sizeof name, "mixer.experts.%d.down_proj.weight", e);
			same_matrix(child, true, name, &l->moe.down[e]);
		}
		same_matrix(child, true, "mixer.shared_experts.up_proj.weight", &l->moe.shared_up);
		same_matrix(child, true, "mixer.shared_experts.down_proj.weight", &l->moe.shared_down);
		break;
	case LAYER_MLP:
		same_matrix(child, true, "mixer.up_proj.weight", &l->mlp.up);
		same_matrix(child, true, "mixer.down_proj.weight", &l->mlp.down);
		break;
	}
}

static void same_child(const struct loaded *parent, const char *name)
{
	char path[4096], folder[128];
	snprintf(folder, sizeof folder, "golden/nest-tiny/children/%s", name);
	path_of(path, folder);
	struct child child = {0};
	OK(checkpoint_open(&child.checkpoint, path, &err));
	const struct budget *budget = &parent->elastic.budgets[elastic_find(&parent->elastic, name)];
	struct slice slice;
	OK(slice_build(&slice, &parent->weights, &parent->config, budget, NULL, NULL, &err));
	same_matrix(&child, false, "backbone.embeddings.weight", &slice.embeddings);
	same_matrix(&child, false, "lm_head.weight", &slice.lm_head);
	same_vector(&child, false, "backbone.norm_f.weight", slice.norm_f);
	for (int i = 0; i < parent->config.n_layers; i++) {
		if (slice.layers[i].keep) {
			same_layer(&child, &slice.layers[i]);
			child.layer++;
			assert_true(slice.layers[i].norm_count == (float)slice.hidden);
			assert_true(slice.layers[i].norm_scale == 1);
		}
	}
	assert_int_equal(child.n_compared, child.checkpoint.n_tensors);
	assert_int_equal(slice.cost.bytes, child.checkpoint.tensor_bytes);
	slice_free(&slice);
	checkpoint_close(&child.checkpoint);
}

static void children_are_byte_for_byte(void **state)
{
	(void)state;
	struct loaded parent;
	load(&parent, "golden/nest-tiny", NULL);
	same_child(&parent, "medium");
	same_child(&parent, "small");
	unload(&parent);
	load(&parent, "golden/nest-tiny", "golden/nest-tiny/elastic-allaxes.json");
	same_child(&parent, "odd");
	unload(&parent);
}

static void assert_list(const int32_t *list, int n, const int32_t *expected)
{
	for (int i = 0; i < n; i++) {
		assert_int_equal(list[i], expected[i]);
	}
}

/* hetero: heads 0 1 of group 0 and 3 4 of group 1, 12 of 16 channels each; layer 6 one head a
 * group. */
static void index_lists_of_hetero(void **state)
{
	(void)state;
	struct loaded parent;
	load(&parent, "golden/nest-tiny", "golden/nest-tiny/elastic-allaxes.json");
	struct slice slice;
	OK(slice_build(&slice, &parent.weights, &parent.config, &parent.elastic.budgets[2], NULL, NULL,
				   &err));
	const struct mamba_slice *m = &slice.layers[0].mamba;
	assert_int_equal(m->n_heads, 4);
	assert_int_equal(m->head_dim, 12);
	assert_int_equal(m->inner, 48);
	assert_int_equal(m->channels, 48 + 2 * 2 * 24);
	assert_int_equal(m->in_proj.n_rows, 2 * 48 + 96 + 4);
	// z and x: a run a head; B, C and dt of heads 0 and 1 touch; dt of heads 3 and 4.
	assert_int_equal(m->in_proj.n_row_spans, 10);
	assert_int_equal(m->in_proj.rows[8].start, 192);
	assert_int_equal(m->in_proj.rows[8].length, 98);
	assert_int_equal(m->in_proj.rows[9].start, 291);
	assert_int_equal(m->in_proj.rows[9].length, 2);
	assert_int_equal(m->out_proj.n_column_spans, 4);
	assert_list(m->head_group, 4, (int32_t[]){0, 0, 1, 1});
	assert_list(m->group_start, 3, (int32_t[]){0, 24, 48});
	assert_true(m->norm_count[0] == 24 && m->norm_count[1] == 24);
	assert_int_equal(m->channel[11], 11);
	assert_int_equal(m->channel[12], 16);
	assert_int_equal(m->channel[24], 48);
	assert_int_equal(m->channel[48], 96);
	assert_false(slice.layers[2].keep);
	assert_list(slice.layers[3].attention.kv_head, 2, (int32_t[]){0, 1});
	assert_list(slice.layers[3].attention.head, 2, (int32_t[]){0, 3});
	assert_int_equal(slice.layers[4].moe.n_experts, 5);
	assert_int_equal(slice.layers[4].moe.ffn, 24);
	assert_int_equal(slice.layers[4].moe.shared_ffn, 24);
	assert_int_equal(slice.layers[6].mamba.n_heads, 2);
	assert_list(slice.layers[6].mamba.head_group, 2, (int32_t[]){0, 1});
	assert_int_equal(slice.layers[7].moe.n_experts, 4);
	slice_free(&slice);

	// The parent itself: everything joins to one span.
	OK(slice_build(&slice, &parent.weights, &parent.config, &parent.elastic.budgets[0], NULL, NULL,
				   &err));
	assert_int_equal(slice.layers[0].mamba.in_proj.n_row_spans, 1);
	assert_int_equal(slice.layers[0].mamba.out_proj.n_column_spans, 1);
	assert_int_equal(slice.layers[3].attention.q.n_row_spans, 1);
	assert_int_equal(slice.cost.bytes, parent.checkpoint.tensor_bytes);
	slice_free(&slice);
	unload(&parent);
}

static void experts_by_runs(void **state)
{
	(void)state;
	struct loaded parent;
	load(&parent, "golden/nest-tiny", NULL);
	struct budget budget;
	OK(budget_init(&budget, &parent.config, "masked", &err));
	struct span spans[] = {{0, 2}, {5, 3}};
	struct budget_runs runs = {4, AXIS_EXPERTS, spans, 2};
	budget.runs = &runs;
	budget.n_runs = 1;
	struct slice slice;
	OK(slice_build(&slice, &parent.weights, &parent.config, &budget, NULL, NULL, &err));
	const struct moe_slice *moe = &slice.layers[4].moe;
	assert_int_equal(moe->n_experts, 5);
	assert_list(moe->expert, 5, (int32_t[]){0, 1, 5, 6, 7});
	assert_ptr_equal(moe->up[3].data, parent.weights.layers[4].up[6].data);
	assert_int_equal(moe->gate.n_row_spans, 2);
	assert_int_equal(slice.layers[1].moe.n_experts, 10);
	slice_free(&slice);
	unload(&parent);
}

static void costs_of_the_demo(void **state)
{
	(void)state;
	static const uint64_t expected[3][2] = {
		{2347656, 905864}, {1171512, 630840}, {520680, 389608}}; // demo/README.md
	struct loaded demo;
	load(&demo, "../demo", NULL);
	assert_int_equal(demo.elastic.n_budgets, 3);
	for (int i = 0; i < 3; i++) {
		struct slice slice;
		OK(slice_build(&slice, &demo.weights, &demo.config, &demo.elastic.budgets[i], NULL, NULL,
					   &err));
		assert_int_equal(slice.cost.total, expected[i][0]);
		assert_int_equal(slice.cost.active, expected[i][1]);
		assert_true(slice.cost.bytes_per_token < slice.cost.bytes);
		slice_free(&slice);
	}
	unload(&demo);
}

static void wrong_shapes_are_named(void **state)
{
	(void)state;
	struct loaded parent;
	load(&parent, "golden/nest-tiny", NULL);
	struct slice slice;
	struct error found = {0};
	struct layer_weights *w = &parent.weights.layers[1];
	struct tensor kept = w->up[3];
	w->up[3].shape[0] = 40;
	assert_int_equal(slice_build(&slice, &parent.weights, &parent.config,
								 &parent.elastic.budgets[0], NULL, NULL, &found),
					 -1);
	assert_string_equal(found.text,
						"budget large: layer 1 experts.3.up_proj is BF16 [40, 80], the budget "
						"reads up to [48, 80] of it");
	OK(slice_build(&slice, &parent.weights, &parent.config, &parent.elastic.budgets[1], NULL, NULL,
				   &err));
	slice_free(&slice);
	w->up[3] = kept;
	parent.elastic.budgets[1].width[AXIS_HIDDEN] = 96;
	assert_int_equal(slice_build(&slice, &parent.weights, &parent.config,
								 &parent.elastic.budgets[1], NULL, NULL, &found),
					 -1);
	assert_string_equal(found.text,
						"budget medium: hidden_size is 96, expected 1 to the parent's 80");
	unload(&parent);
}

/* A parent of the released dimensions whose tensors all point at the same zeros: only vectors are
 * read. */
static void fill(struct tensor *t, enum dtype dtype, int64_t rows, int64_t columns,
				 const void *data)
{
	*t = (struct tensor){dtype, columns ? 2 : 1, {rows, columns}, data, 0};
	t->bytes = (uint64_t)(rows * (columns ? columns : 1)) * dtype_bytes(dtype);
}

static void fill_layer(struct layer_weights *w, enum layer_kind kind, struct tensor *experts,
					   const void *zeros)
{
	fill(&w->norm, DTYPE_BF16, 2688, 0, zeros);
	if (kind == LAYER_MAMBA) {
		fill(&w->in_proj, DTYPE_BF16, 10304, 2688, zeros);
		fill(&w->out_proj, DTYPE_BF16, 2688, 4096, zeros);
		fill(&w->conv_weight, DTYPE_BF16, 6144, 4, zeros);
		fill(&w->conv_bias, DTYPE_BF16, 6144, 0, zeros);
		fill(&w->a_log, DTYPE_BF16, 64, 0, zeros);
		fill(&w->d, DTYPE_BF16, 64, 0, zeros);
		fill(&w->dt_bias, DTYPE_BF16, 64, 0, zeros);
		fill(&w->gated_norm, DTYPE_BF16, 4096, 0, zeros);
	} else if (kind == LAYER_ATTENTION) {
		fill(&w->q, DTYPE_BF16, 4096, 2688, zeros);
		fill(&w->k, DTYPE_BF16, 256, 2688, zeros);
		fill(&w->v, DTYPE_BF16, 256, 2688, zeros);
		fill(&w->o, DTYPE_BF16, 2688, 4096, zeros);
	} else {
		fill(&w->gate, DTYPE_BF16, 128, 2688, zeros);
		fill(&w->gate_bias, DTYPE_F32, 128, 0, zeros);
		fill(&w->shared_up, DTYPE_BF16, 3712, 2688, zeros);
		fill(&w->shared_down, DTYPE_BF16, 2688, 3712, zeros);
		w->up = experts;
		w->down = experts + 128;
		for (int e = 0; e < 128; e++) {
			fill(&w->up[e], DTYPE_BF16, 1856, 2688, zeros);
			fill(&w->down[e], DTYPE_BF16, 2688, 1856, zeros);
		}
	}
}

/* A width can be cut where weights_block() says, and nowhere else: every width of every axis. */
static void check_widths(struct loaded *l)
{
	for (int a = 0; a < N_AXES; a++) {
		int block = weights_block(&l->weights, &l->config, (enum axis)a, -1), cut = 0;
		for (int w = 1; w <= axis_parent_width((enum axis)a, &l->config); w++) {
			struct budget budget = {0};
			struct slice slice;
			struct error err = {0};
			assert_int_equal(budget_init(&budget, &l->config, "typed", &err), 0);
			budget.width[a] = w;
			if (budget_check(&budget, &l->config, &err) == 0) {
				int result =
					slice_build(&slice, &l->weights, &l->config, &budget, NULL, NULL, &err);
				if ((result == 0) != (w % block == 0))
					fail_msg("%s=%d, block %d: %s", axis_name((enum axis)a), w, block, err.text);
				if (result == 0)
					slice_free(&slice);
				cut++;
			}
			budget_free(&budget);
		}
		assert_true(cut > 0);
	}
}

static void blocks_of_widths(void **state)
{
	static const int blocks[N_AXES] = {16, 16, 1, 16, 16, 2, 16, 1};
	struct loaded l = {0};
	(void)state;
	load(&l, "golden/quantised/nest-tiny-nvfp4", NULL);
	for (int a = 0; a < N_AXES; a++)
		assert_int_equal(weights_block(&l.weights, &l.config, (enum axis)a, -1), blocks[a]);
	check_widths(&l);
	// layer 2's out_proj is BF16, layer 0's NVFP4; hidden_size is the whole model's
	assert_int_equal(weights_block(&l.weights, &l.config, AXIS_MAMBA_CHANNELS, 2), 1);
	assert_int_equal(weights_block(&l.weights, &l.config, AXIS_MAMBA_CHANNELS, 0), 16);
	assert_int_equal(weights_block(&l.weights, &l.config, AXIS_HIDDEN, 3), 16);
	// o_proj as if it were NVFP4: 3 heads of 20 channels a KV head end on no block but the last
	l.weights.layers[3].o.dtype = DTYPE_NVFP4;
	assert_int_equal(weights_block(&l.weights, &l.config, AXIS_ATTENTION_HEADS, 3), 6);
	unload(&l);
	load(&l, "golden/quantised/nest-tiny-fp8", NULL);
	for (int a = 0; a < N_AXES; a++)
		assert_int_equal(weights_block(&l.weights, &l.config, (enum axis)a, -1), 1);
	check_widths(&l);
	unload(&l);
}

static void released_dimensions(void **state)
{
	(void)state;
	const char *pattern = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME";
	struct config config = {.n_layers = 52, .hidden_size = 2688, .vocab_size = 131072};
	config.mamba_num_heads = config.mamba_head_dim = 64;
	config.ssm_state_size = config.n_routed_experts = config.head_dim = 128;
	config.n_groups = 8;
	config.conv_kernel = 4;
	config.num_attention_heads = 32;
	config.num_key_value_heads = 2;
	config.num_experts_per_tok = 6;
	config.moe_intermediate_size = config.intermediate_size = 1856;
	config.moe_shared_expert_intermediate_size = 3712;
	void *zeros = calloc(6144 * 4, 4);
	struct weights weights = {.layers = calloc(52, sizeof *weights.layers),
							  .experts = calloc(52 * 256, sizeof *weights.experts)};
	for (int i = 0; i < 52; i++) {
		config.kinds[i] = pattern[i] == 'M'   ? LAYER_MAMBA
						  : pattern[i] == 'E' ? LAYER_MOE
											  : LAYER_ATTENTION;
		fill_layer(&weights.layers[i], config.kinds[i], weights.experts + i * 256, zeros);
	}
	fill(&weights.embeddings, DTYPE_BF16, 131072, 2688, zeros);
	fill(&weights.lm_head, DTYPE_BF16, 131072, 2688, (char *)zeros + 2); // not tied
	fill(&weights.norm_f, DTYPE_BF16, 2688, 0, zeros);
	struct elastic elastic;
	OK(elastic_read(&elastic, &config, "/nonexistent", NULL, false, &err));
	static const uint64_t total[3] = {31577940288, 0,
									  12426658368}; // spec nemotron-h.md, star-elastic.md
	for (int i = 0; i < 3; i++) {
		struct slice slice;
		uint64_t from = clock_ns();
		OK(slice_build(&slice, &weights, &config, &elastic.budgets[i], NULL, NULL, &err));
		printf("%s: %llu parameters, %llu active, built in %.2f ms\n", elastic.budgets[i].name,
			   (unsigned long long)slice.cost.total, (unsigned long long)slice.cost.active,
			   (double)(clock_ns() - from) / 1e6);
		assert_true(total[i] == 0 || slice.cost.total == total[i]);
		// One list of spans for all experts of a layer.
		assert_ptr_equal(slice.layers[1].moe.up[0].rows, slice.layers[1].moe.up[127].rows);
		if (i == 0) {
			assert_int_equal(slice.cost.active, 3227754816); // "without the embedding table"
		}
		slice_free(&slice);
	}
	elastic_free(&elastic);
	free(weights.experts);
	free(weights.layers);
	free(zeros);
}

static const struct slice *freed;
static int n_read; // columns of a matrix that were read while the device gave memory back

/* As a thread that records a pass may do until the device has waited for it. */
static void reading_release(struct device *device, void *memory)
{
	const struct matrix *in_proj = &freed->layers[0].mamba.in_proj;
	n_read = 0;
	for (int i = 0; i < in_proj->n_column_spans; i++)
		n_read += in_proj->columns[i].length;
	backend_cpu.release(device, memory);
}

static void device_memory_goes_first(void **state)
{
	(void)state;
	struct loaded l;
	struct slice slice;
	struct backend reading = backend_cpu;
	const struct device_options options = {.n_threads = 1, .kv_dtype = DTYPE_F32};
	reading.release = reading_release;
	struct device *device = reading.open(&options, NULL);
	assert_non_null(device);
	load(&l, "golden/nest-tiny", NULL);
	OK(slice_build(&slice, &l.weights, &l.config, &l.elastic.budgets[0], &reading, device, &err));
	freed = &slice;
	int wanted = slice.layers[0].mamba.in_proj.n_columns;
	assert_true(slice.lists.n_blocks > 0 && wanted > 0);
	slice_free(&slice);
	assert_int_equal(n_read, wanted);
	unload(&l);
	reading.close(device);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(children_are_byte_for_byte),
		cmocka_unit_test(index_lists_of_hetero),
		cmocka_unit_test(experts_by_runs),
		cmocka_unit_test(costs_of_the_demo),
		cmocka_unit_test(wrong_shapes_are_named),
		cmocka_unit_test(blocks_of_widths),
		cmocka_unit_test(released_dimensions),
		cmocka_unit_test(device_memory_goes_first),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
