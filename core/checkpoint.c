/* Opening a checkpoint: which files belong to it, and the table of all their tensors. */
#include "core/checkpoint.h"
#include "base/file.h"
#include "base/hash.h"
#include "base/json.h"
#include "base/memory.h"
#include "core/shard.h"
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define MAX_INDEX_BYTES ((size_t)256 << 20)
#define MAX_SHARDS 10000

static int open_shard(struct opening *o, const char *name, struct error *err)
{
	char *path = file_join(o->directory, name, err);
	int result = path ? shard_open(o, path, err) : -1;
	free(path);
	return result;
}

/* ---- names ---- */

static const struct named_tensor *lookup(const struct checkpoint *c, const char *name)
{
	if (!c->table_size)
		return NULL;
	size_t mask = c->table_size - 1;
	for (size_t i = hash_bytes(name, strlen(name)) & mask; c->table[i]; i = (i + 1) & mask)
		if (strcmp(c->tensors[c->table[i] - 1].name, name) == 0)
			return &c->tensors[c->table[i] - 1];
	return NULL;
}

/* All names are known: offsets become pointers, the table is filled. */
static int finish(struct opening *o, struct error *err)
{
	struct checkpoint *c = o->checkpoint;
	if (c->n_tensors >= UINT32_MAX / 4)
		return fail(err, "%zu tensors are too many", c->n_tensors);
	c->names = text_take(&o->names);
	size_t size = 16;
	while (size < c->n_tensors * 2)
		size *= 2;
	c->table = mem_new(size, sizeof *c->table, err);
	if (!c->table)
		return -1;
	c->table_size = size;
	for (size_t i = 0; i < c->n_tensors; i++) {
		struct named_tensor *t = &c->tensors[i];
		t->name = c->names + (size_t)t->name;
		const struct named_tensor *other = lookup(c, t->name);
		if (other)
			return fail(err, "tensor \"%s\" is in %s and again in %s", t->name,
						c->shards[other->shard].name, c->shards[t->shard].name);
		size_t at = hash_bytes(t->name, strlen(t->name)) & (size - 1);
		while (c->table[at])
			at = (at + 1) & (size - 1);
		c->table[at] = (uint32_t)i + 1;
	}
	return 0;
}

/* ---- which files ---- */

struct name_list {
	char **names;
	size_t n, capacity;
};

static void free_names(struct name_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		free(list->names[i]);
	free(list->names);
}

static int add_name(struct name_list *list, const char *name, size_t length, struct error *err)
{
	if (mem_grow(&list->names, &list->capacity, list->n + 1, sizeof *list->names, err) != 0)
		return -1;
	list->names[list->n] = mem_string(name, length, err);
	return list->names[list->n] ? (list->n++, 0) : -1;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int open_list(struct opening *o, struct name_list *list, struct error *err)
{
	if (list->n)
		qsort(list->names, list->n, sizeof *list->names, by_name);
	const char *before = NULL;
	for (size_t i = 0; i < list->n; i++) {
		if (before && strcmp(before, list->names[i]) == 0)
			continue;
		before = list->names[i];
		if (o->checkpoint->n_shards == MAX_SHARDS)
			return fail(err, "more than %d shards", MAX_SHARDS);
		if (open_shard(o, before, err) != 0)
			return -1;
	}
	return finish(o, err);
}

/* A file name and nothing else: an index may not lead out of its directory. */
static bool plain_name(const char *name, size_t length)
{
	return length > 0 && length < NAME_MAX && !memchr(name, '/', length) &&
		   !memchr(name, '\0', length) && name[0] != '.';
}

/* Every tensor that the index names must be in the shard that it names. */
static int check_index(const struct checkpoint *c, const struct json *json,
					   const struct json_node *map, struct error *err)
{
	struct text name = {0}, shard = {0};
	int result = 0;
	for (const struct json_node *key = json_first(json, map); key && result == 0;
		 key = json_next(json, map, key)) {
		text_clear(&name);
		text_clear(&shard);
		json_string(json, key, &name);
		const struct named_tensor *t = lookup(c, text_chars(&name));
		json_string(json, json_value(key), &shard);
		if (!t)
			result = fail(err, "tensor \"%.300s\" is not in %s, where the index says it is",
						  text_chars(&name), text_chars(&shard));
		else if (strcmp(c->shards[t->shard].name, text_chars(&shard)) != 0)
			result = fail(err, "tensor \"%s\" is in %s, but the index says it is in %s",
						  text_chars(&name), c->shards[t->shard].name, text_chars(&shard));
	}
	text_free(&shard);
	text_free(&name);
	return result;
}

/* The files that the index names. */
static int read_map(const struct json *json, const struct json_node *map, struct name_list *list,
					struct error *err)
{
	if (!json_is(map, JSON_OBJECT))
		return fail(err, "has no object \"weight_map\"");
	struct text name = {0};
	int result = 0;
	for (const struct json_node *key = json_first(json, map); key && result == 0;
		 key = json_next(json, map, key)) {
		const struct json_node *value = json_value(key);
		text_clear(&name);
		json_string(json, value, &name);
		if (!json_is(value, JSON_STRING) || !plain_name(text_chars(&name), name.length))
			result = fail(err, "\"%.200s\" is not the name of a file beside the index",
						  text_chars(&name));
		else if (list->n == 0 || strcmp(list->names[list->n - 1], name.data) != 0)
			result = add_name(list, name.data, name.length, err);
	}
	if (result == 0 && list->n == 0)
		result = fail(err, "\"weight_map\" is empty");
	text_free(&name);
	return result;
}

static int open_index(struct opening *o, const char *path, struct error *err)
{
	struct text source = {0};
	struct json json = {0};
	struct name_list list = {0};
	const struct json_node *map = NULL;
	int result = file_read(path, MAX_INDEX_BYTES, &source, err);
	if (result == 0 && json_parse(&json, text_chars(&source), source.length, err) != 0)
		result = fail_in(err, "%s", path);
	if (result == 0) {
		map = json_member(&json, &json.nodes[0], "weight_map");
		if (read_map(&json, map, &list, err) != 0)
			result = fail_in(err, "%s", path);
	}
	if (result == 0)
		result = open_list(o, &list, err);
	if (result == 0 && check_index(o->checkpoint, &json, map, err) != 0)
		result = fail_in(err, "%s", path);
	free_names(&list);
	json_free(&json);
	text_free(&source);
	return result;
}

/* "model-00001-of-00013.safetensors" says 13; 0 if the name says nothing. */
static int shards_said(const char *name)
{
	int at, of, end = 0;
	if (sscanf(name, "model-%6d-of-%6d.safetensors%n", &at, &of, &end) == 2 && end && !name[end])
		return of > 0 ? of : 0;
	return 0;
}

static int open_scan(struct opening *o, struct error *err)
{
	static const char prefix[] = "model-", suffix[] = ".safetensors";
	DIR *folder = opendir(o->directory);
	if (!folder)
		return fail(err, "%s: %s", o->directory, strerror(errno));
	struct name_list list = {0};
	int result = 0;
	for (struct dirent *e; result == 0 && (e = readdir(folder));) {
		size_t length = strlen(e->d_name);
		if (length > strlen(suffix) && strncmp(e->d_name, prefix, strlen(prefix)) == 0 &&
			strcmp(e->d_name + length - strlen(suffix), suffix) == 0)
			result = add_name(&list, e->d_name, length, err);
	}
	closedir(folder);
	if (result == 0 && list.n == 0)
		result = fail(
			err,
			"%s: no model.safetensors, model.safetensors.index.json or model-*.safetensors there",
			o->directory);
	for (size_t i = 0; i < list.n && result == 0; i++) {
		int said = shards_said(list.names[i]);
		if (said && (size_t)said != list.n)
			result = fail(err, "%s: %s says there are %d shards, found are %zu", o->directory,
						  list.names[i], said, list.n);
	}
	if (result == 0)
		result = open_list(o, &list, err);
	free_names(&list);
	return result;
}

static int open_directory(struct opening *o, struct error *err)
{
	if (!file_is_directory(o->directory))
		return access(o->directory, F_OK) != 0
				   ? fail(err, "%s: %s", o->directory, strerror(errno))
				   : fail(err, "%s: is a file, expected the directory of a checkpoint",
						  o->directory);
	char *single = file_join(o->directory, "model.safetensors", err);
	char *index = single ? file_join(o->directory, "model.safetensors.index.json", err) : NULL;
	int result = -1;
	if (!index)
		result = -1;
	else if (access(single, F_OK) == 0) // transformers' order: the single file wins
		result = open_shard(o, "model.safetensors", err) == 0 ? finish(o, err) : -1;
	else if (access(index, F_OK) == 0)
		result = open_index(o, index, err);
	else
		result = open_scan(o, err);
	free(single);
	free(index);
	return result;
}

int checkpoint_open(struct checkpoint *checkpoint, const char *directory, struct error *err)
{
	*checkpoint = (struct checkpoint){0};
	struct opening o = {.checkpoint = checkpoint, .directory = directory};
	int result = open_directory(&o, err);
	text_free(&o.names);
	if (result != 0)
		checkpoint_close(checkpoint);
	return result;
}

int checkpoint_open_file(struct checkpoint *checkpoint, const char *path, struct error *err)
{
	*checkpoint = (struct checkpoint){0};
	struct opening o = {.checkpoint = checkpoint};
	int result = shard_open(&o, path, err);
	if (result == 0)
		result = finish(&o, err);
	text_free(&o.names);
	if (result != 0)
		checkpoint_close(checkpoint);
	return result;
}

void checkpoint_close(struct checkpoint *checkpoint)
{
	for (int i = 0; i < checkpoint->n_shards; i++) {
		struct shard *shard = &checkpoint->shards[i];
		if (shard->data)
			munmap((void *)(uintptr_t)shard->data, shard->bytes);
		free(shard->name);
	}
	free(checkpoint->shards);
	free(checkpoint->tensors);
	free(checkpoint->table);
	free(checkpoint->names);
	*checkpoint = (struct checkpoint){0};
}

const struct tensor *checkpoint_find(const struct checkpoint *checkpoint, const char *name)
{
	const struct named_tensor *found = lookup(checkpoint, name);
	return found ? &found->tensor : NULL;
}
