#include "export/verify.h"

#include "base/memory.h"
#include "core/quantised.h"
#include "export/child_config.h"
#include "export/hull.h"
#include "export/verify_budget.h"
#include "kernels/convert.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES ((uint64_t)4 << 20) // between steps

struct running {
	struct verify *v;
	uint8_t *seen; // (n_tensors of the child)
	uint64_t done, total, since, child_since;
	int (*step)(void *user, uint64_t done, uint64_t total);
	void *user;
	struct error *err;
};

bool cut_has_codes(const struct cut *cut)
{
	return cut->matrix && cut->matrix->dtype == DTYPE_NVFP4 && cut->from->tensor.dtype == DTYPE_U8;
}

double stored_number(enum dtype dtype, bool codes, const void *bytes, int64_t i)
{
	const uint8_t *byte = bytes;
	float wide;
	int32_t small;
	int64_t large;
	if (codes)
		return (double)e2m1_values[i % 2 ? byte[i / 2] >> 4 : byte[i / 2] & 15];
	const void *at = byte + i * (int64_t)dtype_bytes(dtype);
	switch (dtype) {
	case DTYPE_F8_E4M3: return (double)e4m3_values[byte[i]];
	case DTYPE_U8: return byte[i];
	case DTYPE_I32: memcpy(&small, at, sizeof small); return small;
	case DTYPE_I64: memcpy(&large, at, sizeof large); return (double)large;
	default: return convert_to_f32(at, dtype, 1, &wide) ? (double)wide : 0;
	}
}

/* NULL without memory. */
static struct difference *add(struct running *r, enum difference_kind kind, const char *name)
{
	struct verify *v = r->v;
	if (mem_grow(&v->differences, &v->capacity, v->n_differences + 1, sizeof *v->differences,
				 r->err) != 0)
		return NULL;
	struct difference *d = &v->differences[v->n_differences++];
	*d = (struct difference){.kind = kind};
	snprintf(d->name, sizeof d->name, "%.150s", name);
	return d;
}

/* ---- config.json ---- */

static int check_key(struct running *r, const char *key, int expected, int found)
{
	if (expected == found)
		return 0;
	struct difference *d = add(r, DIFFERENCE_CONFIG, key);
	if (!d)
		return -1;
	d->parent = expected;
	d->child = found;
	snprintf(d->sentence, sizeof d->sentence, "config.json: %s is %d, budget %.100s has %d (%d %s)",
			 key, found, r->v->budget.name, expected, abs(found - expected),
			 found > expected ? "more" : "less");
	return 0;
}

static int check_layers(struct running *r)
{
	const struct verify *v = r->v;
	char expected[CONFIG_MAX_LAYERS + 1] = "", found[CONFIG_MAX_LAYERS + 1] = "";
	int n = 0;
	for (int i = 0; i < v->cuts.n_layers; i++)
		if (v->cuts.layer[i] >= 0)
			expected[n++] = layer_letter(v->parent->config.kinds[i]);
	for (int i = 0; i < v->config.n_layers; i++)
		found[i] = layer_letter(v->config.kinds[i]);
	if (strcmp(expected, found) == 0)
		return 0;
	struct difference *d = add(r, DIFFERENCE_CONFIG, "hybrid_override_pattern");
	if (!d)
		return -1;
	d->parent = n;
	d->child = v->config.n_layers;
	snprintf(d->sentence, sizeof d->sentence,
			 "config.json: the layers are %.120s, budget %.60s has %.120s", found, v->budget.name,
			 expected);
	return 0;
}

static int check_config(struct running *r)
{
	const struct verify *v = r->v;
	const struct config *p = &v->parent->config, *c = &v->config;
	for (int axis = 0; axis < N_AXES; axis++)
		if (axis_in_model(axis, c) &&
			check_key(r, axis_name(axis), child_config_width(v->parent, &v->budget, axis),
					  axis_parent_width(axis, c)) != 0)
			return -1;
	const struct {
		const char *key;
		int expected, found;
	} rows[] = {
		{"num_experts_per_tok", p->n_routed_experts ? v->budget.top_k : 0,
		 p->n_routed_experts ? c->num_experts_per_tok : 0},
		{"vocab_size", p->vocab_size, c->vocab_size},
		{"ssm_state_size", p->ssm_state_size, c->ssm_state_size},
		{"n_groups", p->n_groups, c->n_groups},
		{"conv_kernel", p->conv_kernel, c->conv_kernel},
		{"head_dim", p->head_dim, c->head_dim},
		{"num_key_value_heads", p->num_key_value_heads, c->num_key_value_heads},
		{"tie_word_embeddings", p->tie_word_embeddings, c->tie_word_embeddings},
		{"norm_topk_prob", p->norm_topk_prob, c->norm_topk_prob},
	};
	for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
		if (check_key(r, rows[i].key, rows[i].expected, rows[i].found) != 0)
			return -1;
	return check_layers(r);
}

/* ---- tensors ---- */

static bool is_quantised(enum dtype dtype)
{
	return dtype == DTYPE_F8_E4M3 || dtype == DTYPE_NVFP4;
}

static int differs_in_form(struct running *r, const struct cut *cut, const struct tensor *found,
						   enum difference_kind kind)
{
	char a[96], b[96];
	const struct tensor *to = &cut->to.tensor;
	struct difference *d = add(r, kind, cut->to.name);
	if (!d)
		return -1;
	d->cut = cut;
	shape_text(a, sizeof a, to->shape, to->n_dims);
	if (kind == DIFFERENCE_MISSING) {
		snprintf(d->sentence, sizeof d->sentence, "tensor \"%s\" is missing, expected %s %s",
				 d->name, dtype_name(to->dtype), a);
		return 0;
	}
	shape_text(b, sizeof b, found->shape, found->n_dims);
	snprintf(d->sentence, sizeof d->sentence, "tensor \"%s\" is %s %s, expected %s %s", d->name,
			 dtype_name(found->dtype), b, dtype_name(to->dtype), a);
	bool quantised = found->dtype == DTYPE_F8_E4M3 || found->dtype == DTYPE_U8;
	if (kind == DIFFERENCE_DTYPE && quantised && cut->matrix && !is_quantised(cut->matrix->dtype)) {
		size_t n = strlen(d->sentence);
		snprintf(d->sentence + n, sizeof d->sentence - n,
				 ": a quantised child is a slice of the quantised parent (quantize), verify it "
				 "against that");
	}
	return 0;
}

static int differs_in_value(struct running *r, const struct cut *cut, const struct tensor *found,
							int64_t row, int64_t byte)
{
	bool codes = cut_has_codes(cut);
	enum dtype dtype = found->dtype;
	int64_t width = (int64_t)dtype_bytes(dtype), at = byte / width;
	const char *parent = (const char *)cut->from->tensor.data + cut_row(cut, row) * cut->row_bytes;
	const char *child = (const char *)found->data + row * cut->kept_bytes;
	int64_t stored = cut_byte(cut, at * width) / width;
	struct difference *d = add(r, DIFFERENCE_VALUE, cut->to.name);
	if (!d)
		return -1;
	if (codes) {
		at *= 2;
		stored *= 2;
		if (stored_number(dtype, true, parent, stored) == stored_number(dtype, true, child, at)) {
			at++;
			stored++;
		}
	}
	d->cut = cut;
	d->row = row;
	d->column = at;
	d->parent = stored_number(dtype, codes, parent, stored);
	d->child = stored_number(dtype, codes, child, at);
	if (found->n_dims < 2)
		snprintf(d->sentence, sizeof d->sentence,
				 "tensor \"%s\", element %lld is %.9g, the parent's %lld is %.9g", d->name,
				 (long long)row, d->child, (long long)cut_row(cut, row), d->parent);
	else
		snprintf(d->sentence, sizeof d->sentence,
				 "tensor \"%s\", row %lld, column %lld is %.9g, the parent's (%lld, %lld) is %.9g",
				 d->name, (long long)row, (long long)at, d->child, (long long)cut_row(cut, row),
				 (long long)stored, d->parent);
	return 0;
}

static int step(struct running *r, const struct cut *cut, uint64_t bytes)
{
	r->done += bytes;
	if (cut->kept_bytes) // the parent's rows are touched whole
		checkpoint_forget(&r->v->parent->checkpoint, &r->since,
						  bytes / (uint64_t)cut->kept_bytes * (uint64_t)cut->row_bytes);
	checkpoint_forget(&r->v->child, &r->child_since, bytes);
	if (r->step && r->step(r->user, r->done, r->total) != 0)
		return fail(r->err, "stopped");
	return 0;
}

/* Row by row; pages behind are let go. 1 = equal, 0 = not, -1 = stopped. */
static int compare(struct running *r, const struct cut *cut, const struct tensor *found)
{
	const char *data = cut->from->tensor.data, *child = found->data;
	uint64_t since = 0;
	int64_t row = 0;
	for (int s = 0; s < cut->n_row_spans; s++)
		for (int64_t i = cut->rows[s].start; i < cut->rows[s].start + cut->rows[s].length; i++) {
			const char *from = data + i * cut->row_bytes;
			int64_t byte = cut_difference(cut, from, child);
			if (byte >= 0)
				return differs_in_value(r, cut, found, row, byte) == 0 ? 0 : -1;
			child += cut->kept_bytes;
			row++;
			since += (uint64_t)cut->kept_bytes;
			if (since < CHUNK_BYTES)
				continue;
			if (step(r, cut, since) != 0)
				return -1;
			since = 0;
		}
	return step(r, cut, since) == 0 ? 1 : -1;
}

static int check_tensor(struct running *r, const struct cut *cut)
{
	struct verify *v = r->v;
	const struct tensor *to = &cut->to.tensor;
	const struct tensor *found = tensor_take(&v->child, r->seen, cut->to.name);
	if (!found)
		return differs_in_form(r, cut, NULL, DIFFERENCE_MISSING);
	if (found->dtype != to->dtype)
		return differs_in_form(r, cut, found, DIFFERENCE_DTYPE);
	if (found->n_dims != to->n_dims ||
		memcmp(found->shape, to->shape, (size_t)to->n_dims * sizeof *to->shape) != 0)
		return differs_in_form(r, cut, found, DIFFERENCE_SHAPE);
	int same = compare(r, cut, found);
	v->n_equal += same > 0;
	v->bytes += to->bytes;
	return same < 0 ? -1 : 0;
}

static int check_extra(struct running *r)
{
	const struct checkpoint *child = &r->v->child;
	for (size_t i = 0; i < child->n_tensors; i++) {
		if (r->seen[i])
			continue;
		struct difference *d = add(r, DIFFERENCE_EXTRA, child->tensors[i].name);
		if (!d)
			return -1;
		snprintf(d->sentence, sizeof d->sentence, "tensor \"%s\" is not one of the budget's",
				 d->name);
	}
	return 0;
}

/* ---- all of it ---- */

int verify_open(struct verify *verify, const struct model *parent, const char *child,
				const char *budget, struct error *err)
{
	*verify = (struct verify){.parent = parent, .named = true};
	int result = config_read(&verify->config, child, err);
	if (result == 0)
		result = checkpoint_open(&verify->child, child, err);
	if (result == 0 && budget)
		result = model_budget(parent, budget, &verify->budget, err);
	else if (result == 0)
		result = verify_find_budget(&verify->budget, &verify->named, parent, &verify->child,
									&verify->config, err);
	// layers of different width are stored at their widest
	struct budget hull = {0};
	if (result == 0)
		result = hull_make(parent, &verify->budget, &hull, err);
	if (result == 0) {
		budget_free(&verify->budget);
		verify->budget = hull;
		result = cuts_plan(&verify->cuts, parent, &verify->budget, err);
	}
	if (result != 0)
		verify_close(verify);
	return result;
}

int verify_run(struct verify *verify, int (*step_of)(void *user, uint64_t done, uint64_t total),
			   void *user, struct error *err)
{
	struct running r = {.v = verify, .step = step_of, .user = user, .err = err};
	r.seen = mem_new(verify->child.n_tensors, 1, err);
	int result = r.seen ? check_config(&r) : -1;
	for (size_t i = 0; i < verify->cuts.n; i++)
		r.total += verify->cuts.list[i].to.tensor.bytes;
	for (size_t i = 0; i < verify->cuts.n && result == 0; i++)
		result = check_tensor(&r, &verify->cuts.list[i]);
	if (result == 0)
		result = check_extra(&r);
	free(r.seen);
	return result;
}

void verify_close(struct verify *verify)
{
	cuts_free(&verify->cuts);
	budget_free(&verify->budget);
	checkpoint_close(&verify->child);
	free(verify->differences);
	*verify = (struct verify){0};
}
