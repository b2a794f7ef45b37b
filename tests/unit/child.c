/*
 * Children against those that an independent slicer wrote (tests/golden), and what is left behind
 * when writing one goes wrong.
 */
#include "export/child.h"
#include "base/file.h"
#include "export/edit.h"
#include "export/shards.h"
#include "tests/unit/folder.h"
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/resource.h>
#include <sys/wait.h>

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
	static char path[2][4096];
	static int turn;
	turn = !turn;
	snprintf(path[turn], sizeof path[turn], "%s/golden/%s", getenv("ELASTISCOPE_TESTS"), name);
	return path[turn];
}

static struct model *open_model(const char *name, const char *budgets)
{
	char file[4096];
	snprintf(file, sizeof file, "%s/%s", golden(name), budgets ? budgets : "");
	struct model_options options = {.budgets_file = budgets ? file : NULL};
	struct model *model = model_open(golden(name), &options, &err);
	if (!model)
		fail_msg("%s", err.text);
	return model;
}

static int write_child(const struct model *model, const char *budget, const char *target,
					   struct child_plan plan)
{
	struct budget kept = {0};
	struct child_report report;
	ASSERT_OK(model_budget(model, budget, &kept, &err));
	plan.model = model;
	plan.budget = &kept;
	plan.target = target;
	int result = child_write(&plan, &report, &err);
	budget_free(&kept);
	return result;
}

/* Removes a folder of folders, as tests leave it. */
static void remove_all(struct folder *folder)
{
	char command[600];
	snprintf(command, sizeof command, "rm -rf '%s'", folder->path);
	assert_int_equal(system(command), 0);
}

static int count_entries(const char *path)
{
	DIR *dir = opendir(path);
	int n = 0;
	assert_non_null(dir);
	for (struct dirent *e; (e = readdir(dir));)
		n += strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0;
	closedir(dir);
	return n;
}

static void assert_same_tensors(const char *a, const char *b)
{
	struct checkpoint x, y;
	ASSERT_OK(checkpoint_open(&x, a, &err));
	ASSERT_OK(checkpoint_open(&y, b, &err));
	assert_int_equal(x.n_tensors, y.n_tensors);
	for (size_t i = 0; i < x.n_tensors; i++) {
		const struct tensor *t = &x.tensors[i].tensor;
		const struct tensor *u = checkpoint_find(&y, x.tensors[i].name);
		if (!u)
			fail_msg("%s has no %s", b, x.tensors[i].name);
		assert_int_equal(t->dtype, u->dtype);
		assert_int_equal(t->n_dims, u->n_dims);
		assert_memory_equal(t->shape, u->shape, (size_t)t->n_dims * sizeof *t->shape);
		if (memcmp(t->data, u->data, t->bytes) != 0)
			fail_msg("%s differs", x.tensors[i].name);
	}
	checkpoint_close(&x);
	checkpoint_close(&y);
}

static void assert_same_file(const char *folder, const char *other, const char *name)
{
	struct text a = {0}, b = {0};
	char path[4096];
	snprintf(path, sizeof path, "%s/%s", folder, name);
	ASSERT_OK(file_read(path, 1 << 20, &a, &err));
	snprintf(path, sizeof path, "%s/%s", other, name);
	ASSERT_OK(file_read(path, 1 << 20, &b, &err));
	assert_string_equal(text_chars(&a), text_chars(&b));
	text_free(&a);
	text_free(&b);
}

/* ---- goldens ---- */

static void children_are_golden(void **state)
{
	static const struct {
		const char *parent, *budgets, *budget;
		bool quantised;
	} cases[] = {
		{"nest-tiny", NULL, "medium", false},
		{"nest-tiny", NULL, "small", false},
		{"nest-tiny", "elastic-allaxes.json", "odd", false},
		{"quantised/nest-tiny-fp8", NULL, "medium", true},
		{"quantised/nest-tiny-nvfp4", NULL, "small", true},
	};
	(void)state;
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		struct folder folder;
		char target[300], expected[200];
		folder_make(&folder);
		snprintf(target, sizeof target, "%s/child", folder.path);
		snprintf(expected, sizeof expected, "%s/children/%s", cases[i].parent, cases[i].budget);
		struct model *model = open_model(cases[i].parent, cases[i].budgets);
		// many small shards and one large one hold the same
		for (int pass = 0; pass < 2; pass++) {
			struct child_plan plan = {.force = pass > 0, .max_shard_bytes = pass ? 50000 : 0};
			ASSERT_OK(write_child(model, cases[i].budget, target, plan));
			assert_same_tensors(target, golden(expected));
			assert_same_file(target, golden(expected), "config.json");
			if (cases[i].quantised)
				assert_same_file(target, golden(expected), "hf_quant_config.json");
			assert_int_equal(file_exists(folder_file(&folder, "child/model.safetensors")), !pass);
			assert_int_equal(
				file_exists(folder_file(&folder, "child/model.safetensors.index.json")), pass);
		}
		assert_int_equal(count_entries(folder.path), 1);
		model_release(model);
		remove_all(&folder);
	}
}

/* What is left out between two layers is counted out of the names, and of nothing else. */
static void skipped_layers_are_counted_out(void **state)
{
	struct folder folder;
	struct checkpoint child;
	char target[300];
	(void)state;
	folder_make(&folder);
	snprintf(target, sizeof target, "%s/child", folder.path);
	struct model *model = open_model("quantised/nest-tiny-fp8", NULL);
	ASSERT_OK(write_child(model, "skip=3", target, (struct child_plan){0}));
	ASSERT_OK(checkpoint_open(&child, target, &err));
	const struct tensor *from =
		checkpoint_find(&model->checkpoint, "backbone.layers.4.mixer.gate.weight");
	const struct tensor *to = checkpoint_find(&child, "backbone.layers.3.mixer.gate.weight");
	assert_memory_equal(from->data, to->data, from->bytes);
	checkpoint_close(&child);
	struct text text = {0};
	ASSERT_OK(file_read(folder_file(&folder, "child/hf_quant_config.json"), 1 << 20, &text, &err));
	assert_null(strstr(text.data, "q_proj"));
	assert_non_null(strstr(text.data, "\"backbone.layers.3.mixer.gate\""));
	assert_null(strstr(text.data, "layers.7"));
	text_free(&text);
	struct model *opened = model_open(target, NULL, &err);
	assert_non_null(opened);
	assert_int_equal(opened->config.n_layers, 7);
	model_release(opened);
	model_release(model);
	remove_all(&folder);
}

static void what_config_cannot_say(void **state)
{
	struct folder folder;
	char target[300];
	(void)state;
	folder_make(&folder);
	snprintf(target, sizeof target, "%s/child", folder.path);
	struct model *model = open_model("nest-tiny", "elastic-allaxes.json");
	assert_int_equal(write_child(model, "hetero", target, (struct child_plan){0}), -1);
	assert_non_null(strstr(err.text, "moe_intermediate_size is 32 on layer 1 and 24 on layer 4"));
	assert_int_equal(count_entries(folder.path), 0);
	assert_int_equal(
		write_child(model, "large,norm=masked", target, (struct child_plan){.elastic = true}), -1);
	assert_non_null(strstr(err.text, "norms of its own"));
	ASSERT_OK(write_child(model, "hetero", target, (struct child_plan){.elastic = true}));
	struct model *child = model_open(target, NULL, &err);
	if (!child)
		fail_msg("%s", err.text);
	assert_int_equal(child->elastic.n_budgets, 2);
	const struct budget *kept = &child->elastic.budgets[1];
	assert_string_equal(kept->name, "hetero");
	assert_int_equal(budget_width(kept, AXIS_EXPERT_FFN, 3), 24);
	model_release(child);
	model_release(model);
	remove_all(&folder);
}

static bool keep_odd(void *user, int i, const char *string, struct text *text)
{
	const char *first = user;
	if (strcmp(string, first) == 0)
		text_add(text, "renamed \"one\"");
	return i % 2 != 0 || strcmp(string, first) == 0;
}

/* What is not changed keeps its spelling, numbers that JSON lacks included. */
static void json_is_edited_in_place(void **state)
{
	static const char before[] =
		"{ \"a\":1e-05,\n  \"b\" : [0.0, Infinity],\"c\":[\"x\",\"y\" , \"z\"],\n"
		"  \"d\": {\"m\": 2.50, \"n\":{\"k\":[]}},\"e\":[],\"f\":[\"q\"]}\n";
	static const char after[] =
		"{ \"a\":1e-05,\n  \"b\" : [0.0, Infinity],\"c\":[\"renamed \\\"one\\\"\",\"y\"],\n"
		"  \"d\": {\"n\":{\"k\":[]}},\"e\":[7],\"f\":[]}\n";
	struct folder folder;
	struct edits edits;
	struct text out = {0};
	char first[] = "x";
	(void)state;
	folder_make(&folder);
	folder_write(&folder, "j", before, strlen(before));
	ASSERT_OK(edits_open(&edits, folder_file(&folder, "j"), &err));
	const struct json_node *root = edits.json.nodes;
	ASSERT_OK(edits_filter(&edits, json_member(&edits.json, root, "f"), keep_odd, first, &err));
	ASSERT_OK(edits_filter(&edits, json_member(&edits.json, root, "c"), keep_odd, first, &err));
	ASSERT_OK(edits_filter(&edits, json_member(&edits.json, root, "d"), keep_odd, first, &err));
	ASSERT_OK(edits_set(&edits, "e", "[7]", &err));
	ASSERT_OK(edits_set(&edits, "not there", "1", &err));
	ASSERT_OK(edits_apply(&edits, &out, &err));
	assert_string_equal(out.data, after);
	text_free(&out);
	edits_free(&edits);
	folder_remove(&folder);
}

/* ---- what goes wrong ---- */

static void paths_are_refused(void **state)
{
	struct folder folder;
	char path[700];
	(void)state;
	folder_make(&folder);
	snprintf(path, sizeof path, "cp -r '%s' '%s/parent'", golden("nest-tiny"), folder.path);
	assert_int_equal(system(path), 0);
	snprintf(path, sizeof path, "%s/parent", folder.path);
	struct model *model = model_open(path, NULL, &err);
	assert_non_null(model);
	static const struct {
		const char *target, *reason;
		bool force;
	} cases[] = {
		{"parent", "is the source itself", true},
		{"parent/", "is the source itself", true},
		{"parent/../parent", "is the source itself", true},
		{"parent/child", "is inside the source", true},
		{"parent/golden/child", "is inside the source", true},
		{"", "holds the source", true},
		{"there", "is there already; --force replaces it", false},
		{"there", "is no checkpoint", true},
		{"nowhere/child", "its parent directory: No such file", false},
		{"parent/config.json/x", "its parent directory: Not a directory", false},
	};
	assert_int_equal(mkdir(folder_file(&folder, "there"), 0777), 0);
	folder_write(&folder, "there/mine", "x", 1);
	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		char target[400];
		snprintf(target, sizeof target, "%s/%s", folder.path, cases[i].target);
		struct child_plan plan = {.force = cases[i].force};
		assert_int_equal(write_child(model, "small", target, plan), -1);
		if (!strstr(err.text, cases[i].reason))
			fail_msg("%s: %s, expected %s", target, err.text, cases[i].reason);
	}
	assert_true(file_exists(folder_file(&folder, "there/mine")));
	assert_int_equal(count_entries(folder.path), 2);
	model_release(model);
	remove_all(&folder);
}

struct trouble {
	uint64_t at;
	bool kill;
};

static int make_trouble(void *user, uint64_t done, uint64_t total)
{
	const struct trouble *trouble = user;
	assert_true(done <= total);
	if (done < trouble->at)
		return 0;
	if (trouble->kill)
		raise(SIGKILL);
	return 1;
}

/* A stop half way, and a kill: the target is not there, and the next run removes what a kill left.
 */
static void nothing_half_is_left(void **state)
{
	struct folder folder;
	char target[300];
	(void)state;
	folder_make(&folder);
	snprintf(target, sizeof target, "%s/child", folder.path);
	struct model *model = open_model("nest-tiny", NULL);
	struct trouble trouble = {.at = 100000};
	struct child_plan plan = {.step = make_trouble, .user = &trouble, .max_shard_bytes = 50000};
	assert_int_equal(write_child(model, "large", target, plan), -1);
	assert_non_null(strstr(err.text, "stopped, nothing was written"));
	assert_int_equal(count_entries(folder.path), 0);
	trouble.kill = true;
	int status;
	pid_t child = fork();
	if (child == 0) {
		write_child(model, "large", target, plan);
		_exit(0);
	}
	assert_int_equal(waitpid(child, &status, 0), child);
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
	assert_false(file_is_directory(target));
	assert_int_equal(count_entries(folder.path), 1);
	ASSERT_OK(write_child(model, "large", target, (struct child_plan){0}));
	assert_int_equal(count_entries(folder.path), 1);
	assert_same_tensors(target, golden("nest-tiny"));
	// an older child stays whole when the next one fails
	trouble.kill = false;
	plan.force = true;
	assert_int_equal(write_child(model, "small", target, plan), -1);
	assert_same_tensors(target, golden("nest-tiny"));
	model_release(model);
	remove_all(&folder);
}

static void a_full_disk_is_one_line(void **state)
{
	struct folder folder;
	struct rlimit old, small;
	char target[300];
	(void)state;
	folder_make(&folder);
	snprintf(target, sizeof target, "%s/child", folder.path);
	struct model *model = open_model("nest-tiny", NULL);
	signal(SIGXFSZ, SIG_IGN);
	assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
	small = old;
	for (rlim_t limit = 0; limit < 700000; limit += 90000) {
		small.rlim_cur = limit;
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
		int result = write_child(model, "large", target, (struct child_plan){0});
		assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
		assert_int_equal(result, -1);
		assert_non_null(strstr(err.text, "cannot be written: "));
		assert_int_equal(count_entries(folder.path), 0);
	}
	model_release(model);
	remove_all(&folder);
}

static void the_writer_counts_bytes(void **state)
{
	struct folder folder;
	struct staging staging;
	struct shards shards;
	char path[300], bytes[300] = {0};
	(void)state;
	folder_make(&folder);
	snprintf(path, sizeof path, "%s/t", folder.path);
	struct named_tensor tensors[] = {
		{.name = "a", .tensor = {.dtype = DTYPE_U8, .n_dims = 1, .shape = {3}, .bytes = 3}},
		{.name = "b", .tensor = {.dtype = DTYPE_F32, .n_dims = 2, .shape = {5, 10}, .bytes = 200}},
		{.name = "c", .tensor = {.dtype = DTYPE_F32, .n_dims = 1, .shape = {0}, .bytes = 0}},
		{.name = "d", .tensor = {.dtype = DTYPE_F32, .n_dims = 0, .bytes = 4}},
	};
	ASSERT_OK(staging_open(&staging, path, golden("nest-tiny"), false, &err));
	ASSERT_OK(shards_open(&shards, &staging, tensors, 4, 203, &err));
	assert_int_equal(shards.n_shards, 2); // a b c | d
	assert_string_equal(shards.order[0]->name, "b");
	ASSERT_OK(shards_write(&shards, bytes, 206, &err));
	assert_int_equal(shards_finish(&shards, &err), -1);
	assert_non_null(strstr(err.text, "1 bytes of its tensors are missing"));
	ASSERT_OK(shards_write(&shards, bytes, 1, &err));
	ASSERT_OK(shards_finish(&shards, &err));
	assert_int_equal(shards_write(&shards, bytes, 1, &err), -1);
	assert_non_null(strstr(err.text, "more bytes"));
	shards_close(&shards);
	tensors[3].name = "a";
	assert_int_equal(shards_open(&shards, &staging, tensors, 4, 203, &err), -1);
	assert_non_null(strstr(err.text, "\"a\" would be written twice"));
	tensors[3].name = "d";
	tensors[1].tensor.bytes = UINT64_MAX / 4;
	assert_int_equal(shards_open(&shards, &staging, tensors, 4, 203, &err), -1);
	assert_non_null(strstr(err.text, "its disk has"));
	staging_discard(&staging);
	assert_int_equal(count_entries(folder.path), 0);
	remove_all(&folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(children_are_golden),     cmocka_unit_test(skipped_layers_are_counted_out),
		cmocka_unit_test(what_config_cannot_say),  cmocka_unit_test(json_is_edited_in_place),
		cmocka_unit_test(paths_are_refused),       cmocka_unit_test(nothing_half_is_left),
		cmocka_unit_test(a_full_disk_is_one_line), cmocka_unit_test(the_writer_counts_bytes),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
