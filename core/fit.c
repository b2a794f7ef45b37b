#include "core/fit.h"
#include "base/size.h"
#include "core/module.h"
#include "core/pack.h"

#define LEAST_CONTEXT 256 // tokens that are worth being offered

static uint64_t sum(uint64_t a, uint64_t b)
{
	return a > UINT64_MAX - b ? UINT64_MAX : a + b;
}

static uint64_t state_bytes(const struct footprint *rest)
{
	return sum(sum(rest->kv, rest->ssm), sum(rest->conv, rest->snapshots));
}

static bool room_for(const struct fit *fit, uint64_t weight_bytes)
{
	return sum(weight_bytes, footprint_bytes(&fit->rest)) <= fit->free_bytes;
}

bool fit_has_room(const struct fit *fit)
{
	return room_for(fit, fit->weight_bytes);
}

/* ---- what is missing ---- */

static void add_dtype(void *user, const struct module *module)
{
	uint64_t *bytes = user;
	bytes[module->matrix->dtype] += module_bytes(module);
}

/* The format of most of its bytes. */
static const char *format_of(const struct slice *plan)
{
	uint64_t bytes[N_DTYPES] = {0};
	int most = 0;
	modules_each(plan, add_dtype, bytes);
	for (int i = 1; i < N_DTYPES; i++)
		most = bytes[i] > bytes[most] ? i : most;
	return dtype_name((enum dtype)most);
}

void fit_missing(const struct fit *fit, struct text *out)
{
	char a[32], b[32], c[32], d[32], e[32];
	uint64_t state = state_bytes(&fit->rest), all = footprint_bytes(&fit->rest);
	uint64_t needed = sum(fit->weight_bytes, all);
	text_format(out, "%s (%s) need%s %s", fit->whole ? "all budgets" : fit->plan->budget.name,
				format_of(fit->plan), fit->whole ? "" : "s", size_text(fit->weight_bytes, a));
	if (all > 0)
		text_format(out, ", %s of state at %d tokens and %s to work in", size_text(state, b),
					fit->context, size_text(all - state, c));
	text_format(out, ", the card has %s of %s left", size_text(fit->free_bytes, d),
				size_text(fit->total_bytes, e));
	if (needed > fit->free_bytes)
		text_format(out, ": %s are missing", size_text(needed - fit->free_bytes, a));
}

/* ---- what would fit ---- */

/* The largest other budget of the file that has room alone. */
static void other_budget(const struct fit *fit, struct text *out)
{
	const struct model *model = fit->model;
	const char *name = NULL;
	uint64_t most = 0;
	for (int i = 0; i < model->elastic.n_budgets; i++) {
		const struct budget *budget = &model->elastic.budgets[i];
		struct slice plan;
		if (slice_build(&plan, &model->weights, &model->config, budget, NULL, NULL, NULL))
			continue;
		uint64_t bytes = pack_bytes(&plan);
		if (room_for(fit, bytes) && bytes > most) {
			most = bytes;
			name = budget->name;
		}
		slice_free(&plan);
	}
	char size[32];
	if (name)
		text_format(out, "; %s alone fits with %s", name, size_text(most, size));
	else
		text_add(out, "; no budget of the file fits");
}

static void other_precision(const struct fit *fit, struct text *out)
{
	struct precision_cost costs[N_PRECISIONS];
	bool any = false;
	precision_costs(fit->plan, costs);
	for (int p = PRECISION_FP8; p < N_PRECISIONS; p++) {
		if (costs[p].bytes >= costs[PRECISION_STORED].bytes || !room_for(fit, costs[p].bytes))
			continue;
		text_format(out, "%s%s%s", any ? " or " : ", ", any ? "" : fit->plan->budget.name,
					any ? "" : " would fit in ");
		text_add(out, precision_name((enum precision)p));
		any = true;
	}
}

static void other_context(const struct fit *fit, struct text *out)
{
	uint64_t kv = fit->rest.kv, rest = footprint_bytes(&fit->rest) - kv;
	uint64_t needed = sum(fit->weight_bytes, rest);
	uint64_t per_token = fit->context > 0 ? kv / (uint64_t)fit->context + 1 : 0;
	if (per_token == 0 || needed >= fit->free_bytes)
		return;
	uint64_t tokens = (fit->free_bytes - needed) / per_token;
	if (tokens >= LEAST_CONTEXT && tokens < (uint64_t)fit->context)
		text_format(out, ", --ctx %d fits", (int)tokens);
}

void fit_instead(const struct fit *fit, struct text *out)
{
	other_budget(fit, out);
	other_precision(fit, out);
	other_context(fit, out);
}
