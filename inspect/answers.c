#include "inspect/answers.h"
#include "base/memory.h"
#include "core/forward.h"
#include <stdlib.h>
#include <string.h>

struct writer {
	const struct answers_plan *plan;
	struct answers *answers;
	struct workspace *workspace;
	struct sequence sequences[ANSWERS_SIDES];
	struct pick_params params[ANSWERS_SIDES];
	struct picked picked[ANSWERS_SIDES];
	int active[ANSWERS_SIDES], n_active; // sides that still write, by lane
};

static int open_writer(struct writer *w, struct error *err)
{
	const struct answers_plan *plan = w->plan;
	const struct slice *first = plan->sides[0];
	struct config widest;

	if (plan->n_sides < 1 || plan->n_sides > ANSWERS_SIDES)
		return fail(err, "answers of %d budgets: expected 1 to %d", plan->n_sides, ANSWERS_SIDES);
	if (plan->n_prompt < 1 || plan->max_tokens < 1 || plan->n_prompt > INT32_MAX - plan->max_tokens)
		return fail(err, "a prompt of %d tokens and answers of %d: expected at least 1",
					plan->n_prompt, plan->max_tokens);
	widest = *first->config;
	for (int i = 0; i < plan->n_sides; i++) {
		const struct slice *slice = plan->sides[i];
		if (slice->config->vocab_size != first->config->vocab_size)
			return fail(err, "vocabularies differ: %s has %d tokens, %s has %d", first->budget.name,
						first->config->vocab_size, slice->budget.name, slice->config->vocab_size);
		workspace_widen(&widest, slice->config);
		w->answers->of[i].ids =
			mem_new((size_t)plan->max_tokens, sizeof *w->answers->of[i].ids, err);
		if (!w->answers->of[i].ids ||
			sequence_open(&w->sequences[i], slice->config, slice->backend, slice->device,
						  plan->kv_dtype, plan->n_prompt + plan->max_tokens, err) ||
			sequence_use(&w->sequences[i], slice, err))
			return -1;
		w->params[i] = plan->params;
		w->active[w->n_active++] = i;
	}
	w->workspace = workspace_open(&widest, first->backend, first->device, plan->n_sides,
								  plan->n_sides * PREFILL_CHUNK, false, err);
	return w->workspace ? 0 : -1;
}

static int step(const struct writer *w, int done, struct error *err)
{
	const struct answers_plan *plan = w->plan;

	if (plan->step && plan->step(plan->user, done, plan->n_prompt + plan->max_tokens))
		return fail(err, "stopped after %d tokens", done);
	return 0;
}

static int read_prompt(struct writer *w, struct error *err)
{
	const struct answers_plan *plan = w->plan;

	for (int at = 0, n; at < plan->n_prompt; at += n) {
		struct lane lanes[ANSWERS_SIDES];
		bool last = plan->n_prompt - at <= PREFILL_CHUNK;
		n = last ? plan->n_prompt - at : PREFILL_CHUNK;
		for (int i = 0; i < plan->n_sides; i++)
			lanes[i] = (struct lane){.sequence = &w->sequences[i],
									 .tokens = plan->prompt + at,
									 .n_tokens = n,
									 .logits = last ? LOGITS_LAST : LOGITS_NONE};
		if (forward(w->workspace, lanes, plan->n_sides, last ? w->params : NULL, w->picked, err) ||
			step(w, at + n, err))
			return -1;
	}
	return 0;
}

static bool stops(const struct answers_plan *plan, int32_t id)
{
	for (int i = 0; i < plan->n_stop_ids; i++)
		if (plan->stop_ids[i] == id)
			return true;
	return false;
}

/* Takes what was picked; sides that have ended leave the lanes. */
static void take(struct writer *w)
{
	int kept = 0;

	for (int lane = 0; lane < w->n_active; lane++) {
		struct answer *answer = &w->answers->of[w->active[lane]];
		answer->ids[answer->n++] = w->picked[lane].id;
		answer->stopped = stops(w->plan, w->picked[lane].id);
		if (!answer->stopped && answer->n < w->plan->max_tokens)
			w->active[kept++] = w->active[lane];
	}
	w->n_active = kept;
}

static int write_on(struct writer *w, struct error *err)
{
	for (int n = 1;; n++) {
		struct lane lanes[ANSWERS_SIDES];
		take(w);
		if (!w->n_active)
			return 0;
		for (int lane = 0; lane < w->n_active; lane++) {
			int i = w->active[lane];
			const struct answer *answer = &w->answers->of[i];
			lanes[lane] = (struct lane){.sequence = &w->sequences[i],
										.tokens = &answer->ids[answer->n - 1],
										.n_tokens = 1,
										.logits = LOGITS_LAST};
		}
		if (forward(w->workspace, lanes, w->n_active, w->params, w->picked, err) ||
			step(w, w->plan->n_prompt + n, err))
			return -1;
	}
}

int answers_write(struct answers *answers, const struct answers_plan *plan, struct error *err)
{
	struct writer w = {.plan = plan, .answers = answers};
	int result;

	*answers = (struct answers){0};
	result = open_writer(&w, err) || read_prompt(&w, err) || write_on(&w, err) ? -1 : 0;
	for (int i = 0; i < ANSWERS_SIDES; i++)
		sequence_close(&w.sequences[i]);
	workspace_close(w.workspace);
	if (result)
		answers_free(answers);
	return result;
}

void answers_free(struct answers *answers)
{
	for (int i = 0; i < ANSWERS_SIDES; i++)
		free(answers->of[i].ids);
	*answers = (struct answers){0};
}

int answers_part(const struct answer *a, const struct answer *b)
{
	int n = a->n < b->n ? a->n : b->n;

	for (int i = 0; i < n; i++)
		if (a->ids[i] != b->ids[i])
			return i;
	return a->n == b->n ? -1 : n;
}
