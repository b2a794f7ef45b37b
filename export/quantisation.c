#include "export/quantisation.h"

#include "base/json.h"
#include "base/memory.h"
#include "inspect/modules.h"
#include "kernels/convert.h"
#include "kernels/quantise.h"
#include <fnmatch.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK 65536 // numbers widened at a time

/* ---- which ---- */

struct choosing {
	struct quantisation *q;
	const struct quantisation_plan *plan;
	struct cuts cuts; // the parent's own
	uint64_t done, total, since;
	struct error *err;
	int result;
};

static void module_of(const struct named_tensor *tensor, char out[160])
{
	size_t n = strlen(tensor->name), ending = strlen(".weight");
	n = n > ending ? n - ending : n;
	snprintf(out, 160, "%.*s", n < 150 ? (int)n : 150, tensor->name);
}

static const struct cut *cut_of(const struct cuts *cuts, const struct matrix *matrix)
{
	for (size_t i = 0; i < cuts->n; i++)
		if (cuts->list[i].matrix == matrix)
			return &cuts->list[i];
	return NULL;
}

static bool is_excluded(const struct choosing *c, const char *module)
{
	for (size_t i = 0; i < c->plan->n_exclude; i++)
		if (fnmatch(c->plan->exclude[i], module, 0) == 0)
			return true;
	return false;
}

/* A pattern that means nothing is a typo, and a module would be quantised that must not be. */
static int check_patterns(const struct quantisation_plan *plan, struct error *err)
{
	const struct checkpoint *checkpoint = &plan->model->checkpoint;
	for (size_t p = 0; p < plan->n_exclude; p++) {
		bool found = false;
		for (size_t i = 0; i < checkpoint->n_tensors && !found; i++) {
			char name[160];
			module_of(&checkpoint->tensors[i], name);
			found = fnmatch(plan->exclude[p], name, 0) == 0;
		}
		if (!found)
			return fail(err, "--exclude '%s' matches no module of %s", plan->exclude[p],
						plan->model->directory);
	}
	return 0;
}

static int check_matrix(const struct choosing *c, const struct cut *cut)
{
	const struct tensor *t = &cut->from->tensor;
	if (cut->matrix->dtype == DTYPE_F8_E4M3 || cut->matrix->dtype == DTYPE_NVFP4)
		return fail(c->err, "tensor \"%s\" is stored as %s already, expected a BF16 parent",
					cut->from->name, cut->matrix->dtype == DTYPE_NVFP4 ? "NVFP4" : "FP8");
	if (c->q->format == DTYPE_NVFP4 && t->shape[1] % NVFP4_BLOCK)
		return fail(c->err,
					"tensor \"%s\" has %lld columns, NVFP4 needs a multiple of %d (--exclude "
					"keeps it as it is)",
					cut->from->name, (long long)t->shape[1], NVFP4_BLOCK);
	return 0;
}

static void choose(void *user, const struct module *module)
{
	struct choosing *c = user;
	struct quantisation *q = c->q;
	char name[160];
	if (c->result != 0)
		return;
	// a tied table is listed as lm_head and stored as embeddings; neither is quantised
	const struct cut *cut =
		module_quantises(module, &q->model->config) ? cut_of(&c->cuts, module->matrix) : NULL;
	if (!cut && module_quantises(module, &q->model->config))
		c->result =
			fail(c->err, "layer %d holds all its experts in one tensor, expected one an expert",
				 module->layer);
	if (!cut)
		return;
	module_of(cut->from, name);
	if (is_excluded(c, name)) {
		q->n_excluded++;
		return;
	}
	c->result = check_matrix(c, cut);
	q->scale[cut->from - q->model->checkpoint.tensors] = 1; // until it is measured
	q->n_modules++;
	c->total += cut->from->tensor.bytes;
}

static int by_number(const void *a, const void *b)
{
	return strverscmp(*(char *const *)a, *(char *const *)b); // layer 2 before layer 10
}

/* Layer by layer; norms and vectors of a mixer are no modules, conv1d is one. */
static int list_excluded(struct quantisation *q, const struct cuts *cuts, struct error *err)
{
	char **names = mem_new(cuts->n, sizeof *names, err), name[160];
	size_t n = 0;
	for (size_t i = 0; names && i < cuts->n; i++) {
		const struct cut *cut = &cuts->list[i];
		module_of(cut->from, name);
		bool conv = strstr(name, ".conv1d") && strstr(cut->from->name, ".weight");
		bool table = cut->matrix == &cuts->slice.embeddings;
		bool stays = q->scale[cut->from - q->model->checkpoint.tensors] == 0;
		if ((conv || (cut->matrix && !table)) && stays)
			names[n++] = strdup(name);
	}
	if (n)
		qsort(names, n, sizeof *names, by_number);
	for (size_t i = 0; i < n; i++) {
		text_format(&q->excluded, "%s\n", names[i] ? names[i] : "");
		free(names[i]);
	}
	free(names);
	return names ? 0 : -1;
}

/* ---- how large ---- */

static int measure(struct choosing *c, const struct named_tensor *named, float *amax)
{
	const struct tensor *t = &named->tensor;
	static _Thread_local float wide[CHUNK];
	size_t width = dtype_bytes(t->dtype);
	*amax = 0;
	for (uint64_t at = 0; at < t->bytes; at += CHUNK * width) {
		size_t bytes = t->bytes - at < CHUNK * width ? (size_t)(t->bytes - at) : CHUNK * width;
		const char *from = (const char *)t->data + at;
		if (!convert_to_f32(from, t->dtype, bytes / width, wide))
			return fail(c->err, "tensor \"%s\" is %s, expected F32, BF16 or F16", named->name,
						dtype_name(t->dtype));
		for (size_t i = 0; i < bytes / width; i++) {
			if (!isfinite(wide[i]))
				return fail(c->err, "tensor \"%s\" has %s at element %llu", named->name,
							isnan(wide[i]) ? "a NaN" : "an infinity",
							(unsigned long long)(at / width + i));
			*amax = fabsf(wide[i]) > *amax ? fabsf(wide[i]) : *amax;
		}
		checkpoint_forget(&c->q->model->checkpoint, &c->since, bytes);
		c->done += bytes;
		if (c->plan->step && c->plan->step(c->plan->user, c->done, c->total) != 0)
			return fail(c->err, "stopped, nothing was written");
	}
	return 0;
}

static int measure_all(struct choosing *c)
{
	struct quantisation *q = c->q;
	const struct checkpoint *checkpoint = &q->model->checkpoint;
	for (size_t i = 0; i < checkpoint->n_tensors; i++) {
		float amax;
		if (q->scale[i] == 0)
			continue;
		if (measure(c, &checkpoint->tensors[i], &amax) != 0)
			return -1;
		q->scale[i] = quantise_scale(q->format, amax);
		if (!isnormal(q->scale[i]))
			return fail(c->err, "tensor \"%s\" is too small for a scale: its largest number is %g",
						checkpoint->tensors[i].name, (double)amax);
	}
	return 0;
}

int quantisation_open(struct quantisation *quantisation, const struct quantisation_plan *plan,
					  struct error *err)
{
	size_t n = plan->model->checkpoint.n_tensors;
	struct budget parent = {0};
	*quantisation = (struct quantisation){.format = plan->format, .model = plan->model};
	struct choosing c = {.q = quantisation, .plan = plan, .err = err};
	if (check_patterns(plan, err) != 0)
		return -1;
	quantisation->scale = mem_new(n, sizeof(float), err);
	quantisation->input_scale = mem_new(n, sizeof(float), err);
	int result = quantisation->scale && quantisation->input_scale ? 0 : -1;
	if (result == 0)
		result = budget_init(&parent, &plan->model->config, "parent", err);
	if (result == 0)
		result = cuts_plan(&c.cuts, plan->model, &parent, err);
	if (result == 0) {
		modules_each(&c.cuts.slice, choose, &c);
		result = c.result;
	}
	if (result == 0)
		result = list_excluded(quantisation, &c.cuts, err);
	if (result == 0 && quantisation->n_modules == 0)
		result = fail(err, "no module is left to be quantised");
	if (result == 0)
		result = measure_all(&c);
	cuts_free(&c.cuts);
	budget_free(&parent);
	if (result == 0)
		result = text_check(&quantisation->excluded, err);
	if (result != 0)
		quantisation_close(quantisation);
	return result;
}

void quantisation_close(struct quantisation *quantisation)
{
	free(quantisation->scale);
	free(quantisation->input_scale);
	text_free(&quantisation->excluded);
	*quantisation = (struct quantisation){0};
}

/* ---- children ---- */

int quantisation_check(const struct quantisation *quantisation, const struct cuts *cuts,
					   struct error *err)
{
	const struct checkpoint *checkpoint = &quantisation->model->checkpoint;
	for (size_t i = 0; i < cuts->n && quantisation->format == DTYPE_NVFP4; i++) {
		const struct cut *cut = &cuts->list[i];
		if (!cut->matrix || quantisation->scale[cut->from - checkpoint->tensors] == 0)
			continue;
		for (int s = 0; s < cut->matrix->n_column_spans; s++) {
			int from = cut->matrix->columns[s].start, to = from + cut->matrix->columns[s].length;
			if (from % NVFP4_BLOCK || to % NVFP4_BLOCK)
				return fail(err,
							"budget %s keeps columns %d to %d of \"%s\", which cuts a block of %d "
							"that shares a scale (--exclude keeps it as it is)",
							cuts->slice.budget.name, from, to, cut->from->name, NVFP4_BLOCK);
		}
	}
	return 0;
}

int quantisation_config(const struct quantisation *quantisation, const struct cuts *cuts,
						const char *version, struct text *out, struct error *err)
{
	bool nvfp4 = quantisation->format == DTYPE_NVFP4;
	text_add(out, "{\n  \"producer\": {\n    \"name\": \"elastiscope\",\n    \"version\": ");
	json_add_string(out, version);
	text_format(out,
				"\n  },\n  \"quantization\": {\n    \"quant_algo\": \"%s\",\n    "
				"\"kv_cache_quant_algo\": null,\n%s    \"exclude_modules\": [",
				nvfp4 ? "NVFP4" : "FP8", nvfp4 ? "    \"group_size\": 16,\n" : "");
	const char *comma = "";
	struct text line = {0}, name = {0};
	for (const char *at = text_chars(&quantisation->excluded); *at;) {
		size_t n = strcspn(at, "\n");
		text_clear(&line);
		text_clear(&name);
		text_append(&line, at, n);
		at += n + 1;
		if (!cuts_rename(cuts, text_chars(&line), &name))
			continue;
		text_format(out, "%s\n      ", comma);
		json_add_string(out, text_chars(&name));
		comma = ",";
	}
	text_free(&line);
	text_free(&name);
	text_add(out, "\n    ]\n  }\n}\n");
	return text_check(out, err);
}
