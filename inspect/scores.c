#include "inspect/scores.h"

#include "base/file.h"
#include "base/memory.h"
#include "core/quantised.h"
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* ---- the table ---- */

struct table {
	const struct config *config;
	struct score_row *rows;
	int n;
};

static struct score_row *add(struct table *t, enum score_kind kind, enum axis axis, int layer,
							 const char *suffix)
{
	struct score_row *row = &t->rows[t->n++];
	int64_t width = axis == N_AXES ? t->config->n_layers : axis_parent_width(axis, t->config);
	const char *name = axis == N_AXES ? "layers" : axis_name(axis);
	*row = (struct score_row){
		.kind = kind, .axis = axis, .layer = layer, .n_dims = 1, .shape[0] = width};
	if (layer < 0)
		snprintf(row->name, sizeof row->name, "importance.%s%s", name, suffix);
	else
		snprintf(row->name, sizeof row->name, "importance.%d.%s%s", layer, name, suffix);
	return row;
}

static void add_rows_of(struct score_row *row, int64_t rows)
{
	row->shape[1] = row->shape[0];
	row->shape[0] = rows;
	row->n_dims = 2;
}

static void add_layer(struct table *t, int layer)
{
	const struct config *c = t->config;
	switch ((enum layer_kind)c->kinds[layer]) {
	case LAYER_MAMBA:
		add(t, SCORE_HEADS, AXIS_MAMBA_HEADS, layer, "");
		add(t, SCORE_HEADS, AXIS_MAMBA_CHANNELS, layer, "");
		break;
	case LAYER_ATTENTION: add(t, SCORE_HEADS, AXIS_ATTENTION_HEADS, layer, ""); break;
	case LAYER_MOE:
		add_rows_of(add(t, SCORE_CHANNELS, AXIS_EXPERT_FFN, layer, ""), c->n_routed_experts);
		if (c->moe_shared_expert_intermediate_size > 0)
			add(t, SCORE_CHANNELS, AXIS_SHARED_FFN, layer, "");
		add(t, SCORE_REAP, AXIS_EXPERTS, layer, ".reap");
		add(t, SCORE_COUNT, AXIS_EXPERTS, layer, ".count");
		break;
	case LAYER_MLP: add(t, SCORE_CHANNELS, AXIS_FFN, layer, ""); break;
	}
}

int scores_table(const struct config *config, struct score_row **rows, struct error *err)
{
	struct table t = {.config = config};
	*rows = t.rows = mem_new((size_t)config->n_layers * 4 + 3, sizeof *t.rows, err);
	if (!t.rows)
		return -1;
	add(&t, SCORE_HIDDEN, AXIS_HIDDEN, -1, "");
	add_rows_of(add(&t, SCORE_HIDDEN_LAYERS, AXIS_HIDDEN, -1, ".layers"), config->n_layers);
	for (int i = 0; i < config->n_layers; i++)
		add_layer(&t, i);
	if (config->n_layers > 1) // nothing is left of a model whose only layer is skipped
		add(&t, SCORE_LAYERS, N_AXES, -1, "");
	return t.n;
}

/* ---- reading ---- */

int scores_check(const char *name, const struct tensor *t, struct error *err)
{
	const float *values = t->data;
	uint64_t n = t->bytes / sizeof *values;
	for (uint64_t i = 0; i < n; i++)
		if (!isfinite(values[i]) || values[i] < 0)
			return fail(err, "%s: element %llu is %g, expected a score, 0 or more", name,
						(unsigned long long)i, (double)values[i]);
	return 0;
}

static int check_tensor(const struct tensor *t, const struct score_row *row, struct error *err)
{
	char found[80], expected[48];
	if (t->dtype == DTYPE_F32 && t->n_dims == row->n_dims &&
		memcmp(t->shape, row->shape, (size_t)row->n_dims * sizeof *row->shape) == 0)
		return scores_check(row->name, t, err);
	shape_text(found, sizeof found, t->shape, t->n_dims);
	shape_text(expected, sizeof expected, row->shape, row->n_dims);
	return fail(err, "%s is %s %s, this checkpoint's is F32 %s", row->name, dtype_name(t->dtype),
				found, expected);
}

static int check_tensors(const struct scores *scores, const struct model *model, struct error *err)
{
	struct score_row *rows;
	int n = scores_table(&model->config, &rows, err), status = n < 0 ? -1 : 0, found = 0;
	for (int i = 0; i < n && status == 0; i++) {
		const struct tensor *t = checkpoint_find(&scores->file, rows[i].name);
		found += t != NULL;
		status = t ? check_tensor(t, &rows[i], err) : 0;
	}
	for (size_t i = 0; i < scores->file.n_tensors && status == 0; i++) {
		const char *name = scores->file.tensors[i].name;
		bool known = strncmp(name, "importance.", 11) != 0;
		for (int r = 0; r < n && !known; r++)
			known = strcmp(rows[r].name, name) == 0;
		if (!known)
			status = fail(err, "it has %s, which this checkpoint has not", name);
	}
	free(rows);
	if (status == 0 && found == 0)
		status = fail(err,
					  "%zu tensors and no scores among them, expected importance.hidden_size "
					  "and its like",
					  scores->file.n_tensors);
	return status;
}

static void read_note(const struct scores *scores, const char *key, char *out, size_t size)
{
	struct text text = {0};
	checkpoint_note(&scores->file, key, &text);
	snprintf(out, size, "%s", text_chars(&text));
	text_free(&text);
}

static int64_t read_count(const struct scores *scores, const char *key)
{
	char number[24];
	read_note(scores, key, number, sizeof number);
	return strtoll(number, NULL, 10);
}

int scores_open(struct scores *scores, const char *path, const struct model *model,
				struct error *err)
{
	char hash[24];
	const char *name = strrchr(path, '/');
	*scores = (struct scores){0};
	if (checkpoint_open_file(&scores->file, path, err) < 0)
		return -1;
	read_note(scores, "checkpoint", hash, sizeof hash);
	read_note(scores, "text", scores->text, sizeof scores->text);
	read_note(scores, "math", scores->math, sizeof scores->math);
	scores->tokens = read_count(scores, "tokens");
	scores->samples = read_count(scores, "samples");
	if (scores->text[0] == '\0')
		snprintf(scores->text, sizeof scores->text, "%s", name ? name + 1 : path);
	int status = hash[0] == '\0' || strcmp(hash, model->hash) == 0
					 ? check_tensors(scores, model, err)
					 : fail(err, "measured on checkpoint %s, this one is %s", hash, model->hash);
	if (status == 0)
		return 0;
	scores_close(scores);
	return fail_in(err, "%s", path);
}

void scores_close(struct scores *scores)
{
	checkpoint_close(&scores->file);
	*scores = (struct scores){0};
}

/* ---- the cache ---- */

char *scores_folder(struct error *err)
{
	return file_place(PLACE_CACHE, "importance", err);
}

struct candidate {
	char *path;
	struct timespec changed;
};

struct candidates {
	struct candidate *items;
	size_t n, capacity;
};

static int newest_first(const void *a, const void *b)
{
	const struct timespec *x = &((const struct candidate *)a)->changed;
	const struct timespec *y = &((const struct candidate *)b)->changed;
	if (x->tv_sec != y->tv_sec)
		return x->tv_sec < y->tv_sec ? 1 : -1;
	return (x->tv_nsec < y->tv_nsec) - (x->tv_nsec > y->tv_nsec);
}

/* The folder's files of this checkpoint, by their names. */
static int list_candidates(struct candidates *all, const char *folder, const struct model *model,
						   struct error *err)
{
	DIR *directory = opendir(folder);
	const struct dirent *entry;
	int status = 0;
	while (directory && status == 0 && (entry = readdir(directory))) {
		size_t length = strlen(entry->d_name), hash = strlen(model->hash);
		struct stat st;
		if (length < 13 || strcmp(entry->d_name + length - 12, ".safetensors") != 0 ||
			strncmp(entry->d_name, model->hash, hash) != 0 || entry->d_name[hash] != '-')
			continue;
		char *path = file_join(folder, entry->d_name, err);
		status =
			path ? mem_grow(&all->items, &all->capacity, all->n + 1, sizeof *all->items, err) : -1;
		if (status == 0 && stat(path, &st) == 0)
			all->items[all->n++] = (struct candidate){path, st.st_mtim};
		else
			free(path);
	}
	if (directory)
		closedir(directory);
	if (all->n)
		qsort(all->items, all->n, sizeof *all->items, newest_first);
	return status;
}

/* The newest that can be read; what a damaged one says is kept for the user. */
static int open_first(struct scores *scores, const struct candidates *all,
					  const struct model *model, struct error *err)
{
	struct error why = {0}, other;
	for (size_t i = 0; i < all->n; i++) {
		if (scores_open(scores, all->items[i].path, model, i ? &other : &why) < 0)
			continue;
		scores->passed_over = why;
		return 0;
	}
	return fail(err, "%s; calibrate measures again", why.text);
}

static int open_cached(struct scores *scores, const struct model *model, struct error *err)
{
	struct candidates all = {0};
	char *folder = scores_folder(err);
	int status = folder ? list_candidates(&all, folder, model, err) : -1;
	if (status == 0 && all.n == 0)
		status = fail(err, "nothing was measured on %s (%s) yet: calibrate does it; looked in %s",
					  model->name, model->hash, folder);
	else if (status == 0)
		status = open_first(scores, &all, model, err);
	for (size_t i = 0; i < all.n; i++)
		free(all.items[i].path);
	free(all.items);
	free(folder);
	return status;
}

int scores_open_named(struct scores *scores, const char *name, const struct model *model,
					  struct error *err)
{
	*scores = (struct scores){0};
	return strcmp(name, "cache") == 0 ? open_cached(scores, model, err)
									  : scores_open(scores, name, model, err);
}
