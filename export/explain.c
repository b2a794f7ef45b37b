#include "export/explain.h"

#include "base/memory.h"
#include "core/quantised.h"
#include "export/explain_value.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *cause_name(enum cause cause)
{
	static const char *const names[N_CAUSES] = {
		"config",     "missing",      "extra",     "dtype",        "width",
		"other-axis", "global-heads", "other-end", "other-expert", "shifted",
		"permuted",   "mixed",        "scaled",    "rows-scaled",  "numbers"};
	return (unsigned)cause < N_CAUSES ? names[cause] : "?";
}

/* Numbers of layers and experts become *. */
static void kind_of(const char *name, char *out, size_t size)
{
	size_t n = 0;
	for (const char *at = name; *at && n + 2 < size;) {
		size_t digits = at > name && at[-1] == '.' ? strspn(at, "0123456789") : 0;
		if (digits && (at[digits] == '.' || !at[digits])) {
			out[n++] = '*';
			at += digits;
		} else {
			out[n++] = *at++;
		}
	}
	out[n] = '\0';
}

/* One width of a shape is off, or both are those of the other axis. */
static void explain_shape(struct explanation *e, const struct verify *v, const struct difference *d)
{
	const struct tensor *to = &d->cut->to.tensor, *found = checkpoint_find(&v->child, d->name);
	const struct tensor *stored = &d->cut->from->tensor;
	char a[96], b[96];
	shape_text(a, sizeof a, found->shape, found->n_dims);
	shape_text(b, sizeof b, to->shape, to->n_dims);
	e->cause = CAUSE_WIDTH;
	if (found->n_dims != to->n_dims) {
		snprintf(e->sentence, sizeof e->sentence, "is %s, expected %s", a, b);
		return;
	}
	int off = 0, last = 0;
	for (int i = 0; i < to->n_dims; i++)
		if (found->shape[i] != to->shape[i]) {
			off++;
			last = i;
		}
	long long by = (long long)(found->shape[last] - to->shape[last]);
	if (off == 2 && to->n_dims == 2 &&
		((found->shape[0] == stored->shape[0] && to->shape[1] == stored->shape[1]) ||
		 (found->shape[1] == stored->shape[1] && to->shape[0] == stored->shape[0]) ||
		 (found->shape[0] == to->shape[1] && found->shape[1] == to->shape[0]))) {
		e->cause = CAUSE_OTHER_AXIS;
		snprintf(e->sentence, sizeof e->sentence, "is %s, expected %s: cut along the other axis", a,
				 b);
	} else {
		snprintf(e->sentence, sizeof e->sentence, "is %s, expected %s: %s %lld too %s", a, b,
				 to->n_dims < 2 ? "elements"
				 : last == 0    ? "rows"
								: "columns",
				 by < 0 ? -by : by, by < 0 ? "few" : "many");
	}
}

static int explain_one(struct explanation *e, struct suspects *suspects, const struct difference *d,
					   struct error *err)
{
	*e = (struct explanation){.n = 1};
	kind_of(d->name, e->kind, sizeof e->kind);
	snprintf(e->first, sizeof e->first, "%s", d->name);
	const char *colon = strstr(d->sentence, d->kind == DIFFERENCE_CONFIG ? ": " : "\" ");
	snprintf(e->sentence, sizeof e->sentence, "%.310s", colon ? colon + 2 : d->sentence);
	switch (d->kind) {
	case DIFFERENCE_CONFIG: e->cause = CAUSE_CONFIG; return 0;
	case DIFFERENCE_MISSING: e->cause = CAUSE_MISSING; return 0;
	case DIFFERENCE_EXTRA: e->cause = CAUSE_EXTRA; return 0;
	case DIFFERENCE_DTYPE: e->cause = CAUSE_DTYPE; return 0;
	case DIFFERENCE_SHAPE: explain_shape(e, suspects->verify, d); return 0;
	case DIFFERENCE_VALUE: break;
	}
	return explain_value(e, suspects, d, err);
}

static struct explanation *find_alike(struct explanations *list, const struct explanation *e)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->list[i].cause == e->cause && strcmp(list->list[i].kind, e->kind) == 0)
			return &list->list[i];
	return NULL;
}

int explain(struct explanations *out, const struct verify *verify, struct error *err)
{
	struct suspects suspects;
	*out = (struct explanations){0};
	if (suspects_open(&suspects, verify, err) != 0)
		return -1;
	int result = 0;
	for (size_t i = 0; i < verify->n_differences && result == 0; i++) {
		struct explanation e;
		result = explain_one(&e, &suspects, &verify->differences[i], err);
		struct explanation *alike = result == 0 ? find_alike(out, &e) : NULL;
		if (alike)
			alike->n++;
		else if (result == 0)
			result = mem_grow(&out->list, &out->capacity, out->n + 1, sizeof e, err);
		if (result == 0 && !alike)
			out->list[out->n++] = e;
	}
	suspects_close(&suspects);
	if (result != 0)
		explanations_free(out);
	return result;
}

void explanations_free(struct explanations *explanations)
{
	free(explanations->list);
	*explanations = (struct explanations){0};
}
