/* What makes one budget of another, as text, and short names for texts that are long. */
#include "core/budget.h"

#include "base/hash.h"
#include "base/memory.h"
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- terms ---- */

static bool same_runs(const struct budget_runs *a, const struct budget_runs *b)
{
	bool same = a->n_spans == b->n_spans;
	for (int i = 0; same && i < a->n_spans; i++)
		same = a->spans[i].start == b->spans[i].start && a->spans[i].length == b->spans[i].length;
	return same;
}

bool budget_same(const struct budget *a, const struct budget *b, enum axis axis, int layer)
{
	const struct budget_runs *of_a = budget_runs_of(a, axis, layer),
							 *of_b = budget_runs_of(b, axis, layer);
	if (of_a || of_b)
		return of_a && of_b && same_runs(of_a, of_b);
	return budget_width(a, axis, layer) == budget_width(b, axis, layer);
}

static void separate(struct text *out, size_t start)
{
	if (out->length > start)
		text_add_char(out, ',');
}

void budget_term(const struct budget *budget, enum axis axis, int layer, struct text *out)
{
	const struct budget_runs *runs = budget_runs_of(budget, axis, layer < 0 ? 0 : layer);
	if (layer >= 0)
		text_format(out, "%d.", layer);
	text_format(out, "%s=", axis_name(axis));
	for (int i = 0; runs && i < runs->n_spans; i++) {
		text_format(out, "%s%d-%d", i ? "+" : "", runs->spans[i].start,
					runs->spans[i].start + runs->spans[i].length);
	}
	if (!runs)
		text_format(out, "%d", budget_width(budget, axis, layer < 0 ? 0 : layer));
}

static void add_axis(const struct budget *budget, const struct budget *base,
					 const struct config *config, enum axis axis, struct text *out, size_t start)
{
	int differing = 0;
	for (int i = 0; i < config->n_layers; i++)
		differing += axis_on_layer(axis, config->kinds[i]) && !budget_same(budget, base, axis, i);
	if (!differing)
		return;
	if (axis == AXIS_HIDDEN || (!budget->layer_width[axis] && !budget_has_runs(budget, axis))) {
		separate(out, start);
		budget_term(budget, axis, -1, out);
		return;
	}
	for (int i = 0; i < config->n_layers; i++) {
		if (!axis_on_layer(axis, config->kinds[i]) || budget_same(budget, base, axis, i))
			continue;
		separate(out, start);
		budget_term(budget, axis, i, out);
	}
}

/* Layers that `of` keeps and `other` leaves out, under a key. */
static void add_layers(const struct budget *of, const struct budget *other, const char *key,
					   struct text *out, size_t start)
{
	bool first = true;
	for (int i = 0; i < of->n_layers; i++) {
		if (!budget_keeps_layer(of, i) || budget_keeps_layer(other, i))
			continue;
		if (first) {
			separate(out, start);
			text_format(out, "%s=%d", key, i);
		} else {
			text_format(out, "+%d", i);
		}
		first = false;
	}
}

static void force_text(const struct budget *budget, int layer, struct text *out)
{
	bool first = true;
	text_clear(out);
	for (int i = 0; i < budget->n_forced; i++) {
		if (budget->forced[i].layer != layer)
			continue;
		text_format(out, "%s%d", first ? "" : "+", budget->forced[i].expert);
		first = false;
	}
	if (first)
		text_add(out, "none");
}

static void add_forced(const struct budget *budget, const struct budget *base, struct text *out,
					   size_t start)
{
	struct text of = {0}, before = {0};
	for (int i = 0; i < budget->n_layers && (budget->n_forced || base->n_forced); i++) {
		force_text(budget, i, &of);
		force_text(base, i, &before);
		if (strcmp(text_chars(&of), text_chars(&before)) == 0)
			continue;
		separate(out, start);
		text_format(out, "%d.force=%s", i, text_chars(&of));
	}
	text_free(&of);
	text_free(&before);
}

void budget_terms(const struct budget *budget, const struct budget *base,
				  const struct config *config, struct text *out)
{
	size_t start = out->length;
	if (budget->heads != base->heads) // first: what a width of heads keeps depends on it
		text_format(out, "heads=%s", heads_rule_name(budget->heads));
	for (int axis = 0; axis < N_AXES; axis++)
		if (axis_in_model(axis, config))
			add_axis(budget, base, config, axis, out, start);
	if (budget->top_k != base->top_k) {
		separate(out, start);
		text_format(out, "num_experts_per_tok=%d", budget->top_k);
	}
	add_layers(base, budget, "skip", out, start);
	add_layers(budget, base, "keep", out, start);
	add_forced(budget, base, out, start);
	if (budget->norm != base->norm) {
		separate(out, start);
		text_format(out, "norm=%s", norm_rule_name(budget->norm));
	}
}

/* ---- names ---- */

/* Content-addressed: a name is made of its text, so it means the same everywhere and never
 * changes; requests, logs and jobs carry the name, whoever builds the budget asks for the text. */
static struct {
	pthread_mutex_t mutex;
	char **texts;
	size_t n, capacity;
} long_names = {.mutex = PTHREAD_MUTEX_INITIALIZER};

static void short_name(const char *text, char out[BUDGET_NAME_BYTES])
{
	size_t base = strcspn(text, ",=~"), length = strlen(text);
	if (text[base] != ',')
		base = 0;
	snprintf(out, BUDGET_NAME_BYTES, "%.*s~%08x", base < 64 ? (int)base : 64, text,
			 (unsigned)(hash_bytes(text, length) & 0xffffffffu));
}

const char *budget_name_text(const char *name)
{
	const char *found = name;
	if (!strchr(name, '~'))
		return name;
	pthread_mutex_lock(&long_names.mutex);
	for (size_t i = 0; i < long_names.n && found == name; i++) {
		char of[BUDGET_NAME_BYTES];
		short_name(long_names.texts[i], of);
		if (strcmp(of, name) == 0)
			found = long_names.texts[i];
	}
	pthread_mutex_unlock(&long_names.mutex);
	return found;
}

int budget_name_of(char out[BUDGET_NAME_BYTES], const char *text, struct error *err)
{
	size_t length = strlen(text);
	if (length < BUDGET_NAME_BYTES) {
		memcpy(out, text, length + 1);
		return 0;
	}
	short_name(text, out);
	const char *known = budget_name_text(out);
	if (known != out) {
		return strcmp(known, text) == 0
				   ? 0
				   : fail(err, "%s already stands for another mask: change one of them", out);
	}
	char *copy = mem_string(text, length, err);
	pthread_mutex_lock(&long_names.mutex);
	int status = !copy ? -1
					   : mem_grow(&long_names.texts, &long_names.capacity, long_names.n + 1,
								  sizeof *long_names.texts, err);
	if (status == 0)
		long_names.texts[long_names.n++] = copy;
	else
		free(copy);
	pthread_mutex_unlock(&long_names.mutex);
	return status;
}
