#include "inspect/bisect.h"

#include "base/memory.h"
#include "core/mask.h"
#include "inspect/graft.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define NOTHING 1e-9 // nats: below it two models are the same

/* KL of the good one with the units that `take` (n_units) names. */
struct bisection {
	struct bisect *out;
	struct probe *probe;
	uint8_t *take;
	int (*measure)(struct bisection *b, double *kl, struct error *err);
	const struct budget *good;
	const struct mask_units *units;
	struct graft *graft;
};

static int measure_prefix(struct bisection *b, int n, double *kl, struct error *err)
{
	struct bisect *out = b->out;
	memset(b->take, 0, (size_t)out->n_units);
	memset(b->take, 1, (size_t)n);
	if (b->measure(b, kl, err) < 0)
		return -1;
	if (out->n_steps < (int)(sizeof out->steps / sizeof *out->steps))
		out->steps[out->n_steps++] = (struct bisect_step){n, *kl};
	return 0;
}

/* whole: the KL of all units, where it is known from another run; else NAN. */
static int search(struct bisection *b, double whole, struct error *err)
{
	struct bisect *out = b->out;
	int low = 0, high = out->n_units;
	bool known = !isnan(whole);
	if (!known && measure_prefix(b, high, &whole, err) < 0)
		return -1;
	out->kl_bad = whole;
	out->kl_after = whole;
	if (!(whole > NOTHING))
		return 0;
	while (high - low > 1) {
		int middle = low + (high - low) / 2;
		double kl;
		if (measure_prefix(b, middle, &kl, err) < 0)
			return -1;
		if (kl >= whole / 2) {
			high = middle;
			out->kl_after = kl;
		} else {
			low = middle;
			out->kl_before = kl;
		}
	}
	// never passed: do all the units make up the whole, or does something else?
	if (known && high == out->n_units && measure_prefix(b, high, &out->kl_after, err) < 0)
		return -1;
	if (out->kl_after < whole / 2)
		return 0;
	out->found = high - 1;
	memset(b->take, 0, (size_t)out->n_units);
	b->take[out->found] = 1;
	if (b->measure(b, &out->kl_solo, err) < 0)
		return -1;
	memset(b->take, 1, (size_t)out->n_units);
	b->take[out->found] = 0;
	return b->measure(b, &out->kl_all_but, err);
}

static int start(struct bisection *b, struct bisect *out, struct probe *probe,
				 const struct budget *good, struct error *err)
{
	*out = (struct bisect){.found = -1, .layer = -1};
	*b = (struct bisection){.out = out, .probe = probe, .good = good};
	probe->runs = 0;
	return probe_pin(probe, good, err);
}

/* ---- masks ---- */

static int measure_mask(struct bisection *b, double *kl, struct error *err)
{
	struct budget budget;
	struct text terms = {0};
	struct probe_result result;
	for (int i = 0; i < b->units->n; i++)
		if (b->take[i])
			text_format(&terms, "%s%s", terms.length ? "," : "", b->units->units[i].term);
	int status = text_check(&terms, err) < 0 ? -1 : budget_copy(&budget, b->good, err);
	if (status == 0) {
		if (terms.length)
			status = budget_edit(&budget, &b->probe->model->config, text_chars(&terms), err);
		if (status == 0)
			status = probe_read(b->probe, &budget, &result, err);
		budget_free(&budget);
	}
	text_free(&terms);
	*kl = status == 0 ? result.kl : 0;
	return status;
}

int bisect_masks(struct bisect *out, struct probe *probe, const struct budget *good,
				 const struct budget *bad, struct error *err)
{
	struct bisection b;
	struct mask_units units;
	if (mask_units(good, bad, &probe->model->config, &units, err) < 0)
		return -1;
	int status = start(&b, out, probe, good, err);
	b.units = &units;
	b.measure = measure_mask;
	out->n_units = units.n;
	b.take = mem_new((size_t)units.n + 1, 1, err);
	if (!b.take)
		status = -1;
	if (status == 0 && units.n == 0)
		snprintf(out->note, sizeof out->note, "they keep the same");
	else if (status == 0)
		status = search(&b, NAN, err);
	out->runs = probe->runs;
	if (status == 0 && out->found >= 0) {
		out->layer = units.units[out->found].layer;
		snprintf(out->what, sizeof out->what, "%s", units.units[out->found].term);
	} else if (status == 0 && units.n) {
		snprintf(out->note, sizeof out->note, "their %d differences change nothing", units.n);
	}
	free(b.take);
	mask_units_free(&units);
	return status;
}

/* ---- a child ---- */

static int measure_graft(struct bisection *b, double *kl, struct error *err)
{
	struct probe_result result;
	graft_take(b->graft, b->take);
	if (probe_read_slice(b->probe, &b->graft->slice, &result, err) < 0)
		return -1;
	*kl = result.kl;
	return 0;
}

static int search_child(struct bisection *b, struct graft *graft, struct error *err)
{
	struct bisect *out = b->out;
	char name[64];
	b->graft = graft;
	b->measure = measure_graft;
	out->n_units = graft->n_parts;
	b->take = mem_new((size_t)graft->n_parts, 1, err);
	if (!b->take || search(b, out->kl_bad, err) < 0)
		return -1;
	if (out->found >= 0) {
		graft_name(&graft->parts[out->found], name);
		out->layer = graft->parts[out->found].layer;
		snprintf(out->what, sizeof out->what, "%s", name);
	}
	if (out->found < 0 && out->kl_bad > NOTHING) {
		snprintf(out->note, sizeof out->note,
				 "under the parent's config.json all of the child's weights make a KL of %.3g "
				 "only: the fault is in its config.json",
				 out->kl_after);
	} else if (out->found < 0) {
		snprintf(out->note, sizeof out->note, "the child does the same");
	}
	return 0;
}

int bisect_child(struct bisect *out, struct probe *probe, const struct budget *good,
				 const struct model *child, const struct budget *bad, struct error *err)
{
	struct bisection b;
	struct slice slice = {0};
	struct graft graft = {0};
	struct probe_result result;
	struct error why = {0};
	if (child->config.vocab_size != probe->model->config.vocab_size) {
		return fail(err, "%s has a vocabulary of %d, %s one of %d", child->name,
					child->config.vocab_size, probe->model->name, probe->model->config.vocab_size);
	}
	int status = start(&b, out, probe, good, err);
	if (status == 0)
		status = slice_build(&slice, &child->weights, &child->config, bad, &backend_cpu,
							 probe->device, err);
	if (status == 0 && slice.config->n_layers == probe->model->config.n_layers)
		status = probe_read_slice(probe, &slice, &result, err);
	out->kl_bad = status == 0 ? result.kl : 0;
	if (status == 0 && graft_open(&graft, &probe->slice, &slice, &why) < 0) {
		snprintf(out->note, sizeof out->note, "they are not of one shape: %.300s", why.text);
		out->found = 0;
		out->n_units = 1;
		snprintf(out->what, sizeof out->what, "%.100s", why.text);
	} else if (status == 0) {
		status = search_child(&b, &graft, err);
	}
	out->runs = probe->runs;
	free(b.take);
	graft_close(&graft);
	slice_free(&slice);
	return status;
}

void bisect_line(const struct bisect *b, struct text *out)
{
	if (b->found < 0 || b->note[0]) {
		text_format(out, "%s (KL %.4g, %d runs)", b->note, b->kl_bad, b->runs);
		return;
	}
	text_format(out,
				"%s: KL %.4g -> %.4g of %.4g; alone %.4g, all but it %.4g%s (%d of %d, %d runs)",
				b->what, b->kl_before, b->kl_after, b->kl_bad, b->kl_solo, b->kl_all_but,
				b->kl_all_but > b->kl_bad / 2 ? ": others do it too" : "", b->found + 1, b->n_units,
				b->runs);
}
