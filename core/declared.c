#include "core/declared.h"
#include "base/file.h"
#include "base/json.h"
#include "base/memory.h"
#include "core/config.h"
#include "core/quantised.h"
#include <fnmatch.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAX_NAME 192
#define MAX_CONFIG_BYTES ((size_t)16 << 20)

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int by_module(const void *a, const void *b)
{
	return strcmp(((const struct declared_module *)a)->name,
				  ((const struct declared_module *)b)->name);
}

/* ---- reading ---- */

/* Copies a string that fits; anything else leaves "". */
static void copy(const struct json *json, const struct json_node *node, char *out, size_t size)
{
	struct text text = {0};
	if (json_is(node, JSON_STRING))
		json_string(json, node, &text);
	if (text.length < size)
		memcpy(out, text_chars(&text), text.length + 1);
	text_free(&text);
}

static int read_excluded(struct declared *d, const struct json *json, const struct json_node *list,
						 struct error *err)
{
	size_t n = json_is(list, JSON_ARRAY) ? list->n_children : 0;
	d->excluded = mem_new(n + 1, sizeof *d->excluded, err);
	d->patterns = mem_new(n + 1, sizeof *d->patterns, err);
	if (!d->excluded || !d->patterns)
		return -1;
	for (const struct json_node *node = n ? json_first(json, list) : NULL; node;
		 node = json_next(json, list, node)) {
		struct text name = {0};
		json_string(json, node, &name);
		bool plain = !strpbrk(text_chars(&name), "*?[");
		char **place = plain ? &d->excluded[d->n_excluded] : &d->patterns[d->n_patterns];
		*place =
			text_check(&name, err) == 0 ? mem_string(text_chars(&name), name.length, err) : NULL;
		text_free(&name);
		if (!*place)
			return -1;
		*(plain ? &d->n_excluded : &d->n_patterns) += 1;
	}
	qsort(d->excluded, d->n_excluded, sizeof *d->excluded, by_name);
	return 0;
}

static int read_modules(struct declared *d, const struct json *json,
						const struct json_node *modules, struct error *err)
{
	size_t n = json_is(modules, JSON_OBJECT) ? modules->n_children : 0;
	d->modules = mem_new(n + 1, sizeof *d->modules, err);
	if (!d->modules)
		return -1;
	for (const struct json_node *key = n ? json_first(json, modules) : NULL; key;
		 key = json_next(json, modules, key)) {
		struct declared_module *module = &d->modules[d->n_modules];
		struct text name = {0};
		json_string(json, key, &name);
		module->name =
			text_check(&name, err) == 0 ? mem_string(text_chars(&name), name.length, err) : NULL;
		text_free(&name);
		if (!module->name)
			return -1;
		d->n_modules++;
		copy(json, json_member(json, json_value(key), "quant_algo"), module->algorithm,
			 sizeof module->algorithm);
	}
	qsort(d->modules, d->n_modules, sizeof *d->modules, by_module);
	return 0;
}

/* Exports without a name for it: floats of 8 or 4 bits. */
static const char *algorithm_of_bits(const struct json *json, const struct json_node *scheme)
{
	const struct json_node *bits = json_member(json, scheme, "num_bits");
	int64_t n = 0;
	if (bits && json_integer(json, bits, "num_bits", &n, NULL) != 0)
		n = 0;
	if (!json_equals(json, json_member(json, scheme, "type"), "float"))
		return "";
	return n == 8 ? "FP8" : n == 4 ? "NVFP4" : "";
}

static int read_object(struct declared *d, const struct json *json, const struct json_node *said,
					   struct error *err)
{
	const struct json_node *kv = json_member(json, said, "kv_cache_scheme");
	const struct json_node *groups = json_member(json, said, "config_groups");
	const struct json_node *group =
		json_is(groups, JSON_OBJECT) && groups->n_children ? json_first(json, groups) : NULL;
	const struct json_node *excluded = json_member(json, said, "exclude_modules");
	if (!excluded)
		excluded = json_member(json, said, "ignore");
	copy(json, json_member(json, said, "quant_algo"), d->algorithm, sizeof d->algorithm);
	copy(json, json_member(json, said, "kv_cache_quant_algo"), d->kv_algorithm,
		 sizeof d->kv_algorithm);
	if (!d->algorithm[0] && group)
		strcpy(d->algorithm,
			   algorithm_of_bits(json, json_member(json, json_value(group), "weights")));
	if (!d->kv_algorithm[0] && kv)
		strcpy(d->kv_algorithm, algorithm_of_bits(json, kv));
	return read_excluded(d, json, excluded, err) < 0 ||
				   read_modules(d, json, json_member(json, said, "quantized_layers"), err) < 0
			   ? -1
			   : 0;
}

static int read_file(struct declared *d, const char *directory, const char *file,
					 const char *member, struct text *notices, struct error *err)
{
	struct error problem = {0};
	struct text source = {0};
	struct json json = {0};
	int status = 0;
	char *path = file_join(directory, file, err);
	if (!path)
		return -1;
	if (!file_exists(path)) {
		free(path);
		return 0;
	}
	int read = file_read(path, MAX_CONFIG_BYTES, &source, &problem);
	if (read == 0 && source.data)
		config_spell_infinity(source.data, source.length);
	if (read == 0 && json_parse(&json, text_chars(&source), source.length, &problem) == 0) {
		const struct json_node *said = json_member(&json, &json.nodes[0], member);
		if (json_is(said, JSON_OBJECT)) {
			d->file = file;
			status = read_object(d, &json, said, err);
		}
	} else {
		text_format(notices, "%s: %s\n", file, problem.text);
	}
	json_free(&json);
	text_free(&source);
	free(path);
	return status;
}

int declared_read(struct declared *declared, const char *directory, struct text *notices,
				  struct error *err)
{
	*declared = (struct declared){0};
	int status =
		read_file(declared, directory, "hf_quant_config.json", "quantization", notices, err);
	if (status == 0 && !declared->file)
		status = read_file(declared, directory, "config.json", "quantization_config", notices, err);
	if (status != 0)
		declared_free(declared);
	return status;
}

void declared_free(struct declared *declared)
{
	for (size_t i = 0; i < declared->n_excluded; i++)
		free(declared->excluded[i]);
	for (size_t i = 0; i < declared->n_patterns; i++)
		free(declared->patterns[i]);
	for (size_t i = 0; i < declared->n_modules; i++)
		free(declared->modules[i].name);
	free(declared->excluded);
	free(declared->patterns);
	free(declared->modules);
	*declared = (struct declared){0};
}

/* ---- asking ---- */

/* By its own name, that of a module around it, or a pattern. */
static bool is_excluded(const struct declared *d, const char *module)
{
	char name[MAX_NAME], *key = name;
	snprintf(name, sizeof name, "%s", module);
	for (char *dot = name + strlen(name); dot; dot = strrchr(name, '.')) {
		*dot = '\0';
		if (d->n_excluded && bsearch(&key, d->excluded, d->n_excluded, sizeof key, by_name))
			return true;
	}
	for (size_t i = 0; i < d->n_patterns; i++)
		if (fnmatch(d->patterns[i], module, 0) == 0)
			return true;
	return false;
}

/* The same module under the other prefix, or itself. */
static void other_prefix(const char *module, char out[MAX_NAME])
{
	if (strncmp(module, "backbone.", 9) == 0)
		snprintf(out, MAX_NAME, "model.%s", module + 9);
	else if (strncmp(module, "model.", 6) == 0)
		snprintf(out, MAX_NAME, "backbone.%s", module + 6);
	else
		snprintf(out, MAX_NAME, "%s", module);
}

const char *declared_algorithm(const struct declared *declared, const char *module, bool *excluded)
{
	char other[MAX_NAME];
	other_prefix(module, other);
	*excluded = is_excluded(declared, module) || is_excluded(declared, other);
	if (*excluded)
		return "";
	if (!declared->n_modules)
		return declared->algorithm;
	const struct declared_module keys[] = {{.name = (char *)module}, {.name = other}};
	for (int i = 0; i < 2; i++) {
		const struct declared_module *found =
			bsearch(&keys[i], declared->modules, declared->n_modules, sizeof keys[i], by_module);
		if (found)
			return found->algorithm;
	}
	return "";
}

/* ---- holding it against the tensors ---- */

enum contradiction { EXCLUDED, NOT_EXCLUDED, OTHERWISE, N_CONTRADICTIONS };

struct finding {
	size_t n;
	char module[MAX_NAME], said[16], found[16]; // the first
};

/* Modules whose weights the releases quantise: of others (router, embeddings) nobody says that they
 * are left out. */
static bool is_target(const char *module)
{
	static const char *const names[] = {"in_proj", "out_proj", "q_proj",  "k_proj",
										"v_proj",  "o_proj",   "up_proj", "down_proj"};
	const char *dot = strrchr(module, '.');
	for (size_t i = 0; dot && i < sizeof names / sizeof names[0]; i++)
		if (strcmp(dot + 1, names[i]) == 0)
			return strncmp(module, "mtp.", 4) != 0;
	return strcmp(module, "lm_head") == 0;
}

static void check_module(const struct declared *d, const struct checkpoint *checkpoint,
						 const char *module, struct finding findings[N_CONTRADICTIONS])
{
	bool excluded;
	const char *found = quantised_as(checkpoint, module);
	const char *said = declared_algorithm(d, module, &excluded);
	if (strcmp(said, found) == 0 || (!*found && !is_target(module)))
		return;
	/* Another algorithm altogether (weight-only variants, MIXED_PRECISION without a list) says
	 * nothing about a module. */
	if (*said && strcmp(said, "FP8") != 0 && strcmp(said, "NVFP4") != 0)
		return;
	enum contradiction kind = excluded ? EXCLUDED : !*found ? NOT_EXCLUDED : OTHERWISE;
	if (findings[kind].n++)
		return;
	snprintf(findings[kind].module, MAX_NAME, "%s", module);
	snprintf(findings[kind].said, sizeof findings[kind].said, "%s", *said ? said : "nothing");
	snprintf(findings[kind].found, sizeof findings[kind].found, "%s", found);
}

static void print_findings(const struct declared *d,
						   const struct finding findings[N_CONTRADICTIONS], struct text *notices)
{
	const struct finding *f = &findings[EXCLUDED];
	if (f->n)
		text_format(notices,
					"%s excludes %.100s (%zu such) from quantisation, its tensors are quantised: "
					"the tensors count\n",
					d->file, f->module, f->n);
	f = &findings[NOT_EXCLUDED];
	if (f->n)
		text_format(notices,
					"%s says %s of %.100s (%zu such) and does not exclude it, its tensors are not "
					"quantised: the tensors count\n",
					d->file, f->said, f->module, f->n);
	f = &findings[OTHERWISE];
	if (f->n)
		text_format(notices,
					"%s says %s of %.100s (%zu such), the tensors say %s: the tensors count\n",
					d->file, f->said, f->module, f->n, f->found);
}

void declared_check(const struct declared *declared, const struct checkpoint *checkpoint,
					struct text *notices)
{
	static const char ending[] = ".weight";
	struct finding findings[N_CONTRADICTIONS] = {{0}};
	if (!declared->file)
		return;
	for (size_t i = 0; i < checkpoint->n_tensors; i++) {
		const struct named_tensor *t = &checkpoint->tensors[i];
		size_t n = strlen(t->name), tail = sizeof ending - 1;
		char module[MAX_NAME];
		if (n <= tail || n - tail >= sizeof module || strcmp(t->name + n - tail, ending) != 0 ||
			t->tensor.n_dims != 2)
			continue;
		snprintf(module, sizeof module, "%.*s", (int)(n - tail), t->name);
		check_module(declared, checkpoint, module, findings);
	}
	print_findings(declared, findings, notices);
}
