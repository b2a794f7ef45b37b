#include "core/mask.h"

#include "base/memory.h"
#include <stdlib.h>
#include <string.h>

/* ---- units ---- */

const char *mask_kind_name(int kind)
{
	static const char *const names[] = {"heads", "norm", "num_experts_per_tok", "skip", "force"};
	return kind < N_AXES ? axis_name((enum axis)kind) : names[kind - N_AXES];
}

void mask_units_free(struct mask_units *units)
{
	for (int i = 0; i < units->n; i++)
		free(units->units[i].term);
	free(units->units);
	*units = (struct mask_units){0};
}

/* Takes the term over. */
static int add_unit(struct mask_units *out, int layer, int kind, struct text *term,
					struct error *err)
{
	if (text_check(term, err) < 0 ||
		mem_grow(&out->units, &out->capacity, (size_t)out->n + 1, sizeof *out->units, err) < 0) {
		text_free(term);
		return -1;
	}
	out->units[out->n++] = (struct mask_unit){layer, kind, text_take(term)};
	return 0;
}

static void forced_on(const struct budget *budget, int layer, struct text *out)
{
	size_t start = out->length;
	for (int i = 0; i < budget->n_forced; i++)
		if (budget->forced[i].layer == layer)
			text_format(out, "%s%d", out->length > start ? "+" : "", budget->forced[i].expert);
	if (out->length == start)
		text_add(out, "none");
}

static int whole_units(const struct budget *from, const struct budget *to, struct mask_units *out,
					   struct error *err)
{
	struct text term = {0};
	if (from->heads != to->heads) {
		text_format(&term, "heads=%s", heads_rule_name(to->heads));
		if (add_unit(out, -1, MASK_HEADS, &term, err) < 0)
			return -1;
	}
	if (from->norm != to->norm) {
		text_format(&term, "norm=%s", norm_rule_name(to->norm));
		if (add_unit(out, -1, MASK_NORM, &term, err) < 0)
			return -1;
	}
	if (!budget_same(from, to, AXIS_HIDDEN, 0)) {
		budget_term(to, AXIS_HIDDEN, -1, &term);
		if (add_unit(out, -1, AXIS_HIDDEN, &term, err) < 0)
			return -1;
	}
	if (from->top_k != to->top_k) {
		text_format(&term, "num_experts_per_tok=%d", to->top_k);
		if (add_unit(out, -1, MASK_TOP_K, &term, err) < 0)
			return -1;
	}
	return 0;
}

static int layer_units(const struct budget *from, const struct budget *to,
					   const struct config *config, int layer, struct mask_units *out,
					   struct error *err)
{
	struct text term = {0}, of = {0}, before = {0};
	bool keep = budget_keeps_layer(to, layer);
	if (keep != budget_keeps_layer(from, layer)) {
		text_format(&term, "%s=%d", keep ? "keep" : "skip", layer);
		if (add_unit(out, layer, MASK_LAYER, &term, err) < 0)
			return -1;
	}
	for (int axis = AXIS_HIDDEN + 1; axis < N_AXES; axis++) {
		if (!axis_on_layer(axis, config->kinds[layer]) || budget_same(from, to, axis, layer))
			continue;
		budget_term(to, axis, layer, &term);
		if (add_unit(out, layer, axis, &term, err) < 0)
			return -1;
	}
	forced_on(to, layer, &of);
	forced_on(from, layer, &before);
	int status = 0;
	if (strcmp(text_chars(&of), text_chars(&before)) != 0) {
		text_format(&term, "%d.force=%s", layer, text_chars(&of));
		status = add_unit(out, layer, MASK_FORCED, &term, err);
	}
	text_free(&of);
	text_free(&before);
	return status;
}

int mask_units(const struct budget *from, const struct budget *to, const struct config *config,
			   struct mask_units *out, struct error *err)
{
	*out = (struct mask_units){0};
	int status = whole_units(from, to, out, err);
	for (int i = 0; i < config->n_layers && status == 0; i++)
		status = layer_units(from, to, config, i, out, err);
	if (status < 0)
		mask_units_free(out);
	return status;
}

/* ---- edits ---- */

int mask_open(struct mask *mask, const struct budget *base, struct error *err)
{
	*mask = (struct mask){0};
	if (budget_copy(&mask->base, base, err) < 0 || budget_copy(&mask->now, base, err) < 0) {
		mask_close(mask);
		return -1;
	}
	return 0;
}

static void forget(struct mask *mask, int from)
{
	for (int i = from; i < mask->n_edits; i++) {
		free(mask->edits[i].said);
		free(mask->edits[i].terms);
	}
	mask->n_edits = from < mask->n_edits ? from : mask->n_edits;
}

void mask_close(struct mask *mask)
{
	forget(mask, 0);
	free(mask->edits);
	budget_free(&mask->base);
	budget_free(&mask->now);
	*mask = (struct mask){0};
}

static int add_edit(struct mask *mask, const struct config *config, const char *said,
					const char *terms, struct error *err)
{
	struct mask_edit edit = {.said = mem_string(said, strlen(said), err),
							 .terms = mem_string(terms, strlen(terms), err)};
	if (!edit.said || !edit.terms ||
		mem_grow(&mask->edits, &mask->capacity, (size_t)mask->n_done + 1, sizeof *mask->edits,
				 err) < 0 ||
		budget_edit(&mask->now, config, terms, err) < 0) {
		free(edit.said);
		free(edit.terms);
		return -1;
	}
	forget(mask, mask->n_done);
	mask->edits[mask->n_done++] = edit;
	mask->n_edits = mask->n_done;
	mask->before = false;
	return 0;
}

int mask_edit(struct mask *mask, const struct config *config, const char *terms, struct error *err)
{
	return add_edit(mask, config, terms, terms, err);
}

/* One edit that leads from `now` to `wanted`. */
static int lead_to(struct mask *mask, const struct config *config, const struct budget *wanted,
				   const char *said, struct error *err)
{
	struct text terms = {0};
	budget_terms(wanted, &mask->now, config, &terms);
	int status = text_check(&terms, err);
	if (status == 0 && terms.length == 0)
		status = fail(err, "%s: the mask is that already", said);
	if (status == 0)
		status = add_edit(mask, config, said, text_chars(&terms), err);
	text_free(&terms);
	return status;
}

/* The parent with the mask's units that are (not) about this layer and kind. */
static int only(struct mask *mask, const struct config *config, const struct budget *parent,
				struct mask_unit about, bool solo, struct error *err)
{
	struct mask_units units;
	struct budget wanted;
	struct text terms = {0}, said = {0};
	int found = 0, status;
	if (mask_units(parent, &mask->now, config, &units, err) < 0)
		return -1;
	for (int i = 0; i < units.n; i++) {
		const struct mask_unit *unit = &units.units[i];
		bool is_it = unit->layer == about.layer && unit->kind == about.kind;
		found += is_it;
		if (is_it == solo)
			text_format(&terms, "%s%s", terms.length ? "," : "", unit->term);
	}
	text_add(&said, solo ? "solo" : "all-but");
	if (about.layer >= 0)
		text_format(&said, " %d", about.layer);
	text_format(&said, " %s", mask_kind_name(about.kind));
	status = budget_copy(&wanted, parent, err);
	if (status == 0 && !found)
		status = fail(err, "%s: the mask keeps all of that, there is nothing to take apart",
					  text_chars(&said));
	if (status == 0 && terms.length)
		status = budget_edit(&wanted, config, text_chars(&terms), err);
	if (status == 0)
		status = lead_to(mask, config, &wanted, text_chars(&said), err);
	if (status == 0)
		mask->edits[mask->n_done - 1].apart = true;
	budget_free(&wanted);
	mask_units_free(&units);
	text_free(&terms);
	text_free(&said);
	return status;
}

int mask_solo(struct mask *mask, const struct config *config, const struct budget *parent,
			  int layer, int kind, struct error *err)
{
	return only(mask, config, parent, (struct mask_unit){layer, kind, NULL}, true, err);
}

int mask_all_but(struct mask *mask, const struct config *config, const struct budget *parent,
				 int layer, int kind, struct error *err)
{
	return only(mask, config, parent, (struct mask_unit){layer, kind, NULL}, false, err);
}

const struct budget *mask_baseline(const struct mask *mask, const struct budget *parent)
{
	for (int i = 0; i < mask->n_done && !mask->before; i++)
		if (mask->edits[i].apart)
			return parent;
	return &mask->base;
}

/* The base with the first n edits; they were good once and in this order. */
static int replay(struct mask *mask, const struct config *config, int n, struct error *err)
{
	struct budget now;
	int status = budget_copy(&now, &mask->base, err);
	for (int i = 0; i < n && status == 0; i++)
		status = budget_edit(&now, config, mask->edits[i].terms, err);
	if (status < 0) {
		budget_free(&now);
		return -1;
	}
	budget_free(&mask->now);
	mask->now = now;
	mask->n_done = n;
	mask->before = false;
	return 0;
}

int mask_undo(struct mask *mask, const struct config *config, struct error *err)
{
	return mask->n_done > 0 ? replay(mask, config, mask->n_done - 1, err)
							: fail(err, "there is no edit to undo");
}

int mask_redo(struct mask *mask, const struct config *config, struct error *err)
{
	return mask->n_done < mask->n_edits ? replay(mask, config, mask->n_done + 1, err)
										: fail(err, "there is no edit to redo");
}

int mask_text(const struct mask *mask, const struct config *config, struct text *out,
			  struct error *err)
{
	struct text terms = {0};
	if (!mask->before)
		budget_terms(&mask->now, &mask->base, config, &terms);
	text_add(out, budget_name_text(mask->base.name));
	if (terms.length)
		text_format(out, ",%s", text_chars(&terms));
	int status = text_check(&terms, err);
	text_free(&terms);
	return status < 0 ? -1 : text_check(out, err);
}

/* ---- blocks ---- */

static int whole_blocks(const struct weights *weights, const struct config *config, enum axis axis,
						int layer, int width)
{
	int block = weights_block(weights, config, axis, layer);
	if (block <= 1 || width % block == 0 || width == axis_parent_width(axis, config))
		return width;
	return width < block ? block : width / block * block;
}

void mask_round(const struct budget *budget, const struct weights *weights,
				const struct config *config, struct text *terms)
{
	for (int axis = 0; axis < N_AXES; axis++) {
		bool listed = budget->layer_width[axis] && axis != AXIS_HIDDEN;
		if (!axis_in_model(axis, config))
			continue;
		for (int layer = listed ? 0 : -1; layer < (listed ? config->n_layers : 0); layer++) {
			if (listed &&
				(!axis_on_layer(axis, config->kinds[layer]) || !budget_keeps_layer(budget, layer)))
				continue;
			int width = listed ? budget->layer_width[axis][layer] : budget->width[axis];
			int whole = whole_blocks(weights, config, axis, layer, width);
			bool runs = false; // they say what is kept, not the width
			for (int i = 0; i < budget->n_runs; i++)
				runs |= budget->runs[i].axis == (enum axis)axis &&
						(layer < 0 || budget->runs[i].layer == layer);
			if (whole == width || runs)
				continue;
			text_add(terms, terms->length ? "," : "");
			if (listed)
				text_format(terms, "%d.", layer);
			text_format(terms, "%s=%d", axis_name(axis), whole);
		}
	}
}

int mask_step(const struct config *config, enum axis axis, int block)
{
	int groups = axis_groups(axis, config), eighth = axis_parent_width(axis, config) / 8;
	int unit = groups > 1 ? groups : block > 1 ? block : 1;
	return eighth < unit ? unit : eighth / unit * unit;
}

/* ---- deviations ---- */

enum mask_mark mask_mark(const struct budget *budget, const struct elastic *trained,
						 const struct config *config, enum axis axis, int layer)
{
	enum mask_mark mark = MASK_BETWEEN;
	bool runs = axis == AXIS_HIDDEN || budget_keeps_layer(budget, layer);
	for (int i = 0; i < trained->n_budgets; i++) {
		const struct budget *one = &trained->budgets[i];
		if (axis != AXIS_HIDDEN && !budget_keeps_layer(one, layer)) {
			mark = runs ? mark : MASK_TRAINED;
			continue;
		}
		if (!runs)
			continue;
		bool inside = budget_inside(one, budget, config, axis, layer);
		bool around = budget_inside(budget, one, config, axis, layer);
		if (inside && around)
			return MASK_TRAINED;
		if (!inside && !around)
			return MASK_BROKEN;
	}
	return runs || mark == MASK_TRAINED ? mark : MASK_BROKEN;
}
