/*
 * Opening everything in the order in which errors are easiest to understand: the directory,
 * config.json, the tensors, their places, the budgets, then what a model can be looked at without.
 */
#include "core/model.h"
#include "base/file.h"
#include "base/memory.h"
#include "core/chat.h"
#include "core/tokenizer.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MAX_TEMPLATE_BYTES ((size_t)4 << 20)

static bool is_there(const char *path)
{
	return access(path, F_OK) == 0;
}

/* The last part of the path, links and dots resolved; the path as it stands if it cannot be
 * resolved. */
static char *directory_name(const char *directory, struct error *err)
{
	char *real = realpath(directory, NULL);
	const char *path = real ? real : directory, *slash = strrchr(path, '/');
	const char *name = slash && slash[1] ? slash + 1 : path;
	char *copy = mem_string(name, strlen(name), err);
	free(real);
	return copy;
}

static int check_directory(const char *directory, struct error *err)
{
	if (file_is_directory(directory))
		return 0;
	if (!is_there(directory))
		return fail(err, "%s: %s", directory, strerror(errno));
	return fail(err, "%s: is a file, expected the directory of a checkpoint", directory);
}

/* A safetensors file that elastic.json names; without it the model opens all the same. */
static int open_named(struct model *model, const char *file, const char *what,
					  struct checkpoint *checkpoint, struct error *err)
{
	if (!file)
		return 0;
	char *path = file_join(model->directory, file, err);
	if (!path)
		return -1;
	int result = 0;
	if (is_there(path))
		result = checkpoint_open_file(checkpoint, path, err);
	else
		text_format(&model->notices, "%s of elastic.json is not there: %s\n", what, path);
	free(path);
	return result;
}

static int open_tokenizer(struct model *model, struct error *err)
{
	char *path = file_join(model->directory, "tokenizer.json", err);
	if (!path)
		return -1;
	int result = 0;
	if (!is_there(path)) {
		text_add(
			&model->notices,
			"no tokenizer.json: tokens are shown as ids, and a prompt is a line of ids: 1 2 3\n");
	} else {
		model->tokenizer = tokenizer_open(path, err);
		result = model->tokenizer ? 0 : -1;
	}
	if (model->tokenizer && tokenizer_size(model->tokenizer) > model->config.vocab_size)
		result = fail(err, "%s: has ids up to %d, but vocab_size of config.json is %d", path,
					  tokenizer_size(model->tokenizer) - 1, model->config.vocab_size);
	free(path);
	return result;
}

static int look_at_template(struct model *model, struct error *err)
{
	char *path = file_join(model->directory, "chat_template.jinja", err);
	if (!path)
		return -1;
	struct text text = {0};
	int result = 0;
	if (is_there(path)) {
		result = file_read(path, MAX_TEMPLATE_BYTES, &text, err);
		char *notice = result == 0 ? chat_template_notice(text_chars(&text), text.length) : NULL;
		if (notice)
			text_format(&model->notices, "%s\n", notice);
		free(notice);
	}
	text_free(&text);
	free(path);
	return result;
}

static void note_unused(struct model *model)
{
	const struct weights *w = &model->weights;
	if (w->n_unused)
		text_format(&model->notices,
					"%zu tensor%s of the checkpoint %s not used, the first is %s\n", w->n_unused,
					w->n_unused == 1 ? "" : "s", w->n_unused == 1 ? "is" : "are", w->first_unused);
}

/* A file without one score is as good as none, which is said. */
static void look_for_scores(struct model *model)
{
	struct checkpoint *file = &model->importance;
	size_t n = file->n_tensors, i = 0;
	while (i < n && strncmp(file->tensors[i].name, "importance.", 11) != 0)
		i++;
	if (!model->elastic.importance_file || i < n)
		return;
	text_format(&model->notices,
				"%s: %zu tensors and no scores among them, expected importance.hidden_size and its "
				"like: norms of weights stand for them\n",
				model->elastic.importance_file, n);
	checkpoint_close(file);
}

static int open_all(struct model *model, const struct model_options *options, struct error *err)
{
	const char *directory = model->directory;
	const char *budgets_file = options ? options->budgets_file : NULL;
	if (check_directory(directory, err) != 0 || config_read(&model->config, directory, err) != 0 ||
		checkpoint_open(&model->checkpoint, directory, err) != 0)
		return -1;
	if (weights_bind(&model->weights, &model->checkpoint, &model->config, err) != 0)
		return fail_in(err, "%s", directory);
	if (elastic_read(&model->elastic, &model->config, directory, budgets_file,
					 options && options->lenient, err) != 0)
		return -1;
	text_add(&model->notices, text_chars(&model->elastic.notices));
	if (declared_read(&model->declared, directory, &model->notices, err) != 0)
		return -1;
	declared_check(&model->declared, &model->checkpoint, &model->notices);
	note_unused(model);
	if (open_named(model, model->elastic.router_file, "the router", &model->router, err) != 0 ||
		open_named(model, model->elastic.importance_file, "the importance file", &model->importance,
				   err) != 0 ||
		open_tokenizer(model, err) != 0 || look_at_template(model, err) != 0)
		return -1;
	look_for_scores(model);
	checkpoint_hash(&model->checkpoint, model->hash);
	return text_check(&model->notices, err);
}

static void close_all(struct model *model)
{
	weights_free(&model->weights);
	declared_free(&model->declared);
	elastic_free(&model->elastic);
	tokenizer_close(model->tokenizer);
	checkpoint_close(&model->router);
	checkpoint_close(&model->importance);
	checkpoint_close(&model->checkpoint);
	text_free(&model->notices);
	free(model->directory);
	free(model->name);
	free(model);
}

struct model *model_open(const char *directory, const struct model_options *options,
						 struct error *err)
{
	struct model *model = mem_new(1, sizeof *model, err);
	if (!model)
		return NULL;
	model->references = 1;
	model->directory = mem_string(directory, strlen(directory), err);
	model->name = model->directory ? directory_name(directory, err) : NULL;
	if (!model->name || open_all(model, options, err) != 0) {
		close_all(model);
		return NULL;
	}
	return model;
}

struct model *model_retain(struct model *model)
{
	__atomic_add_fetch(&model->references, 1, __ATOMIC_RELAXED);
	return model;
}

void model_release(struct model *model)
{
	if (model && __atomic_sub_fetch(&model->references, 1, __ATOMIC_ACQ_REL) == 0)
		close_all(model);
}

int model_encode(const struct model *model, const char *text, size_t length, struct id_list *out,
				 struct error *err)
{
	struct error inner = {0};
	size_t n_before = out->n;
	int vocab = model->config.vocab_size;
	if (model->tokenizer)
		return tokenizer_encode_text(model->tokenizer, text, length, TRUST_NONE, out, err);
	int result = id_list_parse(out, text, length, &inner);
	for (size_t i = n_before; i < out->n && result == 0; i++)
		if (out->ids[i] >= vocab)
			result = fail(&inner, "%d is not one of them", (int)out->ids[i]);
	if (result == 0)
		return 0;
	out->n = n_before;
	return fail(err, "%s has no tokenizer.json: a prompt is ids, as 1 2 3 (0 to %d); %s",
				model->name, vocab - 1, inner.text);
}
