/*
 * Children of independent slicers verify; children with seeded faults are told apart by name.
 */
#include "base/file.h"
#include "export/explain.h"
#include "faults.h"
#include "kernels/convert.h"
#include "tests/unit/folder.h"
#include <setjmp.h>
#include <stdarg.h>

#include <cmocka.h>

static struct error err; // of the last call

#define ASSERT_OK(call)                                                                            \
	do {                                                                                           \
		err.text[0] = '\0';                                                                        \
		if ((call) != 0)                                                                           \
			fail_msg("%s", err.text);                                                              \
	} while (0)

static const char *golden(const char *name)
{
	static char path[4096];
	snprintf(path, sizeof path, "%s/golden/%s", getenv("ELASTISCOPE_TESTS"), name);
	return path;
}

static struct model *open_model(const char *name)
{
	struct model *model = model_open(golden(name), NULL, &err);
	if (!model)
		fail_msg("%s", err.text);
	return model;
}

static void goldens_verify(void **state)
{
	static const struct {
		const char *parent, *child, *budget;
		bool named;
	} cases[] = {
		{"nest-tiny", "nest-tiny/children/medium", "medium", true},
		{"nest-tiny", "nest-tiny/children/small", "small", true},
		{"nest-tiny", "nest-tiny/children/odd",
		 "hidden_size=64,moe_intermediate_size=32,n_routed_experts=7,"
		 "moe_shared_expert_intermediate_size=32,intermediate_size=80,mamba_num_heads=4,"
		 "num_attention_heads=4,skip=2",
		 false},
		{"nest-tiny", "nest-tiny", "large", true},
		{"quantised/nest-tiny-fp8", "quantised/nest-tiny-fp8/children/medium", "medium", true},
		{"quantised/nest-tiny-nvfp4", "quantised/nest-tiny-nvfp4/children/small", "small", true},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct model *parent = open_model(cases[i].parent);
		struct verify v;
		ASSERT_OK(verify_open(&v, parent, golden(cases[i].child), NULL, &err));
		assert_string_equal(v.budget.name, cases[i].budget);
		assert_int_equal(v.named, cases[i].named);
		ASSERT_OK(verify_run(&v, NULL, NULL, &err));
		if (v.n_differences)
			fail_msg("%s: %s", cases[i].child, v.differences[0].sentence);
		assert_int_equal(v.n_equal, v.child.n_tensors);
		verify_close(&v);
		model_release(parent);
	}
}

/* Verifies and explains; everything that is wrong must have one of these causes. */
static void assert_causes(const struct model *parent, const char *child, const char *budget,
						  const enum cause *causes, size_t n)
{
	struct explanations why;
	struct verify v;
	size_t found = 0;
	ASSERT_OK(verify_open(&v, parent, child, budget, &err));
	ASSERT_OK(verify_run(&v, NULL, NULL, &err));
	ASSERT_OK(explain(&why, &v, &err));
	for (size_t i = 0; i < why.n; i++) {
		size_t c = 0;
		while (c < n && why.list[i].cause != causes[c])
			c++;
		if (c == n)
			fail_msg("%s: %s: %s", cause_name(why.list[i].cause), why.list[i].first,
					 why.list[i].sentence);
		found += why.list[i].n;
	}
	assert_int_equal(found, v.n_differences);
	assert_int_equal(found > 0, n > 0);
	explanations_free(&why);
	verify_close(&v);
}

static void seeded_faults_are_named(void **state)
{
	static const enum cause causes[N_FAULTS] = {
		[FAULT_NORM] = CAUSE_SCALED,    [FAULT_HEADS] = CAUSE_GLOBAL_HEADS,
		[FAULT_EXPERTS] = CAUSE_EXPERT, [FAULT_WIDTH] = CAUSE_OTHER_END,
		[FAULT_SCALED] = CAUSE_SCALED,  [FAULT_PERMUTED] = CAUSE_PERMUTED,
	};
	struct model *parent = open_model("nest-tiny");
	(void)state;
	for (int fault = FAULT_NONE; fault < N_FAULTS; fault++) {
		const char *budget = fault == FAULT_HEADS
								 ? "hidden_size=64,mamba_num_heads=4,num_attention_heads=4"
								 : "medium";
		struct folder folder;
		folder_make(&folder);
		ASSERT_OK(fault_write(parent, budget, fault, folder.path, &err));
		assert_causes(parent, folder.path, budget, &causes[fault], fault != FAULT_NONE);
		folder_remove(&folder);
	}
	model_release(parent);
}

/* ---- one tensor changed by hand ---- */

struct changed {
	struct checkpoint child;
	struct named_tensor *tensors;
	struct tensor *tensor; // the one to change
	uint8_t *data;
	int64_t rows, row_bytes;
};

static void change(struct changed *c, const char *child, const char *name)
{
	*c = (struct changed){0};
	ASSERT_OK(checkpoint_open(&c->child, child, &err));
	c->tensors = calloc(c->child.n_tensors, sizeof *c->tensors);
	assert_non_null(c->tensors);
	memcpy(c->tensors, c->child.tensors, c->child.n_tensors * sizeof *c->tensors);
	for (size_t i = 0; i < c->child.n_tensors; i++)
		if (strcmp(c->tensors[i].name, name) == 0)
			c->tensor = &c->tensors[i].tensor;
	assert_non_null(c->tensor);
	c->data = malloc(c->tensor->bytes);
	assert_non_null(c->data);
	memcpy(c->data, c->tensor->data, c->tensor->bytes);
	c->tensor->data = c->data;
	c->rows = c->tensor->n_dims ? c->tensor->shape[0] : 1;
	c->row_bytes = (int64_t)c->tensor->bytes / c->rows;
}

static void copy_text(const char *from, struct folder *folder, const char *name)
{
	struct text text = {0};
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", from, name);
	ASSERT_OK(file_read(path, 1 << 20, &text, &err));
	folder_write(folder, name, text.data, text.length);
	text_free(&text);
}

static void check_changed(struct changed *c, const struct model *parent, const char *child,
						  enum cause cause, const char *sentence)
{
	struct folder folder;
	struct explanations why;
	struct verify v;
	folder_make(&folder);
	ASSERT_OK(checkpoint_write(folder_file(&folder, "model.safetensors"), c->tensors,
							   c->child.n_tensors, &err));
	copy_text(child, &folder, "config.json");
	ASSERT_OK(verify_open(&v, parent, folder.path, NULL, &err));
	ASSERT_OK(verify_run(&v, NULL, NULL, &err));
	ASSERT_OK(explain(&why, &v, &err));
	assert_true(why.n > 0);
	if (why.list[0].cause != cause || !strstr(why.list[0].sentence, sentence))
		fail_msg("%s: %s, expected %s: %s", cause_name(why.list[0].cause), why.list[0].sentence,
				 cause_name(cause), sentence);
	explanations_free(&why);
	verify_close(&v);
	folder_remove(&folder);
	checkpoint_close(&c->child);
	free(c->tensors);
	free(c->data);
}

static void swap_bytes(uint8_t *a, uint8_t *b, int64_t n)
{
	for (int64_t i = 0; i < n; i++) {
		uint8_t byte = a[i];
		a[i] = b[i];
		b[i] = byte;
	}
}

static void changes_by_hand_are_named(void **state)
{
	static const char up[] = "backbone.layers.1.mixer.experts.0.up_proj.weight";
	struct model *parent = open_model("nest-tiny");
	char child[4096];
	struct changed c;
	(void)state;
	snprintf(child, sizeof child, "%s", golden("nest-tiny/children/medium"));

	change(&c, child, up); // two rows exchanged
	swap_bytes(c.data + 3 * c.row_bytes, c.data + 7 * c.row_bytes, c.row_bytes);
	check_changed(&c, parent, child, CAUSE_PERMUTED, "rows 3 and 7 are exchanged");

	change(&c, child, up); // two columns
	for (int64_t r = 0; r < c.rows; r++)
		swap_bytes(c.data + r * c.row_bytes + 2, c.data + r * c.row_bytes + 126, 2);
	check_changed(&c, parent, child, CAUSE_PERMUTED, "columns 1 and 63 are exchanged");

	change(&c, child, up); // both
	swap_bytes(c.data, c.data + c.row_bytes, c.row_bytes);
	for (int64_t r = 0; r < c.rows; r++)
		swap_bytes(c.data + r * c.row_bytes + 2, c.data + r * c.row_bytes + 126, 2);
	check_changed(&c, parent, child, CAUSE_MIXED, "in another order");

	change(&c, child, up); // columns from 5 on
	const struct tensor *from = checkpoint_find(&parent->checkpoint, up);
	for (int64_t r = 0; r < c.rows; r++)
		memcpy(c.data + r * c.row_bytes, (const char *)from->data + r * 160 + 10, 128);
	check_changed(&c, parent, child, CAUSE_SHIFTED, "columns are shifted by 5");

	change(&c, child, up); // the other end of both axes
	int64_t below = from->shape[0] - c.rows;
	assert_true(below > 0);
	for (int64_t r = 0; r < c.rows; r++)
		memcpy(c.data + r * c.row_bytes, (const char *)from->data + (below + r) * 160 + 32, 128);
	check_changed(&c, parent, child, CAUSE_OTHER_END, "the parent's last rows and columns");

	change(&c, child, up); // one row times -0.5
	uint16_t *half = (uint16_t *)(void *)(c.data + 9 * c.row_bytes);
	for (int64_t i = 0; i < c.row_bytes / 2; i++)
		half[i] = f32_to_bf16(bf16_to_f32(half[i]) * -0.5f);
	check_changed(&c, parent, child, CAUSE_ROWS_SCALED, "1 of 32 rows are scaled, row 9 by -0.5");

	change(&c, child, up); // a row of zeros, and a NaN
	memset(c.data + 9 * c.row_bytes, 0, (size_t)c.row_bytes);
	check_changed(&c, parent, child, CAUSE_NUMBERS, "1 of 32 rows are 0, the first is row 9");
	change(&c, child, up);
	((uint16_t *)(void *)(c.data + 9 * c.row_bytes))[3] = 0x7fc0;
	check_changed(&c, parent, child, CAUSE_NUMBERS, "1 of 32 rows hold other numbers, NaN");

	change(&c, child, up); // one bit
	c.data[4 * c.row_bytes + 20] ^= 1;
	check_changed(&c, parent, child, CAUSE_NUMBERS, "1 of 32 rows hold other numbers");

	change(&c, child, "backbone.layers.1.mixer.gate.weight"); // a gate turned on its side
	c.tensor->shape[0] = c.tensor->shape[1];
	c.tensor->shape[1] = c.rows;
	check_changed(&c, parent, child, CAUSE_OTHER_AXIS, "cut along the other axis");

	change(&c, child, "lm_head.weight");
	c.tensor->dtype = DTYPE_F16;
	check_changed(&c, parent, child, CAUSE_DTYPE, "is F16 [224, 64], expected BF16 [224, 64]");
	model_release(parent);
}

static void quantised_changes_are_named(void **state)
{
	struct model *parent = open_model("quantised/nest-tiny-nvfp4");
	char child[4096];
	struct changed c;
	(void)state;
	snprintf(child, sizeof child, "%s", golden("quantised/nest-tiny-nvfp4/children/small"));

	change(&c, child, "backbone.layers.0.mixer.in_proj.weight");
	for (int64_t r = 0; r < c.rows; r++)
		swap_bytes(c.data + r * c.row_bytes, c.data + r * c.row_bytes + 8, 8);
	check_changed(&c, parent, child, CAUSE_PERMUTED, "block of 16 columns 0 and 1 are exchanged");

	change(&c, child, "backbone.layers.0.mixer.in_proj.weight_scale_2");
	float scale;
	memcpy(&scale, c.data, sizeof scale);
	scale *= 2;
	memcpy(c.data, &scale, sizeof scale);
	check_changed(&c, parent, child, CAUSE_SCALED, "is the parent's times 2");
	model_release(parent);
}

/* What is said of the first difference: name, place and both numbers. */
static void the_first_difference_is_told(void **state)
{
	struct model *parent = open_model("nest-tiny");
	struct folder folder;
	struct changed c;
	struct verify v;
	char child[4096];
	(void)state;
	snprintf(child, sizeof child, "%s", golden("nest-tiny/children/medium"));
	change(&c, child, "backbone.layers.0.mixer.out_proj.weight");
	float before = bf16_to_f32(((uint16_t *)(void *)c.data)[5 * 96 + 17]);
	((uint16_t *)(void *)c.data)[5 * 96 + 17] = f32_to_bf16(3);
	folder_make(&folder);
	ASSERT_OK(checkpoint_write(folder_file(&folder, "model.safetensors"), c.tensors,
							   c.child.n_tensors - 1, &err));
	copy_text(child, &folder, "config.json");
	ASSERT_OK(verify_open(&v, parent, folder.path, NULL, &err));
	ASSERT_OK(verify_run(&v, NULL, NULL, &err));
	assert_int_equal(v.n_differences, 2);
	assert_int_equal(v.differences[0].kind, DIFFERENCE_VALUE);
	assert_string_equal(v.differences[0].name, "backbone.layers.0.mixer.out_proj.weight");
	assert_int_equal(v.differences[0].row, 5);
	assert_int_equal(v.differences[0].column, 17);
	assert_true(v.differences[0].child == 3);
	assert_true(v.differences[0].parent == (double)before);
	assert_int_equal(v.differences[1].kind, DIFFERENCE_MISSING);
	verify_close(&v);
	folder_remove(&folder);
	checkpoint_close(&c.child);
	free(c.tensors);
	free(c.data);
	model_release(parent);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(goldens_verify),
		cmocka_unit_test(seeded_faults_are_named),
		cmocka_unit_test(changes_by_hand_are_named),
		cmocka_unit_test(quantised_changes_are_named),
		cmocka_unit_test(the_first_difference_is_told),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
