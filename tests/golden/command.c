/*
 * The command logits as a user runs it: the file it writes against the golden values of nest-tiny,
 * and what wrong usage and wrong input exit with. The program is $ELASTISCOPE_BINARY.
 */
#include "core/checkpoint.h"
#include "golden.h"
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#undef fail // cmocka has a macro of this name

#define SMALL "hidden_size=48,moe_intermediate_size=16"

static char directory[] = "/tmp/elastiscope-logits-XXXXXX", written[64];

/* "ids, comma, between" of a golden tensor. */
static void list_ids(const struct checkpoint *values, const char *name, int n, struct text *out)
{
	const int32_t *ids = golden_ids(values, name, (size_t)n);
	for (int i = 0; i < n; i++)
		text_format(out, i ? ",%d" : "%d", ids[i]);
}

/* Runs `elastiscope logits ARGUMENTS` on nest-tiny; its exit code, what it says on stderr into
 * said. */
static int run(const char *budgets, const char *arguments, char said[1024])
{
	char *model = golden_path("nest-tiny");
	struct text command = {0};
	size_t length;

	text_format(
		&command,
		"{ \"$ELASTISCOPE_BINARY\" logits -m '%s' --budgets '%s/%s' %s >'%s/stdout'; } 2>&1", model,
		model, budgets, arguments, directory);
	FILE *pipe = popen(text_chars(&command), "r");
	assert_non_null(pipe);
	length = fread(said, 1, 1023, pipe);
	said[length] = 0;
	int status = pclose(pipe);
	text_free(&command);
	free(model);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void open_file(struct checkpoint *values, const char *path)
{
	struct error err = {0};
	golden_must(checkpoint_open_file(values, path, &err), &err);
}

static void open_values(struct checkpoint *values, const char *file)
{
	char *path = golden_path(file);
	open_file(values, path);
	free(path);
}

static void the_file_holds_the_golden_values(void **state)
{
	struct golden g = {.model = NULL};
	struct checkpoint values, found;
	struct text arguments = {0};
	char said[1024];
	(void)state;

	open_values(&values, "nest-tiny/golden/odd.safetensors");
	text_add(&arguments, "-b odd --taps hidden,experts,lens --tokens ");
	list_ids(&values, "tokens.7", 7, &arguments);
	text_format(&arguments, " --out '%s'", written);
	if (run("elastic-allaxes.json", text_chars(&arguments), said))
		golden_fail("%s", said);
	open_file(&found, written);
	golden_close_to(&g, "logits", golden_floats(&found, "logits", 7 * 224),
					golden_floats(&values, "logits.7", 7 * 224), 7 * 224, 1e-4);
	for (int i = 0; i <= 8; i++) {
		char name[32];
		snprintf(name, sizeof name, "hidden.%d", i);
		golden_close_to(&g, name, golden_floats(&found, name, 7 * 64),
						golden_floats(&values, "hidden.7", 9 * 7 * 64) + i * 7 * 64, 7 * 64, 1e-4);
		snprintf(name, sizeof name, "lens.%d.ids", i);
		golden_ids(&found, name, 7);
	}
	for (int i = 1; i <= 7; i += 3) {
		char name[32], theirs[32];
		snprintf(name, sizeof name, "experts.%d.ids", i);
		snprintf(theirs, sizeof theirs, "moe.%d.ids.7", i);
		assert_memory_equal(golden_ids(&found, name, 21), golden_ids(&values, theirs, 21), 84);
		snprintf(name, sizeof name, "experts.%d.weights", i);
		snprintf(theirs, sizeof theirs, "moe.%d.weights.7", i);
		golden_close_to(&g, name, golden_floats(&found, name, 21),
						golden_floats(&values, theirs, 21), 21, 1e-4);
	}
	assert_int_equal(found.n_tensors, 1 + 9 + 2 * 9 + 2 * 3);
	checkpoint_close(&found);
	checkpoint_close(&values);
	text_free(&arguments);
}

static void switches_are_obeyed(void **state)
{
	struct golden g = {.model = NULL};
	struct checkpoint values, small, found;
	struct text arguments = {0};
	char said[1024];
	(void)state;

	open_values(&values, "nest-tiny/golden/handoff-skip.safetensors");
	open_values(&small, "nest-tiny/golden/small.safetensors");
	text_format(&arguments,
				"-b large --out '%s' --switch 110:" SMALL ":carry --switch 70:noattn:carry"
				" --tokens ",
				written);
	list_ids(&values, "tokens", 150, &arguments);
	if (run("elastic-skip.json", text_chars(&arguments), said))
		golden_fail("%s", said);
	open_file(&found, written);
	golden_close_to(&g, "carried", golden_floats(&found, "logits", 150 * 224) + 70 * 224,
					golden_floats(&values, "logits.large-noattn-small", 80 * 224), 80 * 224, 1e-4);
	assert_int_equal(found.n_tensors, 1);
	checkpoint_close(&found);

	text_clear(&arguments);
	text_format(&arguments, "-b noattn --out '%s' --switch 131:" SMALL ":reprefill --tokens ",
				written);
	list_ids(&small, "tokens.150", 150, &arguments);
	if (run("elastic-skip.json", text_chars(&arguments), said))
		golden_fail("%s", said);
	open_file(&found, written);
	golden_close_to(&g, "re-prefilled", golden_floats(&found, "logits", 150 * 224) + 131 * 224,
					golden_floats(&small, "logits.150", 150 * 224) + 131 * 224, 19 * 224, 1e-4);
	checkpoint_close(&found);
	checkpoint_close(&small);
	checkpoint_close(&values);
	text_free(&arguments);
}

static void nonsense_is_refused(void **state)
{
	static const struct {
		const char *arguments;
		int code;
		const char *said; // what the sentence begins with, after "elastiscope: "
	} cases[] = {
		{"--tokens 1,2", 2, "--out: name the safetensors file to write"},
		{"--out x", 2, "logits: expected one of --tokens and --text"},
		{"--out x --tokens 1 --text a", 2, "logits: expected one of --tokens and --text"},
		{"--out x --tokens 1 --taps hiden", 2, "--taps: 'hiden': expected hidden, experts or lens"},
		{"--out x --tokens 1,2 --switch 2:small:carry", 2,
		 "--switch: '2:small:carry': expected POS"},
		{"--out x --tokens 1,2 --switch small:carry", 2, "--switch: 'small:carry': expected POS"},
		{"--out x --tokens 1,2 --switch 1:small:hold", 2, "--switch: '1:small:hold': expected rep"},
		{"--out x --tokens 1,2 --switch 1:tiny:carry", 1, "--switch: budget \"tiny\""},
		{"--out x --tokens 1,224", 1, "token 224 at position 1: the vocabulary has ids 0 to 223"},
		{"--out /nowhere/x --tokens 1", 1, "/nowhere/x: "},
		{"--out x --text a", 1, "/"}, // DIR has no tokenizer.json
	};
	char said[1024];
	(void)state;

	for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
		int code = run("elastic.json", cases[i].arguments, said);
		const char *sentence = strstr(said, "elastiscope: ");
		if (code != cases[i].code || !sentence ||
			strncmp(sentence + 13, cases[i].said, strlen(cases[i].said)) != 0)
			golden_fail("%s: exit %d, \"%s\"", cases[i].arguments, code, said);
	}
	assert_int_not_equal(access("x", F_OK), 0);
}

static int make_directory(void **state)
{
	(void)state;
	if (!mkdtemp(directory))
		return -1;
	snprintf(written, sizeof written, "%s/out.safetensors", directory);
	return chdir(directory);
}

static int remove_directory(void **state)
{
	(void)state;
	unlink(written);
	unlink("stdout");
	return chdir("/") || rmdir(directory);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(the_file_holds_the_golden_values),
		cmocka_unit_test(switches_are_obeyed),
		cmocka_unit_test(nonsense_is_refused),
	};
	return cmocka_run_group_tests(tests, make_directory, remove_directory);
}
