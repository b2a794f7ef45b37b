/*
 * A stored tensor's name says its place: a layer, perhaps an expert, a module, and what of the
 * module it is. The place says which matrix of the slice has its spans.
 */
#include "export/cut.h"

#include "base/memory.h"
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Kept units of an axis of a stored tensor. n 0 = all of it. */
struct kept {
	const struct span *spans;
	int n;
};

struct place {
	int layer, expert;  // -1 = none
	const char *module; // behind the layer and the expert: "mixer.in_proj"
	size_t length;      // of module
	const char *what;   // "weight", "weight_scale", ...; "" = nothing behind the module
	bool fused;         // all experts in one tensor
};

/* ---- names ---- */

static const char *skip_prefix(const char *name)
{
	static const char *const prefixes[] = {"backbone.", "model."};
	for (int i = 0; i < 2; i++)
		if (strncmp(name, prefixes[i], strlen(prefixes[i])) == 0)
			return name + strlen(prefixes[i]);
	return name;
}

/* "PREFIX12.rest" -> rest and 12; NULL if that is not what stands there. */
static const char *numbered(const char *name, const char *prefix, int *number)
{
	size_t n = strlen(prefix);
	if (strncmp(name, prefix, n) != 0 || name[n] < '0' || name[n] > '9')
		return NULL;
	char *end;
	long value = strtol(name + n, &end, 10);
	if (value > INT32_MAX || (*end != '.' && *end != '\0'))
		return NULL;
	*number = (int)value;
	return *end == '.' ? end + 1 : end;
}

static struct place find_place(const char *name)
{
	struct place p = {.layer = -1, .expert = -1};
	const char *rest = skip_prefix(name), *inside = numbered(rest, "layers.", &p.layer);
	if (inside)
		rest = inside;
	inside = numbered(rest, "mixer.experts.", &p.expert);
	p.fused = !inside && strncmp(rest, "mixer.experts.", strlen("mixer.experts.")) == 0;
	p.module = inside ? inside : rest;
	p.length = strlen(p.module);
	p.what = "";
	const char *dot = strrchr(p.module, '.');
	// a fused tensor may have no ending: mixer.experts.up_proj
	if (dot && !(p.fused && strstr(dot, "_proj"))) {
		p.length = (size_t)(dot - p.module);
		p.what = dot + 1;
	}
	return p;
}

static bool is_module(const struct place *p, const char *name)
{
	return strlen(name) == p->length && strncmp(p->module, name, p->length) == 0;
}

/* ---- what a place keeps ---- */

struct planning {
	struct cuts *cuts;
	size_t capacity;
	struct error *err;
};

#define IN(member) offsetof(struct layer_slice, member)
static const struct {
	enum layer_kind kind;
	const char *module;
	size_t at; // of its struct matrix
} matrices[] = {
	{LAYER_MAMBA, "mixer.in_proj", IN(mamba.in_proj)},
	{LAYER_MAMBA, "mixer.out_proj", IN(mamba.out_proj)},
	{LAYER_ATTENTION, "mixer.q_proj", IN(attention.q)},
	{LAYER_ATTENTION, "mixer.k_proj", IN(attention.k)},
	{LAYER_ATTENTION, "mixer.v_proj", IN(attention.v)},
	{LAYER_ATTENTION, "mixer.o_proj", IN(attention.o)},
	{LAYER_MOE, "mixer.gate", IN(moe.gate)},
	{LAYER_MOE, "mixer.shared_experts.up_proj", IN(moe.shared_up)},
	{LAYER_MOE, "mixer.shared_experts.down_proj", IN(moe.shared_down)},
	{LAYER_MLP, "mixer.up_proj", IN(mlp.up)},
	{LAYER_MLP, "mixer.down_proj", IN(mlp.down)},
};

static const struct matrix *expert_matrix(const struct moe_slice *moe, const struct place *p,
										  int packed)
{
	if (is_module(p, "up_proj") || is_module(p, "mixer.experts.up_proj"))
		return &moe->up[packed];
	if (is_module(p, "down_proj") || is_module(p, "mixer.experts.down_proj"))
		return &moe->down[packed];
	return NULL;
}

static int packed_expert(const struct moe_slice *moe, int expert)
{
	for (int e = 0; e < moe->n_experts; e++)
		if (moe->expert[e] == expert)
			return e;
	return -1;
}

static const struct matrix *find_matrix(const struct slice *slice, const struct place *p)
{
	if (p->layer < 0) {
		if (is_module(p, "embeddings") || is_module(p, "embedding") || is_module(p, "embed_tokens"))
			return &slice->embeddings;
		return is_module(p, "lm_head") ? &slice->lm_head : NULL;
	}
	const struct layer_slice *layer = &slice->layers[p->layer];
	if (layer->kind == LAYER_MOE && p->fused)
		return expert_matrix(&layer->moe, p, 0);
	if (layer->kind == LAYER_MOE && p->expert >= 0) {
		int packed = packed_expert(&layer->moe, p->expert);
		return packed < 0 ? NULL : expert_matrix(&layer->moe, p, packed);
	}
	for (size_t i = 0; i < sizeof matrices / sizeof *matrices; i++)
		if (matrices[i].kind == layer->kind && is_module(p, matrices[i].module))
			return (const struct matrix *)(const void *)((const char *)layer + matrices[i].at);
	return NULL;
}

/* The part of a matrix' row spans within [from, to), counted from `from`. free(out->spans) */
static int window(struct kept rows, int from, int to, struct span_list *out, struct error *err)
{
	for (int i = 0; i < rows.n; i++) {
		int start = rows.spans[i].start, end = start + rows.spans[i].length;
		start = start > from ? start : from;
		end = end < to ? end : to;
		if (start < end && span_list_add(out, start - from, end - start, err) != 0)
			return -1;
	}
	return 0;
}

static int add_spans(struct kept kept, struct span_list *out, struct error *err)
{
	return window(kept, 0, INT32_MAX, out, err);
}

/* A vector's rows, from the matrix beside it. 1 = found, 0 = no vector of a layer. */
static int vector_rows(struct planning *p, const struct place *at, struct span_list *out)
{
	const struct slice *slice = &p->cuts->slice;
	const struct config *c = slice->config;
	struct kept hidden = {slice->embeddings.columns, slice->embeddings.n_column_spans};
	if (is_module(at, at->layer < 0 ? "norm_f" : "norm"))
		return add_spans(hidden, out, p->err) < 0 ? -1 : 1;
	const struct layer_slice *layer = at->layer < 0 ? NULL : &slice->layers[at->layer];
	if (layer && layer->kind == LAYER_MOE && is_module(at, "mixer.gate")) {
		struct kept experts = {layer->moe.gate.rows, layer->moe.gate.n_row_spans};
		return add_spans(experts, out, p->err) < 0 ? -1 : 1;
	}
	if (!layer || layer->kind != LAYER_MAMBA)
		return 0;
	// rows of in_proj: z (inner) | x B C (the conv's channels) | dt (heads)
	struct kept in = {layer->mamba.in_proj.rows, layer->mamba.in_proj.n_row_spans};
	int inner = config_inner(c), conv = config_conv_channels(c);
	int from, to;
	if (is_module(at, "mixer.norm")) {
		from = 0;
		to = inner;
	} else if (is_module(at, "mixer.conv1d")) {
		from = inner;
		to = inner + conv;
	} else if (is_module(at, "mixer") && at->what[0]) { // A_log, D, dt_bias
		from = inner + conv;
		to = from + c->mamba_num_heads;
	} else {
		return 0;
	}
	return window(in, from, to, out, p->err) < 0 ? -1 : 1;
}

/* ---- one tensor ---- */

/* Copies both lists into one block that cut->rows owns. */
static int set_spans(struct cut *cut, const struct span_list *rows, const struct span_list *columns,
					 struct error *err)
{
	struct span *spans = mem_new(rows->n + columns->n, sizeof *spans, err);
	if (!spans)
		return -1;
	if (rows->n)
		memcpy(spans, rows->spans, rows->n * sizeof *spans);
	if (columns->n)
		memcpy(spans + rows->n, columns->spans, columns->n * sizeof *spans);
	cut->rows = spans;
	cut->n_row_spans = (int)rows->n;
	cut->columns = spans + rows->n;
	cut->n_column_spans = (int)columns->n;
	return 0;
}

static int64_t kept_of(const struct span *spans, int n)
{
	int64_t total = 0;
	for (int i = 0; i < n; i++)
		total += spans[i].length;
	return total;
}

/* Element columns as bytes of the stored row: NVFP4 keeps two in a byte, and a scale for 16. */
static int add_columns(const struct matrix *m, const struct tensor *t, struct span_list *out,
					   struct error *err)
{
	int64_t bytes = (int64_t)dtype_bytes(t->dtype), per = 1;
	if (m->dtype == DTYPE_NVFP4)
		per = t->dtype == DTYPE_U8 ? 2 : NVFP4_BLOCK;
	for (int i = 0; i < m->n_column_spans; i++) {
		int64_t start = m->columns[i].start / per * bytes;
		int64_t length = m->columns[i].length / per * bytes;
		if (start + length > INT32_MAX)
			return fail(err, "a row of %lld bytes is too long", (long long)(start + length));
		if (span_list_add(out, (int)start, (int)length, err) != 0)
			return -1;
	}
	return 0;
}

/* Rows of a fused tensor: those of every kept expert, one after the other. */
static int add_fused_rows(const struct moe_slice *moe, const struct matrix *m, int64_t each,
						  struct span_list *out, struct error *err)
{
	for (int e = 0; e < moe->n_experts; e++)
		for (int i = 0; i < m->n_row_spans; i++) {
			int64_t start = moe->expert[e] * each + m->rows[i].start;
			if (start + m->rows[i].length > INT32_MAX)
				return fail(err, "a fused tensor of more than 2^31 rows");
			if (span_list_add(out, (int)start, m->rows[i].length, err) != 0)
				return -1;
		}
	return 0;
}

/* A tensor of n_dims axes as rows: all axes but the last of a matrix, the first of a vector. */
static void cut_init(struct cut *cut, const struct named_tensor *from, const struct place *at,
					 bool matrix)
{
	const struct tensor *t = &from->tensor;
	*cut = (struct cut){.from = from, .n_rows = 1, .layer = at->layer, .expert = at->expert};
	cut->to.tensor = *t;
	cut->to.tensor.data = NULL;
	int axes = matrix ? t->n_dims - 1 : 1;
	for (int d = 0; d < axes && d < t->n_dims; d++)
		cut->n_rows *= t->shape[d];
	cut->row_bytes = cut->n_rows ? (int64_t)t->bytes / cut->n_rows : 0;
}

static int cut_matrix(struct planning *p, const struct place *at, const struct matrix *m,
					  struct cut *cut)
{
	struct span_list rows = {0}, columns = {0};
	struct tensor *to = &cut->to.tensor;
	const struct layer_slice *layer = at->layer < 0 ? NULL : &p->cuts->slice.layers[at->layer];
	int result;
	if (at->fused && to->n_dims == 3) {
		result = add_fused_rows(&layer->moe, m, to->shape[1], &rows, p->err);
		to->shape[0] = layer->moe.n_experts;
	} else {
		result = add_spans((struct kept){m->rows, m->n_row_spans}, &rows, p->err);
	}
	if (result == 0)
		result = add_columns(m, to, &columns, p->err);
	if (result == 0)
		result = set_spans(cut, &rows, &columns, p->err);
	free(rows.spans);
	free(columns.spans);
	if (result != 0)
		return -1;
	cut->kept_bytes = kept_of(cut->columns, cut->n_column_spans);
	to->shape[to->n_dims - 2] = m->n_rows;
	to->shape[to->n_dims - 1] = cut->kept_bytes / (int64_t)dtype_bytes(to->dtype);
	if (!at->fused && strcmp(at->what, "weight") == 0)
		cut->matrix = m;
	return 0;
}

static int cut_rows(struct planning *p, const struct span_list *kept, struct cut *cut)
{
	struct span_list whole = {0};
	struct tensor *to = &cut->to.tensor;
	if (cut->row_bytes > INT32_MAX)
		return fail(p->err, "tensor \"%s\": a row of %lld bytes is too long", cut->from->name,
					(long long)cut->row_bytes);
	int result = span_list_add(&whole, 0, (int)cut->row_bytes, p->err);
	if (result == 0)
		result = set_spans(cut, kept, &whole, p->err);
	free(whole.spans);
	if (result != 0)
		return -1;
	cut->kept_bytes = cut->row_bytes;
	if (to->n_dims)
		to->shape[0] = kept_of(kept->spans, (int)kept->n);
	return 0;
}

static int cut_vector(struct planning *p, const struct place *at, struct cut *cut)
{
	struct span_list rows = {0};
	int found = vector_rows(p, at, &rows);
	int result = found > 0 ? cut_rows(p, &rows, cut) : found;
	free(rows.spans);
	return result < 0 ? -1 : found;
}

/* A number for a whole matrix (weight_scale, weight_scale_2, input_scale, k_scale, v_scale). */
static int cut_whole(struct planning *p, struct cut *cut)
{
	struct span_list all = {0};
	int result = span_list_add(&all, 0, (int)cut->n_rows, p->err);
	if (result == 0)
		result = cut_rows(p, &all, cut);
	free(all.spans);
	return result;
}

/* 1 = in the child, 0 = not, -1 = error. */
static int make_cut(struct planning *p, const struct named_tensor *from, const struct place *at,
					struct cut *cut)
{
	const struct matrix *m = find_matrix(&p->cuts->slice, at);
	bool scalar = strstr(at->what, "scale") && from->tensor.n_dims < 2;
	bool is_matrix = m && from->tensor.n_dims >= 2;
	cut_init(cut, from, at, is_matrix);
	if (m && scalar)
		return cut_whole(p, cut) == 0 ? 1 : -1;
	if (is_matrix &&
		(strcmp(at->what, "weight") == 0 || strcmp(at->what, "weight_scale") == 0 || at->fused))
		return cut_matrix(p, at, m, cut) == 0 ? 1 : -1;
	return cut_vector(p, at, cut);
}

/* ---- all tensors ---- */

static bool layer_gone(const struct cuts *cuts, const struct place *at)
{
	return at->layer >= 0 && (at->layer >= cuts->n_layers || cuts->layer[at->layer] < 0);
}

static bool expert_gone(const struct cuts *cuts, const struct place *at)
{
	const struct layer_slice *layer = at->layer < 0 ? NULL : &cuts->slice.layers[at->layer];
	return layer && layer->kind == LAYER_MOE && at->expert >= 0 &&
		   packed_expert(&layer->moe, at->expert) < 0;
}

bool cuts_rename(const struct cuts *cuts, const char *name, struct text *out)
{
	struct place at = find_place(name);
	if (at.layer < 0) {
		text_add(out, name);
		return true;
	}
	if (layer_gone(cuts, &at) || expert_gone(cuts, &at))
		return false;
	const char *layers = strstr(name, "layers.");
	text_append(out, name, (size_t)(layers - name));
	text_format(out, "layers.%d", cuts->layer[at.layer]);
	const char *rest = layers + strlen("layers.");
	rest += strspn(rest, "0123456789");
	if (at.expert >= 0 && cuts->slice.layers[at.layer].kind == LAYER_MOE) {
		const char *experts = strstr(rest, "experts.") + strlen("experts.");
		text_append(out, rest, (size_t)(experts - rest));
		text_format(out, "%d", packed_expert(&cuts->slice.layers[at.layer].moe, at.expert));
		rest = experts + strspn(experts, "0123456789");
	}
	text_add(out, rest);
	return true;
}

static int add_tensor(struct planning *p, const struct named_tensor *from)
{
	struct cuts *cuts = p->cuts;
	struct place at = find_place(from->name);
	if (at.layer < cuts->n_layers && (layer_gone(cuts, &at) || expert_gone(cuts, &at)))
		return 0;
	struct cut cut = {0};
	int kept = at.layer >= cuts->n_layers ? 0 : make_cut(p, from, &at, &cut);
	if (kept < 0)
		return fail_in(p->err, "tensor \"%s\"", from->name);
	if (kept == 0) {
		if (cuts->n_left_out++ == 0)
			cuts->first_left_out = from->name;
		return 0;
	}
	cut.to.tensor.bytes = (uint64_t)(kept_of(cut.rows, cut.n_row_spans) * cut.kept_bytes);
	cut.to.name = (const char *)(uintptr_t)cuts->names.length; // an offset until all are known
	if (mem_grow(&cuts->list, &p->capacity, cuts->n + 1, sizeof cut, p->err) != 0) {
		free((void *)(uintptr_t)cut.rows);
		return -1;
	}
	cuts->list[cuts->n++] = cut;
	cuts_rename(cuts, from->name, &cuts->names);
	text_append(&cuts->names, "", 1);
	return text_check(&cuts->names, p->err);
}

static int number_layers(struct cuts *cuts, struct error *err)
{
	cuts->n_layers = cuts->model->config.n_layers;
	cuts->layer = mem_new((size_t)cuts->n_layers, sizeof *cuts->layer, err);
	for (int i = 0, n = 0; cuts->layer && i < cuts->n_layers; i++)
		cuts->layer[i] = cuts->slice.layers[i].keep ? n++ : -1;
	return cuts->layer ? 0 : -1;
}

static int plan_all(struct planning *p)
{
	struct cuts *cuts = p->cuts;
	const struct checkpoint *checkpoint = &cuts->model->checkpoint;
	if (number_layers(cuts, p->err) != 0)
		return -1;
	for (size_t i = 0; i < checkpoint->n_tensors; i++)
		if (add_tensor(p, &checkpoint->tensors[i]) != 0)
			return -1;
	cuts->to = mem_new(cuts->n, sizeof *cuts->to, p->err);
	if (!cuts->to)
		return -1;
	for (size_t i = 0; i < cuts->n; i++) {
		struct cut *cut = &cuts->list[i];
		cut->to.name = cuts->names.data + (size_t)(uintptr_t)cut->to.name;
		cuts->to[i] = cut->to;
	}
	return 0;
}

int cuts_plan(struct cuts *cuts, const struct model *model, const struct budget *budget,
			  struct error *err)
{
	*cuts = (struct cuts){.model = model};
	struct planning p = {.cuts = cuts, .err = err};
	if (slice_build(&cuts->slice, &model->weights, &model->config, budget, NULL, NULL, err) != 0)
		return -1;
	int result = plan_all(&p);
	if (result != 0)
		cuts_free(cuts);
	return result;
}

void cuts_free(struct cuts *cuts)
{
	for (size_t i = 0; i < cuts->n; i++)
		free((void *)(uintptr_t)cuts->list[i].rows);
	free(cuts->list);
	free(cuts->to);
	free(cuts->layer);
	text_free(&cuts->names);
	slice_free(&cuts->slice);
	*cuts = (struct cuts){0};
}

/* ---- bytes ---- */

size_t cut_read(struct cut_reader *reader, void *out, size_t size)
{
	const struct cut *cut = reader->cut;
	const char *data = cut->from->tensor.data;
	char *to = out;
	bool whole = cut->kept_bytes == cut->row_bytes; // then rows lie side by side
	while (reader->span < cut->n_row_spans && cut->kept_bytes && size >= (size_t)cut->kept_bytes) {
		const struct span *span = &cut->rows[reader->span];
		int64_t fit = (int64_t)size / cut->kept_bytes, left = span->length - reader->row;
		int64_t rows = !whole ? 1 : fit < left ? fit : left;
		const char *row = data + (span->start + reader->row) * cut->row_bytes;
		for (int i = 0; i < cut->n_column_spans; i++) {
			size_t n = whole ? (size_t)(rows * cut->row_bytes) : (size_t)cut->columns[i].length;
			memcpy(to, row + cut->columns[i].start, n);
			to += n;
			size -= n;
		}
		reader->row += rows;
		if (reader->row == span->length) {
			reader->span++;
			reader->row = 0;
		}
	}
	return (size_t)(to - (char *)out);
}

int64_t cut_row(const struct cut *cut, int64_t row)
{
	for (int i = 0; i < cut->n_row_spans; i++) {
		if (row < cut->rows[i].length)
			return cut->rows[i].start + row;
		row -= cut->rows[i].length;
	}
	return -1;
}

int64_t cut_byte(const struct cut *cut, int64_t at)
{
	for (int i = 0; i < cut->n_column_spans; i++) {
		if (at < cut->columns[i].length)
			return cut->columns[i].start + at;
		at -= cut->columns[i].length;
	}
	return -1;
}

int64_t cut_difference(const struct cut *cut, const char *parent, const char *child)
{
	int64_t at = 0;
	for (int i = 0; i < cut->n_column_spans; i++) {
		const char *from = parent + cut->columns[i].start;
		size_t n = (size_t)cut->columns[i].length;
		if (memcmp(from, child + at, n) != 0)
			for (size_t b = 0; b < n; b++)
				if (from[b] != child[at + (int64_t)b])
					return at + (int64_t)b;
		at += (int64_t)n;
	}
	return -1;
}
