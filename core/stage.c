#include "core/stage.h"
#include "base/clock.h"
#include "base/memory.h"
#include "base/size.h"
#include <stdlib.h>
#include <string.h>

static int plan(const struct stage *stage, const struct budget *budget, struct slice *out,
				struct error *err)
{
	return slice_build(out, &stage->model->weights, &stage->model->config, budget, NULL, NULL, err);
}

/* ---- room ---- */

static struct fit fit_of(const struct stage *stage, const struct device_options *options)
{
	struct fit fit = {.model = stage->model, .context = stage->context};
	struct footprint_plan plan = {.context = stage->context,
								  .kv_dtype = stage->kv_dtype,
								  .snapshot_bytes = options->snapshot_bytes,
								  .n_tokens = stage->backend->chunk(stage->device),
								  .math = options->math,
								  .scratch_bytes = stage->backend->scratch_bytes};
	footprint_plan_chat(&plan);
	footprint_of(&fit.rest, &stage->model->config, &plan);
	return fit;
}

/* Whether the chosen budget is to be alone on the card. -1: that has no room either. */
static int place(struct stage *stage, const struct stage_wish *wish, const struct slice *parent,
				 const struct slice *chosen, struct text *notices, struct error *err)
{
	struct fit fit = fit_of(stage, &wish->options->device);
	struct text why = {0};
	if (!stage->backend->room(stage->device, &fit.free_bytes, &fit.total_bytes))
		return 0;
	stage->room = fit;
	if (!(stage->snapshot_room = mem_new(1, sizeof *stage->snapshot_room, err)))
		return -1;
	stage->snapshot_room->limit_bytes = fit.rest.snapshots;
	fit.whole = true;
	fit.plan = parent;
	fit.weight_bytes = upload_missing(&stage->upload, parent);
	fit.rest.scratch += card_block_bytes(fit.weight_bytes);
	if (fit_has_room(&fit) && !wish->options->device.alone)
		return 0;
	if (!wish->options->device.alone)
		fit_missing(&fit, &why);
	fit = stage->room;
	fit.plan = chosen;
	fit.weight_bytes = pack_bytes(chosen);
	stage->alone = fit_has_room(&fit);
	if (stage->alone) {
		char size[32];
		text_format(
			notices,
			"%s is alone on the card (%s): another budget is uploaded when it is chosen%s%s\n",
			chosen->budget.name, size_text(fit.weight_bytes, size), why.length ? "; " : "",
			text_chars(&why));
	} else {
		text_clear(&why);
		fit_missing(&fit, &why);
		fit_instead(&fit, &why);
		fail(err, "%s", text_chars(&why));
	}
	text_free(&why);
	return stage->alone ? 0 : -1;
}

/* The budget that will write, as far as the request says; else the file's. */
static int chosen_plan(const struct stage *stage, const struct turn_settings *settings,
					   const struct slice *parent, struct slice *out, struct error *err)
{
	const char *names[] = {settings->policy ? settings->think : settings->budget,
						   settings->policy ? settings->answer : ""};
	*out = (struct slice){0};
	for (int i = 0; i < 2; i++) { // of two the larger one
		struct budget budget = {0};
		struct slice other;
		if (!*names[i] || model_budget(stage->model, names[i], &budget, NULL))
			continue;
		if (plan(stage, &budget, &other, NULL) == 0) {
			bool larger = other.cost.bytes > out->cost.bytes;
			slice_free(larger ? out : &other);
			*out = larger ? other : *out;
		}
		budget_free(&budget);
	}
	return out->config ? 0 : plan(stage, &parent->budget, out, err);
}

static int look_for_room(struct stage *stage, const struct stage_wish *wish, struct text *notices,
						 char first[BUDGET_NAME_BYTES], struct error *err)
{
	const struct elastic *elastic = &stage->model->elastic;
	const struct budget *budget =
		&elastic->budgets[elastic_find(elastic, elastic_default(elastic))];
	struct slice parent = {0}, chosen = {0};
	int failed = plan(stage, budget, &parent, err) ||
				 chosen_plan(stage, &wish->request->settings, &parent, &chosen, err) ||
				 place(stage, wish, &parent, &chosen, notices, err);
	if (!failed && stage->alone)
		memcpy(first, chosen.budget.name, BUDGET_NAME_BYTES);
	slice_free(&parent);
	slice_free(&chosen);
	return failed ? -1 : 0;
}

/* ---- opening ---- */

/* Decode needs a lane for each sequence, prefill a chunk of one. */
static int prepare(struct stage *stage, const struct stage_wish *wish, struct text *notices,
				   struct error *err)
{
	const struct config *config = &stage->model->config;
	int wished = wish->options->context;
	int context = wished > 0 ? wished : config->max_position_embeddings;
	char first[BUDGET_NAME_BYTES] = "";
	if (wished <= 0 && context > STAGE_MAX_CONTEXT) {
		text_format(notices, "context: %d of the model's %d tokens; --ctx asks for more\n",
					STAGE_MAX_CONTEXT, context);
		context = STAGE_MAX_CONTEXT;
	} else if (context > config->max_position_embeddings) {
		text_format(notices, "context: %d tokens, the model was made for %d\n", context,
					config->max_position_embeddings);
	}
	stage->context = context;
	if (turn_rules_init(&stage->rules, config, stage->model->tokenizer, err) ||
		look_for_room(stage, wish, notices, first, err))
		return -1;
	int chunk = stage->backend->chunk(stage->device);
	stage->workspace = workspace_open(config, stage->backend, stage->device, MAX_SEQUENCES,
									  chunk > MAX_SEQUENCES ? chunk : MAX_SEQUENCES, false, err);
	return stage->workspace && stage_slice(stage, first, err) ? 0 : -1;
}

int stage_open(struct stage *stage, const struct stage_wish *wish, struct text *notices,
			   struct error *err)
{
	const struct request *request = wish->request;
	struct model *model = wish->model ? wish->model : request->model;
	struct model_options how = {.budgets_file = request->budgets_file, .lenient = request->lenient};
	*stage = (struct stage){.backend = wish->upload.backend,
							.device = wish->upload.device,
							.upload = wish->upload,
							.kv_dtype = wish->options->device.kv_dtype};
	stage->model = model ? model_retain(model) : model_open(request->directory, &how, err);
	if (!stage->model || prepare(stage, wish, notices, err)) {
		stage_close(stage);
		return -1;
	}
	return 0;
}

int stage_sequence(const struct stage *stage, int context, struct sequence *out, struct error *err)
{
	if (sequence_open(out, &stage->model->config, stage->backend, stage->device, stage->kv_dtype,
					  context, err))
		return -1;
	out->snapshot_room = stage->snapshot_room;
	return 0;
}

void stage_close(struct stage *stage)
{
	for (size_t i = 0; i < stage->n_slices; i++) {
		slice_free(&stage->slices[i]->slice);
		free(stage->slices[i]);
	}
	free(stage->slices);
	free(stage->snapshot_room);
	pack_close(&stage->pack);
	workspace_close(stage->workspace);
	if (stage->model)
		upload_forget(&stage->upload, &stage->model->checkpoint);
	model_release(stage->model);
	*stage = (struct stage){0};
}

/* ---- slices ---- */

/* Over the pack if it holds the budget, else a plan. */
static void build_again(struct stage *stage, struct slice *slice)
{
	struct slice fresh = {0};
	if (plan(stage, &slice->budget, &fresh, NULL))
		return; // it stays as it is: a plan that nobody runs
	struct slice over = {0};
	if (pack_holds(&stage->pack, &fresh) &&
		slice_build_packed(&over, &stage->pack, &slice->budget, NULL) == 0) {
		slice_free(&fresh);
		fresh = over;
	}
	slice_free(slice);
	*slice = fresh;
}

/* -1: there is no room for it even in the place of what is there. *beside: for both. */
static int room_for_pack(const struct stage *stage, const struct slice *wanted, bool *beside,
						 struct error *err)
{
	uint64_t free_now, total;
	struct fit fit = stage->room;
	fit.plan = wanted;
	fit.weight_bytes = pack_bytes(wanted) + stage->pack.bytes;
	*beside = fit_has_room(&fit);
	fit.weight_bytes -= stage->pack.bytes;
	if (fit_has_room(&fit) && stage->backend->room(stage->device, &free_now, &total) &&
		free_now + stage->pack.bytes < fit.weight_bytes) { // others have come to the card
		fit.rest = (struct footprint){0};
		fit.free_bytes = free_now + stage->pack.bytes;
	}
	if (fit_has_room(&fit))
		return 0;
	struct text why = {0};
	fit_missing(&fit, &why);
	fit_instead(&fit, &why);
	fail(err, "%s", text_chars(&why));
	text_free(&why);
	return -1;
}

/* This budget takes the place of the one that is alone on the card. While both have room the old
 * one stays until the new one is there. plan is taken over. */
static int replace_pack(struct stage *stage, struct slice *wanted, struct error *err)
{
	struct pack pack, old = stage->pack;
	bool beside;
	if (room_for_pack(stage, wanted, &beside, err)) {
		slice_free(wanted);
		return -1;
	}
	if (!beside) {
		stage->pack = (struct pack){0};
		for (size_t i = 0; i < stage->n_slices; i++)
			build_again(stage, &stage->slices[i]->slice);
		pack_close(&old);
	}
	if (pack_open(&pack, wanted, &stage->upload, err))
		return -1;
	stage->pack = pack;
	for (size_t i = 0; i < stage->n_slices; i++)
		build_again(stage, &stage->slices[i]->slice);
	pack_close(&old);
	return 0;
}

/* Makes `slice` one that runs: what it lacks on the device is brought there. */
static int make(struct stage *stage, const struct budget *budget, struct slice *slice,
				struct error *err)
{
	struct slice planned;
	if (plan(stage, budget, &planned, err))
		return -1;
	if (stage->alone && pack_holds(&stage->pack, &planned))
		slice_free(&planned);
	else if (stage->alone && replace_pack(stage, &planned, err))
		return -1;
	if (stage->alone)
		return slice_build_packed(slice, &stage->pack, budget, err);
	int failed = upload_whole(&stage->upload, &planned, err);
	slice_free(&planned);
	return failed ? -1
				  : slice_build(slice, &stage->model->weights, &stage->model->config, budget,
								stage->backend, stage->device, err);
}

static struct stage_slice *build(struct stage *stage, const struct budget *budget,
								 struct error *err)
{
	struct stage_slice *made = mem_new(1, sizeof *made, err);
	if (!made ||
		mem_grow(&stage->slices, &stage->slices_capacity, stage->n_slices + 1,
				 sizeof *stage->slices, err) ||
		make(stage, budget, &made->slice, err)) {
		free(made);
		return NULL;
	}
	return stage->slices[stage->n_slices++] = made;
}

/* One that exists, ready to run. */
static struct stage_slice *ready(struct stage *stage, struct stage_slice *found, struct error *err)
{
	struct slice fresh;
	if (found->slice.backend)
		return found;
	if (make(stage, &found->slice.budget, &fresh, err))
		return NULL;
	slice_free(&found->slice);
	found->slice = fresh;
	return found;
}

struct stage_slice *stage_slice(struct stage *stage, const char *name, struct error *err)
{
	struct budget budget = {0};
	if (!*name)
		name = elastic_default(&stage->model->elastic);
	for (size_t i = 0; i < stage->n_slices; i++)
		if (!strcmp(stage->slices[i]->slice.budget.name, name))
			return ready(stage, stage->slices[i], err);
	if (model_budget(stage->model, name, &budget, err))
		return NULL;
	struct stage_slice *found = NULL; // the same budget in another spelling
	for (size_t i = 0; i < stage->n_slices && !found; i++)
		if (!strcmp(stage->slices[i]->slice.budget.name, budget.name))
			found = stage->slices[i];
	found = found ? ready(stage, found, err) : build(stage, &budget, err);
	budget_free(&budget);
	return found;
}

uint64_t stage_step_ns(struct stage *stage, struct stage_slice *slice)
{
	enum { FEWEST = 3, MOST = 64, LONGEST_NS = 10000000 };
	struct sequence sequence;
	uint64_t start = clock_ns();
	struct pick_params params = {.top_p = 1, .forced = -1};
	if (slice->step_ns > 0 || stage_sequence(stage, MOST, &sequence, NULL))
		return slice->step_ns;
	// the fastest counts: the first ones wake threads and fill caches, and others use the machine
	// too
	for (int i = 0; i < MOST && (i < FEWEST || clock_ns() - start < LONGEST_NS); i++) {
		int32_t id = 0;
		struct picked picked;
		struct lane lane = {
			.sequence = &sequence, .tokens = &id, .n_tokens = 1, .logits = LOGITS_LAST};
		uint64_t began = clock_ns();
		if (sequence_use(&sequence, &slice->slice, NULL) ||
			forward(stage->workspace, &lane, 1, &params, &picked, NULL))
			break;
		uint64_t took = clock_ns() - began;
		if (slice->step_ns == 0 || took < slice->step_ns)
			slice->step_ns = took;
	}
	sequence_close(&sequence);
	return slice->step_ns;
}
