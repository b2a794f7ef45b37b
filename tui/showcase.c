#include "tui/showcase.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "base/utf8.h"
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_SHOWCASE_BYTES (4u << 20)
#define MAX_CATEGORIES 16
#define MAX_PROMPT_BYTES (1u << 20)

static void prompt_free(struct showcase_prompt *prompt)
{
	free(prompt->prompt);
	free(prompt->note);
}

static int add(struct showcase *showcase, size_t *capacity, const struct json *json,
			   const struct json_node *category, const struct json_node *item, struct error *err)
{
	const struct json_node *prompt = json_member(json, item, "prompt");
	const struct json_node *answer = json_member(json, item, "answer");
	if (!json_is(prompt, JSON_STRING))
		return fail(err, "an entry has no \"prompt\"");
	if (mem_grow(&showcase->prompts, capacity, (size_t)showcase->n_prompts + 1,
				 sizeof *showcase->prompts, err))
		return -1;
	struct text text = {0}, note = {0};
	json_string(json, prompt, &text);
	json_string(json, category, &note);
	for (size_t i = 0; i < note.length; i++)
		if (note.data[i] == '_')
			note.data[i] = ' ';
	if (json_is(answer, JSON_STRING)) {
		text_add(&note, "; right: ");
		json_string(json, answer, &note);
	}
	struct showcase_prompt *to = &showcase->prompts[showcase->n_prompts];
	to->prompt = text_take(&text);
	to->note = text_take(&note);
	showcase->n_prompts++;
	return to->prompt && to->note ? 0 : fail(err, "no memory");
}

/* One of each category in turn, so that the first few show all kinds. */
static int interleave(struct showcase *showcase, const int *firsts, int n_categories,
					  struct error *err)
{
	int n = showcase->n_prompts, at = 0;
	struct showcase_prompt *mixed = mem_new((size_t)n + 1, sizeof *mixed, err);
	if (!mixed)
		return -1;
	for (int round = 0; at < n; round++)
		for (int i = 0; i < n_categories; i++)
			if (firsts[i] + round < firsts[i + 1])
				mixed[at++] = showcase->prompts[firsts[i] + round];
	free(showcase->prompts);
	showcase->prompts = mixed;
	return 0;
}

static int read_all(struct showcase *showcase, const struct json *json, struct error *err)
{
	const struct json_node *root = json->nodes;
	size_t capacity = 0;
	int firsts[MAX_CATEGORIES + 1] = {0}, n = 0;
	if (!json_is(root, JSON_OBJECT))
		return fail(err, "an object of categories is expected");
	for (const struct json_node *key = json_first(json, root); key;
		 key = json_next(json, root, key)) {
		const struct json_node *list = json_value(key);
		if (!json_is(list, JSON_ARRAY) || n == MAX_CATEGORIES)
			continue;
		for (const struct json_node *item = json_first(json, list); item;
			 item = json_next(json, list, item))
			if (add(showcase, &capacity, json, key, item, err))
				return -1;
		firsts[++n] = showcase->n_prompts;
	}
	return interleave(showcase, firsts, n, err);
}

/* ---- the user's own ---- */

static int is_prompt(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* A file is a prompt, its name the note. */
static int add_file(struct showcase *showcase, size_t *capacity, const char *directory,
					const char *name, struct error *err)
{
	struct text text = {0};
	char *path = file_join(directory, name, err);
	int result = path ? 0 : -1;
	if (result == 0 && file_exists(path)) {
		result = file_read(path, MAX_PROMPT_BYTES, &text, err);
		while (text.length > 0 && text.data[text.length - 1] == '\n')
			text.data[--text.length] = '\0';
		if (result == 0 && !utf8_valid(text_chars(&text), text.length, NULL))
			result = fail(err, "%s: is not UTF-8", path);
	}
	if (result == 0 && text.length > 0) {
		result = mem_grow(&showcase->prompts, capacity, (size_t)showcase->n_prompts + 1,
						  sizeof *showcase->prompts, err);
		if (result == 0) {
			struct showcase_prompt *to = &showcase->prompts[showcase->n_prompts++];
			*to = (struct showcase_prompt){text_take(&text), mem_string(name, strlen(name), err)};
			result = to->prompt && to->note ? 0 : fail(err, "no memory");
		}
	}
	text_free(&text);
	free(path);
	return result;
}

/* By name, before the model's. Without such a folder there are none. */
static int add_own(struct showcase *showcase, struct error *err)
{
	struct showcase model = *showcase;
	struct dirent **entries = NULL;
	size_t capacity = 0;
	*showcase = (struct showcase){0};
	char *directory = file_place(PLACE_CONFIG, "prompts", NULL);
	int result = 0, n = directory ? scandir(directory, &entries, is_prompt, alphasort) : 0;
	for (int i = 0; i < n; i++) {
		if (result == 0)
			result = add_file(showcase, &capacity, directory, entries[i]->d_name, err);
		free(entries[i]);
	}
	free(entries);
	free(directory);
	size_t n_own = (size_t)showcase->n_prompts, n_model = (size_t)model.n_prompts;
	if (result == 0)
		result = mem_grow(&showcase->prompts, &capacity, n_own + n_model, sizeof *showcase->prompts,
						  err);
	for (size_t i = 0; i < n_model; i++)
		if (result == 0)
			showcase->prompts[showcase->n_prompts++] = model.prompts[i];
		else
			prompt_free(&model.prompts[i]);
	free(model.prompts);
	return result;
}

struct showcase *showcase_open(const char *directory, struct error *err)
{
	struct showcase *showcase = mem_new(1, sizeof *showcase, err);
	char *path = file_join(directory, "showcase.json", err);
	struct text source = {0};
	struct json json = {0};
	int result = showcase && path ? 0 : -1;
	if (result == 0 && file_exists(path)) {
		result = file_read(path, MAX_SHOWCASE_BYTES, &source, err);
		if (result == 0)
			result = json_parse(&json, text_chars(&source), source.length, err);
		if (result == 0)
			result = read_all(showcase, &json, err);
		if (result)
			fail_in(err, "%s", path);
	}
	json_free(&json);
	text_free(&source);
	free(path);
	if (result == 0)
		result = add_own(showcase, err);
	if (result) {
		showcase_close(showcase);
		return NULL;
	}
	return showcase;
}

void showcase_close(struct showcase *showcase)
{
	if (!showcase)
		return;
	for (int i = 0; i < showcase->n_prompts; i++)
		prompt_free(&showcase->prompts[i]);
	free(showcase->prompts);
	free(showcase);
}
